"""Records of what was planned and what was done. Plain numbers, strings and tensors only, so that a checkpoint
that carries them loads with `weights_only=True`."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field, fields
from fractions import Fraction
from itertools import pairwise
from types import MappingProxyType
from typing import Annotated, Any, Literal, Optional, TypeVar

import msgspec
import torch
from torch import Tensor

from nerfstudio_prune.core.format_1 import from_format_1
from nerfstudio_prune.core.plain import MAX_INT, check_plain, shown
from nerfstudio_prune.core.tensors import FLOATS, check_storage, check_tensor

FORMAT_VERSION = 2
"""Version of `PruneState.to_dict`; raised when an older reader could not understand the content."""

Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_INT)]
Duration = Annotated[float, msgspec.Meta(ge=0)]
T = TypeVar("T")
Phase = Literal["dense", "pruning", "recovery"]
RecoveryMode = Literal["continue", "retrain", "rewind", "scratch"]
"""How a network goes on after an event: with the weights and moments that it has, with the weights alone, with the
weights of an earlier step, or with new ones."""


@dataclass(frozen=True)
class Sizes:
    """How large what is pruned is."""

    parts: Mapping[str, Count] = field(default_factory=dict)
    """Name of the part (a layer, a cloud) -> units that live."""
    costs: Mapping[str, Count] = field(default_factory=dict)
    """Name of the cost (`parameters`, `macs_per_ray`) -> cost of the whole."""


@dataclass(frozen=True)
class ScheduledEvent:
    """A pruning event that is to happen."""

    step: Count
    """Training step at whose end it is due."""
    share: Fraction
    """Share of the whole cut that is done after it, in (0, 1]."""
    targets: Mapping[str, Count] = field(default_factory=dict)
    """Name of the part -> size after the event. Empty where the evidence of the event decides and `share` alone
    counts."""
    index: int = 0
    """What tells it from the other events of a run; larger for later ones."""

    @property
    def progress(self) -> float:
        """The share as a number."""
        return float(self.share)

    def same_cut(self, other: "ScheduledEvent") -> bool:
        """Whether both are due at the same step and go equally far, whatever their index."""
        return (self.step, self.share, self.targets) == (other.step, other.share, other.targets)


@dataclass(frozen=True)
class PruneEvent:
    """A pruning event that happened, or failed without changing anything."""

    step: Count
    """Training step at whose end it happened."""
    scheduled: Optional[ScheduledEvent]
    """The plan's entry that it carried out; None if it was requested by hand."""
    strategy: str
    """Name of the strategy."""
    recovery: str
    """Name of the recovery mode."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """All options in force, as plain values, with the seed and the score that were used."""
    before: Sizes = Sizes()
    """Sizes before."""
    after: Sizes = Sizes()
    """Sizes after."""
    metrics_before: Mapping[str, float] = field(default_factory=dict)
    """Quality right before, for example {"psnr": dB}."""
    metrics_after: Mapping[str, float] = field(default_factory=dict)
    """Quality right after, on the same rays; empty until it is measured, and where that failed."""
    rays_per_sec_before: Duration = 0.0
    """Training rays per second before the event; 0 if there was no step to measure."""
    seconds: Duration = 0.0
    """Wall-clock time of the event without the measurements of quality."""
    error: str = ""
    """Why the event failed; empty if it succeeded."""


@dataclass
class PruneState:
    """Everything about pruning that must survive in a checkpoint. Its lists are replaced, never edited: another thread
    may be reading them."""

    initial_sizes: dict[str, int] = field(default_factory=dict)
    """Name of the part -> size before the first event, what targets refer to."""
    options: dict[str, Any] = field(default_factory=dict)
    """The options that `plan` was resolved from, as plain values."""
    plan: list[ScheduledEvent] = field(default_factory=list)
    """Events by increasing step."""
    history: list[PruneEvent] = field(default_factory=list)
    """Events that happened, oldest first."""
    masks: dict[str, Tensor] = field(default_factory=dict)
    """Name of the parameter -> boolean mask, True where the weight lives."""
    rewind_snapshot: dict[str, Tensor] = field(default_factory=dict)
    """Name of the parameter -> its value at the rewind step, cut down with the network."""
    given: Optional[dict[str, Any]] = None
    """Those of `options` that were given, not filled in. None: a checkpoint that does not say."""
    memory: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Name of a listener -> what it has to know to go on as if nothing had happened, as plain values."""

    @property
    def succeeded(self) -> list[PruneEvent]:
        """Events that changed something, oldest first."""
        return [event for event in self.history if not event.error]

    @property
    def phase(self) -> Phase:
        """`dense` before the first successful event, `pruning` while more are planned, then `recovery`."""
        if not self.succeeded:
            return "dense"
        return "pruning" if self.pending else "recovery"

    @property
    def newest_index(self) -> int:
        """Index of the newest planned event that was tried; -1 if none was."""
        return max((event.scheduled.index for event in self.history if event.scheduled is not None), default=-1)

    @property
    def pending(self) -> list[ScheduledEvent]:
        """Planned events that come after the newest one that was tried."""
        newest = self.newest_index
        return [event for event in self.plan if event.index > newest]

    def due(self, step: int) -> Optional[ScheduledEvent]:
        """The newest pending event that is due at the end of a step.

        An overdue event happens at once. When several are overdue the newest one does the work of all.

        Args:
            step: Training step that has just ended.
        """
        due = [event for event in self.pending if event.step <= step]
        return due[-1] if due else None

    def numbered(
        self, plan: list[ScheduledEvent], aim: Mapping[str, Any] = MappingProxyType({})
    ) -> list[ScheduledEvent]:
        """A new plan with indices that go on from those in the history.

        An entry that was tried already, and those before it, are not tried again. One that goes all the way and
        names no targets was tried only if it had the same aim; the parts before it need no repetition.

        Args:
            plan: Events by increasing step, without indices.
            aim: Options, as in `PruneEvent.options`, that say how far events without targets go.
        """

        def same(event: ScheduledEvent, old: PruneEvent) -> bool:
            if old.scheduled is None or not event.same_cut(old.scheduled):
                return False
            decided = bool(event.targets) or event.share < 1
            return decided or all(old.options.get(name, value) == value for name, value in aim.items())

        done = max((i for i, event in enumerate(plan) if any(same(event, old) for old in self.history)), default=-1)
        first = self.newest_index - done
        return [ScheduledEvent(e.step, e.share, e.targets, first + i) for i, e in enumerate(plan)]

    def to_dict(self) -> dict[str, Any]:
        """Plain values and tensors for a checkpoint."""
        return {
            "format_version": FORMAT_VERSION,
            "initial_sizes": dict(self.initial_sizes),
            "options": self.options,
            "given": self.given,
            "plan": [_scheduled_to_dict(event) for event in self.plan],
            "history": [_event_to_dict(event) for event in self.history],
            "phase": self.phase,
            "masks": dict(self.masks),
            "rewind_snapshot": dict(self.rewind_snapshot),
            "memory": deepcopy(self.memory),
        }

    @classmethod
    def from_dict(cls, values: Any) -> "PruneState":
        """Reads what `to_dict` wrote, of this or an earlier version.

        Everything is checked that does not depend on what is pruned, so that nothing later fails on it.

        Raises:
            ValueError: If the content was written by a newer version, or is not a pruning state.
        """
        version = values.get("format_version") if isinstance(values, dict) else None
        if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
            raise ValueError(
                f"pruning state in the checkpoint has format version {shown(version)}, this version of "
                f"nerfstudio-prune reads up to {FORMAT_VERSION}"
            )
        try:
            # Quality may be no number; it is for information.
            check_plain(values, "state", finite=False, tensors=True)
            state = _read_state(from_format_1(values) if version == 1 else values)
            _check_state(state)
        except KeyError as error:
            raise ValueError(f"pruning state in the checkpoint cannot be read: {error} is missing") from error
        except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise ValueError(f"pruning state in the checkpoint cannot be read: {error}") from error
        return state


