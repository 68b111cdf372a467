"""How `ns-prune export` shows what it wrote."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Optional, Protocol, runtime_checkable

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from nerfstudio_prune.data.view_quality import Quality
from nerfstudio_prune.engine.saved_run import SavedRun
from nerfstudio_prune.export.bits import mean_bits
from nerfstudio_prune.export.comparing import Comparison
from nerfstudio_prune.export.kinds import AnyMetadata
from nerfstudio_prune.export.numbers import Numbers
from nerfstudio_prune.export.reading import Exported


@runtime_checkable
class FileOfRun(Protocol):
    """What was asked for, and of which run."""

    @property
    def run(self) -> SavedRun[Any]:
        """The run."""
        ...

    @property
    def numbers(self) -> Numbers:
        """What its weights are to be."""
        ...

    @property
    def rounding(self) -> str:
        """How they are rounded."""
        ...


@dataclass(frozen=True)
class Whole:
    """What of a run is in a file."""

    told: str
    """Parameters in the file, in words."""
    name: str
    """What the run's network is called."""
    parameters: int
    """All of it."""
    bits: Callable[[Any], Table]
    """Shows, of metadata, which bits the layers have where they are mixed."""


def all_tables(
    file: FileOfRun,
    name: str,
    whole: Whole,
    found: Exported,
    compared: Optional[Comparison],
    reason: str,
    unknown: str,
) -> Iterator[Any]:
    """Everything to print, in order.

    Args:
        file: What was asked for, and of which run.
        name: Name of the file.
        whole: What of the run is in it.
        found: What was read back.
        compared: What was measured; None if nothing was.
        reason: Why nothing was.
        unknown: Why there are no calibration samples, where they would have been of use; empty if there are.
    """
    yield overview(file.run, name, numbers_in_words(file.numbers, file.rounding, found.metadata), found, whole)
    if file.numbers.mixed:
        yield whole.bits(found.metadata)
    if unknown:
        shared = ", and bits were shared out by weights alone" if file.numbers.mixed else ""
        yield Text(f"Weights were rounded to nearest{shared}: {unknown}")
    if compared is None:
        yield Text(f"Quality was not measured: {reason}")
    else:
        yield quality_table(compared)


def numbers_in_words(numbers: Numbers, rounding: str, metadata: AnyMetadata) -> str:
    """What the weights of a file are.

    Args:
        numbers: What was asked for.
        rounding: How they were rounded.
        metadata: What the file says of itself.
    """
    if metadata.storage == "tensors":
        return f"float{numbers.bits:g}"
    forms = metadata.layers()
    mean = mean_bits(
        {name: form.bits for name, form in forms.items()},
        {name: form.rows * form.columns for name, form in forms.items()},
    )
    kind = f"mixed, {mean:.2f} bits in the mean" if numbers.mixed else f"int{numbers.bits:g}"
    return f"{kind}, {rounding} rounding" + (", compressed" if metadata.storage == "lzma" else "")


def bits_table(metadata: AnyMetadata) -> Table:
    """Bits of each layer: a row a layer, a column a field."""
    table = Table(title="Bits of a weight", title_justify="left", min_width=40)
    table.add_column("layer")
    rows: dict[str, dict[str, str]] = {}
    for name, form in metadata.layers().items():
        field, _, layer = name.partition(".")
        rows.setdefault(layer, {})[field] = str(form.bits)
    fields = list(dict.fromkeys(field for row in rows.values() for field in row))
    for field in fields:
        table.add_column(field, justify="right")
    for layer, row in rows.items():
        table.add_row(layer, *(row.get(field, "—") for field in fields))
    return table


def overview(run: SavedRun[Any], file: str, numbers: str, found: Exported, whole: Whole) -> Table:
    """Where the file comes from, and its size.

    Args:
        run: The run.
        file: Name of the file.
        numbers: What its weights are.
        found: What was read back.
        whole: What of the run is in it.
    """
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    parameters, network = found.metadata.parameters, 4 * whole.parameters
    table.add_row("run", escape(f"{run.config.method_name}, {run.checkpoint} (step {run.step:,})"))
    table.add_row("written", escape(file))
    table.add_row("weights", escape(numbers))
    table.add_row("parameters", whole.told)
    table.add_row("size", f"{found.size:,} bytes, {8 * found.size / parameters:.2f} bits per parameter")
    table.add_row(
        whole.name,
        f"{network:,} bytes in fp32, the checkpoint without moments, {network / found.size:.1f} times the file",
    )
    stored = run.checkpoint.stat().st_size
    table.add_row(
        "checkpoint", f"{stored:,} bytes with the optimizer's moments, {stored / found.size:.1f} times the file"
    )
    return table


def quality_table(compared: Comparison) -> Table:
    """What checkpoint and file are worth, and how far apart they are."""
    views = "1 test view" if compared.views == 1 else f"{compared.views} test views"
    table = Table(title=f"Pictures of {views}", title_justify="left")
    table.add_column("")
    for name in ("PSNR dB", "SSIM"):
        table.add_column(name, justify="right")
    qualities = {"dense original": compared.original, "checkpoint": compared.checkpoint, "file": compared.file}
    for name, quality in qualities.items():
        if quality is not None:
            table.add_row(name, _decibels(quality.psnr), _similarity(quality))
    table.add_row("file against checkpoint", _decibels(compared.agreement), "")
    return table


def _decibels(value: float) -> str:
    return "equal" if math.isinf(value) else f"{value:.2f}"


def _similarity(quality: Quality) -> str:
    return "—" if quality.ssim is None else f"{quality.ssim:.4f}"
