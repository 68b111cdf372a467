"""What the weights of a file are to be, by the options of `ns-prune export`."""

from dataclasses import dataclass
from typing import Optional

from nerfstudio_prune.export.command import Export, Rounding
from nerfstudio_prune.export.rounding import MAX_BITS, MIN_BITS
from nerfstudio_prune.export.schema import Storage

BITS = {"float32": 32, "float16": 16, "int8": 8}
"""Type of the weights -> bits of each."""
MEGABYTE = 1_000_000
"""Bytes, as in options of pruning."""


@dataclass(frozen=True)
class Numbers:
    """What was asked for."""

    bits: float
    """Bits of a weight; their largest mean where they are mixed."""
    storage: Storage
    mixed: bool = False
    """Whether layers have bits of their own."""
    rounding: Optional[Rounding] = "nearest"
    """None: compensated, if there is what it needs."""
    largest: Optional[int] = None
    """Bytes that the file may have; None: any."""

    @property
    def reads_samples(self) -> bool:
        """Whether calibration samples make it better, or are needed."""
        return self.mixed or self.rounding != "nearest"

    def rounding_with(self, samples: Optional[object]) -> Rounding:
        """How weights are rounded: as was asked for, else as well as what is known of the run allows.

        Args:
            samples: Calibration samples; None where there are none.
        """
        return self.rounding or ("nearest" if samples is None else "compensated")


def numbers_of(options: Export) -> Numbers:
    """What the weights are to be.

    Args:
        options: Options of the command.

    Raises:
        ValueError: If they contradict each other, or one is out of its range.
    """
    if options.views < 0:
        raise ValueError(f"--views must be at least 0, got {options.views}")
    dtype = _dtype(options)
    if options.widths == "joint" and options.target_mb is None:
        raise ValueError("--widths joint goes with --target-mb, the size that neurons and bits share")
    if dtype in BITS and options.bits is not None:
        raise ValueError(f"--bits {options.bits:g} goes with --dtype intN or mixed, got {dtype}")
    if options.target_mb is not None:
        return _targeted(options, options.target_mb, dtype)
    bits = options.bits if dtype not in BITS else BITS[dtype]
    if dtype not in BITS and (bits is None or not MIN_BITS <= bits <= MAX_BITS):
        found = bits if bits is None else f"{bits:g}"
        raise ValueError(f"--dtype {dtype} needs --bits in [{MIN_BITS}, {MAX_BITS}], got {found}")
    assert bits is not None
    if dtype == "intN" and bits % 1:
        raise ValueError(
            f"--dtype intN needs whole --bits, got {bits:g}; --dtype mixed shares them out over the layers"
        )
    if bits > MAX_BITS:
        for option, given in (("--compress", options.compress), ("--rounding", options.rounding)):
            if given:
                raise ValueError(f"{option} is for integers, got --dtype {dtype}")
        return Numbers(float(bits), "tensors")
    default = "nearest" if bits == MAX_BITS else None
    return Numbers(float(bits), _storage(options), dtype == "mixed", options.rounding or default)


def _dtype(options: Export) -> str:
    if options.dtype is not None:
        return options.dtype
    if options.target_mb is not None:
        return "mixed"
    if options.bits is None:
        return "int8"
    return "mixed" if options.bits % 1 else "intN"


def _targeted(options: Export, megabytes: float, dtype: str) -> Numbers:
    for option, given in (("--bits", options.bits), ("--dtype", options.dtype if dtype != "mixed" else None)):
        if given is not None:
            raise ValueError(f"--target-mb {megabytes:g} chooses the bits of each layer, got {option} {given}")
    if not 0 < megabytes < float("inf"):
        raise ValueError(f"--target-mb must be above 0, got {megabytes:g}")
    return Numbers(float(MAX_BITS), _storage(options), True, options.rounding, int(megabytes * MEGABYTE + 1e-6))


def _storage(options: Export) -> Storage:
    return "lzma" if options.compress else "payload"
