"""What is pruned, as the engine sees it: its sizes, its parameters, and how a cut of it is prepared.

A subject stands in front of a model and knows which of its tensors share an axis. The engine decides when a cut is due,
measures, applies and records; it knows no network.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Generic, Literal, Optional, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.optim import Optimizer

from nerfstudio_prune.core.events import PruneEvent, PruneState, ScheduledEvent, Sizes
from nerfstudio_prune.core.form import Form
from nerfstudio_prune.core.optimizer_state import ParameterEdit, Rebinding
from nerfstudio_prune.core.schedule import size_at

RecipeT = TypeVar("RecipeT")
"""The resolved options of a subject's cut."""


@runtime_checkable
class Optimizers(Protocol):
    """Live optimizers and the host's second list of the same parameters, by name; Nerfstudio's `Optimizers` is one."""

    @property
    def optimizers(self) -> Mapping[str, Optimizer]:
        """Name -> optimizer."""
        ...

    @property
    def parameters(self) -> Mapping[str, list[nn.Parameter]]:
        """Name -> parameters, as the host clips their gradients."""
        ...


@dataclass
class NoOptimizers:
    """Stands for the optimizers of a model that is not trained."""

    optimizers: Mapping[str, Optimizer] = field(default_factory=dict)
    parameters: Mapping[str, list[nn.Parameter]] = field(default_factory=dict)


@runtime_checkable
class Change(Protocol):
    """A cut that is prepared and checked. `apply` only assigns and brings in line what depends on sizes."""

    @property
    def removes(self) -> bool:
        """Whether anything changes at all; a change that removes nothing is skipped."""
        ...

    @property
    def report(self) -> Sequence[Any]:
        """What a person should see of the preparation; anything that rich can print."""
        ...

    def apply(self) -> None:
        """Carries the cut out; cannot fail half-way."""
        ...


@dataclass(frozen=True)
class Words:
    """What a person reads of a subject where it is not about neurons."""

    whole: str = "network"
    """What all parts together are called."""
    part: str = "layer"
    """What a part is called; empty: the parts are few enough for the summary to tell all of them."""
    member: str = "neuron"
    """What one unit of a part is called."""
    batch: str = "rays"
    """What a training batch consists of."""
    measured: str = "fixed rays"
    """What the quality right before and after an event is measured on."""
    value: str = "weight"
    """What `weights` gives."""
    span: Optional[tuple[float, float]] = None
    """Lowest and highest value that `weights` can give. None: they lie around 0, and have no bound."""


OF_NEURONS = Words()


@dataclass(frozen=True)
class FurtherOutput:
    """A picture that the viewer offers beside those of the model."""

    channels: int
    """1 for a heat map, 3 for colours."""
    needs: Literal["scores", "cut"]
    """What it is drawn from."""


@runtime_checkable
class Picture(Protocol):
    """Draws a further output. Keeps what it draws: what the subject becomes later does not show."""

    def __call__(
        self, camera: Any, obb_box: Any = None, background: Optional[Float[Tensor, "3"]] = None
    ) -> Float[Tensor, "height width channels"]:
        """Draws it.

        Args:
            camera: A single camera of the host.
            obb_box: Box that the scene is cropped to.
            background: Colour that the viewer shows behind everything, [3]. None: that of the data.

        Returns:
            [height, width, channels] in [0, 1].
        """
        ...


