"""Finished Gaussians, cut: what is written is what an event of a training would have left, and the host opens it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from nerfstudio.utils.eval_utils import eval_setup
from support import tiny_splats
from support.finished_runs import all_bytes, typed
from support.tiny_run import same_bits
from support.tiny_splats import NAMES, STEPS

from nerfstudio_prune.apply.applying import apply
from nerfstudio_prune.apply.command import Apply
from nerfstudio_prune.apply.scenes import Scenes
from nerfstudio_prune.engine.saved_run import read_config
from nerfstudio_prune.inspect.showing import inspect_run
from nerfstudio_prune.splats.config import SplatPruneConfig

Ask = Callable[..., Apply]
HALF = {"score": "opacity", "pruning-ratio": "0.5"}
"""Looks at no view, so that it does not matter which of them are kept back."""


@pytest.fixture
def ask(asked: Ask, finished_splats: Path) -> Ask:
    """Makes commands for the run of Gaussians."""
    return lambda **options: asked(**{"load_config": finished_splats, **options})


def written(asked: Apply) -> Path:
    """Carries a command out, and gives the new run's config.yml."""
    apply(asked)
    assert asked.output_dir is not None and asked.timestamp is not None
    return asked.output_dir / "tiny" / "splat-prune" / asked.timestamp / "config.yml"


def content(file: Path) -> dict[str, Any]:
    """The only checkpoint of a run."""
    (path,) = (file.parent / "nerfstudio_models").iterdir()
    return torch.load(path, map_location="cpu", weights_only=True)


def means(state: dict[str, Any]) -> torch.Tensor:
    """Centres of a checkpoint."""
    return state["pipeline"]["_model.gauss_params.means"]


def test_it_is_the_event_of_a_training(ask: Ask, finished_splats: Path, tmp_path: Path) -> None:
    """There is one way to prune: the same cut, asked for by hand in a training that goes on from the same checkpoint,
    leaves the same Gaussians and moments, bit for bit; and the files hold the same entries."""
    new = content(written(ask(prune=HALF)))
    config: Any = read_config(finished_splats)
    config.output_dir, config.load_dir = tmp_path / "again", finished_splats.parent / "nerfstudio_models"
    trainer = tiny_splats.start(config)
    model = trainer.pipeline.model
    degree = model.gaussians.sh_degree
    trainer.pipeline.controller.prune_by_hand(
        SplatPruneConfig(score="opacity", pruning_ratio=0.5, sh_degree=degree), STEPS - 1
    )
    state = {f"_model.{name}": value for name, value in model.state_dict().items()}
    assert new["pipeline"].keys() == trainer.pipeline.state_dict().keys() == state.keys()
    assert all(same_bits(new["pipeline"][name], state[name]) for name in state if not name.endswith("_extra_state"))
    optimizers = {name: optimizer.state_dict() for name, optimizer in trainer.optimizers.optimizers.items()}
    assert same_bits(new["optimizers"], optimizers)


def test_what_is_written(ask: Ask, finished_splats: Path) -> None:
    """Half of the Gaussians stay, in their order and with all harmonics, and the run is never changed."""
    before = all_bytes(finished_splats.parent)
    file = written(ask(prune=HALF))
    assert all_bytes(finished_splats.parent) == before
    old, new = means(content(finished_splats)), means(content(file))
    assert len(new) == len(old) - round(len(old) * 0.5)
    places = [next(i for i, row in enumerate(old) if torch.equal(row, kept)) for kept in new]
    assert places == sorted(places)
    found = inspect_run(file)
    assert found.now.parts["sh_degree"] == found.initial.parts["sh_degree"] == 3
    assert [event.strategy for event in found.history] == ["rank"] and not found.pending


