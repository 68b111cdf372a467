"""What quality, sizes and distributions are measured on: against a computation by hand, and without side effects."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nerfstudio.engine.trainer import Trainer
from PIL import Image
from support.bench_run import small_host
from support.tiny_run import TINY_SIZE, copied_state, same_bits, tiny_model, tiny_parameters
from torch import Tensor, nn
from torch.nn.utils import prune

from nerfstudio_prune.bench import quality
from nerfstudio_prune.bench.peers import mask_neurons
from nerfstudio_prune.bench.quality import ViewMeter, measure_anatomy, measure_sizes, refresh_masks
from nerfstudio_prune.bench.setup import Scene, make_config, make_trainer
from nerfstudio_prune.bench.suites import Run, Scale
from nerfstudio_prune.data.images import to_uint8
from nerfstudio_prune.nerf.model import PruneModel
from nerfstudio_prune.neurons.groups import linears
from nerfstudio_prune.neurons.scores import weight_scores
from nerfstudio_prune.scenes.demo_dataparser import DemoDataParserConfig

LAYER = "field_fine.mlp_base.layers.1"


@pytest.fixture(scope="module")
def trainer(bench_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainer]:
    """A trainer on five test views, not trained."""
    folder = tmp_path_factory.mktemp("quality")
    options: dict[str, Any] = {f"pipeline.model.{name}": value for name, value in TINY_SIZE.items()}
    scale = Scale("tiny", options, 1, 3, (1,), 2, 8, 1, 1, 1)
    with small_host(bench_cache):
        parser = DemoDataParserConfig(image_size=16, num_train_views=2, num_val_views=1, num_test_views=5)
        run = Run("x", 1, "dense", 1, options={"pipeline.prune.strategy": "none"})
        yield make_trainer(make_config(run, scale, Scene("demo", "nerf-prune", parser, ""), 1, folder, None))


@pytest.fixture
def model(trainer: Trainer) -> Iterator[PruneModel]:
    """The trainer's model with weights large enough to see something, put back after each test."""
    model: Any = trainer.pipeline.model
    before = copied_state(model)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    model.train()
    yield model
    for layer in linears(model.neuron_groups()).values():
        for name in ("weight", "bias"):
            if hasattr(layer, f"{name}_orig"):
                prune.remove(layer, name)
    model.load_state_dict(before)


def meter_of(trainer: Trainer, cache: Path, views: int = 2) -> ViewMeter:
    pipeline: Any = trainer.pipeline
    return ViewMeter(pipeline.datamanager.eval_dataset, views, cache)


