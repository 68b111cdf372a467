"""Neurons and single weights as what is pruned: scores that a person looks at, and how large a network is, and was."""

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
import torch
from support.tiny_plan import no_samples
from support.tiny_run import shrink, start, tiny_model, tiny_parameters, tiny_widths

from nerfstudio_prune.core.events import PruneState, ScheduledEvent, Sizes
from nerfstudio_prune.core.subject import Change, NoOptimizers, Subject
from nerfstudio_prune.engine.run import event_seed
from nerfstudio_prune.nerf.config import PruneConfig
from nerfstudio_prune.nerf.model import PruneModel
from nerfstudio_prune.nerf.recipes import NeuronRecipe
from nerfstudio_prune.nerf.subject import EdgeSubject, NeuronSubject, subject_of
from nerfstudio_prune.neurons.edges import apply_masks, edge_masks
from nerfstudio_prune.neurons.pruner import named_parameters


def recipe_of(**options: Any) -> NeuronRecipe:
    """Options on top of the bare defaults, resolved."""
    recipe = PruneConfig(**{"preset": "paper", **options}).resolve()
    assert isinstance(recipe, NeuronRecipe)
    return recipe


@pytest.mark.parametrize("score", ["w_in", "w_out", "sensitivity", "activation", "apoz", "taylor", "obs"])
def test_highest_scores_stay(tiny_config: Any, score: str) -> None:
    """The plot draws the line of the cut through sorted scores; a neuron on the wrong side of it would belie the plot.
    Only the first layer of each field is cut: what follows it sees other activations from then on."""
    first = tuple(f"field_{name}.mlp_base.layers.0" for name in ("coarse", "fine"))
    recipe = recipe_of(strategy="importance", score=score, groups=first, calibration_rays=64, min_width=2)
    pipeline = start(tiny_config(strategy="none")).pipeline
    subject = NeuronSubject(pipeline.model, pipeline.calibrate)
    samples = subject.gather(recipe, 3)
    name, scores = subject.scores(recipe, samples)
    assert name == score and {group: len(values) for group, values in scores.items()} == tiny_widths(16, 8)
    widths = subject.targets(recipe)
    assert widths == dict.fromkeys(first, 8)
    selections = subject.select(recipe, widths, samples, event_seed(42, 5))
    assert selections.keys() == widths.keys()
    for group, selection in selections.items():
        best = scores[group].double().argsort(descending=True, stable=True)[:8].sort().values
        assert torch.equal(selection.keep, best)


@pytest.mark.parametrize(("strategy", "name"), [("obs", "obs"), ("pivoted-qr", "obs"), ("uniform", None)])
def test_rules_without_a_score(tiny_config: Any, strategy: str, name: str | None) -> None:
    """A rule that ranks neurons on samples shows what is nearest to it; one that draws them shows nothing, for any
    score would look like a reason."""
    recipe = recipe_of(strategy=strategy, calibration_rays=64)
    pipeline = start(tiny_config(strategy="none")).pipeline
    subject = NeuronSubject(pipeline.model, pipeline.calibrate)
    samples = subject.gather(recipe, 3)
    assert (samples is None) == (strategy == "uniform")
    found, scores = subject.scores(recipe, samples)
    assert found == name and (scores.keys() == tiny_widths(16, 8).keys() if name else scores == {})
    assert all(bool(torch.isfinite(values).all()) for values in scores.values())


def sizes_of(model: PruneModel) -> Sizes:
    """Widths and costs as they are."""
    return NeuronSubject(model, no_samples).sizes()


def initial_sizes_of(model: PruneModel) -> Sizes:
    """Widths and costs before the first event."""
    return NeuronSubject(model, no_samples).initial_sizes()


def weights_and_biases(model: PruneModel) -> int:
    """Brute force: every trainable number of both fields."""
    return sum(p.numel() for field in (model.field_coarse, model.field_fine) for p in field.parameters())


def multiplications(model: PruneModel) -> int:
    """Brute force: a multiplication per weight and sample; 8 samples of the coarse field and 8 + 8 + 1 of the fine."""
    fields = ((model.field_coarse, 8), (model.field_fine, 17))
    return sum(n * p.numel() for field, n in fields for p in field.parameters() if p.dim() == 2)


@pytest.mark.parametrize("options", [{}, {"skip_connections": ()}, {"base_mlp_layer_width": 24}])
@pytest.mark.parametrize(("trunk", "head"), [(16, 8), (5, 3), (1, 1)])
def test_sizes_before_the_cut(options: dict[str, Any], trunk: int, head: int) -> None:
    """Every «x times smaller» is a quotient of these two. After a cut the old size is worked out from widths alone, for
    the tensors are gone; it has to be what was read off the tensors when they were there."""
    model = tiny_model(**options)
    before = sizes_of(model)
    model.prune_state.initial_sizes = dict(before.parts)
    shrink(model, tiny_widths(trunk, head))
    after = sizes_of(model)
    assert initial_sizes_of(model) == before
    assert after.parts == tiny_widths(trunk, head)
    assert after.costs == {"parameters": weights_and_biases(model), "macs_per_ray": multiplications(model)}


