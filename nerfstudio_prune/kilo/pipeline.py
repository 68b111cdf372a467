"""The pipeline of KiloNeRF: looks where the teacher has something to show, distils it, and fine-tunes on photos."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Optional

import torch
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

from nerfstudio_prune.data.datamanager import CheckedDataManager
from nerfstudio_prune.engine.checked_pipeline import CheckedPipeline
from nerfstudio_prune.engine.checkpoints import network_entries
from nerfstudio_prune.engine.checks import check_data, check_training, check_values
from nerfstudio_prune.engine.compute import ComputePipelineConfig
from nerfstudio_prune.engine.host import free_memory, seeded
from nerfstudio_prune.engine.options import MAX_STEPS, Rule, at_least
from nerfstudio_prune.kilo.behind import places_behind
from nerfstudio_prune.kilo.building import CROWDED, make_plan
from nerfstudio_prune.kilo.checkpoint import checked_state
from nerfstudio_prune.kilo.config import (
    OPTIMIZER_LR,
    PREFIX,
    DistilConfig,
    FinetuneConfig,
    GridConfig,
    KiloOptions,
    OccupancyConfig,
    options_of,
    taken_up,
)
from nerfstudio_prune.kilo.folder import KiloFolder
from nerfstudio_prune.kilo.lessons import Lessons
from nerfstudio_prune.kilo.model import KiloModel, KiloModelConfig, check_model
from nerfstudio_prune.kilo.narrowing import described, narrower
from nerfstudio_prune.kilo.own_teacher import former_teacher, make_teacher, note_teacher
from nerfstudio_prune.kilo.phases import Phases
from nerfstudio_prune.kilo.scene import views_in_common
from nerfstudio_prune.kilo.second_try import learn_again
from nerfstudio_prune.kilo.state import KiloState
from nerfstudio_prune.kilo.teacher import Teacher, load_teacher
from nerfstudio_prune.kilo.tightening import remove_others, tightened
from nerfstudio_prune.kilonerf.distillation import distillation_loss, mean_squares
from nerfstudio_prune.kilonerf.examples import Examples
from nerfstudio_prune.kilonerf.removal import prepare_replacement
from nerfstudio_prune.kilonerf.shape import NetworkShape
from nerfstudio_prune.viewer.panel_mount import FolderMount

GROUP = "networks"
"""The group of parameters."""
RULES: tuple[Rule, ...] = ((("own_teacher_steps",), *at_least(1, MAX_STEPS)),)


@dataclass
class KiloPipelineConfig(ComputePipelineConfig):
    """A grid of tiny networks from a teacher."""

    _target: type = field(default_factory=lambda: KiloPipeline)
    model: KiloModelConfig = field(default_factory=KiloModelConfig)
    """How they are rendered."""
    teacher: Optional[Path] = None
    """Trained run of nerf-prune or vanilla-nerf to learn from: its config.yml. Its views must be these, in the same
    scale. It is not needed once distilling is over. A checkpoint alone, step-….ckpt, will do as well."""
    teacher_method: Optional[str] = None
    """Method of a teacher that is a checkpoint alone, whose options must be those of the method. None: vanilla-nerf."""
    own_teacher_steps: Optional[int] = None
    """Training steps of a small nerf-prune that becomes the teacher, where none is given: it is trained first, on the
    same views, and saved as a run beside. None: a teacher must be given."""
    grid: GridConfig = field(default_factory=GridConfig)
    """How space is cut into cells, and what the network of each is like."""
    occupancy: OccupancyConfig = field(default_factory=OccupancyConfig)
    """Where there is something."""
    distil: DistilConfig = field(default_factory=DistilConfig)
    """First phase: the teacher."""
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    """Second phase: photos."""


class KiloPipeline(CheckedPipeline):
    """Trains tiny networks: on a teacher first, then on photos.

    Args:
        config: Configuration of data, model and phases.
        device: Where model and data live.
        test_mode: 'val' and 'test' evaluate on those views; 'inference' loads no evaluation images.
        world_size: Number of processes; only 1 is supported.
        local_rank: Rank of this process.
        grad_scaler: Gradient scaler of the trainer.

    Raises:
        ValueError: If there is more than one process, an option is not of its type or out of its range, or the data
            cannot be trained on.
    """

    config: KiloPipelineConfig
    model: KiloModel

    def __init__(
        self,
        config: KiloPipelineConfig,
        device: str,
        test_mode: Literal["test", "val", "inference"] = "val",
        world_size: int = 1,
        local_rank: int = 0,
        grad_scaler: Optional[Any] = None,
    ) -> None:
        super().__init__(config, device, test_mode, world_size, local_rank, grad_scaler)
        self.phases: Optional[Phases] = None
        """What each step is for; None where nothing is trained."""
        self._examples: Optional[Examples] = None
        self.folder_mount = FolderMount(KiloFolder(self.model, lambda: self.phases), self.datamanager)
        grid: Any = options_of(config).grid
        frequencies = 0, grid.direction_frequencies
        self.model.make_room(NetworkShape(grid.hidden_width, grid.num_layers, *frequencies), grid.narrows)
        self.model.networks.to(self.model.device)

    @staticmethod
    def check_config(config: KiloPipelineConfig, trains: bool) -> None:
        """Checks options before anything is loaded.

        Args:
            config: Options of the pipeline.
            trains: Whether there is a training to come.

        Raises:
            ValueError: Names the option, what was found and what was expected.
        """
        check_data(config.datamanager)
        check_model(config.model)
        check_values(config, PREFIX, RULES)
        options_of(config)
        if config.datamanager._target is VanillaDataManager:
            config.datamanager._target = CheckedDataManager

    def check_entries(self, loaded_state: Mapping[str, Any]) -> None:
        """Checks the entries of a checkpoint without loading them.

        Args:
            loaded_state: See `load_pipeline`.

        Raises:
            ValueError: If they do not fit.
        """
        checked_state(self.model.networks, self.model.state_dict(), network_entries(loaded_state))

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """Makes networks of the teacher, or takes a checkpoint's up; the host has loaded it by now.

        Raises:
            ValueError: If there is no teacher that can be learnt from, there is no room, or the options do not fit
                those of the checkpoint.
        """
        trainer, optimizers = training_callback_attributes.trainer, training_callback_attributes.optimizers
        assert trainer is not None and optimizers is not None
        config: Any = trainer.config
        check_training(config)
        check_optimizer(config.optimizers)
        self.training_begins()
        step = trainer._start_step
        teacher = None
        if not self.model.networks.num_networks:
            teacher = self._begin(config)
        else:
            self._go_on(step)
        options = self.model.state.options
        assert options is not None
        self.phases = phases = Phases(options)
        if step >= phases.steps:
            raise ValueError(
                f"all {phases.steps} steps of this run are done; raise pipeline.finetune.steps above "
                f"{options.finetune.steps}"
            )
        # The host counts from here on; a run that is gone on with ends where it would have ended.
        config.max_num_iterations = min(config.max_num_iterations, phases.steps - step)
        self.model.penalty_factor = float(options.finetune.l2_view_dependent or 0)
        if phases.phase(step) == "distil":
            self._examples = self._draw_from(teacher or self._known_teacher(step, config), options)

        def before_step(step: int) -> None:
            optimizer = optimizers.optimizers[GROUP]
            if step == phases.distil_steps:
                self._narrow(step, optimizers)
                optimizer.state.clear()
                # Photos say how wrong pixels are, and weigh by them: no mean with errors of points is one.
                self.model.errors.forget(self.model.networks.num_networks)
                self._examples = self.model.teacher = None
            if phases.tightens(step):
                self._tighten(step, optimizers)
            for group in optimizer.param_groups:
                group["lr"] = phases.rate(step)

        def after_step(step: int) -> None:
            if step + 1 == phases.distil_steps:
                # One set of examples at a time.
                self._examples = None
                self._learn_again(step + 1)
            if step + 1 == phases.steps and phases.tightens(phases.steps):
                self._tighten(phases.steps, optimizers)

        callbacks = super().get_training_callbacks(training_callback_attributes)
        before, after = TrainingCallbackLocation.BEFORE_TRAIN_ITERATION, TrainingCallbackLocation.AFTER_TRAIN_ITERATION
        return [*callbacks, TrainingCallback([before], before_step), TrainingCallback([after], after_step)]

    def get_train_loss_dict(self, step: int) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        """Outputs, losses and metrics of a training step. What it draws follows from seed and step.

        Args:
            step: Training step.
        """
        phases = self.phases
        if phases is None:
            return super().get_train_loss_dict(step)
        if phases.phase(step) == "distil":
            return self._distil(step)
        seed = zlib.crc32(f"{self.model.state.seed} photos {step - phases.distil_steps}".encode())
        with seeded(seed, self.model.device):
            rays, batch = self.datamanager.next_train(step)
            self.model.shift = torch.rand(len(rays), device=self.model.device)
            try:
                outputs = self.model(rays)
            finally:
                self.model.shift = None
            metrics = self.model.get_metrics_dict(outputs, batch)
            losses = self.model.get_loss_dict(outputs, batch, metrics)
        return outputs, losses, metrics

    def _learn_again(self, step: int) -> None:
        """Networks that the first phase left without a gradient get another try, before a checkpoint is saved."""
        model, options = self.model, self.model.state.options
        assert options is not None and options.distil.steps is not None
        lessons = self._lessons(model.teacher)
        seed = zlib.crc32(f"{model.state.seed} again".encode())
        stuck, better = learn_again(model, lessons, options.distil.steps, seed)
        if stuck:
            CONSOLE.print(
                f"KiloNeRF, step {step}: {stuck} of {model.networks.num_networks} networks showed black or white "
                f"everywhere and learnt no more; with a tenth of the rate {better} of them became better",
                soft_wrap=True,
            )

    def _narrow(self, step: int, optimizers: Optimizers) -> None:
        """Networks that need fewer neurons get fewer, where the options ask for it.

        Raises:
            ValueError: If even the narrowest have more parameters than they may; nothing is changed then.
        """
        model, dataset = self.model, self.datamanager.train_dataset
        assert model.state.options is not None and dataset is not None
        share = model.state.options.grid.narrow_to
        if share is None:
            return
        before = model.networks.num_parameters
        generator = torch.Generator().manual_seed(zlib.crc32(f"{model.state.seed} narrow".encode()))
        others = narrower(model, dataset.cameras, share, generator)
        edits = prepare_replacement(model.networks, others, optimizers.optimizers, optimizers.parameters)
        optimizers.zero_grad_all()
        edits.apply()
        after = model.networks.num_parameters
        CONSOLE.print(
            f"KiloNeRF, step {step}: {described(model.networks)}; {before:,} → {after:,} parameters", soft_wrap=True
        )

    def _tighten(self, step: int, optimizers: Optimizers) -> None:
        """What the networks show nothing in leaves. Where that would be all, all stays, to be looked at."""
        model, dataset = self.model, self.datamanager.train_dataset
        options, live = model.state.options, model.cells.live
        assert options is not None and live is not None and dataset is not None
        generator = torch.Generator().manual_seed(zlib.crc32(f"{model.state.seed} tighten {step}".encode()))
        threshold, visible_only = options.finetune.tighten_threshold, options.occupancy.visible_only
        try:
            stays = tightened(model, dataset.cameras, float(threshold or 0), bool(visible_only), generator)
        except ValueError as error:
            CONSOLE.print(f"[yellow]KiloNeRF, step {step}: no voxel leaves: {escape(str(error))}", soft_wrap=True)
            return
        remove_others(model, stays, optimizers.optimizers, optimizers.parameters)
        CONSOLE.print(
            f"KiloNeRF, step {step}: {live.share:.2%} → {stays.share:.2%} of the voxels are occupied, {live.count} → "
            f"{stays.count} networks",
            soft_wrap=True,
        )

    def _distil(self, step: int) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        assert self._examples is not None
        batch = self._examples.batch(step)
        density, rgb = self.model.networks.batched(batch.positions, batch.directions)
        step_size = self.model.step_size()
        loss = distillation_loss(density, rgb, batch.density, batch.rgb, step_size, batch.behind)
        self.model.errors.note(mean_squares(loss.of_networks), torch.ones_like(loss.alpha))
        metrics = {"alpha_error": loss.alpha.detach().mean(), "rgb_error": loss.rgb.detach().mean()}
        return {}, {"distillation_loss": loss.total}, metrics

    def _begin(self, config: Any) -> Teacher:
        """The first phase of all: where there is something, and a network for each cell that has it."""
        options, device, seed = options_of(self.config), self.model.device, config.machine.seed
        steps = self.config.own_teacher_steps
        if self.config.teacher is None and steps is not None:
            self._learn_from(make_teacher(config, steps, device), config)
        teacher = load_teacher(self.config.teacher, device, method=self.config.teacher_method)
        assert self.datamanager.train_dataset is not None
        cameras = self.datamanager.train_dataset.cameras
        if teacher.data is not None and views_in_common(teacher.data, cameras) == 0:
            CONSOLE.print(
                f"[yellow]KiloNeRF: none of the {len(cameras)} training views is one of the teacher's: it knows another"
                " scene, or this one in another scale or pose; give the data and the parser's options of its run, or "
                "let ns-prune distil copy them",
                soft_wrap=True,
            )
        plan = make_plan(teacher, cameras, options, seed, device, free_memory(device))
        background: Any = teacher.background
        state = KiloState(plan.options, background, teacher.digest, seed, teacher.space.name)
        self.model.begin(plan.live, plan.lattice, plan.shape, state)
        for line in plan.told:
            CONSOLE.print(f"KiloNeRF: {escape(line)}", soft_wrap=True)
        if plan.live.share > CROWDED:
            CONSOLE.print(
                f"[yellow]KiloNeRF: {plan.live.share:.0%} of the box around the scene are occupied: there is little "
                "speed to be had, and the teacher probably shows haze; train it longer, or raise "
                "pipeline.occupancy.alpha_threshold",
                soft_wrap=True,
            )
        return teacher

    def _go_on(self, step: int) -> None:
        """Takes up the options of the checkpoint, and what is given anew."""
        state = self.model.state
        assert state.options is not None
        options, told = taken_up(self.config, state.options, step)
        for line in told:
            CONSOLE.print(f"[yellow]{escape(line)}", soft_wrap=True)
        self.model.state = replace(state, options=options)

    def _learn_from(self, teacher: Path, config: Any) -> None:
        """Notes a teacher that nobody gave in the run's config.yml, where a run that goes on from this one finds it."""
        self.config.teacher = teacher
        note_teacher(config, teacher)

    def _known_teacher(self, step: int, config: Any) -> Teacher:
        """The teacher of a run that is gone on with before it was learnt from to the end."""
        if self.config.teacher is None and self.config.own_teacher_steps is not None:
            own = former_teacher(config)
            if own is not None:
                self._learn_from(own, config)
        if self.config.teacher is None:
            raise ValueError(
                "--pipeline.teacher is missing: distilling is not over, and goes on from the teacher's config.yml; "
                f"without it, go on with the photos by --pipeline.distil.steps {step}"
            )
        teacher = load_teacher(self.config.teacher, self.model.device, method=self.config.teacher_method)
        if teacher.digest != self.model.state.teacher:
            CONSOLE.print(
                f"[yellow]--pipeline.teacher {escape(str(self.config.teacher))} has other weights than the teacher "
                "that this run began with; the cells stay those of the former one",
                soft_wrap=True,
            )
        return teacher

    def _lessons(self, teacher: Any) -> Lessons:
        """What the teacher has to say to the networks of the run."""
        model, dataset = self.model, self.datamanager.train_dataset
        assert model.state.options is not None and dataset is not None
        places = dataset.cameras.camera_to_worlds[:, :, 3].to(model.device)
        lattice = model.cells.lattice_of_rays
        assert lattice is not None
        behind = places_behind(model.space, model.state.background, lattice)
        return Lessons(teacher.values, places, model.state.options.distil, model.step_size(), model.space, behind)

    def _draw_from(self, teacher: Teacher, options: KiloOptions) -> Examples:
        live, steps = self.model.cells.live, options.distil.steps
        assert live is not None and steps is not None
        self.model.teacher = teacher
        return self._lessons(teacher).examples(live, steps, self.model.state.seed)


def check_optimizer(optimizers: Mapping[str, Any]) -> None:
    """Checks that nothing is asked of the optimizer that the phases say otherwise.

    Args:
        optimizers: The trainer's configuration of optimizers.

    Raises:
        ValueError: Names the option, and those that stand for it.
    """
    own = optimizers.get(GROUP, {})
    rate = getattr(own.get("optimizer"), "lr", None)
    if rate != OPTIMIZER_LR:
        raise ValueError(
            f"optimizers.{GROUP}.optimizer.lr has no effect, since each phase has rates of its own: give "
            f"--pipeline.distil.lr or --pipeline.finetune.lr; got {rate}"
        )
    if own.get("scheduler") is not None:
        raise ValueError(f"optimizers.{GROUP}.scheduler must be None: each phase has rates of its own")
