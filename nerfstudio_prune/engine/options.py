"""Options that every kind of pruning has, and what they are resolved to.

A group of options is one dataclass with its rules. An option that is not given is None, so that a resumed run can tell
what is given again; its default stands in the field's metadata, once, and in the help from there.
"""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, ClassVar, Literal, Optional, TypeVar, get_type_hints

import tyro
from nerfstudio.configs.base_config import PrintableConfig
from typing_extensions import Self

from nerfstudio_prune.core.events import RecoveryMode
from nerfstudio_prune.core.plain import shown
from nerfstudio_prune.core.schedule import ScheduleKind
from nerfstudio_prune.engine.typed import hints_of, typed_value

Rule = tuple[Sequence[str], Callable[[Any], bool], str]
"""Names of options, what holds for a value that is given, and that in words."""

Effect = tuple[Sequence[str], Callable[[Any], bool], str]
"""Names of options, whether they have an effect beside the others of the group, filled in, and what they go with."""

PanelMode = Literal["auto", "show", "steer"]
"""What a page of the viewer may do."""

C = TypeVar("C", bound=type)

MAX_STEPS = 10**9
"""Training steps; checkpoints are named by nine digits."""
PREFIX = "prune."
"""What stands before an option's name in messages; on the command line it is `--pipeline.prune.`."""


def option(default: Any, text: Optional[str] = None) -> Any:
    """A field that is None until it is given.

    Args:
        default: Value where neither a person nor a preset says anything.
        text: What the help says in place of that value, which `{}` stands for.
    """
    return field(default=None, metadata={"default": default, "text": (text or "{}").format(default)})


def with_help(cls: C) -> C:
    """Class decorator, above `dataclass`: lets `--help` show the defaults of the fields made by `option`.

    Where a method brings a value of its own, that is shown.
    """

    def hint_of(text: str) -> Callable[[str], str]:
        return lambda value: f"(default: {text if value == 'None' else value})"

    for f in fields(cls):
        if "text" in f.metadata and f.name in vars(cls).get("__annotations__", {}):
            hint = get_type_hints(cls, include_extras=True)[f.name]
            cls.__annotations__[f.name] = Annotated[hint, tyro.conf.arg(help_behavior_hint=hint_of(f.metadata["text"]))]
    return cls


def at_least(bound: float, most: Optional[float] = None) -> tuple[Callable[[Any], bool], str]:
    """Rule for numbers with a least value, and perhaps a largest one."""
    if most is None:
        return lambda value: value >= bound, f"at least {bound:g}"
    return lambda value: bound <= value <= most, f"in [{bound:g}, {most:,}]"


def above(bound: float, most: Optional[float] = None) -> tuple[Callable[[Any], bool], str]:
    """Rule for numbers above a bound, and perhaps up to another one."""
    if most is None:
        return lambda value: value > bound, f"above {bound:g}"
    return lambda value: bound < value <= most, f"in ({bound:g}, {most:,}]"


SHARE: tuple[Callable[[Any], bool], str] = (lambda value: 0 <= value <= 1, "in [0, 1]")
"""Rule for a share that may be nothing."""
PART: tuple[Callable[[Any], bool], str] = (lambda value: 0 < value <= 1, "in (0, 1]")
"""Rule for a share that may not."""


