"""What stays, and what the layers behind make of it, over whole networks."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import pytest
import torch
from support.sampled_field import ROWS, network_samples, points, relu_field, samples_of, with_selections
from support.tiny_field import GROUP_NAMES, HEAD_WIDTH, PREFIX, TRUNK_WIDTH, TinyField
from torch import Tensor

from nerfstudio_prune.neurons.compaction import apply_compaction, prepare_compaction
from nerfstudio_prune.neurons.groups import Consumer, NeuronGroup, linears
from nerfstudio_prune.neurons.propagation import Propagation
from nerfstudio_prune.neurons.refit import RefitMode
from nerfstudio_prune.neurons.samples import Samples, recorded_layers
from nerfstudio_prune.neurons.scores import SCORES
from nerfstudio_prune.neurons.selecting import Refit, networks, select_neurons
from nerfstudio_prune.neurons.strategies import (
    STRATEGIES,
    CoresetStrategy,
    ImportanceStrategy,
    ObsStrategy,
    PivotedQrStrategy,
    Selection,
    Strategy,
    UniformStrategy,
)

HALF = {name: 4 if ".trunk." in name else 3 for name in GROUP_NAMES}
LSTSQ = Refit("lstsq")
RULES: dict[str, Strategy] = {
    **{name: cls() for name, cls in STRATEGIES.items()},
    "mussay": CoresetStrategy("mussay"),
}


def wide_field(seed: int = 0, width: int = 24, **options: Any) -> TinyField:
    """Large enough for averages to mean something."""
    return relu_field(seed, trunk=(width,) * 4, head=(width // 2,) * 2, **options)


def with_sums(samples: Samples, groups: list[NeuronGroup], seed: int = 0) -> Samples:
    """Samples with made-up sums of gradients."""
    generator = torch.Generator().manual_seed(seed)
    sums = {group.name: torch.rand(group.width, generator=generator, dtype=torch.float64) for group in groups}
    return replace(samples, taylor=sums, fisher={name: value.flip(0) for name, value in sums.items()})


def compacted(field: TinyField, selections: Mapping[str, Selection]) -> TinyField:
    """A copy of the field that was really cut."""
    small = copy.deepcopy(field)
    apply_compaction(prepare_compaction(small.groups(), selections))
    return small


def output_error(field: TinyField, selections: Mapping[str, Selection], at: tuple[Tensor, Tensor]) -> float:
    """Mean squared error of colour and density after the cut."""
    with torch.no_grad():
        return float((compacted(field, selections)(*at) - field(*at)).square().mean())


@pytest.mark.parametrize("mode", ["none", "lstsq", "merge"])
@pytest.mark.parametrize("strategy", RULES)
@pytest.mark.parametrize("score", SCORES)
def test_any_score_with_any_strategy_and_any_refit(score: str, strategy: str, mode: RefitMode) -> None:
    """Each of the options can be combined with each; a new score or strategy must work with all that is there. The
    selections must be complete, finite, and give a network that runs and equals what was promised."""
    field = relu_field(seed=1)
    samples = {PREFIX: with_sums(network_samples(field)[PREFIX], field.groups())}
    rule = RULES[strategy]
    selections = select_neurons(field.groups(), HALF, rule, SCORES[score], 3, Refit(mode), samples)
    assert {name: len(selection.keep) for name, selection in selections.items()} == HALF
    if mode != "none":
        assert all(selection.scale is None for selection in selections.values())
        assert all(selection.refit for selection in selections.values())
    large, gates = with_selections(field, selections)
    output = compacted(field, selections)(*points())
    assert bool(torch.isfinite(output).all())
    torch.testing.assert_close(output, large(*points(), gates=gates), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("names", [GROUP_NAMES, (GROUP_NAMES[1], GROUP_NAMES[4])], ids=["all", "two"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("strategy", ["obs", "uniform", "mussay"])
@pytest.mark.parametrize("mode", ["none", "lstsq", "merge"])
def test_cut_network_is_the_one_that_was_planned_with(
    names: tuple[str, ...], bias: bool, strategy: str, mode: RefitMode
) -> None:
    """Later groups were chosen and refitted for the activations of the network that is cut before them. If the network
    that comes out had other activations, all of this would be for nothing. Compared: the means of all neurons in the
    walk, and in the small network that surgery gives."""
    field = relu_field(seed=2, bias=bias)
    samples = network_samples(field)
    targets = {name: HALF[name] for name in names}
    rule = RULES[strategy]
    score = SCORES["w_in_w_out"]
    selections = select_neurons(field.groups(), targets, rule, score, 3, Refit(mode), samples)
    walk = Propagation(field.groups(), samples[PREFIX], 1e-4)
    small = compacted(field, selections)
    with recorded_layers(small.groups()) as records:
        small(*points())
    for group in field.groups():
        keep = torch.arange(group.width)
        selection = selections.get(group.name, Selection(keep))
        present = walk.statistics(group).mean[selection.keep]
        neurons = torch.relu(records[group.name][0].output.detach()).mean(dim=0)
        torch.testing.assert_close(neurons, present, rtol=1e-11, atol=1e-12)
        walk.commit(group, selection)


def dense_refits(field: TinyField, samples: Mapping[str, Samples], rule: Strategy) -> dict[str, Selection]:
    """Each group refitted as if it alone were cut: on the activations of the network as it was."""
    found = {}
    for name in GROUP_NAMES:
        width = field.groups()[GROUP_NAMES.index(name)].width
        chosen = select_neurons(field.groups(), {name: width // 2}, rule, SCORES["w_out"], 0, LSTSQ, samples)
        found[name] = chosen[name]
    return found


def test_refit_front_to_back_makes_up_for_what_was_lost_before() -> None:
    """Why the walk exists. On the output of the whole network, averaged over ten of them: a refit is far better than
    none, and one that sees the activations as they will be, and aims at those that were, is better than one that knows
    only the network as it was, with the same neurons. On the samples themselves and on points that were not among
    them."""
    errors: dict[str, list[float]] = {"none": [], "dense": [], "front to back": []}
    fresh: dict[str, list[float]] = {name: [] for name in errors}
    for seed in range(10):
        field = wide_field(seed)
        targets = {group.name: group.width // 2 for group in field.groups()}
        samples = network_samples(field, 400, even=True)
        rule, score = ImportanceStrategy(), SCORES["w_out"]
        found = {
            "none": select_neurons(field.groups(), targets, rule, score, 0, Refit(), samples),
            "dense": dense_refits(field, samples, rule),
            "front to back": select_neurons(field.groups(), targets, rule, score, 0, LSTSQ, samples),
        }
        for name, selections in found.items():
            errors[name].append(output_error(field, selections, points(1, 400)))
            fresh[name].append(output_error(field, selections, points(99, 400)))
    for table in (errors, fresh):
        none, dense, through = (sum(table[name]) for name in ("none", "dense", "front to back"))
        assert through < 0.8 * dense and dense < 0.5 * none


def test_better_rules_lose_less() -> None:
    """The ranking that the literature and the options' descriptions state: with refit, elimination by error loses less
    than pivots that are blind to the use of neurons, and both less than a random choice."""
    totals = {"obs": 0.0, "pivoted-qr": 0.0, "uniform": 0.0}
    for seed in range(10):
        field = wide_field(seed)
        targets = {group.name: group.width // 3 for group in field.groups()}
        samples = network_samples(field, 300, even=True)
        for name in totals:
            chosen = select_neurons(field.groups(), targets, RULES[name], None, seed, LSTSQ, samples)
            totals[name] += output_error(field, chosen, points(1, 300))
    assert totals["obs"] < 0.9 * totals["pivoted-qr"] and totals["obs"] < 0.7 * totals["uniform"]


def test_groups_behind_a_cut_are_refitted_and_those_before_are_not() -> None:
    """A group that keeps all its neurons still passes on what was lost before it; its readers can make up for that.
    What lies before the first cut has lost nothing, and must keep its very values."""
    field = relu_field(seed=1)
    selections = select_neurons(
        field.groups(), {GROUP_NAMES[2]: 3}, ObsStrategy(), None, 0, LSTSQ, network_samples(field)
    )
    assert list(selections) == list(GROUP_NAMES[2:])
    assert [len(selection.keep) for selection in selections.values()] == [3, TRUNK_WIDTH, HEAD_WIDTH, HEAD_WIDTH]
    assert [list(selection.refit) for selection in selections.values()] == [
        ["field.trunk.3"],
        ["field.density", "field.head.0"],
        ["field.head.1"],
        ["field.rgb"],
    ]
    before = {name: p.detach().clone() for name, p in field.named().items()}
    after = compacted(field, selections).named()
    changed = {name for name, p in after.items() if p.shape != before[name].shape or not torch.equal(p, before[name])}
    layers = ("trunk.3", "density", "head.0", "head.1", "rgb")
    rows = {"field.trunk.2.weight", "field.trunk.2.bias"}
    assert changed == rows | {f"field.{name}.{kind}" for name in layers for kind in ("weight", "bias")}
    assert torch.equal(after["field.trunk.2.weight"], before["field.trunk.2.weight"][selections[GROUP_NAMES[2]].keep])
    for refit in (Refit(), Refit("merge")):
        others = select_neurons(
            field.groups(), {GROUP_NAMES[2]: 3}, ObsStrategy(), None, 0, refit, network_samples(field)
        )
        assert list(others) == [GROUP_NAMES[2]]


def two_networks() -> tuple[TinyField, TinyField, list[NeuronGroup]]:
    """Two fields, as a NeRF has them."""
    fields = relu_field(seed=1), relu_field(seed=2)
    groups = []
    for network, field in zip(("coarse", "fine"), fields, strict=True):
        for group in field.groups():
            readers = tuple(
                Consumer(c.name.replace(PREFIX, network, 1), c.linear, c.column_offset) for c in group.consumers
            )
            name = group.name.replace(PREFIX, network, 1)
            groups.append(NeuronGroup(name, group.producer, readers, network=network))
    return *fields, groups


def renamed(samples: Samples, network: str) -> Samples:
    parts = (
        {k.replace(PREFIX, network, 1): v for k, v in d.items()} for d in (samples.extra, samples.weights, samples.rows)
    )
    return Samples(*parts)


def test_networks_are_walked_apart_and_those_without_a_cut_left_out() -> None:
    """What a cut in one field loses is none of the other one's business: the other one's neurons must be those of a run
    where it is alone, and a field that keeps all needs not even samples."""
    coarse, fine, groups = two_networks()
    assert [(name, len(members)) for name, members in networks(groups)] == [("coarse", 6), ("fine", 6)]
    samples = {n: renamed(samples_of(f, points()), n) for n, f in (("coarse", coarse), ("fine", fine))}
    targets = {f"fine.{name.removeprefix(PREFIX + '.')}": width for name, width in HALF.items()}
    alone = select_neurons(groups, targets, ObsStrategy(), None, 0, LSTSQ, {"fine": samples["fine"]})
    assert set(alone) == set(targets)
    whole = {**targets, **{name.replace("fine", "coarse"): width for name, width in targets.items()}}
    both = select_neurons(groups, whole, ObsStrategy(), None, 0, LSTSQ, samples)
    assert set(both) == set(whole)
    for name, selection in alone.items():
        assert same(selection, both[name])


def test_nothing_to_cut_selects_nothing() -> None:
    """Targets that are reached already, or wider, must leave bits alone: also with a refit, and without samples being
    looked at."""
    field = relu_field()
    for targets in ({}, {GROUP_NAMES[0]: TRUNK_WIDTH}, {name: 99 for name in GROUP_NAMES}):
        assert select_neurons(field.groups(), targets, ObsStrategy(), None, 0, LSTSQ, {}) == {}


def same(a: Selection, b: Selection) -> bool:
    if not torch.equal(a.keep, b.keep) or list(a.refit) != list(b.refit) or (a.scale is None) != (b.scale is None):
        return False
    if a.scale is not None and b.scale is not None and not torch.equal(a.scale, b.scale):
        return False
    pairs = [(a.refit[name], b.refit[name]) for name in a.refit]
    return all(
        torch.equal(w, v) and (p is None) == (q is None) and (p is None or q is None or torch.equal(p, q))
        for (w, p), (v, q) in pairs
    )


@pytest.mark.parametrize("strategy", RULES)
def test_the_seed_decides_alone(strategy: str) -> None:
    """A record's seed must be enough to repeat an event, whatever was drawn before; rules that draw must draw otherwise
    for another seed, and rules that do not must not care."""
    field = wide_field()
    targets = {group.name: group.width // 2 for group in field.groups()}
    samples = network_samples(field)

    def chosen(seed: int) -> dict[str, Selection]:
        score = SCORES["w_in_w_out"]
        return select_neurons(field.groups(), targets, RULES[strategy], score, seed, LSTSQ, samples)

    state = torch.get_rng_state()
    first = chosen(5)
    torch.rand(3)
    second, other = chosen(5), chosen(6)
    torch.set_rng_state(state)
    assert all(same(first[name], second[name]) for name in first)
    draws = strategy in ("uniform", "coreset", "mussay")
    assert all(torch.equal(first[name].keep, other[name].keep) for name in first) == (not draws)


def with_idle_neurons(field: TinyField) -> TinyField:
    """Neurons 0 and 5 of the second trunk layer are dead, neuron 2 gives always 0.75; their weights are large."""
    layer, reader = (field.layers()[f"{PREFIX}.trunk.{i}"] for i in (1, 2))
    with torch.no_grad():
        layer.weight[[0, 5]] = -10.0
        layer.bias[[0, 5]] = -10.0
        layer.bias[LIVE] = 1.0
        layer.weight[2] = 0.0
        layer.bias[2] = 0.75
        reader.weight[:, [3, 5, 8]] = 100.0
    return field


SECOND = GROUP_NAMES[1]
LIVE = [1, 3, 4, 6]


@pytest.mark.parametrize("strategy", RULES)
@pytest.mark.parametrize("score", ["w_out", "sensitivity"])
@pytest.mark.parametrize("n_keep", [1, 2, 4])
def test_idle_neurons_leave_first(strategy: str, score: str, n_keep: int) -> None:
    """A neuron that never changes does nothing that a bias cannot, so it leaves first under every rule, also under a
    random one, and also when its weights give it the highest score of all."""
    field = with_idle_neurons(relu_field())
    scores = SCORES[score](field.groups()[1])
    assert n_keep == 4 or int(scores.argmax()) in (0, 2, 5)
    for seed in range(5):
        chosen = select_neurons(
            field.groups(), {SECOND: n_keep}, RULES[strategy], SCORES[score], seed, Refit(), network_samples(field)
        )
        keep = chosen[SECOND].keep.tolist()
        assert len(keep) == n_keep and set(keep) <= set(LIVE)
        if chosen[SECOND].scale is not None:
            assert len(chosen[SECOND].scale) == n_keep  # type: ignore[arg-type]


@pytest.mark.parametrize("strategy", RULES)
@pytest.mark.parametrize("n_keep", [5, 6])
def test_idle_neurons_stay_only_to_fill_up(strategy: str, n_keep: int) -> None:
    """The width after an event is a promise; if fewer neurons live, idle ones fill up, and every live one stays."""
    field = with_idle_neurons(relu_field())
    chosen = select_neurons(
        field.groups(), {SECOND: n_keep}, RULES[strategy], SCORES["w_in"], 0, LSTSQ, network_samples(field)
    )
    keep = chosen[SECOND].keep.tolist()
    assert len(keep) == n_keep == len(set(keep)) and set(LIVE) <= set(keep) and keep == sorted(keep)


@pytest.mark.parametrize("strategy", RULES)
@pytest.mark.parametrize("mode", ["none", "lstsq", "merge"])
def test_idle_neurons_leave_without_a_trace(strategy: str, mode: RefitMode) -> None:
    """Dead neurons contribute nothing and constant ones a bias: when they alone leave, the network must compute what it
    computed, without any refit too. (Merging used to hand the outgoing weights of dead neurons to live ones, and to
    lose what constant ones contributed.)"""
    field = with_idle_neurons(relu_field())
    layer = field.layers()[SECOND]
    with torch.no_grad():
        layer.weight[1], layer.bias[1] = -5.0, 8.0  # resembles the dead ones
    chosen = select_neurons(
        field.groups(), {SECOND: 4}, RULES[strategy], SCORES["activation"], 0, Refit(mode, 0.0), network_samples(field)
    )
    assert chosen[SECOND].keep.tolist() == LIVE
    assert output_error(field, chosen, points()) < 1e-9


def test_without_samples_nothing_is_known_to_be_idle() -> None:
    """Choices from weights alone are those of the records that were made before there were samples."""
    field = with_idle_neurons(relu_field())
    chosen = select_neurons(field.groups(), {SECOND: 3}, ImportanceStrategy(), SCORES["w_out"], 0)
    assert chosen[SECOND].keep.tolist() == [0, 2, 5] and not chosen[SECOND].refit


def test_refit_replaces_re_weighting() -> None:
    """Both at once would count the lost neurons twice."""
    field = wide_field()
    targets = {group.name: group.width // 2 for group in field.groups()}
    rule, score = CoresetStrategy("mussay"), SCORES["w_in_w_out"]
    plain = select_neurons(field.groups(), targets, rule, score, 1)
    assert all(selection.scale is not None for selection in plain.values())
    for mode in ("lstsq", "merge"):
        samples = network_samples(field) if mode == "lstsq" else None
        found = select_neurons(field.groups(), targets, rule, score, 1, Refit(mode), samples)
        assert all(selection.scale is None and selection.refit for selection in found.values())


def test_missing_samples_are_said() -> None:
    """Not an assertion somewhere deep inside."""
    groups = relu_field().groups()
    with pytest.raises(ValueError, match="refit lstsq needs calibration samples, and none were collected"):
        select_neurons(groups, HALF, UniformStrategy(), None, 0, LSTSQ)
    for rule in (ObsStrategy(), PivotedQrStrategy()):
        with pytest.raises(ValueError, match=f"{type(rule).__name__} needs calibration samples, and none"):
            select_neurons(groups, HALF, rule, None, 0)
    with pytest.raises(ValueError, match=r"field\.trunk\.0: this score needs calibration samples, and none"):
        select_neurons(groups, HALF, ImportanceStrategy(), SCORES["activation"], 0)


@dataclass
class FailsAt(Strategy):
    """Works until it meets a group of the given width."""

    width: int

    def select(self, scores: Tensor, n_keep: int, generator: torch.Generator) -> Selection:
        if len(scores) == self.width:
            raise ValueError("no idea")
        return Selection(torch.arange(n_keep))


@pytest.mark.parametrize("samples", [True, False], ids=["samples", "weights"])
def test_failure_names_the_group_and_leaves_all_as_it_was(samples: bool) -> None:
    """All or nothing: groups before the one that fails were chosen already, but nothing of it may show in the
    network."""
    field = relu_field()
    before = {name: (p, p.detach().clone()) for name, p in field.named().items()}
    given = network_samples(field) if samples else None
    mode: Literal["lstsq", "none"] = "lstsq" if samples else "none"
    with pytest.raises(ValueError, match=r"^field\.head\.0: no idea$"):
        select_neurons(field.groups(), HALF, FailsAt(HEAD_WIDTH), None, 0, Refit(mode), given)
    assert all(p is before[name][0] and torch.equal(p, before[name][1]) for name, p in field.named().items())


def test_scores_that_are_not_finite_name_the_group() -> None:
    """As before there were samples."""
    field = relu_field()

    def bad(group: NeuronGroup) -> Tensor:
        values = torch.ones(group.width)
        values[0] = torch.nan if group.name == GROUP_NAMES[3] else 1.0
        return values

    with pytest.raises(ValueError, match=r"^field\.trunk\.3: scores must be finite, got 1 that are not"):
        select_neurons(field.groups(), HALF, ImportanceStrategy(), bad, 0, LSTSQ, network_samples(field))


def test_a_score_sees_the_network_that_is_already_pruned() -> None:
    """A score on samples must count what a neuron does behind the cut, and the refitted weights in front of it."""
    field = relu_field(seed=1)
    seen: dict[str, GroupSeen] = {}

    def spy(group: NeuronGroup) -> Tensor:
        assert group.statistics is not None
        seen[group.name] = GroupSeen(group.statistics.mean.clone())
        return SCORES["activation"](group)

    samples = network_samples(field)
    chosen = select_neurons(field.groups(), HALF, ImportanceStrategy(), spy, 0, LSTSQ, samples)
    for i, name in enumerate(GROUP_NAMES):
        earlier = {n: chosen[n] for n in GROUP_NAMES[:i]}
        large, gates = with_selections(field, earlier)
        with recorded_layers(large.groups()) as records:
            large(*points(), gates=gates)
        expected = torch.relu(records[name][0].output.detach()).mean(dim=0)
        torch.testing.assert_close(seen[name].mean, expected, rtol=1e-11, atol=1e-12)


@dataclass
class GroupSeen:
    """What a score was shown."""

    mean: Tensor


def test_few_samples_do_not_break_a_choice() -> None:
    """One sample makes every neuron constant, fewer than neurons make them dependent; both give the promised widths."""
    field = relu_field()
    for rows in (1, 3):
        for name, rule in RULES.items():
            for mode in ("none", "lstsq", "merge"):
                chosen = select_neurons(
                    field.groups(), HALF, rule, SCORES["activation"], 0, Refit(mode), network_samples(field, rows)
                )
                assert {n: len(s.keep) for n, s in chosen.items()} == HALF, name
                assert bool(torch.isfinite(compacted(field, chosen)(*points())).all())
    assert ROWS > 3 and len(linears(field.groups())) == 8
