"""Random options: of pruning, of the model, of the host's trainer, data and optimizers, and as words of a command.

Every trial goes the way of a run: construct, check, resolve, plan, and in a share of them a few training steps with
events. What is refused has to name an option before the first step; what is taken has to train to finite weights.

    python tests/stress/options.py --count 10000
"""

import contextlib
import io
import math
import random
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, Optional, get_args, get_origin, get_type_hints

sys.path.insert(0, str(Path(__file__).parents[1]))

import tyro
from nerfstudio.engine.schedulers import CosineDecaySchedulerConfig, ExponentialDecaySchedulerConfig
from nerfstudio.utils.rich_utils import CONSOLE
from support.fuzz import CLEAR, NOT_FINITE, ODD, RAW, TAKEN, main
from support.short_run import ShortRuns

from nerfstudio_prune.core.plain import shown
from nerfstudio_prune.engine.checks import DATA_RULES, TRAINER_RULES
from nerfstudio_prune.engine.options import Group
from nerfstudio_prune.engine.schedulers import RunDecaySchedulerConfig
from nerfstudio_prune.nerf.config import PruneConfig
from nerfstudio_prune.nerf.model import RULES as MODEL_RULES
from nerfstudio_prune.neurons.scores import SCORES
from nerfstudio_prune.neurons.strategies import EDGE, STRATEGIES

STEPS = 6
"""Training steps of a run."""
SHARE = 0.2
"""Of the trials in which what is taken is carried out too."""
LAYER = "field_fine.mlp_base.layers.1"
SANE: Mapping[str, Sequence[Any]] = {
    "strategy": [*STRATEGIES, EDGE, "none"],
    "score": list(SCORES),
    "groups": [("*",), ("*.mlp_base.*",), (LAYER, "*.mlp_head.*"), ("field_fine.*",)],
    "group_widths": [{"*": 4}, {LAYER: 3, "*.mlp_head.*": 2}],
    "target_mb": [0.004, 0.006, 0.1],
    **dict.fromkeys(("start_step", "stop_step", "rewind_step", "num_events"), (1, 2, 3, 4, 5)),
    **dict.fromkeys(("recovery_decay", "recovery_warm_up", "shrink_steps", "steps"), (1, 2, 6)),
    **dict.fromkeys(("width", "head_width", "min_width", "round_to"), (1, 2, 3, 4, 8)),
    **dict.fromkeys(("calibration_rays", "calibration_samples", "hard_pool", "num_eval_rays"), (1, 2, 16, 100)),
    "recovery_lr": [1e-4, 1e-2, 0.1],
    "recovery_lr_factor": [0.1, 1.0, 10.0],
    "seed": [0, 7, 2**63 - 1],
}
"""Option -> values that most runs can take; for the others the type says."""
INTEGERS = (
    *(-(10**30), -(2**63), -1, 0, 1, 2, 3, 7, 8, 9, 100, 2**16, 10**6, 10**9, 10**11, 2**62, 2**63, 10**30),
    10**400,
)
FLOATS = (
    *(0.0, 5e-324, 1e-300, 1e-30, 1e-9, 0.01, 0.5, 1 - 1e-16, 1.0, 1 + 1e-9, 2.0, 100.0, 1e3, 1e6, 1e9, 1e30, 1e38),
    *(1e300, math.inf, -math.inf, math.nan, -1.0, -1e-9, -1e300, 10**400),
)
TEXTS = ("", "none", "edge", "all", "*", "[", "x" * 500, "a\nb", "é", "\0", "--help", "1e3")
PROBABILITIES = (0.55, 0.25, 0.12, 0.08)
"""Of a value that is sane, at the edge or absurd, of another type, and of another option's values."""
NAMES = re.compile(
    r"prune\.|pipeline\.|optimizers\.|optimizer\.lr|scheduler\.|max_num_iterations|steps_per_|gradient_accumulation|num_events"
)
"""What an error has to name."""


@cache
def runs() -> ShortRuns:
    """The scene and what belongs to it, made once."""
    folder = Path(scratch().name)
    return ShortRuns(folder, folder / "scene", STEPS)


