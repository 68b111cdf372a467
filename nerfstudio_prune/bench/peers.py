"""The model's networks pruned by other libraries: Torch-Pruning, and the masks of `torch.nn.utils.prune`.

Both are given the widths that this project would prune to, so that only the choice of the neurons differs.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from nerfstudio.fields.vanilla_nerf_field import NeRFField
from torch import Tensor, nn
from torch.nn.utils import prune

from nerfstudio_prune.bench.machine import wall_clock
from nerfstudio_prune.engine.host import seeded
from nerfstudio_prune.nerf.model import PruneModel
from nerfstudio_prune.neurons.compaction import apply_compaction, prepare_compaction
from nerfstudio_prune.neurons.groups import NeuronGroup, linears
from nerfstudio_prune.neurons.strategies import Selection

TORCH_PRUNING_CRITERIA: dict[str, Callable[[Any], Any]] = {
    "magnitude-l1": lambda importance: importance.GroupMagnitudeImportance(p=1),
    "magnitude-l2": lambda importance: importance.GroupMagnitudeImportance(p=2),
    "taylor": lambda importance: importance.GroupTaylorImportance(),
    "fpgm": lambda importance: importance.FPGMImportance(),
    "lamp": lambda importance: importance.LAMPImportance(),
    "random": lambda importance: importance.RandomImportance(),
}
"""Name -> maker of Torch-Pruning's importance, from its module `torch_pruning.pruner.importance`. All but `random` sum
over the producer's rows and the consumers' columns of a neuron, without biases, with the library's own defaults."""


class TraceableField(nn.Module):
    """A field from encoded inputs to the heads' outputs before their activations, as Torch-Pruning can trace it.

    Torch-Pruning reads its graph off autograd and does not see a raw input. At a concatenation with one it installs no
    offset, and then removes columns of the input in place of those of the neurons. An input that has passed through a
    linear layer is seen, with its width.

    Args:
        field: Field; its layers are shared, not copied.
        input_layers: Whether the inputs pass through identity layers. False shows the library's behaviour without.
    """

    def __init__(self, field: NeRFField, input_layers: bool = True) -> None:
        super().__init__()
        self.field = field
        device = next(field.parameters()).device
        self.widths = (field.position_encoding.get_out_dim(), field.direction_encoding.get_out_dim())
        self.position_path, self.direction_path = (
            _identity_layer(width).to(device) if input_layers else nn.Identity() for width in self.widths
        )

    def fixed_layers(self) -> list[nn.Module]:
        """Layers whose outputs are no neurons: the inputs' and the heads' own."""
        outputs = [self.field.field_output_density.net, self.field.field_heads[0].net]
        return [layer for layer in (*outputs, self.position_path, self.direction_path) if isinstance(layer, nn.Linear)]

    def example_inputs(self, points: int) -> tuple[Float[Tensor, "points position"], Float[Tensor, "points direction"]]:
        """Inputs in the range of the encodings, always the same."""
        generator = torch.Generator().manual_seed(0)
        device = next(self.parameters()).device
        position, direction = (torch.rand(points, width, generator=generator) * 2 - 1 for width in self.widths)
        return position.to(device), direction.to(device)

    def forward(
        self, position: Float[Tensor, "points position"], direction: Float[Tensor, "points direction"]
    ) -> tuple[Float[Tensor, "points 1"], Float[Tensor, "points 3"]]:
        """Density and colour before their activations."""
        position, direction = self.position_path(position), self.direction_path(direction)
        embedding = self.field.mlp_base(position)
        colour = self.field.mlp_head(torch.cat([direction, embedding], dim=-1))
        density_layer, colour_layer = self.field.field_output_density.net, self.field.field_heads[0].net
        return density_layer(embedding), colour_layer(colour)  # type: ignore[misc]


def _identity_layer(width: int) -> nn.Linear:
    # The weight keeps requires_grad: without it the output would be a raw input again.
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, width, width, bias=False)  # type: ignore[assignment]
    nn.init.eye_(layer.weight)
    return layer


@dataclass
class PeerSelection:
    """What Torch-Pruning kept."""

    selections: dict[str, Selection]
    """Name of the group -> neurons that stay, for every group of the model."""
    seconds: float
    """Wall-clock time of building its graph, scoring and surgery, both fields together."""
    notes: dict[str, Any]
    """Plain values for the record. `surgery_agrees`: whether its pruned networks compute what this project's do."""


