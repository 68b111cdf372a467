"""How `ns-prune export` shows what it has tried of widths and bits."""

from collections.abc import Sequence

from rich.table import Table

from nerfstudio_prune.export.bits import mean_bits
from nerfstudio_prune.export.joint import Tried
from nerfstudio_prune.export.reading import decode_exported


def widths_table(tried: Sequence[Tried], best: Tried) -> Table:
    """A row for each share of the parameters.

    Args:
        tried: What was tried.
        best: What is written.
    """
    table = Table(title="Neurons against bits, on training views kept back", title_justify="left")
    for name in ("parameters", "bits of a weight", "bytes", "PSNR dB", ""):
        table.add_column(name, justify="right")
    for one in tried:
        metadata = decode_exported(one.content).metadata
        forms = metadata.layers()
        bits = {name: form.bits for name, form in forms.items()}
        mean = mean_bits(bits, {name: form.rows * form.columns for name, form in forms.items()})
        chosen = "written" if one is best else ""
        table.add_row(f"{metadata.parameters:,}", f"{mean:.2f}", f"{len(one.content):,}", f"{one.psnr:.2f}", chosen)
    return table