class Subject(ABC, Generic[RecipeT]):
    """What is pruned: neurons, single weights, points, or whatever else has parts with sizes.

    What most subjects have in common is here; a subject says the rest.
    """

    unit: str
    """What the size of a part is called, for TensorBoard and tables, for example `width`."""
    labels: Mapping[str, str]
    """Name of each cost -> what it is called in tables, for example `macs_per_ray` -> `MACs per ray`; the first one is
    what an event is told by."""
    total: str = "in all"
    """What is summed up in tables: all parts together, and what else is trained."""
    restarts_schedules: bool = True
    """Whether recovery `retrain` restarts the schedules of learning rates, besides clearing moments."""
    form: Form
    """What a person may choose."""
    model: Any
    """The model that is trained; what measures and the viewer render."""
    words: Words = OF_NEURONS
    """What a person reads."""
    further_outputs: Mapping[str, FurtherOutput] = MappingProxyType({})
    """Name -> what the viewer offers beside the outputs of the model."""
    cpu_still: int = 128
    """Pixels of the longer side of a still that a CPU renders in a second or so; where the viewer starts on one."""

    @property
    def state(self) -> PruneState:
        """What survives in checkpoints."""
        return self.model.prune_state

    @property
    def counted(self) -> str:
        """What the first cost counts."""
        return next(iter(self.labels.values()))

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return next(iter(self.parameters().values())).device

    @abstractmethod
    def sizes(self) -> Sizes:
        """Sizes as they are, read off the tensors."""

    @abstractmethod
    def initial_sizes(self) -> Sizes:
        """Sizes before the first event; the present ones where the state does not know better."""

    def initial_parts(self) -> dict[str, int]:
        """Name of the part -> size before the first event that targets refer to; goes into checkpoints."""
        return self.state.initial_sizes or dict(self.sizes().parts)

    def part_costs(self) -> Mapping[str, Mapping[str, int]]:
        """Name of the part -> name of the cost -> what the part costs, for tables; empty: only the whole counts."""
        return {}

    def place(self, part: str) -> tuple[str, str]:
        """Row and column of a part in a table of all parts, in words for a person."""
        return part, self.unit

    def summary(self, sizes: Sizes) -> Sequence[tuple[str, str]]:
        """What the whole costs, as pairs of a label and a text."""
        return [(label, f"{sizes.costs[name]:,}") for name, label in self.labels.items()]

    @abstractmethod
    def parameters(self) -> dict[str, nn.Parameter]:
        """Parameters that a cut may touch, by their dotted path in the model, in a fixed order."""

    def param_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """All trainable parameters by optimizer name: the truth that optimizers are checked against."""
        return self.model.get_param_groups()

    def buffers(self) -> dict[str, Tensor]:
        """Tensors beside the parameters that are cut with them and that no optimizer knows; a copy of the mapping."""
        return {}

    def set_buffers(self, buffers: Mapping[str, Tensor]) -> None:
        """Puts such tensors in place."""

    def check(self) -> None:
        """Checks that the model can be cut.

        Raises:
            ValueError: Names the first tensor that is not finite.
        """
        for name, parameter in self.parameters().items():
            bad = int((~torch.isfinite(parameter)).sum())
            if bad:
                raise ValueError(f"{name}: {bad} of {parameter.numel()} values are not finite; nothing was pruned")

    @abstractmethod
    def targets(self, recipe: RecipeT) -> dict[str, int]:
        """Name of the part -> size after the last event; empty where the evidence of each event decides.

        Raises:
            ValueError: If a target does not fit the model. Names the option.
        """

    def scaled(
        self, event: ScheduledEvent, targets: Mapping[str, int], initial: Mapping[str, int], round_to: int
    ) -> ScheduledEvent:
        """An event of the schedule that goes its share of the way to targets.

        Args:
            event: Step and share.
            targets: What `targets` gave.
            initial: Name of the part -> size before the first event.
            round_to: Sizes on the way are multiples of this.
        """
        sizes = {name: size_at(initial[name], target, event.share, round_to) for name, target in targets.items()}
        return replace(event, targets=sizes)

    def at_once(self, options: Any) -> Any:
        """Options in force as a cut by hand begins with them: without what only later events of the plan do.

        Args:
            options: Options in force.
        """
        return options

    def further_events(self, recipe: RecipeT) -> list[ScheduledEvent]:
        """Events of a plan besides those of its schedule."""
        return []

    def earliest(self) -> tuple[int, str]:
        """First training step at whose end an event may happen, and why none may before."""
        return 0, ""

    def recovers_from(self, event: PruneEvent) -> bool:
        """Whether learning rates begin anew after an event that happened."""
        return True

    def aim(self, recipe: RecipeT, event: ScheduledEvent) -> str:
        """How far an event goes, in a few words that follow its step."""
        return f"to {', '.join(f'{size:,}' for size in event.targets.values())} {self.unit}"

    def recorded(self, recipe: Any) -> Mapping[str, Any]:
        """Options of an event for its record: those of the recipe, decided where the model decides what they leave
        open."""
        return recipe.options

    def gather(self, recipe: RecipeT, seed: int) -> Any:
        """What a cut is judged by, without touching the run's random state or the order of its data."""
        return None

    @abstractmethod
    def prepare(
        self, recipe: RecipeT, event: ScheduledEvent, evidence: Any, optimizers: Optimizers, seed: int
    ) -> Change:
        """Chooses what leaves and prepares its removal; changes nothing.

        Args:
            recipe: How to cut.
            event: How far to go.
            evidence: What `gather` gave.
            optimizers: Optimizers over the model's parameters.
            seed: Seed of the event.

        Raises:
            ValueError: If the cut is impossible.
        """

    def scores(self, recipe: RecipeT, evidence: Any) -> tuple[Optional[str], dict[str, Tensor]]:
        """Name of the score, and name of the part -> score of each of its units, on the CPU, for a person to look at.

        A rule without scores has no name and no scores.
        """
        return None, {}

    def weights(self) -> dict[str, Tensor]:
        """Column of the table of parts -> all values of its parameters, flat, on the CPU, for a person to look at."""
        values = [parameter.detach().cpu().flatten() for parameter in self.parameters().values()]
        return {self.unit: torch.cat(values)}

    def stage(self, step: int) -> str:
        """Where a run stands, in a word for a person.

        Args:
            step: Training step that ended last.
        """
        return self.state.phase

    def rule(self, event: PruneEvent) -> str:
        """By what an event went, in a word or two."""
        return event.strategy

    def remark(self) -> str:
        """What else a person should see of the present state, in a few words; empty if nothing."""
        return ""

    def gain(self, event: PruneEvent) -> str:
        """What an event removed, in a few words."""
        before, after = event.before.costs, event.after.costs
        cost = next((name for name in self.labels if before[name] != after[name]), next(iter(self.labels)))
        return f"{before[cost] / max(1, after[cost]):.2f}x fewer {self.labels[cost]}"

    def leaving(self, change: Change) -> Mapping[str, Tensor]:
        """Name of the part -> indices of those of its units that a change removes, before it is applied; empty where
        no output asks for them.

        Args:
            change: What `prepare` gave.
        """
        return {}

    def pictures(self, scores: Mapping[str, Tensor], leaving: Mapping[str, Tensor]) -> Mapping[str, Picture]:
        """The further outputs that can be drawn from what is known.

        Args:
            scores: What `scores` gave for the units as they are; empty if nothing is known of them.
            leaving: What `leaving` gave for a change that is not applied.
        """
        return {}

    def backdrop(self) -> Optional[Float[Tensor, "3"]]:
        """Colour behind the scene that the viewer starts with, [3] in [0, 1]. None: the host's."""
        return None

    def stand_in(self, model: Any, background: Optional[Float[Tensor, "3"]]) -> Any:
        """What the viewer renders in place of a model: what it sets there must not reach a training or a measurement.

        Args:
            model: The model of this subject, or of a copy of it.
            background: Colour that the viewer shows behind everything, [3]; None where it asks for none.
        """
        return model

    def after_step(self) -> None:
        """Restores what an optimizer step must not change."""

    def synced(self) -> None:
        """Brings the model's own notes of its sizes in line with the tensors, after parameters were replaced."""

    @abstractmethod
    def detached(self, device: Optional[torch.device] = None) -> "Subject[RecipeT]":
        """A copy that no optimizer knows, with a state of its own, ready for rendering.

        Args:
            device: Where it lives. None: where the model does.
        """


