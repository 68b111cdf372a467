"""The network from before an event: kept apart from everything, and brought back bit for bit."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import pytest
import torch
from nerfstudio.engine.optimizers import AdamOptimizerConfig, OptimizerConfig, Optimizers, RAdamOptimizerConfig
from support.fakes import uncalibrated
from support.tiny_run import (
    before_each_step,
    copied_state,
    form_values,
    rays,
    same_bits,
    start,
    tiny_model,
    tiny_widths,
    widths,
)

from nerfstudio_prune.core.curve import TrainingCurve
from nerfstudio_prune.core.events import PruneEvent, ScheduledEvent
from nerfstudio_prune.core.optimizer_state import check_optimizers
from nerfstudio_prune.core.subject import Subject
from nerfstudio_prune.engine.snapshots import NetworkSnapshot, copied
from nerfstudio_prune.nerf.config import PruneConfig
from nerfstudio_prune.nerf.layouts import fields_of
from nerfstudio_prune.nerf.model import PruneModel
from nerfstudio_prune.nerf.subject import subject_of

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

    def subject(self, strategy: str = "coreset") -> Subject[Any]:
        """What is pruned."""
        return subject_of(strategy, self.model, uncalibrated)

    def cut(self, step: int = 3, **options: Any) -> None:
        """An event, as the controller carries it out."""
        recipe = PruneConfig(preset="paper", min_width=2, **options).resolve()
        subject, state = self.subject(recipe.strategy), self.model.prune_state
        event = ScheduledEvent(step, Fraction(1), subject.targets(recipe))
        subject.prepare(recipe, event, None, self.optimizers, 5).apply()
        state.history = [*state.history, PruneEvent(step, None, recipe.strategy, recipe.recovery)]

    def remember(self) -> None:
        """Keeps the weights for a rewind."""
        self.model.prune_state.rewind_snapshot = copied(self.subject().parameters())

    def kept(self) -> NetworkSnapshot:
        return NetworkSnapshot(self.subject(), self.optimizers)

    def restore(self, kept: NetworkSnapshot) -> None:
        kept.restore(self.subject(), self.optimizers)

    def bits(self) -> Any:
        """Weights, masks, snapshot, history, and all that the optimizer knows, out of the reach of later changes."""
        saved = deepcopy(self.optimizers.optimizers["fields"].state_dict())
        return copied_state(self.model), dict(sorted(saved["state"].items())), saved["param_groups"]

    def notes(self) -> list[int]:
        """What layers and fields note of their widths."""
        found = []
        for nerf_field in self.model.fields().values():
            for layer in nerf_field.modules():
                found += [layer.in_features, layer.out_features] if isinstance(layer, torch.nn.Linear) else []
            base, head = nerf_field.mlp_base, nerf_field.mlp_head
            found += [base.out_dim, head.in_dim, head.out_dim, nerf_field.field_output_density.in_dim]
            found.append(nerf_field.field_heads[0].in_dim)
        return found

    def check(self) -> None:
        """The invariant of docs/design.md: optimizer, clipping list and model hold the same tensors."""
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
        one.remember()
        one.learn(3)
    before, notes, kept = run.bits(), run.notes(), run.kept()
    run.cut(**CUTS[cut])
    run.learn(4, 5)
    run.cut(step=5, strategy="uniform", pruning_ratio=0.75)
    assert not same_bits(run.bits(), before)
    run.restore(kept)
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
    run.remember()
    run.cut(**CUTS["edge"])
    run.cut(strategy="coreset", pruning_ratio=0.25)
    run.learn(2, 3)
    before, kept = run.bits(), run.kept()
    run.cut(strategy="coreset", pruning_ratio=0.75)
    run.learn(4)
    assert widths(run.model) == tiny_widths(4, 2)
    run.restore(kept)
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
    run.restore(kept)
    assert same_bits(run.bits(), before)
    assert len(run.optimizers.optimizers["fields"].state) == 0


def test_frozen_parameters_stay_frozen() -> None:
    """Whoever trains the heads alone must not find the trunk in training after an undo."""
    run = new_run()
    run.model.field_fine.mlp_base.requires_grad_(False)
    run.learn(1)
    kept = run.kept()
    run.cut(**CUTS["coreset"])
    run.restore(kept)
    frozen = [name for name, p in run.model.named_parameters() if not p.requires_grad]
    assert frozen == [f"field_fine.mlp_base.layers.{i}.{kind}" for i in range(5) for kind in ("weight", "bias")]


def test_kept_network_is_a_copy_of_its_own() -> None:
    """A tensor that it shared with the network would be trained along, before an undo or after it."""
    run = new_run()
    run.learn(1)
    kept = run.kept()
    before = {name: copied_state(field) for name, field in fields_of(kept.subject.model).items()}
    run.learn(2)
    run.restore(kept)
    own = {p.data_ptr() for field in fields_of(kept.subject.model).values() for p in field.parameters()}
    assert own.isdisjoint(p.data_ptr() for p in run.model.parameters())
    run.learn(3)
    assert same_bits({name: copied_state(field) for name, field in fields_of(kept.subject.model).items()}, before)
    assert {p.device.type for field in fields_of(kept.subject.model).values() for p in field.parameters()} == {"cpu"}


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
        run.restore(kept)
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
    view = kept.view(run.model.device)
    present = rendered(run.model)
    assert same_bits(rendered(view), before) and not same_bits(present, before)
    run.learn(5, 6)
    run.model.eval()
    assert kept.view(run.model.device) is view
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
            rendered(kept.view(one.model.device))
        one.learn(2)
        if one is run:
            rendered(kept.view(one.model.device))
        one.learn(3)
    assert same_bits(run.bits(), twin.bits())


def test_other_fields_leave_the_model_alone() -> None:
    """`with_fields` is given networks that are being looked at while the model trains: neither its fields nor their
    modes nor its own may change, whatever the other one is switched to, and neither may know the other's weights."""
    run = new_run()
    model = run.model.train()
    fields = model.fields()
    other = model.with_fields({name: deepcopy(field).train() for name, field in fields.items()})
    modes = {name: {m.training for m in field.modules()} for name, field in model.fields().items()}
    assert modes == {"field_coarse": {True}, "field_fine": {True}} and model.training
    assert not other.training
    assert {m.training for field in other.fields().values() for m in field.modules()} == {False}
    other.field_fine.train()
    other.field_fine = deepcopy(other.field_fine)
    assert model.fields() == fields
    model.train()
    assert not other.field_coarse.training and not other.training
    own = {id(p) for field in model.fields().values() for p in field.parameters()}
    assert own.isdisjoint(id(p) for field in other.fields().values() for p in field.parameters())
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
        cut = form_values("coreset", None, "none", "pruning_ratio", 0.5)

        def ask(step: int, steering: Any = steering, cut: dict[str, Any] = cut) -> None:
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
        kept = controller.snapshot
        assert (kept is not None) == (name == "watched")
        if kept is not None:
            hidden = {id(p) for field in fields_of(kept.subject.model).values() for p in field.parameters()}
            optimizer = trainer.optimizers.optimizers["fields"]
            trained = [p for group in optimizer.param_groups for p in group["params"]]
            assert len(hidden) == 36 == len(trained) == len(optimizer.state)
            assert hidden.isdisjoint(id(p) for p in [*trained, *optimizer.state, *trainer.pipeline.parameters()])
            assert all(p.grad is None for field in fields_of(kept.subject.model).values() for p in field.parameters())
    assert found["watched"] == found["alone"]
    assert sizes["watched"] == pytest.approx(sizes["alone"], abs=500)
