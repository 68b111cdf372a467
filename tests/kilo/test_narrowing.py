"""Networks become narrower between the phases: to a budget, the easy ones first, and the run goes on as any other."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny_kilo import DISTIL, FINETUNE, Teacher, make_kilo, psnr
from support.tiny_run import resume, same_bits, start, train

from nerfstudio_prune.kilo.narrowing import described, narrower
from nerfstudio_prune.kilonerf.classes import class_widths

Make = Callable[..., Any]
SHARE = 0.55


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, scene_cache: Path, teacher: Teacher) -> Any:
    """A run of a few steps that keeps a checkpoint of each."""
    folder = tmp_path_factory.mktemp("narrow")
    config = make_kilo(folder, scene_cache, "whole", teacher.config_file, grid__resolution=3, grid__narrow_to=SHARE)
    config.steps_per_save, config.save_only_latest_checkpoint = 1, False
    return train(config)


def test_a_run_keeps_its_share(whole: Any) -> None:
    """What is asked for is what is left, and of several widths: networks with little in their cells are cut further."""
    networks = whole.pipeline.model.networks
    full = networks.shapes[-1].parameters * networks.num_networks
    assert [shape.hidden_width for shape in networks.shapes] == class_widths(16) == [4, 8, 12, 16]
    assert 0.8 * SHARE * full < networks.num_parameters <= SHARE * full
    assert sum(networks.counts) == networks.num_networks and sum(count > 0 for count in networks.counts) > 1
    optimizer = whole.optimizers.optimizers["networks"]
    assert optimizer.param_groups[0]["params"] == list(networks.parameters())
    assert float(optimizer.state_dict()["state"][0]["step"]) == FINETUNE
    text = described(networks)
    assert all(
        f"{n} of width {s.hidden_width}" in text for n, s in zip(networks.counts, networks.shapes, strict=True) if n
    )


@pytest.mark.parametrize("step", [DISTIL - 2, DISTIL - 1, DISTIL + 2])
def test_a_resumed_run_is_the_uninterrupted_one(make: Make, whole: Any, step: int) -> None:
    """Stopped before networks become narrower, just before, or after: the end is the same, bit for bit. Once the last
    step of the first phase is over no teacher is asked."""
    config = resume(make("resumed", grid__resolution=3, grid__narrow_to=SHARE), whole, step, 1_000_000)
    if step >= DISTIL - 1:
        config.pipeline.teacher = None
    other = train(config)
    ends = [trainer.optimizers.optimizers["networks"].state_dict() for trainer in (whole, other)]
    assert same_bits(*ends)
    assert same_bits(*(dict(trainer.pipeline.model.state_dict()) for trainer in (whole, other)))


def test_a_checkpoint_of_several_widths_is_loaded(make: Make, whole: Any) -> None:
    """`ns-eval` shows what was trained; and options that make no room for it are named."""
    entries = {"_model." + name: value for name, value in whole.pipeline.model.state_dict().items()}
    other: Any = whole.config.pipeline.setup(device="cpu", test_mode="val")
    other.load_pipeline(entries, 0)
    assert other.model.networks.counts == whole.pipeline.model.networks.counts
    assert psnr(other) == psnr(whole.pipeline)
    plain: Any = make(grid__resolution=3).pipeline.setup(device="cpu", test_mode="val")
    with pytest.raises(ValueError, match=r"not one of this model.*--pipeline\.grid\.narrow-to as in its run"):
        plain.load_pipeline(entries, 0)
    mixed = dict(entries)
    for name in [name for name in entries if ".stacks.0." in name]:
        mixed[name] = entries[name.replace(".stacks.0.", ".stacks.1.")].clone()
    with pytest.raises(ValueError, match=r"networks in the checkpoint must differ in ascending widths"):
        other.load_pipeline(mixed, 0)


def test_what_matters_least_is_cut(make: Make) -> None:
    """A network of which half the neurons do nothing is cut to half before any other, and shows what it showed. If
    networks were cut at random, or all alike, its picture would change."""
    trainer = start(make(grid__resolution=3, grid__narrow_to=SHARE))
    model = trainer.pipeline.model
    lazy, generator = 0, torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.stack.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (0.5 if name.startswith("w") else 0.1))
        for name in ("w2", "w_density", "w_feature", "w_rgb"):
            getattr(model.stack, name)[lazy, 8:] = 0
        for name in ("w_feature", "w_direction", "b_feature", "w1", "b1", "w2", "b2"):
            getattr(model.stack, name)[lazy, :, 8:] = 0
    cameras = trainer.pipeline.datamanager.train_dataset.cameras
    before = [model.networks.num_networks, model.networks.num_parameters]
    # Room for one step down, from 16 to 8 neurons, and no more.
    half, full = model.networks.shapes[1].parameters, model.networks.shapes[3].parameters
    share = (before[1] - (full - half)) / before[1]
    found = narrower(model, cameras, share, torch.Generator().manual_seed(1))
    assert found.widths.tolist() == [8] + [16] * (before[0] - 1)
    assert [model.networks.num_networks, model.networks.num_parameters] == before
    points = 2 * torch.rand(before[0], 50, 3, generator=generator) - 1
    towards = torch.nn.functional.normalize(torch.randn(before[0], 50, 3, generator=generator), dim=-1)
    for own, other in zip(model.networks.batched(points, towards), found.batched(points, towards), strict=True):
        assert torch.allclose(own, other, atol=2e-3)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"grid__narrow_to": 1.0}, r"grid\.narrow_to must be in \(0, 1\), got 1\.0"),
        (
            {"grid__narrow_to": 0.5, "grid__hidden_width": 3},
            r"pipeline\.grid\.hidden_width must be at least 4 for netw",
        ),
        ({"grid__narrow_to": 0.5, "distil__steps": 0}, r"narrow_to needs pipeline\.distil\.steps of at least 1, got 0"),
        ({"grid__narrow_to": 0.5, "finetune__steps": 0}, r"narrow_to needs pipeline\.finetune\.steps of at least 1"),
    ],
)
def test_options_that_do_not_go_together(make: Make, given: Any, text: str) -> None:
    """Told before anything is loaded, not when distilling is over."""
    with pytest.raises(ValueError, match=text):
        make(**given).pipeline.setup(device="cpu", test_mode="val")


def test_a_share_that_no_network_can_have(make: Make) -> None:
    """Before the first step: the least that would do is named."""
    with pytest.raises(
        ValueError, match=r"grid\.narrow_to must be at least 0\.\d+, the share .* width 4 .* of width 16"
    ):
        start(make(grid__resolution=3, grid__narrow_to=0.05))
