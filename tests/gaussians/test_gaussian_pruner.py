"""A cut of six parameters, their moments and what densification keeps: together or not at all."""

from typing import Any, Optional

import pytest
import torch
from support.splats_by_hand import drawn
from torch import Tensor, nn
from torch.optim import Adam

from nerfstudio_prune.core.optimizer_state import check_optimizers
from nerfstudio_prune.gaussians.merging import merge
from nerfstudio_prune.gaussians.pruner import PARAMETERS, check_gaussians, prepare_gaussian_pruning
from nerfstudio_prune.raster.gaussians import Gaussians

COUNT = 9
KEEP = torch.tensor([0, 3, 4, 8])


class Training:
    """A scene as in splatfacto: a `ParameterDict`, one Adam a tensor, the host's lists, the densification's state."""

    def __init__(self, steps: int = 3) -> None:
        scene = drawn(COUNT, 3)
        self.params = nn.ParameterDict({name: nn.Parameter(tensor) for name, tensor in scene.items()})
        self.optimizers = {name: Adam([p], lr=0.01) for name, p in self.params.items()}
        self.lists: dict[str, list[nn.Parameter]] = {name: [p] for name, p in self.params.items()}
        self.running: dict[str, Any] = {
            "grad2d": torch.arange(float(COUNT)),
            "count": torch.arange(COUNT) * 10,
            "radii": None,
            "scene_scale": 1.5,
            "steps": torch.tensor(4),
        }
        for _ in range(steps):
            self.step()

    def step(self) -> None:
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        torch.stack([((p - 1) ** 2).sum() for p in self.params.values()]).sum().backward()
        for optimizer in self.optimizers.values():
            optimizer.step()

    def prepare(self, keep: Optional[Tensor] = KEEP, **options: Any) -> Any:
        return prepare_gaussian_pruning(self.params, keep, self.optimizers, self.lists, self.running, **options)

    def snapshot(self) -> dict[str, Any]:
        """Everything that a cut may touch, as copies."""
        state = {n: {k: v.clone() for k, v in o.state[self.params[n]].items()} for n, o in self.optimizers.items()}
        running = {k: v.clone() if torch.is_tensor(v) else v for k, v in self.running.items()}
        return {"values": {n: p.detach().clone() for n, p in self.params.items()}, "state": state, "running": running}

    def check(self) -> None:
        check_optimizers(self.optimizers, self.lists, {name: [p] for name, p in self.params.items()})


