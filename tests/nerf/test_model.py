"""The model: its groups of neurons, sizes, costs and outputs, against the host's real field."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from nerfstudio.cameras.rays import RaySamples
from nerfstudio.field_components.field_heads import FieldHeadNames
from support.tiny_run import TINY_SIZE, paper_model, rays, shrink, tiny_model, tiny_parameters, tiny_widths, widths
from torch import nn

from nerfstudio_prune.nerf.model import PruneModel


@pytest.fixture
def float64() -> Iterator[None]:
    """Encodings and samplers follow the default type."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def fine_samples(model: PruneModel) -> RaySamples:
    assert model.collider is not None
    return model.sampler_uniform(model.collider(rays(24)))


def test_groups_of_the_paper_size_network() -> None:
    """A wrong column offset prunes inputs instead of neurons and still runs, so names and offsets are written out: 63
    encoded position values stand before the hidden ones at the skip layer 4, 27 direction values at the head."""
    expected = {}
    for name in ("field_coarse", "field_fine"):
        for i in range(7):
            expected[f"{name}.mlp_base.layers.{i}"] = [(f"{name}.mlp_base.layers.{i + 1}", 63 if i == 3 else 0)]
        expected[f"{name}.mlp_base.layers.7"] = [
            (f"{name}.field_output_density.net", 0),
            (f"{name}.mlp_head.layers.0", 27),
        ]
        expected[f"{name}.mlp_head.layers.0"] = [(f"{name}.mlp_head.layers.1", 0)]
        expected[f"{name}.mlp_head.layers.1"] = [(f"{name}.field_heads.0.net", 0)]
    model = paper_model()
    groups = model.neuron_groups()
    assert {g.name: [(c.name, c.column_offset) for c in g.consumers] for g in groups} == expected
    assert [g.name for g in groups] == list(expected)
    modules = dict(model.named_modules())
    assert all(g.producer is modules[g.name] for g in groups)
    assert all(c.linear is modules[c.name] for g in groups for c in g.consumers)
    assert {g.width for g in groups if "base" in g.name} == {256} and {g.width for g in groups if "head" in g.name} == {
        128
    }


