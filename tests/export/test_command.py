"""`ns-prune export`: the file, and what is said of it, which must be true of what was read back."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.utils.rich_utils import CONSOLE
from support.exported import small_model
from support.saved_run import save_run
from support.tiny_run import make_config, shrink, tiny_widths

from nerfstudio_prune.core.events import PruneState
from nerfstudio_prune.export.command import Export
from nerfstudio_prune.export.comparing import compare
from nerfstudio_prune.export.numbers import Numbers, numbers_of
from nerfstudio_prune.export.reading import read_exported
from nerfstudio_prune.export.rendering import load_exported
from nerfstudio_prune.export.run_data import read_data
from nerfstudio_prune.nerf.model import PruneModel

NOTED = {"transform": [[1.0, 0, 0, 0.5], [0, 0, -1, 0], [0, 1, 0, 0]], "scale": 0.25}


def pruned_model() -> PruneModel:
    """A network that was cut to half its width."""
    model = small_model()
    model.prune_state = PruneState(initial_sizes=tiny_widths(16, 8))
    return shrink(model, tiny_widths(8, 4)).eval()


@pytest.fixture
def run(tmp_path: Path, scene_cache: Path) -> Path:
    """The config.yml of a run on two test views of 16x16 pixels."""
    return save_run(tmp_path / "run", pruned_model(), make_config(tmp_path, scene_cache))


def printed(options: Export) -> str:
    """What the command says, without the breaks of lines."""
    with CONSOLE.capture() as capture:
        options.main()
    return " ".join(capture.get().split())


def test_file_and_what_is_said_of_it(run: Path, tmp_path: Path) -> None:
    """Size and bits are those of the file on the disk, header included; quality is that of what was read back."""
    path = tmp_path / "new" / "a.safetensors"
    text = printed(Export(run, path, bits=5.0, compress=True, views=2))
    found, size = read_exported(path), path.stat().st_size
    assert {layer.bits for layer in found.metadata.layers().values()} == {5, 8} and found.metadata.storage == "lzma"
    assert "int5, compensated rounding, compressed" in text
    assert f"{size:,} bytes, {8 * size / found.metadata.parameters:.2f} bits per parameter" in text
    whole = sum(p.numel() for p in pruned_model().parameters())
    assert (
        f"{found.metadata.parameters:,} of {whole:,}" in text
        and f"{4 * whole:,} bytes in fp32, the checkpoint without" in text
    )
    checkpoint = run.parent / "nerfstudio_models" / "step-000000009.ckpt"
    assert f"{checkpoint.stat().st_size:,} bytes with the optimizer's moments" in text
    assert "Pictures of 2 test views" in text
    rows = re.findall(r"(checkpoint|file) │ +([\d.]+) │ +(-?[\d.]+)", text)
    assert [name for name, _, _ in rows] == ["checkpoint", "file"] and rows[0][1:] != rows[1][1:]
    assert 15 < float(re.findall(r"file against checkpoint │ +([\d.]+)", text)[0]) < 60


def test_measures_what_the_host_measures(run: Path, tmp_path: Path, scene_cache: Path) -> None:
    """PSNR and SSIM of the checkpoint are those that the model gives in `ns-eval`, those of a file in single precision
    are the same, and its pictures agree to the last bits."""
    model, data = pruned_model(), read_data(make_config(tmp_path, scene_cache).pipeline.datamanager, None).test
    model.config.skip_empty_space = False
    path = tmp_path / "a.safetensors"
    assert "float32" in printed(Export(run, path, dtype="float32", views=0))
    found = compare(model, load_exported(path), data, 100)
    expected = [model.get_image_metrics_and_images(model.get_outputs_for_camera(data.cameras[i : i + 1]), data[i])[0]
        for i in range(2)]  # fmt: skip
    assert found.views == 2 and found.agreement > 90
    for quality in (found.checkpoint, found.file):
        assert quality.psnr == pytest.approx(sum(metrics["psnr"] for metrics in expected) / 2, abs=1e-3)
        assert quality.ssim == pytest.approx(sum(metrics["fine_ssim"] for metrics in expected) / 2, abs=1e-4)


def test_dense_original_is_measured_beside_it(run: Path, tmp_path: Path, scene_cache: Path) -> None:
    """What pruning and rounding cost together is the difference to where all began; on the same views."""
    dense = small_model()
    original = save_run(tmp_path / "dense", dense, make_config(tmp_path, scene_cache))
    text = printed(Export(run, tmp_path / "a", views=2, dense_config=original))
    rows = dict(re.findall(r"(dense original|checkpoint|file) │ +([\d.]+) │", text))
    assert list(rows) == ["dense original", "checkpoint", "file"] and rows["dense original"] != rows["checkpoint"]
    alone = printed(Export(original, tmp_path / "b", views=2))
    assert re.findall(r"checkpoint │ +([\d.]+) │", alone)[0] == rows["dense original"] and "dense orig" not in alone
    refused(Export(run, tmp_path / "c", dense_config=tmp_path / "none.yml"), "--dense-config", "none.yml")


def test_scene_is_told_as_the_host_notes_it(run: Path, tmp_path: Path) -> None:
    """Whoever has cameras of their own has to bring them into the scene; the run's own note counts, since its data may
    be others by now."""
    (run.parent / "dataparser_transforms.json").write_text(json.dumps(NOTED))
    path = tmp_path / "a.safetensors"
    Export(run, path, views=0).main()
    scene = read_exported(path).metadata.scene
    assert [list(row) for row in scene.transform or ()] == NOTED["transform"] and scene.scale == 0.25
    assert scene.box is not None and scene.box[0] == tuple(-x for x in scene.box[1])
    (run.parent / "dataparser_transforms.json").write_text("[" * 100)
    Export(run, path, views=0).main()
    assert read_exported(path).metadata.scene.scale == 1


def test_run_without_its_data(tmp_path: Path) -> None:
    """A run can be exported on a machine that has nothing but its folder; that nothing was measured is told."""
    config = make_config(tmp_path, tmp_path)
    config.pipeline.datamanager.dataparser = BlenderDataParserConfig(data=tmp_path / "gone")
    path = save_run(tmp_path / "run", pruned_model(), config)
    text = printed(Export(path, tmp_path / "a.safetensors"))
    assert "Quality was not measured" in text and "gone" in text and "--data" in text and "int8" in text
    assert read_exported(tmp_path / "a.safetensors").metadata.scene.box is None
    assert "nearest:" not in text  # of eight bits nobody expects more
    text = printed(Export(path, tmp_path / "b.safetensors", bits=4.5))
    assert "nearest rounding" in text and "Weights were rounded to nearest, and bits were shared out by weights" in text
    bits = {name: form.bits for name, form in read_exported(tmp_path / "b.safetensors").metadata.layers().items()}
    assert bits["field_fine.field_output_density.net"] > bits["field_coarse.mlp_base.layers.0"]
    refused(Export(path, tmp_path / "c", bits=4.0, rounding="compensated"), "--rounding compensated needs", "gone")


def refused(options: Export, *texts: str) -> None:
    """The command fails with a message that has all texts in it, and writes nothing."""
    before = options.output.exists()
    with pytest.raises(ValueError) as caught:
        options.main()
    assert all(text in str(caught.value) for text in texts), caught.value
    assert options.output.exists() == before


def test_data_that_are_given_have_to_be_there(run: Path, tmp_path: Path) -> None:
    """Who says where the data are wants the quality, not a line that it was not measured."""
    config = make_config(tmp_path, tmp_path)
    config.pipeline.datamanager.dataparser = BlenderDataParserConfig()
    path = save_run(tmp_path / "blender", pruned_model(), config)
    refused(Export(path, tmp_path / "a", data=tmp_path / "gone"), "--data", "gone")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"bits": 4.0, "dtype": "int8"}, "--bits 4 goes with --dtype intN or mixed, got int8"),
        ({"bits": 1.0}, "--dtype intN needs --bits in [2, 8], got 1"),
        ({"bits": 0.0}, "--dtype intN needs --bits in [2, 8], got 0"),
        ({"bits": 8.5}, "--dtype mixed needs --bits in [2, 8], got 8.5"),
        ({"bits": float("nan")}, "--dtype mixed needs --bits in [2, 8], got nan"),
        ({"dtype": "intN"}, "--dtype intN needs --bits in [2, 8], got None"),
        ({"dtype": "mixed"}, "--dtype mixed needs --bits in [2, 8], got None"),
        ({"dtype": "intN", "bits": 4.5}, "--dtype intN needs whole --bits, got 4.5"),
        ({"dtype": "float16", "compress": True}, "--compress is for integers, got --dtype float16"),
        ({"dtype": "float32", "rounding": "nearest"}, "--rounding is for integers, got --dtype float32"),
        ({"target_mb": 1.0, "bits": 4.0}, "--target-mb 1 chooses the bits of each layer, got --bits 4"),
        ({"target_mb": 1.0, "dtype": "int8"}, "--target-mb 1 chooses the bits of each layer, got --dtype int8"),
        ({"target_mb": 0.0}, "--target-mb must be above 0, got 0"),
        ({"views": -1}, "--views must be at least 0, got -1"),
    ],
)
def test_options_that_contradict_each_other(options: Any, text: str, tmp_path: Path) -> None:
    """They are told before a run is opened."""
    refused(Export(tmp_path / "none.yml", tmp_path / "a", **options), text)


def test_numbers_that_can_be_chosen() -> None:
    """Eight bits unless something else is asked for, to the nearest level: free in quality at every size so far tried.
    Below that the way of rounding follows from what is there."""
    asked: list[tuple[Any, Numbers]] = [
        ({}, Numbers(8.0, "payload")),
        ({"bits": 8.0}, Numbers(8.0, "payload")),
        ({"rounding": "compensated"}, Numbers(8.0, "payload", rounding="compensated")),
        ({"bits": 4.0}, Numbers(4.0, "payload", rounding=None)),
        ({"bits": 4.0, "rounding": "nearest"}, Numbers(4.0, "payload")),
        ({"bits": 4.5}, Numbers(4.5, "payload", True, None)),
        ({"bits": 4.0, "dtype": "mixed", "rounding": "nearest"}, Numbers(4.0, "payload", True)),
        ({"target_mb": 0.016, "compress": True}, Numbers(8.0, "lzma", True, None, 16_000)),
        ({"dtype": "float16"}, Numbers(16.0, "tensors")),
        ({"dtype": "float32"}, Numbers(32.0, "tensors")),
        ({"compress": True}, Numbers(8.0, "lzma")),
    ]
    for options, expected in asked:
        assert numbers_of(Export(Path("a"), Path("b"), **options)) == expected
    reading = [numbers.reads_samples for _, numbers in asked]
    assert reading == [False, False, True, True, False, True, True, True, False, False, False]


def test_mixed_bits_and_what_is_said_of_them(run: Path, tmp_path: Path) -> None:
    """Who asks for a mean must be told what became of each layer, and never get more than it."""
    path = tmp_path / "a.safetensors"
    text = printed(Export(run, path, bits=4.5, views=0))
    forms = read_exported(path).metadata.layers()
    weights = {name: form.rows * form.columns for name, form in forms.items()}
    mean = sum(weights[name] * form.bits for name, form in forms.items()) / sum(weights.values())
    assert 4.3 < mean <= 4.5 and len({form.bits for form in forms.values()}) > 2
    assert f"mixed, {mean:.2f} bits in the mean, compensated rounding" in text
    rows = re.findall(r"(mlp_\w+\.layers\.\d|field_output_density\.net|field_heads\.0\.net) │ +(\S+) │ +(\S+)", text)
    assert {(f"field_{field}.{layer}", bits) for layer, *both in rows
        for field, bits in zip(("coarse", "fine"), both, strict=True) if bits != "—"
    } == {(name, str(form.bits)) for name, form in forms.items()}  # fmt: skip


def test_coarse_field_gets_fewer_bits(run: Path, tmp_path: Path) -> None:
    """It only places samples: its errors count as little as under a budget of pruning, whatever the rounding."""
    ways: list[Any] = ["nearest", "compensated"]
    for way in ways:
        path = tmp_path / way
        Export(run, path, dtype="mixed", bits=4.0, rounding=way, views=0).main()
        metadata: Any = read_exported(path).metadata
        coarse, fine = metadata.fields.values()
        assert sum(layer.bits for layer in coarse.trunk) < sum(layer.bits for layer in fine.trunk)


def test_training_pictures_that_cannot_be_read(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cameras may be there and pictures not: what can be made without them is made, and why it is no better is told."""

    def broken(*arguments: Any) -> Any:
        raise ValueError("the picture r_7.png cannot be read")

    monkeypatch.setattr("nerfstudio_prune.export.nerf_exporting.collect_samples", broken)
    text = printed(Export(run, tmp_path / "a", bits=4.0, views=1))
    assert "int4, nearest rounding" in text and "Pictures of 1 test view" in text
    assert "Weights were rounded to nearest: the picture r_7.png cannot be read" in text
    asked = Export(run, tmp_path / "b", bits=4.0, rounding="compensated")
    refused(asked, "--rounding compensated needs training views", "r_7.png")