def torch_pruning(model: PruneModel, criterion: str, pruning_ratio: float, seed: int) -> PeerSelection:
    """Lets Torch-Pruning prune copies of both fields: its graph, grouping, scoring and surgery.

    Every hidden layer loses the same fraction of its neurons. The model and the global random states stay as they are.

    Args:
        model: Model; for `taylor` with the gradients that are to be used.
        criterion: Name in `TORCH_PRUNING_CRITERIA`.
        pruning_ratio: Fraction of the neurons of every layer to remove, in [0, 1).
        seed: Seed of all that the library draws.

    Raises:
        ModuleNotFoundError: If Torch-Pruning is not installed.
        ValueError: If criterion or ratio is none, the criterion's gradients are missing, or the model is masked.
        RuntimeError: If the library removed something else than the neurons of the hidden layers.
    """
    if criterion not in TORCH_PRUNING_CRITERIA:
        raise ValueError(f"criterion must be one of {', '.join(TORCH_PRUNING_CRITERIA)}, got {criterion!r}")
    _check_not_masked(model)
    groups = model.neuron_groups()
    n_keep = _widths_after(groups, pruning_ratio)
    if criterion == "taylor":
        for name, layer in linears(groups).items():
            if layer.weight.grad is None:
                raise ValueError(f"criterion 'taylor' needs gradients (call backward first); {name} has none")
    try:
        tp: Any = importlib.import_module("torch_pruning")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("torch_pruning is missing: `pip install nerfstudio-prune[peers]`") from error
    fields, their_groups = _copy(model)
    networks = {name: TraceableField(field) for name, field in fields.items()}
    # The library truncates the width that is left: half a neuron more makes it exact whatever the rounding.
    ratios = {g.name: max(0.0, 1 - (n_keep[g.name] + 0.5) / g.width) for g in groups}
    removed: dict[str, list[int]] = {}
    with seeded(seed % 2**32, model.device), torch.enable_grad():
        now = wall_clock(model.device)
        start = now()
        for name, network in networks.items():
            own = {g.producer: ratios[g.name] for g in their_groups if g.network == name}
            pruner = tp.pruner.BasePruner(
                network,
                network.example_inputs(2),
                importance=TORCH_PRUNING_CRITERIA[criterion](tp.pruner.importance),
                pruning_ratio=pruning_ratio,
                pruning_ratio_dict=own,
                ignored_layers=network.fixed_layers(),
            )
            pruner.step()
            for path, _, indices in pruner.pruning_history():
                removed[path.replace("field", name, 1)] = indices
        seconds = now() - start

    selections = {}
    for group in groups:
        keep = torch.ones(group.width, dtype=torch.bool)
        keep[removed.pop(group.name, [])] = False
        selections[group.name] = Selection(keep.nonzero()[:, 0])
    wrong = {name: len(s.keep) for name, s in selections.items() if len(s.keep) != n_keep[name]}
    if removed or wrong:
        raise RuntimeError(f"Torch-Pruning left widths {wrong} that were not asked for; unknown layers {list(removed)}")
    notes = {
        "library": f"torch-pruning {version('torch-pruning')}",
        "criterion": criterion,
        "seed": seed,
        "scope": "local",
        "raw_inputs": "identity layers",
        "surgery_agrees": _surgery_agrees(model, networks, selections),
    }
    return PeerSelection(selections, seconds, notes)


def _surgery_agrees(
    model: PruneModel, networks: Mapping[str, TraceableField], selections: Mapping[str, Selection]
) -> bool:
    """Whether networks that Torch-Pruning cut compute what this project makes of the same selection.

    Raises:
        RuntimeError: If shapes differ.
    """
    fields, groups = _copy(model)
    apply_compaction(prepare_compaction(groups, selections))
    agrees = True
    for name, network in networks.items():
        theirs = dict(network.field.named_parameters())
        for key, parameter in fields[name].named_parameters():
            found, expected = tuple(theirs[key].shape), tuple(parameter.shape)
            if found != expected:
                raise RuntimeError(f"Torch-Pruning's surgery gave {name}.{key} the shape {found}, expected {expected}")
        inputs = network.example_inputs(256)
        with torch.no_grad():
            pairs = zip(network(*inputs), TraceableField(fields[name])(*inputs), strict=True)
            agrees &= all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in pairs)
    return agrees


