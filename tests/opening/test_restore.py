"""`ns-prune restore`: a run made of a file is a run for everybody who opens runs, and shows what the file shows."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from nerfstudio.utils.eval_utils import eval_setup
from nerfstudio.utils.rich_utils import CONSOLE
from support.exported import contrasty, small_model, write_model
from support.exported_kilo import kilo_model, write_kilo
from support.tiny_run import rays, shrink, tiny_widths, train

from nerfstudio_prune.core.events import PruneState
from nerfstudio_prune.engine import run_folder
from nerfstudio_prune.engine.saved_run import read_config
from nerfstudio_prune.export.command import Export
from nerfstudio_prune.export.reading import Exported, read_exported
from nerfstudio_prune.export.rendering import load_exported
from nerfstudio_prune.inspect.inspection import inspect_model
from nerfstudio_prune.kilo.saved_run import load_run as load_tiny
from nerfstudio_prune.nerf.model import PruneModel
from nerfstudio_prune.nerf.saved_run import load_run
from nerfstudio_prune.opening import restoring
from nerfstudio_prune.opening.restore_command import Restore

DEMO = "demo-data --image-size 16 --num-train-views 4 --num-val-views 2 --num-test-views 2 --supersampling 1"


def pruned(**options: Any) -> PruneModel:
    """A network that was cut to half its width."""
    model = small_model(**options)
    model.prune_state = PruneState(initial_sizes=tiny_widths(16, 8))
    return shrink(model, tiny_widths(8, 4)).eval()


def restored(path: Path, folder: Path, **options: Any) -> tuple[Path, str]:
    """The config.yml of the run of a file, and what was said."""
    with CONSOLE.capture() as capture:
        Restore(path, folder / "outputs", **options).main()
    (found,) = (folder / "outputs").glob("*/*/*/config.yml")
    return found, " ".join(capture.get().split())


REAL: dict[str, Any] = {
    "use_scene_contraction": True,
    "coarse_sampler": "piecewise",
    "collider_params": {"near_plane": 0.05, "far_plane": 1000.0},
    "background_color": "last_sample",
}


@pytest.mark.parametrize("options", [{}, REAL, {"position_max_freq_exp": 3.0, "skip_connections": ()}])
@pytest.mark.parametrize("stored", [("tensors", 32), ("payload", 8)])
def test_run_shows_what_the_file_shows(options: Any, stored: Any, tmp_path: Path) -> None:
    """Every option that a picture depends on has to find its way back into config.yml, and every weight that was read
    into the checkpoint."""
    path = write_model(tmp_path / "lego.safetensors", pruned(**options), *stored)
    config_file, _ = restored(path, tmp_path)
    assert config_file.parts[-4:-2] == ("lego", "nerf-prune")
    run = load_run(read_config(config_file), config_file)
    assert run.step == 9
    bundle = rays(64)
    with torch.no_grad():
        expected = load_exported(path)(bundle.origins, bundle.directions)
        found = run.model.eval()(bundle)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-5)
    grey = torch.full_like(found["rgb_coarse"], 0.5)
    seen = found["accumulation_coarse"]
    if run.model.config.background_color == "white":
        torch.testing.assert_close(found["rgb_coarse"], (grey * seen + 1 - seen).clamp(0, 1))
    assert run.model.prune_state.initial_sizes == tiny_widths(16, 8)
    assert inspect_model(run, ("w_out",)).total.now.parameters == sum(p.numel() for p in pruned(**options).parameters())


def test_host_and_export_open_it(tmp_path: Path, scene_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ns-eval` and `ns-viewer` look for checkpoints where the names of the configuration lead to; a file of the run
    holds the same bytes as the one that it was made from."""
    monkeypatch.chdir(tmp_path)
    path = write_model(Path("lego.safetensors"), pruned(), "payload", 8)
    config_file, text = restored(path, Path(), data=scene_cache, dataparser=DEMO)
    assert str(config_file) in text.replace(" ", "") and "No data" not in text
    _, pipeline, _, step = eval_setup(config_file, test_mode="test")
    assert step == 9
    host: Any = pipeline
    host.model.config.skip_empty_space = False
    camera = host.datamanager.eval_dataset.cameras[:1]
    bundle = camera.generate_rays(0)
    picture = host.model.get_outputs_for_camera(camera)["rgb"].view(-1, 3)
    with torch.no_grad():
        expected = load_exported(path)(bundle.origins.view(-1, 3), bundle.directions.view(-1, 3))["rgb"]
    torch.testing.assert_close(picture, expected, rtol=1e-5, atol=1e-5)
    Export(config_file, Path("again.safetensors"), views=0).main()
    first, second = read_exported(path), read_exported(Path("again.safetensors"))
    for name, layer in first.layers.items():
        assert torch.equal(layer.weight, second.layers[name].weight) and torch.equal(
            layer.bias, second.layers[name].bias
        )


