"""A file of Gaussians as the start of a training."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.splat_files.formats import read_splats
from nerfstudio_prune.splat_files.stored import Placement, StoredGaussians
from nerfstudio_prune.splats.model import SplatPruneModel

OPTION = "pipeline.model.initial_file"
SAME = 1e-3
"""How much two places of a scene may differ, relative to the larger numbers."""


def begin_with(model: SplatPruneModel, path: Path, outputs: Any) -> str:
    """Lets a model begin with the Gaussians of a file. Parameters keep their identity, so that optimizers hold them.

    Args:
        model: The model, of which nothing was trained.
        path: The file.
        outputs: What the data parser gives for the training views.

    Returns:
        What to tell of it.

    Raises:
        ValueError: If the file cannot be read, or is not one of these options and data; names the option and the file.
    """
    try:
        stored = read_splats(path)
        _check(stored, model, outputs)
    except ValueError as error:
        raise ValueError(f"{OPTION} {error}") from error
    degree = model.config.sh_degree
    gaussians = model.from_harmonics(of_degree(stored.gaussians, degree))
    for name, values in gaussians.items():
        parameter = model.gauss_params[name]
        parameter.data, parameter.grad = values.to(parameter).contiguous(), None
    model.strategy_state = model.strategy.initialize_state(scene_scale=1.0)
    other = "" if stored.gaussians.sh_degree == degree else f", of degree {stored.gaussians.sh_degree} there"
    return f"{len(gaussians):,} Gaussians of {path}{other}; the optimizers' moments begin anew"


def of_degree(gaussians: Gaussians, degree: int) -> Gaussians:
    """Gaussians with harmonics up to a degree: those that are missing are zero, those beyond are left out.

    Args:
        gaussians: Of any degree.
        degree: The degree.
    """
    missing = (degree + 1) ** 2 - (gaussians.sh_degree + 1) ** 2
    if missing <= 0:
        return gaussians.with_sh_degree(degree)
    rest = gaussians.features_rest
    zeros = rest.new_zeros(len(rest), missing, 3)
    return replace(gaussians, features_rest=torch.cat([rest, zeros], dim=1))


def _check(stored: StoredGaussians, model: SplatPruneModel, outputs: Any) -> None:
    mode = model.config.rasterize_mode
    known = {None: mode, True: "antialiased", False: "classic"}[stored.antialiased]
    if known != mode:
        raise ValueError(f"is of pipeline.model.rasterize_mode {known}, and that of this run is {mode}")
    if stored.placement is None:
        return
    rows = tuple(tuple(map(float, row)) for row in outputs.dataparser_transform[:3].tolist())
    own = Placement(rows, float(outputs.dataparser_scale))  # type: ignore[arg-type]
    first, second = (torch.tensor([*sum(place.transform, ()), place.scale]) for place in (stored.placement, own))
    if float((first - second).abs().max()) > SAME * float(torch.stack([first, second]).abs().max()):
        raise ValueError(
            f"lies in its data by transform {stored.placement.transform} and scale {stored.placement.scale:g}, and the "
            f"scene of this run by {own.transform} and {own.scale:g}: the parser's options, or the data, are others"
        )
