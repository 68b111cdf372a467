"""What pruning does on a GPU is what it does on the CPU. Run by `pytest -m gpu` on a machine with CUDA.

Both sides start from one checkpoint of a dense run, and take no training step before the event: the host draws other
random numbers on another device. Sample points are not jittered, for the same reason. What follows from the weights
alone must then be equal to the bit, since it is chosen by a generator on the CPU; what is rendered first is close.

With `NERFSTUDIO_PRUNE_PARITY_DEVICE=cpu` the tests compare the CPU with itself, which shows that their own logic holds.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict
from typing import Any

import pytest
import torch
from nerfstudio.engine.callbacks import TrainingCallbackLocation
from support.live import with_panel
from support.tiny_run import make_config, resume, same_bits, start, tiny_widths, train, widths

from nerfstudio_prune.core.optimizer_state import check_optimizers
from nerfstudio_prune.nerf.calibration import Calibration

pytestmark = pytest.mark.gpu

Config = Callable[..., Any]
DEVICE = os.environ.get("NERFSTUDIO_PRUNE_PARITY_DEVICE", "cuda")
DENSE_STEPS = 5
EVENT = DENSE_STEPS
"""Step of the event, the first of the resumed run."""
CLOSE = {"rtol": 1e-2, "atol": 1e-2}
"""For weights that were refitted on rendered samples: the highest frequency of the encoding is 2^8 * 2 pi, which makes
2e-4 of the last bit of a position (1e-7) before the network starts. With noise of one bit in positions and layers, on
the CPU, a tenth of this was seen; another neuron would make 0.1."""
SAMPLES = {"rtol": 2e-2, "atol": 2e-2}
"""For the samples themselves: the fine field's positions come from the coarse field's density, and its encoding
multiplies their error by 1600."""
DECIBEL = 0.05
"""For a PSNR, in dB."""
WEIGHTS_ONLY: dict[str, dict[str, Any]] = {
    "uniform": {"strategy": "uniform"},
    "importance w_out": {"strategy": "importance", "score": "w_out"},
    "edge": {"strategy": "edge"},
}
"""Events that only choose, by the weights."""
COMPUTED: dict[str, dict[str, Any]] = {
    "coreset": {"strategy": "coreset"},
    "coreset mussay": {"strategy": "coreset", "coreset_variant": "mussay"},
    "activation, refit": {"strategy": "importance", "score": "activation", "refit": "lstsq"},
    "taylor": {"strategy": "importance", "score": "taylor"},
    "obs in a budget": {"strategy": "obs", "target_parameters": 0.4, "refit": "lstsq"},
}
"""Events that compute new weights, or choose by what was rendered."""
BY_HAND = {"strategy": "importance", "target": "pruning_ratio", "value": 0.5, "lr_factor": 1.0}
CUTS = {
    "w_out": {**BY_HAND, "score": "w_out", "refit": "none"},
    "activation, refit": {**BY_HAND, "score": "activation", "refit": "lstsq"},
}


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory, scene_cache: Any) -> Any:
    """A dense run on the CPU, whose checkpoint both sides take up."""
    config = make_config(tmp_path_factory.mktemp("dense"), scene_cache, "dense", strategy="none", calibration_rays=64)
    config.max_num_iterations = DENSE_STEPS
    return train(config)


@pytest.fixture
def device() -> torch.device:
    """The device that is compared with the CPU."""
    if DEVICE == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device(DEVICE, 0) if DEVICE == "cuda" else torch.device(DEVICE)


def resumed(config: Any, dense: Any, device_type: str) -> Any:
    """Points a configuration at the dense run's end, on a device."""
    config.machine.device_type = device_type
    return resume(config, dense, DENSE_STEPS - 1, 5)


def without_jitter(trainer: Any) -> Any:
    """Takes the random sample points out of a trainer's model, which are drawn on its device."""
    model = trainer.pipeline.model
    model.sampler_uniform.train_stratified = model.sampler_pdf.train_stratified = False
    return trainer


@contextmanager
def watched(config: Any) -> Iterator[tuple[Any, Any]]:
    """A trainer that a person looks on at, so that networks are kept for an undo, and the panel's session."""
    with with_panel(config) as (trainer, panel):
        panel.stop()
        yield without_jitter(trainer), panel.session


