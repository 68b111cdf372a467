"""The network from before an event: kept apart from everything, and brought back bit for bit."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from nerfstudio.engine.optimizers import AdamOptimizerConfig, OptimizerConfig, Optimizers, RAdamOptimizerConfig
from support.tiny_run import before_each_step, copied_state, rays, same_bits, start, tiny_model, tiny_widths, widths

from nerfstudio_prune.core.curve import TrainingCurve
from nerfstudio_prune.core.events import PruneEvent
from nerfstudio_prune.core.optimizer_state import check_optimizers
from nerfstudio_prune.engine.snapshots import KeptNetwork
from nerfstudio_prune.nerf.choosing import plan_event, whole_cut, widths_at
from nerfstudio_prune.nerf.config import FilledPruneConfig
from nerfstudio_prune.nerf.cut import Cut
from nerfstudio_prune.nerf.model import FIELDS, PruneModel
from nerfstudio_prune.neurons.pruner import named_parameters
from nerfstudio_prune.neurons.recovery import snapshot

Config = Callable[..., Any]


class SgdConfig(OptimizerConfig):
    """Momentum without a step counter."""

    def setup(self, params: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(params, lr=1e-2, momentum=0.9)


class AmsgradConfig(OptimizerConfig):
    """A third moment."""

    def setup(self, params: Any) -> torch.optim.Optimizer:
        return torch.optim.Adam(params, lr=1e-3, amsgrad=True)


OPTIMIZERS: dict[str, OptimizerConfig] = {
    "RAdam": RAdamOptimizerConfig(lr=1e-3),
    "Adam": AdamOptimizerConfig(lr=1e-3),
    "SGD with momentum": SgdConfig(lr=1e-2),
    "AMSGrad": AmsgradConfig(lr=1e-3),
}
CUTS: dict[str, dict[str, Any]] = {
    "coreset": {"strategy": "coreset"},
    "mussay": {"strategy": "coreset", "coreset_variant": "mussay"},
    "merge": {"strategy": "importance", "refit": "merge"},
    "retrain": {"strategy": "uniform", "recovery": "retrain"},
    "scratch": {"strategy": "uniform", "recovery": "scratch"},
    "rewind": {"strategy": "uniform", "recovery": "rewind"},
    "edge": {"strategy": "edge", "edge_keep_fraction": 0.25},
    "fine only": {"strategy": "coreset", "groups": ("field_fine.*",)},
}


@dataclass
class Run:
    """A model in training, without a trainer."""

    model: PruneModel
    optimizers: Optimizers

    def learn(self, *seeds: int) -> None:
        """A training step for each seed, on its own rays and with its own jitter."""
        self.model.train()
        for seed in seeds:
            torch.manual_seed(seed)
            outputs = self.model(rays(16, seed=seed))
            target = torch.tensor([0.9, 0.5, 0.1])
            self.optimizers.zero_grad_all()
            losses = [(outputs[name] - target).square().mean() for name in ("rgb_coarse", "rgb_fine")]
            torch.stack(losses).sum().backward()
            self.optimizers.optimizer_step_all()

    def cut(self, step: int = 3, **options: Any) -> None:
        """An event, as the controller carries it out."""
        model, state = self.model, self.model.prune_state
        config = FilledPruneConfig(preset="paper", min_width=2, **options)
        aim = whole_cut(config, model, step)
        pruning = plan_event(config, model, self.optimizers, aim, widths_at(config, model, aim, None), None, 5)
        pruning.apply()
        model.sync_widths()
        state.edge_masks, state.rewind_snapshot = pruning.masks, pruning.snapshot
        state.history.append(PruneEvent(step, None, config.strategy, config.recovery))

    def kept(self) -> KeptNetwork:
        return KeptNetwork(self.model, self.optimizers)

    def bits(self) -> Any:
        """Weights, masks, snapshot, history, and all that the optimizer knows, out of the reach of later changes."""
        saved = deepcopy(self.optimizers.optimizers["fields"].state_dict())
        return copied_state(self.model), dict(sorted(saved["state"].items())), saved["param_groups"]

    def notes(self) -> list[int]:
        """What layers and fields note of their widths."""
        found = []
        for name in FIELDS:
            nerf_field = getattr(self.model, name)
            for layer in nerf_field.modules():
                found += [layer.in_features, layer.out_features] if isinstance(layer, torch.nn.Linear) else []
            base, head = nerf_field.mlp_base, nerf_field.mlp_head
            found += [base.out_dim, head.in_dim, head.out_dim, nerf_field.field_output_density.in_dim]
            found.append(nerf_field.field_heads[0].in_dim)
        return found

    def check(self) -> None:
        """The invariant of docs/design.md."""
        optimizers = self.optimizers
        check_optimizers(optimizers.optimizers, optimizers.parameters, self.model.get_param_groups())


def new_run(optimizer: str = "RAdam") -> Run:
    """The same network for every call."""
    torch.manual_seed(0)
    model = tiny_model()
    model.prune_state.initial_sizes = tiny_widths(16, 8)
    config = {"fields": {"optimizer": OPTIMIZERS[optimizer], "scheduler": None}}
    return Run(model, Optimizers(config, model.get_param_groups()))


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_everything_comes_back(optimizer: str, cut: str) -> None:
    """Undo is a promise: nobody tries a hard cut on a network that took a night if it may not come back exactly. What
    came in between, a cut, steps, another cut, leaves no trace in weights, moments, counters, masks, snapshot or
    history, and the next step is the one of a twin that was never cut."""
    run, twin = new_run(optimizer), new_run(optimizer)
    run.learn(1, 2)
    twin.learn(1, 2)
    for one in (run, twin):
        one.model.prune_state.rewind_snapshot = snapshot(named_parameters(one.model.neuron_groups()))
        one.learn(3)
    before, notes, kept = run.bits(), run.notes(), run.kept()
    run.cut(**CUTS[cut])
    run.learn(4, 5)
    run.cut(step=5, strategy="uniform", pruning_ratio=0.75)
    assert not same_bits(run.bits(), before)
    kept.restore(run.model, run.optimizers)
    assert same_bits(run.bits(), before)
    assert run.notes() == notes and widths(run.model) == tiny_widths(16, 8)
    run.check()
    run.learn(6, 7)
    twin.learn(6, 7)
    assert same_bits(run.bits(), twin.bits())
    run.check()


def test_cut_network_comes_back() -> None:
    """The second event is the one that goes too far more often than the first: what is kept may itself be cut, masked
    and have a history and moments that were cut along."""
    run = new_run()
    run.learn(1)
    run.model.prune_state.rewind_snapshot = snapshot(named_parameters(run.model.neuron_groups()))
    run.cut(**CUTS["edge"])
    run.cut(strategy="coreset", pruning_ratio=0.25)
    run.learn(2, 3)
    before, kept = run.bits(), run.kept()
    run.cut(strategy="coreset", pruning_ratio=0.75)
    run.learn(4)
    assert widths(run.model) == tiny_widths(4, 2)
    kept.restore(run.model, run.optimizers)
    assert same_bits(run.bits(), before) and widths(run.model) == tiny_widths(12, 6)
    assert [event.strategy for event in run.model.prune_state.history] == ["edge", "coreset"]
    run.check()


def test_network_without_moments_comes_back() -> None:
    """Before the first step an optimizer knows nothing of a parameter, and must know nothing again: invented zeros with
    a counter would change the first steps of RAdam."""
    run = new_run()
    before, kept = run.bits(), run.kept()
    run.cut(**CUTS["coreset"])
    run.learn(1)
    kept.restore(run.model, run.optimizers)
    assert same_bits(run.bits(), before)
    assert len(run.optimizers.optimizers["fields"].state) == 0


def test_frozen_parameters_stay_frozen() -> None:
    """Whoever trains the heads alone must not find the trunk in training after an undo."""
    run = new_run()
    run.model.field_fine.mlp_base.requires_grad_(False)
    run.learn(1)
    kept = run.kept()
    run.cut(**CUTS["coreset"])
    kept.restore(run.model, run.optimizers)
    frozen = [name for name, p in run.model.named_parameters() if not p.requires_grad]
    assert frozen == [f"field_fine.mlp_base.layers.{i}.{kind}" for i in range(5) for kind in ("weight", "bias")]


def test_kept_network_is_a_copy_of_its_own() -> None:
    """A tensor that it shared with the network would be trained along, before an undo or after it."""
    run = new_run()
    run.learn(1)
    kept = run.kept()
    before = {name: copied_state(field) for name, field in kept.fields.items()}
    run.learn(2)
    kept.restore(run.model, run.optimizers)
    own = {p.data_ptr() for field in kept.fields.values() for p in field.parameters()}
    assert own.isdisjoint(p.data_ptr() for p in run.model.parameters())
    run.learn(3)
    assert same_bits({name: copied_state(field) for name, field in kept.fields.items()}, before)
    assert {p.device.type for field in kept.fields.values() for p in field.parameters()} == {"cpu"}


@pytest.mark.parametrize("listed", ["group of the optimizer", "optimizer"])
def test_restored_all_or_nothing(listed: str) -> None:
    """An optimizer that lost a parameter on the way cannot train the old network. Half of it back would be worse than
    none: a network of two sizes that fails at the next step."""
    run = new_run()
    run.learn(1)
    kept = run.kept()
    run.cut(**CUTS["coreset"])
    run.learn(2)
    optimizer = run.optimizers.optimizers["fields"]
    if listed == "optimizer":
        run.optimizers.optimizers["fields"] = torch.optim.SGD([torch.zeros(1, requires_grad=True)])
    else:
        del optimizer.param_groups[0]["params"][20]
    model, knows = copied_state(run.model), {id(p) for p in optimizer.state}
    tensors = [id(p) for p in run.model.parameters()]
    with pytest.raises(ValueError, match="is in none of the optimizers"):
        kept.restore(run.model, run.optimizers)
    assert same_bits(copied_state(run.model), model)
    assert [id(p) for p in run.model.parameters()] == tensors and {id(p) for p in optimizer.state} == knows


def rendered(model: PruneModel) -> dict[str, torch.Tensor]:
    """Outputs of an evaluation."""
    model.eval()
    with torch.no_grad():
        return dict(model(rays(50, seed=9)))


@pytest.mark.parametrize("cut", ["coreset", "edge", "scratch"])
def test_view_shows_what_was(cut: str) -> None:
    """The picture beside the present one is what people judge a cut by; it must be that of the network from before, to
    the bit, for as long as it is shown."""
    run = new_run()
    run.learn(1, 2, 3)
    before, kept = rendered(run.model), run.kept()
    run.cut(**CUTS[cut])
    run.learn(4)
    view = kept.view(run.model)
    present = rendered(run.model)
    assert same_bits(rendered(view), before) and not same_bits(present, before)
    run.learn(5, 6)
    run.model.eval()
    assert kept.view(run.model) is view
    assert same_bits(rendered(view), before)


def test_looking_changes_no_step() -> None:
    """Rendering happens between two steps, many times a second. The run of a person who looks on has to be that of one
    who does not."""
    run, twin = new_run(), new_run()
    for one in (run, twin):
        one.learn(1)
        kept = one.kept()
        one.cut(**CUTS["coreset"])
        if one is run:
            rendered(kept.view(one.model))
        one.learn(2)
        if one is run:
            rendered(kept.view(one.model))
        one.learn(3)
    assert same_bits(run.bits(), twin.bits())


def test_other_fields_leave_the_model_alone() -> None:
    """`with_fields` is given networks that are being looked at while the model trains: neither its fields nor their
    modes nor its own may change, whatever the other one is switched to, and neither may know the other's weights."""
    run = new_run()
    model = run.model.train()
    fields = {name: getattr(model, name) for name in FIELDS}
    other = model.with_fields({name: deepcopy(field).train() for name, field in fields.items()})
    modes = {name: {m.training for m in getattr(model, name).modules()} for name in FIELDS}
    assert modes == {name: {True} for name in FIELDS} and model.training
    assert not other.training
    assert {m.training for name in FIELDS for m in getattr(other, name).modules()} == {False}
    other.field_fine.train()
    other.field_fine = deepcopy(other.field_fine)
    assert {name: getattr(model, name) for name in FIELDS} == fields
    model.train()
    assert not other.field_coarse.training and not other.training
    own = {id(p) for name in FIELDS for p in getattr(model, name).parameters()}
    assert own.isdisjoint(id(p) for name in FIELDS for p in getattr(other, name).parameters())
    assert {id(p) for p in model.parameters()} >= own and isinstance(other, PruneModel)


