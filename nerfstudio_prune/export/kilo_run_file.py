"""The tiny networks of a run as the bytes of a file, at any mean of bits."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Optional

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from nerfstudio_prune.engine.saved_run import SavedRun
from nerfstudio_prune.export.bits import choose_bits
from nerfstudio_prune.export.command import Rounding
from nerfstudio_prune.export.kilo_bits import Table, split
from nerfstudio_prune.export.kilo_from_run import blobs_of, classes_of, describe_kilo, layers_of_networks, same_bits
from nerfstudio_prune.export.kilo_network import StackLayer, StackLayers
from nerfstudio_prune.export.kilo_rounding import relative_stack_errors, round_stack, stack_errors
from nerfstudio_prune.export.kilo_samples import NetworkSamples
from nerfstudio_prune.export.kilo_schema import layer_names
from nerfstudio_prune.export.layers import LayerTensors, RoundedLayer
from nerfstudio_prune.export.mixed import encode_mixed
from nerfstudio_prune.export.network_rounding import CHOICES
from nerfstudio_prune.export.numbers import Numbers
from nerfstudio_prune.export.schema import Scene
from nerfstudio_prune.export.writing import encode_file
from nerfstudio_prune.kilo.model import KiloModel


@dataclass(frozen=True)
class KiloRunFile:
    """What a file of a run is made of."""

    run: SavedRun[KiloModel]
    numbers: Numbers
    scene: Scene
    samples: Optional[NetworkSamples]
    """Calibration samples; None where there are none."""

    @property
    def rounding(self) -> Rounding:
        """How weights are rounded."""
        return self.numbers.rounding_with(self.samples)

    def encode(self) -> bytes:
        """The content of the file.

        Raises:
            FileFormatError: If something about the run has no place in a file.
            ValueError: If it does not fit into the largest size, or names a layer that cannot be rounded.
        """
        if not self.numbers.mixed:
            return self._encode(same_bits(self.run.model, int(self.numbers.bits)), self.rounding)
        errors, weights = self._errors(), {}
        names = layer_names(self.run.model.networks.shapes[0].num_layers)
        for index, own in self._stacks.items():
            for row, (weight, _) in enumerate(own.values()):
                for network in self._members(index).tolist():
                    weights[f"{row}.{network}"] = weight[0].numel()

        def at(mean: float, rounding: Rounding) -> bytes:
            table = torch.zeros(len(names), self.run.model.networks.num_networks, dtype=torch.uint8)
            for key, bits in choose_bits(errors, weights, mean).items():
                row, network = key.split(".")
                table[int(row), int(network)] = bits
            return self._encode(table, rounding)

        return encode_mixed(at, self.numbers, self.rounding)

    @cached_property
    def _layers(self) -> dict[str, LayerTensors]:
        return layers_of_networks(self.run.model)

    @cached_property
    def _classes(self) -> UInt8[Tensor, " networks"]:
        return classes_of(self.run.model)

    def _members(self, index: int) -> Int64[Tensor, " members"]:
        """Networks of one width, in the order of the cells."""
        return (self._classes == index).nonzero()[:, 0]

    @cached_property
    def _stacks(self) -> Mapping[int, StackLayers]:
        """Layers of the networks of each width that any has."""
        found: dict[int, dict[str, StackLayer]] = {}
        for name, layer in self._layers.items():
            _, index, kind = name.split(".", 2)
            count = len(self._members(int(index)))
            own = layer.weight.view(count, -1, layer.weight.shape[1]), layer.bias.view(count, -1)
            found.setdefault(int(index), {})[kind] = own
        return found

    def _errors(self) -> dict[str, dict[int, float]]:
        """Number of a layer and of a network -> error at each number of bits."""
        found = {}
        for index, own in self._stacks.items():
            members = self._members(index)
            if self.samples is None:
                errors = relative_stack_errors(own)
            else:
                shape, compensated = self.run.model.networks.shapes[index], self.rounding == "compensated"
                errors = stack_errors(own, self.samples.of(members), shape, compensated)
            for row, curves in enumerate(errors.values()):
                for network, curve in zip(members.tolist(), curves.tolist(), strict=True):
                    found[f"{row}.{network}"] = dict(zip(CHOICES, curve, strict=True))
        return found

    def _encode(self, table: Table, rounding: Rounding) -> bytes:
        model = self.run.model
        metadata = describe_kilo(self.run, table, self.numbers.storage, self.scene)
        rounded: Mapping[str, RoundedLayer] = {}
        if rounding == "compensated":
            rounded = split(self._rounded(table), table, self._classes)
        layers = split(self._layers, table, self._classes)
        return encode_file(metadata, layers, rounded, blobs_of(model, table))

    def _rounded(self, table: Table) -> dict[str, RoundedLayer]:
        assert self.samples is not None
        found = {}
        for index, own in self._stacks.items():
            members = self._members(index)
            bits = dict(zip(own, table[:, members].long(), strict=True))
            shape = self.run.model.networks.shapes[index]
            for kind, layer in round_stack(own, self.samples.of(members), shape, bits).items():
                found[f"stacks.{index}.{kind}"] = layer
        return found
