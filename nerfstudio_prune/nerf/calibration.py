"""Collects calibration samples: what the layers of both fields read on real training rays, and what matters there."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from nerfstudio.cameras.rays import RayBundle, RaySamples
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.field_components.field_heads import FieldHeadNames
from torch import Tensor

from nerfstudio_prune.engine.host import forked
from nerfstudio_prune.nerf.field_passes import observed_fields
from nerfstudio_prune.nerf.layouts import HEAD, layout_of
from nerfstudio_prune.nerf.model import FIELDS, PruneModel
from nerfstudio_prune.nerf.rays import draw_rays
from nerfstudio_prune.nerf.recipes import Calibration
from nerfstudio_prune.neurons.groups import NeuronGroup, linears, networks
from nerfstudio_prune.neurons.samples import LayerRecord, Samples, recorded_layers

RAYS_AT_ONCE = 128
"""Rays of one forward and backward pass; also the batches of score `taylor`."""
MAX_VIEWS = 64
"""Training views that the rays come from; photographs are read from disk, one by one."""


def collect_samples(
    model: PruneModel, dataset: InputDataset, calibration: Calibration, seed: int
) -> dict[str, Samples]:
    """Renders training rays and notes what every layer reads, without touching the run's random state or data order.

    Works in float32 whatever the precision of the training. The model, its gradients and its mode stay as they are.

    Args:
        model: The model as it is.
        dataset: Training views.
        calibration: What to collect.
        seed: Seed of the choice of rays, of their sample points and of which samples are kept.

    Returns:
        Name of the field -> samples.

    Raises:
        ValueError: If there are no training views, or what was collected is not finite.
    """
    if len(dataset) == 0:
        raise ValueError("calibration needs training rays, and there are no training views")
    generator = torch.Generator().manual_seed(seed % 2**63)
    views = torch.randperm(len(dataset), generator=generator)[:MAX_VIEWS]
    rays, colours = draw_rays(dataset, calibration.num_rays, generator, views)
    # Each batch looks at all of these views.
    order = torch.randperm(len(colours), generator=generator)
    groups = dict(networks(model.neuron_groups()))
    collectors = {name: _Collector(members, model, calibration, generator) for name, members in groups.items()}
    device_type = model.device.type
    was_training = model.training
    model.train()  # sample points are jittered as in training
    try:
        with (
            forked(model.device),
            torch.enable_grad(),
            torch.autocast(device_type if device_type in ("cpu", "cuda") else "cpu", enabled=False),
        ):
            torch.manual_seed(seed % 2**63)
            for index in order.split(RAYS_AT_ONCE):
                _collect(model, rays[index].to(model.device), colours[index], collectors, calibration)
    finally:
        model.train(was_training)
    return {name: collector.samples() for name, collector in collectors.items()}


def _collect(
    model: PruneModel,
    rays: RayBundle,
    colours: Float[Tensor, "rays channels"],
    collectors: Mapping[str, "_Collector"],
    calibration: Calibration,
) -> None:
    """One batch of rays."""
    with recorded_layers(model.neuron_groups()) as layers, _recorded_contributions(model) as contributions:
        outputs: Any = model(rays)
    tensors = [record.output for records in layers.values() for record in records]
    gradients: Sequence[Tensor] = [torch.zeros(0)] * len(tensors)
    if calibration.weights == "gradient":
        # A random projection of the colour: its squared gradient is that of all channels in expectation.
        colour = outputs["rgb_coarse"] + outputs["rgb_fine"]
        signs = torch.randint(0, 2, colour.shape, device="cpu").to(colour) * 2 - 1
        gradients = torch.autograd.grad((colour * signs).sum(), tensors, retain_graph=calibration.loss_gradients)
    losses: Sequence[Tensor] = []
    if calibration.loss_gradients:
        loss = torch.stack(list(model.get_loss_dict(outputs, {"image": colours.to(model.device)}).values())).sum()
        losses = torch.autograd.grad(loss, tensors)
    for field_name, collector in collectors.items():
        records = {name: layers[name] for name in collector.layers}
        collector.add(contributions[field_name], records, _by_layer(layers, gradients, collector.layers))
        if losses:
            collector.add_losses(records, _by_layer(layers, losses, collector.layers))


def _by_layer(
    records: Mapping[str, Sequence[LayerRecord]], gradients: Sequence[Tensor], wanted: Iterable[str]
) -> dict[str, list[Tensor]]:
    """Layer -> a gradient for each of its calls."""
    rest = iter(gradients)
    found = {name: [next(rest) for _ in calls] for name, calls in records.items()}
    return {name: found[name] for name in wanted}


@contextmanager
def _recorded_contributions(model: PruneModel) -> Iterator[dict[str, list[Float[Tensor, " samples"]]]]:
    """Field -> for each of its calls, contribution of every sample to its pixel. Filled by the body."""
    found: dict[str, list[Tensor]] = {}

    def note(name: str, samples: RaySamples, outputs: Any) -> None:
        weights = samples.get_weights(outputs[FieldHeadNames.DENSITY])
        found.setdefault(name, []).append(weights.detach().flatten())

    with observed_fields(model, note):
        yield found


class _Collector:
    """Samples of one field, batch by batch."""

    def __init__(
        self, groups: Sequence[NeuronGroup], model: PruneModel, calibration: Calibration, generator: torch.Generator
    ) -> None:
        self.calibration = calibration
        self.generator = generator
        self.groups = groups
        self.layers = list(linears(groups))
        network = groups[0].network
        self.densities = layout_of(model.fields()[network]).densities(network)
        heads = [group for group in groups if group.role == HEAD and network == FIELDS[0]]
        self.coarse_colours = set(linears(heads))
        self.extra: dict[str, list[Tensor]] = {}
        self.weights: dict[str, list[Tensor]] = {}
        self.squares: dict[str, Tensor] = {}
        self.taylor: dict[str, Tensor] = {}
        self.fisher: dict[str, Tensor] = {}
        self.count = self.batches = self.rays = 0

    def add(
        self,
        contributions: Sequence[Float[Tensor, " samples"]],
        layers: Mapping[str, Sequence[LayerRecord]],
        gradients: Mapping[str, Sequence[Tensor]],
    ) -> None:
        """Takes up a batch: of a field that is evaluated more than once for a ray, all its calls together."""
        contribution = torch.cat(list(contributions))
        samples = len(contribution)
        rays_before, self.rays = self.rays, self.rays + len(next(iter(layers.values()))[0].output)
        # Each batch gives its share of the samples, and all together give no more than there may be.
        due = [self.calibration.num_samples * rays // self.calibration.num_rays for rays in (rays_before, self.rays)]
        kept = torch.randperm(samples, generator=self.generator)[: due[1] - due[0]].sort().values
        kept = kept.to(contribution.device)
        for name, records in layers.items():
            self.extra.setdefault(name, []).append(torch.cat([record.extra for record in records])[kept])
            if self.calibration.weights == "contribution":
                weights, squares = contribution, torch.ones(records[0].output.shape[-1])
            else:
                square = torch.cat([gradient.flatten(0, -2) for gradient in gradients[name]]).square()
                weights, squares = square.sum(dim=1).sqrt(), square.sum(dim=0).cpu().double()
            self.weights.setdefault(name, []).append(weights[kept])
            self.squares[name] = self.squares.get(name, torch.zeros(())) + squares
        self.count += samples

    def add_losses(
        self, layers: Mapping[str, Sequence[LayerRecord]], gradients: Mapping[str, Sequence[Tensor]]
    ) -> None:
        """Takes up gradients of the loss for the batch that was added last.

        With ReLU, activation times its gradient is the same before and after it.
        """
        for group in self.groups:
            calls = zip(layers[group.name], gradients[group.name], strict=True)
            sums = [(record.output.detach() * gradient).sum(dim=1) for record, gradient in calls]
            # The loss is a mean over rays: times their number it is the ray's own.
            rays = torch.stack(sums).sum(dim=0).cpu().double() * len(sums[0])
            nothing = torch.zeros(group.width, dtype=torch.float64)
            self.taylor[group.name] = self.taylor.get(group.name, nothing) + rays.mean(dim=0).square()
            self.fisher[group.name] = self.fisher.get(group.name, nothing) + rays.square().sum(dim=0)
        self.batches += 1

    def samples(self) -> Samples:
        """What was collected.

        Raises:
            ValueError: If it is not finite.
        """
        floor = self.calibration.floor
        weights, rows = {}, {}
        for name, parts in self.weights.items():
            raw = torch.cat(parts)
            mean = raw.double().mean() if raw.device.type != "mps" else raw.mean()
            if not bool(torch.isfinite(mean)):
                raise ValueError(f"{name}: gradients or contributions of the calibration samples are not finite")
            # Without any signal, as in a scene that is still empty, all samples count alike.
            relative = (raw / mean).to(raw.dtype) if mean > 0 else torch.ones_like(raw)
            weights[name] = (1 - floor) * relative + floor
            if self.calibration.weights == "contribution":
                rows[name] = torch.ones(len(self.squares[name]))
            else:
                rows[name] = (self.squares[name] / self.count).sqrt()
            if not bool(rows[name].any()):
                rows[name] = torch.ones_like(rows[name])
            if name in self.densities:
                rows[name] = rows[name] * self.calibration.density_weight
            if name in self.coarse_colours:
                rows[name] = rows[name] * self.calibration.coarse_colour_weight
        return Samples(
            {name: torch.cat(parts) for name, parts in self.extra.items()},
            weights,
            rows,
            {name: total / self.batches for name, total in self.taylor.items()},
            {name: total / self.rays for name, total in self.fisher.items()},
        )
