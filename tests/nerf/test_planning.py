"""From options to absolute steps and widths, and what a resumed run keeps of them."""

from dataclasses import replace
from typing import Any

import pytest
from support.tiny_plan import subject_under, updated
from support.tiny_run import paper_model, shrink, tiny_model, tiny_widths, widths

from nerfstudio_prune.core.events import PruneEvent, PruneState, ScheduledEvent
from nerfstudio_prune.engine.planning import resolve_plan, resolve_steps
from nerfstudio_prune.nerf.config import FieldTargetConfig, PruneConfig
from nerfstudio_prune.nerf.model import PruneModel
from nerfstudio_prune.nerf.recipes import NeuronRecipe
from nerfstudio_prune.nerf.targets import resolve_targets
from nerfstudio_prune.nerf.teacher.config import TeacherConfig
from nerfstudio_prune.neurons.groups import NeuronGroup


@pytest.fixture(scope="module")
def model() -> PruneModel:
    """The network of default size."""
    return paper_model()


@pytest.fixture(scope="module")
def groups(model: PruneModel) -> list[NeuronGroup]:
    """Its groups."""
    return model.neuron_groups()


def paper_config(**options: Any) -> PruneConfig:
    """Options on top of the bare defaults."""
    return PruneConfig(**{"preset": "paper", **options})


def neuron_recipe(config: PruneConfig) -> NeuronRecipe:
    recipe = config.resolve()
    assert isinstance(recipe, NeuronRecipe)
    return recipe


def targets_of(network: list[NeuronGroup], **options: Any) -> dict[str, int]:
    config = paper_config(**options)
    config.validate()
    return resolve_targets(neuron_recipe(config), network, {group.name: group.width for group in network})


def plan_of(config: PruneConfig, model: PruneModel) -> list[ScheduledEvent]:
    """All events of options whose steps are resolved."""
    return resolve_plan(config.resolve(), subject_under(config, model), widths(model))


def by_kind(targets: dict[str, int]) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for name, width in targets.items():
        field, mlp, *_ = name.removeprefix("field_").split(".")
        found.setdefault(f"{field} {mlp.removeprefix('mlp_')}", set()).add(width)
    return found


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"coarse base": 128, "coarse head": 64, "fine base": 128, "fine head": 64}),
        ({"width": 64}, {"coarse base": 64, "coarse head": 32, "fine base": 64, "fine head": 32}),
        (
            {"width": 64, "head_width": 100},
            {"coarse base": 64, "coarse head": 100, "fine base": 64, "fine head": 100},
        ),
        ({"head_width": 48}, {"coarse head": 48, "fine head": 48}),
        ({"width": 8, "min_width": 8}, {"coarse base": 8, "coarse head": 8, "fine base": 8, "fine head": 8}),
        ({"width": 256}, {"coarse base": 256, "coarse head": 128, "fine base": 256, "fine head": 128}),
        ({"pruning_ratio": 0.75}, {"coarse base": 64, "coarse head": 32, "fine base": 64, "fine head": 32}),
        ({"pruning_ratio": 0.999}, {"coarse base": 8, "coarse head": 8, "fine base": 8, "fine head": 8}),
        # 256 * 0.7 = 179.2 and 128 * 0.7 = 89.6, to the nearest multiple of 16
        (
            {"pruning_ratio": 0.3, "round_to": 16},
            {"coarse base": 176, "coarse head": 96, "fine base": 176, "fine head": 96},
        ),
        # an explicit width is exact, the head's 50 that follows from it is rounded
        (
            {"width": 100, "round_to": 16},
            {"coarse base": 100, "coarse head": 48, "fine base": 100, "fine head": 48},
        ),
        (
            {"width": 64, "coarse": FieldTargetConfig(width=32)},
            {"coarse base": 32, "coarse head": 16, "fine base": 64, "fine head": 32},
        ),
        (
            {"fine": FieldTargetConfig(pruning_ratio=0.0)},
            {"coarse base": 128, "coarse head": 64, "fine base": 256, "fine head": 128},
        ),
        (
            {"width": 64, "fine": FieldTargetConfig(head_width=20)},
            {"coarse base": 64, "coarse head": 32, "fine head": 20},
        ),
        ({"groups": ("field_fine.mlp_base.*",)}, {"fine base": 128}),
        ({"width": 64, "groups": ("*.mlp_head.*",)}, {"coarse head": 32, "fine head": 32}),
    ],
)
def test_targets(groups: list[NeuronGroup], options: dict[str, Any], expected: dict[str, int]) -> None:
    """What the options mean in neurons of the paper's network, worked out by hand: half by default, the head in
    proportion, a field's own target in place of the common one, rounding only where a width was not given."""
    assert by_kind(targets_of(groups, **options)) == {kind: {width} for kind, width in expected.items()}


