"""`ns-prune eval`: what is said of a file is what its pictures are worth, on the data that it belongs to."""

import re
from pathlib import Path
from typing import Any

import pytest
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.utils.rich_utils import CONSOLE
from support.exported import small_model, write_model
from support.saved_run import save_run
from support.tiny_run import make_config

from nerfstudio_prune.export.command import Export
from nerfstudio_prune.export.run_data import read_data
from nerfstudio_prune.opening.data_sets import parser_config, parser_of_folder
from nerfstudio_prune.opening.eval_command import Eval

DEMO = "demo-data --image-size 16 --num-train-views 4 --num-val-views 2 --num-test-views 2 --supersampling 1"
"""The data of `make_config`, as they are typed."""


@pytest.fixture
def file(tmp_path: Path, scene_cache: Path) -> Path:
    """A file in single precision of a run on two test views of 16x16 pixels."""
    path = tmp_path / "a.safetensors"
    run = save_run(tmp_path / "run", small_model(), make_config(tmp_path, scene_cache))
    Export(run, path, dtype="float32", views=0).main()
    return path


def printed(options: Eval) -> str:
    """What the command says, without the breaks of lines."""
    with CONSOLE.capture() as capture:
        options.main()
    return " ".join(capture.get().split())


def refused(options: Eval, *texts: str) -> None:
    """The command fails with a message that has all texts in it."""
    with pytest.raises(ValueError) as caught:
        options.main()
    assert all(text in str(caught.value) for text in texts), caught.value


def test_measures_what_ns_eval_measures_of_the_run(file: Path, tmp_path: Path, scene_cache: Path) -> None:
    """Who gets the file alone must come to the numbers of who has the run, view by view; the worst view is named."""
    text = printed(Eval(file, scene_cache, DEMO))
    size = file.stat().st_size
    assert f"{size:,} bytes" in text and "Pictures of 2 of 2 test views" in text
    model, data = small_model(), read_data(make_config(tmp_path, scene_cache).pipeline.datamanager, None).test
    model.config.skip_empty_space = False
    expected = {
        data.image_filenames[i].name: model.get_image_metrics_and_images(
            model.get_outputs_for_camera(data.cameras[i : i + 1]), data[i]
        )[0]
        for i in range(2)
    }
    rows = re.findall(r"(?:worst: )?(\S+) │ +([\d.]+) │ +(-?[\d.]+)", text)
    order = sorted(expected, key=lambda name: expected[name]["psnr"])
    assert [name for name, _, _ in rows] == ["mean", *order]
    for name, psnr, ssim in rows[1:]:
        assert float(psnr) == pytest.approx(expected[name]["psnr"], abs=0.006)
        assert float(ssim) == pytest.approx(expected[name]["fine_ssim"], abs=1e-4)
    assert float(rows[0][1]) == pytest.approx(sum(found["psnr"] for found in expected.values()) / 2, abs=0.006)
    few = printed(Eval(file, scene_cache, DEMO, views=1, worst=0))
    assert "Pictures of 1 of 2 test views" in few and "worst" not in few and "Not checked" not in few


def test_data_of_another_scene(file: Path, tmp_path: Path, scene_cache: Path) -> None:
    """Cameras that stand in another scene would give a low number, and nobody could tell it from a bad file: both
    layouts are said. A file that does not say where it belongs is measured, and that is told."""
    (tmp_path / "run" / "dataparser_transforms.json").write_text(
        '{"transform": [[1, 0, 0, 0.5], [0, 1, 0, 0], [0, 0, 1, 0]], "scale": 0.25}'
    )
    other = tmp_path / "b.safetensors"
    Export(tmp_path / "run" / "config.yml", other, views=0).main()
    refused(Eval(other, scene_cache, DEMO), "b.safetensors", "[1 0 0 0.5]", "[1 0 0 0]", "scale 0.25", "scale 1")
    unknown = write_model(tmp_path / "c.safetensors", small_model())
    text = printed(Eval(unknown, scene_cache, DEMO, views=1))
    assert "Pictures of 1" in text and "Not checked: the file does not say" in text


def test_data_parser_of_a_folder(tmp_path: Path) -> None:
    """The two formats that everybody has need no name; what is none of them is not guessed at."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "transforms.json").touch()
    (tmp_path / "blender").mkdir()
    (tmp_path / "blender" / "transforms_train.json").touch()
    assert isinstance(parser_of_folder(tmp_path / "photos"), NerfstudioDataParserConfig)
    assert isinstance(parser_of_folder(tmp_path / "photos" / "transforms.json"), NerfstudioDataParserConfig)
    assert isinstance(parser_of_folder(tmp_path / "blender"), BlenderDataParserConfig)
    for folder in (tmp_path, tmp_path / "gone", None):
        with pytest.raises(ValueError, match="--data"):
            parser_of_folder(folder)


def test_data_parser_with_options() -> None:
    """A run whose data were read with options can only be measured with the same."""
    found: Any = parser_config("nerfstudio-data --downscale-factor 2 --eval-mode interval")
    assert found.downscale_factor == 2 and found.eval_mode == "interval"
    assert parser_config("nerfstudio-data") == NerfstudioDataParserConfig()


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        ({"views": 0}, ("--views must be at least 1, got 0",)),
        ({"worst": -1}, ("--worst must be at least 0, got -1",)),
        ({"dataparser": "blender"}, ("--dataparser must be one of", "blender-data", "got 'blender'")),
        ({"dataparser": ""}, ("--dataparser must be one of", "got ''")),
        ({"dataparser": "blender-data --factor 2"}, ("--dataparser blender-data: not its options: --factor 2",)),
        ({"dataparser": "blender-data '"}, ("--dataparser", "quotation")),
        ({"data": Path("gone"), "dataparser": "blender-data"}, ("--data gone",)),
        ({}, ("--data is needed",)),
    ],
)
def test_what_is_refused(options: Any, texts: tuple[str, ...], tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    """One line that says which option, and nothing of the parser's own help."""
    path = write_model(tmp_path / "a.safetensors", small_model())
    refused(Eval(path, **options), *texts)
    assert "usage" not in capfd.readouterr().err


def test_damaged_file(tmp_path: Path) -> None:
    """It is told before any data are looked for."""
    (tmp_path / "a.safetensors").write_bytes(b"no such thing")
    refused(Eval(tmp_path / "a.safetensors", tmp_path), "a.safetensors", "header")
