"""Any field, any number of fields: nothing of pruning rests on there being a coarse and a fine one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.field_components.field_heads import FieldHeadNames
from nerfstudio.fields.vanilla_nerf_field import NeRFField
from support.tiny_run import (
    TINY_SIZE,
    checkpoint,
    rays,
    resume,
    same_bits,
    start,
    tiny_model,
    tiny_parameters,
    train,
    widths,
)
from torch import Tensor, nn

from nerfstudio_prune.nerf.calibration import collect_samples
from nerfstudio_prune.nerf.layouts import LAYOUTS, Layout, fields_of, layout_of
from nerfstudio_prune.nerf.model import PruneModel
from nerfstudio_prune.nerf.recipes import Calibration
from nerfstudio_prune.nerf.teacher.config import TeacherConfig
from nerfstudio_prune.neurons.groups import Consumer, linears, mlp_groups
from nerfstudio_prune.neurons.samples import recorded_layers

Config = Callable[..., Any]
CALLS = (8, 17)
"""Samples of a ray in the two calls of the field: coarse ones, and those merged with eight more."""


class OneFieldModel(PruneModel):
    """A NeRF with one field, evaluated at coarse samples and again at those that they lead to."""

    def populate_modules(self) -> None:
        super().populate_modules()
        self.field = self.field_fine
        del self.field_coarse, self.field_fine

    def get_param_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"fields": list(self.field.parameters())}

    def get_outputs(self, ray_bundle: RayBundle) -> dict[str, Tensor]:
        outputs, samples, weights = {}, self.sampler_uniform(ray_bundle), None
        for name in ("coarse", "fine"):
            if weights is not None:
                samples = self.sampler_pdf(ray_bundle, samples, weights)
            found = self.field.forward(samples)
            weights = samples.get_weights(found[FieldHeadNames.DENSITY])
            outputs[f"rgb_{name}"] = self.renderer_rgb(rgb=found[FieldHeadNames.RGB], weights=weights)
            outputs[f"accumulation_{name}"] = self.renderer_accumulation(weights)
            outputs[f"depth_{name}"] = self.renderer_depth(weights, samples)
        return {**outputs, **{name: outputs[f"{name}_fine"] for name in ("rgb", "depth", "accumulation")}}


@pytest.fixture
def one_field(tiny_config: Config) -> Config:
    """Configurations of tiny runs of the model with one field."""

    def make(name: str = "run", **options: Any) -> Any:
        config = tiny_config(name, **options)
        config.pipeline.model._target = OneFieldModel
        return config

    return make


def test_a_field_is_found_by_its_class() -> None:
    """The model names no layers: a registered class, or one derived from it, is all that is asked for."""

    class Derived(NeRFField):
        """A field of a researcher."""

    model = nn.Module()
    model.first, model.other, model.second = NeRFField(), nn.Linear(2, 2), Derived()
    assert list(fields_of(model)) == ["first", "second"]
    assert layout_of(model.second) is LAYOUTS[NeRFField]
    groups = layout_of(model.second).groups("second", model.second)
    assert {(group.network, group.role) for group in groups} == {("second", "trunk"), ("second", "head")}
    assert [group.layer for group in groups][:2] == ["mlp_base.layers.0", "mlp_base.layers.1"]


def test_costs_of_one_field_that_is_evaluated_twice(one_field: Config) -> None:
    """MACs per ray are those of every evaluation; half of them would make any comparison with two fields a lie."""
    model = start(one_field(strategy="none")).pipeline.model
    costs = model.layer_costs()
    assert sum(count for count, _ in costs.values()) == sum(p.numel() for p in model.field.parameters())
    weights = sum(layer.weight.numel() for layer in model.field.modules() if isinstance(layer, nn.Linear))
    assert sum(macs for _, macs in costs.values()) == weights * sum(CALLS)


def test_samples_of_every_call_count(one_field: Config) -> None:
    """What a layer reads at coarse samples shapes the picture as well; with the record of the last call alone a refit
    would know nothing of it."""
    trainer = start(one_field(strategy="none"))
    model, dataset = trainer.pipeline.model, trainer.pipeline.datamanager.train_dataset
    calibration = Calibration(num_rays=20, num_samples=10**6, weights="contribution", floor=0.0)
    samples = collect_samples(model, dataset, calibration, seed=3)["field"]
    assert {len(weights) for weights in samples.weights.values()} == {20 * sum(CALLS)}
    assert samples.extra["field.mlp_base.layers.0"].shape == (20 * sum(CALLS), 63)
    with recorded_layers(model.neuron_groups()) as records:
        model.get_outputs(_collided(model, rays(5)))
    assert {tuple(len(call.extra) // 5 for call in calls) for calls in records.values()} == {CALLS}
    both = collect_samples(model, dataset, Calibration(20, 10**6, "gradient", loss_gradients=True), seed=3)["field"]
    assert set(both.taylor) == set(both.fisher) == {group.name for group in model.neuron_groups()}


def _collided(model: PruneModel, bundle: RayBundle) -> RayBundle:
    assert model.collider is not None
    return model.collider(bundle)


@pytest.mark.parametrize(
    "options",
    [
        {"strategy": "obs", "refit": "lstsq", "target_parameters": 0.4, "calibration_rays": 64},
        {"strategy": "importance", "score": "taylor", "width": 6, "head_width": 4, "calibration_rays": 64},
        {"strategy": "edge", "edge_keep_fraction": 0.25},
    ],
    ids=["budget", "widths", "single weights"],
)
def test_one_field_is_pruned_and_resumed(one_field: Config, options: dict[str, Any]) -> None:
    """A method with one field needs no line of its own, in mid-training and from a checkpoint."""
    plan = {"schedule": "iterative", "num_events": 2, "start_step": 3, "stop_step": 6, **options}
    whole = train(one_field("whole", **plan), same_noise=True)
    config = one_field("half", **plan)
    config.steps_per_save, config.save_only_latest_checkpoint = 5, False
    half = start(config, same_noise=True)
    half.train()
    again = resume(one_field("again", **plan), half, 5, 4)
    resumed = start(again, same_noise=True)
    assert [event.step for event in resumed.pipeline.model.prune_state.history] == [3]
    resumed.train()
    model, state = resumed.pipeline.model, resumed.pipeline.model.prune_state
    assert [event.step for event in state.history] == [3, 6] and not any(event.error for event in state.history)
    assert state.history[-1].after.costs["parameters"] < 0.8 * state.history[0].before.costs["parameters"]
    assert widths(model) == widths(whole.pipeline.model)
    assert all(name.startswith("field.") for name in widths(model))
    values = [{name: p.detach() for name, p in found.named_parameters()} for found in (model, whole.pipeline.model)]
    assert same_bits(*values)
    expected = sum(layer.weight.numel() for layer in linears(model.neuron_groups()).values()) * sum(CALLS)
    assert state.history[-1].after.costs["macs_per_ray"] == expected
    assert checkpoint(half, 5)["pipeline"]["_model._extra_state"]["format_version"] == 2


def test_the_temporal_distortion_counts(tiny_config: Config, tmp_path: Path) -> None:
    """A table that says 3.57x fewer where the model shrinks by 1.11x is no table; every trainable network is a part of
    the whole, evaluated at all samples of both fields."""
    config = tiny_config(start_step=3, pruning_ratio=0.5)
    config.pipeline.model.enable_temporal_distortion = True
    trainer = train(config)
    model = trainer.pipeline.model
    (event,) = model.prune_state.history
    trainable = [p for group in model.get_param_groups().values() for p in group]
    assert event.after.costs["parameters"] == sum(p.numel() for p in trainable)
    costs = model.layer_costs()
    deform = {name: cost for name, cost in costs.items() if name.startswith("temporal_distortion.")}
    linear = [m for m in model.temporal_distortion.modules() if isinstance(m, nn.Linear)]
    assert sorted(deform.values()) == sorted(
        (sum(p.numel() for p in layer.parameters()), layer.weight.numel() * sum(CALLS)) for layer in linear
    )
    removed = event.before.costs["parameters"] - event.after.costs["parameters"]
    plain_before, plain_after = tiny_model(), sum(p.numel() for p in model.field_coarse.parameters())
    fields = sum(p.numel() for p in plain_before.get_param_groups()["fields"])
    assert removed == fields - plain_after - sum(p.numel() for p in model.field_fine.parameters())
    assert event.before.costs["parameters"] / event.after.costs["parameters"] < 1.5
    assert TINY_SIZE["num_coarse_samples"] == CALLS[0]
    subject = trainer.pipeline.subject
    assert subject.initial_sizes() == event.before and subject.sizes() == event.after
    assert torch.isfinite(torch.tensor(event.metrics_after["psnr"]))


class PlainField(nn.Module):
    """Two hidden layers and an output, as a researcher writes it; neither trunk nor head."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, 16), nn.Linear(16, 16)])
        self.output = nn.Linear(16, 4)

    def forward(self, samples: Any) -> dict[FieldHeadNames, Tensor]:
        values = samples.frustums.get_positions()
        for layer in self.layers:
            values = torch.relu(layer(values))
        density, rgb = self.output(values).split([1, 3], dim=-1)
        return {FieldHeadNames.DENSITY: nn.functional.softplus(density), FieldHeadNames.RGB: torch.sigmoid(rgb)}