def _scheduled_to_dict(event: ScheduledEvent) -> dict[str, Any]:
    share = [event.share.numerator, event.share.denominator]
    return {"index": event.index, "step": event.step, "share": share, "targets": dict(event.targets)}


def _event_to_dict(event: PruneEvent) -> dict[str, Any]:
    scheduled = None if event.scheduled is None else _scheduled_to_dict(event.scheduled)
    return {**asdict(event), "scheduled": scheduled}


def _read_state(values: Mapping[str, Any]) -> PruneState:
    return PruneState(
        initial_sizes=_read(dict[str, Count], values["initial_sizes"], "initial_sizes"),
        options=_read(dict[str, Any], values["options"], "options"),
        given=_read(Optional[dict[str, Any]], values.get("given"), "given"),
        plan=_read_all(ScheduledEvent, values["plan"], "plan"),
        history=_read_all(PruneEvent, values["history"], "history"),
        masks=_read_tensors(values["masks"], "mask", (torch.bool,)),
        rewind_snapshot=_read_tensors(values["rewind_snapshot"], "rewind snapshot", FLOATS),
        memory=_read(dict[str, dict[str, Any]], values.get("memory", {}), "memory"),
    )


def _read(kind: Any, value: Any, where: str) -> Any:
    """A value of a kind, by the hints of the dataclasses in it; nothing is taken for something else."""
    try:
        return msgspec.convert(value, kind, dec_hook=decode_fraction)
    except msgspec.ValidationError as error:
        raise ValueError(f"{where}: {error}") from error


