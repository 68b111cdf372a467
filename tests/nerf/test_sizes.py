"""How large a network is, and was."""

from typing import Any

import pytest
import torch
from support.tiny_run import shrink, tiny_model, tiny_parameters, tiny_widths

from nerfstudio_prune.core.events import PruneState
from nerfstudio_prune.nerf.model import PruneModel
from nerfstudio_prune.nerf.sizes import initial_sizes_of, sizes_of
from nerfstudio_prune.neurons.edges import apply_masks, edge_masks
from nerfstudio_prune.neurons.pruner import named_parameters


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
    before = sizes_of(model, {})
    model.prune_state.initial_sizes = dict(before.groups)
    shrink(model, tiny_widths(trunk, head))
    after = sizes_of(model, {})
    assert initial_sizes_of(model) == before
    assert after.groups == tiny_widths(trunk, head)
    assert (after.parameters, after.macs_per_ray) == (weights_and_biases(model), multiplications(model))


def test_tiny_model_in_closed_form() -> None:
    """The numbers that the panel shows first."""
    model = tiny_model()
    sizes = sizes_of(model, {})
    assert sizes == initial_sizes_of(model)  # the model does not know better
    assert (sizes.groups, sizes.parameters) == (tiny_widths(16, 8), tiny_parameters(16, 8))
    assert sizes.macs_per_ray == multiplications(model)


@pytest.mark.parametrize("cut", [False, True])
def test_initial_sizes_of_layers_that_differ(cut: bool) -> None:
    """Budgets leave every layer with a width of its own; the first size of such a checkpoint is not a closed form."""
    torch.manual_seed(0)
    model = tiny_model()
    own = {name: 3 + index % 5 for index, name in enumerate(tiny_widths(0, 0))}
    shrink(model, own)
    before = sizes_of(model, {})
    model.prune_state = PruneState(initial_sizes=dict(before.groups))
    if cut:
        shrink(model, {name: width - 1 for name, width in own.items()})
    assert initial_sizes_of(model) == before
    assert (sizes_of(model, {}) == before) != cut


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
    sizes = sizes_of(model, masks, edges=True)
    assert sizes.groups == {name: int((layer.weight != 0).sum()) for name, layer in layers.items()}
    dead = sum(int((p == 0).sum()) for name, p in named_parameters(model.neuron_groups()).items() if "weight" in name)
    assert sizes.parameters == weights_and_biases(model) - dead
    assert sizes.macs_per_ray == multiplications(model)
    assert (dead > 0) == (bool(masked) and keep < 1)
