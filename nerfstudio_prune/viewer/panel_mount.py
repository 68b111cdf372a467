"""Where the host's viewer finds the pruning panel. Nothing of the panel is imported before there is a viewer."""

from typing import TYPE_CHECKING

from nerfstudio.utils.rich_utils import CONSOLE
from nerfstudio.viewer.viewer_elements import ViewerControl
from rich.markup import escape

if TYPE_CHECKING:
    from nerfstudio.viewer.viewer import Viewer

    from nerfstudio_prune.viewer.session import PrunedPipeline


class PanelMount(ViewerControl):
    """The viewer calls `_setup` of every `ViewerControl` that is an attribute of the pipeline, once it stands.

    Args:
        pipeline: Pipeline that the panel shows and steers.
    """

    def __init__(self, pipeline: "PrunedPipeline") -> None:
        self.pipeline = pipeline
        self.mounted = False
        """Whether there is a panel."""

    def _setup(self, viewer: "Viewer") -> None:
        super()._setup(viewer)
        try:
            from nerfstudio_prune.viewer.mounting import mount_panel  # noqa: PLC0415  only with a viewer

            mount_panel(viewer, self.pipeline)
            self.mounted = True
        except Exception as error:  # a training is worth more than its panel
            CONSOLE.print(f"[red]The viewer goes on without a pruning panel: {escape(repr(error))}")
