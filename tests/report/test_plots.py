"""Plots and pictures: well-formed, readable on light and dark, and of the right values."""

import io
import os
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from support.record_factory import GPU, anatomy, dense, everything, run, save, speed

from nerfstudio_prune.records.schema import RecordError
from nerfstudio_prune.report.anatomy_charts import share_below
from nerfstudio_prune.report.charts import charts
from nerfstudio_prune.report.collect import collect
from nerfstudio_prune.report.document import render
from nerfstudio_prune.report.images import error_map, gallery, png, read_picture
from nerfstudio_prune.report.plots import (
    NEUTRAL,
    PALETTE,
    PAPER_INK,
    Plot,
    colour,
    marker,
    short,
    svg_file,
    svg_inline,
)

KINDS = {"frontier", "recovery", "time", "weights", "scores", "speed"}


@pytest.fixture(scope="module")
def plots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Plot]:
    """All plots of all suites."""
    (study,) = collect(save(everything(), tmp_path_factory.mktemp("records")))
    return charts(study)


def luminance(colour: str) -> float:
    values = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_colours_are_readable_on_light_and_dark() -> None:
    """The accessibility guidelines ask for 3 : 1 for parts of a diagram."""
    for shade in PALETTE:
        assert contrast(shade, "#ffffff") >= 3 and contrast(shade, "#14171b") >= 3, shade
    assert len(set(PALETTE)) == len(PALETTE) and NEUTRAL not in PALETTE


def test_no_two_series_look_alike() -> None:
    """The committed records have 14 series: a control that looked like the method beside it would be read as that."""
    assert len({(colour(i), marker(i)) for i in range(50)}) == 50


def test_every_kind_is_there(plots: dict[str, Plot]) -> None:
    """Each with a caption that says how many runs or values are behind it."""
    assert set(plots) == KINDS
    for plot in plots.values():
        assert re.search(r"n = |one seed", plot.caption) and plot.alt and "$" not in plot.svg


def test_files_are_well_formed_and_white(plots: dict[str, Plot]) -> None:
    """On a dark page of GitHub a transparent plot with dark text could not be read."""
    for plot in plots.values():
        content = svg_file(plot)
        root = ElementTree.fromstring(content)
        first = root[0]
        assert first.tag.endswith("rect") and first.get("fill") == "#ffffff" and first.get("width") == "100%"
        assert NEUTRAL not in content and PAPER_INK in content and "currentColor" not in content
        assert "<dc:date>" not in content


def test_inline_plots_follow_the_page(plots: dict[str, Plot]) -> None:
    """Text takes the page's colour, nothing opaque lies behind it, and nothing is styled outside of the plot."""
    for plot in plots.values():
        content = svg_inline(plot)
        root = ElementTree.fromstring(content)
        assert (
            root.get("role") == "img" and root.get("aria-label") and root.get("viewBox") and root.get("height") is None
        )
        assert NEUTRAL not in content and PAPER_INK not in content and "currentColor" in content
        assert not re.search(r"<(style|metadata)\b|<rect width|https?://|fill: #(fff|FFF)", content)
        assert all("fill: currentColor" in (text.get("style") or "") for text in root.iter("text"))


def test_names_in_a_page_are_unique_and_resolve(plots: dict[str, Plot]) -> None:
    """Two plots with a clip path of one name: the second would be cut like the first."""
    page = "".join(svg_inline(plot) for plot in plots.values())
    names = re.findall(r'\bid="([^"]+)"', page)
    assert len(names) == len(set(names)) > 100
    used = re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', page)
    assert used and {one or other for one, other in used} <= set(names)


def test_same_records_give_the_same_bytes(plots: dict[str, Plot], tmp_path: Path) -> None:
    """No date, no random names."""
    (study,) = collect(save(everything(), tmp_path))
    assert charts(study) == plots


def texts(plot: Plot) -> list[str]:
    return ["".join(text.itertext()) for text in ElementTree.fromstring(svg_inline(plot)).iter("text")]


def test_axes_have_units_and_all_arms_have_names(plots: dict[str, Plot]) -> None:
    """A plot must be readable without the table."""
    assert {"PSNR at the end, dB", "parameters, both fields", "multiply-accumulates per ray"} <= set(
        texts(plots["frontier"])
    )
    assert {"training time, s", "PSNR, dB", "coreset", "small, equal time"} <= set(texts(plots["time"]))
    arms = {
        "dense",
        "coreset",
        "coreset-mussay",
        "uniform",
        "importance w_in",
        "re-initialised",
        "masked importance w_out",
    }
    assert arms <= set(texts(plots["frontier"]))
    assert {"coreset-0.5", "edge-threshold-0.05", "Torch-Pruning-taylor", "12.00"} <= set(texts(plots["recovery"]))
    assert {"w_in", "w_out", "w_in_w_out", "trunk 0", "head 1"} <= set(texts(plots["scores"]))
    assert any(text.startswith("2.00") for text in texts(plots["speed"]))


