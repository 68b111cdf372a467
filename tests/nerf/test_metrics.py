"""Evaluation of pruned runs, LPIPS without surprises, and the fixed batch that events are measured on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from nerfstudio.utils import writer
from nerfstudio.utils.eval_utils import eval_setup
from support.tiny_run import make_config, rays, same_bits, start, tiny_model, tiny_widths, train, widths

from nerfstudio_prune.data import metrics as metrics_module
from nerfstudio_prune.data.metrics import LazyLpips, weights_file
from nerfstudio_prune.nerf.rays import FixedRays, draw_rays

Config = Callable[..., Any]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, scene_cache: Path) -> Any:
    """A pruned run on views of 32x32 pixels, which LPIPS accepts."""
    config = make_config(tmp_path_factory.mktemp("runs"), scene_cache, start_step=4)
    config.pipeline.datamanager.dataparser.image_size = 32
    return train(config, test_mode="test")


class FakeNetwork(torch.nn.Module):
    """Stands in for the metric network; the distance is the mean absolute difference."""

    def __init__(self, normalize: bool) -> None:
        super().__init__()
        assert normalize  # images are in [0, 1]
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, image: torch.Tensor, prediction: torch.Tensor) -> torch.Tensor:
        assert float(prediction.min()) >= 0 and float(prediction.max()) <= 1
        return self.scale * (image - prediction).abs().mean()


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, downloads: list[str]) -> list[str]:
    """A machine without internet; gives the addresses that were tried."""

    def fail(url: str, *args: Any, **kwargs: Any) -> None:
        downloads.append(url)
        raise URLError("Temporary failure in name resolution")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    return downloads


def test_evaluation_of_a_pruned_run(run: Any, no_network: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """`ns-eval` builds a full-width model from config.yml and loads the pruned checkpoint without an option; it must
    measure what the trainer would. Without LPIPS weights the other metrics are reported all the same, with one line for
    all views together."""
    config, pipeline, path, step = eval_setup(run.base_dir / "config.yml")
    model: Any = pipeline.model
    assert (path.name, step) == ("step-000000009.ckpt", 9)
    assert widths(model) == tiny_widths(8, 4) and model.prune_state.phase == "recovery"
    assert config.pipeline.prune == run.config.pipeline.prune  # type: ignore[attr-defined]
    capsys.readouterr()
    found: Any = pipeline.get_average_eval_image_metrics(get_std=True)
    text = " ".join(capsys.readouterr().out.split())
    assert text.count("LPIPS is left out: its weights could not be loaded") == 1
    assert "Temporary failure in name resolution" in text and "The other metrics are not affected" in text
    assert len(no_network) == 1  # not once more for the second view
    expected = run.pipeline.get_average_eval_image_metrics()
    for name in ("psnr", "fine_psnr", "coarse_psnr", "fine_ssim"):
        assert found[name] == pytest.approx(expected[name], rel=1e-5)
    assert "fine_lpips" not in found


def test_image_metrics_against_numpy(run: Any) -> None:
    """PSNR is the number that every claim rests on: recomputed from the picture of the fine field with numpy."""
    pipeline = run.pipeline
    _, batch = next(iter(pipeline.datamanager.fixed_indices_eval_dataloader))
    camera = pipeline.datamanager.eval_dataset.cameras[0:1]
    pipeline.eval()
    outputs = pipeline.model.get_outputs_for_camera(camera)
    found, pictures = pipeline.model.get_image_metrics_and_images(outputs, batch)
    pipeline.train()
    truth, fine, coarse = (
        np.asarray(x.detach(), dtype=np.float64) for x in (batch["image"], outputs["rgb"], outputs["rgb_coarse"])
    )
    assert found["psnr"] == found["fine_psnr"] == pytest.approx(-10 * np.log10(((truth - fine) ** 2).mean()), rel=1e-5)
    assert found["coarse_psnr"] == pytest.approx(-10 * np.log10(((truth - coarse) ** 2).mean()), rel=1e-5)
    assert {name: tuple(picture.shape) for name, picture in pictures.items()} == {
        "img": (32, 96, 3),
        "accumulation": (32, 64, 3),
        "depth": (32, 64, 3),
    }
    assert np.array_equal(pictures["img"][:, :32].numpy(), batch["image"].numpy())


@pytest.fixture
def large_views(tiny_config: Config) -> Any:
    config = tiny_config(start_step=4)
    config.pipeline.datamanager.dataparser.image_size = 32
    config.steps_per_eval_image = config.steps_per_eval_batch = 3
    return config


def test_training_does_not_try_to_download(
    large_views: Any, downloads: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training on a machine without internet must not hang on a metric, and one on a cluster must not surprise
    anybody with a download: the evaluation of a view in training leaves LPIPS out, with one line for the whole run."""
    scores: dict[str, float] = {}
    inner = writer.put_dict

    def spy(name: str, scalar_dict: dict[str, Any], step: int) -> None:
        scores.update(scalar_dict if name == "Eval Images Metrics" else {})
        inner(name, scalar_dict, step)

    monkeypatch.setattr(writer, "put_dict", spy)
    monkeypatch.setattr(metrics_module, "LearnedPerceptualImagePatchSimilarity", lambda **options: pytest.fail("built"))
    train(large_views)
    text = " ".join(capsys.readouterr().out.split())
    assert text.count("LPIPS is left out") == 1
    assert "its weights are not on this machine and are not downloaded in training" in text
    assert {"psnr", "fine_ssim"} <= set(scores) and "fine_lpips" not in scores and downloads == []


