"""What a run of Gaussians is refused for, before anything is trained, and in which words."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from support.tiny_splats import NAMES, start, tiny_model, train

from nerfstudio_prune.core.events import ScheduledEvent
from nerfstudio_prune.core.subject import NoOptimizers
from nerfstudio_prune.scenes.demo_dataparser import DemoDataParser
from nerfstudio_prune.splats.views import view_of

Config = Callable[..., Any]


@pytest.fixture
def no_data(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails where a data manager is made: photographs take a minute to load."""
    kind = type(tiny_config().pipeline.datamanager)
    monkeypatch.setattr(kind, "setup", lambda *args, **kwargs: pytest.fail("data loaded"))


def test_options_are_looked_at_before_the_data(tiny_config: Config, no_data: None) -> None:
    """A slip of the finger is told at once: of pruning, of the model, of an optimizer."""
    with pytest.raises(ValueError, match=r"^prune\.rounds must be in \[1, 100\], got 1000$"):
        start(tiny_config(rounds=1000))
    config = tiny_config()
    config.pipeline.model.refine_every = 0
    with pytest.raises(ValueError, match=r"^pipeline\.model\.refine_every must be in \[1, "):
        start(config)
    config = tiny_config()
    config.optimizers["means"]["optimizer"].lr = -1.0
    with pytest.raises(ValueError, match=r"^optimizers\.means\.optimizer\.lr must be in \[0, 1\], got -1\.0$"):
        start(config)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA")
def test_rasteriser_that_cannot_render_here(tiny_config: Config) -> None:
    """gsplat compiles its kernels at first use, and its error then speaks of symbols. Told at the start, with what to
    do."""
    config = tiny_config()
    config.pipeline.model.rasterizer = "gsplat"
    with pytest.raises(ValueError, match=r"rasterizer gsplat .*CUDA"):
        start(config)


def test_more_than_one_process(tiny_config: Config) -> None:
    """Gaussians come and go, and DistributedDataParallel has its buckets for those of the start."""
    config = tiny_config()
    with pytest.raises(ValueError, match=r"machine.num_devices x machine.num_machines must be 1, got 2"):
        config.pipeline.setup(device="cpu", test_mode="val", world_size=2, local_rank=0)


@pytest.mark.parametrize("name", NAMES)
def test_optimizer_that_is_missing(tiny_config: Config, name: str) -> None:
    """A configuration of one's own may leave one of the six out; its values would never learn."""
    config = tiny_config()
    del config.optimizers[name]
    with pytest.raises(ValueError) as caught:
        start(config)
    assert str(caught.value) == (
        f"optimizers.{name} is missing: the model has parameters of that name, which would not learn; found "
        f"{', '.join(sorted(config.optimizers))}"
    )


def test_scheduler_may_be_missing(tiny_config: Config) -> None:
    """Only means have one in splatfacto; without it they learn at one rate."""
    config = tiny_config()
    config.optimizers["means"]["scheduler"] = None
    assert len(train(config).pipeline.model.prune_state.succeeded) == 2


@pytest.mark.parametrize("kind", [CameraType.ORTHOPHOTO, CameraType.EQUIRECTANGULAR])
def test_cameras_that_are_no_pinholes(tiny_config: Config, monkeypatch: pytest.MonkeyPatch, kind: CameraType) -> None:
    """Splatfacto renders them as pinholes, which they are not, and trains on blurred pictures. Refused before the first
    step, with the kind."""
    inner = DemoDataParser._generate_dataparser_outputs

    def outputs(self: Any, split: str = "train", **options: Any) -> DataparserOutputs:
        found = inner(self, split, **options)
        found.cameras.camera_type = torch.full_like(found.cameras.camera_type, kind.value)
        return found

    monkeypatch.setattr(DemoDataParser, "_generate_dataparser_outputs", outputs)
    with pytest.raises(ValueError, match=rf"{kind.name}"):
        start(tiny_config())