def test_size_that_a_file_may_have(run: Path, tmp_path: Path) -> None:
    """The limit holds for the whole file as it lies on the disk, and is used; where even two bits do not fit, that is
    told with what they take, and nothing is written."""
    sizes = {}
    for bits in (2.0, 8.0):
        Export(run, tmp_path / "whole", bits=bits, dtype="mixed", rounding="nearest", views=0).main()
        sizes[bits] = (tmp_path / "whole").stat().st_size
    most = (sizes[2.0] + sizes[8.0]) // 2
    ways: list[tuple[bool, Any]] = [(False, None), (True, "nearest")]
    for compress, rounding in ways:
        path = tmp_path / f"{compress}"
        text = printed(Export(run, path, target_mb=most / 1e6, compress=compress, rounding=rounding, views=0))
        assert most - 150 < path.stat().st_size <= most and f"{path.stat().st_size:,} bytes" in text
        assert f"{rounding or 'compensated'} rounding" in text
    Export(run, tmp_path / "large", target_mb=1.0, rounding="nearest", views=0).main()
    assert (tmp_path / "large").stat().st_size == sizes[8.0]
    few = Export(run, tmp_path / "few", target_mb=(sizes[2.0] - 1) / 1e6, rounding="nearest", views=0)
    refused(few, "--target-mb", f"at most {sizes[2.0] - 1:,} bytes, got {sizes[2.0]:,} at 2 bits")