@dataclass
class Group(PrintableConfig):
    """A group of options: None stands for what is not given."""

    rules: ClassVar[Sequence[Rule]] = ()
    """What holds for the options that the class itself adds."""
    effects: ClassVar[Sequence[Effect]] = ()
    """When options have an effect; those that are not named here always have one. A group within the group is named as
    a whole."""

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Option -> default."""
        return {f.name: f.metadata["default"] for f in fields(cls) if "default" in f.metadata}

    def given(self) -> dict[str, Any]:
        """Option -> value, of those that are not None."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def filled(self) -> Self:
        """A copy with the defaults in place of what is not given."""
        return type(self)(**{**self.defaults(), **self.given()})

    def plain(self) -> dict[str, Any]:
        """All options as plain values, for a checkpoint."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: _plain(value) for name, value in values.items()}

    @classmethod
    def from_plain(cls, values: Any, prefix: str = PREFIX) -> Self:
        """Options that `plain` gave, of this or an earlier version, or that come from anywhere else.

        Those that are not named stay as they are. Names that this version does not know are passed over: a later
        version wrote them. Of the others each has to be of the type of its field; ranges are `check_rules`'s.

        Args:
            values: Option -> value; anything, for what it holds may come from a stranger.
            prefix: What stands before an option's name on the command line.

        Raises:
            ValueError: Names the option, what was found and what was expected.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"{prefix.rstrip('.')} must be options with their values, got {shown(values)}")
        found, hints = {}, hints_of(cls)
        for f in fields(cls):
            if f.name not in values:
                continue
            kind, value = hints[f.name], values[f.name]
            if isinstance(kind, type) and issubclass(kind, Group):
                parts = vars(value) if isinstance(value, kind) else {} if value is None else value
                found[f.name] = kind.from_plain(parts, f"{prefix}{f.name}.")
            else:
                found[f.name] = typed_value(prefix + f.name, value, kind)
        return cls(**found)

    def typed(self) -> Self:
        """A copy whose options all have their types; those of code and of a `config.yml` may have any.

        Raises:
            ValueError: Names the option, what was found and what was expected.
        """
        return self.from_plain(vars(self))

    def names_given(self, registered: Optional["Group"] = None) -> list[str]:
        """Dotted names of options that are given: neither open, nor as the class or a method brings them.

        Args:
            registered: Options of the method as registered, of this class or a base of it.
        """
        found, fresh = [], type(self)()
        for f in fields(self):
            value, own = getattr(self, f.name), getattr(registered, f.name, None)
            if isinstance(value, Group):
                found += [f"{f.name}.{name}" for name in value.names_given(own)]
            elif value is not None and value not in (getattr(fresh, f.name), own):
                found.append(f.name)
        return found

    @classmethod
    def all_effects(cls) -> list[Effect]:
        """Effects of the group, of those that it is put together from, and of those within it, by dotted names."""
        found = [effect for group in reversed(cls.__mro__) for effect in vars(group).get("effects", ())]
        for name, kind in hints_of(cls).items():
            if isinstance(kind, type) and issubclass(kind, Group):
                for names, holds, needs in kind.all_effects():
                    inner = [f"{name}.{option}" for option in names]
                    found.append((inner, lambda o, name=name, holds=holds: holds(getattr(o, name).filled()), needs))
        return found

    @classmethod
    def checked(cls, values: Any) -> dict[str, Any]:
        """Plain values of some options as `plain` gives them, after the checks of `from_plain`; only those named."""
        whole = cls.from_plain(values).plain()
        return {name: whole[name] for name in values if name in whole}

    def check_values(self) -> None:
        """Checks each option alone, its type and its range, and those of the groups within.

        Raises:
            ValueError: Names the option, what was found and what was expected.
        """
        self.typed().check_rules(PREFIX)

    def check_rules(self, prefix: str) -> None:
        """Checks each option by the rules of the group that it belongs to, and those of the groups within by theirs.

        Args:
            prefix: What stands before an option's name on the command line.

        Raises:
            ValueError: Names the option, what was found and what was expected.
        """
        for group in reversed(type(self).__mro__):
            for names, holds, expected in vars(group).get("rules", ()):
                for name in names:
                    value = getattr(self, name)
                    if value is not None and not holds(value):
                        raise ValueError(f"{prefix}{name} must be {expected}, got {shown(value)}")
        for name, value in vars(self).items():
            if isinstance(value, Group):
                value.check_rules(f"{prefix}{name}.")


def _plain(value: Any) -> Any:
    """A value of an option as a checkpoint takes it."""
    if isinstance(value, Group):
        return value.plain()
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, dict) else value


@with_help
@dataclass
class ScheduleOptions(Group):
    """When pruning happens, and in how many events."""

    durations: ClassVar[Sequence[str]] = ()
    """Options that count training steps, by dotted names; none can be longer than the run."""
    steps: ClassVar[Sequence[str]] = ("start_step", "stop_step", "num_events")
    """Options that are resolved against the length of the run in which the plan is made."""
    stop_percent = 50
    """Of the run: where `stop_step` lies if it is not given."""

    start_step: Optional[int] = option(
        None, "start_fraction of max_num_iterations, or the first step of a resumed run if that is later"
    )
    """Training step at whose end the first event happens."""
    start_fraction: Optional[float] = option(0.15, "the preset's, else {}")
    """Share of max_num_iterations after which the first event happens, in [0, 1); start_step takes its place."""
    auto_start: Optional[float] = option(None, "off")
    """Start as soon as the training PSNR rises by less than this many dB within 5 % of the run, > 0; all events move
    forward, and start_step is the latest step for the first."""
    stop_step: Optional[int] = option(
        None,
        "half of max_num_iterations, or, if the first event lies less than 10 % of the run before that, half-way "
        "between it and the end of the run",
    )
    """Training step at whose end the last event happens."""
    num_events: Optional[int] = option(None, "the preset's, else 1 for one-shot and 4 for the others")
    """Number of events that the cut is spread over, 1 to 1000."""
    schedule: Optional[ScheduleKind] = option("one-shot", "the preset's, else {}")
    """How far each event goes: one-shot (all at start_step), iterative (equal parts), cubic (most at the beginning)."""
    round_to: Optional[int] = option(1)
    """Sizes that follow from a ratio, a proportion or a schedule are multiples of this. Explicit ones are exact."""

    rules: ClassVar[Sequence[Rule]] = (
        (("num_events",), *at_least(1, 1000)),
        (("round_to",), *at_least(1, 2**20)),
        (("start_step", "stop_step"), *at_least(0, MAX_STEPS)),
        (("start_fraction",), lambda value: 0 <= value < 1, "in [0, 1)"),
        (("auto_start",), *above(0, 1000)),
    )
    effects: ClassVar[Sequence[Effect]] = (
        (("stop_step",), lambda o: o.schedule != "one-shot" and o.num_events != 1, "several events"),
    )

    def with_own_steps(self, first_step: int, end: int) -> Self:
        """A copy with the steps that the options of a subject add; those of the schedule are resolved.

        Args:
            first_step: First training step of the run.
            end: Step behind its last one.

        Raises:
            ValueError: If something would never happen.
        """
        return self


