"""Other libraries on this model: what they remove must be what they say, or a comparison with them means nothing."""

import random
import sys
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny_run import (
    after_each_step,
    copied_state,
    make_config,
    rays,
    same_bits,
    shrink,
    start,
    tiny_model,
    tiny_widths,
    widths,
)
from torch import Tensor, nn
from torch.nn.utils import prune

from nerfstudio_prune.bench import peers
from nerfstudio_prune.bench.peers import (
    TORCH_PRUNING_CRITERIA,
    TraceableField,
    mask_neurons,
    torch_prune_keeps,
    torch_pruning,
)
from nerfstudio_prune.core.optimizer_state import check_optimizers
from nerfstudio_prune.engine.host import reset_host, seeded
from nerfstudio_prune.nerf.model import PruneModel
from nerfstudio_prune.neurons.compaction import apply_compaction, prepare_compaction
from nerfstudio_prune.neurons.groups import NeuronGroup
from nerfstudio_prune.neurons.strategies import Selection

SKIP, LAST, HEAD = (f"field_fine.{name}" for name in ("mlp_base.layers.1", "mlp_base.layers.4", "mlp_head.layers.0"))


@pytest.fixture
def tp() -> Any:
    return pytest.importorskip("torch_pruning", reason="the optional dependency torch-pruning is not installed")


def model_with_gradients(seed: int = 0, **options: Any) -> PruneModel:
    """A model with weights and biases of full spread, so that no neuron is dead, and gradients that follow no rule."""
    torch.manual_seed(seed)
    model = tiny_model(**options)
    for parameter in model.parameters():
        with torch.no_grad():
            parameter.normal_(0, 0.4)
        parameter.grad = torch.randn_like(parameter)
    return model


def groups_of(model: PruneModel) -> dict[str, NeuronGroup]:
    return {group.name: group for group in model.neuron_groups()}


def kept(selections: dict[str, Selection]) -> dict[str, list[int]]:
    return {name: selection.keep.tolist() for name, selection in selections.items()}


def render(model: PruneModel) -> dict[str, Tensor]:
    """Outputs of the host's own forward pass, without random samples."""
    with torch.no_grad():
        return model.eval()(rays(12))


def largest(scores: Tensor, count: int) -> list[int]:
    return sorted(scores.argsort(descending=True)[:count].tolist())


# Each score is written out for one group: rows of the producer, and the columns of what reads it, by hand.
def l1(rows: Tensor, *_: Tensor) -> Tensor:
    return rows.abs().sum(dim=1)


def l2(rows: Tensor, *_: Tensor) -> Tensor:
    return rows.square().sum(dim=1)


def taylor(rows: Tensor, gradient: Tensor) -> Tensor:
    return (rows * gradient).abs().sum(dim=1)


def fpgm(rows: Tensor, *_: Tensor) -> Tensor:
    squares = rows.square()
    return torch.stack([(squares - row).square().sum(dim=1).sqrt().sum() for row in squares])


