"""Nerfstudio's data manager of whole pictures, with a look at the data before anything is trained on it."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, NamedTuple, Optional, cast

import torch
from jaxtyping import Bool, Shaped
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.datamanagers.full_images_datamanager import FullImageDatamanager
from nerfstudio.data.dataparsers.base_dataparser import DataParser
from rich.progress import track
from torch import Tensor

from nerfstudio_prune.data.lenses import PinholeDataset
from nerfstudio_prune.data.points import colmap_points, without_questions
from nerfstudio_prune.data.views import CheckedViews

Split = Literal["train", "eval"]
FARTHEST_POINTS = 8
"""Views that the host's farthest point sampling needs at least: the leaves of its tree."""


class View(NamedTuple):
    """One view, as Gaussians are trained on it and measured by it."""

    camera: Cameras
    """Pinhole camera without distortion, of shape [1], on the manager's device."""
    image: Shaped[Tensor, "height width channels"]
    """Its picture on the manager's device, of the type of `cache_images_type`: bytes, or floats in [0, 1]. Four
    channels where the data set keeps opacity."""
    pixels: Optional[Bool[Tensor, "height width"]]
    """The pixels that count, on the manager's device; None where all of them do."""


class CheckedImageDataManager(CheckedViews, FullImageDatamanager[PinholeDataset]):
    """Gives whole views of a data set, once they have been looked at.

    Cameras are pinhole cameras from the start, and pictures and masks are straightened as they are loaded. Points of
    the data set stand in `train_dataparser_outputs.metadata`, where the host's pipeline takes seed points from.
    """

    train_dataset: PinholeDataset
    eval_dataset: PinholeDataset

    @property
    def dataparser(self) -> DataParser:
        """The data set's parser."""
        return self._dataparser

    @dataparser.setter
    def dataparser(self, parser: DataParser) -> None:
        # The host makes the parser and asks it for views in one go; this is where one gets between.
        self._dataparser = without_questions(parser)

    def create_train_dataset(self) -> PinholeDataset:
        """Training views, and the points beside them.

        Raises:
            ValueError: If there are no views, their cameras are unusable, or points cannot be read.
        """
        dataset = cast(PinholeDataset, super().create_train_dataset())
        self.train_dataparser_outputs.metadata.update(colmap_points(self.dataparser, self.train_dataparser_outputs))
        return dataset

    def sample_train_cameras(self) -> list[int]:
        """Order of the training views for one round.

        Raises:
            ValueError: If there are too few for farthest point sampling.
        """
        views, strategy = len(self.train_dataset), self.config.train_cameras_sampling_strategy
        if strategy == "fps" and views < FARTHEST_POINTS:
            raise ValueError(
                f"pipeline.datamanager.train_cameras_sampling_strategy fps needs {FARTHEST_POINTS} training views or "
                f"more, got {views}; give random"
            )
        return super().sample_train_cameras()

    def look(self) -> None:
        """Looks at the headers of all pictures and counts the pixels of the masks.

        Raises:
            ValueError: If a picture cannot be trained on, or the masks leave nothing.
        """
        super().look()
        # The host has drawn the first order of views already, of all of them.
        for name in ("random_generator", "train_unsampled_epoch_count"):
            if hasattr(self, name):
                delattr(self, name)
        self.train_unseen_cameras = self.sample_train_cameras()
        self.eval_unseen_cameras = list(range(len(self.eval_dataset)))

    def view_data(self, split: Split, view: int) -> View:
        """One view, from the same cache as training and evaluation.

        Args:
            split: Which views.
            view: Index of the view in its data set.
        """
        cache, dataset = {
            "train": lambda: (self.cached_train, self.train_dataset),
            "eval": lambda: (self.cached_eval, self.eval_dataset),
        }[split]()
        data = cache[view]
        mask = data.get("mask")
        return View(
            dataset.cameras[view : view + 1].to(self.device),
            data["image"].to(self.device),
            None if mask is None else mask[..., 0].to(self.device),
        )

    def _load_images(self, split: Split, cache_images_device: Literal["cpu", "gpu"]) -> list[dict[str, Tensor]]:
        """All views of a split, straightened, where the options want them.

        The host's own pins memory, which fails without a GPU, and reads with two threads whatever is asked for.
        """
        dataset = self.train_dataset if split == "train" else self.eval_dataset

        def load(view: int) -> dict[str, Any]:
            data = dataset.get_data(view, image_type=self.config.cache_images_type)
            return {key: self._stored(value, cache_images_device) for key, value in data.items()}

        with ThreadPoolExecutor(self.config.max_thread_workers) as pool:
            loaded = pool.map(load, range(len(dataset)))
            views = list(track(loaded, f"Loading {split} views", len(dataset), transient=True))
        at = self.device if cache_images_device == "gpu" else "cpu"
        self.train_cameras = self.train_dataset.cameras.to(at)
        return views

    def _stored(self, value: Any, cache_images_device: Literal["cpu", "gpu"]) -> Any:
        """A tensor where the cache keeps it; anything else as it is."""
        if not isinstance(value, Tensor):
            return value
        if cache_images_device == "gpu":
            return value.to(self.device)
        return value.pin_memory() if torch.cuda.is_available() else value
