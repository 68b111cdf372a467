"""What networks are asked for on training rays, and what their answers mean for the colours of these rays."""

from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from nerfstudio.data.datasets.base_dataset import InputDataset
from support.exported_kilo import kilo_model
from support.tiny_run import rays
from torch.nn.functional import softplus

from nerfstudio_prune.export import kilo_samples
from nerfstudio_prune.export.kilo_from_run import layers_of_networks
from nerfstudio_prune.export.kilo_network import preactivations
from nerfstudio_prune.kilo.model import KiloModel
from nerfstudio_prune.kilo.outputs import COUNTS
from nerfstudio_prune.kilonerf.encoding import encode

RAYS = 60


@pytest.fixture(autouse=True)
def fixed_rays(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rays for the samples and for the pictures, and all channels added up."""
    monkeypatch.setattr(kilo_samples, "draw_rays", lambda *arguments: (rays(RAYS), torch.zeros(RAYS, 3)))
    monkeypatch.setattr(kilo_samples, "_signs", lambda like, generator: torch.ones_like(like))


def collected(model: KiloModel, points: int = 4096) -> kilo_samples.NetworkSamples:
    """Samples of the fixed rays."""
    return kilo_samples.collect_samples(model, views(1), 0, RAYS, points)


def views(count: int) -> Any:
    """Views that are not looked at."""
    found = MagicMock(spec=InputDataset)
    found.__len__.return_value = count
    return found


@pytest.mark.parametrize("background", ["white", "random", "last_sample"])
def test_derivatives_are_those_of_the_pictures(background: Any) -> None:
    """What all networks do to all rays when their densities and colours change a little: a difference of two
    renderings."""
    model = kilo_model(background, contracted=background == "last_sample")
    model.config.transmittance_threshold = 0.0
    samples, shape = collected(model), model.networks.shapes[0]
    count = model.networks.num_networks
    layers = {
        name.split(".", 2)[2]: (own.weight.view(count, -1, own.weight.shape[1]), own.bias.view(count, -1))
        for name, own in layers_of_networks(model).items()
    }
    encoded = encode(samples.positions, shape.position_frequencies)
    seen = encode(samples.directions, shape.direction_frequencies)

    def answers() -> tuple[torch.Tensor, torch.Tensor]:
        outputs = preactivations(layers, encoded, seen)
        depth = softplus(outputs["density"][..., 0]) * samples.lengths
        return 1 - torch.exp(-depth), outputs["colour"].sigmoid()

    def picture() -> float:
        model.train().eval()
        return float(model(rays(RAYS))["rgb"].double().sum())

    for name, change in (("b_density", 0.02), ("b_rgb", 0.02)):
        before, seen_before = answers(), picture()
        key = "density" if name == "b_density" else "colour"
        layers[key][1].add_(change)
        with torch.no_grad():
            model.stack.get_parameter(name).add_(change)
        after, seen_after = answers(), picture()
        predicted = ((after[0] - before[0]) * samples.opacity * samples.share).sum()
        predicted += ((after[1] - before[1]) * samples.colour * samples.share[..., None]).sum()
        assert float(predicted) == pytest.approx(seen_after - seen_before, rel=0.05, abs=1e-3)
        assert abs(seen_after - seen_before) > 0.01


def test_every_sample_counts_once() -> None:
    """However many are kept of a network, the shares add up to the samples that the rays have; the same ones are kept
    every time."""
    model = kilo_model(narrows=True)
    whole, some, again = collected(model), collected(model, 7), collected(model, 7)
    assert int(whole.share.sum()) == int(model(rays(RAYS))[COUNTS].sum())
    assert set(whole.share.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(some.share.sum(dim=1), whole.share.sum(dim=1))
    assert some.share.shape[1] == 7 and bool((some.share.amax(dim=1) > 1).any())
    assert torch.equal(some.positions, again.positions) and torch.equal(some.opacity, again.opacity)


def test_no_views() -> None:
    """Rounding to nearest is still possible then; the reason is told."""
    with pytest.raises(ValueError, match="there are no training views"):
        kilo_samples.collect_samples(kilo_model(), views(0), 0)
