"""Records of what was planned and what was done. Plain numbers, strings and tensors only, so that a checkpoint
that carries them loads with `weights_only=True`."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Optional

from torch import Tensor

FORMAT_VERSION = 1
"""Version of `PruneState.to_dict`; raised when an older reader could not understand the content."""

Phase = Literal["dense", "pruning", "recovery"]


@dataclass
class ScheduledEvent:
    """A pruning event that is to happen."""

    step: int
    """Training step at whose end it is due."""
    progress: float
    """Share of the whole cut that is done after it, in (0, 1]."""
    targets: dict[str, int] = field(default_factory=dict)
    """Name of the group -> size after the event. Empty for edge pruning and under a budget, where `progress` alone
    counts."""


@dataclass
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
    options: dict[str, Any] = field(default_factory=dict)
    """All options in force, as plain values, with the seed and the score that were used."""
    sizes_before: dict[str, int] = field(default_factory=dict)
    """Name of the group -> neurons (or edges) before."""
    sizes_after: dict[str, int] = field(default_factory=dict)
    """Name of the group -> neurons (or edges) after."""
    parameters_before: int = 0
    """Parameters of all fields before; edge pruning counts the edges that are not masked."""
    parameters_after: int = 0
    """Parameters of all fields after."""
    macs_per_ray_before: int = 0
    """Multiply-accumulates per ray, coarse and fine, before."""
    macs_per_ray_after: int = 0
    """Multiply-accumulates per ray, coarse and fine, after."""
    metrics_before: dict[str, float] = field(default_factory=dict)
    """Quality right before, for example {"psnr": dB}."""
    metrics_after: dict[str, float] = field(default_factory=dict)
    """Quality right after, on the same rays."""
    rays_per_sec_before: float = 0.0
    """Training rays per second before the event; 0 if there was no step to measure."""
    seconds: float = 0.0
    """Wall-clock time of the event without the measurements of quality."""
    error: str = ""
    """Why the event failed; empty if it succeeded."""


@dataclass
class PruneState:
    """Everything about pruning that must survive in a checkpoint."""

    initial_sizes: dict[str, int] = field(default_factory=dict)
    """Name of the group -> neurons before the first event."""
    options: dict[str, Any] = field(default_factory=dict)
    """The options that `plan` was resolved from, as plain values."""
    plan: list[ScheduledEvent] = field(default_factory=list)
    """Events by increasing step."""
    history: list[PruneEvent] = field(default_factory=list)
    """Events that happened, oldest first."""
    edge_masks: dict[str, Tensor] = field(default_factory=dict)
    """Name of the parameter -> boolean mask, True where the weight lives."""
    rewind_snapshot: dict[str, Tensor] = field(default_factory=dict)
    """Name of the parameter -> its value at the rewind step, cut down with the network."""
    given: Optional[dict[str, Any]] = None
    """Those of `options` that were given, not filled in. None: a checkpoint that does not say."""

    @property
    def phase(self) -> Phase:
        """`dense` before the first successful event, `pruning` while more are planned, then `recovery`."""
        if not any(not event.error for event in self.history):
            return "dense"
        return "pruning" if self.pending else "recovery"

    @property
    def pending(self) -> list[ScheduledEvent]:
        """Planned events that are not in the history and lie after the newest one that is."""
        done = [event.scheduled for event in self.history if event.scheduled is not None]
        newest = max((self.plan.index(event) for event in done if event in self.plan), default=-1)
        return self.plan[newest + 1 :]

    def due(self, step: int) -> Optional[ScheduledEvent]:
        """The newest pending event that is due at the end of a step.

        An overdue event happens at once. When several are overdue the newest one does the work of all.

        Args:
            step: Training step that has just ended.
        """
        due = [event for event in self.pending if event.step <= step]
        return due[-1] if due else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values and tensors for a checkpoint."""
        return {
            "format_version": FORMAT_VERSION,
            "initial_sizes": dict(self.initial_sizes),
            "options": self.options,
            "given": self.given,
            "plan": [asdict(event) for event in self.plan],
            "history": [asdict(event) for event in self.history],
            "phase": self.phase,
            "edge_masks": dict(self.edge_masks),
            "rewind_snapshot": dict(self.rewind_snapshot),
        }

    @classmethod
    def from_dict(cls, values: Any) -> "PruneState":
        """Reads what `to_dict` wrote.

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
            return cls(
                initial_sizes=dict(values["initial_sizes"]),
                options=values["options"],
                given=values.get("given"),
                plan=[ScheduledEvent(**event) for event in values["plan"]],
                history=[_event_from_dict(event) for event in values["history"]],
                edge_masks=dict(values["edge_masks"]),
                rewind_snapshot=dict(values["rewind_snapshot"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"pruning state in the checkpoint cannot be read: {error!r}") from error


def _event_from_dict(values: dict[str, Any]) -> PruneEvent:
    scheduled = values["scheduled"]
    return PruneEvent(**{**values, "scheduled": ScheduledEvent(**scheduled) if scheduled is not None else None})