def test_lpips_is_measured_in_training_where_its_weights_lie(
    large_views: Any, torch_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has the weights gets the metric in training too. The network still is neither trained nor saved: 20 keys
    and ten megabytes per checkpoint in the stock method."""
    weights_file().parent.mkdir(parents=True)
    weights_file().touch()
    assert torch_home in weights_file().parents
    monkeypatch.setattr(metrics_module, "LearnedPerceptualImagePatchSimilarity", FakeNetwork)
    trainer = train(large_views)
    model = trainer.pipeline.model
    metrics, _ = trainer.pipeline.get_eval_image_metrics_and_images(step=10)
    assert 0 < metrics["fine_lpips"] < 1
    saved = torch.load(trainer.checkpoint_dir / "step-000000009.ckpt")
    assert not any("lpips" in key for key in [*saved["pipeline"], *model.state_dict()])
    assert len(list(model.parameters())) == 37 and len(saved["optimizers"]["fields"]["param_groups"][0]["params"]) == 36


@pytest.mark.parametrize("error", [URLError("no route"), RuntimeError("invalid hash value")])
def test_any_trouble_with_the_weights_leaves_lpips_out(
    error: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No internet and a half-downloaded file come as different exceptions; neither may end an evaluation."""

    def fail(**options: Any) -> None:
        raise error

    monkeypatch.setattr(metrics_module, "LearnedPerceptualImagePatchSimilarity", fail)
    lpips, image = LazyLpips(), torch.zeros(1, 3, 40, 40)
    assert [lpips(image, image) for _ in range(3)] == [None] * 3
    text = " ".join(capsys.readouterr().out.split())
    assert text.count("LPIPS is left out") == 1 and str(error.args[0]) in text


def test_lpips_of_small_views(downloads: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """AlexNet pools images below 32 pixels away to nothing and then fails deep inside; they are refused before."""
    assert LazyLpips()(torch.zeros(1, 3, 31, 64), torch.zeros(1, 3, 31, 64)) is None
    text = " ".join(capsys.readouterr().out.split())
    assert "it needs images of at least 32 pixels, got (31, 64)" in text and downloads == []


def test_lpips_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rendered colours may overshoot; the metric is defined on [0, 1], and truth and prediction go in in that order."""
    monkeypatch.setattr(metrics_module, "LearnedPerceptualImagePatchSimilarity", FakeNetwork)
    found = LazyLpips()(torch.full((1, 3, 32, 32), 0.25), torch.full((1, 3, 32, 32), 1.5))
    assert found == pytest.approx(0.75)


def test_fixed_rays_are_fixed_and_measured_right(tiny_config: Config) -> None:
    """PSNR right before and right after an event is comparable only on the same rays, and must be of the true colours:
    recomputed by brute force from single rays of the cameras."""
    trainer = start(tiny_config())
    dataset, model = trainer.pipeline.datamanager.eval_dataset, trainer.pipeline.model
    measure = FixedRays(dataset, 33, seed=5)
    inner = model.get_outputs  # a model that draws even in evaluation must not shift the run's random state
    model.get_outputs = lambda bundle: (torch.rand(1), inner(bundle))[1]
    state, training = torch.get_rng_state(), model.training
    first, again = measure(model), measure(model)
    assert first == again == FixedRays(dataset, 33, seed=5)(model) != FixedRays(dataset, 33, seed=6)(model)
    assert torch.equal(torch.get_rng_state(), state) and model.training == training
    assert measure.description == "fixed batch of 33 rays from 2 evaluation views"
    assert measure._batch is not None
    rays_of_batch, colours = measure._batch
    errors = []
    model.eval()
    with torch.no_grad():
        for i, colour in enumerate(colours):
            view = int(rays_of_batch.camera_indices[i])  # type: ignore[index]
            assert view == (0 if i < 16 else 1)  # spread over all views
            everywhere = dataset.cameras.generate_rays(camera_indices=view)
            distance = (everywhere.directions - rays_of_batch.directions[i]).norm(dim=-1)
            row, column = divmod(int(distance.argmin()), 16)
            assert float(distance.min()) < 1e-6 and torch.equal(dataset[view]["image"][row, column], colour)
            errors.append((model(everywhere[row : row + 1, column])["rgb"].clamp(0, 1) - colour).square().mean())
    assert first["psnr"] == pytest.approx(-10 * np.log10(float(torch.stack(errors).mean())), rel=1e-5)


def test_fewer_rays_are_some_of_the_batch(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """A preview is measured on fewer rays than an event, so that it does not hold the training up: on some of the same,
    spread over the views, without reading a picture again, and never on more than were asked for."""
    trainer = start(tiny_config())
    dataset, model = trainer.pipeline.datamanager.eval_dataset, trainer.pipeline.model
    measure = FixedRays(dataset, 32, seed=5)
    monkeypatch.setattr(type(dataset), "get_data", lambda *arguments: pytest.fail("read a picture"))
    few = measure.fewer(4)
    assert measure._batch is not None and few._batch is not None and few.num_rays == 4
    for every, some in ((measure._batch[0].directions, few._batch[0].directions), (measure._batch[1], few._batch[1])):
        assert torch.equal(some, every[[0, 8, 16, 24]])
    assert few(model) != measure(model) and measure.num_rays == 32
    assert measure.fewer(1000)(model) == measure(model) and measure.fewer(0)(model) == {}


def test_no_rays_or_no_views_measure_nothing(tiny_config: Config) -> None:
    """`num_eval_rays 0` switches the measurement off, and a data set without evaluation views has none."""
    model = tiny_model()
    views: Any = [object()]
    assert FixedRays(views, 0, 0)(model) == {}
    empty: Any = []
    assert FixedRays(empty, 64, 0)(model) == {}


def test_masked_pixels_are_not_measured(tiny_config: Config) -> None:
    """People and tripods are masked out of photographs; their colours are not in the scene and would swamp the PSNR."""
    dataset = start(tiny_config()).pipeline.datamanager.eval_dataset

    class Masked:
        cameras = dataset.cameras

        def __len__(self) -> int:
            return len(dataset)

        def __getitem__(self, view: int) -> dict[str, Any]:
            mask = torch.zeros(16, 16, 1, dtype=torch.bool)
            mask[3 + view, 4:6] = True
            return {**dataset[view], "mask": mask}

    masked: Any = Masked()
    bundle, _ = draw_rays(masked, 40, torch.Generator().manual_seed(0))
    seen = set()
    for i in range(40):
        view = int(bundle.camera_indices[i])  # type: ignore[index]
        everywhere = dataset.cameras.generate_rays(camera_indices=view).directions
        seen.add((view, *divmod(int((everywhere - bundle.directions[i]).norm(dim=-1).argmin()), 16)))
    assert seen == {(0, 3, 4), (0, 3, 5), (1, 4, 4), (1, 4, 5)}


def test_same_rays_in_training_and_evaluation() -> None:
    """The measurement puts the model into evaluation mode: without it the samples are jittered and two measurements of
    one network differ."""
    torch.manual_seed(0)
    model = tiny_model()
    with torch.no_grad():
        noisy = [model(rays(16))["rgb"] for _ in range(2)]
        exact = [model.eval()(rays(16))["rgb"] for _ in range(2)]
    assert not torch.equal(*noisy) and same_bits(*exact)


def test_fixed_rays_that_cannot_be_drawn_measure_nothing(
    tiny_config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is a measurement for information: files that cannot be read are told once, at the start, and end no run."""
    dataset = start(tiny_config()).pipeline.datamanager.eval_dataset

    class Gone:
        cameras = dataset.cameras

        def __len__(self) -> int:
            return 2

        def __getitem__(self, view: int) -> dict[str, Any]:
            raise OSError("no [red] disk")

    gone: Any = Gone()
    measure = FixedRays(gone, 64, 0)
    assert "Nothing is measured on fixed evaluation rays: no [red] disk" in capsys.readouterr().out
    assert measure(tiny_model()) == {} == measure.fewer(8)(tiny_model()) and measure.num_rays == 0


def masked_metrics(run: Any, mask: Any, prediction: Any, lpips: Any = None) -> tuple[dict[str, float], Any]:
    """Metrics of one view with a mask and a prediction instead of a rendering, and the true colours."""
    model, dataset = run.pipeline.model, run.pipeline.datamanager.eval_dataset
    with torch.no_grad():
        outputs = model.eval().get_outputs_for_camera(dataset.cameras[0:1])
    outputs = {**outputs, "rgb_fine": prediction, "rgb_coarse": 1 - prediction}
    batch = dataset[0] if mask is None else {**dataset[0], "mask": mask[..., None]}
    return model.get_image_metrics_and_images(outputs, batch)[0], dataset[0]["image"]


@pytest.fixture
def prediction() -> torch.Tensor:
    return torch.rand(32, 32, 3, generator=torch.Generator().manual_seed(0))


def test_masked_metrics_against_numpy(
    run: Any, prediction: torch.Tensor, no_network: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stock metrics count what was masked out of the training: a tripod, or the black corners of a lens. Only the
    pixels that count may: PSNR of their colours, SSIM of the picture with the truth elsewhere, its map averaged over
    them, and LPIPS of that picture."""
    monkeypatch.setattr(metrics_module, "LearnedPerceptualImagePatchSimilarity", FakeNetwork)
    monkeypatch.setattr(run.pipeline.model, "lpips", LazyLpips())
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[4:20, 8:30] = True
    found, truth = masked_metrics(run, mask, prediction)
    a, b, inside = (np.asarray(x, dtype=np.float64) for x in (prediction, truth, mask))
    inside = inside.astype(bool)
    assert found["psnr"] == found["fine_psnr"]
    assert found["fine_psnr"] == pytest.approx(-10 * np.log10(((a - b)[inside] ** 2).mean()), rel=1e-5)
    assert found["coarse_psnr"] == pytest.approx(-10 * np.log10(((1 - a - b)[inside] ** 2).mean()), rel=1e-5)
    shown = np.where(inside[..., None], a, b)
    assert found["fine_lpips"] == pytest.approx(np.abs(shown - b).mean(), rel=1e-5)
    x = np.arange(11) - 5
    window = np.exp(-(x**2) / (2 * 1.5**2))
    window = np.outer(window, window) / window.sum() ** 2

    def mean(image: Any, i: int, j: int) -> Any:
        padded = np.pad(image, ((5, 5), (5, 5), (0, 0)), mode="reflect")
        return (padded[i : i + 11, j : j + 11] * window[..., None]).sum(axis=(0, 1))

    span = max(np.ptp(shown), np.ptp(b))
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    values = []
    for i, j in np.argwhere(inside):
        ma, mb = mean(shown, i, j), mean(b, i, j)
        va, vb = mean(shown * shown, i, j) - ma**2, mean(b * b, i, j) - mb**2
        cov = mean(shown * b, i, j) - ma * mb
        values.append(((2 * ma * mb + c1) * (2 * cov + c2)) / ((ma**2 + mb**2 + c1) * (va + vb + c2)))
    assert found["fine_ssim"] == pytest.approx(np.mean(values), abs=1e-5)
    # What does not count has no say.
    assert masked_metrics(run, mask, torch.where(mask[..., None], prediction, 0.3))[0] == found


def test_mask_of_ones_changes_no_metric(run: Any, prediction: torch.Tensor, no_network: list[str]) -> None:
    """Numbers of data sets with and without masks stand side by side."""
    plain, _ = masked_metrics(run, None, prediction)
    ones, _ = masked_metrics(run, torch.ones(32, 32, dtype=torch.bool), prediction)
    assert ones == pytest.approx(plain, rel=1e-6)
