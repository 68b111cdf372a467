"""The run of tiny networks out of a file: its configuration and its model."""

from copy import deepcopy
from typing import Any

import torch
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.engine.trainer import TrainerConfig

from nerfstudio_prune.exchange.errors import refuse
from nerfstudio_prune.export.kilo_rendering import ExportedKilo
from nerfstudio_prune.export.kilo_schema import KiloMetadata
from nerfstudio_prune.export.reading import Exported
from nerfstudio_prune.kilo.config import options_of
from nerfstudio_prune.kilo.model import KiloModel
from nerfstudio_prune.kilo.pipeline import KiloPipelineConfig
from nerfstudio_prune.kilo.state import KiloState
from nerfstudio_prune.kilonerf.classes import CLASSES
from nerfstudio_prune.kilonerf.march import Lattice

NARROWED = 0.5
"""Option `narrow_to` of a run whose networks have several widths; what it was, no file tells."""


def kilo_config(metadata: KiloMetadata) -> TrainerConfig:
    """The configuration of a run of such networks: that of its method, or of `kilonerf` where that is another one.

    Args:
        metadata: What the file says of itself.

    Raises:
        FileFormatError: If no run has such networks.
    """
    networks = metadata.networks
    if len(networks.classes) not in (1, CLASSES):
        raise refuse("networks.classes", f"1 or {CLASSES} widths, as a run has them", str(len(networks.classes)))
    method: Any = all_methods.get(metadata.method)
    if method is None or not isinstance(method.pipeline, KiloPipelineConfig):
        method = all_methods["kilonerf-real" if metadata.unbounded else "kilonerf"]
    config: Any = deepcopy(method)
    grid = config.pipeline.grid
    grid.hidden_width, grid.num_layers = networks.classes[-1].width, networks.layers
    grid.direction_frequencies = networks.direction
    grid.narrow_to = NARROWED if len(networks.classes) > 1 else None
    config.pipeline.model.transmittance_threshold = metadata.threshold
    return config


def kilo_model(config: Any, exported: Exported, metadata: KiloMetadata) -> KiloModel:
    """The model of the run, with networks and cells of the file.

    Args:
        config: See `kilo_config`.
        exported: What the file holds.
        metadata: What it says of itself.

    Raises:
        ValueError: If its parts form no model.
    """
    found = ExportedKilo(metadata, exported.layers, exported.blobs)
    # The scene says nothing about the networks.
    model = config.pipeline.model.setup(scene_box=SceneBox(torch.tensor([[-1.0] * 3, [1.0] * 3])), num_train_data=1)
    state = KiloState(options_of(config.pipeline), metadata.background, space=metadata.space)
    steps, shape = metadata.steps, found.networks.shapes[-1]
    model.make_room(shape, narrows=len(found.networks.shapes) > 1)
    model.begin(found.live, Lattice(steps.near, steps.far, steps.count, found.space.spacing), shape, state)
    model.networks = found.networks.requires_grad_(True)
    return model