def test_seven_layers_of_the_paper(groups: list[NeuronGroup]) -> None:
    """The paper prunes its «seven 256x256 layers»; the pattern named in the help text must choose exactly them."""
    found = targets_of(groups, width=64, groups=("*.mlp_base.layers.[1-7]",))
    assert found == {f"field_{f}.mlp_base.layers.{i}": 64 for f in ("coarse", "fine") for i in range(1, 8)}


def test_group_widths(groups: list[NeuronGroup]) -> None:
    """Layers that no pattern names stay whole, and two patterns may meet in a layer only if they agree."""
    patterns = {"field_fine.mlp_base.layers.[0-1]": 64, "field_fine.mlp_base.layers.1": 64, "*.mlp_head.layers.0": 32}
    assert targets_of(groups, group_widths=patterns) == {
        "field_fine.mlp_base.layers.0": 64,
        "field_fine.mlp_base.layers.1": 64,
        "field_coarse.mlp_head.layers.0": 32,
        "field_fine.mlp_head.layers.0": 32,
    }
    with pytest.raises(ValueError) as caught:
        targets_of(groups, group_widths={"*.mlp_base.layers.0": 64, "field_fine.*": 32})
    assert "prune.group_widths gives field_fine.mlp_base.layers.0 two widths, 64 and 32" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"width": 300},
            "prune.width 300 is above the current width 256 of field_coarse.mlp_base.layers.0",
        ),
        (
            {"width": 64, "head_width": 129},
            "prune.head_width 129 is above the current width 128 of field_coarse.mlp_head.layers.0",
        ),
        (
            {"fine": FieldTargetConfig(width=257)},
            "prune.fine.width 257 is above the current width 256 of field_fine.mlp_base.layers.0",
        ),
        (
            {"group_widths": {"field_fine.*": 200}},
            "prune.group_widths['field_fine.*'] 200 is above the current width 128 of field_fine.mlp_head.layers.0",
        ),
    ],
)
def test_width_above_the_current_one(groups: list[NeuronGroup], options: dict[str, Any], message: str) -> None:
    """Neurons cannot be added; a target above the present width is a mistake, most likely about which network it is."""
    with pytest.raises(ValueError) as caught:
        targets_of(groups, **options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"groups": ("*", "*.mlp_base.layer.*")}, "prune.groups: pattern '*.mlp_base.layer.*'"),
        ({"group_widths": {"fine.*": 64}}, "prune.group_widths: pattern 'fine.*'"),
        ({"strategy": "edge", "groups": ("nothing",)}, "prune.groups: pattern 'nothing'"),
    ],
)
def test_unknown_pattern_lists_the_groups(model: PruneModel, options: dict[str, Any], option: str) -> None:
    """Nobody knows module paths by heart; the answer to a wrong pattern is the list of names, also for edges."""
    config = resolve_steps(paper_config(**options).filled(), 0, 100)
    with pytest.raises(ValueError) as caught:
        plan_of(config, model)
    assert f"{option} matches no group of neurons; the groups are" in str(caught.value)
    assert all(name in str(caught.value) for name in widths(model))


