"""Options of KiloNeRF, under `--pipeline.`, and which of them hold when a run is gone on with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Optional, get_args

from nerfstudio_prune.engine.options import MAX_STEPS, Group, Rule, above, at_least, option, with_help
from nerfstudio_prune.kilonerf.budget import BudgetKind
from nerfstudio_prune.kilonerf.classes import class_widths
from nerfstudio_prune.kilonerf.shape import NetworkShape

PREFIX = "pipeline."
SIZES = ("target_", "narrow_to")
"""How options begin that say how large networks may be."""
GROUPS = ("grid", "occupancy", "distil", "finetune")
"""Groups of options that a checkpoint keeps."""
COARSE_REFINE, FINE_REFINE = 8, 16
"""Voxels along the side of a cell by default; the second is KiloNeRF's."""
POINTS, BUDGET_POINTS = 32, 64
"""Points of a network in a step. Networks that follow from a budget are small: they learn more slowly, and a point
costs them less."""
LR, OPTIMIZER_LR, EPS = 3e-2, 5e-3, 1e-12
"""Rate at which distilling begins; that of the optimizer as registered, which no step has; and Adam's epsilon, far
below KiloNeRF's, for gradients of single networks are small."""


@with_help
@dataclass
class GridConfig(Group):
    """How space is cut into cells, and what the network of each is like."""

    resolution: Optional[int] = option(None, "16, in contracted space 24; fewer where cells would be below four pixels")
    """Cells along the longest side of what is occupied; they are cubes. KiloNeRF's own configurations have 16."""
    hidden_width: Optional[int] = option(NetworkShape.hidden_width)
    """Neurons of each hidden layer of a network."""
    num_layers: Optional[int] = option(NetworkShape.num_layers)
    """Hidden layers in front of the density."""
    position_frequencies: Optional[int] = option(None, "down to a period of two pixels")
    """Frequencies that a place in a cell is encoded by."""
    direction_frequencies: Optional[int] = option(NetworkShape.direction_frequencies)
    """Frequencies that a direction is encoded by."""
    target_parameters: Optional[int] = option(None, "none")
    """Most parameters of all networks: cells and width follow from it, in place of `resolution` and `hidden_width`."""
    target_mb: Optional[float] = option(None, "none")
    """The same as the size of the networks in float32, in units of 10^6 bytes."""
    target_macs: Optional[float] = option(None, "none")
    """Most multiply-accumulates per ray, in the mean of training rays: the width follows from it."""
    narrow_to: Optional[float] = option(None, "none")
    """Share of their parameters that networks keep after distilling, in (0, 1): those that need less become narrower.
    The width is then the largest, and others have a quarter, half or three quarters of it."""

    rules: ClassVar[Sequence[Rule]] = (
        (("resolution",), *at_least(1, 256)),
        (("hidden_width",), *at_least(1, 256)),
        (("num_layers",), *at_least(1, 16)),
        (("position_frequencies", "direction_frequencies"), *at_least(0, 16)),
        (("target_parameters",), *at_least(1, 10**12)),
        (("target_mb",), *above(0, 10**6)),
        (("target_macs",), *above(0, 10**15)),
        (("narrow_to",), lambda value: 0 < value < 1, "in (0, 1)"),
    )

    @property
    def budget(self) -> Optional[tuple[BudgetKind, float]]:
        """What cells and width follow from, and how much of it there is; None where they are given."""
        for kind in get_args(BudgetKind):
            value = getattr(self, f"target_{kind}")
            if value is not None:
                return kind, value
        return None

    @property
    def narrows(self) -> bool:
        """Whether some networks become narrower."""
        return self.narrow_to is not None


