"""`ns-prune inspect` on Gaussians: what it says of a run must be what is in the checkpoint, and it must need nothing
but that."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.data.datamanagers.base_datamanager import DataManager
from rich.console import Console
from support.saved_run import save_run
from support.tiny_splats import saving, tiny_config, tiny_model, train

from nerfstudio_prune.engine.host import reset_host
from nerfstudio_prune.engine.saved_run import SavedRunError
from nerfstudio_prune.inspect.command import Inspect
from nerfstudio_prune.inspect.gaussian_inspection import GaussianInspection, spread_of
from nerfstudio_prune.inspect.gaussian_tables import all_gaussian_tables
from nerfstudio_prune.inspect.showing import inspect_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished run with two cuts, the first of which fails, and a lowered degree; checkpoints of every step."""
    folder = tmp_path_factory.mktemp("runs")
    options = {"score": "opacity", "num_events": 2, "schedule": "iterative", "start_step": 10, "stop_step": 13}
    config = saving(tiny_config(folder, folder / "scene", **options, sh_degree=1, sh_step=15, on_error="continue"))
    config.save_config()
    trainer = None
    with pytest.MonkeyPatch.context() as patch:
        from nerfstudio_prune.splats.subject import GaussianSubject  # noqa: PLC0415  only its first event fails

        inner, seen = GaussianSubject.check, []

        def check(self: Any) -> None:
            seen.append(1)
            if len(seen) == 1:
                raise ValueError("[one] that fails")
            inner(self)

        patch.setattr(GaussianSubject, "check", check)
        trainer = train(config)
    yield trainer
    reset_host()


@pytest.fixture(autouse=True)
def no_data(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are looked at on machines that have no data set."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the data set is loaded")

    monkeypatch.setattr(DataManager, "__init__", refuse)


def printed(found: GaussianInspection) -> str:
    """The tables as a terminal of 100 columns shows them."""
    console = Console(width=100, color_system=None)
    with console.capture() as capture:
        for part in all_gaussian_tables(found):
            console.print(part)
    return capture.get()


def test_pruned_run(run: Any) -> None:
    """Numbers are those of the tensors and of the checkpoint's history, not of the configuration, which has the degree
    of the start and knows no number at all."""
    found, model = inspect_run(run.base_dir / "config.yml"), run.pipeline.model
    failed, cut, lowered = model.prune_state.history
    assert (found.method, found.step, found.strategy, found.phase) == ("splat-prune", 19, "rank", "recovery")
    assert found.now.parts == {"gaussians": model.num_points, "sh_degree": 1} == lowered.after.parts
    assert found.initial == cut.before and found.history == [failed, cut, lowered] and not found.pending
    assert found.now.costs["bytes"] == sum(p.numel() for p in model.gauss_params.values()) * 4
    opacities = torch.sigmoid(model.opacities.detach()).flatten()
    assert found.unseen == int((opacities < 1 / 255).sum())
    spread = found.spreads["opacity"]
    assert (spread.minimum, spread.maximum) == pytest.approx((float(opacities.min()), float(opacities.max())))
    sizes = model.scales.detach().exp()
    assert found.spreads["shortest axis"].maximum == pytest.approx(float(sizes.amin(dim=1).max()))
    assert found.spreads["longest by shortest"].minimum >= 1
    text = printed(found)
    first, last = cut.before.parts["gaussians"], model.num_points
    for part in (
        f"{first:,} → {last:,} ({first / last:.2f}x fewer)",
        "3 → 1",
        "rank by opacity",
        f"Gaussians {first:,} → {last:,} ",
        "spherical harmonics",
        "SH degree 3 → 1 ",
        "step 10 failed, the model stayed as it was: [one] that fails",
        "Events to come: none",
    ):
        assert part in text, part
    assert max(map(len, text.splitlines())) <= 100 and "…" not in text


def test_run_on_the_way(run: Any) -> None:
    """Halfway through, the plan is told in the words of its targets."""
    found = inspect_run(run.base_dir / "config.yml", 9)
    assert found.phase == "dense" and found.now == found.initial and found.spreads["harmonics"].maximum > 0
    text = printed(found)
    assert "nothing was pruned yet" in text and "→" not in text
    assert "Event to come at step 13: to 34% of the Gaussians" in text
    assert "Event to come at step 15: to spherical harmonics of degree 1" in text


def test_quantiles_by_hand() -> None:
    """The shares are of Gaussians, whatever their order."""
    spread = spread_of(torch.randperm(101).double())
    assert (spread.minimum, spread.q05, spread.q25, spread.median) == (0, 5, 25, 50)
    assert (spread.q75, spread.q95, spread.maximum) == (75, 95, 100)
    assert spread_of(torch.tensor([3.0])).q95 == 3


def test_stock_and_diverged_runs(tmp_path: Path) -> None:
    """A run of the stock method carries nothing about pruning, and one that diverged is one that people inspect: that
    must be said, not end in an error or in quantiles that are no numbers."""
    model = tiny_model(10)
    with torch.no_grad():
        model.gauss_params["scales"][2, 1] = float("nan")
        model.gauss_params["opacities"][:, 0] = torch.tensor([-9.0, *range(8), float("inf")])
    state = {key: value for key, value in model.state_dict().items() if key != "_extra_state"}

    class Holder(torch.nn.Module):
        def state_dict(self) -> Any:  # type: ignore[override]
            return {**state, "lpips.net.weight": torch.zeros(3)}

    output = tmp_path / "out.json"
    path = save_run(tmp_path / "run", Holder(), all_methods["splatfacto"])
    Inspect(path, output=output).main()
    found = inspect_run(path)
    assert (found.method, found.strategy, found.now.parts["gaussians"]) == ("splatfacto", None, 10)
    assert found.not_finite == {"scales": 1, "opacities": 1} and found.unseen == 1
    assert "scales: 1 values are not finite: the run has diverged" in printed(found)
    values = json.loads(output.read_text("utf-8"), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert values["now"]["parts"] == {"gaussians": 10, "sh_degree": 3} and values["spreads"]["opacity"]["minimum"] > 0


def test_errors(run: Any, tmp_path: Path) -> None:
    """Scores need views; other methods are refused with all that can be shown; what is no checkpoint of Gaussians is
    named."""
    with pytest.raises(ValueError, match="--score w_out: what Gaussians are worth is seen on the training views"):
        inspect_run(run.base_dir / "config.yml", scores=("w_out",))
    path = save_run(tmp_path / "other", tiny_model(10), all_methods["nerfacto"])
    with pytest.raises(
        SavedRunError, match="expected a run of nerf-prune, vanilla-nerf, splat-prune or splatfacto, got"
    ):
        inspect_run(path)
    path = save_run(tmp_path / "empty", torch.nn.Linear(1, 1), all_methods["splatfacto"])
    with pytest.raises(SavedRunError, match=r"step-000000009.ckpt: the checkpoint is not one of Gaussians: 6 missing"):
        inspect_run(path)