@pytest.mark.parametrize(
    ("options", "first_step", "expected"),
    [
        ({}, 0, (150, 500, 1)),
        ({"schedule": "iterative"}, 0, (150, 500, 4)),
        ({"schedule": "cubic", "num_events": 3, "start_step": 400}, 0, (400, 500, 3)),
        ({"schedule": "cubic", "num_events": 3, "start_step": 401}, 0, (401, 700, 3)),
        ({"schedule": "cubic", "num_events": 3, "start_step": 600}, 0, (600, 800, 3)),
        ({"schedule": "iterative", "start_step": 600}, 400, (600, 1000, 4)),
        ({"start_step": 500}, 0, (500, 750, 1)),
        ({"schedule": "cubic"}, 140, (150, 500, 4)),
        ({"schedule": "cubic"}, 2000, (2000, 2500, 4)),
        ({"schedule": "cubic", "num_events": 5, "start_step": 995}, 0, (995, 999, 5)),
        ({"stop_step": 700}, 400, (400, 700, 1)),
        ({"start_fraction": 0.57}, 0, (570, 785, 1)),
        ({"start_fraction": 0.0}, 0, (0, 500, 1)),
        ({"start_fraction": 0.6, "schedule": "cubic", "num_events": 5}, 0, (600, 800, 5)),
        ({"start_fraction": 0.6}, 700, (700, 1200, 1)),
        ({"start_fraction": 0.6, "start_step": 300}, 0, (300, 500, 1)),
    ],
)
def test_open_steps_are_filled_in(options: dict[str, Any], first_step: int, expected: tuple[int, int, int]) -> None:
    """Start after 15 %, or the fraction that is given, and stop at half of a run of 1,000 steps; where less than a
    tenth of the run lies between the two, half-way to the end, or as early as the events fit. A run that goes on from a
    trained checkpoint is past these steps: if its events were overdue, all of a gradual cut would happen at once."""
    config = resolve_steps(paper_config(**options).filled(), first_step, 1000)
    assert (config.start_step, config.stop_step, config.num_events) == expected