def test_curves_stay_inside_of_their_axes(tmp_path: Path) -> None:
    """Panels share an axis: what is drawn into one of them last must not be cut off by the limits of the first."""
    arms = [run(name, 1, psnr, after, strategy=name) for name, psnr, after in (("a", 25, 9), ("x", 30, 9), ("y", 9, 3))]
    records = [dense(1, 20.0), *arms]
    plot = charts(collect(save(records, tmp_path))[0])["time"]
    boxes = re.findall(r'<rect x="\S+" y="(\S+)" width="\S+" height="(\S+)"', plot.svg)
    tops, bottoms = zip(*[(float(y), float(y) + float(height)) for y, height in boxes], strict=True)
    ends = []
    for shade in PALETTE[:3]:
        for line in ElementTree.fromstring(svg_inline(plot)).iter("path"):
            if "clip-path" in line.attrib and f"stroke: {shade}" in (line.get("style") or ""):
                ends.append(float(re.findall(r"[ML] \S+ (\S+)", line.get("d") or "")[-1]))
    assert len(ends) == 3 and min(tops) <= min(ends) and max(ends) <= max(bottoms)


def test_names_of_records_are_no_formulas(tmp_path: Path) -> None:
    """A dollar sign starts a formula in the plotting library, which an odd name would break."""
    (study,) = collect(save([dense(), run("a$\\frac$<b>", 1, strategy="a$\\frac$<b>")], tmp_path))
    assert "a$\\frac$<b>" in texts(charts(study)["recovery"])


def test_few_records_make_few_plots(tmp_path: Path) -> None:
    """One seed, no dense run, no curve: what can be drawn is drawn, and nothing fails."""
    assert charts(collect(save([speed()], tmp_path / "speed"))[0]).keys() == {"speed"}
    assert charts(collect(save([dense()], tmp_path / "dense"))[0]).keys() == set()
    assert charts(collect(save([run()], tmp_path / "run"))[0]).keys() == {"frontier", "recovery"}
    assert charts(collect(save([dense(), run(curve=[])], tmp_path / "curve"))[0]).keys() == {"frontier", "recovery"}
    alone: Any = dense(anatomy=anatomy(), machine=GPU)
    assert charts(collect(save([alone], tmp_path / "anatomy"))[0]).keys() == {"weights", "scores"}


def test_share_below_a_threshold() -> None:
    """The bound rarely falls on the bound of a bin: a bin counts in part."""
    edges, counts = [0.0, 0.1, 0.2, 0.4], [4, 2, 2]
    assert share_below(edges, counts, 0.1) == 0.5
    assert share_below(edges, counts, 0.05) == 0.25
    assert share_below(edges, counts, 0.3) == pytest.approx(7 / 8)
    assert share_below(edges, counts, 1.0) == 1.0 and share_below(edges, counts, 0.0) == 0.0


def test_short_counts() -> None:
    """Labels of an axis."""
    assert [short(value) for value in (950, 20_480, 1_234_567, 3.2e9)] == ["950", "20.5k", "1.23M", "3.2G"]


def test_error_map() -> None:
    """Black without error, the brightest colour from half of the range on, and monotonous between."""
    truth = np.zeros((1, 4, 3), np.uint8)
    picture = truth + np.array([0, 51, 128, 230], np.uint8)[:, None]
    colours = error_map(picture, truth) / 255
    assert colours.shape == (1, 4, 3)
    brightness = colours.mean(axis=-1)[0]
    assert brightness[0] < 0.01 and 0.1 < brightness[1] < brightness[2] == brightness[3]


def test_pictures_keep_their_pixels() -> None:
    """Small ones are stored as they are, so that enlarging shows pixels; large ones are reduced."""
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    with Image.open(io.BytesIO(png(picture))) as image:
        assert np.array_equal(np.asarray(image), picture)
    with Image.open(io.BytesIO(png(np.zeros((400, 800, 3), np.uint8)))) as image:
        assert image.size == (260, 130)


