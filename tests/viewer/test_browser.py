"""The panel as a person uses it: a real training, a real browser. Screenshots are left in pytest's temporary folder.

What is asserted holds at any speed: the network does not depend on how far the training has got, and what should happen
soon may take minutes.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.browser import CHROMIUM, PanelPage, Training, chromium, steady
from support.tiny_run import make_config, start

from nerfstudio_prune.engine.host import reset_host
from nerfstudio_prune.scenes.demo_dataparser import DemoDataParserConfig

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt install chromium)"),
]

OPTIONS = """ns-train nerf-prune-demo --machine.device-type cpu --vis viewer --viewer.image-format png
    --viewer.default-composite-depth False --max-num-iterations 1000000 --output-dir runs --steps-per-save 1000000
    --pipeline.model.base-mlp-num-layers 5 --pipeline.model.base-mlp-layer-width 32
    --pipeline.model.head-mlp-layer-width 16 --pipeline.model.skip-connections 2
    --pipeline.model.num-coarse-samples 16 --pipeline.model.num-importance-samples 16
    --pipeline.model.skip-empty-space False
    --pipeline.datamanager.train-num-rays-per-batch 64 --pipeline.datamanager.eval-num-rays-per-batch 64
    --pipeline.prune.start-step 900000 --pipeline.prune.num-eval-rays 256 --pipeline.prune.min-width 4
    demo-data --data scene --image-size 32 --num-train-views 6 --num-val-views 2 --num-test-views 2
    --supersampling 1""".split()

WIDTHS = "[...document.querySelectorAll('.js-plotly-plot')].map(e => e.clientWidth)"
RANGE = "document.querySelector('.js-plotly-plot')._fullLayout.yaxis.range"
TITLES = "[...document.querySelectorAll('.js-plotly-plot .xtitle')].map(e => e.textContent).join()"


def save_network(folder: Path) -> Path:
    """A checkpoint of a network with strong contrasts, which looks another one without some neurons and stays as it is.

    Its weights are three times those of a new network, and its learning rate is next to nothing. It is fog all over,
    which no grid tells from empty space: the pictures would change with the first grid, whenever a test gets to it.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    config = make_config(folder, folder, method="nerf-prune-demo", preset=None, start_step=900_000, min_width=4)
    config.max_num_iterations = 1_000_000
    model, fields = config.pipeline.model, config.optimizers["fields"]
    model.base_mlp_layer_width, model.head_mlp_layer_width = 32, 16
    model.num_coarse_samples = model.num_importance_samples = 16
    fields["optimizer"].lr = fields["scheduler"].lr_final = 1e-12
    config.pipeline.datamanager.dataparser = DemoDataParserConfig(
        data=folder / "scene", image_size=32, num_train_views=6, num_val_views=2, num_test_views=2, supersampling=1
    )
    try:
        trainer = start(config)
        with torch.no_grad():
            for name, parameter in trainer.pipeline.model.named_parameters():
                if name.startswith("field_") and name.endswith("weight"):
                    parameter.mul_(3)
        trainer.save_checkpoint(0)
    finally:
        reset_host()
        torch.set_flush_denormal(False)
        torch.set_num_threads(threads)
    return trainer.checkpoint_dir


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Training]:
    """A training that goes on until it is stopped."""
    folder = tmp_path_factory.mktemp("training")
    environment = {"TORCH_HOME": str(folder / "torch"), "XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    checkpoints = save_network(folder)
    process = Training([*OPTIONS[:2], "--load-dir", str(checkpoints), *OPTIONS[2:]], folder, environment)
    try:
        process.wait()
        yield process
    finally:
        process.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One browser for all tests."""
    with chromium() as found:
        yield found


@pytest.fixture
def open_page(browser: Any, training: Training) -> Iterator[Callable[[], PanelPage]]:
    """Opens tabs, and closes what was opened."""
    pages: list[PanelPage] = []

    def opened() -> PanelPage:
        pages.append(PanelPage(browser, training.url))
        if "Resume Training" in pages[-1].text():  # an earlier test failed half-way
            pages[-1].click("Resume Training")
        return pages[-1]

    yield opened
    for page in pages:
        page.page.close()
    assert [error for page in pages for error in page.errors] == []
    assert training.process.poll() is None
    assert "Traceback" not in training.log.read_text()


def trunk_widths(page: PanelPage) -> str:
    """The first row of the table of layers."""
    pattern = r"mlp_base 0 ((?:\d+(?: of \d+)? ?)+)"
    found = re.search(pattern, page.wait_for(pattern))  # the folder opens slowly on a busy machine
    assert found is not None
    return found[1].strip()


def test_preview_prune_compare_undo(open_page: Callable[[], PanelPage], tmp_path: Path) -> None:
    """The whole use of the panel in one piece, by what the page shows. The training is paused at first, so that every
    change of the picture is the preview's, and switching it off must always bring the same picture back: the weights
    were not touched. Every later step depends on trainer, viewer and page working together, which no test of the parts
    shows."""
    page = open_page()
    page.wait_for(r"dense , ?step \d+|dense, step \d+")
    page.fold("Layers")
    assert trunk_widths(page) == "32 32"
    page.screenshot(tmp_path / "1-dense.png")

    page.click("Pause Training")
    page.wait_for("paused")
    page.choose("strategy", "importance")
    page.choose("refit", "none")
    page.choose("target", "pruning_ratio")
    page.enter("value", "0.8")
    uncut = steady(page)
    page.check("preview")
    text = page.wait_for(r"with the cut.*PSNR, dB \d")
    before, after = (
        int(number.replace(",", "")) for number in re.findall(r"with the cut parameters (\S+) (\S+)", text)[0]
    )
    assert before > 3 * after
    cut = steady(page, unlike=uncut)
    page.screenshot(tmp_path / "2-preview.png")
    assert trunk_widths(page) == "32 32"
    for shown in (uncut, cut, uncut):
        page.check("preview")
        page.wait_for("with the cut", gone=shown is uncut)
        steady(page, like=shown)

    page.enter("value", "0.5")
    page.click("Prune now")
    page.wait_for("prune: at the next step")
    assert trunk_widths(page) == "32 32"
    steady(page, like=uncut)
    page.click("Resume Training")
    page.wait_for(r"→ [\d,]+ parameters")
    page.wait_until(lambda: trunk_widths(page) == "16 of 32 16 of 32", "halved widths")
    page.screenshot(tmp_path / "3-pruned.png")

    page.click("Pause Training")
    page.wait_for("paused")
    rgb = steady(page, unlike=uncut)
    page.choose("Output type", "rgb_before")
    rgb_before = steady(page, like=uncut)
    page.choose("Output type", "difference")
    steady(page, unlike=rgb_before)
    page.choose("Output type", "rgb")
    steady(page, like=rgb)
    page.split()
    page.wait_until(lambda: page.row("Output render split").first.input_value() == "rgb_before", "rgb_before beside it")
    middle = rgb.shape[1] // 2
    halves = np.concatenate([rgb[:, :middle], rgb_before[:, middle:]], axis=1)
    halves[:, middle] = np.nan  # the line between them
    steady(page, like=halves)
    page.screenshot(tmp_path / "4-split.png")
    page.split()
    page.click("Resume Training")

    page.click("Undo")
    page.wait_for("is undone")
    page.wait_until(lambda: trunk_widths(page) == "32 32", "the first widths")
    page.wait_for("Undo: no pruning in this process to undo")
    page.screenshot(tmp_path / "5-undone.png")


def falls(ends: list[float]) -> bool:
    low, high = ends
    return low > high


def test_plots(open_page: Callable[[], PanelPage], tmp_path: Path) -> None:
    """viser draws plots with a program that is sent with the first one, at a width that it does not know yet; all four
    kinds must appear, in the panel's width, and with axes of their own: all are drawn into one element, whose range and
    direction from the plot before would show nothing."""
    page = open_page()
    page.fold("Plots")
    page.click("Draw")
    for name in ("scores", "weights", "sizes", "PSNR"):
        page.choose("plot", name)
        wanted = {"scores": "layer's neurons", "weights": "weight", "sizes": "width", "PSNR": "training step"}[name]
        page.wait_until(lambda wanted=wanted: wanted in page.page.evaluate(TITLES), f"plot {name}")
        page.wait_until(lambda: max(page.page.evaluate(WIDTHS)) < 350, f"plot {name} of the panel's width")
        downwards = name == "sizes"  # names of layers read from the top
        page.wait_until(lambda wanted=downwards: falls(page.page.evaluate(RANGE)) == wanted, f"the axis of {name}")
        page.screenshot(tmp_path / f"{name}.png")


def step_of(page: PanelPage) -> int:
    """The training step that the panel names."""
    pattern = r"(?:dense|recovery|pruning), step ([\d,]+)"
    found = re.search(pattern, page.wait_for(pattern))
    assert found is not None
    return int(found[1].replace(",", ""))


def test_two_tabs_and_one_that_leaves(open_page: Callable[[], PanelPage]) -> None:
    """Both tabs show one state, clicks from both are fast and contradictory, and one tab is closed while the network is
    being pruned; the training must go on, and the other tab with it."""
    one, other = open_page(), open_page()
    one.choose("target", "pruning_ratio")
    one.enter("value", "0.25")
    other.wait_until(lambda: other.row("target").first.input_value() == "pruning_ratio", "the other tab's choice")
    for _ in range(5):
        one.page.get_by_role("button", name="Prune now", exact=True).click(force=True)
        other.page.get_by_role("button", name="Prune now", exact=True).click(force=True)
        other.page.get_by_role("button", name="Undo", exact=True).click(force=True)
    other.page.close()
    one.wait_for(r"Step \d+")
    one.wait_for("⏳", gone=True)
    step = step_of(one)
    one.wait_until(lambda: step_of(one) > step, "further steps")