@pytest.mark.parametrize(
    ("options", "first_step", "message"),
    [
        (
            {"start_step": 1000},
            0,
            "prune.start_step 1000 lies past the end of the run, whose last step is 999; pruning would never happen. "
            "Lower it, raise max_num_iterations, or choose prune.strategy none",
        ),
        ({"start_step": 1400}, 400, "prune.start_step 1400 lies past the end of the run, whose last step is 1399"),
        (
            {"schedule": "iterative", "start_step": 500, "stop_step": 1000},
            0,
            "prune.stop_step 1000 lies past the end of the run, whose last step is 999; the last event would never "
            "happen. Lower it, raise max_num_iterations",
        ),
        (
            {"schedule": "cubic", "start_step": 900, "num_events": 101},
            0,
            "prune.num_events 101 is more than the 100 steps from the first event at step 900 to the end of the run",
        ),
        ({"shrink_steps": 1001}, 0, "prune.shrink_steps 1001 is longer than the run, whose last step is 999"),
        (
            {"recovery_warm_up": 1401},
            400,
            "prune.recovery_warm_up 1401 is longer than the run, whose last step is 13",
        ),
        ({"recovery_decay": 10**9, "recovery_lr": 0.1}, 0, "prune.recovery_decay 1000000000 is longer than the run"),
        ({"teacher": TeacherConfig(steps=5000)}, 0, "prune.teacher.steps 5000 is longer than the run"),
    ],
)
def test_steps_that_cannot_be(options: dict[str, Any], first_step: int, message: str) -> None:
    """A cut after the end of the run would leave a dense network after days of training that were meant to prune."""
    with pytest.raises(ValueError) as caught:
        resolve_steps(paper_config(**options).filled(), first_step, 1000)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_events": 2}, "schedule one-shot has exactly 1 event, got num_events 2"),
        (
            {"schedule": "iterative", "num_events": 4, "start_step": 5, "stop_step": 7},
            "prune.stop_step must be at least start_step + num_events - 1 = 8",
        ),
        (
            {"schedule": "iterative", "num_events": 2, "start_step": 500, "stop_step": 499},
            "stop_step must be at least start_step + num_events - 1 = 501",
        ),
    ],
)
def test_schedules_that_cannot_be(model: PruneModel, options: dict[str, Any], message: str) -> None:
    """Several cuts where one was asked for, or more cuts than steps, must not be quietly turned into something else."""
    config = resolve_steps(paper_config(**options).filled(), 0, 1000)
    with pytest.raises(ValueError) as caught:
        plan_of(config, model)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "steps", "trunk", "head"),
    [
        ({"width": 64, "start_step": 300}, [300], [64], [32]),
        (
            {"schedule": "iterative", "num_events": 4, "start_step": 100, "stop_step": 400},
            [100, 200, 300, 400],
            [224, 192, 160, 128],
            [112, 96, 80, 64],
        ),
        (
            {"schedule": "cubic", "num_events": 4, "start_step": 100, "stop_step": 400, "width": 64, "round_to": 16},
            [100, 200, 300, 400],
            [160, 96, 80, 64],
            [80, 48, 48, 32],
        ),
        ({"schedule": "cubic", "width": 64}, [150, 266, 383, 500], [145, 88, 67, 64], [73, 44, 34, 32]),
    ],
)
def test_table_of_events(
    model: PruneModel, options: dict[str, Any], steps: list[int], trunk: list[int], head: list[int]
) -> None:
    """The plan is printed at the start and stored in the checkpoint: steps and widths as worked out by hand, the last
    event at the target exactly."""
    config = resolve_steps(paper_config(**options).filled(), 0, 1000)
    plan = plan_of(config, model)
    assert [event.step for event in plan] == steps
    assert [event.targets["field_fine.mlp_base.layers.4"] for event in plan] == trunk
    assert [event.targets["field_coarse.mlp_head.layers.1"] for event in plan] == head
    assert plan[-1].share == plan[-1].progress == 1 and len(plan[-1].targets) == 20


def test_ratios_refer_to_the_initial_width(groups: list[NeuronGroup]) -> None:
    """Half of an already halved network is not what `pruning_ratio 0.5` says; over a resumed run the ratio would
    compound."""
    initial = {group.name: 2 * group.width for group in groups}
    recipe = neuron_recipe(paper_config(pruning_ratio=0.75))
    assert by_kind(resolve_targets(recipe, groups, initial))["fine base"] == {128}


def resumed(state: PruneState) -> PruneState:
    """The state after a round through a checkpoint."""
    return PruneState.from_dict(state.to_dict())


def changed_by(*args: Any) -> list[str]:
    return updated(*args)[1]


def carry_out(state: PruneState, index: int) -> None:
    event = state.plan[index]
    state.history = [*state.history, PruneEvent(event.step, event, "coreset", "continue")]


def test_stored_plan_holds_on_resume() -> None:
    """A resumed run has another first step and often another length, from which the open steps would come out
    differently; the resolved plan has to stand, and done events have to stay done."""
    model, state = tiny_model(), PruneState()
    config = paper_config(schedule="iterative", num_events=2, min_width=2)
    assert changed_by(state, config, model, 0, 100) == []
    plan = list(state.plan)
    assert [event.step for event in plan] == [15, 50]
    carry_out(state, 0)
    later = resumed(state)
    assert changed_by(later, config, model, 21, 1000) == []
    assert later.plan == plan and later.pending == plan[1:]
    assert changed_by(later, PruneConfig(), model, 21, 1000) == []  # nothing given on the second command line
    assert later.plan == plan


