"""Changes what the planned events go to while the run goes on."""

from dataclasses import replace
from fractions import Fraction

from nerfstudio_prune.core.schedule import size_at
from nerfstudio_prune.engine.controller import PruneController
from nerfstudio_prune.engine.resuming import plan_options
from nerfstudio_prune.nerf.allocation import budget_of
from nerfstudio_prune.nerf.choosing import whole_cut
from nerfstudio_prune.nerf.config import FilledPruneConfig
from nerfstudio_prune.nerf.cut import target_text
from nerfstudio_prune.nerf.presets import TARGETS


def retarget(controller: PruneController, config: FilledPruneConfig) -> str:
    """Uses other options for the events to come; their steps and shares stay. Checkpoints take that up.

    Args:
        controller: Controller of the run.
        config: Options, validated.

    Returns:
        What was changed, in words.

    Raises:
        ValueError: If no event is to come, or the target does not fit the network. Nothing is changed then.
    """
    state = controller.model.prune_state
    if not state.pending:
        raise ValueError("no event is planned any more")
    if controller.config.strategy == "edge":
        raise ValueError("the plan masks edges (strategy edge); it cannot go on with neurons")
    targets = whole_cut(config, controller.model, controller.step).targets
    if config.has_budget:
        budget_of(config, controller.model)
    initial, pending = state.initial_sizes, state.pending
    changed = []
    for event in pending:
        share = Fraction(event.progress).limit_denominator(10**6)
        widths = {name: size_at(initial[name], width, share, config.round_to) for name, width in targets.items()}
        changed.append(replace(event, targets=widths))
    state.plan = [event for event in state.plan if event not in pending] + changed
    given = {"preset": "paper", **state.options} if state.given is None else state.given
    state.given = {name: value for name, value in {**given, **_named(config)}.items() if value is not None}
    state.options = plan_options(config)
    controller.use(config)
    steps = ", ".join(str(event.step) for event in changed)
    return f"the planned pruning (step {steps}) goes to {target_text(config)}"


def _named(config: FilledPruneConfig) -> dict[str, object]:
    """The options that a cut names, and what contradicts them as not given."""
    values = plan_options(config)
    names = ("strategy", "score", "refit", "recovery_lr_factor", *TARGETS)
    return {**{name: values[name] for name in names}, "coarse": None, "fine": None}