def test_view_of_a_camera() -> None:
    """The host's cameras look along -z with y up, the rasteriser's along z with y down: a point to the right, above and
    in front of the camera has to stay there."""
    pose = torch.tensor([[[0.0, 0.0, 1.0, 2.0], [1.0, 0.0, 0.0, 3.0], [0.0, 1.0, 0.0, 4.0]]])
    camera = Cameras(pose, fx=10.0, fy=12.0, cx=8.0, cy=9.0, width=16, height=18)
    view = view_of(camera)
    right, up, back, place = (pose[0, :, i] for i in range(4))
    point = place + 1.0 * right + 2.0 * up - 5.0 * back
    local = view.viewmat[:3, :3] @ point + view.viewmat[:3, 3]
    assert local.tolist() == pytest.approx([1.0, -2.0, 5.0])
    assert (view.K @ local)[:2].tolist() == pytest.approx([10 * 1.0 + 8 * 5, 12 * -2.0 + 9 * 5])
    assert (view.width, view.height) == (16, 18)
    other = view_of(camera, pose[0] + torch.tensor([0.0, 0.0, 0.0, 1.0]))
    assert (other.viewmat[:3, :3] @ (point + 1) + other.viewmat[:3, 3]).tolist() == pytest.approx([1.0, -2.0, 5.0])


@pytest.mark.parametrize("degree", [0, 3])
def test_colours_of_seed_points(degree: int) -> None:
    """Black and white points are common; at degree 0 colours are logits, and in the host those of white are infinite.
    A model starts with finite values that show the points' colours."""
    model = tiny_model(sh_degree=degree)
    model.seed(torch.rand(4, 3), torch.tensor([[0.0, 0.0, 0.0], [255.0, 255.0, 255.0], [255.0, 0.0, 51.0], [1, 2, 3]]))
    gaussians = model.gaussians.detach()
    assert all(bool(torch.isfinite(tensor).all()) for _, tensor in gaussians.items())
    shown = torch.sigmoid(gaussians.features_dc) if degree == 0 else gaussians.features_dc * 0.28209479177387814 + 0.5
    expected = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [1.0, 0.0, 0.2], [1 / 255, 2 / 255, 3 / 255]])
    assert torch.allclose(shown, expected, atol=1 / 500)


def test_idle_options_are_told(tiny_config: Config, capsys: Any) -> None:
    """Whoever sets what nothing reads is told so in one line, with what it goes with."""
    start(tiny_config(strategy="merge", score="hits", volume_power=0.5, stop_step=15, distil__sigma=0.3, sh_degree=3))
    text = " ".join(capsys.readouterr().out.split())
    assert text.count("have no effect") == 1
    for told in (
        "prune.score (goes with strategy rank)",
        "prune.volume_power (goes with score significance)",
        "prune.stop_step (goes with several events)",
    ):
        assert told in text
    start(tiny_config(score="significance", volume_power=0.5, distil__sigma=0.3))
    assert "have no effect" not in " ".join(capsys.readouterr().out.split())


def test_prepared_cut_without_optimizers(tiny_config: Config) -> None:
    """A change is prepared and checked as a whole; what is not applied changes nothing."""
    trainer = train(tiny_config(strategy="none"))
    subject, model = trainer.pipeline.subject, trainer.pipeline.model
    before = deepcopy({name: value.detach() for name, value in model.gauss_params.items()})
    options = replace(trainer.config.pipeline.prune, strategy="random", pruning_ratio=0.5)
    recipe = options.resolve()
    with pytest.raises(ValueError, match=r"gauss_params.means of shape .* is in none of the optimizers"):
        subject.prepare(recipe, ScheduledEvent(19, Fraction(1)), subject.gather(recipe, 0), NoOptimizers(), 0)
    assert all(torch.equal(before[name], model.gauss_params[name]) for name in before)