@pytest.mark.parametrize(
    ("given", "changed", "steps", "trunk"),
    [
        ({"width": 4}, ["width"], [15, 50], [10, 4]),
        ({"pruning_ratio": 0.25}, ["pruning_ratio"], [15, 50], [14, 12]),
        ({"stop_step": 70}, ["stop_step"], [15, 70], [12, 8]),
        ({"start_step": 30}, ["start_step"], [30, 50], [12, 8]),
        ({"start_fraction": 0.4}, ["start_fraction"], [40, 50], [12, 8]),
        ({"num_events": 4}, ["num_events"], [15, 26, 38, 50], [14, 12, 10, 8]),
        ({"schedule": "cubic", "num_events": 2}, ["schedule"], [15, 50], [9, 8]),
        ({"schedule": "cubic"}, ["schedule"], [15, 26, 38, 50], [12, 9, 9, 8]),
        ({"recovery": "retrain"}, ["recovery"], [15, 50], [12, 8]),
    ],
)
def test_option_given_again_replaces_the_stored_one(
    given: dict[str, Any], changed: list[str], steps: list[int], trunk: list[int]
) -> None:
    """Someone who resumes with another target means it. What was not given again keeps its stored value, and a target
    of one kind takes the place of one of another kind instead of contradicting it."""
    model, state = tiny_model(), PruneState()
    first = {"schedule": "iterative", "num_events": 2, "min_width": 2}
    updated(state, paper_config(**first, width=8), model, 0, 100)
    later = resumed(state)
    assert changed_by(later, paper_config(**given), model, 10, 100) == changed
    assert [event.step for event in later.plan] == steps
    assert [event.targets["field_fine.mlp_base.layers.2"] for event in later.plan] == trunk
    again = resumed(later)
    assert changed_by(again, paper_config(**given), model, 12, 100) == []
    assert again.plan == later.plan


@pytest.mark.parametrize(
    ("options", "message"), [({"width": 17}, "above the current width 16"), ({"start_step": 400}, "never happen")]
)
def test_bad_option_given_again_leaves_the_state_alone(options: dict[str, Any], message: str) -> None:
    """The state goes into the next checkpoint; a refused option must not have changed half of it."""
    model, state = tiny_model(), PruneState()
    updated(state, paper_config(min_width=2), model, 0, 100)
    before = state.to_dict()
    with pytest.raises(ValueError, match=message):
        updated(state, paper_config(**options), model, 10, 100)
    assert state.to_dict() == before


def test_dense_control_resumed_with_a_strategy_plans_anew() -> None:
    """The fair comparison branches several strategies from one checkpoint of a `strategy none` run; each branch has to
    plan from the options it is given, as if it had started with them. Without a strategy the control stays dense."""
    model, state = tiny_model(), PruneState()
    assert changed_by(state, paper_config(strategy="none", min_width=2), model, 0, 100) == []
    assert state.plan == [] and state.initial_sizes == tiny_widths(16, 8)
    branch, control = resumed(state), resumed(state)
    assert changed_by(control, PruneConfig(), model, 51, 100) == [] and control.plan == []
    in_force, changed = updated(branch, paper_config(strategy="uniform", start_step=60), model, 51, 100)
    assert (in_force.strategy, changed) == ("uniform", ["strategy", "start_step"])
    assert [(event.step, event.targets) for event in branch.plan] == [(60, tiny_widths(8, 4))]


def test_pruning_switched_off_on_resume() -> None:
    """`strategy none` on a half-pruned run means «no further cuts», which is said, and later resumes do not remember
    the cuts that were called off."""
    model, state = tiny_model(), PruneState()
    updated(state, paper_config(schedule="iterative", num_events=2, min_width=2), model, 0, 100)
    carry_out(state, 0)
    later = resumed(state)
    assert changed_by(later, paper_config(strategy="none"), model, 21, 100) == ["strategy"]
    assert later.pending == [] and later.phase == "recovery"
    again = resumed(later)
    assert changed_by(again, paper_config(strategy="none"), model, 31, 100) == [] and again.pending == []


