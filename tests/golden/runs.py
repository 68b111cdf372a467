"""Tiny runs over what pruning can do, and what each of them comes to in plain values."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from golden.reading import ask, events_of, field_target, pause, refused, teacher, watch
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig
from support.tiny_run import after_each_step, before_each_step, make_config, resume, start, tiny_parameters

ASPECTS = ("losses", "weights", "events")
Options = dict[str, Any]
Requests = Mapping[int, tuple[str, Options]]
"""Step -> name and cut of a request, for `reading.ask`."""


@dataclass
class Part:
    """A training from its first step to its last."""

    trainer: Any
    """The trainer after its training."""
    losses: list[dict[str, str]] = field(default_factory=list)
    """Of each step: name of the loss -> value, as hexadecimal digits of its bits."""


Run = Callable[[Path, Path], list[Part]]
"""Folder for the run, cache folder of the demo scene -> what was trained, one after the other."""


def readings(parts: list[Part]) -> dict[str, Any]:
    """What a run came to, by aspect, as plain values to compare or to hash."""
    return {
        "losses": [part.losses for part in parts],
        "weights": [_weights(part.trainer) for part in parts],
        "events": [events_of(part.trainer.pipeline.model) for part in parts],
    }


def hashes(parts: list[Part]) -> dict[str, str]:
    """Aspect -> hash of what a run came to."""
    found = readings(parts)
    return {name: hashlib.sha256(json.dumps(found[name], sort_keys=True).encode()).hexdigest()[:32] for name in ASPECTS}


def canary() -> str:
    """Hash of a calculation of torch alone, with what these runs are made of: it differs where the processor or the
    version of torch rounds in another way, so that no hash of a run can be the recorded one."""
    torch.set_flush_denormal(False)
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    weights = [(noise(a, b) * 0.2).requires_grad_() for a, b in ((63, 16), (16, 16), (79, 16), (16, 3))]
    optimizer = torch.optim.RAdam(weights, lr=5e-4, eps=1e-8)
    inputs, targets = noise(512, 63), torch.rand(512, 3, generator=generator)
    for _ in range(20):
        optimizer.zero_grad()
        first = torch.relu(torch.relu(inputs @ weights[0]) @ weights[1])
        second = torch.relu(torch.cat([inputs, first], -1) @ weights[2])
        colours = torch.sigmoid(second @ weights[3]).reshape(32, 16, 3)
        density = torch.nn.functional.softplus(second[:, :1]).reshape(32, 16, 1)
        light = torch.exp(-torch.cumsum(density, 1)) * (1 - torch.exp(-density))
        error = ((light * colours).sum(1) - targets.reshape(32, 16, 3).mean(1)).square().mean()
        error.backward()
        optimizer.step()
    wide = noise(200, 24).double()
    square = wide.T @ wide
    values = [
        *weights,
        torch.einsum("ni,nj,n->ij", noise(64, 9), noise(64, 7), noise(64)),
        torch.sin(noise(1000) * 100),
        torch.exp(noise(1000)),
        torch.sort(noise(1000)).values.cumsum(0),
        noise(1001).mean(),
        noise(37, 29).norm(dim=1),
        torch.linalg.cholesky(square),
        torch.cholesky_inverse(torch.linalg.cholesky(square)),
        torch.cholesky_solve(noise(24, 5).double(), torch.linalg.cholesky(square)),
        torch.linalg.solve(square, noise(24, 5).double()),
    ]
    return hashlib.sha256("".join(_digest(value) for value in values).encode()).hexdigest()[:32]


def _digest(tensor: torch.Tensor) -> str:
    value = tensor.detach().cpu().contiguous()
    return hashlib.sha256(f"{value.dtype}{tuple(value.shape)}".encode() + value.numpy().tobytes()).hexdigest()[:16]


def _weights(trainer: Any) -> dict[str, Any]:
    """Parameters by name, and what each optimizer remembers of its parameters, in their order."""
    optimizers: dict[str, Any] = {}
    for name, optimizer in sorted(trainer.optimizers.optimizers.items()):
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        optimizers[name] = {
            "rates": [float(group["lr"]).hex() for group in optimizer.param_groups],
            "state": [
                {key: _digest(torch.as_tensor(value)) for key, value in sorted(optimizer.state[parameter].items())}
                if parameter in optimizer.state
                else None
                for parameter in parameters
            ],
        }
    parameters = {name: _digest(value) for name, value in sorted(trainer.pipeline.model.named_parameters())}
    return {"parameters": parameters, "optimizers": optimizers}


def passed(
    config: Any,
    requests: Requests | None = None,
    pauses: Mapping[int, bool] | None = None,
    poisoned: int | None = None,
) -> Part:
    """A training, noted.

    Args:
        config: Its configuration.
        requests: Step -> what a person asks for in its midst; the training is watched then. None may be refused.
        pauses: Step -> whether planned events wait from its beginning on.
        poisoned: Step at whose end one weight is NaN, for as long as pruning looks at the network; else None.
    """
    trainer = start(config)
    part = Part(trainer)
    losses_of = trainer.pipeline.get_train_loss_dict

    def noted(step: int) -> Any:
        outputs, losses, metrics = losses_of(step=step)
        values = {name: np.float32(value.item()).tobytes().hex() for name, value in sorted(losses.items())}
        part.losses.append(values)
        return outputs, losses, metrics

    trainer.pipeline.get_train_loss_dict = noted
    if requests is not None or pauses is not None:
        watch(trainer)
        before_each_step(trainer, partial(_steer, trainer, requests or {}, pauses or {}))
        trainer.callbacks.append(
            TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], lambda step: _not_refused(trainer))
        )
    if poisoned is not None:
        _poison(trainer, poisoned)
    trainer.train()
    return part


def _steer(trainer: Any, requests: Requests, pauses: Mapping[int, bool], step: int) -> None:
    if step in pauses:
        pause(trainer, pauses[step])
    if step in requests:
        name, cut = requests[step]
        ask(trainer, name, **cut)


def _not_refused(trainer: Any) -> None:
    assert not refused(trainer), refused(trainer)


def _poison(trainer: Any, at: int) -> None:
    weight = trainer.pipeline.model.field_fine.mlp_base.layers[3].weight
    good = []

    def poison(step: int) -> None:
        if step == at:
            good.append(float(weight[2, 5]))
            weight.data[2, 5] = torch.nan

    def heal(step: int) -> None:
        if step == at:
            weight.data[2, 5] = good[0]

    after_each_step(trainer, poison)
    trainer.callbacks.append(TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], heal))


def decaying(config: Any) -> Any:
    """The configuration with a learning rate that comes down."""
    config.optimizers["fields"]["scheduler"] = ExponentialDecaySchedulerConfig(lr_final=1e-5, max_steps=20)
    return config


def simple(steps: int = 10, decay: bool = False, method: str = "nerf-prune", **prune: Any) -> Run:
    """A run with these options of pruning."""

    def run(folder: Path, cache: Path) -> list[Part]:
        config = make_config(folder, cache, method=method, **{**FEW, **prune})
        config.max_num_iterations = steps
        return [passed(decaying(config) if decay else config)]

    return run


def steered(requests: Requests, pauses: Mapping[int, bool] | None = None, steps: int = 12, **prune: Any) -> Run:
    """A run in which a person asks for something."""

    def run(folder: Path, cache: Path) -> list[Part]:
        config = decaying(make_config(folder, cache, **{**FEW, **prune}))
        config.max_num_iterations = steps
        return [passed(config, requests, pauses)]

    return run


def failing(**prune: Any) -> Run:
    """A run in which the event at step 5 meets a weight that is no number."""

    def run(folder: Path, cache: Path) -> list[Part]:
        return [passed(make_config(folder, cache, **{**FEW, **prune}), poisoned=5)]

    return run


def resumed(again: Mapping[str, Any], requests: Requests | None = None, **prune: Any) -> Run:
    """A run of 10 steps, and one that goes on from its step 5 for 7 steps.

    Args:
        again: Options of the second run.
        requests: What a person asks for in the first.
        prune: Options of the first run.
    """

    def run(folder: Path, cache: Path) -> list[Part]:
        config = decaying(make_config(folder, cache, "first", **{**FEW, **prune}))
        config.steps_per_save, config.save_only_latest_checkpoint = 5, False
        first = passed(config, requests)
        second = decaying(make_config(folder, cache, "second", **{"preset": None, **FEW, **again}))
        return [first, passed(resume(second, first.trainer, 5, 7))]

    return run


FEW: Options = {"calibration_rays": 64}
AT_3: Options = {"start_step": 3}
TWICE: Options = {"schedule": "iterative", "num_events": 2, "start_step": 3, "stop_step": 8}
THRICE: Options = {"num_events": 3, "start_step": 2, "stop_step": 7}
OURS: Options = {"strategy": "obs", "refit": "lstsq"}
EDGE: Options = {"strategy": "edge", "schedule": "iterative", **THRICE}
UNDO: tuple[str, Options] = ("undo", {})
RENDERED: Options = {"point_share": 0.4, "pseudo_rays": 0.5, "hard_rays": 0.25, "hard_pool": 40, "coarse_weight": 0.1}


def by_hand(value: float, target: str = "pruning_ratio", name: str = "prune", **cut: Any) -> tuple[str, Options]:
    """A request for a cut; with no more said one of the paper's."""
    return name, {"strategy": "coreset", "score": None, "refit": "none", "target": target, "value": value, **cut}


