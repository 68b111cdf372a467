"""Collects calibration samples: what the layers of both fields read on real training rays, and what matters there."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.field_components.field_heads import FieldHeadNames
from nerfstudio.fields.vanilla_nerf_field import NeRFField
from torch import Tensor

from nerfstudio_prune.nerf.model import FIELDS, PruneModel
from nerfstudio_prune.nerf.rays import draw_rays
from nerfstudio_prune.neurons.groups import NeuronGroup
from nerfstudio_prune.neurons.samples import LayerRecord, Samples, recorded_layers

SampleWeights = Literal["gradient", "contribution"]
RAYS_AT_ONCE = 128
"""Rays of one forward and backward pass; also the batches of score `taylor`."""
MAX_VIEWS = 64
"""Training views that the rays come from; photographs are read from disk, one by one."""


@dataclass(frozen=True)
class Calibration:
    """What is collected, and how it is weighted."""

    num_rays: int = 512
    """Training rays, >= 1."""
    num_samples: int = 32768
    """Most samples that are kept per field; more are thinned out at random."""
    weights: SampleWeights = "gradient"
    """gradient: each layer's samples count by the norm of the gradient of the pixel's colour with respect to its
    pre-activations, its rows by the root mean square of theirs; contribution: samples count by what they contribute
    to the pixel (transmittance times alpha), rows alike."""
    floor: float = 0.05
    """Share of the weight that is spread evenly over all samples, in [0, 1], so that empty space stays empty."""
    density_weight: float = 1.0
    """Factor for errors of the density against those of the colour head at the last layer of the trunk, > 0."""
    loss_gradients: bool = False
    """Whether the sums for scores `taylor` and `fisher` are collected."""


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
    collectors = {name: _Collector(name, model, calibration, generator) for name in FIELDS}
    device_type = model.device.type
    devices: list[Any] = [model.device] if device_type == "cuda" else []
    was_training = model.training
    model.train()  # sample points are jittered as in training
    try:
        with (
            torch.random.fork_rng(devices=devices),
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
    groups = model.neuron_groups()
    with recorded_layers(groups) as layers, _recorded_contributions(model) as contributions:
        outputs: Any = model(rays)
    tensors = [record.output for record in layers.values()]
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
    names = list(layers)
    for field_name, collector in collectors.items():
        own = [i for i, name in enumerate(names) if name.split(".")[0] == field_name]
        records = {names[i]: layers[names[i]] for i in own}
        collector.add(contributions[field_name], records, {names[i]: gradients[i] for i in own})
        if losses:
            collector.add_losses(records, {names[i]: losses[i] for i in own})


@contextmanager
def _recorded_contributions(model: PruneModel) -> Iterator[dict[str, Float[Tensor, " samples"]]]:
    """Field -> contribution of every sample to its pixel in the last forward pass. Filled by the body."""
    found: dict[str, Tensor] = {}
    fields: dict[str, NeRFField] = {name: getattr(model, name) for name in FIELDS}
    for name, nerf_field in fields.items():

        def forward(samples: Any, name: str = name, inner: Any = nerf_field.forward) -> Any:
            outputs = inner(samples)
            found[name] = samples.get_weights(outputs[FieldHeadNames.DENSITY]).detach().flatten()
            return outputs

        # The host calls `forward` itself, past any hook.
        nerf_field.forward = forward  # type: ignore[method-assign]
    try:
        yield found
    finally:
        for nerf_field in fields.values():
            del nerf_field.forward


class _Collector:
    """Samples of one field, batch by batch."""

    def __init__(self, network: str, model: PruneModel, calibration: Calibration, generator: torch.Generator) -> None:
        self.calibration = calibration
        self.generator = generator
        self.groups: list[NeuronGroup] = [g for g in model.neuron_groups() if g.name.split(".")[0] == network]
        self.extra: dict[str, list[Tensor]] = {}
        self.weights: dict[str, list[Tensor]] = {}
        self.squares: dict[str, Tensor] = {}
        self.taylor: dict[str, Tensor] = {}
        self.fisher: dict[str, Tensor] = {}
        self.count = self.batches = self.rays = 0

    def add(
        self,
        contribution: Float[Tensor, " samples"],
        layers: Mapping[str, LayerRecord],
        gradients: Mapping[str, Tensor],
    ) -> None:
        """Takes up a batch."""
        samples = len(contribution)
        rays_before, self.rays = self.rays, self.rays + len(next(iter(layers.values())).output)
        # Each batch gives its share of the samples, and all together give no more than there may be.
        due = [self.calibration.num_samples * rays // self.calibration.num_rays for rays in (rays_before, self.rays)]
        kept = torch.randperm(samples, generator=self.generator)[: due[1] - due[0]].sort().values
        kept = kept.to(contribution.device)
        for name, record in layers.items():
            self.extra.setdefault(name, []).append(record.extra[kept])
            if self.calibration.weights == "contribution":
                weights, squares = contribution, torch.ones(record.output.shape[-1])
            else:
                square = gradients[name].flatten(0, -2).square()
                weights, squares = square.sum(dim=1).sqrt(), square.sum(dim=0).cpu().double()
            self.weights.setdefault(name, []).append(weights[kept])
            self.squares[name] = self.squares.get(name, torch.zeros(())) + squares
        self.count += samples

    def add_losses(self, layers: Mapping[str, LayerRecord], gradients: Mapping[str, Tensor]) -> None:
        """Takes up gradients of the loss for the batch that was added last.

        With ReLU, activation times its gradient is the same before and after it.
        """
        for group in self.groups:
            z, gradient = layers[group.name].output.detach(), gradients[group.name]
            # The loss is a mean over rays: times their number it is the ray's own.
            rays = (z * gradient).sum(dim=1).cpu().double() * len(z)
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
            if name.endswith(".field_output_density.net"):
                rows[name] = rows[name] * self.calibration.density_weight
        return Samples(
            {name: torch.cat(parts) for name, parts in self.extra.items()},
            weights,
            rows,
            {name: total / self.batches for name, total in self.taylor.items()},
            {name: total / self.rays for name, total in self.fisher.items()},
        )
