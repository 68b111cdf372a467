"""What the scene asks for: cells, networks and steps along rays, each from the teacher and the training views."""

from dataclasses import dataclass, replace
from math import ceil, floor
from typing import Any, Optional

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from nerfstudio_prune.kilo.behind import open_rays, places_behind
from nerfstudio_prune.kilo.config import COARSE_REFINE, FINE_REFINE, KiloOptions
from nerfstudio_prune.kilo.lessons import Lessons
from nerfstudio_prune.kilo.sizing import samples_of_a_ray, trial
from nerfstudio_prune.kilo.space import places_on_rays, seen_by, where_seen
from nerfstudio_prune.kilo.spaces import Space
from nerfstudio_prune.kilo.teacher import Teacher
from nerfstudio_prune.kilo.visibility import seen_box
from nerfstudio_prune.kilonerf.budget import BudgetKind, Choice, choose, live_counts, megabytes
from nerfstudio_prune.kilonerf.building import build_cells, holding
from nerfstudio_prune.kilonerf.cells import LiveCells
from nerfstudio_prune.kilonerf.classes import class_widths
from nerfstudio_prune.kilonerf.encoding import frequencies_for
from nerfstudio_prune.kilonerf.march import Lattice
from nerfstudio_prune.kilonerf.shape import NetworkShape
from nerfstudio_prune.occupancy import MAX_CELLS, dense_places, density_threshold

FIRST_CELLS, FIRST_REFINE = 8, 4
"""Grid of the first look, which finds the box that all else follows from."""
LEAST_PIXELS = 4
"""Pixels that a cell covers at least: a network for fewer has nothing to learn."""
MOST_PIXELS = 2
"""Pixels that a voxel covers at most, if it can be refined."""
LONGEST = round(MAX_CELLS ** (1 / 3))
"""Voxels along each side of the largest cube of them."""
BYTES = 16
"""Memory of a parameter in training: itself, its gradient and two moments of Adam."""
CROWDED = 0.6
"""Share of occupied voxels from which there is no speed to be had."""


@dataclass(frozen=True)
class Plan:
    """What a run is made of."""

    live: LiveCells
    """The cells."""
    shape: NetworkShape
    """The network of each."""
    lattice: Lattice
    """Where rays are sampled in training."""
    options: KiloOptions
    """Options with numbers in place of what was left open."""
    told: list[str]
    """What was chosen and why, a line each."""