@pytest.fixture
def renderings(model: PruneModel, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Grows with every view that is rendered."""
    seen: list[Any] = []
    render = model.get_outputs_for_camera

    def count(camera: Any, *arguments: Any, **options: Any) -> Any:
        seen.append(camera)
        return render(camera, *arguments, **options)

    monkeypatch.setattr(model, "get_outputs_for_camera", count)
    return seen


def render(model: PruneModel, dataset: Any, view: int) -> tuple[Tensor, Tensor]:
    """Colours of the fine field and the truth, [height, width, 3]; white behind, as the scene has it."""
    model.eval()
    with torch.no_grad():
        fine = model.get_outputs_for_camera(dataset.cameras[view : view + 1])["rgb_fine"]
    model.train()
    return fine, dataset[view]["image"]


def ssim(a: Tensor, b: Tensor) -> float:
    """Wang et al. 2004: a Gaussian window of 11 pixels around each pixel; beyond the border pictures are mirrored."""
    x = torch.arange(11, dtype=torch.float64) - 5
    window = torch.exp(-(x**2) / (2 * 1.5**2))
    window = (window[:, None] * window[None, :]) / window.sum() ** 2

    def mean(image: Tensor) -> Tensor:
        mirrored = nn.functional.pad(image.double().permute(2, 0, 1)[:, None], (5, 5, 5, 5), mode="reflect")
        return nn.functional.conv2d(mirrored, window[None, None])

    span = max(float(a.max() - a.min()), float(b.max() - b.min()))
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    values = ((2 * ma * mb + c1) * (2 * cov + c2)) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    return float(values.mean())


def test_quality_is_the_mean_over_views_of_a_direct_computation(
    trainer: Trainer, model: PruneModel, tmp_path: Path
) -> None:
    """Everything that is claimed rests on these two numbers: the mean of the PSNR of views, not the PSNR of their mean
    error, and of the fine field."""
    meter = meter_of(trainer, tmp_path, views=3)
    found = meter(model)
    assert [view.view for view in found.views] == meter.views
    for view in found.views:
        image, truth = render(model, meter.dataset, view.view)
        error = float(((image.double() - truth.double()) ** 2).mean())
        assert view.psnr == pytest.approx(-10 * np.log10(error), abs=1e-4)
        assert view.ssim == pytest.approx(ssim(image, truth), abs=1e-4)
    assert found.psnr == pytest.approx(np.mean([view.psnr for view in found.views]), abs=1e-9)
    assert found.ssim == pytest.approx(np.mean([view.ssim for view in found.views]), abs=1e-9)
    assert len({view.psnr for view in found.views}) == 3
    assert found.lpips is None and meter.rays_per_sec > 0 and meter.seconds > 0


@pytest.mark.parametrize(("views", "expected"), [(1, [0]), (2, [0, 2]), (4, [0, 1, 2, 3]), (5, [0, 1, 2, 3, 4])])
def test_views_are_spread(trainer: Trainer, tmp_path: Path, views: int, expected: list[int]) -> None:
    """Neighbouring views of a data set look alike."""
    assert meter_of(trainer, tmp_path, views).views == expected
    assert meter_of(trainer, tmp_path, 100).views == [0, 1, 2, 3, 4]


def test_measuring_leaves_no_trace_in_the_run(trainer: Trainer, model: PruneModel, tmp_path: Path) -> None:
    """A run that is measured must train on as one that is not, or the start's branches would differ by how often they
    were looked at. Also a hit in the cache must not differ."""
    meter = meter_of(trainer, tmp_path)
    weights = copied_state(model)
    for _ in range(2):
        # Python's own generator is left out: the type checker of the tests draws from it.
        torch_state, numpy_state = torch.get_rng_state(), str(np.random.get_state())  # noqa: NPY002
        meter(model)
        measure_sizes(trainer)
        measure_anatomy(model)
        assert torch.equal(torch.get_rng_state(), torch_state)
        assert str(np.random.get_state()) == numpy_state  # noqa: NPY002
    assert model.training and same_bits(copied_state(model), weights)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_same_network_is_measured_once(
    trainer: Trainer, model: PruneModel, renderings: list[Any], tmp_path: Path
) -> None:
    """All branches of a start need its quality: minutes on a CPU. Another process, and other views, have to fit too."""
    first = meter_of(trainer, tmp_path)(model)
    assert len(renderings) == 2
    again = meter_of(trainer, tmp_path)
    assert again(model) == first and len(renderings) == 2 and again.seconds > 0
    assert meter_of(trainer, tmp_path, views=3)(model) != first and len(renderings) == 5
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".json"]


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_a_changed_network_is_measured_anew(
    trainer: Trainer, model: PruneModel, renderings: list[Any], tmp_path: Path, name: str
) -> None:
    """A stale quality after a cut would make pruning look free."""
    meter = meter_of(trainer, tmp_path)
    first = meter(model)
    with torch.no_grad():
        getattr(linears(model.neuron_groups())[LAYER], name).view(-1)[3] += 0.5
    second = meter(model)
    assert len(renderings) == 4 and second.psnr != first.psnr


def test_masked_weights_are_brought_up_to_date(
    trainer: Trainer, model: PruneModel, renderings: list[Any], tmp_path: Path
) -> None:
    """`torch.nn.utils.prune` computes a masked weight in the forward pass; between a training step and the next it is
    that of the step before. The quality of stale weights would come from the cache."""
    meter = meter_of(trainer, tmp_path)
    meter(model)
    mask_neurons(model, {LAYER: torch.arange(8)})
    masked = meter(model)
    layer: Any = linears(model.neuron_groups())[LAYER]
    with torch.no_grad():
        layer.weight_orig.mul_(1.5)
    stepped = meter(model)
    assert len(renderings) == 6 and stepped.psnr != masked.psnr
    assert torch.equal(layer.weight, layer.weight_orig * layer.weight_mask)
    image, truth = render(model, meter.dataset, 0)
    assert stepped.views[0].psnr == pytest.approx(-10 * float(torch.log10(((image - truth) ** 2).mean())), abs=1e-4)


def test_masks_that_do_nothing_are_the_same_network(
    trainer: Trainer, model: PruneModel, renderings: list[Any], tmp_path: Path
) -> None:
    """The content decides, not the names under which a library keeps it."""
    meter = meter_of(trainer, tmp_path)
    first = meter(model)
    mask_neurons(model, {LAYER: torch.arange(16)})
    assert meter(model) == first and len(renderings) == 2


def test_a_picture_is_rendered_even_for_a_known_network(
    trainer: Trainer, model: PruneModel, renderings: list[Any], tmp_path: Path
) -> None:
    """The cache holds numbers only. The picture is the first measured view, and the truth beside it the same one."""
    meter = meter_of(trainer, tmp_path / "cache")
    first = meter(model)
    second = meter(model, tmp_path / "pictures" / "end.png")
    assert len(renderings) == 4 and second == first
    image, truth = render(model, meter.dataset, meter.views[0])
    with Image.open(tmp_path / "pictures" / "end.png") as picture:
        assert np.array_equal(np.asarray(picture), to_uint8(image))
    assert torch.equal(meter.truth(model), truth)


def test_sizes_of_a_dense_and_a_masked_network(trainer: Trainer, model: PruneModel) -> None:
    """Masks save nothing that is stored or computed; what they let live is told apart."""
    dense = measure_sizes(trainer)
    assert dense.parameters == tiny_parameters(16, 8) == dense.nonzero
    assert dense.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert dense.fields_mb == dense.parameters * 4 / 1e6 and dense.checkpoint_mb >= dense.fields_mb
    for name in ("parameters", "macs_per_ray"):
        assert dense.costs[name] == sum(costs[name] for costs in dense.part_costs.values())
    mask_neurons(model, {LAYER: torch.arange(6)})
    masked = measure_sizes(trainer)
    assert (masked.parameters, masked.macs_per_ray, masked.parts) == (
        dense.parameters,
        dense.macs_per_ray,
        dense.parts,
    )
    assert masked.nonzero == dense.nonzero - 10 * (16 + 1)


def test_sizes_count_all_trained_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model shrinks by as much as its file does: what pruning leaves alone counts before and after."""
    model: Any = tiny_model(enable_temporal_distortion=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
        next(model.temporal_distortion.parameters()).view(-1)[:5] = 0
    monkeypatch.setattr(quality, "checkpoint_bytes", lambda trainer: 0)
    found = measure_sizes(SimpleNamespace(pipeline=SimpleNamespace(model=model)))  # type: ignore[arg-type]
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters()) > 2 * tiny_parameters(16, 8)
    assert found.nonzero == found.parameters - 5
    for name in ("parameters", "macs_per_ray"):
        assert found.costs[name] == sum(costs[name] for costs in found.part_costs.values())


def test_stale_masks_do_not_hide_zeros(trainer: Trainer, model: PruneModel) -> None:
    """Counted right after an optimizer step, which moves `weight_orig` only."""
    mask_neurons(model, {LAYER: torch.arange(6)})
    layer: Any = linears(model.neuron_groups())[LAYER]
    with torch.no_grad():
        layer.weight_orig.zero_()
    refresh_masks(model)
    assert int(torch.count_nonzero(layer.weight)) == 0
    assert measure_sizes(trainer).nonzero == tiny_parameters(16, 8) - 16 * 16 - 10


def test_distributions_account_for_every_weight(model: PruneModel) -> None:
    """Figure 2 of the paper is a share of weights below a threshold: a bin left out would shift it."""
    found = measure_anatomy(model)
    fine = [group for group in model.neuron_groups() if group.name.startswith("field_fine.")]
    weights = torch.cat([group.producer.weight.detach().abs().flatten() for group in fine]).numpy()
    assert sum(found.histogram_counts) == len(weights)
    assert len(found.histogram_edges) == len(found.histogram_counts) + 1 == 101
    assert found.histogram_edges == sorted(found.histogram_edges) and found.histogram_edges[0] == 0
    assert found.histogram_edges[-1] == pytest.approx(weights.max(), rel=1e-4)
    half = found.histogram_edges[50]
    assert sum(found.histogram_counts[:50]) == pytest.approx((weights < half).sum(), abs=2)


def test_quantiles_of_scores(model: PruneModel) -> None:
    """Ascending, from the least to the greatest score of a layer, for both fields and every score there is."""
    found = measure_anatomy(model).score_quantiles
    assert set(found) == set(weight_scores())
    for name, score in weight_scores().items():
        assert list(found[name]) == [group.name for group in model.neuron_groups()]
        for group in model.neuron_groups():
            values, exact = found[name][group.name], score(group).detach()
            assert len(values) == 33 and values == sorted(values)
            assert values[0] == pytest.approx(float(exact.min()), rel=1e-3)
            assert values[16] == pytest.approx(float(np.median(exact.numpy())), rel=1e-3)
            assert values[-1] == pytest.approx(float(exact.max()), rel=1e-3)


def test_a_network_of_zeros_has_a_histogram(model: PruneModel) -> None:
    """A collapsed network is a finding; a range of no width would end the run instead of recording it."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    found = measure_anatomy(model)
    assert found.histogram_counts[0] == sum(found.histogram_counts) > 0 and found.histogram_edges[-1] == 1