@pytest.mark.parametrize("options", [{}, {"narrows": True}, {"background": "last_sample", "contracted": True}])
def test_tiny_networks_come_back(options: Any, tmp_path: Path, scene_cache: Path) -> None:
    """Cells, networks of all widths and steps go into the checkpoint, and what the host needs to make room for them
    into config.yml."""
    path = write_kilo(tmp_path / "a.safetensors", kilo_model(**options))
    config_file, text = restored(path, tmp_path, data=scene_cache, dataparser=DEMO)
    assert "options of the phases" in text
    bundle = rays(200)
    expected = load_exported(path)(bundle.origins, bundle.directions)
    found = load_tiny(read_config(config_file), config_file).model(bundle)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-5)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        host: Any = eval_setup(config_file, test_mode="inference")[1]
    with torch.no_grad():
        torch.testing.assert_close(host.model(bundle)["rgb"], expected["rgb"], rtol=1e-5, atol=1e-5)


def test_training_goes_on_with_it(tmp_path: Path, tiny_config: Any) -> None:
    """A network that came as a file can be trained on and pruned further: targets count from its widths at first, and
    the coarse field's colour, which begins at grey, learns."""
    path = write_model(tmp_path / "lego.safetensors", pruned())
    config_file, _ = restored(path, tmp_path)
    config = tiny_config("on", pruning_ratio=0.75, start_step=12, schedule="one-shot")
    config.load_dir, config.max_num_iterations = config_file.parent / "nerfstudio_models", 6
    model = train(config).pipeline.model
    assert {group.name: group.width for group in model.neuron_groups()} == tiny_widths(4, 2)
    assert float(model.field_coarse.field_heads[0].net.weight.detach().abs().max()) > 0


def test_scene_is_noted(tmp_path: Path) -> None:
    """A file that is made of the run again says where its scene lies; one that did not say it does not begin to."""
    noted = {"transform": [[1.0, 0, 0, 0.5], [0, 0, -1, 0], [0, 1, 0, 0]], "scale": 0.25}
    plain = restored(write_model(tmp_path / "lego.safetensors", small_model()), tmp_path)[0]
    assert not (plain.parent / "dataparser_transforms.json").exists()
    (plain.parent / "dataparser_transforms.json").write_text(json.dumps(noted))
    Export(plain, tmp_path / "b.safetensors", views=0).main()
    again = restored(tmp_path / "b.safetensors", tmp_path / "second")[0]
    assert json.loads((again.parent / "dataparser_transforms.json").read_text()) == noted


def test_nothing_is_left_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run without a checkpoint would look like one that was lost."""
    path = write_model(tmp_path / "lego.safetensors", small_model())

    def full(*arguments: Any) -> Any:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "write_checkpoint", full)
        with pytest.raises(ValueError, match=r"--output-dir .*no space left"):
            Restore(path, tmp_path / "outputs").main()
    assert [file for file in (tmp_path / "outputs").rglob("*") if file.is_file()] == []
    config_file, _ = restored(path, tmp_path)
    config = read_config(config_file)
    with pytest.raises(OSError, match="already"):
        run_folder.write_run(config, {"step": 1})


@pytest.mark.parametrize("change", ["padding", "layers", "trained"])
def test_files_that_no_run_has(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file may describe what the reader renders and no option of a run can say; a run of something else must not
    come of it."""
    model = contrasty(small_model())
    if change == "padding":
        model.sampler_pdf.histogram_padding = 0.02
    path = write_model(tmp_path / "a.safetensors", model)
    exported = read_exported(path)
    metadata: Any = deepcopy(exported.metadata)
    if change == "layers":
        metadata.coarse.trunk.pop()
    elif change == "trained":
        metadata.fine.trained.pop()
    monkeypatch.setattr(restoring, "read_exported", lambda _: Exported(metadata, exported.layers, {}, 1))
    with pytest.raises(ValueError, match=r"a\.safetensors.*(padding|field_)"):
        Restore(path, tmp_path / "outputs").main()
    assert not (tmp_path / "outputs").exists()