def make_plan(
    teacher: Teacher,
    cameras: Cameras,
    options: KiloOptions,
    seed: int,
    device: torch.device | str,
    memory: Optional[int],
) -> Plan:
    """Looks where the teacher has something to show, and sizes cells, networks and steps by it.

    Args:
        teacher: The teacher.
        cameras: Training cameras, on any device.
        options: Options in force.
        seed: Seed of the places that are looked at.
        device: Where the model lives.
        memory: Bytes that are free on it; None where that is not known.

    Raises:
        ValueError: If there is nothing to be seen, or the grid does not fit into the memory.
    """
    grid, occupancy = options.grid, options.occupancy
    alpha: Any = occupancy.alpha_threshold
    generator = torch.Generator().manual_seed(seed)
    space, seen = teacher.space, seen_by(cameras, teacher.near, teacher.far)
    density = where_seen(teacher.density, lambda points: space.holds(points) & seen(space.to_world(points)))
    box = space.box(cameras, teacher.far).to(device)
    rays = Lattice(teacher.near, teacher.far, teacher.samples, space.spacing)
    places = space.from_world(places_on_rays(cameras, rays, generator).to(device))
    # Each look has smaller voxels, and so a higher threshold, than the one before: what this one leaves out stays out.
    largest = float((box[1] - box[0]).max()) / (FIRST_CELLS * FIRST_REFINE)
    places = dense_places(density, places, density_threshold(alpha, largest))
    first = build_cells(density, box, FIRST_CELLS, FIRST_REFINE, alpha, generator, places)
    box, around = first.grid.aabb, []
    if space.crops and occupancy.visible_only:
        filled, box = box, seen_box(teacher, first, cameras)
        around = [f"the box around what views show is {_sides(box)}; the teacher fills {_sides(filled)}"]
    # What is behind everything has no density: the box has to be told of it, and so have the voxels.
    open_to_it = open_rays(teacher, first, cameras)
    corners = open_to_it.corners(rays, box)
    box = holding(box, corners)
    longest, pixel = float((box[1] - box[0]).max()), space.footprint(cameras, box)
    resolution, refine, told = _fineness(longest, pixel, options, space)
    dilate = _int(occupancy.dilate)
    live = build_cells(density, box, resolution, refine, alpha, generator, places, dilate, around=corners)
    lattice, line = _lattice(teacher, live, pixel)
    dense, live = live, open_to_it.with_ends(live, lattice)
    if live is not dense:
        around = [*around, _told_of_ends(dense, live, open_to_it.share)]

    def frequencies(cell_size: float) -> int:
        given = grid.position_frequencies
        return frequencies_for(cell_size, pixel) if given is None else given

    widths = _int(grid.hidden_width), _int(grid.num_layers)
    shape = NetworkShape(*widths, frequencies(live.grid.cell_size), _int(grid.direction_frequencies))
    if grid.budget is not None:
        kind, value = grid.budget
        samples = samples_of_a_ray(live, lattice, cameras, space) if kind == "macs" else None
        if memory is not None:
            # More than there is room to train is not even tried.
            most = {"parameters": memory // BYTES, "mb": megabytes(memory // BYTES)}
            value = min(value, most.get(kind, value))
        step, steps = space.extent(lattice.near, lattice.far) / lattice.steps, _int(options.distil.steps)
        centres, behind = (
            cameras.camera_to_worlds[:, :, 3].to(device),
            places_behind(space, teacher.background, lattice),
        )
        lessons = Lessons(teacher.values, centres, options.distil, step, space, behind)
        error = trial(lessons, live, steps, seed) if steps else None
        choice = choose(live, shape, kind, value, samples_per_ray=samples, frequencies=frequencies, error=error)
        lines = _told_of(choice, kind, value, samples)
        # Where cells follow from the budget as well, what they would have been is of no interest.
        told = [*told, *lines] if kind == "macs" else lines
        live, shape = choice.live, choice.shape
    check_memory(live, shape, memory)
    check_narrowing(shape, grid.narrow_to)
    reason = "down to a period of two pixels" if grid.position_frequencies is None else "grid.position_frequencies"
    told = [
        f"a pixel is {pixel:.3g} wide where the scene is, the median of {len(cameras)} training views",
        *around,
        *told,
        f"{live.count} of {' x '.join(map(str, live.grid.shape))} cells of side {live.grid.cell_size:.3g} have a "
        f"network; {live.share:.1%} of the voxels are occupied, by what the teacher shows",
        f"{shape.position_frequencies} frequencies of a place in its cell: {reason}",
        line,
        f"{live.count * shape.parameters:,} parameters: {shape.parameters:,} each, of width {shape.hidden_width}",
    ]
    grid = replace(
        grid,
        resolution=max(live.grid.shape),
        hidden_width=shape.hidden_width,
        position_frequencies=shape.position_frequencies,
    )
    occupancy = replace(occupancy, refine=live.grid.refine)
    return Plan(live, shape, lattice, replace(options, grid=grid, occupancy=occupancy), told)


def _fineness(longest: float, pixel: float, options: KiloOptions, space: Space) -> tuple[int, int, list[str]]:
    """Cells along the longest side, voxels along the side of a cell, and why."""
    resolution, reason = options.grid.resolution, "grid.resolution"
    if resolution is None:
        resolution = min(space.most_cells, max(1, floor(longest / (LEAST_PIXELS * pixel))))
        reason = f"at most {space.most_cells}, and at least {LEAST_PIXELS} pixels each"
    told = [f"{resolution} cells along the longest side: {reason}"]
    refine, reason = options.occupancy.refine, "occupancy.refine"
    if refine is None:
        coarse = longest / resolution / COARSE_REFINE
        # As many as a cube of voxels may have along its side, if all of it has to fit.
        fine = max(COARSE_REFINE, min(FINE_REFINE, LONGEST // resolution))
        refine = fine if coarse > MOST_PIXELS * pixel else COARSE_REFINE
        reason = f"of {COARSE_REFINE} each would cover {coarse / pixel:.2g} pixels, and {MOST_PIXELS} are enough"
    return resolution, refine, [*told, f"{refine} voxels along the side of a cell: {reason}"]


def _told_of_ends(dense: LiveCells, live: LiveCells, share: float) -> str:
    """What the background came to."""
    more = int(live.occupied.sum()) - int(dense.occupied.sum())
    return (
        f"{share:.1%} of the rays of training views show what is behind everything, by their last sample: {more:,} "
        f"voxels more, in {live.count - dense.count:,} cells that are empty but for that"
    )


def _sides(box: Float[Tensor, "2 3"]) -> str:
    return " x ".join(f"{side:.3g}" for side in (box[1] - box[0]).tolist())


def _told_of(choice: Choice, kind: BudgetKind, value: float, samples: Optional[float]) -> list[str]:
    """What a budget came to, and what else was tried."""
    option = f"grid.target_{kind} {value:,g}"
    if samples is not None:
        macs = choice.shape.macs * samples
        return [f"width {choice.shape.hidden_width}: {option}, {macs:,.0f} a ray at {samples:.2f} samples"]
    told = [
        f"tried for {option}: {candidate.networks:,} networks of width {candidate.shape.hidden_width}, "
        f"{candidate.parameters:,} parameters, {candidate.resolution} cells along the longest side: error {error:.3g}"
        for candidate, error in choice.tried.items()
    ]
    reason = "least error after a short distillation" if told else "nothing is distilled, so that nothing was tried"
    return [
        *told,
        f"{max(choice.live.grid.shape)} cells along the longest side, {choice.live.grid.refine} voxels along the side "
        f"of each, networks of width {choice.shape.hidden_width}: {reason}",
    ]


def _int(value: Optional[int]) -> int:
    """An option that is filled in."""
    assert value is not None
    return value


def _lattice(teacher: Teacher, live: LiveCells, pixel: float) -> tuple[Lattice, str]:
    """Steps along rays, and why they are that long."""
    extent = teacher.space.extent(teacher.near, teacher.far)
    # The teacher's own samples crowd where there is something; even ones have to be as close as those.
    own, fine = extent / teacher.samples, max(live.grid.voxel_size, pixel)
    steps = ceil(extent / min(own, fine) - 1e-6)
    lattice = Lattice(teacher.near, teacher.far, steps, teacher.space.spacing)
    reason = f"the teacher's mean, {teacher.samples} samples" if own <= fine else "the side of a voxel, or a pixel"
    return lattice, f"steps of {extent / steps:.3g} from {teacher.near:g} to {teacher.far:g}: {reason}"


def check_narrowing(shape: NetworkShape, share: Optional[float]) -> None:
    """Checks that networks can become as narrow as they are to be.

    Args:
        shape: The network of each cell.
        share: Share of the parameters that is to stay; None where all do.

    Raises:
        ValueError: If the narrowest networks have more.
    """
    if share is None:
        return
    narrowest = shape.with_width(class_widths(shape.hidden_width)[0])
    if narrowest.parameters > share * shape.parameters:
        raise ValueError(
            f"grid.narrow_to must be at least {ceil(1000 * narrowest.parameters / shape.parameters) / 1000:g}, the "
            f"share of parameters that networks of width {narrowest.hidden_width} have of those of width "
            f"{shape.hidden_width}, got {share:g}"
        )


def check_memory(live: LiveCells, shape: NetworkShape, memory: Optional[int]) -> None:
    """Checks that there is room to train the networks.

    Args:
        live: The cells.
        shape: The network of each.
        memory: Bytes that are free; None where that is not known.

    Raises:
        ValueError: If there is not; names the largest resolution that fits.
    """
    needed = live.count * shape.parameters * BYTES
    if memory is None or needed <= memory:
        return
    longest, resolution = max(live.grid.voxel_shape), max(live.grid.shape)
    refines = [ceil(longest / cells) for cells in range(1, resolution)]
    counts = live_counts(live, sorted(set(refines)))
    fits = [
        cells
        for cells, refine in zip(range(1, resolution), refines, strict=True)
        if counts[refine] * shape.parameters * BYTES <= memory
    ]
    help_text = f"the largest grid.resolution that fits is {max(fits)}" if fits else "not even one cell for all fits"
    raise ValueError(
        f"grid.resolution {resolution} gives {live.count:,} networks of {shape.parameters:,} parameters, which take "
        f"{needed / 1e6:,.0f} MB to train, and {memory / 1e6:,.0f} MB are free; {help_text}"
    )