def test_scores_see_other_views_than_are_measured_on(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is promised would else be about views that the cut was made to suit."""
    opened = Scenes().open(read_config(ask().load_config), ask().load_config, _asked())
    recipe: Any = SplatPruneConfig().filled().resolve()
    judged = opened.subject_of(SplatPruneConfig().filled()).gather(recipe, 0).views
    seen: list[int] = []
    pipeline: Any = opened.subject_of(SplatPruneConfig().filled()).gather_views.func.__self__  # type: ignore[attr-defined]
    inner = pipeline.view
    monkeypatch.setattr(pipeline, "view", lambda split, view: seen.append(view) or inner(split, view))
    assert len(opened.held_out.psnr(opened.model)) == 2
    cameras = pipeline.datamanager.train_dataset.cameras.camera_to_worlds
    measured = [cameras[view, :3, 3] for view in seen]
    assert len(judged) == 2 and len(seen) == 2
    for view in judged:
        place = -view.viewmat[:3, :3].T @ view.viewmat[:3, 3]
        assert all(float((place.cpu() - other).norm()) > 1e-3 for other in measured)


def _asked() -> Any:
    from nerfstudio_prune.apply.opened import Asked  # noqa: PLC0415

    return Asked(None, None, 64)


def test_the_host_opens_it_and_trains_on(ask: Ask, tmp_path: Path, scene_cache: Path) -> None:
    """Nothing grows back, and nothing is cut again, not even by the degree that the preset lowers."""
    file = written(ask(prune=HALF))
    _, pipeline, _, step = eval_setup(file, test_mode="test")
    assert step == STEPS - 1 and pipeline.model.num_points == len(means(content(file)))
    config = tiny_splats.tiny_config(tmp_path / "on", scene_cache)
    config.load_dir, config.max_num_iterations = file.parent / "nerfstudio_models", 3
    trainer = tiny_splats.train(config)
    tiny_splats.check_whole(trainer)
    assert trainer.pipeline.model.num_points == pipeline.model.num_points
    assert trainer.pipeline.model.gaussians.sh_degree == 3
    assert len(trainer.pipeline.model.prune_state.history) == 1


def test_the_printed_line_trains_on(
    ask: Ask, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever types what is printed, and no more, trains the new run on; nothing grows back."""
    file = written(ask(prune=HALF))
    count, step = len(means(content(file))), content(file)["step"]
    typed(capsys.readouterr().out, monkeypatch)
    new = content(file)
    assert new["step"] > step and len(means(new)) == count


def test_a_stock_run(stock_splats: Path, ask: Ask) -> None:
    """A run of Nerfstudio's own `splatfacto` becomes one of `splat-prune`, with moments of the Gaussians that stay."""
    before = all_bytes(stock_splats.parent)
    old = content(stock_splats)
    file = written(ask(load_config=stock_splats, prune={"strategy": "random", "target-gaussians": "40"}))
    assert all_bytes(stock_splats.parent) == before
    new = content(file)
    assert not any("lpips" in name for name in new["pipeline"])
    assert len(means(new)) == 40 < len(means(old))
    assert set(new["optimizers"]) == set(old["optimizers"]) >= set(NAMES)
    assert eval_setup(file, test_mode="inference")[3] == 1000


@pytest.mark.parametrize("words", [{"target_mb": 0.02}, {"prune": {"max-psnr-drop": "1"}}, {"target_psnr_drop": 3.0}])
def test_other_targets(ask: Ask, finished_splats: Path, words: dict[str, Any]) -> None:
    """A size in bytes, 236 a Gaussian; a loss on the views that the cut sees; a loss that is promised on others."""
    file = written(ask(**{"rays": None, **words}))
    count, first = len(means(content(file))), len(means(content(finished_splats)))
    assert count < first
    (event,) = inspect_run(file).history
    if "target_mb" in words:
        assert count == 20_000 // 236
    if "target_psnr_drop" in words:
        assert event.metrics_before["psnr"] - event.metrics_after["psnr"] <= 3.0


def test_a_dry_run_writes_nothing(ask: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Quality at a tenth, 15, 28 and 50 % of the Gaussians."""
    apply(ask(dry_run=True, prune={"score": "contribution", "rounds": "1"}))
    assert not list(tmp_path.iterdir())
    assert "Size and quality" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prune": {"sh-degree": "1"}}, "--prune sh-degree: is about a training"),
        ({"prune": {"distil.steps": "3"}}, "--prune distil.steps: is about a training"),
        ({"prune": {"target-gaussians": "3"}}, "prune.target_gaussians 3: at least .* must stay"),
        ({"prune": {"width": "3"}}, "--prune width: there is no such option"),
        ({"prune": {"pruning-ratio": "0.5"}, "target_psnr_drop": 0.2}, "searches the size, and prune.pruning_ratio"),
        ({"prune": {"strategy": "none"}}, "strategy none removes nothing"),
        ({"data": Path("/dev/null/none")}, "Gaussians are judged by what training views see"),
    ],
)
def test_what_is_refused(ask: Ask, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    """Each names the option, and no folder appears."""
    with pytest.raises(ValueError, match=message):
        apply(ask(**options))
    assert not list(tmp_path.iterdir())


def test_a_run_that_still_grows(stock_splats: Path, ask: Ask, tmp_path: Path) -> None:
    """Opacities that were just reset say nothing about a Gaussian."""
    config: Any = read_config(stock_splats)
    config.pipeline.model.stop_split_at = 5000
    (tmp_path / "nerfstudio_models").symlink_to(stock_splats.parent / "nerfstudio_models")
    (tmp_path / "config.yml").write_text(yaml.dump(config))
    with pytest.raises(ValueError, match=r"of step 1,000 is not to be cut yet: .* Train it to step 5,500"):
        apply(ask(load_config=tmp_path / "config.yml", prune=HALF))
    assert not (tmp_path / "new").exists()