RUNS: dict[str, Run] = {
    # Who stays.
    "none": simple(strategy="none"),
    "uniform": simple(strategy="uniform", seed=5, **AT_3),
    "importance-w_out": simple(strategy="importance", score="w_out", **AT_3),
    "importance-w_in-some-groups": simple(
        strategy="importance", score="w_in", groups=("field_*.mlp_base.layers.[1-3]",), pruning_ratio=0.3, **AT_3
    ),
    "coreset": simple(decay=True, **AT_3),
    "coreset-sensitivity": simple(score="sensitivity", **AT_3),
    "coreset-mussay": simple(coreset_variant="mussay", **TWICE),
    "pivoted-qr-contribution": simple(
        strategy="pivoted-qr", refit="lstsq", calibration_weights="contribution", pruning_ratio=0.5, **AT_3
    ),
    "activation-lstsq": simple(strategy="importance", score="activation", refit="lstsq", refit_ridge=1e-3, **AT_3),
    "apoz": simple(strategy="importance", score="apoz", **AT_3),
    "taylor": simple(strategy="importance", score="taylor", calibration_samples=600, **AT_3),
    "fisher": simple(strategy="importance", score="fisher", **AT_3),
    "obs-score": simple(strategy="importance", score="obs", calibration_floor=0.2, density_weight=3.0, **AT_3),
    # How the others take over.
    "obs-lstsq-parameters": simple(**OURS, target_parameters=0.4, **AT_3),
    "obs-lstsq-ratio-rescale": simple(**OURS, pruning_ratio=0.5, refit_moments="rescale", **TWICE),
    "merge-reset": simple(strategy="importance", refit="merge", refit_moments="reset", **AT_3),
    # How far, and when.
    "target-macs": simple(strategy="importance", score="activation", target_macs=0.3, coarse_error_weight=1.0, **AT_3),
    "target-mb-events": simple(**OURS, target_mb=4e-6 * 0.4 * tiny_parameters(16, 8), schedule="cubic", **THRICE),
    "cubic": simple(schedule="cubic", pruning_ratio=0.7, **THRICE),
    "iterative-round_to": simple(strategy="importance", schedule="iterative", round_to=4, **THRICE),
    "group_widths": simple(
        group_widths={"field_fine.mlp_base.layers.[0-2]": 6, "field_coarse.mlp_head.layers.1": 3}, **AT_3
    ),
    "width-head_width": simple(width=10, head_width=5, **AT_3),
    "own-targets": simple(
        coarse=field_target(width=6), fine=field_target(pruning_ratio=0.25), strategy="importance", **AT_3
    ),
    "own-target-beside-common": simple(pruning_ratio=0.5, coarse=field_target(pruning_ratio=0.0), **AT_3),
    "auto-start": simple(steps=14, auto_start=50.0, schedule="iterative", num_events=2, start_step=9, stop_step=12),
    "failed-event": failing(on_error="continue", schedule="iterative", num_events=2, start_step=5, stop_step=8),
    # Edges.
    "edge-keep": simple(edge_keep_fraction=0.3, **EDGE),
    "edge-global": simple(edge_keep_fraction=0.4, edge_scope="global", **EDGE),
    "edge-threshold": simple(edge_threshold=0.1, **EDGE),
    # Before and after an event.
    "shrink": simple(strategy="importance", score="w_out", start_step=6, shrink_steps=3, shrink_weight=0.5),
    "shrink-budget": simple(**OURS, target_parameters=0.4, start_step=6, shrink_steps=4),
    "retrain": simple(decay=True, recovery="retrain", **TWICE),
    "rewind": simple(decay=True, recovery="rewind", rewind_step=1, **TWICE),
    "scratch": simple(recovery="scratch", **TWICE),
    "recovery_lr": simple(decay=True, recovery_lr=2e-3, **AT_3),
    "recovery_lr-decay": simple(decay=True, recovery_lr=2e-3, recovery_decay=4, recovery_lr_factor=1.5, **AT_3),
    "recovery_lr_factor": simple(decay=True, recovery_lr_factor=3.0, schedule="cubic", **THRICE),
    "warm-up": simple(recovery_warm_up=3, recovery_lr_factor=2.0, **AT_3),
    "teacher-points": simple(teacher=teacher(steps=4, point_weight=2.0), **AT_3),
    "teacher-rendered": simple(teacher=teacher(steps=5, **RENDERED), **TWICE),
    # Presets and methods.
    "best": simple(preset="best", **AT_3),
    "fast": simple(preset="fast", **AT_3),
    "tiny": simple(preset="tiny", start_step=1, stop_step=8),
    "demo-method": simple(method="nerf-prune-demo", preset="best", **AT_3),
    "real-method": simple(method="nerf-prune-real", preset="best", **AT_3),
    # Runs that are cut off.
    "resumed": resumed({}, **TWICE),
    "resumed-edges": resumed({}, strategy="edge", edge_keep_fraction=0.3, **TWICE),
    "resumed-rewind": resumed({}, recovery="rewind", rewind_step=1, **TWICE),
    "resumed-given-again": resumed(
        {"strategy": "importance", "score": "w_out", "pruning_ratio": 0.75, "refit": "merge"}, **TWICE
    ),
    "resumed-budget-given-again": resumed({"target_parameters": 0.2}, preset="best", **TWICE),
    "resumed-retarget": resumed(
        {}, {4: by_hand(0.75, name="retarget", strategy="importance", score="w_in", recovery_lr_factor=1.5)}, **TWICE
    ),
    # By hand.
    "hand": steered(
        {
            3: by_hand(0.25),
            6: by_hand(0.3, "target_parameters", strategy="obs", refit="lstsq", recovery_lr_factor=2.0),
        },
        strategy="none",
    ),
    "hand-undo": steered({4: by_hand(0.5), 7: UNDO}, strategy="none", teacher=teacher(steps=3)),
    "hand-beside-plan": steered({5: by_hand(0.4), 7: UNDO}, **{**TWICE, "stop_step": 10}),
    "undo-planned": steered({5: UNDO}, **OURS, target_macs=0.3, **TWICE),
    "undo-edges": steered({6: UNDO}, edge_keep_fraction=0.3, **EDGE),
    "undo-rewind": steered({6: UNDO, 10: UNDO}, recovery="rewind", rewind_step=1, **TWICE),
    "retarget-budget": steered(
        {4: by_hand(0.3, "target_macs", "retarget", strategy="obs", refit="lstsq", recovery_lr_factor=1.5)},
        **{**THRICE, "stop_step": 10},
        schedule="cubic",
    ),
    "paused": steered({}, {4: True, 9: False}, schedule="iterative", **THRICE),
}
"""Name -> run."""