def test_kept_network_trains_and_saves_nowhere(tiny_config: Config) -> None:
    """A second network in the checkpoint would double the file that pruning is to make small, and one in the optimizer
    would be trained. The checkpoint of a run that somebody looks on at has the keys, shapes and size of the other."""
    found: dict[str, Any] = {}
    sizes: dict[str, int] = {}
    for name in ("watched", "alone"):
        trainer = start(tiny_config(name, strategy="none"))
        controller, steering = trainer.pipeline.controller, trainer.pipeline.steering
        if name == "watched":
            controller._watched, controller.curve = True, TrainingCurve()
        cut = Cut("coreset", None, "none", "pruning_ratio", 0.5)

        def ask(step: int, steering: Any = steering, cut: Cut = cut) -> None:
            if step == 4:
                steering.request("prune", cut)

        before_each_step(trainer, ask)
        trainer.train()
        path = trainer.checkpoint_dir / "step-000000009.ckpt"
        saved = torch.load(path)
        extra = saved["pipeline"].pop("_model._extra_state")
        shapes = {key: tuple(value.shape) for key, value in saved["pipeline"].items()}
        found[name] = (shapes, sorted(extra), list(saved["optimizers"]["fields"]["state"]))
        sizes[name] = path.stat().st_size
        kept = controller.kept
        assert (kept is not None) == (name == "watched")
        if kept is not None:
            hidden = {id(p) for field in kept.fields.values() for p in field.parameters()}
            optimizer = trainer.optimizers.optimizers["fields"]
            trained = [p for group in optimizer.param_groups for p in group["params"]]
            assert len(hidden) == 36 == len(trained) == len(optimizer.state)
            assert hidden.isdisjoint(id(p) for p in [*trained, *optimizer.state, *trainer.pipeline.parameters()])
            assert all(p.grad is None for field in kept.fields.values() for p in field.parameters())
    assert found["watched"] == found["alone"]
    assert sizes["watched"] == pytest.approx(sizes["alone"], abs=500)
