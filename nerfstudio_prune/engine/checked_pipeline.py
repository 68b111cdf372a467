"""A pipeline of the host whose options are checked before anything is loaded, and that loads whole checkpoints only."""

from abc import abstractmethod
from pathlib import Path
from typing import Any, Literal, Optional

import torch
from nerfstudio.pipelines.base_pipeline import VanillaPipeline
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

from nerfstudio_prune.engine.compute import check_compute
from nerfstudio_prune.engine.evaluation import load_whole_checkpoints_of
from nerfstudio_prune.engine.products import keep_precision, set_precision
from nerfstudio_prune.engine.terminal import print_in_any_encoding


class CheckedPipeline(VanillaPipeline):
    """What all pipelines of this project have in common. The model has an `lpips`.

    Args:
        config: Configuration of data and model, with a `ComputeConfig` as `compute`.
        device: Where model and data live.
        test_mode: 'val' and 'test' evaluate on those views; 'inference' loads no evaluation images.
        world_size: Number of processes; only 1 is supported.
        local_rank: Rank of this process.
        grad_scaler: Gradient scaler of the trainer.

    Raises:
        ValueError: If there is more than one process, an option is not of its type or out of its range, or the data
            cannot be trained on.
    """

    config: Any
    model: Any

    def __init__(
        self,
        config: Any,
        device: str,
        test_mode: Literal["test", "val", "inference"] = "val",
        world_size: int = 1,
        local_rank: int = 0,
        grad_scaler: Optional[Any] = None,
    ) -> None:
        if world_size > 1:
            raise ValueError(
                "models that change their size train on one device: machine.num_devices x machine.num_machines must be "
                f"1, got {world_size}. DistributedDataParallel builds its buckets for the sizes at the beginning"
            )
        if torch.device(device).type == "cpu":
            # The small gradients of a trained field become denormal, which makes a step on a CPU 3 to 4 times slower.
            torch.set_flush_denormal(True)
        load_whole_checkpoints_of(CheckedPipeline)
        print_in_any_encoding()
        trains = test_mode == "val"
        check_compute(config.compute, trains)
        self.check_config(config, trains)
        self._told_precision = set_precision(config.compute.matmul_precision, torch.device(device))
        super().__init__(config, device, test_mode, world_size, local_rank, grad_scaler)

    @staticmethod
    @abstractmethod
    def check_config(config: Any, trains: bool) -> None:
        """Checks options before anything is loaded.

        Args:
            config: Options of the pipeline.
            trains: Whether there is a training to come; a run that is only shown may have pruned by other ranges.

        Raises:
            ValueError: Names the option, what was found and what was expected.
        """

    def goes_on_with(self, precision: object) -> None:
        """A run that is gone on with keeps the precision of products that it chose on a CPU.

        Args:
            precision: What its checkpoint says; None in those of earlier versions.
        """
        if self.config.compute.matmul_precision == "auto" and self.device.type == "cpu":
            self._told_precision = keep_precision(precision) or self._told_precision

    def training_begins(self) -> None:
        """Is called when everything is loaded: from here on nothing is downloaded."""
        if self._told_precision:
            CONSOLE.print(escape(self._told_precision), soft_wrap=True)
        self.model.lpips.may_download = False

    def get_average_eval_image_metrics(
        self, step: Optional[int] = None, output_path: Optional[Path] = None, get_std: bool = False
    ) -> Any:
        """Mean of the metrics of all evaluation views, as the host computes it.

        Args:
            step: Training step.
            output_path: Folder for pictures of the views.
            get_std: Whether to give standard deviations as well.

        Raises:
            ValueError: If there are no evaluation views.
        """
        if not self.datamanager.eval_dataset:
            reason = getattr(self.datamanager, "no_evaluation", "")
            raise ValueError(f"nothing to evaluate on, there are no evaluation views: {reason}")
        return super().get_average_eval_image_metrics(step, output_path, get_std)
