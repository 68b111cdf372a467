"""The views of a finished run of Gaussians."""

from copy import deepcopy
from pathlib import Path
from typing import Any, Optional

import torch
from nerfstudio.engine.trainer import TrainerConfig

from nerfstudio_prune.data.image_datamanager import CheckedImageDataManager, Split
from nerfstudio_prune.gaussians.contributions import PixelsOfView
from nerfstudio_prune.pack.quality import PhotoView
from nerfstudio_prune.splats.model import SplatPruneModel
from nerfstudio_prune.splats.views import view_of


class RunViews:
    """Training and test views, as the run was trained on and measured by; pictures of bent lenses are straightened.

    Args:
        config: The run's configuration.
        data: Where the data are now. None: where they were.
        device: Where the model lives.

    Raises:
        ValueError: If they cannot be read; names the path.
    """

    def __init__(self, config: TrainerConfig, data: Optional[Path], device: torch.device) -> None:
        options: Any = deepcopy(config.pipeline.datamanager)
        options._target = CheckedImageDataManager
        known = data or options.data  # the latter is the host's other name for the parser's
        if known is not None:
            options.dataparser.data = known
        try:
            self._manager: CheckedImageDataManager = options.setup(device=device, test_mode="test")
        except Exception as error:  # the host's parsers raise anything
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"{getattr(options.dataparser, 'data', 'data')}: {reason}") from error
        self._device = device

    def set_behind(self, model: SplatPruneModel) -> None:
        """Lets a model show what lies behind the Gaussians in these data.

        Args:
            model: The model.
        """
        blended_with = self._manager.train_dataparser_outputs.alpha_color
        if model.config.background_color == "auto" and blended_with is not None:
            model.set_behind(blended_with)

    def cameras(self) -> list[PixelsOfView]:
        """All training views, and which of their pixels count."""
        found = []
        for view in range(len(self._manager.train_dataset)):
            data = self._manager.view_data("train", view)
            found.append((view_of(data.camera.to(self._device)), data.pixels))
        return found

    def photos(self, split: Split, wanted: Optional[int]) -> list[PhotoView]:
        """Some views of a split, evenly spaced.

        Args:
            split: Which views.
            wanted: How many; all, if there are fewer. None: all.
        """
        dataset = self._manager.train_dataset if split == "train" else self._manager.eval_dataset
        count = len(dataset) if wanted is None else min(wanted, len(dataset))
        return [self._photo(split, i * len(dataset) // count) for i in range(count)]

    def _photo(self, split: Split, view: int) -> PhotoView:
        data = self._manager.view_data(split, view)
        return PhotoView(data.camera, data.image, data.pixels, view)
