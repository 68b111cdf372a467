"""A look at the views of a data set before anything is trained on them, whichever data manager loads them."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Union

import torch
from nerfstudio.data.datamanagers.base_datamanager import DataManager
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataparserOutputs
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

from nerfstudio_prune.data.folders import check_cameras, explain, first_names
from nerfstudio_prune.data.pictures import check_pictures
from nerfstudio_prune.data.pixels import CountedDataset, count_pixels


class CheckedViews(DataManager):
    """What stands before a data manager of the host: it loads views once they have been looked at.

    What can be trained on is trained on, evaluation views or not; what cannot is an error before any picture is loaded.

    Args:
        config: Configuration of the host's data manager.
        device: Where views are wanted.
        test_mode: 'val' and 'test' load those views for evaluation; 'inference' loads no picture.
        world_size: Number of processes.
        local_rank: Rank of this process.
        **kwargs: For the host.

    Raises:
        ValueError: If the data set cannot be read or trained on. Names the file and what to do.
    """

    config: Any
    dataparser: DataParser
    dataset_type: type[CountedDataset]
    train_dataset: CountedDataset
    eval_dataset: CountedDataset
    test_mode: str
    test_split: str

    no_evaluation = ""
    """Why there are no evaluation views; empty if there are."""

    def __init__(
        self,
        config: Any,
        device: Union[torch.device, str] = "cpu",
        test_mode: Literal["test", "val", "inference"] = "val",
        world_size: int = 1,
        local_rank: int = 0,
        **kwargs: Any,
    ) -> None:
        try:
            super().__init__(config, device, test_mode, world_size, local_rank, **kwargs)  # type: ignore[call-arg]
        except Exception as error:
            if hasattr(self, "train_dataparser_outputs"):
                raise  # the training views were read, so that it is not the parser's
            raise ValueError(self._explained(error)) from error

    def create_train_dataset(self) -> CountedDataset:
        """Training views.

        Raises:
            ValueError: If there are none, or their cameras are unusable.
        """
        self.train_dataparser_outputs = self._usable(self.train_dataparser_outputs)
        if not self.train_dataparser_outputs.image_filenames:
            raise ValueError(f"--data {self._data}: no training views; give more frames, or split them in another way")
        return self._dataset(self.train_dataparser_outputs)

    def create_eval_dataset(self) -> CountedDataset:
        """Evaluation views; none, with a line on the console, if the data set has no such split.

        Raises:
            ValueError: If the split is there and cannot be read.
        """
        parser = type(self.dataparser).__name__
        reason = f"{parser} gives none for the split {self.test_split}"
        try:
            outputs = self.dataparser.get_dataparser_outputs(split=self.test_split)
        except Exception as error:
            if not _is_missing_split(error):
                raise ValueError(self._explained(error)) from error
            reason = f"split {self.test_split}: {str(error).rstrip('.')}"
            outputs = self.train_dataparser_outputs
            outputs = replace(outputs, image_filenames=[], mask_filenames=None, cameras=outputs.cameras[0:0])
        if not outputs.image_filenames:
            self._give_up_evaluation(reason)
        return self._dataset(self._usable(outputs))

    def look(self) -> None:
        """Looks at the headers of all pictures and counts the pixels of the masks.

        Raises:
            ValueError: If a picture cannot be trained on, or the masks leave nothing.
        """
        check_pictures([self.train_dataset, self.eval_dataset])
        self._leave_masked_out()

    def setup_train(self) -> None:
        """Looks at all views and loads those for training."""
        self.look()
        super().setup_train()

    def _leave_masked_out(self) -> None:
        """Leaves out views without a pixel that counts, and says how many pixels do."""
        parts = []
        if self.train_dataset.limited:
            self.train_dataset, part = _with_pixels(self.train_dataset, "training")
            parts.append(part)
            if len(self.train_dataset) == 0:
                raise ValueError(f"--data {self._data}: {part}; some training view must have a pixel that counts")
        if self.eval_dataset.limited and len(self.eval_dataset) > 0:
            self.eval_dataset, part = _with_pixels(self.eval_dataset, "evaluation")
            parts.append(part)
            if len(self.eval_dataset) == 0:
                self._give_up_evaluation(part)
        if parts:
            CONSOLE.print(escape(f"{', '.join(parts)}. Training, scores and metrics count no others."))

    @property
    def _data(self) -> Path:
        return Path(self.config.dataparser.data)

    def _dataset(self, outputs: DataparserOutputs) -> CountedDataset:
        return self.dataset_type(outputs, self.config.camera_res_scale_factor)

    def _usable(self, outputs: DataparserOutputs) -> DataparserOutputs:
        """What a parser gave, with cameras that rays can be drawn from."""
        outputs = _with_a_camera_each(self.dataparser, outputs)
        check_cameras(outputs, self._data)
        if outputs.metadata.get("mask_color") and outputs.mask_filenames is None and outputs.image_filenames:
            raise ValueError(f"mask-color fills what masks leave out, and --data {self._data} has no masks")
        return outputs

    def _explained(self, error: Exception) -> str:
        return explain(self._data, type(self.config.dataparser).__name__.removesuffix("Config"), error)

    def _give_up_evaluation(self, reason: str) -> None:
        self.no_evaluation = reason
        if self.test_mode != "inference":
            CONSOLE.print(
                f"[yellow]No evaluation views: {escape(reason)}. A training goes on, without PSNR before and after a "
                "cut or evaluation in TensorBoard; ns-eval and ns-prune bench have nothing to measure."
            )


def _is_missing_split(error: Exception) -> bool:
    """Whether a parser failed because the data set has no views for a split; what is there and broken is another
    matter."""
    if isinstance(error, FileNotFoundError):
        return Path(error.filename or "").suffix == ".json"
    return isinstance(error, IndexError) or ("filenames for split" in str(error) and "missing" in str(error))


def _with_a_camera_each(parser: DataParser, outputs: DataparserOutputs) -> DataparserOutputs:
    """The views with one camera each.

    The host's parser of instant-ngp data takes a split of one view for an index, and its camera loses an axis. Of all
    frames together it reads the cameras well.
    """
    count = len(outputs.image_filenames)
    if tuple(outputs.cameras.shape) == (count,):
        return outputs
    if count > 0 and hasattr(parser.config, "eval_mode"):
        every = replace(parser.config, eval_mode="all").setup().get_dataparser_outputs("train")
        if tuple(every.cameras.shape) == (len(every.image_filenames),):
            views = [every.image_filenames.index(name) for name in outputs.image_filenames]
            return replace(outputs, cameras=every.cameras[torch.tensor(views)])
    raise ValueError(
        f"the data parser {type(parser).__name__} gives cameras of shape {tuple(outputs.cameras.shape)} for {count} "
        "pictures; it needs two frames or more. nerfstudio-data reads the same files"
    )


def _with_pixels(dataset: CountedDataset, use: str) -> tuple[CountedDataset, str]:
    """The views that have pixels that count, and what share of all pixels counts, in words."""
    counts = count_pixels(dataset)
    kept = [view for view, (counted, _) in enumerate(counts) if counted]
    share = sum(counted for counted, _ in counts) / sum(whole for _, whole in counts)
    views = "view" if len(dataset) == 1 else "views"
    text = f"{share:.1%} of the pixels of {len(dataset)} {use} {views} count ({dataset.limited})"
    if len(kept) == len(dataset):
        return dataset, text
    names = [dataset.image_filenames[view].name for view, (counted, _) in enumerate(counts) if not counted]
    return dataset.subset(kept), f"{text}, none of {first_names(names)}"
