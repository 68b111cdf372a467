"""A network and what is known of it, as the bytes of a `.safetensors` file."""

from collections.abc import Mapping
from types import MappingProxyType

import msgspec
import torch
from safetensors.torch import save
from torch import Tensor

from nerfstudio_prune.exchange.compression import compress
from nerfstudio_prune.export.container import KEY, NO_SUM, PAYLOAD, check_sum
from nerfstudio_prune.export.kinds import AnyMetadata, check_metadata
from nerfstudio_prune.export.layers import (
    LayerTensors,
    RoundedLayer,
    encode_layer,
    round_to_nearest,
    tensors_of,
    to_bytes,
)


def encode_file(
    metadata: AnyMetadata,
    layers: Mapping[str, LayerTensors],
    rounded: Mapping[str, RoundedLayer] = MappingProxyType({}),
    blobs: Mapping[str, bytes] = MappingProxyType({}),
) -> bytes:
    """The content of a file.

    Args:
        metadata: What the file is to say; its check sum is put in.
        layers: The numbers of all its layers, finite.
        rounded: Layers that are rounded already, to as many bits as the metadata say; all others of a payload go to the
            nearest level.
        blobs: Bytes beside the layers, as many as the metadata say; they are compressed.

    Raises:
        FileFormatError: If the network is larger than a reader takes, or a number is too large for its type.
    """
    check_metadata(metadata)
    if metadata.storage == "tensors":
        tensors = tensors_of(layers, metadata.layers())
    else:
        parts = []
        for name, form in metadata.layers().items():
            layer = rounded.get(name) or round_to_nearest(layers[name], form.bits, name)
            parts.append(encode_layer(layer, form.bits, name))
        payload = b"".join(parts) if metadata.storage == "payload" else compress(b"".join(parts), pairs=True)
        tensors = {PAYLOAD: _of_bytes(payload)}
    tensors.update({name: _of_bytes(compress(blobs[name])) for name in metadata.blobs()})
    text = msgspec.json.encode(msgspec.structs.replace(metadata, crc32=NO_SUM)).decode()
    found = check_sum(text, map(to_bytes, tensors.values()))
    return save(tensors, {KEY: text.replace(NO_SUM, found, 1)})


def _of_bytes(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)
