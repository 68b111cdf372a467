"""What must hold between the parts of a file's metadata, before anything is allocated for what they describe."""

from collections.abc import Mapping, Sequence

from nerfstudio_prune.exchange.errors import refuse
from nerfstudio_prune.export.rounding import MAX_BITS
from nerfstudio_prune.export.schema import MAX_LAYERS, MAX_PARAMETERS, Field, Layer, Metadata, Storage


def check_nerf(metadata: Metadata) -> None:
    """Checks limits, that each layer reads what the one before it gives, and that rays have a length.

    Args:
        metadata: Values that are in their ranges, each for itself.

    Raises:
        FileFormatError: Names the layer or value, what was expected and what was found.
    """
    _check_field("field_coarse", metadata.coarse, metadata, colour=False)
    _check_field("field_fine", metadata.fine, metadata, colour=True)
    if metadata.parameters > MAX_PARAMETERS:
        raise refuse("metadata", f"at most {MAX_PARAMETERS:,} parameters", f"{metadata.parameters:,}")
    check_bits(metadata.layers(), metadata.storage)
    if metadata.collider.near >= metadata.collider.far:
        raise refuse("collider", "near < far", f"near {metadata.collider.near:g}, far {metadata.collider.far:g}")


def check_bits(layers: Mapping[str, Layer], storage: Storage) -> None:
    """Checks that a file stores weights of as many bits in such a way.

    Args:
        layers: Name -> form.
        storage: How numbers are stored.

    Raises:
        FileFormatError: Names the layer.
    """
    allowed = (16, 32) if storage == "tensors" else range(2, MAX_BITS + 1)
    for name, layer in layers.items():
        if layer.bits not in allowed:
            raise refuse(name, f"bits that storage {storage} can have", str(layer.bits))


def _check_field(name: str, field: Field, metadata: Metadata, colour: bool) -> None:
    layers = dict(field.layers(name))
    if len(layers) > MAX_LAYERS:
        raise refuse(name, f"at most {MAX_LAYERS} layers", str(len(layers)))
    if colour != (field.colour is not None) or colour != bool(field.head):
        wanted = "a head and a colour layer" if colour else "neither head nor colour layer"
        raise refuse(name, wanted, f"{len(field.head)} head layers and {'a' if field.colour else 'no'} colour layer")
    features = _check_chain(name, field.trunk, metadata.position.width, metadata)
    _check_layer(f"{name}.density", field.density, features, 1)
    if field.colour is not None:
        width = metadata.direction.width + features
        for i, layer in enumerate(field.head):
            _check_layer(f"{name}.head[{i}]", layer, width, layer.rows)
            width = layer.rows
        _check_layer(f"{name}.colour", field.colour, width, 3)


def _check_chain(name: str, trunk: Sequence[Layer], encoded: int, metadata: Metadata) -> int:
    """Checks the trunk; gives its number of outputs."""
    width = encoded
    for i, layer in enumerate(trunk):
        skips = i > 0 and i in metadata.skips
        _check_layer(f"{name}.trunk[{i}]", layer, width + encoded * skips, layer.rows)
        width = layer.rows
    return width


def _check_layer(name: str, layer: Layer, columns: int, rows: int) -> None:
    if (layer.rows, layer.columns) != (rows, columns):
        found = f"{layer.rows} x {layer.columns}"
        raise refuse(name, f"{rows} x {columns} weights, as the layers beside it ask for", found)
