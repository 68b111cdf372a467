"""One number per neuron."""

import math
from collections.abc import Callable

import pytest
import torch
from support.tiny_field import GROUP_NAMES, TinyField
from torch import Tensor, nn

from nerfstudio_prune.neurons.groups import Consumer, NeuronGroup
from nerfstudio_prune.neurons.scores import SCORES, score_by_name, weight_scores

every_score = pytest.mark.parametrize("name", sorted(weight_scores()))


def linear(weight: list[list[float]], bias: list[float] | None = None) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(weight), bias=bias is not None).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        if bias is not None:
            layer.bias.copy_(torch.tensor(bias))
    return layer


def hand_made(bias: bool) -> NeuronGroup:
    """Two neurons with three inputs, read by a layer with two outputs and by one whose first column is another
    input."""
    producer = linear([[1.0, -2.0, 3.0], [0.0, 0.5, -1.0]], [10.0, -1.0] if bias else None)
    first = Consumer("first", linear([[1.0, -1.0], [2.0, 0.0]], [50.0, 60.0]), 0)
    second = Consumer("second", linear([[100.0, -3.0, 4.0]]), 1)
    return NeuronGroup("producer", producer, (first, second))


@pytest.mark.parametrize(
    ("name", "bias", "expected"),
    [
        ("w_in", True, [2.0, 0.5]),
        ("w_in", False, [2.0, 0.5]),
        ("w_out", True, [(1 + 2 + 3) / 3, (1 + 0 + 4) / 3]),
        ("w_in_w_out", True, [4.0, 5 / 6]),
        ("sensitivity", True, [3 * math.sqrt(1 + 4 + 9 + 100), 4 * math.sqrt(0.25 + 1 + 1)]),
        ("sensitivity", False, [3 * math.sqrt(14), 4 * math.sqrt(1.25)]),
    ],
)
def test_written_out_numbers(name: str, bias: bool, expected: list[float]) -> None:
    """The scores are the paper's equations 3 and 4 (means of absolute values, bias not included, all consumers' rows)
    and the sensitivity of the coreset's source (maximum, norm with bias). On numbers that can be checked in the
    head, so that a mean over the wrong axis or a column of another input cannot hide."""
    assert SCORES[name](hand_made(bias)).tolist() == pytest.approx(expected, rel=1e-15)


def brute_force(name: str, group: NeuronGroup) -> list[float]:
    """The definitions, one neuron and one weight at a time."""
    scores = []
    for i in range(group.producer.weight.shape[0]):
        into = [abs(w) for w in group.producer.weight[i].tolist()]
        out = [abs(row[c.column_offset + i]) for c in group.consumers for row in c.linear.weight.tolist()]
        mean_in, mean_out = sum(into) / len(into), sum(out) / len(out)
        norm = math.sqrt(sum(w * w for w in into) + group.producer.bias[i].item() ** 2)
        scores.append({"w_in": mean_in, "w_out": mean_out, "w_in_w_out": mean_in * mean_out}.get(name, max(out) * norm))
    return scores


@every_score
@pytest.mark.parametrize("index", range(len(GROUP_NAMES)), ids=GROUP_NAMES)
def test_equals_a_loop_over_weights(name: str, index: int) -> None:
    """Every group of a NeRF has its own trap (skip, direction, two readers of different size); each score is compared
    with a loop that follows the definition one weight at a time."""
    group = TinyField(seed=5).groups()[index]
    assert SCORES[name](group).tolist() == pytest.approx(brute_force(name, group), rel=1e-13)


@every_score
def test_permuting_the_neurons_permutes_the_scores(name: str) -> None:
    """Neurons have no order; a score that depends on a neuron's place would make the choice depend on the accident of
    initialisation."""
    group = TinyField(seed=6).groups()[3]
    before = SCORES[name](group).clone()
    order = torch.tensor([3, 0, 6, 2, 5, 1, 4])
    with torch.no_grad():
        group.producer.weight.copy_(group.producer.weight[order].clone())
        group.producer.bias.copy_(group.producer.bias[order].clone())
        for c in group.consumers:
            span = slice(c.column_offset, c.column_offset + group.width)
            c.linear.weight[:, span] = c.linear.weight[:, span][:, order].clone()
    torch.testing.assert_close(SCORES[name](group), before[order], rtol=1e-14, atol=0)


def silence_input(group: NeuronGroup) -> None:
    group.producer.weight[2] = 0.0
    group.producer.bias[2] = 0.0


def silence_output(group: NeuronGroup) -> None:
    for c in group.consumers:
        c.linear.weight[:, c.column_offset + 2] = 0.0


@pytest.mark.parametrize(
    ("name", "silence"),
    [
        ("w_in", silence_input),
        ("w_out", silence_output),
        ("w_in_w_out", silence_input),
        ("w_in_w_out", silence_output),
        ("sensitivity", silence_input),
        ("sensitivity", silence_output),
    ],
)
@pytest.mark.parametrize("index", range(len(GROUP_NAMES)), ids=GROUP_NAMES)
def test_dead_neuron_is_lowest(name: str, silence: Callable[[NeuronGroup], None], index: int) -> None:
    """A neuron that nothing reaches, or that nobody reads, can go for free, so no score may prefer it to a living one;
    it scores zero, alone at the bottom."""
    group = TinyField(seed=7).groups()[index]
    with torch.no_grad():
        silence(group)
    scores = SCORES[name](group)
    assert scores[2] == 0 and int((scores > 0).sum()) == group.width - 1


@pytest.mark.parametrize("name", ["w_out", "w_in_w_out", "sensitivity"])
def test_neuron_read_by_one_consumer_only_is_alive(name: str) -> None:
    """The last trunk layer feeds density and colour. A neuron that only the density reads must count: a score that
    looks at one consumer would remove the geometry."""
    group = TinyField(seed=8).groups()[3]
    density, color = group.consumers
    with torch.no_grad():
        color.linear.weight[:, color.column_offset + 1] = 0.0
        density.linear.weight[:, 1] = 100.0
    scores = SCORES[name](group)
    assert int(scores.argmax()) == 1


@every_score
def test_scores_carry_no_graph(name: str) -> None:
    """Scores are read during training; a graph hanging on them would keep the weights of before the event alive."""
    group = TinyField().groups()[0]
    scores: Tensor = SCORES[name](group)
    assert not scores.requires_grad and scores.shape == (group.width,)


def test_unknown_score_lists_the_names() -> None:
    """The names cannot be guessed; the message offers them."""
    with pytest.raises(
        ValueError, match=r"one of activation, apoz, .*, sensitivity, taylor, w_in, w_in_w_out, w_out, got 'l1'"
    ):
        score_by_name("l1")
    assert score_by_name("w_in") is SCORES["w_in"]