def torch_prune_keeps(
    model: PruneModel, norm: Literal[1, 2], pruning_ratio: float
) -> dict[str, Int64[Tensor, " kept"]]:
    """What `torch.nn.utils.prune.ln_structured` keeps: the rows of each producer with the largest norm, without bias.

    Args:
        model: Model; stays as it is.
        norm: Order of the norm.
        pruning_ratio: Fraction of the neurons of every layer to remove, in [0, 1).

    Returns:
        Name of the group -> sorted neurons that stay, for every group.

    Raises:
        ValueError: If norm or ratio is out of range, or the model is masked.
    """
    if norm not in (1, 2):
        raise ValueError(f"norm must be 1 or 2, got {norm}")
    _check_not_masked(model)
    groups = model.neuron_groups()
    n_keep = _widths_after(groups, pruning_ratio)
    keeps = {}
    for group in groups:
        layer = deepcopy(group.producer)
        prune.ln_structured(layer, "weight", amount=group.width - n_keep[group.name], n=norm, dim=0)
        keeps[group.name] = layer.weight_mask.bool().any(dim=1).nonzero()[:, 0].cpu()  # type: ignore[operator]
    return keeps


def mask_neurons(model: PruneModel, keeps: Mapping[str, Int64[Tensor, " kept"]]) -> None:
    """Masks neurons instead of removing them: `torch.nn.utils.prune.custom_from_mask` on their rows and biases.

    A masked neuron gives relu(0) = 0 from then on, whatever the optimizer does. The library goes on with the same
    parameters under other names, `weight_orig` and `bias_orig`, so optimizers need no change. `layer.weight` is
    computed anew in every forward pass and is one step behind between passes.

    Args:
        model: Model; all or nothing is changed.
        keeps: Name of the group -> sorted neurons that stay. Groups that are not named stay whole, without masks.

    Raises:
        ValueError: If the model is masked already, there is no such group, or the indices are not sorted, unique and
            within the group.
    """
    _check_not_masked(model)
    groups = {group.name: group for group in model.neuron_groups()}
    for name, keep in keeps.items():
        if name not in groups:
            raise ValueError(f"there is no group {name!r}; the groups are {', '.join(groups)}")
        width = groups[name].width
        if len(keep) == 0 or bool((keep[1:] <= keep[:-1]).any()) or keep[0] < 0 or keep[-1] >= width:
            raise ValueError(f"{name}: expected sorted unique indices below {width}, got {keep.tolist()}")
    for name, keep in keeps.items():
        layer = groups[name].producer
        # Both, in this order, even if all stay: the library moves a masked parameter to the end of its layer, and the
        # optimizer's list has to remain that of `get_param_groups`.
        for key in [key for key, _ in layer.named_parameters()]:
            mask = torch.zeros_like(getattr(layer, key))
            mask[keep.to(mask.device)] = 1
            prune.custom_from_mask(layer, key, mask)


def _widths_after(groups: Sequence[NeuronGroup], pruning_ratio: float) -> dict[str, int]:
    """Widths that the method's option `pruning_ratio` gives with `min_width` and `round_to` at 1."""
    if not 0 <= pruning_ratio < 1:
        raise ValueError(f"pruning_ratio must be in [0, 1), got {pruning_ratio}")
    return {g.name: max(1, int(g.width * (1 - pruning_ratio) + 0.5)) for g in groups}


def _check_not_masked(model: PruneModel) -> None:
    if any(prune.is_pruned(layer) for layer in linears(model.neuron_groups()).values()):
        raise ValueError("the model is masked by torch.nn.utils.prune already; start from one that is not")


def _copy(model: PruneModel) -> tuple[dict[str, NeRFField], list[NeuronGroup]]:
    """Fields with their gradients, and the groups of these copies under the model's names."""
    originals: dict[str, NeRFField] = model.fields()
    fields, groups = deepcopy((originals, model.neuron_groups()))
    for name, original in originals.items():
        for old, new in zip(original.parameters(), fields[name].parameters(), strict=True):
            new.grad = None if old.grad is None else old.grad.clone()
    return fields, groups