def _plain_groups(name: str, field: PlainField) -> Any:
    return mlp_groups(f"{name}.layers", list(field.layers), [Consumer(f"{name}.output", field.output, 0)], network=name)  # type: ignore[arg-type]


class PlainModel(PruneModel):
    """A coarse field of the host, and a fine one of an own class."""

    def populate_modules(self) -> None:
        super().populate_modules()
        self.field_fine = PlainField()  # type: ignore[assignment]


PLAIN_WIDTHS = {"field_fine.layers.0": 16, "field_fine.layers.1": 16}


@pytest.mark.parametrize("target", [{"pruning_ratio": 0.5}, {"width": 8}], ids=lambda target: next(iter(target)))
def test_an_own_field_is_one_more_entry_of_the_registry(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch, target: dict[str, Any]
) -> None:
    """A layout says which layers share an axis. That none of them is a trunk is no reason to refuse a share of their
    widths, nor a width."""
    monkeypatch.setitem(LAYOUTS, PlainField, Layout(_plain_groups, lambda _: None, lambda name: (f"{name}.output",)))
    config = tiny_config(start_step=3, **target)
    config.pipeline.model._target = PlainModel
    found = widths(train(config).pipeline.model)
    assert {name: found[name] for name in PLAIN_WIDTHS} == dict.fromkeys(PLAIN_WIDTHS, 8)
    assert found["field_coarse.mlp_base.layers.0"] == 8 and found["field_coarse.mlp_head.layers.0"] == 4