@pytest.mark.parametrize("name", tiny_widths(0, 0, ("fine",)))
def test_zero_outgoing_columns_silence_the_neuron(name: str, float64: None) -> None:
    """Compaction removes what a group calls a neuron's outgoing columns; it is right only if they are all columns, and
    none but those, that read the neuron in the host's forward pass. Zeroing them must therefore equal zeroing the
    neuron's activation, in float64 to the last bits."""
    torch.manual_seed(0)
    model = tiny_model()
    field, samples = model.field_fine, fine_samples(model)
    group = next(g for g in model.neuron_groups() if g.name == name)
    silent = torch.arange(0, group.width, 2)

    def outputs() -> list[torch.Tensor]:
        found = field.forward(samples)
        return [found[FieldHeadNames.DENSITY], found[FieldHeadNames.RGB]]

    with torch.no_grad():
        whole = outputs()
        # A ReLU follows every hidden layer, so that a pre-activation of zero is an activation of zero.
        hook = group.producer.register_forward_hook(lambda module, args, out: out.index_fill(-1, silent, 0.0))
        masked = outputs()
        hook.remove()
        for consumer in group.consumers:
            consumer.linear.weight[:, consumer.column_offset + silent] = 0.0
        zeroed = outputs()
    for a, b in zip(masked, zeroed, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(whole[1], masked[1])


@pytest.mark.parametrize(("trunk", "head", "expected"), [(256, 128, 1_093_128), (128, 64, 292_616)])
def test_parameter_count(trunk: int, head: int, expected: int) -> None:
    """The count is the headline of every table; pinned for the paper's network and its half, and compared with what
    the module itself holds."""
    model = paper_model(base_mlp_layer_width=trunk, head_mlp_layer_width=head)
    assert sum(count for count, _ in model.layer_costs().values()) == expected
    assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize("pruned", [False, True])
def test_macs_per_ray_are_those_of_a_real_forward_pass(pruned: bool) -> None:
    """The fine field sees 64 + 128 + 1 samples because the sampler merges the coarse bins with its own; a formula that
    misses this is wrong by hundreds of thousands per ray. So each layer is counted while two rays really pass."""
    model = paper_model().eval()
    if pruned:
        shrink(model, {name: width - 3 - 4 * i for i, (name, width) in enumerate(widths(model).items())})
    seen: dict[str, list[int]] = {}

    def count(name: str, layer: nn.Linear) -> Any:
        def hook(module: nn.Module, args: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
            samples = args[0].shape[:-1].numel()
            seen.setdefault(name, []).extend([samples, layer.weight.shape[0] * args[0].shape[-1] * samples])

        return hook

    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear):
            layer.register_forward_hook(count(name, layer))
    with torch.no_grad():
        model(rays(2))
    assert {n: s for n, (s, _) in seen.items()} == {n: 2 * (64 if "coarse" in n else 193) for n in seen}
    assert {name: (macs // 2) for name, (_, macs) in seen.items()} == {
        name: macs for name, (_, macs) in model.layer_costs().items()
    }


def test_outputs_have_the_names_that_viewer_render_and_export_ask_for() -> None:
    """The viewer shows the first output, and `ns-render` and `ns-export` ask for rgb, depth and accumulation, which the
    stock model does not give; they must be the fine field's and not the coarse one's."""
    torch.manual_seed(0)
    outputs = tiny_model().eval()(rays(6))
    assert next(iter(outputs)) == "rgb"
    for name in ("rgb", "depth", "accumulation"):
        assert torch.equal(outputs[name], outputs[f"{name}_fine"])
    assert not torch.equal(outputs["rgb"], outputs["rgb_coarse"])


@pytest.mark.parametrize("shape", [(50,), (5, 10)])
def test_large_eval_bundles_are_split(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """The exporter sends 32,768 rays at once, whatever the memory: no call may exceed the chunk, and the pieces must be
    put together in order and shape."""
    torch.manual_seed(0)
    model = tiny_model(eval_num_rays_per_chunk=16).eval()
    sizes: list[int] = []
    inner = model.get_outputs

    def spy(bundle: Any) -> Any:
        sizes.append(len(bundle))
        return inner(bundle)

    bundle = rays(*shape)
    monkeypatch.setattr(model, "get_outputs", spy)
    with torch.no_grad():
        split = model(bundle)
        assert sizes == [16, 16, 16, 2]
        model.config.eval_num_rays_per_chunk = 64
        whole = model(bundle.flatten())
    for name, value in whole.items():
        assert split[name].shape == (*shape, value.shape[-1])
        torch.testing.assert_close(split[name].view(value.shape), value, rtol=1e-5, atol=1e-6)


def test_training_bundles_are_never_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training batch is one loss; splitting it by an option meant for evaluation would change nothing but the speed,
    and silently."""
    model = tiny_model(eval_num_rays_per_chunk=16)
    calls: list[int] = []
    inner = model.get_outputs
    monkeypatch.setattr(model, "get_outputs", lambda bundle: calls.append(len(bundle)) or inner(bundle))
    model(rays(50))
    assert calls == [50]


@pytest.mark.parametrize(("background", "colour"), [("white", 1.0), ("black", 0.0), ("random", None)])
def test_rgba_picture_put_on_the_background_is_the_picture(background: str, colour: float | None) -> None:
    """Transparent renders are composed by other programs with the straight-alpha rule; alpha has to be the
    accumulation, and colour times alpha plus background times the rest the rendered colour. With a random background
    nothing is blended in evaluation."""
    torch.manual_seed(0)
    model = tiny_model(background_color=background).eval()
    with torch.no_grad():
        model.field_fine.field_output_density.net.bias.fill_(-2.0)  # type: ignore[union-attr]  half transparent
        outputs = model(rays(32))
    rgba = model.get_rgba_image(outputs)
    assert rgba.shape == (32, 4)
    assert torch.equal(rgba[..., 3:], outputs["accumulation"])
    composed = rgba[..., :3] * rgba[..., 3:] + (colour or 0.0) * (1 - rgba[..., 3:])
    torch.testing.assert_close(composed, outputs["rgb"], rtol=0, atol=1e-5)
    assert bool(((outputs["accumulation"] > 0.2) & (outputs["accumulation"] < 0.8)).all())


def test_network_size_options() -> None:
    """Small machines train small networks; each option has to reach the host's field, the skip connection included."""
    model = tiny_model(head_mlp_num_layers=3, head_mlp_layer_width=10, base_mlp_layer_width=12, skip_connections=(1, 3))
    shapes = {name: tuple(p.shape) for name, p in model.field_fine.named_parameters() if name.endswith("weight")}
    assert shapes == {
        "mlp_base.layers.0.weight": (12, 63),
        "mlp_base.layers.1.weight": (12, 75),
        "mlp_base.layers.2.weight": (12, 12),
        "mlp_base.layers.3.weight": (12, 75),
        "mlp_base.layers.4.weight": (12, 12),
        "mlp_head.layers.0.weight": (10, 39),
        "mlp_head.layers.1.weight": (10, 10),
        "mlp_head.layers.2.weight": (10, 10),
        "field_output_density.net.weight": (1, 12),
        "field_heads.0.net.weight": (3, 10),
    }
    assert widths(model) == {**tiny_widths(12, 10), **{f"field_{f}.mlp_head.layers.2": 10 for f in ("coarse", "fine")}}
    offsets = {c.name: c.column_offset for g in model.neuron_groups() for c in g.consumers if "fine.mlp_base" in c.name}
    assert offsets == {f"field_fine.mlp_base.layers.{i}": 63 if i in (1, 3) else 0 for i in range(1, 5)}
    with torch.no_grad():
        assert bool(torch.isfinite(model(rays(3))["rgb"]).all())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_mlp_num_layers": 0}, "pipeline.model.base_mlp_num_layers must be in [1, 64], got 0"),
        (
            {"base_mlp_layer_width": -4},
            "pipeline.model.base_mlp_layer_width must be in [1, 4,096], got -4",
        ),
        ({"head_mlp_num_layers": 0}, "pipeline.model.head_mlp_num_layers must be in [1, 64], got 0"),
        (
            {"head_mlp_layer_width": 0},
            "pipeline.model.head_mlp_layer_width must be in [1, 4,096], got 0",
        ),
        ({"base_mlp_layer_width": 10**9}, "base_mlp_layer_width must be in [1, 4,096], got 1000000000"),
        (
            {"base_mlp_layer_width": 4096, "base_mlp_num_layers": 8},
            "give about 134,217,728 weights a field; the most",
        ),
        ({"base_mlp_layer_width": "16"}, "pipeline.model.base_mlp_layer_width must be a whole number, got '16'"),
        ({"num_coarse_samples": 0}, "pipeline.model.num_coarse_samples must be in [1, 4,096], got 0"),
        ({"num_importance_samples": 10**9}, "pipeline.model.num_importance_samples must be in [1, 4,096]"),
        ({"eval_num_rays_per_chunk": 0}, "pipeline.model.eval_num_rays_per_chunk must be in [1, 1,048,576], got 0"),
        ({"collider_params": {"near_plane": 6.0, "far_plane": 2.0}}, "0 <= near_plane < far_plane <= 1,000,000, got"),
        ({"collider_params": {"near_plane": 1.0, "far_plane": math.inf}}, "pipeline.model.collider_params must be"),
        ({"collider_params": {"near_plane": 1.0}}, "pipeline.model.collider_params must be near_plane and far_plane"),
        ({"collider_params": None}, "pipeline.model.collider_params must be near_plane and far_plane, got None"),
        ({"enable_collider": False}, "pipeline.model.enable_collider must be True: the samplers ask for a near"),
        ({"loss_coefficients": {"rgb_loss_fine": math.nan}}, "pipeline.model.loss_coefficients must be"),
        ({"skip_connections": ("2",)}, "pipeline.model.skip_connections must be a list of whole numbers, got ('2',)"),
        ({"coarse_sampler": "linear"}, "pipeline.model.coarse_sampler must be one of uniform, piecewise, got 'linear'"),
        (
            {"enable_temporal_distortion": True, "temporal_distortion_params": {}},
            "pipeline.model.temporal_distortion_params must name a kind of distortion, got None",
        ),
        ({"skip_connections": (0,)}, "0 must be neither the first nor the last of the 5 trunk layers"),
        ({"skip_connections": (2, 4)}, "4 must be neither the first nor the last of the 5 trunk layers"),
    ],
)
def test_options_that_give_no_model(options: dict[str, Any], message: str) -> None:
    """The host takes all of these, and fails in the first forward pass with a shape error, asks for memory that is
    not there, or goes on with NaN."""
    with pytest.raises(ValueError) as caught:
        tiny_model(**options)
    assert message in str(caught.value)


def test_state_dict_keys_are_the_stock_ones(stock_state: dict[str, Any]) -> None:
    """Checkpoints move between `vanilla-nerf` and `nerf-prune` only while names and shapes agree; the metric network,
    nearly ten megabytes, stays out."""
    ours = paper_model().state_dict()
    stock = {key: value for key, value in stock_state.items() if not key.startswith("lpips.")}
    assert len(stock) < len(stock_state)
    assert set(ours) == {*stock, "_extra_state"}
    assert {key: value.shape for key, value in stock.items()} == {key: ours[key].shape for key in stock}


def test_noted_widths_follow_the_tensors() -> None:
    """`in_features`, `out_dim` and the like are what other code (and `repr`) reads; after a cut they must say what the
    tensors say, or a later reader builds on the old width."""
    model = shrink(tiny_model(), {**tiny_widths(9, 5), "field_fine.mlp_base.layers.4": 7})
    for field, last in ((model.field_coarse, 9), (model.field_fine, 7)):
        assert field.mlp_base.get_out_dim() == field.field_output_density.in_dim == last
        assert field.mlp_head.in_dim == 27 + last
        assert field.mlp_head.get_out_dim() == field.field_heads[0].in_dim == 5  # type: ignore[union-attr]
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            assert (layer.out_features, layer.in_features) == tuple(layer.weight.shape)


def test_closed_form_of_the_tiny_network() -> None:
    """Other tests compare printed and recorded counts with `tiny_parameters`; here it is tied to real tensors, at two
    sizes so that no term can hide."""
    for trunk, head in ((16, 8), (11, 3)):
        model = tiny_model(**{**TINY_SIZE, "base_mlp_layer_width": trunk, "head_mlp_layer_width": head})
        assert sum(p.numel() for p in model.parameters()) == tiny_parameters(trunk, head)
