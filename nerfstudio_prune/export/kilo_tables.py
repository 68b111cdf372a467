"""How `ns-prune export` shows the bits of tiny networks."""

from collections import Counter

from rich.table import Table

from nerfstudio_prune.export.kilo_schema import MIXED, KiloMetadata, layer_names


def kilo_bits_table(metadata: KiloMetadata) -> Table:
    """How many networks have how many bits: a row a layer, a column for each number of bits.

    Args:
        metadata: What a file says of itself.
    """
    table = Table(title="Networks by the bits of a weight", title_justify="left")
    table.add_column("layer")
    for name in (*(f"{bits} bits" for bits in MIXED), "mean"):
        table.add_column(name, justify="right")
    for name, noted in zip(layer_names(metadata.networks.layers), metadata.networks.bits, strict=True):
        if isinstance(noted, int):
            counts = Counter({noted: metadata.networks.count})
        else:
            counts = Counter(dict(zip(MIXED, map(sum, zip(*noted, strict=True)), strict=True)))
        mean = sum(bits * count for bits, count in counts.items()) / metadata.networks.count
        table.add_row(name, *(f"{counts[bits]:,}" if counts[bits] else "—" for bits in MIXED), f"{mean:.2f}")
    return table
