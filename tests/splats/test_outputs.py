"""What a person sees of Gaussians beside their colours, against values made by hand."""

from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.scene_box import OrientedBox
from support.tiny_splats import tiny_model

from nerfstudio_prune.core.events import PruneEvent, ScheduledEvent
from nerfstudio_prune.gaussians.budget import uncompressed_bytes
from nerfstudio_prune.splats.model import SplatPruneModel
from nerfstudio_prune.splats.outputs import ranks, removed, significance, stand_in
from nerfstudio_prune.splats.subject import GAUSSIANS, SH_DEGREE, GaussianSubject, sizes_of


def camera() -> Cameras:
    """A camera of 16 x 12 pixels at a distance of 4, along -z."""
    pose = torch.eye(4)[None, :3].clone()
    pose[0, 2, 3] = 4.0
    return Cameras(camera_to_worlds=pose, fx=20.0, fy=20.0, cx=8.0, cy=6.0, width=16, height=12)


@pytest.fixture
def model() -> SplatPruneModel:
    """Two round Gaussians of opacity 0.8: red on the left, green on the right, both well inside the picture."""
    found = tiny_model(10).eval()
    means = torch.tensor([[-0.8, 0.0, 0.0], [0.8, 0.0, 0.0]])
    found.seed(means, torch.tensor([[255.0, 0.0, 0.0], [0.0, 255.0, 0.0]]), torch.full((2, 1), 0.15))
    with torch.no_grad():
        found.gauss_params["opacities"][:] = torch.logit(torch.tensor(0.8))
    found.set_behind(torch.ones(3))
    return found


LEFT, RIGHT = (6, 4), (6, 12)
"""Pixels next to the two centres."""


def test_ranks_of_ties_are_equal() -> None:
    """Thousands of Gaussians that no view sees score 0; in any order they would be a ramp of colours."""
    scores = torch.tensor([5.0, 0.0, 0.0, 0.0, 1e9], dtype=torch.float64)
    assert ranks(scores).tolist() == [0.75, 0.25, 0.25, 0.25, 1.0]
    assert ranks(torch.tensor([3.0])).tolist() == [0.0]


def test_heat_map_is_the_rank_in_place_of_the_colour(model: SplatPruneModel) -> None:
    """At a Gaussian's centre stands its opacity times its rank, whatever lies behind; and what becomes of the scene
    afterwards does not show."""
    picture = significance(model, torch.tensor([7.0, 3.0]))
    drawn = picture(camera(), None, torch.tensor([0.0, 1.0, 0.0]))
    alphas = model.get_outputs_for_camera(camera())["accumulation"]
    assert drawn.shape == (12, 16, 1) and float(drawn[LEFT]) == pytest.approx(float(alphas[LEFT]), rel=1e-6)
    assert float(alphas[LEFT]) > 0.5 and float(drawn[RIGHT]) == 0.0
    for name, parameter in dict(model.gauss_params.items()).items():
        model.gauss_params[name] = torch.nn.Parameter(parameter.detach()[1:].clone())
    assert torch.equal(picture(camera()), drawn)
    left = OrientedBox(torch.eye(3), torch.tensor([-0.8, 0.0, 0.0]), torch.ones(3))
    assert float(picture(camera(), left)[LEFT]) > 0.5
    right = OrientedBox(torch.eye(3), torch.tensor([0.8, 0.0, 0.0]), torch.ones(3))
    assert not bool(picture(camera(), right).any())
    nowhere = OrientedBox(torch.eye(3), torch.full((3,), 50.0), torch.ones(3))
    assert picture(camera(), nowhere).shape == (12, 16, 1)
    with pytest.raises(ValueError, match="2 scores cannot be those of 1 Gaussians"):
        significance(model, torch.tensor([7.0, 3.0]))


def test_removed_shows_what_leaves_alone(model: SplatPruneModel) -> None:
    """Where the other one stands there is the colour behind: that of the data, or the one that the viewer shows."""
    picture = removed(model, torch.tensor([1]))
    drawn = picture(camera())
    assert torch.equal(drawn[LEFT], torch.ones(3)) and float(drawn[RIGHT][1]) > 0.95 and float(drawn[RIGHT][0]) < 0.45
    assert torch.allclose(picture(camera(), None, torch.tensor([0.0, 0.0, 1.0]))[LEFT], torch.tensor([0.0, 0.0, 1.0]))