def test_compensation_pays(run: Path, tmp_path: Path, scene_cache: Path) -> None:
    """From the command's options to the picture: with what rounding lost handed on, a file shows more of the run."""
    data, agreement = read_data(make_config(tmp_path, scene_cache).pipeline.datamanager, None).test, {}
    ways: list[Any] = ["nearest", "compensated"]
    for way in ways:
        Export(run, tmp_path / way, bits=4.0, rounding=way, views=0).main()
        agreement[way] = compare(pruned_model(), load_exported(tmp_path / way), data, 2).agreement
    assert agreement["compensated"] > agreement["nearest"] + 1
    Export(run, tmp_path / "default", bits=4.0, views=0).main()
    assert (tmp_path / "default").read_bytes() == (tmp_path / "compensated").read_bytes()


def moving(config: Any, model: Any) -> None:
    config.pipeline.model.enable_temporal_distortion = True


def diverged(config: Any, model: Any) -> None:
    with torch.no_grad():
        model.field_coarse.mlp_base.layers[0].weight[0, 0] = float("nan")


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        (moving, ("--load-config", "temporal_distortion")),
        (diverged, ("--load-config", "field_coarse.mlp_base.layers.0.weight", "finite")),
    ],
)
def test_runs_that_have_no_place_in_a_file(
    change: Callable[[Any, Any], None], texts: tuple[str, ...], tmp_path: Path, scene_cache: Path
) -> None:
    """What a file could not show must not become one."""
    config = make_config(tmp_path, scene_cache)
    model = small_model(enable_temporal_distortion=change is moving)
    change(config, model)
    refused(Export(save_run(tmp_path / "run", model, config), tmp_path / "a"), *texts)


def test_places_that_cannot_be_written(run: Path, tmp_path: Path) -> None:
    """A run that is not there, one of another method, and a folder in the place of the file."""
    refused(Export(tmp_path / "none.yml", tmp_path / "a"), "--load-config", "none.yml")
    refused(Export(run, tmp_path / "run"), f"--output {tmp_path / 'run'}: cannot be written", "is a folder")
