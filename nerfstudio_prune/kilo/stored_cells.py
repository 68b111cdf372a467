"""Cells and steps along rays as buffers of a model, so that a checkpoint holds all that a picture needs."""

from collections.abc import Mapping
from math import ceil, prod
from typing import Any, Optional

import torch
from torch import Tensor, nn

from nerfstudio_prune.core.tensors import check_tensor
from nerfstudio_prune.kilonerf.cells import LiveCells
from nerfstudio_prune.kilonerf.march import Lattice, Spacing
from nerfstudio_prune.occupancy import MAX_CELLS

TYPES: Mapping[str, torch.dtype] = {
    "lower": torch.float32,
    "size": torch.float64,
    "shape": torch.int64,
    "refine": torch.int64,
    "lattice": torch.float64,
    "occupancy": torch.uint8,
}
"""Buffer -> its type. Sizes and steps are Python's own floats, which float32 would round."""
SHAPES: Mapping[str, tuple[int, ...]] = {"lower": (3,), "size": (), "shape": (3,), "refine": (), "lattice": (3,)}
MAX_STEPS = 2**24
"""Most steps of a ray; sample numbers are 32 bits wide."""


class StoredCells(nn.Module):
    """Cells, voxels and lattice; none of them as long as a model has no networks.

    Buffers: `lower` corner, `size` of a cell, `shape` in cells, `refine` voxels a side; `lattice` near, far, steps;
    `occupancy`, eight voxels a byte.
    """

    def __init__(self) -> None:
        super().__init__()
        for name, dtype in TYPES.items():
            self.register_buffer(name, torch.zeros(SHAPES.get(name, (0,)), dtype=dtype))
        self.live: Optional[LiveCells] = None
        """The cells."""
        self.lattice_of_rays: Optional[Lattice] = None
        """Steps of rays in training."""
        self._device = torch.device("cpu")

    def put(self, live: LiveCells, lattice: Lattice) -> None:
        """Takes cells up.

        Args:
            live: The cells.
            lattice: Steps of rays in training.
        """
        self.take(buffers_of(live, lattice), lattice.spacing)

    def take(self, buffers: Mapping[str, Tensor], spacing: Spacing) -> None:
        """Takes up what `buffers_of` gave.

        Args:
            buffers: Name -> tensor, of any device.
            spacing: How the steps are spaced, which follows from the space that cells lie in.

        Raises:
            ValueError: If they describe no cells.
        """
        live, lattice = cells_of_buffers(buffers, spacing)
        for name, dtype in TYPES.items():
            setattr(self, name, buffers[name].to("cpu", dtype, copy=True))
        self.live, self.lattice_of_rays = live.to(self._device), lattice

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Cells follow the model to another device; the buffers, which are there to be saved, stay on the CPU."""
        self._device = fn(torch.zeros(1)).device
        if self.live is not None:
            self.live = self.live.to(self._device)
        return self


def buffers_of(live: LiveCells, lattice: Lattice) -> dict[str, Tensor]:
    """Cells and steps as tensors.

    Args:
        live: The cells.
        lattice: Steps of rays; how they are spaced is not told.
    """
    state = live.to_dict()
    return {
        "lower": state["lower"],
        "size": torch.tensor(state["cell_size"], dtype=torch.float64),
        "shape": torch.tensor(state["shape"]),
        "refine": torch.tensor(state["refine"]),
        "lattice": torch.tensor([lattice.near, lattice.far, lattice.steps], dtype=torch.float64),
        "occupancy": state["voxels"],
    }


def cells_of_buffers(buffers: Mapping[str, Any], spacing: Spacing) -> tuple[LiveCells, Lattice]:
    """The cells and steps that `buffers_of` described.

    Args:
        buffers: Name -> tensor; anything, for it may come from a stranger.
        spacing: How the steps are spaced.

    Raises:
        ValueError: If they describe none.
    """
    for name, dtype in TYPES.items():
        check_tensor(buffers.get(name), f"cells.{name}", (dtype,))
        expected = SHAPES.get(name)
        if expected is not None and tuple(buffers[name].shape) != expected:
            raise ValueError(f"cells.{name} has shape {tuple(buffers[name].shape)}, expected {expected}")
    shape, refine = buffers["shape"].tolist(), int(buffers["refine"])
    # Before anything of that size is made.
    if not (min(*shape, refine) >= 1 and prod(shape) * refine**3 <= MAX_CELLS):
        raise ValueError(f"cells.shape and cells.refine must be at least 1 and give a grid, got {shape} and {refine}")
    needed = ceil(prod(shape) * refine**3 / 8)
    if buffers["occupancy"].shape != (needed,):
        found = tuple(buffers["occupancy"].shape)
        raise ValueError(f"cells.occupancy has shape {found}, expected ({needed},)")
    live = LiveCells.from_dict(
        {
            "lower": buffers["lower"].cpu(),
            "cell_size": float(buffers["size"]),
            "shape": shape,
            "refine": refine,
            "voxels": buffers["occupancy"].cpu(),
        }
    )
    near, far, steps = buffers["lattice"].tolist()
    if not 1 <= steps <= MAX_STEPS:
        raise ValueError(f"cells.lattice has {steps:g} steps, expected 1 to {MAX_STEPS:,}")
    if live.count < 1:
        raise ValueError("cells.occupancy has no occupied voxel; expected one at least")
    return live, Lattice(near, far, int(steps), spacing)
