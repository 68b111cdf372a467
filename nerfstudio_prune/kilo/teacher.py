"""The trained field that tiny networks learn from, out of the folder of its run."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import torch
from jaxtyping import Float
from nerfstudio.engine.trainer import TrainerConfig
from torch import Tensor

from nerfstudio_prune.core.plain import shown
from nerfstudio_prune.engine.saved_run import SavedRunError, read_config
from nerfstudio_prune.kilo.spaces import SPACES, Space
from nerfstudio_prune.nerf.field import PruneField
from nerfstudio_prune.nerf.saved_run import load_checkpoint, load_run, model_options

OPTION = "--pipeline.teacher"
EXPECTED = "the config.yml of a trained run of nerf-prune or vanilla-nerf"
DEFAULT_METHOD = "vanilla-nerf"
"""Method of a teacher that is a single checkpoint."""


@dataclass(frozen=True)
class Teacher:
    """A trained field, and how its run looked at it."""

    config: TrainerConfig
    """Configuration of its run."""
    field: PruneField
    """The fine field."""
    near: float
    """Where rays began in training, in units of the scene."""
    far: float
    """Where they ended."""
    samples: int
    """Samples of a ray in the fine field."""
    background: str
    """Colour behind the scene, as the host names it."""
    digest: str
    """Tells the weights apart from others."""
    space: Space
    """The space that it sees."""
    data: Optional[Any] = None
    """Options of its data manager; None for a checkpoint alone, which does not say what it was trained on."""

    def density(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, " points"]:
        """Density per unit of length of its space.

        Args:
            points: Places in it.
        """
        return self.field.density_at(points)

    def values(
        self, points: Float[Tensor, "points 3"], directions: Float[Tensor, "points directions 3"]
    ) -> tuple[Float[Tensor, " points"], Float[Tensor, "points directions 3"]]:
        """Density, and the colour in each direction.

        Args:
            points: Places.
            directions: Several directions for each, of length 1.
        """
        return self.field.values_at(points, directions)


def load_teacher(
    path: Optional[Path], device: torch.device | str, option: str = OPTION, method: Optional[str] = None
) -> Teacher:
    """Loads the field of a run of `nerf-prune`, pruned or not, or of the stock `vanilla-nerf`.

    Args:
        path: The run's config.yml, or its folder; or a checkpoint alone, of a run with the options of its method.
        device: Where the field is to live.
        option: What the path was given by, for messages.
        method: The method of a checkpoint alone. None: `DEFAULT_METHOD`.

    Raises:
        ValueError: If there is no such run, it is of another method, its checkpoint is missing or not whole, the scene
            moves, a weight is not finite, or a method is given for a run that says its own.
    """
    if path is None:
        raise ValueError(f"{option} is missing: expected {EXPECTED}, e.g. {option} outputs/…/config.yml")
    alone = path.suffix == ".ckpt" and not path.is_dir()
    if method is not None and not alone:
        raise ValueError(f"{option}-method {method} has no effect: {path} is no checkpoint, and says its method itself")
    file = path / "config.yml" if path.is_dir() else path
    if not file.is_file():
        found = f"the folder {path} holds no config.yml" if path.is_dir() else f"there is no file {path}"
        raise ValueError(f"{option} must be {EXPECTED}; {found}")
    try:
        config = _method_config(method or DEFAULT_METHOD, option) if alone else read_config(file)
        model = (load_checkpoint if alone else load_run)(config, file).model
    except SavedRunError as error:
        # It names the file by the host's option for the run that a command opens.
        raise ValueError(f"{option} {str(error).removeprefix('--load-config ')}") from error
    options = model.config
    if options.enable_temporal_distortion:
        raise ValueError(
            f"{option} {file}: its scene moves (model.enable_temporal_distortion True); expected one at rest"
        )
    for name, parameter in model.field_fine.named_parameters():
        bad = int((~parameter.isfinite()).sum())
        if bad:
            raise ValueError(
                f"{option} {file}: field_fine.{name} has {bad} of {parameter.numel()} values that are not finite; "
                "expected a teacher whose training went well"
            )
    near, far = _planes(options.collider_params, f"{option} {file}")
    model.field_fine.eval().requires_grad_(False)
    return Teacher(
        config,
        model.field_fine.to(device),
        near,
        far,
        options.num_coarse_samples + options.num_importance_samples + 1,
        options.background_color,
        _digest(model.field_fine),
        SPACES["contracted" if options.use_scene_contraction else "bounded"],
        None if alone else config.pipeline.datamanager,
    )


def _method_config(method: str, option: str) -> TrainerConfig:
    """Configuration of a method that can be learnt from, as it is registered."""
    # While the host gathers methods, which imports this file, it has only its own.
    from nerfstudio.configs.method_configs import all_methods  # noqa: PLC0415

    known = {name: config for name, config in all_methods.items() if model_options(config) is not None}
    if method not in known:
        raise ValueError(f"{option}-method must be one of {', '.join(sorted(known))}, got {method}")
    return known[method]


def _planes(planes: Any, run: str) -> tuple[float, float]:
    """Near and far plane of a run."""
    near, far = (planes or {}).get("near_plane"), (planes or {}).get("far_plane")
    if not (isinstance(near, int | float) and isinstance(far, int | float) and 0 <= near < far < float("inf")):
        raise ValueError(
            f"{run}: model.collider_params must be near_plane and far_plane with 0 <= near_plane < "
            f"far_plane, got {shown(planes)}"
        )
    return float(near), float(far)


def _digest(field: PruneField) -> str:
    """SHA-256 of all weights."""
    found = hashlib.sha256()
    for name, value in field.state_dict().items():
        found.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