def end_step(trainer: Any, step: int) -> None:
    """What the host does at the end of a training step, without the step."""
    for callback in trainer.callbacks:
        callback.run_callback_at_location(step, location=TrainingCallbackLocation.AFTER_TRAIN_ITERATION)


def on_cpu(value: Any) -> Any:
    """A copy on the CPU, of a nest of containers and tensors."""
    if torch.is_tensor(value):
        return value.detach().cpu().clone()
    if isinstance(value, Mapping):
        return {key: on_cpu(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(on_cpu(item) for item in value)
    return deepcopy(value)


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    """Path -> parameter of a field, on the CPU."""
    return {name: on_cpu(p) for name, p in model.named_parameters() if name.startswith("field_")}


def moments_of(trainer: Any) -> list[dict[str, Any]]:
    """The optimizer's state of each parameter, in order, on the CPU."""
    state = trainer.optimizers.optimizers["fields"].state
    return [on_cpu(dict(state[p])) for p in trainer.pipeline.model.get_param_groups()["fields"]]


def masks_of(trainer: Any) -> dict[str, torch.Tensor]:
    """Path of the parameter -> mask of its edges, where it is."""
    return trainer.pipeline.model.prune_state.masks


def history_of(trainer: Any) -> list[dict[str, Any]]:
    """The recorded events without what a clock or a rendering gave."""
    measured = {"seconds", "rays_per_sec_before", "metrics_before", "metrics_after"}
    events = [asdict(event) for event in trainer.pipeline.model.prune_state.history]
    return [{key: value for key, value in event.items() if key not in measured} for event in events]


def random_states(device: torch.device) -> list[torch.Tensor]:
    """States of the generators that the host draws from, on the CPU and on the device."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def check(trainer: Any, device: torch.device) -> None:
    """Optimizer, clipping list and model hold the same tensors, and all of them lie on the device with their moments
    and masks; the counter of the steps stays where the optimizer has it."""
    model, optimizers = trainer.pipeline.model, trainer.optimizers
    check_optimizers(optimizers.optimizers, optimizers.parameters, model.get_param_groups())
    state = optimizers.optimizers["fields"].state
    for p in model.get_param_groups()["fields"]:
        assert p.device == device
        assert {key: state[p][key].device for key in ("exp_avg", "exp_avg_sq")} == dict.fromkeys(
            ("exp_avg", "exp_avg_sq"), device
        )
        assert state[p]["step"].device.type == "cpu"
    assert {mask.device for mask in masks_of(trainer).values()} <= {device}


def assert_goes_on(trainer: Any, step: int, device: torch.device) -> None:
    """A training step on the device still works, and moves every tensor of the fields."""
    before = weights_of(trainer.pipeline.model)
    loss = trainer.train_iteration(step)[0]
    end_step(trainer, step)
    assert bool(torch.isfinite(loss))
    after = weights_of(trainer.pipeline.model)
    assert [name for name in after if torch.equal(before[name], after[name])] == []
    check(trainer, device)


def assert_close(found: Mapping[str, Any], expected: Mapping[str, Any], tolerance: Mapping[str, Any]) -> None:
    """Same names, shapes and types, and values that are close; the message names the tensor."""
    assert list(found) == list(expected)
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], **tolerance, msg=lambda text, name=name: f"{name}: {text}")


def events_on_both(tiny_config: Config, dense: Any, device: torch.device, options: dict[str, Any]) -> tuple[Any, Any]:
    """Trainers on the CPU and on the device, right after the same event."""
    pair = []
    for name, device_type in (("cpu", "cpu"), ("other", device.type)):
        config = tiny_config(name, **{"start_step": EVENT, "calibration_rays": 64, "recovery_lr": 5e-4, **options})
        trainer = without_jitter(start(resumed(config, dense, device_type)))
        end_step(trainer, EVENT)
        pair.append(trainer)
    return pair[0], pair[1]


@pytest.mark.parametrize("options", WEIGHTS_ONLY.values(), ids=WEIGHTS_ONLY)
def test_cut_by_weights_is_the_same_to_the_bit(
    tiny_config: Config, dense: Any, device: torch.device, options: dict[str, Any]
) -> None:
    """Whoever repeats a run on another device must prune the same neurons: what stays are rows and columns of the same
    weights, their moments with them, and the history says the same."""
    cpu, other = events_on_both(tiny_config, dense, device, options)
    edges = options["strategy"] == "edge"
    assert widths(other.pipeline.model) == (tiny_widths(16, 8) if edges else tiny_widths(8, 4))
    assert same_bits(weights_of(other.pipeline.model), weights_of(cpu.pipeline.model))
    assert same_bits(moments_of(other), moments_of(cpu))
    assert same_bits(history_of(other), history_of(cpu)) and len(history_of(other)) == 1
    assert same_bits(on_cpu(masks_of(other)), on_cpu(masks_of(cpu))) and bool(masks_of(other)) == edges
    for key in ("metrics_before", "metrics_after"):
        values = [getattr(trainer.pipeline.model.prune_state.history[0], key)["psnr"] for trainer in (other, cpu)]
        assert values[0] == pytest.approx(values[1], abs=DECIBEL)
    check(other, device)
    assert_goes_on(other, EVENT + 1, device)


@pytest.mark.parametrize("options", COMPUTED.values(), ids=COMPUTED)
def test_cut_that_computes_is_close(
    tiny_config: Config, dense: Any, device: torch.device, options: dict[str, Any]
) -> None:
    """Scores on samples, sampling probabilities and refits are sums, which devices round differently: the widths must
    be the same, and so the neurons, which shows in weights that are close."""
    cpu, other = events_on_both(tiny_config, dense, device, options)
    assert widths(other.pipeline.model) == widths(cpu.pipeline.model) != tiny_widths(16, 8)
    assert same_bits(history_of(other), history_of(cpu)) and len(history_of(other)) == 1
    assert_close(weights_of(other.pipeline.model), weights_of(cpu.pipeline.model), CLOSE)
    for found, expected in zip(moments_of(other), moments_of(cpu), strict=True):
        assert_close(found, expected, CLOSE)
    check(other, device)
    assert_goes_on(other, EVENT + 1, device)


@pytest.mark.parametrize(
    "options", [{"strategy": "coreset"}, {"strategy": "importance", "score": "activation", "refit": "lstsq"}], ids=str
)
def test_event_leaves_the_random_states_alone(
    tiny_config: Config, dense: Any, device: torch.device, options: dict[str, Any]
) -> None:
    """A pruned and a dense run of one seed see the same batches only if an event, which renders and draws, leaves the
    generators as they were; a GPU has one of its own, and it is the one that the host draws sample points from."""
    config = tiny_config(start_step=EVENT, calibration_rays=64, **options)
    trainer = start(resumed(config, dense, device.type))
    before = random_states(device)
    end_step(trainer, EVENT)
    assert len(trainer.pipeline.model.prune_state.history) == 1
    assert same_bits(random_states(device), before)


@pytest.mark.parametrize("options", WEIGHTS_ONLY.values(), ids=WEIGHTS_ONLY)
def test_undo_brings_back_every_bit(
    tiny_config: Config, dense: Any, device: torch.device, options: dict[str, Any]
) -> None:
    """The kept network waits on the CPU: on the way there and back nothing may change, and nothing may stay there. The
    second of two events is undone, so that the masks of the first have to return to the device."""
    twice = {"schedule": "iterative", "num_events": 2, "start_step": EVENT, "stop_step": EVENT + 2}
    with watched(resumed(tiny_config(**twice, **options), dense, device.type)) as (trainer, _):
        end_step(trainer, EVENT)
        model = trainer.pipeline.model
        before = weights_of(model), moments_of(trainer), history_of(trainer), on_cpu(masks_of(trainer))
        end_step(trainer, EVENT + 2)
        assert len(history_of(trainer)) == 2 and not same_bits(weights_of(model), before[0])
        trainer.pipeline.steering.request("undo")
        end_step(trainer, EVENT + 3)
        after = weights_of(model), moments_of(trainer), history_of(trainer), on_cpu(masks_of(trainer))
        assert not trainer.pipeline.steering.message.error
        assert same_bits(after, before)
        check(trainer, device)
        assert_goes_on(trainer, EVENT + 4, device)


def test_network_before_the_event_can_be_rendered(tiny_config: Config, dense: Any, device: torch.device) -> None:
    """The comparison in the viewer shows the kept network, which then has to be where the rays are."""
    config = tiny_config(start_step=EVENT, strategy="uniform")
    with watched(resumed(config, dense, device.type)) as (trainer, session):
        dense_weights = weights_of(trainer.pipeline.model)
        end_step(trainer, EVENT)
        kept = session.before()
        assert same_bits(weights_of(kept), dense_weights)
        assert {p.device for p in kept.get_param_groups()["fields"]} == {device}
        assert trainer.pipeline.measure(kept)["psnr"] == pytest.approx(
            trainer.pipeline.model.prune_state.history[0].metrics_before["psnr"], abs=DECIBEL
        )


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_preview_is_that_of_the_cpu_and_what_pruning_gives(
    tiny_config: Config, dense: Any, device: torch.device, cut: Any
) -> None:
    """A preview must promise the same on a GPU, leave the trained network and the random states alone, lie where it is
    rendered, and be what the cut then gives."""
    shown = {}
    for name, device_type in (("cpu", "cpu"), ("other", device.type)):
        config = tiny_config(name, start_step=9, calibration_rays=64)
        with watched(resumed(config, dense, device_type)) as (trainer, session):
            end_step(trainer, EVENT)
            before = weights_of(trainer.pipeline.model), moments_of(trainer), random_states(device)
            preview = session.preview(cut)
            assert same_bits((weights_of(trainer.pipeline.model), moments_of(trainer), random_states(device)), before)
            assert preview.scores and {score.device.type for score in preview.scores.values()} == {"cpu"}
            shown[name] = preview
            if name == "other":
                assert {p.device for p in preview.model.get_param_groups()["fields"]} == {device}
                trainer.pipeline.steering.request("prune", cut)
                end_step(trainer, EVENT)
                assert_close(weights_of(preview.model), weights_of(trainer.pipeline.model), CLOSE)
                check(trainer, device)
    cpu, other = shown["cpu"], shown["other"]
    assert (other.before, other.after) == (cpu.before, cpu.after) and other.score_name == cpu.score_name
    assert widths(other.model) == tiny_widths(8, 4)
    assert_close(other.scores, cpu.scores, CLOSE)
    if cut == CUTS["w_out"]:
        assert same_bits(weights_of(other.model), weights_of(cpu.model))
    else:
        assert_close(weights_of(other.model), weights_of(cpu.model), CLOSE)


@pytest.mark.parametrize("options", [{"loss_gradients": True}, {"weights": "contribution"}], ids=str)
def test_calibration_is_that_of_the_cpu(
    tiny_config: Config, dense: Any, device: torch.device, options: dict[str, Any]
) -> None:
    """Every score on samples and every refit rests on these: the same rays, the same samples of them, and weights that
    agree; the large tensors stay on the device, the small sums are double on the CPU."""
    calibration = Calibration(num_rays=96, num_samples=500, **options)
    found = []
    for name, device_type in (("cpu", "cpu"), ("other", device.type)):
        trainer = without_jitter(start(resumed(tiny_config(name, strategy="none"), dense, device_type)))
        before = weights_of(trainer.pipeline.model), random_states(device)
        samples = trainer.pipeline.calibrate(calibration, 3)
        assert same_bits((weights_of(trainer.pipeline.model), random_states(device)), before)
        found.append(samples)
    cpu, other = found
    assert list(cpu) == list(other) == ["field_coarse", "field_fine"]
    for name, samples in other.items():
        assert {tensor.device for part in (samples.extra, samples.weights) for tensor in part.values()} == {device}
        for part in ("extra", "weights", "rows", "taylor", "fisher"):
            assert_close(on_cpu(getattr(samples, part)), getattr(cpu[name], part), SAMPLES)
        sums = [*samples.rows.values(), *samples.taylor.values(), *samples.fisher.values()]
        assert {tensor.device.type for tensor in sums} == {"cpu"}
        assert bool(samples.taylor) == bool(samples.fisher) == calibration.loss_gradients
