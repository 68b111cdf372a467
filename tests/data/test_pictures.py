"""The look at the pictures: what would train wrongly or die late is told at once, and what trains is let pass."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.data.datasets.base_dataset import InputDataset
from PIL import Image, ImageFile
from support.pictures import HEIGHT, WIDTH, mask, picture, scene, turned

from nerfstudio_prune.data.pictures import MODES, check_pictures

PNG, JPEG = "000.png", "000.jpg"
IN_PNG = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
"""Modes that a PNG keeps; a TIFF keeps the others."""


def dataset_of(folder: Path, alpha: bool = False, scale: float = 1.0, **options: Any) -> InputDataset:
    """All views of a data set in Nerfstudio's format."""
    parser = NerfstudioDataParserConfig(data=scene(folder, views=3, **options), eval_mode="all").setup()
    outputs = parser.get_dataparser_outputs("train")
    if alpha:
        outputs.alpha_color = torch.ones(3)
    return InputDataset(outputs, scale)


def refusal(dataset: InputDataset) -> str:
    """What the look says against a data set."""
    with pytest.raises(ValueError) as caught:
        check_pictures([dataset])
    return str(caught.value)


def replaced(folder: Path, name: str, image: Image.Image, **options: Any) -> dict[str, Any]:
    """Writes a picture beside the others and gives the frame that shows it."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    image.save(folder / "images" / name, **options)
    return {"frames": {0: {"file_path": f"images/{name}"}}}


@pytest.mark.parametrize("mode", [*IN_PNG, "CMYK", "YCbCr", "LAB", "I", "F", "PA"])
def test_modes_that_pass_are_those_that_train_as_they_look(tmp_path: Path, mode: str) -> None:
    """Palettes are trained as grey indices and CMYK as RGB with opacity, without a word. What the host makes of a file
    decides: those that pass must load as the colours that a person sees."""
    path = tmp_path / "images" / f"odd.{'png' if mode in IN_PNG else 'tif'}"
    dataset = dataset_of(tmp_path, alpha=True, **replaced(tmp_path, path.name, picture(mode)))
    view = dataset.image_filenames.index(path)
    seen = np.array(Image.open(path).convert("RGB"))
    try:
        right = np.abs(dataset.get_numpy_image(view)[..., :3].astype(int) - seen).max() == 0
    except AssertionError:  # the host's, for two channels
        right = False
    if mode in MODES:
        assert right
        check_pictures([dataset])
    else:
        text = refusal(dataset)
        assert "1 of 3 pictures cannot be trained as they are" in text and f"mode {mode}" in text
        assert "expected L, RGB, RGBA" in text and "odd." in text and "mogrify" in text
        assert not right or mode in ("I", "F")  # these hold 0 to 255 here, and anything elsewhere


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("one pixel", ["another size than its camera", "picture 11x8, camera 12x8", "mogrify -resize 12x8!"]),
        ("gone", ["not there", "take its frame out"]),
        ("folder", ["not a file", "a folder"]),
        ("empty", ["no picture that Pillow can read", "0 bytes", "mogrify -format png"]),
        ("text", ["no picture that Pillow can read", "11 bytes"]),
        ("cut png", ["cannot be read", "copy the file again"]),
        ("cut jpeg", ["cannot be read", "truncated"]),
        ("pipe", ["not a file", "take its frame out"]),
        ("turned", ["turned upright by EXIF only", "picture 8x12, camera 12x8, EXIF orientation 6", "-auto-orient"]),
    ],
)
def test_file_that_cannot_be_trained(tmp_path: Path, kind: str, parts: list[str], capsys: Any) -> None:
    """Each of these died at the first evaluation image, with an IndexError, or as a tensor of another shape. The file
    is named, what was found, what was expected and what to do; the table shows the same."""
    name = JPEG if kind in ("cut jpeg", "turned") else PNG
    path = tmp_path / "images" / f"odd-{name}"
    big = picture(width=300, height=200)
    size = {"w": 300, "h": 200, "cx": 150.0, "cy": 100.0} if kind.startswith("cut") else {}
    if kind.startswith("cut"):
        options = {**replaced(tmp_path, path.name, big), "pictures": {1: big, 2: big}, **size}
        path.write_bytes(path.read_bytes()[:5000])
    elif kind == "turned":
        options = replaced(tmp_path, path.name, picture(width=8, height=12), **turned(picture(), 6))
    else:
        options = replaced(tmp_path, path.name, picture(width=11 if kind == "one pixel" else 12))
    # Written first: the host's parser opens the first picture.
    dataset = dataset_of(tmp_path, **options)
    if kind in ("gone", "folder", "pipe"):
        path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    if kind == "folder":
        path.mkdir()
    if kind in ("empty", "text"):
        path.write_bytes(b"" if kind == "empty" else b"hello there")
    text = refusal(dataset)
    assert "1 of 3 pictures cannot be trained" in text and str(path) in text and "What to do: " in text
    for part in parts:
        assert part in text
    table = capsys.readouterr().out
    assert "what is wrong" in table and "odd-" in table


def test_missing_folder_of_smaller_copies(tmp_path: Path) -> None:
    """A parser that is told a factor looks into a folder of its own, which only `ns-process-data` makes."""
    parser = NerfstudioDataParserConfig(data=scene(tmp_path), downscale_factor=2).setup()
    text = refusal(InputDataset(parser.get_dataparser_outputs("train")))
    assert "9 of 9 pictures" in text and "images_2 with ns-process-data, or give --downscale-factor 1" in text


def test_every_kind_is_listed_at_once(tmp_path: Path) -> None:
    """Who mends one fault after the other, each after minutes of loading, gives up. Many of a kind are counted."""
    odd = {i: picture("P", seed=i) for i in range(8)}
    parser = NerfstudioDataParserConfig(data=scene(tmp_path, views=10, pictures=odd), eval_mode="all").setup()
    dataset = InputDataset(parser.get_dataparser_outputs("train"))
    (tmp_path / "images" / "009.png").unlink()
    with pytest.raises(ValueError) as caught:
        check_pictures([dataset, dataset])  # the same view may have two uses
    text = str(caught.value)
    assert text.startswith("9 of 10 pictures") and "mode P: palette" in text and "not there" in text
    assert "004.png" in text and "005.png" not in text and "and 3 more" in text


def test_mixtures_are_refused_where_the_host_cannot_stack_them(tmp_path: Path) -> None:
    """Three and four channels do not go into one tensor, unless opacity is blended away on loading, as with Blender's
    scenes. Grey is loaded as three channels."""
    mixed = {0: picture("RGBA"), 1: picture("RGB"), 2: picture("L")}
    text = refusal(dataset_of(tmp_path / "a", pictures=mixed))
    assert "some pictures with opacity and some without" in text and "000.png (mode RGBA, 1 with and 2 without)" in text
    check_pictures([dataset_of(tmp_path / "b", alpha=True, pictures=mixed)])
    check_pictures([dataset_of(tmp_path / "c", pictures={0: picture("L")})])
    with_opacity = {i: picture("RGBA") for i in range(3)}
    check_pictures([dataset_of(tmp_path / "d", pictures=with_opacity), dataset_of(tmp_path / "e")])


@pytest.mark.parametrize(
    ("image", "parts"),
    [
        (mask(0).convert("RGB"), ["mask with more than one channel", "mode RGB, 3 channels; expected one"]),
        (mask(0, width=11), ["mask of another size than its picture", "mask 11x8, picture 12x8"]),
        (None, ["mask not there"]),
    ],
)
def test_masks_are_looked_at(tmp_path: Path, image: Any, parts: list[str]) -> None:
    """The host reads a mask when it loads the view, and its errors name no file."""
    dataset = dataset_of(tmp_path, every_mask=0, masks={1: image} if image is not None else {})
    if image is None:
        (tmp_path / "images" / "001_mask.png").unlink()
    text = refusal(dataset)
    assert "001_mask.png" in text
    for part in parts:
        assert part in text


@pytest.mark.parametrize("mode", ["1", "L", "P", "I;16"])
def test_masks_of_one_channel_pass(tmp_path: Path, mode: str) -> None:
    """The host takes whatever is not zero, be it 1, 255 or an index of a palette."""
    image = picture("I;16") if mode == "I;16" else mask(0).convert(mode)
    check_pictures([dataset_of(tmp_path, every_mask=0, masks={1: image})])


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_exif_that_changes_nothing_passes(tmp_path: Path, orientation: int, capsys: Any) -> None:
    """A photograph with its camera's size trains as it is stored, which is right if the cameras were found on it like
    that: that is said, and not refused."""
    image = picture()
    options = replaced(tmp_path, "odd.jpg", image, **turned(image, orientation))
    check_pictures([dataset_of(tmp_path, **options)])
    text = " ".join(capsys.readouterr().out.split())
    assert ("1 pictures are to be turned by their EXIF data" in text) == (orientation != 1)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_does_no_harm(tmp_path: Path) -> None:
    """The host never reads it, and the picture is whole."""
    options = replaced(tmp_path, "odd.jpg", picture(), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    check_pictures([dataset_of(tmp_path, **options)])


def test_cameras_append_data_of_their_own(tmp_path: Path) -> None:
    """Phones write thumbnails and films behind the end of a JPEG; such a file is whole, and so is one that has no end
    mark and can be read all the same."""
    options = replaced(tmp_path, "odd.jpg", picture())
    path = tmp_path / "images" / "odd.jpg"
    path.write_bytes(path.read_bytes() + b"film" * 100)
    check_pictures([dataset_of(tmp_path, **options)])
    path.write_bytes(path.read_bytes()[: -len(b"film" * 100)] + b"film" * 100_000)
    check_pictures([dataset_of(tmp_path, **options)])


def test_scaled_views_fit_their_cameras(tmp_path: Path) -> None:
    """`camera-res-scale-factor` rounds pictures and cameras down alike."""
    check_pictures([dataset_of(tmp_path, scale=0.3, every_mask=0)])
    assert "without a pixel at camera_res_scale_factor 0.1" in refusal(dataset_of(tmp_path, scale=0.1))


def test_headers_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of photographs take seconds only as long as none of them is decoded."""

    def load(self: Any) -> None:
        raise AssertionError("decoded a picture")

    dataset = dataset_of(tmp_path, every_mask=0, **replaced(tmp_path, "odd.jpg", picture(), **turned(picture(), 3)))
    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    check_pictures([dataset])


def test_data_sets_without_files_pass(tmp_path: Path) -> None:
    """A parser may give cameras only."""
    cameras = dataset_of(tmp_path).cameras
    check_pictures([InputDataset(DataparserOutputs(image_filenames=[], cameras=cameras[0:0]))])
    assert (HEIGHT, WIDTH) == (int(cameras.height[0]), int(cameras.width[0]))