@pytest.mark.parametrize(
    ("criterion", "score"),
    [("magnitude-l1", l1), ("magnitude-l2", l2), ("taylor", taylor), ("fpgm", fpgm), ("lamp", l2)],
)
def test_torch_pruning_scores_rows_and_the_right_columns(tp: Any, criterion: str, score: Callable[..., Tensor]) -> None:
    """A comparison is fair only if the library ranks a neuron by its own row and the columns that read it. The scores
    are computed by hand where it can go wrong: before the skip, where 63 position columns come first, and at the last
    trunk layer, which density and colour (behind 27 direction columns) read. LAMP divides by the sum of what ranks
    higher, which changes no ranking within a layer."""
    model = model_with_gradients()
    found = torch_pruning(model, criterion, 0.5, seed=0)
    weights: Any = {name.removeprefix("field_fine."): p for name, p in model.named_parameters()}
    for name, readers in (
        ("mlp_base.layers.1", {"mlp_base.layers.2": 63}),
        ("mlp_base.layers.4", {"field_output_density.net": 0, "mlp_head.layers.0": 27}),
        ("mlp_head.layers.0", {"mlp_head.layers.1": 0}),
    ):
        producer = weights[f"{name}.weight"]
        width = len(producer)
        total = score(producer, producer.grad)
        for reader, offset in readers.items():
            weight, columns = weights[f"{reader}.weight"], slice(offset, offset + width)
            total = total + score(weight[:, columns].T, weight.grad[:, columns].T)
        assert found.selections[f"field_fine.{name}"].keep.tolist() == largest(total, width // 2), name


@pytest.mark.parametrize("criterion", TORCH_PRUNING_CRITERIA)
def test_torch_pruning_surgery_is_the_compaction_of_its_selection(tp: Any, criterion: str) -> None:
    """The benchmark trains the network that this project cuts from the library's selection, in both fields. That stands
    for the library's own result only if its surgery gives the same network; and the model must not notice."""
    model = model_with_gradients()
    model.train()
    before = copied_state(model)
    gradients = [p.grad for p in model.parameters()]
    found = torch_pruning(model, criterion, 0.5, seed=0)
    assert found.notes["surgery_agrees"] is True and found.notes["criterion"] == criterion and found.seconds > 0
    assert {name: len(keep) for name, keep in kept(found.selections).items()} == tiny_widths(8, 4)
    assert all(s.keep.dtype == torch.int64 and s.scale is None for s in found.selections.values())
    assert same_bits(copied_state(model), before)
    assert model.training and widths(model) == tiny_widths(16, 8)
    assert all(p.grad is gradient for p, gradient in zip(model.parameters(), gradients, strict=True))


@pytest.mark.parametrize(
    ("sizes", "ratio", "trunk", "head"),
    [((16, 8), 0.0, 16, 8), ((16, 8), 0.3, 11, 6), ((16, 8), 0.55, 7, 4), ((16, 8), 0.99, 1, 1), ((15, 6), 0.75, 4, 2)],
)
def test_widths_are_those_of_this_project(tp: Any, sizes: tuple[int, int], ratio: float, trunk: int, head: int) -> None:
    """The library truncates widths where this project rounds (0.3 would leave it 5 of 8), and floating point takes it
    one lower still (1 - 4 / 15 leaves it 3 of 15); networks of different sizes cannot be compared. A ratio of zero
    removes nothing, and no layer vanishes. Torch's masks follow the same widths."""
    model = model_with_gradients(base_mlp_layer_width=sizes[0], head_mlp_layer_width=sizes[1])
    found = torch_pruning(model, "magnitude-l1", ratio, seed=0)
    assert {name: len(keep) for name, keep in kept(found.selections).items()} == tiny_widths(trunk, head)
    assert found.notes["surgery_agrees"] is True
    keeps = torch_prune_keeps(model, 1, ratio)
    assert {name: len(keep) for name, keep in keeps.items()} == tiny_widths(trunk, head)


def test_networks_of_uneven_widths(tp: Any) -> None:
    """A network that was pruned before has other widths in every layer, coarse and fine; ratios and offsets have to
    follow the tensors."""
    model = model_with_gradients()
    targets = {name: 5 + i for i, name in enumerate(tiny_widths(0, 0)) if "base" in name} | {HEAD: 3}
    shrink(model, targets)
    found = torch_pruning(model, "magnitude-l2", 0.5, seed=0)
    assert found.notes["surgery_agrees"] is True
    expected = {name: int(width * 0.5 + 0.5) for name, width in widths(model).items()}
    assert {name: len(keep) for name, keep in kept(found.selections).items()} == expected


def test_without_identity_layers_torch_pruning_breaks_the_network(tp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Why the inputs pass through identity layers. Without them the library takes the columns that read a neuron to
    start at 0 behind a concatenation with a raw input: it drops columns of the input in place of the neuron's. All
    shapes fit, nothing fails, and the network is another. If this test fails, the workaround can go."""
    model = model_with_gradients()
    network: Any = TraceableField(deepcopy(model.field_fine), input_layers=False)
    skip_layer, colour_layer = network.field.mlp_base.layers[2], network.field.mlp_head.layers[0]
    weights = {layer: layer.weight.detach().clone() for layer in (skip_layer, colour_layer)}
    importance = tp.pruner.importance.GroupMagnitudeImportance(p=1)
    pruner = tp.pruner.BasePruner(
        network, network.example_inputs(2), importance, pruning_ratio=0.5, ignored_layers=network.fixed_layers()
    )
    pruner.step()
    removed = {path.removeprefix("field."): set(indices) for path, _, indices in pruner.pruning_history()}
    for layer, name, own in (
        (skip_layer, "mlp_base.layers.1", "mlp_base.layers.2"),
        (colour_layer, "mlp_base.layers.4", "mlp_head.layers.0"),
    ):
        rows = [i for i in range(weights[layer].shape[0]) if i not in removed[own]]
        columns = [i for i in range(weights[layer].shape[1]) if i not in removed[name]]  # offset 0: input columns
        torch.testing.assert_close(layer.weight.detach(), weights[layer][rows][:, columns], rtol=0, atol=0)

    monkeypatch.setattr(peers, "TraceableField", partial(TraceableField, input_layers=False))
    found = torch_pruning(model, "random", 0.5, seed=0)
    assert found.notes["surgery_agrees"] is False


def test_an_input_with_a_gradient_makes_torch_pruning_crash(tp: Any) -> None:
    """The other face of the same defect, for users who trace from the positions on: the width of an input that is the
    result of an operation is unknown, and the graph cannot be built."""
    network = TraceableField(model_with_gradients().field_fine, input_layers=False)
    inputs = [x.requires_grad_() * 1 for x in network.example_inputs(2)]
    with pytest.raises(TypeError):
        tp.DependencyGraph().build_dependency(network, tuple(inputs))


def test_identity_layers_change_nothing(tp: Any) -> None:
    """The library has to see the same function: with and without the layers, and as the host computes it."""
    field: Any = model_with_gradients().field_fine
    network = TraceableField(field)
    position, direction = network.example_inputs(5)
    assert torch.equal(position, network.example_inputs(5)[0]) and 0.5 < position.abs().max() <= 1
    hidden = field.mlp_base(position)
    colour = field.field_heads[0].net(field.mlp_head(torch.cat([direction, hidden], dim=-1)))  # type: ignore[operator]
    for found in (network(position, direction), TraceableField(field, input_layers=False)(position, direction)):
        assert torch.equal(found[0], field.field_output_density.net(hidden)) and torch.equal(found[1], colour)


def test_seed_decides_and_leaves_no_trace(tp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A benchmark prunes in the middle of a training: the same seed must give the same neurons whatever was drawn
    before, and the training's own draws must go on as if nothing had happened, even if the library draws from
    generators that it leaves alone today."""
    model = model_with_gradients()
    make = TORCH_PRUNING_CRITERIA["random"]
    drawn = []

    def make_and_draw(importance: Any) -> Any:
        drawn.append((random.random(), np.random.rand()))  # noqa: NPY002
        return make(importance)

    monkeypatch.setitem(TORCH_PRUNING_CRITERIA, "random", make_and_draw)
    before = torch.get_rng_state(), repr(np.random.get_state())  # noqa: NPY002
    first = torch_pruning(model, "random", 0.5, seed=7)
    assert same_bits((torch.get_rng_state(), repr(np.random.get_state())), before)  # noqa: NPY002
    # Not around the whole call: the type checker of the tests draws from Python's generator.
    state = random.getstate()
    with seeded(7, torch.device("cpu")):
        random.random()
    assert random.getstate() == state
    torch.rand(3)
    assert kept(torch_pruning(model, "random", 0.5, seed=7).selections) == kept(first.selections)
    assert drawn[:2] == drawn[2:] and drawn[0] != drawn[1]
    assert kept(torch_pruning(model, "random", 0.5, seed=8).selections) != kept(first.selections)


def test_torch_pruning_works_without_gradients_being_recorded(tp: Any) -> None:
    """The library reads its graph off autograd, and evaluation code switches that off."""
    with torch.no_grad():
        assert torch_pruning(model_with_gradients(), "lamp", 0.5, seed=0).notes["surgery_agrees"] is True


def test_torch_pruning_is_asked_for_something_impossible(tp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these would otherwise fail deep inside the library, or give a result that is not what was asked for."""
    model = model_with_gradients()
    with pytest.raises(ValueError, match=r"criterion must be one of magnitude-l1.*got 'hessian'"):
        torch_pruning(model, "hessian", 0.5, seed=0)
    for ratio in (1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="pruning_ratio must be in"):
            torch_pruning(model, "lamp", ratio, seed=0)
    model.field_fine.field_output_density.net.weight.grad = None  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"'taylor' needs gradients.*field_fine.field_output_density.net has none"):
        torch_pruning(model, "taylor", 0.5, seed=0)
    torch_pruning(model, "lamp", 0.5, seed=0)
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install nerfstudio-prune\[peers\]"):
        torch_pruning(model, "lamp", 0.5, seed=0)


def test_another_surgery_is_refused(tp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later version of the library that overlooked a layer, took inputs or outputs for neurons, or cut consumers to
    other shapes must not go unnoticed."""
    model = model_with_gradients()
    with monkeypatch.context() as patch:
        patch.setattr(TraceableField, "fixed_layers", lambda self: [self.field.field_output_density.net])
        with pytest.raises(RuntimeError, match="unknown layers"):
            torch_pruning(model, "magnitude-l1", 0.5, seed=0)
    with monkeypatch.context() as patch:
        layers = TraceableField.fixed_layers
        patch.setattr(TraceableField, "fixed_layers", lambda self: [*layers(self), self.field.mlp_base.layers[1]])
        with pytest.raises(RuntimeError, match=r"'field_coarse.mlp_base.layers.1': 16, 'field_fine.mlp_base.layers.1'"):
            torch_pruning(model, "magnitude-l1", 0.5, seed=0)
    monkeypatch.setattr(peers, "prepare_compaction", lambda groups, selections: [])
    with pytest.raises(RuntimeError, match=r"layers.0.weight the shape \(8, 63\), expected \(16, 63\)"):
        torch_pruning(model, "magnitude-l1", 0.5, seed=0)


@pytest.mark.parametrize("norm", [1, 2])
def test_torch_prune_keeps_the_rows_of_largest_norm(norm: Any) -> None:
    """Computed by hand from the weights alone: the library knows neither biases nor outgoing weights. The biases are
    huge, so that counting them would give others."""
    model = model_with_gradients()
    groups = groups_of(model)
    for group in groups.values():
        with torch.no_grad():
            group.producer.bias.mul_(100)
    before = copied_state(model)
    keeps = torch_prune_keeps(model, norm, 0.5)
    expected = {n: largest(g.producer.weight.norm(p=norm, dim=1), g.width // 2) for n, g in groups.items()}
    assert {name: keep.tolist() for name, keep in keeps.items()} == expected
    assert list(keeps) == list(groups)
    assert same_bits(copied_state(model), before)


def test_torch_prune_norm_is_checked() -> None:
    """The library accepts any norm; the suite has two."""
    with pytest.raises(ValueError, match="norm must be 1 or 2, got 3"):
        torch_prune_keeps(tiny_model(), 3, 0.5)  # type: ignore[arg-type]


def half(model: PruneModel) -> dict[str, Tensor]:
    """Some half of every group."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randperm(width, generator=generator)[: width // 2].sort().values
        for name, width in widths(model).items()
    }


@pytest.mark.parametrize("named", ["all", "two"])
def test_masked_network_renders_what_the_compacted_one_renders(named: str) -> None:
    """Masks and removal are two ways to the same function; only then does the difference in speed and size say what
    removal is worth. A bias that stayed would let its neuron go on speaking. Groups that are not named stay whole."""
    masked, compacted = model_with_gradients(), model_with_gradients()
    keeps = {name: keep for name, keep in half(masked).items() if named == "all" or name in (SKIP, HEAD)}
    dense = render(masked)
    mask_neurons(masked, keeps)
    apply_compaction(prepare_compaction(compacted.neuron_groups(), {n: Selection(keep) for n, keep in keeps.items()}))
    found = render(masked)
    torch.testing.assert_close(found, render(compacted), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found["rgb_fine"], dense["rgb_fine"], atol=1e-3)
    for name, group in groups_of(masked).items():
        assert prune.is_pruned(group.producer) == (name in keeps)
        if name in keeps:
            assert group.producer.weight_mask.any(dim=1).nonzero()[:, 0].tolist() == keeps[name].tolist()  # type: ignore[operator]


@pytest.mark.parametrize("everything", [True, False], ids=["every group", "one group"])
def test_masked_model_goes_on_training_in_the_host(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, everything: bool
) -> None:
    """Masks come in the middle of a run, when Adam has moments for every weight and pushes the masked ones on. The
    optimizer must hold the model's own tensors in their order, or it trains what no longer counts; a masked neuron
    gives exactly zero in every later step; what is kept learns on."""
    mask_at, last = 3, 9
    trainer = start(make_config(tmp_path, tmp_path_factory.mktemp("scene"), strategy="none"))
    model: PruneModel = trainer.pipeline.model
    keeps = {name: keep for name, keep in half(model).items() if everything or name == SKIP}
    largest_masked: dict[str, list[float]] = {name: [] for name in keeps}
    weights: list[Tensor] = []

    def watch(name: str, width: int) -> Callable[..., None]:
        gone = [i for i in range(width) if i not in keeps[name].tolist()]

        def hook(layer: nn.Module, inputs: Any, output: Tensor) -> None:
            largest_masked[name].append(float(output[..., gone].abs().max()))

        return hook

    def on_step(step: int) -> None:
        if step == mask_at:
            before = [id(p) for p in model.get_param_groups()["fields"]]
            mask_neurons(model, keeps)
            assert [id(p) for p in model.get_param_groups()["fields"]] == before
            for name in keeps:
                producer = groups_of(model)[name].producer
                producer.register_forward_hook(watch(name, producer.weight.shape[0]))
        if step >= mask_at:
            optimizers = trainer.optimizers
            check_optimizers(optimizers.optimizers, optimizers.parameters, model.get_param_groups())
            weights.append(groups_of(model)[SKIP].producer.weight_orig.detach().clone())  # type: ignore[operator]

    after_each_step(trainer, on_step)
    trainer.train()
    reset_host()
    assert len(weights) == last - mask_at + 1
    for name, values in largest_masked.items():
        # Nerfstudio evaluates nothing here, so these are the training steps' own passes.
        assert len(values) >= last - mask_at and set(values) == {0.0}, name
    gone = [i for i in range(16) if i not in keeps[SKIP].tolist()]
    for old, new in pairwise(weights):
        assert not torch.equal(old[keeps[SKIP]], new[keeps[SKIP]])
    assert not torch.equal(weights[0][gone], weights[1][gone])  # moments push on what the mask hides


@pytest.mark.parametrize(
    ("name", "keep", "message"),
    [
        ("field_fine.nothing", [0], "no group 'field_fine.nothing'"),
        (SKIP, [], "sorted unique indices below 16"),
        (SKIP, [2, 1], "sorted unique indices below 16"),
        (SKIP, [1, 1], "sorted unique indices below 16"),
        (SKIP, [-1, 1], "sorted unique indices below 16"),
        (SKIP, [3, 16], "sorted unique indices below 16"),
    ],
)
def test_wrong_keeps_change_nothing(name: str, keep: list[int], message: str) -> None:
    """Half a set of masks would be measured as if it were the whole."""
    model = tiny_model()
    with pytest.raises(ValueError, match=message):
        mask_neurons(model, {HEAD: torch.tensor([0, 1]), name: torch.tensor(keep, dtype=torch.int64)})
    assert not prune.is_pruned(model)


def test_masked_model_is_not_pruned_again(tp: Any) -> None:
    """Masks on masks multiply, and scores of a masked layer would be those of its last forward pass."""
    model = model_with_gradients()
    mask_neurons(model, {HEAD: torch.tensor([0, 1])})
    state = copied_state(model)
    for again in (
        lambda: mask_neurons(model, {HEAD: torch.tensor([0, 1])}),
        lambda: mask_neurons(model, {SKIP: torch.tensor([0, 1])}),
        lambda: torch_prune_keeps(model, 1, 0.5),
        lambda: torch_pruning(model, "lamp", 0.5, seed=0),
    ):
        with pytest.raises(ValueError, match="is masked by torch"):
            again()
    assert same_bits(copied_state(model), state)