def test_stand_in_keeps_crop_and_colour_to_itself(model: SplatPruneModel) -> None:
    """The host sets both on whatever it renders, and a measurement that saw them would be of another picture."""
    model.train()
    other = stand_in(model, torch.zeros(3))
    box = OrientedBox(torch.eye(3), torch.full((3,), 50.0), torch.ones(3))
    assert not bool(other.get_outputs_for_camera(camera(), obb_box=box)["rgb"].any())
    assert model.training and not other.training
    assert model.crop_box is None and torch.equal(model.background_color, torch.ones(3))
    assert other.means.data_ptr() == model.means.data_ptr() and not other.means.requires_grad


def event(before: tuple[int, int], after: tuple[int, int], step: int = 5, **options: Any) -> PruneEvent:
    """An event by numbers of Gaussians and degrees."""
    return PruneEvent(step, None, "rank", "continue", options, sizes_of(*before), sizes_of(*after))


def subject_of(model: SplatPruneModel) -> GaussianSubject:
    return GaussianSubject(model, lambda recipe, seed: None)  # type: ignore[arg-type,return-value]


EVENTS = [
    (event((300, 3), (100, 3)), "rank", "3.00x fewer Gaussians"),
    (event((100, 3), (100, 2)), "spherical harmonics", f"degree 3 → 2, {59 / 38:.2f}x fewer bytes"),
    (event((300, 3), (100, 0)), "rank", f"3.00x fewer Gaussians, degree 3 → 0, {3 * 59 / 14:.2f}x fewer bytes"),
]


@pytest.mark.parametrize(("done", "rule", "text"), EVENTS)
def test_event_is_told_by_what_it_did(model: SplatPruneModel, done: PruneEvent, rule: str, text: str) -> None:
    """«1.00x fewer Gaussians» of an event that lowered the degree says nothing."""
    subject = subject_of(model)
    assert (subject.rule(done), subject.gain(done)) == (rule, text)


def test_stage_follows_growth_and_events(model: SplatPruneModel) -> None:
    """What a person can do depends on it: nothing while Gaussians grow, a cut behind, nothing of colours while they
    learn."""
    subject, state = subject_of(model), model.prune_state
    model.growth = replace(model.growth, stop=100, settle=20)
    assert [subject.stage(step) for step in (0, 99, 100, 119, 120)] == [*["growing"] * 2, *["settling"] * 2, "settled"]
    planned = [ScheduledEvent(300, Fraction(1), index=1), ScheduledEvent(400, Fraction(1), {SH_DEGREE: 2}, index=2)]
    state.plan = planned
    state.history = [event((300, 3), (200, 3))]
    assert subject.stage(150) == "pruning"
    state.plan = planned[1:]
    assert subject.stage(310) == "recovery"
    state.plan, state.history = [], [*state.history, event((200, 3), (200, 2), step=400, distil={"steps": 50})]
    assert [subject.stage(step) for step in (401, 449, 450)] == ["distilling", "distilling", "distilled"]


def test_what_leaves_is_known_before_it_does(model: SplatPruneModel) -> None:
    """Afterwards nobody can tell: parameters are new and have other rows."""
    subject = subject_of(model)
    change: Any = SimpleNamespace(keep=torch.tensor([1]))
    leaving = subject.leaving(change)
    assert leaving[GAUSSIANS].tolist() == [0]
    assert subject.leaving(SimpleNamespace(keep=None)) == {}  # type: ignore[arg-type]
    assert set(subject.pictures({}, {})) == set()
    assert set(subject.pictures({GAUSSIANS: torch.tensor([1.0, 2.0])}, leaving)) == set(subject.further_outputs)
    assert uncompressed_bytes(1, 3) == 236


@pytest.mark.parametrize("masked", [False, True])
def test_colour_corrected_metrics(masked: bool) -> None:
    """The host's option for pictures of changing exposure, as with its bilateral grids: a picture that is right but for
    its colours is right after the correction, which only sees the pixels that count."""
    model = tiny_model(color_corrected_metrics=True)
    truth = torch.rand((16, 16, 3), generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
    rgb, batch = truth * 0.5 + 0.1, {"image": truth}
    if masked:
        rgb[8:] = 0.3
        batch["mask"] = torch.ones((16, 16, 1), dtype=torch.bool)
        batch["mask"][8:] = False
    outputs = {"rgb": rgb, "background": torch.zeros(3)}
    assert model.get_metrics_dict(outputs, batch)["cc_psnr"] > 60
    found, _ = model.eval().get_image_metrics_and_images(outputs, batch)
    assert set(found) == {"psnr", "ssim", "cc_psnr", "cc_ssim"}
    assert found["psnr"] < 20 and found["cc_psnr"] > 60 and found["cc_ssim"] > 0.999