def test_tiny_model_in_closed_form() -> None:
    """The numbers that the panel shows first."""
    model = tiny_model()
    sizes = sizes_of(model)
    assert sizes == initial_sizes_of(model)  # the model does not know better
    assert sizes.parts == tiny_widths(16, 8)
    assert sizes.costs == {"parameters": tiny_parameters(16, 8), "macs_per_ray": multiplications(model)}


@pytest.mark.parametrize("cut", [False, True])
def test_initial_sizes_of_layers_that_differ(cut: bool) -> None:
    """Budgets leave every layer with a width of its own; the first size of such a checkpoint is not a closed form."""
    torch.manual_seed(0)
    model = tiny_model()
    own = {name: 3 + index % 5 for index, name in enumerate(tiny_widths(0, 0))}
    shrink(model, own)
    before = sizes_of(model)
    model.prune_state = PruneState(initial_sizes=dict(before.parts))
    if cut:
        shrink(model, {name: width - 1 for name, width in own.items()})
    assert initial_sizes_of(model) == before
    assert (sizes_of(model) == before) != cut


@pytest.mark.parametrize("keep", [0.25, 1.0])
@pytest.mark.parametrize("masked", [["field_fine.mlp_base.layers.2"], list(tiny_widths(0, 0)), []])
def test_living_edges_are_counted(masked: list[str], keep: float) -> None:
    """Masked tensors keep their size; a table that counted them whole would show no effect, one that took masks for
    savings of time would promise a speed that there is not."""
    torch.manual_seed(0)
    model = tiny_model()
    layers = {group.name: group.producer for group in model.neuron_groups()}
    masks = edge_masks({name: layers[name] for name in masked}, keep_fraction=keep) if masked else {}
    apply_masks(named_parameters(model.neuron_groups()), masks)
    subject = EdgeSubject(model, no_samples)
    whole = subject.sizes()
    subject.set_buffers(masks)
    sizes = subject.sizes()
    assert sizes.parts == {name: int((layer.weight != 0).sum()) for name, layer in layers.items()}
    dead = sum(int((p == 0).sum()) for name, p in named_parameters(model.neuron_groups()).items() if "weight" in name)
    assert sizes.costs["parameters"] == weights_and_biases(model) - dead
    assert sizes.costs["macs_per_ray"] == multiplications(model)
    assert subject.initial_sizes() == whole and whole.costs["parameters"] == weights_and_biases(model)
    assert (dead > 0) == (bool(masked) and keep < 1)


@pytest.mark.parametrize(("strategy", "kind"), [("obs", NeuronSubject), ("none", NeuronSubject), ("edge", EdgeSubject)])
def test_subject_of_a_strategy(strategy: str, kind: type) -> None:
    """The engine knows the protocol and nothing else; a dense control shows the neurons that it could lose."""
    model = tiny_model()
    subject = subject_of(strategy, model, no_samples)
    assert type(subject) is kind and isinstance(subject, Subject) and subject.model is model
    assert subject.parameters().keys() == named_parameters(model.neuron_groups()).keys()


def test_detached_copy_is_its_own() -> None:
    """Previews and snapshots are rendered while the training goes on: what is cut, masked or noted in the copy must not
    reach the model, nor the other way round."""
    model = tiny_model()
    model.prune_state = PruneState(initial_sizes=tiny_widths(16, 8))
    subject = NeuronSubject(model, no_samples)
    copy = subject.detached()
    assert isinstance(copy, NeuronSubject) and copy.model is not model and not copy.model.training
    assert all(not p.requires_grad for p in copy.parameters().values())
    shrink(copy.model, tiny_widths(4, 2))
    copy.set_buffers({"a": torch.ones(1, dtype=torch.bool)})
    assert subject.sizes().parts == tiny_widths(16, 8) and subject.buffers() == {} and model.training
    assert copy.initial_sizes() == subject.sizes()
    shrink(model, tiny_widths(8, 4))
    assert copy.sizes().parts == tiny_widths(4, 2)


@pytest.mark.parametrize("options", [{"strategy": "importance"}, {"strategy": "edge", "edge_keep_fraction": 0.5}])
def test_preparing_changes_nothing_and_applying_does_it_all(options: dict[str, Any]) -> None:
    """A preview prepares cuts by the dozen beside the training, on a copy that no optimizer knows. What was prepared is
    all that `apply` needs, and once it is done there is nothing left to remove."""
    torch.manual_seed(0)
    model = tiny_model()
    config = PruneConfig(preset="paper", min_width=2, **options)
    recipe, subject = config.resolve(), subject_of(config.strategy, model, no_samples).detached()
    before, weights = subject.sizes(), {name: p.detach().clone() for name, p in subject.parameters().items()}
    event = ScheduledEvent(5, Fraction(1), subject.targets(recipe))
    change = subject.prepare(recipe, event, subject.gather(recipe, 1), NoOptimizers(), 1)
    assert isinstance(change, Change) and change.removes
    assert subject.sizes() == before
    assert all(torch.equal(p, weights[name]) for name, p in subject.parameters().items())
    change.apply()
    after = subject.sizes()
    assert all(after.parts[name] < size for name, size in before.parts.items())
    assert after.costs["parameters"] < before.costs["parameters"]
    again = subject.prepare(recipe, replace(event, step=6), subject.gather(recipe, 2), NoOptimizers(), 2)
    assert not again.removes
