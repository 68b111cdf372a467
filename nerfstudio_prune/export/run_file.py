"""A run's network as the bytes of a file, at any mean of bits."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional

from nerfstudio_prune.engine.saved_run import SavedRun
from nerfstudio_prune.export.bits import choose_bits
from nerfstudio_prune.export.command import Rounding
from nerfstudio_prune.export.from_run import describe, layers_of, uniform_bits
from nerfstudio_prune.export.layers import LayerTensors
from nerfstudio_prune.export.mixed import encode_mixed
from nerfstudio_prune.export.network_rounding import predicted_errors, relative_errors, round_networks
from nerfstudio_prune.export.numbers import Numbers
from nerfstudio_prune.export.schema import Scene
from nerfstudio_prune.export.writing import encode_file
from nerfstudio_prune.nerf.model import FIELDS, PruneModel
from nerfstudio_prune.nerf.recipes import COARSE_ERROR_WEIGHT
from nerfstudio_prune.neurons.samples import Samples


@dataclass(frozen=True)
class RunFile:
    """What a file of a run is made of."""

    run: SavedRun[PruneModel]
    numbers: Numbers
    scene: Scene
    samples: Optional[Mapping[str, Samples]]
    """Name of the field -> calibration samples; None where there are none."""

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
        layers = layers_of(self.run.model)
        if not self.numbers.mixed:
            return self._encode(layers, uniform_bits(layers, int(self.numbers.bits)), self.rounding)
        weights = {name: layer.weight.numel() for name, layer in layers.items()}
        errors = self._errors(layers)

        def at(mean: float, rounding: Rounding) -> bytes:
            return self._encode(layers, choose_bits(errors, weights, mean), rounding)

        return encode_mixed(at, self.numbers, self.rounding)

    def _errors(self, layers: Mapping[str, LayerTensors]) -> dict[str, dict[int, float]]:
        """Error of each layer at each number of bits; those of the coarse field, which only places samples, count as
        little as under a budget of pruning."""
        if self.samples is None:
            errors = relative_errors(layers)
        else:
            groups = self.run.model.neuron_groups()
            errors = predicted_errors(groups, self.samples, layers, self.rounding == "compensated")
        factors = {name: COARSE_ERROR_WEIGHT if name.startswith(f"{FIELDS[0]}.") else 1.0 for name in errors}
        return {name: {bits: error * factors[name] for bits, error in own.items()} for name, own in errors.items()}

    def _encode(self, layers: Mapping[str, LayerTensors], bits: Mapping[str, int], rounding: Rounding) -> bytes:
        metadata = describe(self.run, layers, bits, self.numbers.storage, self.scene)
        if rounding == "nearest":
            return encode_file(metadata, layers)
        assert self.samples is not None
        return encode_file(metadata, layers, round_networks(self.run.model.neuron_groups(), self.samples, bits))
