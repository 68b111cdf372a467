"""What is written is what was there, rounded as it says; what is read may come from anyone."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save
from stress.exported import compressed_file, large_file, put_together, sealed, taken_apart
from support.exported import content_of, small_model, write_model
from support.fuzz import attempt
from support.tiny_run import shrink, tiny_widths

from nerfstudio_prune.core.events import PruneEvent, PruneState, Sizes
from nerfstudio_prune.exchange.compression import compress
from nerfstudio_prune.exchange.errors import FileFormatError
from nerfstudio_prune.export.container import KEY, LENGTH, MAX_BYTES
from nerfstudio_prune.export.from_run import layers_of, uniform_bits
from nerfstudio_prune.export.layers import layer_bytes
from nerfstudio_prune.export.reading import read_exported
from nerfstudio_prune.export.rounding import dequantize, quantize
from nerfstudio_prune.export.schema import MAX_PARAMETERS, Layer, Storage
from nerfstudio_prune.nerf.model import PruneModel

DENSITY, COLOUR = "field_fine.field_output_density.net", "field_fine.field_heads.0.net"


@pytest.fixture(scope="module")
def model() -> PruneModel:
    """A network with a skip connection, of other widths in its two fields."""
    model = small_model()
    model.prune_state = PruneState(initial_sizes=tiny_widths(16, 8))
    return shrink(model, {**tiny_widths(9, 5, ("coarse",)), **tiny_widths(11, 7, ("fine",))}).eval()


def metadata_of(content: bytes) -> Any:
    """What a file says of itself, read by other means than those under test."""
    return json.loads(taken_apart(content)[0]["__metadata__"][KEY])


def test_float_files_can_be_read_by_any_tool(model: PruneModel, tmp_path: Path) -> None:
    """One tensor for each weight and bias, named as in the checkpoint; a tool that knows nothing of the metadata finds
    the network in it. Only the coarse field's colour is left out, which no picture needs."""
    tensors = load_file(write_model(tmp_path / "a.safetensors", model))
    state = model.state_dict()
    left_out = {
        name for name in state if name.startswith(("field_coarse.mlp_head", "field_coarse.field_heads", "_extra"))
    }
    assert tensors.keys() == {name for name in state if name.startswith("field_")} - left_out
    assert all(torch.equal(tensors[name], state[name]) for name in tensors)
    half = load_file(write_model(tmp_path / "b.safetensors", model, bits=16))
    assert all(torch.equal(half[name], state[name].half()) for name in tensors)


@pytest.mark.parametrize(("storage", "bits"), [("payload", b) for b in range(2, 9)] + [("lzma", 4), ("lzma", 8)])
def test_integers_come_back_as_they_were_rounded(
    storage: Storage, bits: int, model: PruneModel, tmp_path: Path
) -> None:
    """The reader must give, to the bit, what the writer rounded to; density and colour have eight bits at least, since
    all that a field says passes through their few weights."""
    path = write_model(tmp_path / "a.safetensors", model, storage, bits)
    found, layers = read_exported(path), layers_of(model)
    assert found.layers.keys() == layers.keys() and found.size == path.stat().st_size
    for name, layer in layers.items():
        own = 8 if name in (DENSITY, COLOUR, DENSITY.replace("fine", "coarse")) else bits
        assert found.metadata.layers()[name].bits == own
        assert torch.equal(found.layers[name].weight, dequantize(*quantize(layer.weight, own), own))
        assert torch.equal(found.layers[name].bias, layer.bias.half().float())


def test_bits_are_told_for_each_layer(model: PruneModel) -> None:
    """What layers are worth differs; the format has to take any mixture."""
    bits = uniform_bits(layers_of(model), 3)
    assert set(bits.values()) == {3, 8} and uniform_bits(bits, 16) == dict.fromkeys(bits, 16)


