"""A grid of tiny networks as one file: the pictures of the run, without the run, and nothing that it does not say."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.utils.rich_utils import CONSOLE
from stress.exported import sealed, taken_apart, with_tensor
from support.exported_kilo import COUNTS, kilo_content, kilo_model, mixed_table, write_kilo
from support.saved_run import save_run
from support.tiny_kilo import make_kilo
from support.tiny_run import rays

from nerfstudio_prune.exchange.compression import compress, decompress
from nerfstudio_prune.exchange.errors import FileFormatError
from nerfstudio_prune.export.command import Export
from nerfstudio_prune.export.container import KEY
from nerfstudio_prune.export.kilo_from_run import layers_of_networks
from nerfstudio_prune.export.kilo_schema import BITS, CELLS, WIDTHS
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


@pytest.mark.parametrize("storage", ["payload", "lzma"])
def test_networks_have_bits_of_their_own(storage: Any, tmp_path: Path) -> None:
    """Whatever its neighbours have: weights that land in another network, or are read with another number of bits, are
    not those of the run within half a level."""
    model = kilo_model(narrows=True)
    table, network = mixed_table(model), load_exported(write_kilo(tmp_path / "a", model, storage, mixed=True))
    found: Any = network.networks  # type: ignore[union-attr]
    parts_of = (["w1"], ["w2"], ["w_density"], ["w_feature", "w_direction"], ["w_rgb"])
    for number in range(model.networks.num_networks):
        own, other = (stack_of(networks, number) for networks in (found, model.networks))
        for row, parts in enumerate(parts_of):
            weight, expected = (torch.cat([stack[part] for part in parts]) for stack in (own, other))
            step = expected.abs().amax(dim=0) / largest_level(int(table[row, number]))
            assert bool(((weight - expected).abs() <= 0.51 * step).all())
    bundle = rays(20)
    assert bool(torch.isfinite(network(bundle.origins, bundle.directions)["rgb"]).all())


def stack_of(networks: Any, number: int) -> dict[str, torch.Tensor]:
    """Parameters of one network."""
    place = int(networks.position[number])
    for stack in networks:
        if place < stack.num_networks:
            return {name: value.detach()[place] for name, value in stack.named_parameters()}
        place -= stack.num_networks
    raise AssertionError(number)


def test_bits_of_networks_take_few_bytes(tmp_path: Path) -> None:
    """By hand: so many weights of each network times its bits, whole bytes for each group, and less than a byte for
    each of the others' bits. Where all have as many, files are as they were before networks could differ."""
    model = kilo_model()
    table, weights = mixed_table(model), torch.tensor([8 * 15, 8 * 8, 8, 8 * 17, 24])
    content = kilo_content(model, "payload", mixed=True)
    header, _ = taken_apart(content)
    bits, rows = int((table.long() * weights[:, None]).sum()), 28 * model.networks.num_networks
    assert 0 <= header["payload"]["shape"][0] - bits / 8 - 4 * rows <= 4 * 7
    same, _ = taken_apart(kilo_content(model, "payload", 4))
    assert BITS not in same and json.loads(same["__metadata__"][KEY])["networks"]["bits"] == [4, 4, 8, 4, 8]


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
        count = sum(count for _, count in networks["classes"])
        sizes = {CELLS: 216, WIDTHS: count, BITS: 4 * count}
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
    "bits that differ": (
        changed(lambda m: m["networks"]["bits"][0][3].__setitem__(0, 40)),
        r"networks.bits\[0\]: expected \[3, 0, 2, 59\] networks of each width",
    ),
    "bits of fewer widths": (changed(lambda m: m["networks"]["bits"][0].pop()), r"networks.bits\[0\]"),
    "bits beyond eight": (changed(lambda m: m["networks"]["bits"][0][0].append(1)), r"\$.networks.bits\[0\]\[0\]"),
    "bits of a network": (
        with_blob(BITS, lambda plain: plain.__setitem__(0, (plain[0] - 1) % 7 + 2)),
        "bits: expected .* networks of 2, 3, ... bits, got others",
    ),
    "bits of none": (with_blob(BITS, lambda plain: plain.__setitem__(0, 200)), "bits: expected .* networks"),
    "kind": (changed(lambda m: m.update(kind="mesh")), "kind"),
    "of the other kind": (changed(lambda m: m.update(kind="nerf")), "metadata"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_files_are_refused(name: str, tmp_path: Path) -> None:
    """Counts and sizes are held against each other before anything is made of them; what only the cells can tell is
    told as well, with the file's name."""
    damage, message = DAMAGES[name]
    path = tmp_path / "a.safetensors"
    mixed = name.startswith("bits ") and "storage" not in name
    model = kilo_model(narrows=mixed or name == "class")
    path.write_bytes(damage(kilo_content(model, "payload", mixed=True) if mixed else kilo_content(model)))
    with pytest.raises(FileFormatError, match=message) as caught:
        load_exported(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_command_and_what_it_says(tmp_path: Path, scene_cache: Path) -> None:
    """A finished run becomes a file as that of a large network does, measured on the same views."""
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
    with CONSOLE.capture() as capture:
        Export(run, path, bits=4.0, compress=True, views=0).main()
    assert load_exported(path).metadata.storage == "lzma" and "int4, compensated rounding" in capture.get()
    with CONSOLE.capture() as capture:
        Export(run, path, target_mb=0.02, views=0).main()
    text = " ".join(capture.get().split())
    assert 19_000 < path.stat().st_size <= 20_000 and "compensated rounding" in text
    assert "Networks by the bits of a weight" in text and "2 bits ┃ 3 bits" in text
    with pytest.raises(ValueError, match=r"--target-mb 0.001: expected a file of at most 1,000 bytes, got [\d,]+ at 2"):
        Export(run, path, target_mb=0.001, views=0).main()


def test_mixed_bits_without_data(tmp_path: Path, scene_cache: Path) -> None:
    """By weights alone then, to nearest; and that is said."""
    config = make_kilo(tmp_path, scene_cache)
    config.pipeline.datamanager.dataparser = BlenderDataParserConfig(data=tmp_path / "moved")
    run = save_run(tmp_path / "run", kilo_model(), config)
    with CONSOLE.capture() as capture:
        Export(run, tmp_path / "a", bits=4.5).main()
    text = " ".join(capture.get().split())
    assert "nearest rounding" in text and "bits were shared out by weights alone" in text
    with pytest.raises(ValueError, match="--rounding compensated needs training views"):
        Export(run, tmp_path / "b", bits=4.0, rounding="compensated").main()


def test_run_that_has_no_networks_yet(tmp_path: Path, scene_cache: Path) -> None:
    """A checkpoint from before the first step shows nothing, and a file of it would not either."""
    config = make_kilo(tmp_path, scene_cache)
    model: Any = config.pipeline.model.setup(scene_box=None, num_train_data=1)
    run = save_run(tmp_path / "run", model, config)
    with pytest.raises(ValueError, match=r"config.yml|ckpt"):
        Export(run, tmp_path / "a", views=0).main()
    assert not (tmp_path / "a").exists()