def test_gallery(tmp_path: Path) -> None:
    """Truth once, then each arm of the lowest seed with its error; the crop lies where the errors are."""
    records = [dense(1), dense(2), run("coreset-0.5", 2, 19.0), run("coreset-0.5", 1, 18.0)]
    (study,) = collect(save(records, tmp_path, images=True))
    made = gallery(study)
    assert made is not None
    lines = made.text.splitlines()
    assert lines[0].startswith("| arm, PSNR of this view") and lines[2].startswith("| truth |")
    assert lines[3].startswith("| `dense`, 19.50 dB | —") and lines[4].startswith("| `coreset-0.5`, 17.00 dB | <img ")
    assert len(lines) == 5 and sorted(re.findall(r'src="images/([^"]+)"', made.text)) == sorted(made.files)
    assert len(made.files) == 2 + 3 + 4
    (name,) = (
        name for name in made.files if re.fullmatch(r"demo-data-cpu-nerf-prune-a-\w+-coreset-0-5-s1-\w+-end.png", name)
    )
    end = Image.open(io.BytesIO(made.files[name]))
    assert np.array_equal(np.asarray(end), np.asarray(Image.open(tmp_path / "images/coreset-0.5-s1/end.png")))
    # The noise of the test pictures is a disc of radius 16 around column 40, row 16 of 64 x 48.
    crop = np.asarray(Image.open(io.BytesIO(made.files[name.replace(".png", "-enlarged.png")])))
    whole = np.asarray(end)
    assert crop.shape == (14, 19, 3)
    places = [
        (top, left)
        for top in range(48 - 13)
        for left in range(64 - 18)
        if np.array_equal(whole[top : top + 14, left : left + 19], crop)
    ]
    (place,) = places
    assert 0 <= place[0] <= 32 - 14 and 24 <= place[1] <= 56 - 19


def test_no_pictures_no_gallery(tmp_path: Path) -> None:
    """Records are committed without the pictures that they name."""
    records = save([dense()], tmp_path, images=True)
    (records / "images/dense-s1/end.png").unlink()
    assert gallery(collect(records)[0]) is None


def test_other_views_have_their_own_truth(tmp_path: Path) -> None:
    """A row must not be compared with the truth of another view."""
    save([dense(1)], tmp_path, images=True)
    (tmp_path / "images/truth.png").rename(tmp_path / "images/truth-of-dense.png")
    path = tmp_path / "runs/dense-s1.json"
    path.write_text(path.read_text().replace("images/truth.png", "images/truth-of-dense.png"))
    save([run("coreset-0.5", 1)], tmp_path, images=True)
    with Image.open(tmp_path / "images/truth.png") as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "images/truth.png")
    made = gallery(collect(tmp_path)[0])
    assert made is not None and [line.split(" ")[1] for line in made.text.splitlines()[2:]] == [
        "truth",
        "`dense`,",
        "truth",
        "`coreset-0.5`,",
    ]


@pytest.mark.parametrize("name", ["../secret.png", "/etc/hostname"])
def test_pictures_outside_of_the_records_are_refused(tmp_path: Path, name: str) -> None:
    """A record of someone else must not put other files of this machine into a report."""
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    records = save([run(images={"0": {"truth": name, "end": name}})], tmp_path / "records")
    with pytest.raises(RecordError, match=r"coreset-0\.5-s1\.json: picture .* outside of the folder"):
        gallery(collect(records)[0])


def test_long_names_give_short_files(tmp_path: Path) -> None:
    """Names of scenes and runs come from records, and a disk takes 255 characters. Two that begin alike, or differ in
    what a file name has not, must not become one file: the report would show one network under the name of another."""
    scenes = ["a b" + "x" * 300, "a-b" + "x" * 300, "a-b" + "x" * 301]
    for number, scene in enumerate(scenes):
        save([run(scene=scene, name="r" * 200), dense(scene=scene)], tmp_path / str(number), images=True)
    files = render(collect(tmp_path))
    assert max(len(part) for name in files for part in name.split("/")) < 200
    assert sum(name.startswith("plots/recovery") for name in files) == len(scenes)
    assert len({name for name in files if name.endswith("-truth.png")}) == len(scenes)


def test_pictures_of_no_view(tmp_path: Path) -> None:
    """A picture of a few kilobytes can take gigabytes. The header says so before a pixel is unpacked, and what is large
    but can be is reduced as it is read; a pipe is no picture that anybody wrote, and is not waited for."""
    records = save([run()], tmp_path, images=True)
    end = records / "images/coreset-0.5-s1/end.png"
    Image.new("1", (13_000, 13_000)).save(end)
    with pytest.raises(
        RecordError, match=r"end\.png: cannot be read as a picture: 13000 x 13000 pixels, expected at most"
    ):
        gallery(collect(records)[0])
    Image.new("L", (3000, 20)).save(end)
    assert read_picture(end).shape == (14, 2048, 3)
    end.unlink()
    os.mkfifo(end)
    assert gallery(collect(records)[0]) is not None


def test_damaged_pictures(tmp_path: Path) -> None:
    """The message names the picture."""
    records = save([run()], tmp_path, images=True)
    (records / "images/coreset-0.5-s1/end.png").write_bytes(b"no picture")
    with pytest.raises(RecordError, match=r"end\.png: cannot be read as a picture"):
        gallery(collect(records)[0])
    Image.new("RGB", (3, 3)).save(records / "images/coreset-0.5-s1/end.png")
    with pytest.raises(RecordError, match=r"coreset-0\.5-s1\.json: picture images/.*another size than the truth"):
        gallery(collect(records)[0])
