"""A pipeline of the host whose model is pruned while it trains: hands over to the controller."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Optional

from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes

from nerfstudio_prune.core.subject import Measure, Subject
from nerfstudio_prune.engine.checked_pipeline import CheckedPipeline
from nerfstudio_prune.engine.checks import check_training
from nerfstudio_prune.engine.controller import PruneController
from nerfstudio_prune.engine.listeners import Listener
from nerfstudio_prune.engine.options import PruneOptions
from nerfstudio_prune.engine.resuming import take_up
from nerfstudio_prune.engine.run import PruneRun
from nerfstudio_prune.engine.steering import Steering


class ControlledPipeline(CheckedPipeline):
    """Trains a model and lets a controller prune it. What is pruned, and by what it is measured, a method says.

    Args:
        config: Configuration of data, model and pruning, with its options as `prune`, and a
            `ComputeConfig` as `compute`.
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
    panel_mount: Any = None
    """Where the viewer looks for a panel; a method puts one there."""

    def __init__(
        self,
        config: Any,
        device: str,
        test_mode: Literal["test", "val", "inference"] = "val",
        world_size: int = 1,
        local_rank: int = 0,
        grad_scaler: Optional[Any] = None,
    ) -> None:
        super().__init__(config, device, test_mode, world_size, local_rank, grad_scaler)
        self.seed = 0 if config.prune.seed is None else config.prune.seed
        """Seed of random choices; a training run without one sets its own."""
        self.controller: Optional[PruneController] = None
        """What prunes; None where nothing is trained."""
        self.steering: Optional[Steering] = None
        """What a person asks of the controller; None where nothing is trained."""
        self._measure: Optional[Measure] = None

    @abstractmethod
    def check_entries(self, loaded_state: Mapping[str, Any]) -> None:
        """Checks the entries of a checkpoint without loading them.

        Args:
            loaded_state: See `load_pipeline`.

        Raises:
            ValueError: If they do not fit.
        """

    @abstractmethod
    def subject_of(self, options: Any) -> Subject[Any]:
        """What is pruned under other options.

        Args:
            options: Options, filled in.
        """

    @abstractmethod
    def make_measure(self) -> Measure:
        """Quality of a model right before and after an event."""

    @abstractmethod
    def listeners(self, run: PruneRun) -> Sequence[Listener]:
        """What hangs on the hooks of a run besides what every run has.

        Args:
            run: The run.

        Raises:
            ValueError: If its options do not suit the data or the model.
        """

    @property
    def options(self) -> PruneOptions:
        """Options of pruning in force: those of the run, of the checkpoint, or of the configuration."""
        if self.controller is not None:
            return self.controller.run.options
        stored = self.model.prune_state.options
        return self.config.prune.with_stored(stored) if stored else self.config.prune.filled()

    @property
    def subject(self) -> Subject[Any]:
        """What is pruned under these options."""
        if self.controller is not None:
            return self.controller.run.subject
        return self.subject_of(self.options)

    @property
    def measure(self) -> Any:
        """Quality of a model right before and after an event; made once."""
        if self._measure is None:
            self._measure = self.make_measure()
        return self._measure

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """Starts the controller; the host has loaded the checkpoint by now.

        Raises:
            ValueError: If the options, with those of a loaded checkpoint, do not give a plan, or do not suit the data.
        """
        trainer, optimizers = training_callback_attributes.trainer, training_callback_attributes.optimizers
        assert trainer is not None and optimizers is not None
        check_training(trainer.config)
        self.training_begins()
        run = take_up(
            self.model.prune_state,
            self.config.prune,
            self.subject_of,
            optimizers,
            trainer.config.machine.seed,
            trainer._start_step,
            trainer.config.max_num_iterations,
            registered_options(trainer.config.method_name),
        )
        self.seed = trainer.config.machine.seed
        listeners = self.listeners(run)
        self.controller = PruneController(
            run,
            self.measure,
            self.datamanager.get_train_rays_per_batch,
            listeners,
            watched=getattr(self.panel_mount, "mounted", False),
            # Runs of earlier versions are trained by Nerfstudio's own trainer, which keeps none.
            keep_checkpoint=getattr(trainer, "keep_checkpoint", lambda step: None),
        )
        self.steering = Steering(self.controller)
        callbacks = super().get_training_callbacks(training_callback_attributes)
        return [*callbacks, *self.controller.callbacks(), *self.steering.callbacks()]

    def settle(self) -> None:
        """Puts back what holds within a training step only; the trainer asks for it where a step was broken off.

        Raises:
            ValueError: If it was broken off in the midst of a cut.
        """
        if self.controller is not None:
            self.controller.settle()


def registered_options(method_name: Optional[str]) -> Optional[Any]:
    """Options of a method as registered; None for one that is not registered or prunes nothing.

    Args:
        method_name: Name of the method.
    """
    from nerfstudio.configs.method_configs import all_methods  # noqa: PLC0415  it imports the pipelines

    method: Any = all_methods.get(method_name or "")
    return getattr(method.pipeline, "prune", None) if method is not None else None