def assert_same(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_values_and_moments_stay_row_by_row() -> None:
    """A moment that is off by a row drives a Gaussian by another one's gradients; cleared ones cost 1.8 dB."""
    training = Training()
    before = training.snapshot()
    old_grad = training.params["means"].grad
    assert old_grad is not None
    training.prepare().apply()
    for name, parameter in training.params.items():
        assert_same(parameter.detach(), before["values"][name][KEEP])
        state = training.optimizers[name].state[parameter]
        assert_same(state["exp_avg"], before["state"][name]["exp_avg"][KEEP])
        assert_same(state["exp_avg_sq"], before["state"][name]["exp_avg_sq"][KEEP])
        assert_same(state["step"], before["state"][name]["step"])
        assert len(training.optimizers[name].state) == 1
    assert_same(training.params["means"].grad, old_grad[KEEP])
    training.check()


def test_parameter_dict_takes_the_new_parameters_by_attribute() -> None:
    """The engine's edits assign attributes; keys, order and the six names must survive it."""
    training = Training()
    names = list(training.params)
    training.prepare().apply()
    assert list(training.params) == names == list(dict(training.params.named_parameters()))
    assert set(names) == set(PARAMETERS)
    assert all(isinstance(p, nn.Parameter) and p.requires_grad for p in training.params.values())
    assert training.params["means"] is training.optimizers["means"].param_groups[0]["params"][0]


def test_the_next_step_is_that_of_the_uncut_scene() -> None:
    """Rows do not know each other in this loss, so the cut scene must move exactly like the whole one."""
    training, whole = Training(), Training()
    training.prepare().apply()
    for _ in range(3):
        training.step()
        whole.step()
    for name, parameter in training.params.items():
        assert_same(parameter.detach(), whole.params[name].detach()[KEEP])


def test_running_state_is_cut_alike() -> None:
    """gsplat adds to these by row: a row too many is an index error, or a split of the wrong Gaussian."""
    training = Training()
    training.prepare().apply()
    assert training.running["grad2d"].tolist() == [0, 3, 4, 8]
    assert training.running["count"].tolist() == [0, 30, 40, 80]
    assert training.running["radii"] is None
    assert training.running["scene_scale"] == 1.5
    assert training.running["steps"] == 4


def test_rows_and_degree_in_one_edit() -> None:
    """One edit, one set of moments: degree 3 to 2 keeps the first eight coefficients."""
    training = Training()
    before = training.snapshot()
    training.prepare(sh_degree=2).apply()
    rest = training.params["features_rest"]
    assert rest.shape == (4, 8, 3)
    assert_same(rest.detach(), before["values"]["features_rest"][KEEP][:, :8])
    state = training.optimizers["features_rest"].state[rest]
    assert_same(state["exp_avg"], before["state"]["features_rest"]["exp_avg"][KEEP][:, :8])
    training.check()
    training.step()


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_degree_alone_touches_one_parameter(degree: int) -> None:
    """The others keep their identity; degree 0 leaves a tensor without coefficients that still takes steps."""
    training = Training()
    means, running = training.params["means"], training.running["grad2d"]
    cut = training.prepare(None, sh_degree=degree)
    assert [edit.name for edit in cut.edits] == ["gauss_params.features_rest"]
    cut.apply()
    assert training.params["features_rest"].shape == (COUNT, (degree + 1) ** 2 - 1, 3)
    assert training.params["means"] is means
    assert training.running["grad2d"] is running
    training.check()
    training.step()


def test_what_removes_nothing_says_so() -> None:
    """The engine skips a cut that changes nothing."""
    training = Training()
    assert not training.prepare(None).removes
    assert not training.prepare(torch.arange(COUNT)).removes
    assert not training.prepare(None, sh_degree=3).removes
    assert training.prepare(None, sh_degree=2).removes
    assert training.prepare().removes


def test_forgetting_clears_all_six() -> None:
    """Recovery `retrain`: the optimizer starts anew, with the step counter of Adam's bias correction."""
    training = Training()
    training.prepare(forget=True).apply()
    assert all(not optimizer.state for optimizer in training.optimizers.values())
    training.check()
    training.step()
    assert training.optimizers["means"].state[training.params["means"]]["step"] == 1


def test_merged_values_take_the_place() -> None:
    """Merging gives new numbers: their moments would be those of Gaussians that are gone."""
    training = Training()
    merged = merge(check_gaussians(dict(training.params.items())), 5)
    training.prepare(merged.representatives, values=merged.gaussians, forget=True, sh_degree=2).apply()
    for name, value in merged.gaussians.with_sh_degree(2).items():
        assert_same(training.params[name].detach(), value)
    assert training.running["grad2d"].tolist() == merged.representatives.tolist()
    training.check()
    before = merged.gaussians.means.clone()
    training.step()
    assert torch.equal(merged.gaussians.means, before), "training reached what was only lent"
    with pytest.raises(ValueError, match=r"means: new values must have shape \(2, 3\), got \(5, 3\)"):
        training.prepare(torch.tensor([0, 1]), values=merged.gaussians)


def broken_values(training: Training) -> None:
    with torch.no_grad():
        training.params["scales"][4] = float("nan")
        training.params["scales"][6, 1] = float("inf")


def missing_optimizer(training: Training) -> None:
    del training.optimizers["quats"]


def stale_optimizer(training: Training) -> None:
    training.params["opacities"] = nn.Parameter(training.params["opacities"].detach().clone())


def stale_state(training: Training) -> None:
    training.running["count"] = torch.zeros(COUNT + 2)


def missing_parameter(training: Training) -> None:
    del training.params["features_dc"]


def other_count(training: Training) -> None:
    training.params["quats"] = nn.Parameter(torch.zeros(COUNT - 1, 4))


@pytest.mark.parametrize(
    ("break_it", "options", "message"),
    [
        (broken_values, {}, "scales: 2 of 9 Gaussians have values that are not finite, the first one is Gaussian 4"),
        (missing_optimizer, {}, r"gauss_params.quats of shape \(9, 4\) is in none of the optimizers"),
        (stale_optimizer, {}, r"gauss_params.opacities of shape \(9, 1\) is in none of the optimizers"),
        (stale_state, {}, "running state 'count' of the densification has 11 rows for 9 Gaussians"),
        (missing_parameter, {}, "features_dc is missing"),
        (other_count, {}, "all parameters must be those of the same Gaussians, .*quats 8"),
        (None, {"sh_degree": 4}, r"degree of the spherical harmonics must be in \[0, 3\], got 4"),
        (None, {"keep": torch.tensor([3, 1])}, "keep must be sorted unique indices of 9 Gaussians"),
        (None, {"keep": torch.tensor([3, 9])}, "keep must be sorted unique indices of 9 Gaussians, got 2 from 3 to 9"),
    ],
)
def test_all_or_nothing(break_it: Any, options: dict[str, Any], message: str) -> None:
    """An error in the last of six edits must find the first five undone."""
    training = Training()
    if break_it is not None:
        break_it(training)
    before = {name: id(p) for name, p in training.params.items()}
    running = dict(training.running)
    groups = {name: id(o.param_groups[0]["params"][0]) for name, o in training.optimizers.items()}
    with pytest.raises(ValueError, match=message):
        training.prepare(**options)
    assert {name: id(p) for name, p in training.params.items()} == before
    assert all(training.running[k] is v for k, v in running.items())
    assert {name: id(o.param_groups[0]["params"][0]) for name, o in training.optimizers.items()} == groups


def test_preparing_changes_nothing() -> None:
    """A preview prepares the same cut and throws it away."""
    training = Training()
    before = training.snapshot()
    training.prepare(sh_degree=1, forget=True)
    after = training.snapshot()
    for name in PARAMETERS:
        assert_same(after["values"][name], before["values"][name])
        assert_same(after["state"][name]["exp_avg"], before["state"][name]["exp_avg"])
    assert_same(after["running"]["grad2d"], before["running"]["grad2d"])


def test_a_scene_without_optimizers_can_be_cut() -> None:
    """People have a `.ply` and want it smaller (LightGaussian #7): nothing there is trained."""
    params = nn.ParameterDict({name: nn.Parameter(t, requires_grad=False) for name, t in drawn(COUNT, 1).items()})
    prepare_gaussian_pruning(params, KEEP, {}, {}, sh_degree=0).apply()
    cut = Gaussians.of(dict(params.items()))
    assert (len(cut), cut.sh_degree) == (4, 0)
    assert not cut.means.requires_grad
