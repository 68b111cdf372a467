"""Samples on their way through a network that is pruned front to back, beside the network as it was."""

from collections.abc import Callable, Mapping, Sequence
from typing import Optional

import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_prune.neurons.groups import Consumer, NeuronGroup, linears
from nerfstudio_prune.neurons.samples import Samples, extra_columns
from nerfstudio_prune.neurons.statistics import GroupStatistics, LayerMoments, second_moments
from nerfstudio_prune.neurons.strategies import Selection

Layer = tuple[Tensor, Optional[Tensor]]
"""Weight and bias."""


class Propagation:
    """Walks the groups of one network in forward order: `statistics` of a group, then `commit` what was chosen for it.

    Later groups then see the activations of the network that is already pruned, and the wanted pre-activations are
    those of the network as it was: each layer makes up for what was lost before it. The network itself is not
    touched.

    Args:
        groups: All groups of one network, in forward order.
        samples: Its calibration samples.
        ridge: Ridge of the refit, see `GroupStatistics`.
        activation: Activation function of the hidden layers.
    """

    def __init__(
        self,
        groups: Sequence[NeuronGroup],
        samples: Samples,
        ridge: float,
        activation: Callable[[Tensor], Tensor] = torch.relu,
    ) -> None:
        self.samples = samples
        self.ridge = ridge
        self.activation = activation
        self._extra_columns = extra_columns(groups)
        self._dense: dict[str, Layer] = {}
        for name, layer in linears(groups).items():
            self._dense[name] = (layer.weight.detach(), None if layer.bias is None else layer.bias.detach())
        self._now = dict(self._dense)
        self._source = {c.name: (group, c) for group in groups for c in group.consumers}
        self._activations: dict[str, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def statistics(self, group: NeuronGroup) -> GroupStatistics:
        """Statistics of a group whose predecessor has been committed.

        Raises:
            ValueError: If the activations, or the second moments of what reads them, are not finite.
        """
        dense = now = self._activate(group.name, self._dense, 0)
        if not self._is_dense(group.name):
            now = self._activate(group.name, self._now, 1)
        low, high = now.amin(dim=0), now.amax(dim=0)
        bad = int((~torch.isfinite(high - low + dense.amax(dim=0))).sum())
        if bad:
            raise ValueError(f"{group.name}: {bad} of {group.width} neurons have activations that are not finite")
        self._activations[group.name] = (dense, now)
        layers = tuple(self._moments(consumer, dense, now) for consumer in group.consumers)
        for consumer, layer in zip(group.consumers, layers, strict=True):
            if not bool(torch.isfinite(layer.gram).all()):
                raise ValueError(f"{group.name}: second moments of the inputs of {consumer.name} are not finite")
        return GroupStatistics(
            layers=layers,
            ridge=self.ridge,
            active=(now != 0).sum(dim=0).cpu().double() / len(now),
            # A single sample cannot tell what varies.
            constant=(high - low <= 1e-6 * high.abs()).cpu() & (len(now) > 1),
            mean=now.mean(dim=0).cpu().double(),
            taylor=_on_cpu(self.samples.taylor.get(group.name)),
            fisher=_on_cpu(self.samples.fisher.get(group.name)),
        )

    @torch.no_grad()
    def commit(self, group: NeuronGroup, selection: Selection) -> None:
        """Takes up the neurons that stay and the new values of the layers that read them."""
        dense, now = self._activations[group.name]
        self.put(selection.refit)
        if len(selection.keep) == group.width and selection.scale is None:
            return
        factors = torch.zeros(group.width, dtype=torch.float64)
        factors[selection.keep] = 1.0 if selection.scale is None else selection.scale.cpu().double()
        # The scale belongs to the outgoing weights; on the activations it has the same effect.
        self._activations[group.name] = (dense, now * factors.to(now))

    @torch.no_grad()
    def put(self, layers: Mapping[str, Layer]) -> None:
        """Takes up new values of layers that nothing behind them has been looked at yet.

        Args:
            layers: Module path of each layer -> weight and bias in full size.
        """
        for name, (weight, bias) in layers.items():
            like = self._dense[name][0]
            self._now[name] = (weight.to(like), None if bias is None else bias.to(like))

    @torch.no_grad()
    def first_moments(self, group: NeuronGroup) -> LayerMoments:
        """What the producer of the network's first group reads, which no group stands before.

        Args:
            group: The first group.

        Raises:
            ValueError: If the second moments are not finite.
        """
        assert group.name not in self._source
        weight, bias = self._dense[group.name]
        extra = self.samples.extra[group.name].to(weight)
        ones = [] if bias is None else [torch.ones_like(extra[:, :1])]
        none = extra.new_zeros(1, len(weight)).expand(len(extra), -1)
        weights = self.samples.weights[group.name].to(weight)
        gram, residual = second_moments(torch.cat([extra, *ones], dim=1), none, weights)
        if not bool(torch.isfinite(gram).all()):
            raise ValueError(f"{group.name}: second moments of its inputs are not finite")
        present = torch.cat([weight, *([] if bias is None else [bias[:, None]])], dim=1).cpu().double()
        rows = self.samples.rows[group.name].cpu().double()
        return LayerMoments(present, gram, residual, rows, extra.shape[1] + len(ones), bias is not None)

    def _is_dense(self, name: str) -> bool:
        """Whether a layer and all before it are as they were, so that its pre-activations are the wanted ones."""
        fed = self._activations[self._source[name][0].name] if name in self._source else (None, None)
        return fed[0] is fed[1] and self._now[name] is self._dense[name]

    def _activate(self, name: str, layers: dict[str, Layer], which: int) -> Float[Tensor, "samples neurons"]:
        if name in self._source:
            feeder, consumer = self._source[name]
            return self.activation(self._read(consumer, self._activations[feeder.name][which], layers))
        weight, bias = layers[name]
        return self.activation(torch.nn.functional.linear(self.samples.extra[name].to(weight), weight, bias))

    def _read(
        self, consumer: Consumer, neurons: Float[Tensor, "samples neurons"], layers: dict[str, Layer]
    ) -> Float[Tensor, "samples outputs"]:
        """Pre-activations of a layer."""
        weight, bias = layers[consumer.name]
        columns = slice(consumer.column_offset, consumer.column_offset + neurons.shape[1])
        output = torch.nn.functional.linear(neurons, weight[:, columns], bias)
        extra = self.samples.extra[consumer.name].to(weight)
        return output + extra @ weight[:, self._extra_columns[consumer.name].to(weight.device)].T

    def _moments(self, consumer: Consumer, dense: Tensor, now: Tensor) -> LayerMoments:
        name = consumer.name
        weight, bias = self._now[name]
        is_extra = self._extra_columns[name].to(weight.device)
        extra = self.samples.extra[name].to(now)
        ones = [] if bias is None else [torch.ones_like(now[:, :1])]
        errors = now.new_zeros(1, len(weight)).expand(len(now), -1)
        if dense is not now or weight is not self._dense[name][0]:
            errors = self._read(consumer, dense, self._dense) - self._read(consumer, now, self._now)
        weights = self.samples.weights[name].to(now)
        gram, residual = second_moments(torch.cat([extra, *ones, now], dim=1), errors, weights)
        neurons = weight[:, consumer.column_offset : consumer.column_offset + now.shape[1]]
        biases = [] if bias is None else [bias[:, None]]
        present = torch.cat([weight[:, is_extra], *biases, neurons], dim=1).cpu().double()
        rows = self.samples.rows[name].cpu().double()
        return LayerMoments(present, gram, residual, rows, extra.shape[1] + len(ones), bias is not None)


def _on_cpu(values: Optional[Tensor]) -> Optional[Tensor]:
    return None if values is None else values.cpu().double()