@runtime_checkable
class Measure(Protocol):
    """Quality of a model as name -> value."""

    description: str
    """What it is measured on."""

    def __call__(self, model: Any) -> dict[str, float]:
        """Measures without touching the run's random state or the order of its data."""
        ...


@dataclass(frozen=True, eq=False)
class BufferEdit:
    """A tensor that no optimizer knows and that is cut like the parameters beside it."""

    owner: MutableMapping[str, Any]
    """Mapping that holds the tensor, for example a module's `_buffers`."""
    name: str
    """Its name there."""
    new: Shaped[Tensor, "..."]
    """What takes its place."""

    def apply(self) -> None:
        """Puts the new tensor in place."""
        self.owner[self.name] = self.new


@dataclass
class PreparedEdits:
    """Parameters, optimizers and buffers of a cut, checked and ready. `apply` only assigns."""

    edits: Sequence[ParameterEdit]
    """Parameters that become smaller or get new values."""
    rebind: Rebinding
    """What that changes in the optimizers."""
    buffers: Sequence[BufferEdit] = ()
    """What is cut alike beside them."""

    @property
    def removes(self) -> bool:
        """Whether a parameter becomes smaller."""
        return any(edit.new.shape != edit.old.shape for edit in self.edits)

    def apply(self) -> None:
        """Puts everything in place."""
        for edit in self.edits:
            edit.apply()
        self.rebind.apply()
        for buffer in self.buffers:
            buffer.apply()


@dataclass
class Slicing:
    """The change of a subject whose parameters are only sliced.

    Weights and moments are inherited, which is recovery `continue`. A subject that offers the other modes carries them
    out in a change of its own, or in the edits; one that does not refuses them in `validate` of its options.
    """

    subject: Subject[Any]
    prepared: PreparedEdits
    snapshot: Mapping[str, Tensor] = field(default_factory=dict)
    """Rewind snapshot, cut down to what stays."""
    report: Sequence[Any] = ()

    @property
    def removes(self) -> bool:
        """Whether a parameter becomes smaller."""
        return self.prepared.removes

    def apply(self) -> None:
        """Carries the cut out."""
        self.prepared.apply()
        self.subject.state.rewind_snapshot = dict(self.snapshot)
        self.subject.synced()
