"""Calibration samples: collected on real rays beside a training that must not notice."""

import random
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nerfstudio.data.datasets.base_dataset import InputDataset
from support.tiny_run import (
    TINY_SIZE,
    after_each_step,
    checkpoint,
    copied_state,
    make_config,
    resume,
    same_bits,
    start,
    tiny_widths,
    train,
    widths,
)

from nerfstudio_prune.core.optimizer_state import check_optimizers
from nerfstudio_prune.nerf import calibration as calibration_module
from nerfstudio_prune.nerf.calibration import RAYS_AT_ONCE, collect_samples
from nerfstudio_prune.nerf.model import FIELDS, PruneModel
from nerfstudio_prune.nerf.rays import draw_rays
from nerfstudio_prune.nerf.recipes import Calibration
from nerfstudio_prune.neurons.compaction import apply_compaction, prepare_compaction
from nerfstudio_prune.neurons.groups import linears
from nerfstudio_prune.neurons.pruner import Pruning
from nerfstudio_prune.neurons.refit import Refit
from nerfstudio_prune.neurons.samples import Samples
from nerfstudio_prune.neurons.selecting import select_neurons
from nerfstudio_prune.neurons.strategies import UniformStrategy

Config = Callable[..., Any]
ALL = 10**9
"""More samples than there are."""
POINTS = {"field_coarse": TINY_SIZE["num_coarse_samples"], "field_fine": 17}
"""Points on each ray; the fine field sees both sets and one more."""


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory, scene_cache: Path) -> Any:
    """A dense run of 10 steps."""
    return train(make_config(tmp_path_factory.mktemp("runs"), scene_cache, "dense", strategy="none"))


@pytest.fixture
def model(trainer: Any) -> PruneModel:
    return trainer.pipeline.model


@pytest.fixture
def views(trainer: Any) -> InputDataset:
    return trainer.pipeline.datamanager.train_dataset


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, torch.Tensor, torch.Tensor]]:
    """Rays, colours and random state of every batch that is rendered, so that a test can render it again."""
    found: list[tuple[Any, torch.Tensor, torch.Tensor]] = []
    inner = calibration_module._collect

    def spy(model: Any, rays: Any, colours: torch.Tensor, *rest: Any) -> None:
        found.append((rays, colours, torch.get_rng_state()))
        inner(model, rays, colours, *rest)

    monkeypatch.setattr(calibration_module, "_collect", spy)
    return found


def tensors(samples: dict[str, Samples]) -> list[Any]:
    return [[dict(s.extra), dict(s.weights), dict(s.rows), dict(s.taylor), dict(s.fisher)] for s in samples.values()]


@pytest.mark.parametrize("options", [{}, {"loss_gradients": True}, {"weights": "contribution"}], ids=str)
def test_seed_decides_alone(model: PruneModel, views: InputDataset, options: dict[str, Any]) -> None:
    """A record's seed must be enough to repeat an event, whatever the training drew before it."""
    calibration = Calibration(num_rays=200, num_samples=500, **options)
    first = tensors(collect_samples(model, views, calibration, 3))
    torch.rand(5)
    assert same_bits(tensors(collect_samples(model, views, calibration, 3)), first)
    assert not same_bits(tensors(collect_samples(model, views, calibration, 4)), first)
    huge = tensors(collect_samples(model, views, calibration, 2**64 - 3))  # seeds of events grow with the run's seed
    assert not same_bits(huge, first)


def random_states() -> list[Any]:
    numpy_state: Any = np.random.get_state()  # noqa: NPY002  the global state, as the host uses it
    return [torch.get_rng_state(), torch.from_numpy(numpy_state[1].astype(np.int64)), numpy_state[2]]


def refuse(*args: Any, **kwargs: Any) -> None:
    pytest.fail("Python's global random state was used")