@pytest.mark.parametrize(
    "teacher", [{"point_share": 0.5}, {"coarse_weight": 0.1}], ids=lambda options: next(iter(options))
)
def test_teacher_that_needs_a_field_that_is_not_there(one_field: Config, teacher: dict[str, Any]) -> None:
    """What is rendered is compared field by field, by name. A model without one of them has to be told before the
    training, not in the first step after a cut."""
    with pytest.raises(
        ValueError, match="compare what the fields field_coarse and field_fine render, and the model has"
    ):
        start(one_field(start_step=3, teacher=TeacherConfig(steps=3, **teacher)))


def test_one_field_learns_from_its_teacher_point_by_point(one_field: Config) -> None:
    """Densities and colours at points need no field of a certain name."""
    trainer = train(one_field(start_step=3, teacher=TeacherConfig(steps=3)))
    assert [event.step for event in trainer.pipeline.model.prune_state.history] == [3] and trainer.step == 9


class FrozenModel(PruneModel):
    """Only the fine field is trained."""

    def get_param_groups(self) -> dict[str, list[nn.Parameter]]:
        self.field_coarse.requires_grad_(False)
        return {"fields": list(self.field_fine.parameters())}


@pytest.mark.parametrize(
    ("options", "after"),
    [({"strategy": "edge", "edge_keep_fraction": 0.5}, None), ({"pruning_ratio": 0.5}, tiny_parameters(8, 4))],
    ids=["single weights", "neurons"],
)
def test_a_frozen_field_costs_what_it_costs(tiny_config: Config, options: dict[str, Any], after: Any) -> None:
    """It is rendered, saved and pruned like the other. If it did not count, the sum of what is left of both would lie
    below zero as soon as its weights are masked."""
    config = tiny_config(start_step=3, **options)
    config.pipeline.model._target = FrozenModel
    trainer = train(config)
    (event,) = trainer.pipeline.model.prune_state.history
    assert event.before.costs["parameters"] == tiny_parameters(16, 8)
    assert trainer.pipeline.controller.run.subject.initial_sizes() == event.before
    weights = sum(event.before.parts.values())
    living = tiny_parameters(16, 8) - weights + sum(event.after.parts.values())
    assert event.after.costs["parameters"] == (living if after is None else after)


@pytest.mark.parametrize(
    "options",
    [{"strategy": "obs", "refit": "lstsq", "target_parameters": 0.4}, {"strategy": "importance", "score": "taylor"}],
    ids=["gradients of colours", "gradients of the loss"],
)
def test_a_frozen_field_is_judged_on_samples(tiny_config: Config, options: dict[str, Any]) -> None:
    """What a pixel follows says what a neuron is worth, whether the field is trained or not."""
    config = tiny_config(start_step=3, calibration_rays=64, **options)
    config.pipeline.model._target = FrozenModel
    model = train(config).pipeline.model
    assert [event.error for event in model.prune_state.history] == [""]
    assert sum(p.numel() for field in model.fields().values() for p in field.parameters()) < tiny_parameters(12, 6)
    assert all(not p.requires_grad and p.grad is None for p in model.field_coarse.parameters())