def _read_tensors(values: Any, where: str, dtypes: tuple[torch.dtype, ...]) -> dict[str, Tensor]:
    tensors = _read(dict[str, Any], values, where)
    for name, tensor in tensors.items():
        check_tensor(tensor, f"{where} of {name}", dtypes)
    check_storage(tensors, where)
    return tensors


def _read_all(kind: type[T], values: Any, where: str) -> list[T]:
    return [_read_event(kind, value, f"{where}[{i}]") for i, value in enumerate(_read(list[Any], values, where))]


def _read_event(kind: type[T], values: Any, where: str) -> T:
    """An event with all its fields and no others: of each kind that stands in it as well."""
    inner = {"scheduled": ScheduledEvent, "before": Sizes, "after": Sizes}
    values = _read(dict[str, Any], values, where)
    unknown = values.keys() - {f.name for f in fields(kind)}  # type: ignore[arg-type]
    if unknown:
        raise ValueError(f"{where}: has an unknown field {shown(min(unknown))}")
    for name in values.keys() & inner.keys():
        if values[name] is not None:
            _read_event(inner[name], values[name], f"{where}.{name}")
    return _read(kind, values, where)


def decode_fraction(kind: type, value: Any) -> Any:
    """What `msgspec` does not read by itself: a fraction is its numerator and denominator.

    Args:
        kind: What is wanted.
        value: What was found.

    Raises:
        ValueError: If it is no fraction.
        NotImplementedError: If something else is wanted.
    """
    if kind is not Fraction:
        raise NotImplementedError(kind)
    try:
        numerator, denominator = value
        return Fraction(_whole(numerator), _whole(denominator))
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise ValueError(f"expected numerator and denominator, got {shown(value)}") from error


def _whole(value: Any) -> int:
    if type(value) is not int or abs(value) > MAX_INT:
        raise ValueError("not a whole number")
    return value


def _check_state(state: PruneState) -> None:
    """Checks what must hold between the values of a state, whatever is pruned.

    Raises:
        ValueError: Names the value, what was found and what was expected.
    """
    check_plain(state.options, "options")
    check_plain(state.given, "given")
    check_plain(state.memory, "memory")
    for i, event in enumerate(state.history):
        check_plain(event.options, f"history[{i}].options")
        check_plain([event.seconds, event.rays_per_sec_before], f"history[{i}], seconds and rays per second")
    scheduled = [*state.plan, *(event.scheduled for event in state.history if event.scheduled is not None)]
    for event in scheduled:
        if not 0 < event.share <= 1 or abs(event.index) > MAX_INT:
            raise ValueError(f"event of step {event.step}: expected a share in (0, 1], got {event.share}")
    for first, second in pairwise(state.plan):
        if second.index <= first.index or second.step < first.step:
            raise ValueError(
                f"plan: expected events by increasing step and index, got steps {first.step}, {second.step} and "
                f"indices {first.index}, {second.index}"
            )
    for first, second in pairwise(state.history):
        if second.step < first.step:
            raise ValueError(f"history: expected the oldest event first, got steps {first.step}, {second.step}")
