"""A grid of tiny networks as one file: the pictures of the run, without the run, and nothing that it does not say."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nerfstudio.utils.rich_utils import CONSOLE
from stress.exported import sealed, taken_apart, with_tensor
from support.exported_kilo import COUNTS, kilo_content, kilo_model, write_kilo
from support.saved_run import save_run
from support.tiny_kilo import make_kilo
from support.tiny_run import rays

from nerfstudio_prune.exchange.compression import compress, decompress
from nerfstudio_prune.exchange.errors import FileFormatError
from nerfstudio_prune.export.command import Export
from nerfstudio_prune.export.container import KEY
from nerfstudio_prune.export.kilo_from_run import layers_of_networks
from nerfstudio_prune.export.kilo_schema import CELLS, WIDTHS
from nerfstudio_prune.export.reading import read_exported
from nerfstudio_prune.export.rendering import load_exported
from nerfstudio_prune.export.rounding import largest_level
from nerfstudio_prune.kilo.model import KiloModel

MODELS: dict[str, Callable[[], KiloModel]] = {
    "plain": kilo_model,
    "black": lambda: kilo_model("random"),
    "several widths": lambda: kilo_model(narrows=True),
    "real": lambda: kilo_model("last_sample", contracted=True),
}


@pytest.mark.parametrize("name", MODELS)
def test_pictures_are_those_of_the_run(name: str, tmp_path: Path) -> None:
    """Cells, order of the networks, steps, contraction and background all go through the file; a network that lands in
    another cell shows another picture."""
    model, bundle = MODELS[name](), rays(300)
    network = load_exported(write_kilo(tmp_path / "a.safetensors", model))
    expected, found = model(bundle), network(bundle.origins, bundle.directions)
    assert found.keys() == {"rgb", "depth", "accumulation"}
    for key, value in found.items():
        torch.testing.assert_close(value, expected[key], rtol=1e-5, atol=1e-5)
    assert float(found["rgb"].std(dim=0).max()) > 0.02 and 0.05 < float(found["accumulation"].mean()) < 0.99
    parts = [network(*(x[i : i + 70] for x in (bundle.origins, bundle.directions)))["rgb"] for i in range(0, 300, 70)]
    torch.testing.assert_close(torch.cat(parts), found["rgb"], rtol=1e-5, atol=1e-5)
    none = network(bundle.origins[:0], bundle.directions[:0])
    assert {key: tuple(value.shape) for key, value in none.items()} == {k: (0, expected[k].shape[-1]) for k in found}


def test_networks_of_several_widths_are_put_in_order(tmp_path: Path) -> None:
    """A checkpoint may have them in any order, a file has those of one width in that of their cells: what says where
    each belongs is then a byte for each."""
    model = kilo_model(narrows=True)
    found = read_exported(write_kilo(tmp_path / "a.safetensors", model))
    assert [own.count for own in found.metadata.networks.classes][:3] == list(COUNTS)  # type: ignore[union-attr]
    assert torch.equal(torch.tensor(list(found.blobs[WIDTHS])).bincount(), torch.tensor(model.networks.counts))
    network: Any = load_exported(tmp_path / "a.safetensors")
    assert torch.equal(network.networks.widths, model.networks.widths)
    assert not torch.equal(network.networks.position, model.networks.position)
    assert not any(name.startswith("stacks.1.") for name in found.layers)


@pytest.mark.parametrize("storage", ["payload", "lzma"])
def test_weights_move_by_half_a_level(storage: Any, tmp_path: Path) -> None:
    """Each neuron of each network has a scale of its own; density and colour have eight bits at least."""
    model = kilo_model()
    path = write_kilo(tmp_path / "a.safetensors", model, storage, 4)
    found, expected = read_exported(path), layers_of_networks(model)
    assert found.layers.keys() == expected.keys()
    for name, form in found.metadata.layers().items():
        assert form.bits == (8 if name.endswith(("density", "colour")) else 4)
        weight = expected[name].weight
        step = weight.abs().amax(dim=1, keepdim=True) / largest_level(form.bits)
        assert bool(((found.layers[name].weight - weight).abs() <= 0.51 * step).all())
    assert path.stat().st_size < len(kilo_content(model)) / 3


def test_files_are_of_a_fixed_size_for_their_networks(tmp_path: Path) -> None:
    """By hand: 45 networks and so many weights of four bits, eight for density and colour, and four bytes a row."""
    model = kilo_model()
    count = model.networks.num_networks
    weights = [(8, 15), (8, 8), (8, 17)]
    rows = count * (8 + 8 + 8 + 1 + 3)
    expected = count * (sum(a * b for a, b in weights) // 2 + 8 + 24) + 4 * rows
    header, _ = taken_apart(kilo_content(model, "payload", 4))
    assert header["payload"]["shape"] == [expected]
    assert read_exported(write_kilo(tmp_path / "a", model)).metadata.parameters == model.networks.num_parameters


def changed(change: Callable[[dict[str, Any]], Any]) -> Callable[[bytes], bytes]:
    """A change of the metadata, whose check sum fits."""

    def damage(content: bytes) -> bytes:
        header, data = taken_apart(content)
        metadata = json.loads(header["__metadata__"][KEY])
        change(metadata)
        return sealed(header, metadata, data)

    return damage


def with_blob(name: str, change: Callable[[bytearray], Any]) -> Callable[[bytes], bytes]:
    """A change of what is stored beside the layers."""

    def damage(content: bytes) -> bytes:
        header, data = taken_apart(content)
        begin, end = header[name]["data_offsets"]
        networks = json.loads(header["__metadata__"][KEY])["networks"]
        sizes = {CELLS: 216, WIDTHS: sum(count for _, count in networks["classes"])}
        plain = bytearray(decompress(data[begin:end], sizes[name], name))
        change(plain)
        return with_tensor(content, name, compress(bytes(plain)))

    return damage


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "many voxels": (changed(lambda m: m["grid"].update(refine=200)), "grid: expected at most 16,777,216 voxels"),
    "no voxel": (changed(lambda m: m["grid"].update(refine=0)), r"\$.grid.refine"),
    "other grid": (changed(lambda m: m["grid"].update(shape=[4, 4, 3])), "cells: expected .* bytes when decompressed"),
    "flat cells": (changed(lambda m: m["grid"].update(size=0.0)), r"\$.grid.size"),
    "far away": (changed(lambda m: m["grid"].update(lower=[1e8, 0, 0])), "grid: expected cells"),
    "widths": (
        changed(lambda m: m["networks"].update(classes=[[8, 1], [8, 1]])),
        "networks.classes: expected ascending widths",
    ),
    "no networks": (changed(lambda m: m["networks"].update(classes=[[8, 0]])), "expected 1 to 1,000,000 networks"),
    "many networks": (
        changed(lambda m: m["networks"].update(classes=[[4096, 1_000_000]])),
        "metadata: expected at most 50,000,000 parameters",
    ),
    "bits": (changed(lambda m: m["networks"]["bits"].pop()), "networks.bits: expected 5, one for each layer, got 4"),
    "bits of the other storage": (
        changed(lambda m: m["networks"]["bits"].__setitem__(0, 8)),
        "stacks.0.hidden.0: expected bits that storage tensors can have, got 8",
    ),
    "planes": (changed(lambda m: m["steps"].update(near=6.0)), "steps: expected near < far"),
    "steps": (changed(lambda m: m["steps"].update(near=5.999999)), "steps: expected at most 16,384 from the camera on"),
    "a network more": (
        with_blob(CELLS, lambda plain: plain.__setitem__(slice(0, 216), bytes(216))),
        "cells: expected .* cells with something in them, got 0",
    ),
    "class": (with_blob(WIDTHS, lambda plain: plain.__setitem__(0, 7)), "widths: expected .* of each width"),
    "kind": (changed(lambda m: m.update(kind="mesh")), "kind"),
    "of the other kind": (changed(lambda m: m.update(kind="nerf")), "metadata"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_files_are_refused(name: str, tmp_path: Path) -> None:
    """Counts and sizes are held against each other before anything is made of them; what only the cells can tell is
    told as well, with the file's name."""
    damage, message = DAMAGES[name]
    path = tmp_path / "a.safetensors"
    path.write_bytes(damage(kilo_content(kilo_model(narrows=name == "class"))))
    with pytest.raises(FileFormatError, match=message) as caught:
        load_exported(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_command_and_what_it_says(tmp_path: Path, scene_cache: Path) -> None:
    """A finished run becomes a file as that of a large network does, measured on the same views; what only those can
    have is refused by name."""
    model = kilo_model()
    config = make_kilo(tmp_path, scene_cache)
    run = save_run(tmp_path / "run", model, config)
    path = tmp_path / "a.safetensors"
    with CONSOLE.capture() as capture:
        Export(run, path, dtype="float32", views=1).main()
    text = " ".join(capture.get().split())
    count = model.networks.num_networks
    assert "float32" in text and f"all {model.networks.num_parameters:,}, of {count} networks" in text
    assert "Pictures of 1 test view" in text and "file against checkpoint │ equal" in text
    assert load_exported(path).metadata.method == "kilonerf"
    for options, message in (
        ({"target_mb": 1.0}, "--target-mb is for runs of nerf-prune"),
        ({"bits": 4.5}, "--dtype mixed is for runs of nerf-prune"),
        ({"rounding": "compensated"}, "--rounding compensated is for runs of nerf-prune"),
    ):
        with pytest.raises(ValueError, match=message):
            Export(run, tmp_path / "b", views=0, **options).main()  # type: ignore[arg-type]
    assert not (tmp_path / "b").exists()
    Export(run, path, bits=4.0, compress=True, views=0).main()
    assert load_exported(path).metadata.storage == "lzma"


def test_run_that_has_no_networks_yet(tmp_path: Path, scene_cache: Path) -> None:
    """A checkpoint from before the first step shows nothing, and a file of it would not either."""
    config = make_kilo(tmp_path, scene_cache)
    model: Any = config.pipeline.model.setup(scene_box=None, num_train_data=1)
    run = save_run(tmp_path / "run", model, config)
    with pytest.raises(ValueError, match=r"config.yml|ckpt"):
        Export(run, tmp_path / "a", views=0).main()
    assert not (tmp_path / "a").exists()
