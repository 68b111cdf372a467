"""Where the host's viewer finds what a method adds to it. Nothing of that is imported before there is a viewer."""

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from nerfstudio.utils.rich_utils import CONSOLE
from nerfstudio.viewer.viewer_elements import ViewerControl
from rich.markup import escape

if TYPE_CHECKING:
    from nerfstudio.viewer.viewer import Viewer

    from nerfstudio_prune.viewer.folder import Folder
    from nerfstudio_prune.viewer.session import PrunedPipeline


class Mount(ViewerControl):
    """The viewer calls `_setup` of every `ViewerControl` that is an attribute of the pipeline, once it stands.

    Args:
        what: What is put into the viewer, for a person.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.mounted = False
        """Whether it is in the viewer."""
        self.panel: Any = None
        """What was put there."""

    def _setup(self, viewer: "Viewer") -> None:
        super()._setup(viewer)
        try:
            self.panel = self._mount(viewer)
            self.mounted = True
        except Exception as error:  # a training is worth more than its panel
            CONSOLE.print(f"[red]The viewer goes on without {self.what}: {escape(repr(error))}")

    @abstractmethod
    def _mount(self, viewer: "Viewer") -> Any:
        """Puts it there."""


class PanelMount(Mount):
    """Where the viewer finds the pruning panel.

    Args:
        pipeline: Pipeline that the panel shows and steers.
    """

    def __init__(self, pipeline: "PrunedPipeline") -> None:
        super().__init__("a pruning panel")
        self.pipeline = pipeline

    def _mount(self, viewer: "Viewer") -> Any:
        from nerfstudio_prune.viewer.mounting import mount_panel  # noqa: PLC0415  only with a viewer

        return mount_panel(viewer, self.pipeline)


class FolderMount(Mount):
    """Where the viewer finds the folder of a method that is not steered.

    Args:
        folder: The folder.
        datamanager: The host's data manager.
    """

    def __init__(self, folder: "Folder", datamanager: Any) -> None:
        super().__init__(f"the folder {folder.title}")
        self.folder = folder
        self.datamanager = datamanager

    def _mount(self, viewer: "Viewer") -> Any:
        from nerfstudio_prune.viewer.mounting import mount_folder  # noqa: PLC0415  only with a viewer

        return mount_folder(viewer, self.folder, self.datamanager)