@with_help
@dataclass
class OccupancyConfig(Group):
    """Where there is something: looked up in the teacher once, before the first step."""

    refine: Optional[int] = option(None, f"{COARSE_REFINE}, {FINE_REFINE} where a voxel is then above two pixels")
    """Voxels along the side of a cell."""
    alpha_threshold: Optional[float] = option(0.02)
    """Opacity of a path as long as a voxel's side from which the voxel counts as occupied, in (0, 1)."""
    dilate: Optional[int] = option(1)
    """Voxels by which what is found is grown."""
    visible_only: Optional[bool] = option(True)
    """Whether cells are laid around what training views show alone, and voxels that none of them sees leave when the
    networks are looked at, see `finetune.tighten_at`."""

    rules: ClassVar[Sequence[Rule]] = (
        (("refine",), *at_least(1, 256)),
        (("alpha_threshold",), lambda value: 0 < value < 1, "in (0, 1)"),
        (("dilate",), *at_least(0, 8)),
        (("visible_only",), lambda value: True, "True or False"),
    )


@with_help
@dataclass
class DistilConfig(Group):
    """First phase: networks learn from the teacher at points of their cells; no photo is looked at."""

    steps: Optional[int] = option(1200)
    """Training steps; 0 leaves the networks to the photos alone."""
    points_per_network: Optional[int] = option(POINTS, f"{POINTS}; {BUDGET_POINTS} under a budget of the grid")
    """Points of each network in a step."""
    lr: Optional[float] = option(LR)
    """Learning rate at the beginning."""
    lr_final: Optional[float] = option(LR / 50)
    """Learning rate at the end."""
    memory_mb: Optional[float] = option(512)
    """Most memory for the teacher's answers, in units of 10^6 bytes."""

    rules: ClassVar[Sequence[Rule]] = (
        (("steps",), *at_least(0, MAX_STEPS // 2)),
        (("points_per_network",), *at_least(1, 2**16)),
        (("lr", "lr_final"), *above(0, 1)),
        (("memory_mb",), *above(0, 10**6)),
    )


@with_help
@dataclass
class FinetuneConfig(Group):
    """Second phase: photos, through the occupied samples of their rays."""

    steps: Optional[int] = option(2000)
    """Training steps."""
    lr: Optional[float] = option(2e-3)
    """Learning rate at the beginning; moments begin anew."""
    lr_final: Optional[float] = option(1e-4)
    """Learning rate at the end."""
    l2_view_dependent: Optional[float] = option(1e-6)
    """Factor on the squared weights of direction and colour: photos are not to be fitted by false reflections."""
    tighten_at: Optional[float] = option(0.5)
    """Share of these steps after which voxels leave that the networks show nothing in, and networks without a voxel;
    once more after the last step. 1: only then."""
    tighten_threshold: Optional[float] = option(0.02)
    """Opacity of a path as long as a voxel's side below which a voxel leaves, in (0, 1), unless one beside it with the
    same network reaches it; 0: none ever leaves."""

    rules: ClassVar[Sequence[Rule]] = (
        (("steps",), *at_least(0, MAX_STEPS // 2)),
        (("lr", "lr_final"), *above(0, 1)),
        (("l2_view_dependent",), *at_least(0, 1)),
        (("tighten_at",), lambda value: 0 <= value <= 1, "in [0, 1]"),
        (("tighten_threshold",), lambda value: 0 <= value < 1, "in [0, 1)"),
    )


@dataclass(frozen=True)
class KiloOptions:
    """The options in force."""

    grid: GridConfig
    """Cells and networks."""
    occupancy: OccupancyConfig
    """Where there is something."""
    distil: DistilConfig
    """The first phase."""
    finetune: FinetuneConfig
    """The second one."""

    def plain(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return {name: getattr(self, name).plain() for name in GROUPS}

    @classmethod
    def from_plain(cls, values: Any) -> "KiloOptions":
        """Options that `plain` gave.

        Args:
            values: Anything; what it holds may come from a stranger.

        Raises:
            ValueError: Names the option, what was found and what was expected.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"the options of KiloNeRF must be groups of options, got {type(values).__name__}")
        found: dict[str, Any] = {}
        for name, kind in KINDS.items():
            found[name] = kind.from_plain(values.get(name, {}), f"{name}.").filled()
            found[name].check_rules(f"{name}.")
        return cls(**found)


KINDS: Mapping[str, type[Group]] = {
    "grid": GridConfig,
    "occupancy": OccupancyConfig,
    "distil": DistilConfig,
    "finetune": FinetuneConfig,
}


def options_of(config: Any) -> KiloOptions:
    """The options of a configuration, checked, with defaults for what is not given.

    Args:
        config: The pipeline's.

    Raises:
        ValueError: Names the option, what was found and what was expected.
    """
    found: dict[str, Any] = {}
    for name in GROUPS:
        typed = KINDS[name].from_plain(vars(getattr(config, name)), f"{PREFIX}{name}.")
        typed.check_rules(f"{PREFIX}{name}.")
        found[name] = typed.filled()
    options = KiloOptions(**found)
    _check_grid(config.grid.given(), options)
    if options.grid.budget is not None and "points_per_network" not in config.distil.given():
        options = replace(options, distil=replace(options.distil, points_per_network=BUDGET_POINTS))
    if options.distil.steps + options.finetune.steps < 1:  # type: ignore[operator]
        raise ValueError(
            f"{PREFIX}distil.steps and {PREFIX}finetune.steps must not both be 0: nothing would be trained"
        )
    return options


def _check_grid(given: Mapping[str, Any], options: KiloOptions) -> None:
    """Checks what grid options say together."""
    where = f"{PREFIX}grid."
    budgets = [name for name in given if name.startswith("target_")]
    if len(budgets) > 1:
        raise ValueError(f"{where}{budgets[0]} and {where}{budgets[1]} must not both be given: each is a budget")
    fixed = ("hidden_width",) if budgets == ["target_macs"] else ("hidden_width", "resolution")
    both = [name for name in fixed if budgets and name in given]
    if both:
        raise ValueError(f"{where}{both[0]} must not be given with {where}{budgets[0]}: it follows from that")
    if not options.grid.narrows:
        return
    for name in ("distil", "finetune"):
        if getattr(options, name).steps < 1:
            raise ValueError(
                f"{where}narrow_to needs {PREFIX}{name}.steps of at least 1, got 0: networks become narrower between "
                "the two phases"
            )
    try:
        class_widths(int(options.grid.hidden_width or 0))
    except ValueError as error:
        raise ValueError(f"{PREFIX}{error}") from error


def taken_up(config: Any, stored: KiloOptions, step: int) -> tuple[KiloOptions, list[str]]:
    """Options of a run that is gone on with: those of its checkpoint, but for what is given anew and can still change.

    Args:
        config: The pipeline's configuration, in which None is what was not given.
        stored: Options of the checkpoint.
        step: First step to come.

    Returns:
        The options, and a line for each that was given and does not count.

    Raises:
        ValueError: If the first phase is given another length after its end, or one that ended before the step.
    """
    told, groups = [], {name: getattr(stored, name) for name in GROUPS}
    for name in GROUPS:
        for key, value in getattr(config, name).given().items():
            former = getattr(groups[name], key)
            if value == former:
                continue
            if name in ("grid", "occupancy"):
                why = (
                    "a run keeps the sizes it began with"
                    if key.startswith(SIZES)
                    else "the cells of the checkpoint hold"
                )
                told.append(f"--{PREFIX}{name}.{key.replace('_', '-')} {value} has no effect: {why}")
            else:
                groups[name] = replace(groups[name], **{key: value})
    options, former = KiloOptions(**groups), stored.distil.steps
    steps = options.distil.steps
    assert steps is not None and former is not None
    if steps != former and not step <= steps:
        raise ValueError(f"{PREFIX}distil.steps must be at least {step}, the steps that are done, got {steps}")
    if steps != former and step >= former:
        raise ValueError(f"{PREFIX}distil.steps must be {former} as before, for that phase is over, got {steps}")
    return options, told
