"""Loading Gaussians: any number into any number, and nothing changed when something is wrong."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
from support.stock_splats import StockTraining
from support.tiny_run import copied_state, same_bits, start, train
from support.tiny_splats import NAMES, tiny_model

from nerfstudio_prune.core.events import PruneEvent, ScheduledEvent, Sizes
from nerfstudio_prune.engine.checkpoints import CheckpointError
from nerfstudio_prune.splats.checkpoint import checked_state
from nerfstudio_prune.splats.model import SplatPruneModel

Config = Callable[..., Any]
COUNT = 12


def sizes(count: int, degree: int) -> Sizes:
    return Sizes({"gaussians": count, "sh_degree": degree}, {"gaussians": count, "parameters": 1, "bytes": 1})


def pruned_state() -> dict[str, Any]:
    """Checkpoint of a model of twelve Gaussians of degree 1 that went through a cut and has another one to come."""
    torch.manual_seed(1)
    model = tiny_model(COUNT, sh_degree=1)
    cut = ScheduledEvent(3, Fraction(1, 2))
    events = [
        PruneEvent(3, cut, "rank", "continue", before=sizes(30, 3), after=sizes(COUNT, 3)),
        PruneEvent(4, None, "rank", "continue", before=sizes(COUNT, 3), after=sizes(COUNT, 1)),
    ]
    model.prune_state.initial_sizes = {"gaussians": 20, "sh_degree": 3}
    model.prune_state.plan = [cut, ScheduledEvent(7, Fraction(1), index=1)]
    model.prune_state.history = events
    return copied_state(model)


def test_resizes_in_place() -> None:
    """The host builds optimizers before it loads: parameters stay the same objects while their sizes change, and so do
    their gradients' shapes. In the host they are new ones, which no optimizer knows."""
    saved, model = pruned_state(), tiny_model(50)
    before = dict(model.named_parameters())
    optimizers = {name: torch.optim.Adam(params) for name, params in model.get_param_groups().items()}
    model.load_state_dict(saved)
    after = dict(model.named_parameters())
    assert list(before) == list(after) and all(before[name] is after[name] for name in before)
    assert model.num_points == COUNT and model.gaussians.sh_degree == 1
    assert same_bits(copied_state(model), saved)
    torch.stack([parameter.square().sum() for parameter in model.gauss_params.values()]).sum().backward()
    for optimizer in optimizers.values():
        optimizer.step()


def test_grows_again() -> None:
    """Back to an earlier, unpruned step with `--load-step`: loading works in both directions."""
    saved, model = copied_state(tiny_model(50)), tiny_model(10, sh_degree=2)
    model.load_state_dict(saved)
    assert model.num_points == 50 and same_bits(copied_state(model), saved)


def test_notes_of_the_densification_do_not_survive(stock_lpips: None) -> None:
    """They are of other Gaussians; in the host the next step of the densification indexes out of bounds (#3554)."""
    model = tiny_model(50)
    model.strategy_state.update({name: torch.zeros(50) for name in ("grad2d", "count", "radii")})
    model.load_state_dict(pruned_state())
    assert model.running == {}


def test_loaded_model_shows_all_of_its_degrees(stock_lpips: None) -> None:
    """In evaluation the host counts on step 30000; a model that was only just built shows the constant colour alone."""
    model = tiny_model(50)
    assert model.active_sh_degree() == 0
    model.load_state_dict(copied_state(tiny_model(20)))
    assert model.active_sh_degree() == 3


Change = Callable[[dict[str, Any]], Any]


def put(name: str, change: Callable[[Any], Any]) -> Change:
    key = f"gauss_params.{name}"
    return lambda state: state.__setitem__(key, change(state[key]))


def value(name: str, at: tuple[int, ...], number: float) -> Change:
    return lambda state: state[f"gauss_params.{name}"].__setitem__(at, number)


def extra(*path: Any, to: Any) -> Change:
    """Puts a value into the pruning state."""

    def change(state: dict[str, Any]) -> None:
        place = state["_extra_state"]
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = to

    return change