@pytest.mark.parametrize("training", [True, False])
def test_collecting_leaves_no_trace(
    model: PruneModel, views: InputDataset, training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event must not shift the run: weights, gradients that are being accumulated, mode, global random states,
    views and the fields' own methods are what they were. (Python's random state is watched by its functions: the
    runtime type checks of the tests draw from it themselves.)"""
    model.train(training)
    for p in model.parameters():
        p.grad = torch.full_like(p, 0.5)
    weights, states, colours = copied_state(model), random_states(), views[0]["image"].clone()
    with monkeypatch.context() as watch:
        for function in ("random", "randint", "randrange", "sample", "choice", "shuffle", "uniform", "seed"):
            watch.setattr(random, function, refuse)
        collect_samples(model, views, Calibration(200, 500, loss_gradients=True), 3)
    assert same_bits(copied_state(model), weights) and same_bits(random_states(), states)
    assert all(p.grad is not None and bool((p.grad == 0.5).all()) for p in model.parameters())
    assert {module.training for module in model.modules()} == {training}
    assert torch.equal(views[0]["image"], colours)
    assert torch.is_grad_enabled() and not any("forward" in vars(getattr(model, name)) for name in FIELDS)
    assert not any(layer._forward_hooks for layer in linears(model.neuron_groups()).values())
    model.zero_grad()


def test_works_where_gradients_are_off(model: PruneModel, views: InputDataset) -> None:
    """The weights of the samples are gradients; whoever calls need not know."""
    expected = tensors(collect_samples(model, views, Calibration(50, 100), 3))
    with torch.no_grad():
        assert same_bits(tensors(collect_samples(model, views, Calibration(50, 100), 3)), expected)
        assert not torch.is_grad_enabled()


def test_mixed_precision_around_it_changes_nothing(model: PruneModel, views: InputDataset) -> None:
    """Second moments of half-precision activations are too coarse to fit weights to; the samples are taken in single
    precision whatever the training does."""
    calibration = Calibration(200, 500, loss_gradients=True)
    expected = tensors(collect_samples(model, views, calibration, 3))
    with torch.autocast("cpu", torch.bfloat16):
        assert same_bits(tensors(collect_samples(model, views, calibration, 3)), expected)


@pytest.mark.parametrize("at", ["forward", "loss"])
def test_failure_leaves_no_trace(
    model: PruneModel, views: InputDataset, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With on_error continue the training goes on with this very model: no wrapper around a field's forward, no hook,
    no other mode, no other random state may stay behind."""

    def fail(*args: Any, **kwargs: Any) -> None:
        raise ValueError("broken")

    model.eval()
    states = random_states()
    with monkeypatch.context() as patch:
        if at == "forward":
            patch.setattr(model.renderer_accumulation, "forward", fail)
        else:
            patch.setattr(model, "get_loss_dict", fail)
        with pytest.raises(ValueError, match="broken"):
            collect_samples(model, views, Calibration(50, 100, loss_gradients=True), 3)
    assert not any("forward" in vars(getattr(model, name)) for name in FIELDS)
    assert not any(layer._forward_hooks for layer in linears(model.neuron_groups()).values())
    assert not model.training and same_bits(random_states(), states)
    collect_samples(model, views, Calibration(50, 100), 3)


@pytest.mark.parametrize("num_rays", [1, 3, 128, 130, 200, 300])
@pytest.mark.parametrize("num_samples", [1, 2, 77, 500, ALL])
def test_number_of_samples_is_bounded(model: PruneModel, views: InputDataset, num_rays: int, num_samples: int) -> None:
    """The option is what memory and time are planned with: never more samples than it says, whatever the number of rays
    and batches, and as many if there are so many. All layers of a field have the same ones."""
    found = collect_samples(model, views, Calibration(num_rays, num_samples), 3)
    assert list(found) == list(FIELDS)
    for name, samples in found.items():
        counts = {len(values) for values in (*samples.extra.values(), *samples.weights.values())}
        assert counts == {min(num_samples, num_rays * POINTS[name])}


