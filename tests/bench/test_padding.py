"""A small field in a larger one: all widths of a comparison of speed have to see the same scene."""

import pytest
import torch
from nerfstudio.cameras.rays import RayBundle
from support.tiny_run import TINY_SIZE, rays, tiny_model

from nerfstudio_prune.bench.padding import pad_into
from nerfstudio_prune.nerf.model import PruneModel

LARGE = {"base_mlp_layer_width": 40, "head_mlp_layer_width": 20}


def padded(small: PruneModel) -> PruneModel:
    """A larger model of the same function."""
    large = tiny_model(**LARGE)
    for name, own in large.fields().items():
        pad_into(small.fields()[name], own)
    return large


def bundle() -> RayBundle:
    """Some rays through the scene."""
    return rays(12)


def test_outputs_agree_and_go_on_agreeing_in_training() -> None:
    """Only then do all skip the same space, and keep doing so while steps are timed."""
    torch.manual_seed(1)
    small = tiny_model()
    large = padded(small)
    for _ in range(3):
        outputs = []
        for model in (small, large):
            torch.manual_seed(2)
            model.train()
            result = model(bundle())
            outputs.append(result)
            model.zero_grad()
            (result["rgb_coarse"].square().sum() + result["rgb_fine"].square().sum()).backward()
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.grad is not None:
                        parameter.sub_(0.05 * parameter.grad)
        for name, value in outputs[0].items():
            torch.testing.assert_close(outputs[1][name], value, rtol=1e-4, atol=1e-5)
    weight = large.get_parameter("field_fine.mlp_base.layers.1.weight")
    width = TINY_SIZE["base_mlp_layer_width"]
    assert not weight[width:].any() and not weight[:, width:].any() and weight[:width, :width].any()


def test_fields_that_do_not_fit() -> None:
    """A part that is cut off, or left as it was drawn, would give another scene without a word."""
    small, large = tiny_model(), tiny_model(**LARGE)
    with pytest.raises(ValueError, match=r"mlp_base.layers.0.weight: expected at least \[40, 63\], got \[16, 63\]"):
        pad_into(large.field_fine, small.field_fine)
    deeper = tiny_model(**LARGE, base_mlp_num_layers=6)
    before = deeper.get_parameter("field_fine.mlp_base.layers.0.weight").detach().clone()
    with pytest.raises(ValueError, match="expected fields of the same layers"):
        pad_into(small.field_fine, deeper.field_fine)
    assert torch.equal(deeper.get_parameter("field_fine.mlp_base.layers.0.weight"), before)