def test_further_pruning_of_a_pruned_network_counts_from_its_first_width() -> None:
    """A second campaign on a pruned checkpoint: ratios still refer to the first widths, and a width that the network
    does not have any more is an error."""
    model = shrink(tiny_model(), tiny_widths(8, 4))
    state = PruneState(initial_sizes=tiny_widths(16, 8))
    updated(state, paper_config(pruning_ratio=0.75, min_width=2, start_step=5), model, 0, 100)
    assert state.plan[0].targets == tiny_widths(4, 2)
    with pytest.raises(ValueError, match="width 9 is above the current width 8 of"):
        updated(PruneState(initial_sizes=tiny_widths(16, 8)), paper_config(width=9), model, 0, 100)
    assert widths(model) == tiny_widths(8, 4)


def test_method_defaults_are_not_options_given_again() -> None:
    """Methods bring their own defaults (`nerf-prune-demo` its start step); a default that nobody typed must not replace
    what was typed at the first start, or every resume moves the pruning."""
    model, state, default = tiny_model(), PruneState(), paper_config(start_step=75, min_width=2)
    updated(state, replace(default, start_step=20), model, 0, 100, default)
    later = resumed(state)
    assert changed_by(later, default, model, 10, 50, default) == []
    assert [event.step for event in later.plan] == [20]
    assert changed_by(later, replace(default, start_step=30), model, 10, 50, default) == ["start_step"]


def test_stored_strategy_and_recovery_hold_too() -> None:
    """A plan is only half of what was asked for: resumed without options, an importance run that went on as a coreset
    run would be filed under the wrong name. A strategy given again brings its own score and variant."""
    model, state = tiny_model(), PruneState()
    options = {"strategy": "importance", "score": "w_out", "recovery": "retrain", "recovery_lr": 1e-4, "seed": 3}
    first = paper_config(**options, min_width=2)
    started, _ = updated(state, first, model, 0, 100)
    later = resumed(state)
    in_force, changed = updated(later, paper_config(on_error="continue"), model, 10, 100)
    assert changed == [] and in_force == replace(started, on_error="continue")
    assert (in_force.strategy, in_force.resolve().score, in_force.recovery, in_force.seed) == (
        "importance",
        "w_out",
        "retrain",
        3,
    )
    in_force, changed = updated(later, paper_config(strategy="uniform"), model, 10, 100)
    assert changed == ["strategy"]
    assert (in_force.strategy, in_force.resolve().score, in_force.recovery) == ("uniform", None, "retrain")


def test_default_can_be_given_again() -> None:
    """Going back to a default is a choice as well: `--pipeline.prune.strategy coreset` typed on the resume of an
    importance run must not be taken for nothing."""
    model, state = tiny_model(), PruneState()
    updated(state, paper_config(strategy="importance", recovery="scratch", min_width=2), model, 0, 100)
    in_force, changed = updated(resumed(state), paper_config(strategy="coreset", recovery="continue"), model, 10, 100)
    assert changed == ["strategy", "recovery"]
    assert (in_force.strategy, in_force.recovery) == ("coreset", "continue")


def test_plan_of_an_earlier_version_is_taken_up() -> None:
    """Checkpoints outlive versions: an option that an older one did not know has its default, one that a newer one gave
    up is no reason to refuse the run."""
    model, state = tiny_model(), PruneState()
    updated(state, paper_config(strategy="importance", min_width=2), model, 0, 100)
    del state.options["edge_scope"]
    state.options["given_up"] = 1
    in_force, changed = updated(state, PruneConfig(), model, 10, 100)
    assert changed == [] and (in_force.strategy, in_force.edge_scope) == ("importance", "layer")
