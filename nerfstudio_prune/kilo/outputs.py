"""Outputs of a whole view that only some ask for: each is rendered when it is looked up, and costs nothing before."""

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from copy import copy
from dataclasses import dataclass
from math import log1p
from typing import Any, Optional, Protocol

import torch
from jaxtyping import Float, Int, Int32
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.model_components.renderers import background_color_override_context
from nerfstudio.models.base_model import Model
from torch import Tensor

COUNTS = "num_samples_per_ray"
"""Samples of each ray that were evaluated, by the name that the host's `instant-ngp` has for them."""
FURTHER: Mapping[str, int] = {"networks": 3, "samples": 1, "error": 1, "teacher": 3, "difference": 1}
"""Name of a further output -> its channels. The last two need a teacher."""
POINTS_AT_ONCE = 2**14
"""Points that a teacher is asked at once: it is much wider than the networks, and their activations take memory."""


@dataclass(frozen=True, eq=False)
class Places:
    """Samples whose density and colour are asked for."""

    points: Float[Tensor, "samples 3"]
    """Where they are, in units of the scene."""
    network: Int32[Tensor, " samples"]
    """Network of the cell of each."""
    ray: Int32[Tensor, " samples"]
    """Ray of each."""
    directions: Float[Tensor, "rays 3"]
    """Direction of each ray, of length 1."""


Values = tuple[Float[Tensor, " samples"], Float[Tensor, "samples 3"]]
"""Density per unit of length, and colour in [0, 1]."""
Look = Callable[[Callable[[], Values], Places], Values]
"""What samples are shown as: takes what gives the networks' own values, and the samples."""


class SeesPoints(Protocol):
    """A field that says what is where; a `Teacher` is one."""

    def values(
        self, points: Float[Tensor, "points 3"], directions: Float[Tensor, "points directions 3"]
    ) -> tuple[Float[Tensor, " points"], Float[Tensor, "points directions 3"]]:
        """Density, and the colour in each direction."""
        ...


class Shows(Protocol):
    """What outputs have to know of a model."""

    training: bool
    look: Optional[Look]
    teacher: Optional[SeesPoints]


class ViewOutputs(MutableMapping[str, Tensor]):
    """Outputs of a view, by name. Those that are `drawn` are rendered when they are looked up, and kept then.

    Args:
        known: Name -> output, [height, width, channels].
        drawn: Name -> what renders it.
        counts: Samples of each ray that were evaluated for `rgb`, [height, width, 1].
    """

    def __init__(
        self,
        known: Mapping[str, Tensor],
        drawn: Mapping[str, Callable[["ViewOutputs"], Tensor]],
        counts: Int[Tensor, "height width 1"],
    ) -> None:
        self._known = dict(known)
        self._drawn = dict(drawn)
        self.counts = counts

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._known and name in self._drawn:
            self._known[name] = self._drawn[name](self)
        return self._known[name]

    def __setitem__(self, name: str, output: Tensor) -> None:
        self._known[name] = output

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)
        self._known.pop(name, None)
        self._drawn.pop(name, None)

    def __contains__(self, name: object) -> bool:
        return name in self._known or name in self._drawn

    def __iter__(self) -> Iterator[str]:
        return iter({**self._known, **self._drawn})

    def __len__(self) -> int:
        return len({**self._known, **self._drawn})


def cell_colours(cells: Int32[Tensor, " cells"]) -> Float[Tensor, "cells 3"]:
    """A colour for each cell: the same in every picture of a grid, whatever other cells there are, and as a rule
    another one than that of its neighbours.

    Args:
        cells: Numbers of cells, >= 0.

    Returns:
        Colours in [0, 1], none of them near white, black or grey.
    """
    mixed = cells.long()
    for _ in range(2):  # an integer hash: each bit of the number turns about half of the bits
        mixed = ((mixed >> 16) ^ mixed) * 0x45D9F3B & 0xFFFFFFFF
    mixed = (mixed >> 16) ^ mixed
    hue = (mixed & 0xFFFF) / 0x10000
    saturation = 0.5 + 0.4 * ((mixed >> 16) & 0xFF) / 0xFF
    value = 0.5 + 0.45 * (mixed >> 24) / 0xFF
    # From hue, saturation and value to red, green and blue.
    turn = (torch.tensor([5.0, 3.0, 1.0], device=cells.device) + 6 * hue[:, None]) % 6
    return value[:, None] * (1 - saturation[:, None] * torch.minimum(turn, 4 - turn).clamp(0, 1))