def test_every_batch_gives_its_share(
    model: PruneModel, views: InputDataset, batches: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Samples are thinned out evenly: a small last batch must not be over-represented."""
    shares: list[int] = []
    inner = calibration_module._Collector.add

    def spy(self: Any, *args: Any) -> None:
        inner(self, *args)
        shares.append(len(next(iter(self.extra.values()))[-1]))

    monkeypatch.setattr(calibration_module._Collector, "add", spy)
    collect_samples(model, views, Calibration(RAYS_AT_ONCE + 32, 320), 3)
    assert [len(colours) for _, colours, _ in batches] == [RAYS_AT_ONCE, 32]
    assert shares == [256, 256, 64, 64]


def test_layers_have_what_the_network_read(model: PruneModel, views: InputDataset) -> None:
    """Names, columns and types: the encoded position at the first layer and the skip, the direction at the head."""
    samples = collect_samples(model, views, Calibration(20, ALL), 3)["field_fine"]
    columns = {name: values.shape[1] for name, values in samples.extra.items()}
    expected = dict.fromkeys((name for name in linears(model.neuron_groups()) if name.startswith("field_fine")), 0)
    for layer, count in (("mlp_base.layers.0", 63), ("mlp_base.layers.2", 63), ("mlp_head.layers.0", 27)):
        expected[f"field_fine.{layer}"] = count
    assert columns == expected and {values.dtype for values in samples.extra.values()} == {torch.float32}
    assert set(samples.weights) == set(samples.rows) == set(columns)
    assert torch.equal(samples.extra["field_fine.mlp_base.layers.0"], samples.extra["field_fine.mlp_base.layers.2"])


@pytest.mark.parametrize("kind", ["gradient", "contribution"])
@pytest.mark.parametrize("floor", [0.0, 0.05, 0.7, 1.0])
def test_weights_have_mean_one_and_a_floor(model: PruneModel, views: InputDataset, kind: Any, floor: float) -> None:
    """Ridge and density weight are given for weights of mean one; the floor keeps empty space empty, where nothing
    contributes; at 1 all samples count alike."""
    for samples in collect_samples(model, views, Calibration(200, 700, kind, floor), 3).values():
        for weights in samples.weights.values():
            assert float(weights.double().mean()) == pytest.approx(1, abs=1e-5)
            assert float(weights.min()) >= floor - 1e-6 and bool(torch.isfinite(weights).all())
            assert float(weights.max() - weights.min()) > 0.1 or floor == 1
            assert floor < 1 or float((weights - 1).abs().max()) < 1e-6


def rendered(model: PruneModel, batch: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """Renders a batch again as it was, in training mode; gives the outputs and T * alpha of both fields."""
    found: list[torch.Tensor] = []
    hook: Any = lambda module, args, kwargs, output: found.append(kwargs["weights"].detach().flatten())  # noqa: E731
    handle = model.renderer_rgb.register_forward_hook(hook, with_kwargs=True)
    torch.set_rng_state(batch[2])
    model.train()
    try:
        outputs: Any = model(batch[0])
    finally:
        handle.remove()
    return outputs, dict(zip(FIELDS, found, strict=True))


def test_contributions_are_those_of_the_rendering(model: PruneModel, views: InputDataset, batches: list[Any]) -> None:
    """Transmittance times alpha, sample by sample in the order of the layers' inputs, as the model's own renderer gets
    them; the same for every layer, with rows alike."""
    floor = 0.25
    found = collect_samples(model, views, Calibration(100, ALL, "contribution", floor), 3)
    for name, contributions in rendered(model, batches[0])[1].items():
        expected = (1 - floor) * contributions / contributions.mean() + floor
        assert len(expected) == 100 * POINTS[name]
        for layer, weights in found[name].weights.items():
            torch.testing.assert_close(weights, expected, rtol=1e-5, atol=1e-6)
            assert bool((found[name].rows[layer] == 1).all())


def with_offsets(model: PruneModel, batch: Any, change: Callable[[str, torch.Tensor], torch.Tensor]) -> Any:
    """Renders a batch with the pre-activations of every layer changed."""

    def hook(name: str) -> Any:
        return lambda module, args, output: change(name, output)

    layers = linears(model.neuron_groups())
    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
    try:
        return rendered(model, batch)[0]
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize(("density_weight", "coarse_colour_weight"), [(1.0, 1.0), (4.0, 0.5)])
def test_gradient_weights(
    model: PruneModel, views: InputDataset, batches: list[Any], density_weight: float, coarse_colour_weight: float
) -> None:
    """How much the pixels' colours follow each pre-activation, measured by offsets that are added to them: the norm
    over a layer's outputs is the sample's weight, the root mean square over the samples the output's. All layers behind
    the coarse trunk but the density count as its colour."""
    offsets: dict[str, torch.Tensor] = {}

    def offset(name: str, output: torch.Tensor) -> torch.Tensor:
        offsets[name] = torch.zeros_like(output, requires_grad=True)
        return output + offsets[name]

    calibration = Calibration(
        100, ALL, floor=0.0, density_weight=density_weight, coarse_colour_weight=coarse_colour_weight
    )
    found = collect_samples(model, views, calibration, 3)
    outputs = with_offsets(model, batches[0], offset)
    colour = outputs["rgb_coarse"] + outputs["rgb_fine"]
    signs = 2 * torch.randint(0, 2, colour.shape) - 1
    gradients = torch.autograd.grad((colour * signs).sum(), list(offsets.values()))
    factors = {"field_output_density": density_weight}
    coarse = {**factors, "mlp_head": coarse_colour_weight, "field_heads": coarse_colour_weight}
    for name, gradient in zip(offsets, gradients, strict=True):
        field, part = name.split(".")[:2]
        samples, flat = found[name.split(".")[0]], gradient.flatten(0, -2).double()
        norms = flat.norm(dim=1)
        torch.testing.assert_close(samples.weights[name].double(), norms / norms.mean(), rtol=1e-3, atol=1e-5)
        rows = flat.square().mean(dim=0).sqrt() * (coarse if field == "field_coarse" else factors).get(part, 1.0)
        torch.testing.assert_close(samples.rows[name].double(), rows, rtol=1e-3, atol=1e-9)


def test_sums_of_gradients_against_gates(model: PruneModel, views: InputDataset, batches: list[Any]) -> None:
    """Taylor and fisher ask how the training loss changes when a neuron is gated off. Gates are put on the neurons in
    the forward pass, one per ray and neuron, and the slopes taken there; two batches, the second one smaller."""
    count = RAYS_AT_ONCE + 40
    found = collect_samples(model, views, Calibration(count, ALL, loss_gradients=True), 3)
    taylor: dict[str, torch.Tensor] = {}
    fisher: dict[str, torch.Tensor] = {}
    names = [group.name for group in model.neuron_groups()]
    for batch in batches:
        gates: dict[str, torch.Tensor] = {}

        def gate(name: str, output: torch.Tensor, gates: dict[str, torch.Tensor] = gates) -> torch.Tensor:
            if name not in names:
                return output
            # A positive gate before a ReLU is the same gate behind it.
            gates[name] = torch.ones(len(output), 1, output.shape[-1], requires_grad=True)
            return output * gates[name]

        outputs = with_offsets(model, batch, gate)
        loss = torch.stack(list(model.get_loss_dict(outputs, {"image": batch[1]}).values())).sum()
        slopes = torch.autograd.grad(loss, [gates[name] for name in names])
        for name, slope in zip(names, slopes, strict=True):
            by_ray = slope[:, 0].double()
            taylor[name] = taylor.get(name, 0) + by_ray.sum(dim=0).square() / 2
            fisher[name] = fisher.get(name, 0) + (by_ray * len(by_ray)).square().sum(dim=0) / count
    for name in names:
        samples = found[name.split(".")[0]]
        torch.testing.assert_close(samples.taylor[name], taylor[name], rtol=1e-3, atol=1e-12)
        torch.testing.assert_close(samples.fisher[name], fisher[name], rtol=1e-3, atol=1e-12)
        assert bool(samples.fisher[name].any())


def test_slope_of_a_gate_is_the_finite_difference_of_the_loss(
    model: PruneModel, views: InputDataset, batches: list[Any]
) -> None:
    """The same once more without any gradient: a gate of one neuron is opened and closed a little, and the field's part
    of the training loss is computed (the fine field's points follow the coarse one, which gradients do not see). One
    batch, so that taylor is the square of that slope."""
    found = collect_samples(model, views, Calibration(60, ALL, loss_gradients=True), 3)
    batch = batches[0]
    for name in ("field_coarse.mlp_base.layers.1", "field_fine.mlp_head.layers.0", "field_fine.mlp_base.layers.4"):
        taylor = found[name.split(".")[0]].taylor[name]
        neuron = int(taylor.argmax())
        losses = []
        for gate in (1.05, 0.95):

            def change(layer: str, output: torch.Tensor, name: str = name, gate: float = gate, n: int = neuron) -> Any:
                if layer != name:
                    return output
                factors = torch.ones(output.shape[-1])
                factors[n] = gate
                return output * factors

            with torch.no_grad():
                outputs = with_offsets(model, batch, change)
                parts = model.get_loss_dict(outputs, {"image": batch[1]})
                losses.append(float(parts[f"rgb_loss_{'coarse' if 'coarse' in name else 'fine'}"]))
        assert ((losses[0] - losses[1]) / 0.1) ** 2 == pytest.approx(float(taylor[neuron]), rel=0.1)


def test_gradients_of_the_loss_are_collected_only_on_request(model: PruneModel, views: InputDataset) -> None:
    """They cost a second backward pass. What else is collected must not depend on it."""
    plain = collect_samples(model, views, Calibration(50, 100), 3)
    more = collect_samples(model, views, Calibration(50, 100, loss_gradients=True), 3)
    for name in FIELDS:
        assert not plain[name].taylor and not plain[name].fisher
        assert set(more[name].taylor) == set(more[name].fisher) == {n for n in widths(model) if n.startswith(name)}
        bare = replace(more[name], taylor={}, fisher={})
        assert same_bits(tensors({"": bare}), tensors({"": plain[name]}))


def test_an_empty_scene_gives_even_weights(model: PruneModel, views: InputDataset) -> None:
    """Before a field has learnt anything no colour follows it; without a signal all samples and rows count alike,
    instead of a division by zero."""
    state = copied_state(model)
    try:
        with torch.no_grad():
            for name in FIELDS:
                net = getattr(model, name).field_output_density.net
                net.weight.zero_()
                net.bias.fill_(-1e4)
        for kind in ("gradient", "contribution"):
            for samples in collect_samples(model, views, Calibration(50, 100, kind), 3).values():
                assert all(bool((weights == 1).all()) for weights in samples.weights.values())
                assert all(bool((rows == 1).all()) for rows in samples.rows.values())
    finally:
        model.load_state_dict(state)


def test_gradients_that_are_not_finite_are_said(model: PruneModel, views: InputDataset) -> None:
    """A diverging network is no ground to choose neurons on."""
    state = copied_state(model)
    try:
        with torch.no_grad():
            model.field_fine.mlp_base.layers[1].bias.fill_(torch.inf)  # type: ignore[operator, union-attr]
        with pytest.raises(ValueError, match=r"field_fine\.\S+: gradients or contributions .* are not finite"):
            collect_samples(model, views, Calibration(50, 100), 3)
    finally:
        model.load_state_dict(state)


def test_no_training_views(model: PruneModel) -> None:
    """Said before anything is drawn."""
    empty: Any = []
    with pytest.raises(ValueError, match="calibration needs training rays, and there are no training views"):
        collect_samples(model, empty, Calibration(), 0)


def test_rays_are_spread_over_the_views(views: InputDataset) -> None:
    """Neurons that serve one side of a scene must be seen at work; rays come from all views, or from those asked for,
    with the colours of their own pixels, and their number is exact."""
    rays, colours = draw_rays(views, 10, torch.Generator().manual_seed(0))
    assert rays.camera_indices is not None
    assert rays.camera_indices.flatten().bincount().tolist() == [2, 3, 2, 3] and len(colours) == 10
    for i, colour in enumerate(colours):
        view = int(rays.camera_indices[i])
        everywhere = views.cameras.to("cpu").generate_rays(camera_indices=view)
        distance = (everywhere.directions - rays.directions[i]).norm(dim=-1)
        row, column = divmod(int(distance.argmin()), 16)
        assert float(distance.min()) < 1e-6 and torch.equal(views[view]["image"][row, column], colour)
    rays, _ = draw_rays(views, 10, torch.Generator().manual_seed(0), torch.tensor([3, 1]))
    assert rays.camera_indices is not None and set(rays.camera_indices.flatten().tolist()) == {1, 3}
    assert len(draw_rays(views, 3, torch.Generator().manual_seed(0))[1]) == 3  # fewer rays than views


def test_views_that_are_masked_out(views: InputDataset) -> None:
    """One photograph without a usable pixel must not end a training at its event; a data set of them gives an error
    that an event can handle."""

    class Masked:
        cameras = views.cameras

        def __init__(self, *usable: int) -> None:
            self.usable = usable

        def __len__(self) -> int:
            return len(views)

        def __getitem__(self, view: int) -> dict[str, Any]:
            return {**views[view], "mask": torch.full((16, 16, 1), view in self.usable)}

    some: Any = Masked(0, 2)
    rays, colours = draw_rays(some, 12, torch.Generator().manual_seed(0))
    assert rays.camera_indices is not None
    assert rays.camera_indices.flatten().tolist() == [0] * 3 + [2] * 3 and len(colours) == 6
    none: Any = Masked()
    with pytest.raises(ValueError, match="the masks of the 4 views that rays are drawn from leave no pixel"):
        draw_rays(none, 12, torch.Generator().manual_seed(0))


def test_large_data_sets_are_sampled(
    model: PruneModel, views: InputDataset, batches: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Photographs are read from disk one by one; only so many are looked at, and every batch looks at all of these."""
    monkeypatch.setattr(calibration_module, "MAX_VIEWS", 2)
    seen: set[tuple[int, ...]] = set()
    for seed in range(6):
        batches.clear()
        collect_samples(model, views, Calibration(2 * RAYS_AT_ONCE, 50), seed)
        looked = [tuple(sorted(set(rays.camera_indices.flatten().tolist()))) for rays, *_ in batches]
        assert len(looked) == 2 and looked[0] == looked[1] and len(looked[0]) == 2
        seen.add(looked[0])
    assert len(seen) > 1


OBS: dict[str, Any] = {"strategy": "obs", "refit": "lstsq", "calibration_rays": 64, "calibration_samples": 600}


def check(trainer: Any) -> None:
    """Optimizer, clipping list and model hold the same tensors in the same order."""
    optimizers, model = trainer.optimizers, trainer.pipeline.model
    check_optimizers(optimizers.optimizers, optimizers.parameters, model.get_param_groups())


@pytest.mark.parametrize(
    "options",
    [
        OBS,
        {**OBS, "refit_moments": "reset", "calibration_weights": "contribution", "refit_ridge": 0.0},
        {**OBS, "strategy": "pivoted-qr", "refit_moments": "rescale", "recovery": "retrain"},
        {**OBS, "strategy": "importance", "score": "taylor", "refit": "none"},
        {**OBS, "strategy": "coreset", "score": "fisher", "refit": "merge"},
        {**OBS, "strategy": "uniform", "schedule": "iterative", "num_events": 2, "stop_step": 8},
        {**OBS, "width": 2, "head_width": 2},
    ],
    ids=lambda options: f"{options['strategy']}-{options['refit']}",
)
def test_events_in_a_run(tiny_config: Config, options: dict[str, Any]) -> None:
    """Data-driven options through the host's own training loop: the widths are reached, training goes on with finite
    weights, and the record says with which options, so that it can be repeated."""
    trainer = train(tiny_config(start_step=5, **options))
    check(trainer)
    model = trainer.pipeline.model
    narrow = "width" in options
    assert widths(model) == (tiny_widths(2, 2) if narrow else tiny_widths(8, 4))
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())
    event = model.prune_state.history[-1]
    assert not event.error and event.strategy == options["strategy"]
    assert all(event.options[name] == value for name, value in options.items())
    assert event.options["score"] == options.get("score")
    assert event.metrics_before["psnr"] > 0 and event.metrics_after["psnr"] > 0
    saved = checkpoint(trainer, 9)["pipeline"]["_model._extra_state"]["history"]
    assert saved[-1]["options"] == event.options


def test_refit_keeps_the_picture(model: PruneModel, views: InputDataset, trainer: Any) -> None:
    """The purpose of all this: right after the event the network shows what it showed. With the very same neurons, the
    pixels of views that were not calibrated on move far less with a refit than without, in both fields."""
    rays, _ = draw_rays(trainer.pipeline.datamanager.eval_dataset, 200, torch.Generator().manual_seed(1))
    samples = collect_samples(model, views, Calibration(256, 4000), 3)
    moved = {"none": torch.zeros(2), "lstsq": torch.zeros(2)}
    with torch.no_grad():
        before: Any = model.eval()(rays)
        for seed in range(5):
            for mode in ("none", "lstsq"):
                cut = deepcopy(model)
                groups = cut.neuron_groups()
                chosen = select_neurons(groups, tiny_widths(8, 4), UniformStrategy(), None, seed, Refit(mode), samples)
                apply_compaction(prepare_compaction(groups, chosen))
                after: Any = cut(rays)
                differences = [after[name] - before[name] for name in ("rgb_coarse", "rgb_fine")]
                moved[mode] += torch.stack([difference.square().mean() for difference in differences])
    assert bool((moved["lstsq"] < 0.6 * moved["none"]).all()), moved


def test_training_batches_do_not_notice(tiny_config: Config) -> None:
    """Pruned and dense runs of one seed are compared step by step; collecting samples must not shift which rays they
    see, nor the random state they end with."""
    seen: dict[str, list[torch.Tensor]] = {"dense": [], "pruned": []}
    ends = {}
    for name, prune in (("dense", {"strategy": "none"}), ("pruned", {**OBS, "score": None, "start_step": 4})):
        trainer = start(tiny_config(name, **prune))
        datamanager = trainer.pipeline.datamanager

        def spy(step: int, name: str = name, next_train: Any = datamanager.next_train) -> Any:
            bundle, batch = next_train(step)
            seen[name].append(batch["indices"].clone())
            return bundle, batch

        datamanager.next_train = spy
        trainer.train()
        ends[name] = torch.get_rng_state()
    assert same_bits(seen["dense"], seen["pruned"]) and len(seen["dense"]) == 10
    assert torch.equal(ends["dense"], ends["pruned"])


@pytest.mark.parametrize("moments", ["keep", "rescale", "reset"])
def test_resumed_run_is_the_uninterrupted_run(tiny_config: Config, moments: str) -> None:
    """Cut off between two events and resumed without typing any option again, a run with refits must end with the very
    bits of the one that was not cut off: options, calibration and moments are all in the checkpoint."""
    options = {
        **OBS,
        "schedule": "iterative",
        "num_events": 2,
        "start_step": 3,
        "stop_step": 8,
        "refit_moments": moments,
    }
    config = tiny_config("whole", **options)
    config.steps_per_save, config.save_only_latest_checkpoint = 5, False
    whole = train(config, same_noise=True)
    resumed = train(resume(tiny_config("resumed"), whole, 5, 4), same_noise=True)
    assert widths(resumed.pipeline.model) == tiny_widths(8, 4)
    a, b = (dict(run.pipeline.model.named_parameters()) for run in (whole, resumed))
    assert same_bits({n: p.detach() for n, p in a.items()}, {n: p.detach() for n, p in b.items()})
    histories = [
        [(e.step, e.options, e.metrics_after) for e in r.pipeline.model.prune_state.history] for r in (whole, resumed)
    ]
    assert histories[0] == histories[1] and len(histories[0]) == 2


@pytest.mark.parametrize("moments", ["keep", "rescale", "reset"])
def test_moments_of_refitted_layers_in_a_run(tiny_config: Config, prunings: list[Pruning], moments: str) -> None:
    """The option reaches the host's optimizer: counters of refitted layers start over only with reset, the first layer
    of each field, which is never refitted, keeps its own, and moments grow with the columns only with rescale."""
    trainer = start(tiny_config(start_step=5, **OBS, refit_moments=moments))
    optimizer = trainer.optimizers.optimizers["fields"]
    before: dict[str, dict[str, Any]] = {}

    def note(step: int) -> None:
        if step == 5:
            for name, p in trainer.pipeline.model.named_parameters():
                before[name] = {key: value.clone() for key, value in optimizer.state[p].items()}

    after_each_step(trainer, note)
    for step in range(6):
        trainer.train_iteration(step)
        for callback in trainer.callbacks:
            callback.run_callback_at_location(step, location=_after())
    edits = {edit.name: edit for edit in prunings[0].edits}
    for name, p in trainer.pipeline.model.named_parameters():
        if not name.startswith("field_"):
            continue
        first = ".mlp_base.layers.0." in name
        if moments == "reset" and not first:
            assert p not in optimizer.state
            continue
        state, edit = optimizer.state[p], edits[name]
        assert int(state["step"]) == int(before[name]["step"]) == 6
        factor = torch.ones(())
        if moments == "rescale" and not first and name.endswith("weight"):
            factor = p.detach().norm(dim=0) / edit.select(edit.old.detach()).norm(dim=0)
            assert float((factor - 1).abs().max()) > 1e-3
        expected = edit.select(before[name]["exp_avg"]) * factor
        torch.testing.assert_close(state["exp_avg"], expected, rtol=1e-5, atol=1e-12)
        squares = edit.select(before[name]["exp_avg_sq"]) * factor.square()
        torch.testing.assert_close(state["exp_avg_sq"], squares, rtol=1e-5, atol=1e-16)


def _after() -> Any:
    from nerfstudio.engine.callbacks import TrainingCallbackLocation  # noqa: PLC0415

    return TrainingCallbackLocation.AFTER_TRAIN_ITERATION


def test_failed_calibration_is_a_failed_event(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """With on_error continue the network stays as it was, the failure is in the history, and the run ends well."""

    def fail(*args: Any) -> None:
        raise ValueError("calibration needs training rays, and there are no training views")

    monkeypatch.setattr(calibration_module, "draw_rays", fail)
    trainer = train(tiny_config(start_step=5, on_error="continue", **OBS))
    (event,) = trainer.pipeline.model.prune_state.history
    assert "no training views" in event.error and widths(trainer.pipeline.model) == tiny_widths(16, 8)
    assert trainer.step == 9
    check(trainer)
