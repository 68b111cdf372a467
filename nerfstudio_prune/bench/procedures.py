"""Ways to prune besides the method's own controller, carried out once on a live trainer."""

from collections.abc import Callable
from typing import Any

import torch
from nerfstudio.engine.trainer import Trainer

from nerfstudio_prune.bench.machine import wall_clock
from nerfstudio_prune.bench.peers import mask_neurons, torch_prune_keeps, torch_pruning
from nerfstudio_prune.bench.suites import Run
from nerfstudio_prune.core.optimizer_state import check_optimizers
from nerfstudio_prune.engine.host import generators_kept
from nerfstudio_prune.nerf.subject import NeuronSubject
from nerfstudio_prune.neurons.pruner import prepare_pruning

GRADIENT_BATCHES = 16
"""Training batches behind the gradients of criterion `taylor`; a single one is mostly noise."""

Procedure = Callable[[Trainer, Run], dict[str, Any]]
"""Prunes the network of a trainer; gives `seconds` and other notes for the record."""


def mask(trainer: Trainer, run: Run) -> dict[str, Any]:
    """Masks the neurons that the method's own strategy would have removed."""
    pipeline: Any = trainer.pipeline
    model, options = pipeline.model, pipeline.config.prune.filled()
    options.strategy, options.score, options.pruning_ratio = run.strategy, run.score, run.pruning_ratio
    recipe, subject = options.resolve(), NeuronSubject(model, pipeline.calibrate)
    now = wall_clock(model.device)
    start = now()
    seed = pipeline.controller.run.event_seed(trainer.step)
    selections = subject.select(recipe, subject.targets(recipe), subject.gather(recipe, seed), seed)
    mask_neurons(model, {name: selection.keep for name, selection in selections.items()})
    return {"seconds": now() - start, "kept": _counts(selections)}


def torch_prune(trainer: Trainer, run: Run) -> dict[str, Any]:
    """Masks by `torch.nn.utils.prune.ln_structured`."""
    model: Any = trainer.pipeline.model
    assert run.score is not None and run.pruning_ratio is not None
    now = wall_clock(model.device)
    start = now()
    keeps = torch_prune_keeps(model, 1 if run.score == "l1" else 2, run.pruning_ratio)
    mask_neurons(model, keeps)
    return {"seconds": now() - start, "kept": {name: len(keep) for name, keep in keeps.items()}}


def prune_with_torch_pruning(trainer: Trainer, run: Run) -> dict[str, Any]:
    """Removes what Torch-Pruning chose. The optimizer's moments are sliced as for this project's own strategies, so
    that only the choice differs."""
    model: Any = trainer.pipeline.model
    assert run.score is not None and run.pruning_ratio is not None
    seconds = _collect_gradients(trainer, GRADIENT_BATCHES) if run.score == "taylor" else 0.0
    peer = torch_pruning(model, run.score, run.pruning_ratio, run.seed)
    if not peer.notes["surgery_agrees"]:
        raise RuntimeError(f"Torch-Pruning {run.score}: its smaller network is not the one without those neurons")
    optimizers = trainer.optimizers
    pruning = prepare_pruning(
        model.neuron_groups(), peer.selections, "continue", optimizers.optimizers, optimizers.parameters, run.seed
    )
    pruning.apply()
    model.sync_widths()
    check_optimizers(optimizers.optimizers, optimizers.parameters, model.get_param_groups())
    # The controller's clock would go on with the steps of the dense network.
    pipeline: Any = trainer.pipeline
    pipeline.controller._step_seconds.clear()
    return {**peer.notes, "seconds": peer.seconds + seconds, "kept": _counts(peer.selections)}


def _collect_gradients(trainer: Trainer, batches: int) -> float:
    """Sums the gradients of the training loss over fresh batches; random state as before. Gives the seconds spent."""
    pipeline: Any = trainer.pipeline
    now = wall_clock(pipeline.model.device)
    start = now()
    with generators_kept(pipeline.model.device):
        trainer.optimizers.zero_grad_all()
        for _ in range(batches):
            _, losses, _ = pipeline.get_train_loss_dict(trainer.step)
            torch.stack(list(losses.values())).sum().backward()
    return now() - start


def _counts(selections: Any) -> dict[str, int]:
    return {name: len(selection.keep) for name, selection in selections.items()}


PROCEDURES: dict[str, Procedure] = {
    "mask": mask,
    "torch-prune": torch_prune,
    "torch-pruning": prune_with_torch_pruning,
}
"""Name -> procedure."""