def work(counts: Int[Tensor, "*rays"], steps: int) -> Float[Tensor, "*rays"]:
    """Samples of rays on a logarithmic scale: most rays have few, and some have very many.

    Args:
        counts: Samples of each ray that were evaluated.
        steps: Most that there can be, >= 1.

    Returns:
        0 for none, 1 for all: log(1 + count) / log(1 + steps).
    """
    return (torch.log1p(counts.float()) / log1p(steps)).clamp(max=1)


def as_cells(colours: Float[Tensor, "networks 3"]) -> Look:
    """Shows each sample in the colour of its cell.

    Args:
        colours: Colour of each network.
    """

    def look(own: Callable[[], Values], places: Places) -> Values:
        density, _ = own()
        return density, colours.index_select(0, places.network)

    return look


def as_teacher(teacher: SeesPoints) -> Look:
    """Shows what a teacher says of the samples; the networks are not asked.

    Args:
        teacher: The teacher.
    """

    def look(own: Callable[[], Values], places: Places) -> Values:
        directions = places.directions.index_select(0, places.ray)[:, None]
        parts = [
            teacher.values(some, seen)
            for some, seen in zip(places.points.split(POINTS_AT_ONCE), directions.split(POINTS_AT_ONCE), strict=True)
        ]
        return torch.cat([density for density, _ in parts]), torch.cat([rgb[:, 0] for _, rgb in parts])

    return look


def view_outputs(
    model: Shows,
    bundle: RayBundle,
    found: Mapping[str, Tensor],
    steps: int,
    cells: Optional[Int32[Tensor, " networks"]],
    errors: Float[Tensor, " networks"],
) -> ViewOutputs:
    """Outputs of a view with those that are rendered when they are asked for.

    Args:
        model: The model.
        bundle: Rays of the view, of shape [height, width].
        found: What the model gave for them, `COUNTS` among it.
        steps: Most samples that a ray can have.
        cells: Number of the cell of each network; None where there is none yet.
        errors: How wrong each network is, in [0, 1]; 0 where nothing is known.
    """
    known = dict(found)
    counts = known.pop(COUNTS)
    # Whoever looks an output up may do so when the model itself is in training again.
    teacher, still = model.teacher, copy(model)
    still.training = False

    @torch.no_grad()
    def shown_as(look: Optional[Look]) -> Tensor:
        other: Any = copy(still)
        other.look = look
        return Model.get_outputs_for_camera_ray_bundle(other, bundle)["rgb"]

    def networks(_: ViewOutputs) -> Tensor:
        # A network that is no number has a colour that is none.
        return shown_as(None if cells is None else as_cells(cell_colours(cells))).nan_to_num(0.0)

    def samples(_: ViewOutputs) -> Tensor:
        return work(counts, steps)

    def error(_: ViewOutputs) -> Tensor:
        # Where there is nothing, nothing is wrong, whatever colour is behind it.
        with background_color_override_context(torch.zeros(3)):
            shown = shown_as(as_cells(errors[:, None].expand(-1, 3)))
        return shown[..., :1].nan_to_num(1.0)

    drawn: dict[str, Callable[[ViewOutputs], Tensor]] = {"networks": networks, "samples": samples, "error": error}
    if teacher is not None:
        seen = teacher
        drawn["teacher"] = lambda _: shown_as(as_teacher(seen))
        # What is no number is as wrong as can be, as above.
        drawn["difference"] = lambda outputs: (
            (outputs["rgb"] - outputs["teacher"]).abs().amax(dim=-1, keepdim=True).nan_to_num(1.0)
        )
    return ViewOutputs(known, drawn, counts)