@with_help
@dataclass
class RecoveryOptions(Group):
    """How to go on after an event."""

    recovery: Optional[RecoveryMode] = option("continue")
    """How to go on: continue (inherit weights and moments), retrain (inherit weights, clear moments, restart the
    scheduler), rewind (what stays takes the weights of rewind_step), scratch (new initialisation)."""
    rewind_step: Optional[int] = option(0)
    """Training step at whose end the weights for recovery rewind are kept."""
    recovery_lr: Optional[float] = option(None, "as it was")
    """Learning rate after an event, in [1e-10, 1]; a scheduler decays from there, a warm-up ends there."""
    recovery_decay: Optional[int] = option(0, "{}, recovery_lr is there to stay")
    """Training steps in which the rate comes down again from recovery_lr to what it would be without: learning rate
    rewinding."""
    recovery_lr_rewind: Optional[float] = option(None, "the preset's, else off")
    """Learning rate rewinding for several optimizers: after an event each begins at this factor on its first rate, in
    [0.001, 100], and comes down to the schedule's in recovery_decay steps, or, if those are 0, by the end of the
    run."""
    recovery_lr_factor: Optional[float] = option(1.0, "the preset's, else {:g}")
    """Factor on the learning rate from an event on, in [0.001, 100]; with several events it grows with the share of the
    cut that is done. Narrow layers bear larger rates, which pays in runs of a few thousand steps. TensorBoard shows the
    rate in force, with it."""
    recovery_warm_up: Optional[int] = option(0)
    """Training steps after an event in which the learning rate rises from zero to what it would be."""

    rules: ClassVar[Sequence[Rule]] = (
        (("rewind_step", "recovery_decay", "recovery_warm_up"), *at_least(0, MAX_STEPS)),
        (("recovery_lr",), *at_least(1e-10, 1)),
        (("recovery_lr_factor", "recovery_lr_rewind"), *at_least(1e-3, 100)),
    )
    effects: ClassVar[Sequence[Effect]] = (
        (("rewind_step",), lambda o: o.recovery == "rewind", "recovery rewind"),
        (
            ("recovery_decay",),
            lambda o: o.recovery_lr is not None or o.recovery_lr_rewind is not None,
            "recovery_lr or recovery_lr_rewind, the rate that it starts from",
        ),
    )

    def check_recovery(self) -> None:
        """Checks that the options about rates do not contradict each other.

        Raises:
            ValueError: Names the options.
        """
        if self.recovery_lr is not None and self.recovery_lr_rewind is not None:
            raise ValueError(
                f"prune.recovery_lr {self.recovery_lr} and prune.recovery_lr_rewind {self.recovery_lr_rewind} both say "
                "what the rate is after an event; give one"
            )
        if self.recovery_lr is not None and not self.recovery_decay and self.recovery_lr_factor not in (None, 1):
            raise ValueError(
                f"prune.recovery_lr {self.recovery_lr} and prune.recovery_lr_factor {self.recovery_lr_factor} both say "
                "what the rate is from an event on; give one, or a prune.recovery_decay between the two"
            )