def test_payload_is_no_larger_than_its_description(model: PruneModel) -> None:
    """Small networks are what this is for: one tensor of bytes, since an entry of the header takes some hundred; codes
    of a layer without gaps, two bytes for each scale and each bias."""
    content = content_of(model, "payload", 5)
    header, data = taken_apart(content)
    forms = metadata_of(content)
    layers = [*forms["coarse"]["trunk"], forms["coarse"]["density"]]
    layers += [*forms["fine"]["trunk"], forms["fine"]["density"], *forms["fine"]["head"], forms["fine"]["colour"]]
    assert len(layers) == 15 and header.keys() == {"__metadata__", "payload"}
    assert len(data) == sum((rows * columns * bits + 7) // 8 + 4 * rows for rows, columns, bits in layers)
    assert len(content) - len(data) < 1800
    assert len(content_of(model, "lzma", 5)) < len(content)


def test_says_what_became_of_the_network(model: PruneModel, tmp_path: Path) -> None:
    """Years later the file is all that is left of a run: widths at first, cuts, versions."""
    event = PruneEvent(7, None, "obs", "continue", before=Sizes({}, {"parameters": 900}), after=Sizes())
    model.prune_state.history = [event, PruneEvent(8, None, "obs", "continue", error="it failed")]
    found: Any = read_exported(write_model(tmp_path / "a.safetensors", model)).metadata
    model.prune_state.history = []
    assert found.fine.trained == [16] * 5 + [8] * 2 and [layer.rows for layer in found.fine.trunk] == [11] * 5
    assert [(cut.step, cut.strategy, cut.before, cut.after) for cut in found.cuts] == [(7, "obs", 900, None)]
    assert found.versions.keys() == {"nerfstudio-prune", "nerfstudio", "torch", "safetensors"}
    assert (found.collider.near, found.collider.trained_near, found.collider.far) == (0.0, 2.0, 6.0)


def test_weights_that_are_not_finite_are_not_written(model: PruneModel) -> None:
    """A run that diverged would become a file that its own reader refuses."""
    broken = small_model()
    with torch.no_grad():
        broken.field_fine.mlp_base.layers[1].bias[3] = float("inf")  # type: ignore[index]
    with pytest.raises(FileFormatError, match=r"field_fine.mlp_base.layers.1.bias.*1 of 16 that are not"):
        content_of(broken)
    with torch.no_grad():
        broken.field_fine.mlp_base.layers[1].bias[3] = 1e5  # type: ignore[index]
    for storage, bits in (("tensors", 16), ("payload", 8)):
        with pytest.raises(FileFormatError, match=r"layers.1.bias: expected numbers within ±65504, got 1e\+05"):
            content_of(broken, storage, bits)  # type: ignore[arg-type]


Damage = Callable[[bytes], bytes]


def with_header(change: Callable[[Any], Any]) -> Damage:
    """Changes the header alone."""

    def damage(content: bytes) -> bytes:
        header, data = taken_apart(content)
        change(header)
        return put_together(header, data)

    return damage


def with_metadata(change: Callable[[Any], Any]) -> Damage:
    """Changes what a file says of itself, and makes the check sum fit."""

    def damage(content: bytes) -> bytes:
        header, data = taken_apart(content)
        metadata = metadata_of(content)
        change(metadata)
        return sealed(header, metadata, data)

    return damage


def with_data(change: Callable[[bytearray], Any]) -> Damage:
    """Changes numbers, and makes the check sum fit."""

    def damage(content: bytes) -> bytes:
        header, data = taken_apart(content)
        changed = bytearray(data)
        change(changed)
        return sealed(header, metadata_of(content), bytes(changed))

    return damage


def scales_of_the_last_layer(value: float) -> Callable[[bytearray], None]:
    """Sets the first scale of the colour layer, which is the last one: three scales and three biases end the file."""
    return lambda data: data.__setitem__(slice(-12, -10), torch.tensor([value], dtype=torch.float16).numpy().tobytes())


DAMAGES: dict[str, tuple[Storage, Damage, str]] = {
    "empty": ("tensors", lambda c: b"", "header: expected at least 8 bytes, got 0"),
    "foreign": ("tensors", lambda c: b"\x80\x02" + b"pickle" * 20, "header: expected a length of 2 to"),
    "huge header": ("tensors", lambda c: (10**12).to_bytes(8, "little") + c[8:], "got 1,000,000,000,000"),
    "no JSON": ("tensors", lambda c: c[:LENGTH] + b"x" + c[LENGTH + 1 :], "header: expected JSON"),
    "a list": ("tensors", lambda c: put_together([1], b""), r"header: expected a JSON object, got \[1\]"),
    "deep": ("tensors", lambda c: (50_000).to_bytes(8, "little") + b"[" * 50_000, "header: expected JSON"),
    "another's": ("tensors", lambda c: save({"a": torch.ones(2)}), "metadata: expected a text 'nerfstudio_prune'"),
    "newer": ("tensors", with_metadata(lambda m: m.update(version=2, new=1)), "metadata, version: expected 1.*got 2"),
    "unknown key": ("tensors", with_metadata(lambda m: m.update(lens=1)), "metadata, .*unknown field `lens`"),
    "missing key": ("tensors", with_metadata(lambda m: m.pop("skips")), "metadata, .*missing required field `skips`"),
    "out of range": (
        "tensors",
        with_metadata(lambda m: m["sampling"].update(coarse=10**6)),
        r"metadata, \$.sampling.coarse: Expected `int` <= 4096; found 1000000",
    ),
    "not finite": (
        "tensors",
        with_metadata(lambda m: m["collider"].update(far=float("inf"))),
        "metadata: expected JSON",
    ),
    "no rays": ("tensors", with_metadata(lambda m: m["collider"].update(far=0)), "collider: expected near < far"),
    "no chain": (
        "payload",
        with_metadata(lambda m: m["fine"]["trunk"][1].__setitem__(0, 12)),
        r"field_fine.trunk\[2\]: expected 11 x 75 weights.*got 11 x 74",
    ),
    "coarse colour": (
        "payload",
        with_metadata(lambda m: m["coarse"].update(colour=[3, 5, 8])),
        "field_coarse: expected",
    ),
    "65 layers": (
        "payload",
        with_metadata(lambda m: m["fine"]["trunk"].extend([[11, 11, 8]] * 59)),
        "field_fine: expected at most 64 layers, got 68",
    ),
    "bits of the other storage": (
        "payload",
        with_metadata(lambda m: m["fine"]["colour"].__setitem__(2, 16)),
        f"{COLOUR}: expected bits that storage payload can have, got 16",
    ),
    "short payload": (
        "payload",
        with_metadata(lambda m: m["fine"]["trunk"][0].__setitem__(2, 7)),
        "payload: expected U8 of shape",
    ),
    "missing tensor": (
        "tensors",
        with_header(lambda h: h.__setitem__("other", h.pop(f"{COLOUR}.bias"))),
        "header: expected the tensors.*1 missing entries.*1 unknown entries",
    ),
    "other shape": (
        "tensors",
        with_header(lambda h: h[f"{COLOUR}.bias"].update(shape=[1, 3])),
        rf"{COLOUR}.bias: expected F32 of shape \[3\], got 'F32' of \[1, 3\]",
    ),
    "overlap": (
        "tensors",
        with_header(lambda h: h[f"{COLOUR}.bias"].update(data_offsets=[0, 12])),
        "tensors: expected what the header describes",
    ),
    "cut off": ("tensors", lambda c: c[:-1], "tensors: expected what the header describes"),
    "longer": ("tensors", lambda c: c + b"x", "tensors: expected what the header describes"),
    "flipped": ("tensors", lambda c: c[:-50] + bytes([c[-50] ^ 1]) + c[-49:], "check sum: expected.*damaged"),
    "flipped in the metadata": (
        "tensors",
        lambda c: c.replace(b'far\\":6.0', b'far\\":7.0'),
        "check sum: expected.*damaged",
    ),
    "NaN": ("tensors", with_data(lambda d: d.__setitem__(slice(4), b"\xff" * 4)), "expected finite numbers, got 1 of"),
    "code": ("payload", with_data(lambda d: d.__setitem__(0, 255)), "layers.0: expected codes of at most 254, got 255"),
    "scale": ("payload", with_data(scales_of_the_last_layer(20_000)), f"{COLOUR}, scales: expected numbers from 0 to"),
    "negative scale": (
        "payload",
        with_data(scales_of_the_last_layer(-1)),
        f"{COLOUR}, scales: expected numbers from 0",
    ),
    "infinite scale": ("payload", with_data(scales_of_the_last_layer(float("inf"))), "scales: expected finite"),
    "no stream": ("lzma", with_data(lambda d: d.__setitem__(slice(13), b"x" * 13)), "payload: expected an lzma stream"),
    "bomb": (
        "lzma",
        lambda c: compressed_file(metadata_of(c), compress(bytes(10**7))),
        "payload: expected .* bytes when decompressed, got more",
    ),
}
"""What is wrong with a file -> how it is stored, what is done to it, and what the message says."""


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_files_are_refused(name: str, model: PruneModel, tmp_path: Path) -> None:
    """Whoever gets a file from somebody must be told what is wrong with it: file, section, found, expected; never a
    traceback from within a library, and never a picture that is somebody else's."""
    storage, damage, message = DAMAGES[name]
    path = tmp_path / "a.safetensors"
    content = content_of(model, storage, 32 if storage == "tensors" else 8)
    path.write_bytes(damage(content))
    assert path.read_bytes() != content
    with pytest.raises(FileFormatError, match=message) as caught:
        read_exported(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_files_that_are_none(tmp_path: Path) -> None:
    """A folder, nothing, and more than any network: told before anything is read."""
    for path, message in ((tmp_path, "is a folder"), (tmp_path / "x", "No such file")):
        with pytest.raises(FileFormatError, match=f"{path}: cannot be read.*{message}"):
            read_exported(path)
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(FileFormatError, match="has 64,000,001 bytes, expected at most 64,000,000"):
        read_exported(large)


def test_files_of_earlier_versions_are_read(model: PruneModel, tmp_path: Path) -> None:
    """The word that tells one kind from another stood elsewhere in the text once; such files are out there."""
    content = content_of(model, "payload", 8)
    header, data = taken_apart(content)
    metadata = json.loads(header["__metadata__"][KEY])
    kind = metadata.pop("kind")
    former = {"crc32": metadata.pop("crc32"), "version": metadata.pop("version"), "kind": kind, **metadata}
    (tmp_path / "a").write_bytes(sealed(header, former, data))
    (tmp_path / "b").write_bytes(content)
    assert (tmp_path / "a").read_bytes() != content
    first, second = (read_exported(tmp_path / name) for name in "ab")
    assert msgspec.structs.replace(first.metadata, crc32=second.metadata.crc32) == second.metadata


def test_small_file_of_a_large_network(tmp_path: Path) -> None:
    """Six kilobytes can truly describe 34 million weights of zeros. Below the limit they are read, in no more memory
    than the weights and the bytes that they are unpacked from; above it nothing is unpacked."""
    path, outcomes = tmp_path / "a.safetensors", []
    content = content_of(small_model(), "payload", 8)
    for layers in (3, 4):
        path.write_bytes(large_file(content, layers))
        assert path.stat().st_size < 10_000
        outcomes.append(attempt(lambda rng: str(read_exported(path).metadata.parameters), random.Random(0)))
    assert outcomes == [("33828966", ""), ("clear error", "")]
    with pytest.raises(FileFormatError, match=f"at most {MAX_PARAMETERS:,} parameters, got 50,610,278"):
        read_exported(path)


def test_layer_bytes_by_hand() -> None:
    """Three rows of five weights of three bits are 45 bits in six bytes, and each row has a scale and a bias."""
    assert layer_bytes(Layer(3, 5, 3)) == 6 + 3 * 4