@cache
def scratch() -> tempfile.TemporaryDirectory[str]:
    """Where they lie; it goes when the process ends."""
    return tempfile.TemporaryDirectory(prefix="stress-options-")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing on the console."""
    before, CONSOLE.quiet = CONSOLE.quiet, True
    try:
        yield
    finally:
        CONSOLE.quiet = before


@quiet()
def trial(rng: random.Random) -> str:
    """Tries one set of options."""
    kind = rng.random()
    steps = STEPS if rng.random() < SHARE else 0
    if kind < 0.06:
        return command_line(rng, steps)
    if kind < 0.25:
        return host_options(rng, steps)
    return carried_out(random_options(rng, PruneConfig, odd=rng.random() < 0.6), steps)


def random_options(rng: random.Random, cls: type[Group], odd: bool) -> Any:
    """Options of which a few are given.

    Args:
        rng: Source of all choices.
        cls: Class of the options.
        odd: Whether values may be other than sane.
    """
    names = rng.sample([f.name for f in fields(cls)], rng.randint(1, 8))
    hints = get_type_hints(cls)
    values: dict[str, Any] = {"min_width": rng.choice([1, 2]), "num_eval_rays": 16} if cls is PruneConfig else {}
    values.update({name: random_value(rng, name, hints[name], odd) for name in names})
    return cls(**values)


def random_value(rng: random.Random, name: str, hint: Any, odd: bool) -> Any:
    """A value of an option, or what somebody took for one."""
    kind = rng.choices(("sane", "edge", "type", "other"), PROBABILITIES if odd else (1, 0, 0, 0))[0]
    if isinstance(hint, type) and issubclass(hint, Group) and kind != "type":
        return random_options(rng, hint, odd)
    if kind == "type":
        return rng.choice(ODD)
    if kind == "other":
        return rng.choice(SANE[rng.choice(list(SANE))])
    if kind == "sane" and name in SANE:
        return rng.choice(SANE[name])
    parts = [hint, *get_args(hint)]
    for part in parts:
        if get_origin(part) is Literal:
            return rng.choice(get_args(part) if kind == "sane" else TEXTS)
    if int in parts:
        return rng.choice(INTEGERS)
    if float in parts:
        return rng.choice([0.1, 0.25, 0.5, 1.0] if kind == "sane" else FLOATS)
    if str in parts:
        return rng.choice(TEXTS)
    if name == "groups":
        return tuple(rng.choice(TEXTS) for _ in range(rng.randint(0, 3)))
    return {rng.choice(TEXTS): rng.choice(INTEGERS) for _ in range(rng.randint(0, 3))}


def carried_out(prune: Any, steps: int, config: Optional[Any] = None) -> str:
    """What comes of the first steps of a run under options."""
    try:
        run, train_step = runs().start(prune, config)
    except ValueError as error:
        if not NAMES.search(str(error)):
            raise RuntimeError(f"the error names no option: {error}") from error
        raise
    for step in range(steps):
        try:
            train_step(step)
        except ValueError as error:
            raise RuntimeError(f"refused in mid-training, at step {step}") from error
    return TAKEN if run.finite else NOT_FINITE


def host_options(rng: random.Random, steps: int) -> str:
    """Options of the model, the trainer, the data manager, the optimizers and schedulers."""
    config = deepcopy(runs().config)
    fields_of = {name: parts["optimizer"] for name, parts in config.optimizers.items()}
    scheduler = rng.choice(
        [None, RunDecaySchedulerConfig(), ExponentialDecaySchedulerConfig(), CosineDecaySchedulerConfig()]
    )
    config.optimizers["fields"]["scheduler"] = scheduler
    places: list[tuple[Any, str]] = [(fields_of["fields"], name) for name in ("lr", "eps", "max_norm", "weight_decay")]
    for part, rules in (
        (config, TRAINER_RULES),
        (config.pipeline.model, MODEL_RULES),
        (config.pipeline.datamanager, DATA_RULES),
    ):
        places += [(part, name) for names, _, _ in rules for name in names if hasattr(part, name)]
    if scheduler is not None:
        places += [(scheduler, f.name) for f in fields(scheduler) if f.name != "_target"]
    for part, name in rng.sample(places, rng.randint(1, 2)):
        setattr(part, name, _other(rng, getattr(part, name), get_type_hints(type(part))[name]))
    return carried_out(PruneConfig(min_width=2, num_eval_rays=16, calibration_rays=16), steps, config)


def _other(rng: random.Random, value: Any, hint: Any) -> Any:
    """Another value in the place of one."""
    if rng.random() < 0.2:
        return rng.choice(ODD)
    if isinstance(value, dict):
        return {key: rng.choice([part, rng.choice(FLOATS)]) for key, part in value.items() if rng.random() < 0.9}
    if isinstance(value, tuple):
        return tuple(rng.choice(INTEGERS[3:8]) for _ in range(rng.randint(0, 3)))
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return rng.choice(TEXTS)
    return rng.choice(INTEGERS if int in (hint, *get_args(hint)) else FLOATS)


def command_line(rng: random.Random, steps: int) -> str:
    """Words after `--pipeline.prune.`, as `ns-train` reads them."""
    words: list[str] = []
    hints: dict[str, Any] = {}
    for name, hint in get_type_hints(PruneConfig).items():
        if isinstance(hint, type) and issubclass(hint, Group):
            hints.update({f"{name}.{inner}": part for inner, part in get_type_hints(hint).items()})
        else:
            hints[name] = hint
    names = [name for name in hints if name.rpartition(".")[2] not in ("rules", "effects", *vars(Group))]
    names = [name for name in names if get_origin(hints[name]) is not None or hints[name] in (int, float, str)]
    for name in rng.sample(names, rng.randint(1, 5)):
        value = random_value(rng, name.rpartition(".")[2], hints[name], True)
        parts = [part for pair in value.items() for part in pair] if isinstance(value, dict) else value
        parts = parts if isinstance(parts, (list, tuple)) and len(parts) < 10 else [parts]
        words += [f"--{name.replace('_', '-')}", *(shown(part).strip("'") for part in parts)]
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told), contextlib.redirect_stdout(told):
            prune = tyro.cli(PruneConfig, args=[word for word in words if word != "--help"])
    except SystemExit:
        return CLEAR if told.getvalue().strip() else RAW
    return carried_out(prune, steps)


if __name__ == "__main__":
    runs()  # takes more memory than a trial may
    main(trial, __doc__)