BAD: dict[str, tuple[Change, str]] = {
    "fewer scales": (
        put("scales", lambda t: t[:-1].clone()),
        r"gauss_params.scales has shape \(11, 3\), expected \(12, 3\): all tensors must be of the same 12 Gaussians",
    ),
    "more means": (
        put("means", lambda t: torch.cat([t, t])),
        r"gauss_params.scales has shape \(12, 3\), expected \(24, 3\)",
    ),
    "no Gaussians": (put("means", lambda t: t[:0].clone()), r"gauss_params.means has shape \(0, 3\), expected \(at le"),
    "a scalar": (put("means", lambda t: t.sum().clone()), r"gauss_params.means has shape \(\), expected \(at least 1"),
    "flat coefficients": (
        put("features_rest", lambda t: t.flatten(1).clone()),
        r"gauss_params.features_rest has shape \(12, 9\), expected \(12, one of 0, 3, 8, 15, 3\)",
    ),
    "five coefficients": (
        put("features_rest", lambda t: torch.zeros(12, 5, 3)),
        r"gauss_params.features_rest has shape \(12, 5, 3\), expected \(12, one of 0, 3, 8, 15, 3\)",
    ),
    "degree 4": (
        put("features_rest", lambda t: torch.zeros(12, 24, 3)),
        r"has shape \(12, 24, 3\), expected \(12, ",
    ),
    "quaternions of three": (
        put("quats", lambda t: t[:, :3].clone()),
        r"has shape \(12, 3\), expected \(12, 4\)",
    ),
    "flat opacities": (put("opacities", lambda t: t[:, 0].clone()), r"opacities has shape \(12,\), expected \(12, 1\)"),
    "NaN": (value("opacities", (3, 0), float("nan")), r"gauss_params.opacities: 1 of 12 values are not finite"),
    "infinity": (value("scales", (5, 2), float("inf")), r"gauss_params.scales: 1 of 36 values are not finite"),
    "whole numbers": (
        put("means", lambda t: t.long()),
        r"gauss_params.means: expected .*, got torch.int64",
    ),
    "no tensor": (put("means", lambda t: t.tolist()), r"gauss_params.means: expected a tensor, got list"),
    "sparse": (put("means", lambda t: t.to_sparse()), r"gauss_params.means: expected a dense tensor"),
    "missing": (
        lambda s: s.pop("gauss_params.quats"),
        r"not one of this model: 1 missing entries \(gauss_params.q",
    ),
    "foreign": (
        lambda s: s.update({"field.mlp.weight": torch.zeros(2)}),
        r"1 unknown entries \(field.mlp.weight\). It must come from splat-prune or splatfacto with the same "
        r"model.camera-optimizer.mode",
    ),
    "camera optimizer": (
        lambda s: s.update({"camera_optimizer.pose_adjustment": torch.zeros(4, 6)}),
        r"unknown entries \(camera_optimizer.pose_adjustment\)",
    ),
    "more than its memory": (
        put("scales", lambda t: torch.zeros(1).expand(12, 3)),
        r"gauss_params.scales",
    ),
    "later version": (extra("format_version", to=99), r"format version 99, this version of nerfstudio-prune reads up"),
    "sizes of neurons": (
        extra("initial_sizes", to={"field_fine.mlp_base.layers.0": 8}),
        r"pruning state has sizes of field_fine.mlp_base.layers.0; expected those of gaussians and sh_degree",
    ),
    "a degree that rose": (
        extra("initial_sizes", "sh_degree", to=0),
        r"spherical harmonics were of degree 0 at first, and they are of degree 1",
    ),
    "another number": (
        extra("history", -1, "after", "parts", "gaussians", to=7),
        r"the checkpoint's last event left 7 Gaussians, and there are 12",
    ),
    "another degree": (
        extra("history", -1, "after", "parts", "sh_degree", to=2),
        r"the checkpoint's last event left spherical harmonics of degree 2, and they are of degree 1",
    ),
    "event without sizes": (
        extra("history", 0, "before", "parts", to={}),
        r"the checkpoint's event at step 3 has sizes of nothing; expected those of gaussians and sh_degree",
    ),
    "foreign target": (
        extra("plan", 1, "targets", to={"field_fine": 3}),
        r"the checkpoint's plan at step 7 has a target for field_fine",
    ),
    "a degree to come that is none": (
        extra("plan", 1, "targets", to={"sh_degree": 7}),
        r"the checkpoint's plan at step 7 has a target of 7 for sh_degree",
    ),
    "masks": (
        extra("masks", to={"gauss_params.means": torch.ones(2, dtype=torch.bool)}),
        r"has a mask of gauss",
    ),
    "snapshot": (extra("rewind_snapshot", to={"a": torch.ones(2)}), r"has a rewind snapshot of a; Gaussians have none"),
    "options": (
        extra("options", to={"strategy": "coreset"}),
        r"the checkpoint's pruning options: prune.strategy must be one of rank, merge, random, none, got 'coreset'",
    ),
    "options given": (extra("given", to={"rounds": "many"}), r"pruning options: prune.rounds must be a whole number"),
    "no state": (extra("plan", to="soon"), r"pruning state in the checkpoint cannot be read: plan"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_checkpoint_changes_nothing(what: str) -> None:
    """The host swallows a RuntimeError and tries again less strictly, which leaves half of a model; here all is checked
    before anything changes, and what does not fit is named."""
    change, message = BAD[what]
    state, model = pruned_state(), tiny_model(10, sh_degree=2)
    before = copied_state(model)
    change(state)
    with pytest.raises(ValueError, match=message):
        model.load_state_dict(state)
    assert same_bits(copied_state(model), before)
    with pytest.raises(ValueError, match=message):
        checked_state(model, state)


@pytest.mark.parametrize("name", NAMES)
def test_one_optimizer_of_another_number(tiny_config: Config, tmp_path: Any, stock_lpips: None, name: str) -> None:
    """PyTorch takes moments of any shape and fails at the next step, when the model is loaded and its optimizers are
    half."""
    stock = StockTraining().train(3)
    folder = stock.save(tmp_path / "stock")
    path = folder / "step-000000002.ckpt"
    saved = torch.load(path, weights_only=False)
    state = saved["optimizers"][name]["state"][0]
    state["exp_avg"] = state["exp_avg"][:-1].clone()
    torch.save(saved, path)
    config = tiny_config()
    config.load_dir = folder
    with pytest.raises(CheckpointError, match=rf"'exp_avg' of parameter 0 in optimizer '{name}' has shape \(59, "):
        start(config)


def test_checkpoint_of_another_method(tiny_config: Config, tmp_path: Any, stock_lpips: None) -> None:
    """A run of neurons and one of Gaussians may lie side by side; the message names what is missing."""
    folder = StockTraining().train(2).save(tmp_path / "stock")
    saved = torch.load(folder / "step-000000001.ckpt", weights_only=False)
    saved["pipeline"] = {"_model.field_fine.mlp_base.layers.0.weight": torch.zeros(2, 2)}
    torch.save(saved, folder / "step-000000001.ckpt")
    config = tiny_config()
    config.load_dir = folder
    with pytest.raises(CheckpointError, match=r"step-000000001.ckpt: .* 7 missing entries .*; 1 unknown entries"):
        start(config)


def test_growth_of_a_strange_length(tiny_config: Config) -> None:
    """What a checkpoint says of the length of the run is a number of a stranger."""
    first = train(tiny_config("first", strategy="none"))
    path = first.checkpoint_dir / "step-000000019.ckpt"
    saved = torch.load(path, weights_only=False)
    for length in ("long", 0, -3, True, 10**12, 2.5):
        saved["pipeline"]["_model._extra_state"]["memory"]["growth"] = {"num_iterations": length}
        torch.save(saved, path)
        config = tiny_config("second")
        config.load_dir = first.checkpoint_dir
        with pytest.raises(ValueError, match=r"growth is scaled to .* training steps; expected a whole number"):
            start(config)


def test_camera_optimizer_and_bilateral_grid_come_back(tiny_config: Config) -> None:
    """Both are parts of splatfacto that have parameters and optimizers of their own; cuts leave them alone."""
    config = tiny_config("first")
    config.pipeline.model.camera_optimizer.mode = "SO3xR3"
    config.pipeline.model.use_bilateral_grid, config.pipeline.model.grid_shape = True, (2, 2, 2)
    first = train(config)
    model: SplatPruneModel = first.pipeline.model
    assert len(model.prune_state.succeeded) == 2
    assert bool(model.camera_optimizer.pose_adjustment.any()) and "bilateral_grid" in first.optimizers.optimizers
    again = tiny_config("again")
    again.pipeline.model = config.pipeline.model
    again.load_dir, again.max_num_iterations = first.checkpoint_dir, 2
    second = start(again)
    same = {key: tensor for key, tensor in model.state_dict().items() if key != "_extra_state"}
    found = {key: tensor for key, tensor in second.pipeline.model.state_dict().items() if key != "_extra_state"}
    assert same_bits(copied_state_of(found), copied_state_of(same))
    second.train()
    plain = tiny_config("plain")
    plain.load_dir = first.checkpoint_dir
    with pytest.raises(CheckpointError, match=r"3 unknown entries \(bil_grids.grids, "):
        start(plain)


def copied_state_of(state: dict[str, Any]) -> dict[str, Any]:
    return {key: tensor.detach().clone() for key, tensor in state.items()}