@dataclass
class RunOptions(Group):
    """Options of the run at hand, which a stored plan says nothing about."""

    on_error: Literal["stop", "continue"] = "stop"
    """When an event fails (all is then as before): stop the training, or go on without that event."""
    panel: PanelMode = "auto"
    """What a page of the viewer may do: show the run, steer it (prune, undo, plan, pause), or auto: steer where the
    viewer listens on this machine only (127.0.0.1), else show."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What the engine needs of options that are filled in and resolved; subjects add what their cuts need.

    Fields without a text mean what the options of the same names do; steps are absolute once a plan is made.
    """

    options: Mapping[str, Any]
    """All options in force as plain values, for checkpoints and records."""
    strategy: str
    """Name of the strategy; `none` where nothing is planned."""
    score: Optional[str]
    """Name of the score; None for a rule without one."""
    rule: str
    """What is chosen and how, in a few words."""
    target: str
    """How far, in a few words."""
    schedule: ScheduleKind
    start_step: Optional[int]
    stop_step: Optional[int]
    num_events: Optional[int]
    round_to: int
    auto_start: Optional[float]
    recovery: RecoveryMode
    rewind_step: int
    recovery_lr: Optional[float]
    recovery_decay: int
    recovery_lr_rewind: Optional[float]
    recovery_lr_factor: float
    recovery_warm_up: int
    on_error: Literal["stop", "continue"]
    seed: Optional[int]

    @property
    def prunes(self) -> bool:
        """Whether there is anything to plan."""
        return self.strategy != "none"


@dataclass
class ChoiceOptions(Group):
    """What a person chooses first. Fields come in the order of the bases from the last to the first."""

    preset: Optional[str] = None
    strategy: Optional[str] = None
    seed: Optional[int] = None

    rules: ClassVar[Sequence[Rule]] = ((("seed",), lambda value: value >= 0, "in [0, 2^63)"),)


@dataclass
class PruneOptions(RunOptions, RecoveryOptions, ScheduleOptions, ChoiceOptions):
    """Base of the options of a subject; adds what resuming has to know of them."""

    merged: ClassVar[Set[str]] = frozenset()
    """Groups within the options of which those that are not given again hold on their own."""
    aims: ClassVar[Set[str]] = frozenset()
    """Options that say how far to cut where the events of a plan name no targets."""
    durations: ClassVar[Sequence[str]] = ("recovery_decay", "recovery_warm_up")
    standing: ClassVar[Set[str]] = frozenset({"strategy", "panel"})
    """Options that say something where nothing is planned."""

    def without_effect(self, names: Sequence[str]) -> dict[str, str]:
        """Options that change nothing of what is planned -> what they go with.

        An option that only tunes what is switched off is no reason to refuse a run. Two that ask for different results
        contradict each other, and `validate` refuses them.

        Args:
            names: Dotted names of options that are given.
        """
        filled = self.filled()
        if filled.strategy == "none":
            return {name: "a strategy other than none" for name in names if name not in self.standing}
        found: dict[str, str] = {}
        for known, holds, needs in self.all_effects():
            named = [name for name in names if name not in found and {name, name.partition(".")[0]} & {*known}]
            if named and not holds(filled):
                found.update(dict.fromkeys(named, needs))
        return found

    def shared(self) -> dict[str, Any]:
        """What every recipe takes over as it is from options that are filled in."""
        own = {"options", "score", "rule", "target"}
        names = (f.name for f in fields(Recipe) if f.name not in own)
        return {"options": self.stored(), **{name: getattr(self, name) for name in names}}

    def stored(self) -> dict[str, Any]:
        """The options that a plan follows from or is carried out with, as plain values for a checkpoint."""
        names = self.of_the_run()
        return {name: value for name, value in self.plain().items() if name not in names}

    @classmethod
    def of_the_run(cls) -> set[str]:
        """Options of the run at hand."""
        groups = [base for base in cls.__mro__ if issubclass(base, RunOptions) and not issubclass(base, PruneOptions)]
        return {f.name for group in groups for f in fields(group)}

    def with_stored(self, values: Mapping[str, Any]) -> Self:
        """A filled copy with options that `stored` gave, of this or an earlier version; those of the run are kept."""
        own = {name: getattr(self, name) for name in self.of_the_run()}
        return type(self).from_plain({**values, **own}).filled()

    @classmethod
    def completed(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Stored options with what an earlier version did not store."""
        return {**cls(**cls.defaults()).stored(), **values}

    @classmethod
    def completed_given(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """What was given, of a version that stored only what was in force."""
        return dict(values)

    @classmethod
    def replaced(cls, name: str, value: Any) -> Set[str]:
        """Options that were given earlier and do not hold any more when an option is given again.

        Args:
            name: The option.
            value: Its new value.
        """
        return set()

    def validate(self) -> None:
        """Checks everything that does not depend on the network or the run.

        Raises:
            ValueError: Names the option, what was found and what was expected.
        """
        filled = self.typed().filled()
        filled.check_rules(PREFIX)
        filled.check_recovery()

    def resolve(self) -> Recipe:
        """What the options come to.

        Raises:
            ValueError: If they contradict each other.
        """
        raise NotImplementedError
