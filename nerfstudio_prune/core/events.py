"""Records of what was planned and what was done. Plain numbers, strings and tensors only, so that a checkpoint
that carries them loads with `weights_only=True`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Literal, Optional

from torch import Tensor

FORMAT_VERSION = 2
"""Version of `PruneState.to_dict`; raised when an older reader could not understand the content."""

Phase = Literal["dense", "pruning", "recovery"]
RecoveryMode = Literal["continue", "retrain", "rewind", "scratch"]
"""How a network goes on after an event: with the weights and moments that it has, with the weights alone, with the
weights of an earlier step, or with new ones."""


@dataclass(frozen=True)
class Sizes:
    """How large what is pruned is."""

    parts: Mapping[str, int] = field(default_factory=dict)
    """Name of the part (a layer, a cloud) -> units that live."""
    costs: Mapping[str, int] = field(default_factory=dict)
    """Name of the cost (`parameters`, `macs_per_ray`) -> cost of the whole."""


@dataclass(frozen=True)
class ScheduledEvent:
    """A pruning event that is to happen."""

    step: int
    """Training step at whose end it is due."""
    share: Fraction
    """Share of the whole cut that is done after it, in (0, 1]."""
    targets: Mapping[str, int] = field(default_factory=dict)
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

    step: int
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
    rays_per_sec_before: float = 0.0
    """Training rays per second before the event; 0 if there was no step to measure."""
    seconds: float = 0.0
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
        }

    @classmethod
    def from_dict(cls, values: Any) -> "PruneState":
        """Reads what `to_dict` wrote, of this or an earlier version.

        Raises:
            ValueError: If the content was written by a newer version, or is not a pruning state.
        """
        version = values.get("format_version") if isinstance(values, dict) else None
        if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
            raise ValueError(
                f"pruning state in the checkpoint has format version {version!r}, this version of nerfstudio-prune "
                f"reads up to {FORMAT_VERSION}"
            )
        try:
            if version == 1:
                values = _from_format_1(values)
            return cls(
                initial_sizes=dict(values["initial_sizes"]),
                options=values["options"],
                given=values.get("given"),
                plan=[_scheduled_from_dict(event) for event in values["plan"]],
                history=[_event_from_dict(event) for event in values["history"]],
                masks=dict(values["masks"]),
                rewind_snapshot=dict(values["rewind_snapshot"]),
            )
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise ValueError(f"pruning state in the checkpoint cannot be read: {error!r}") from error


def _scheduled_to_dict(event: ScheduledEvent) -> dict[str, Any]:
    share = [event.share.numerator, event.share.denominator]
    return {"index": event.index, "step": event.step, "share": share, "targets": dict(event.targets)}


def _scheduled_from_dict(values: Mapping[str, Any]) -> ScheduledEvent:
    return ScheduledEvent(**{**values, "share": Fraction(*values["share"])})


def _event_to_dict(event: PruneEvent) -> dict[str, Any]:
    scheduled = None if event.scheduled is None else _scheduled_to_dict(event.scheduled)
    return {**asdict(event), "scheduled": scheduled}


def _event_from_dict(values: Mapping[str, Any]) -> PruneEvent:
    scheduled = values["scheduled"]
    return PruneEvent(
        **{
            **values,
            "scheduled": None if scheduled is None else _scheduled_from_dict(scheduled),
            "before": Sizes(**values["before"]),
            "after": Sizes(**values["after"]),
        }
    )


def _from_format_1(values: Mapping[str, Any]) -> dict[str, Any]:
    """Format 1 told planned events by equality, shares as floats, and named neurons' own costs."""
    plan = list(values["plan"])
    rest = {name: value for name, value in values.items() if name != "edge_masks"}
    return {
        **rest,
        "plan": [_scheduled_from_format_1(event, index) for index, event in enumerate(plan)],
        "history": [event_from_format_1(event, plan) for event in values["history"]],
        "masks": values["edge_masks"],
    }


def event_from_format_1(event: Mapping[str, Any], plan: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """An event of a history as format 2 has it.

    Args:
        event: The event in format 1.
        plan: Planned events in format 1, for the index of the one that the event carried out.

    Raises:
        KeyError, TypeError, ValueError: If it is no event of format 1.
    """
    event = dict(event)
    for when in ("before", "after"):
        costs = {name: event.pop(f"{name}_{when}") for name in ("parameters", "macs_per_ray")}
        sizes = {"parts": event.pop(f"sizes_{when}"), "costs": costs}
        event[when] = {} if event["error"] else sizes
    old = event["scheduled"]
    if old is not None:
        event["scheduled"] = _scheduled_from_format_1(old, plan.index(old) if old in plan else -1)
    return event


def _scheduled_from_format_1(event: Mapping[str, Any], index: int) -> dict[str, Any]:
    # The shares of a cubic schedule have the cube of the number of events below the line.
    share = Fraction(event["progress"]).limit_denominator(5 * 10**7)
    return {
        "index": index,
        "step": event["step"],
        "share": [share.numerator, share.denominator],
        "targets": event["targets"],
    }
