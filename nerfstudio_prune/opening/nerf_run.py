"""The run of a network out of a file: its configuration and its model."""

from copy import deepcopy
from typing import Any

import torch
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.engine.trainer import TrainerConfig
from torch import Tensor, nn

from nerfstudio_prune.core.events import PruneState
from nerfstudio_prune.engine.host import seeded
from nerfstudio_prune.exchange.errors import refuse
from nerfstudio_prune.export.reading import Exported
from nerfstudio_prune.export.schema import Collider, Encoding, Metadata, colour_name
from nerfstudio_prune.nerf.model import FIELDS, PruneModel, PruneModelConfig
from nerfstudio_prune.nerf.pipeline import PrunePipelineConfig

SEED = 0
"""Of the coarse field's colour: the same file gives the same run."""
PADDING = 0.01
"""What the host's sampler adds to the weights."""


def nerf_config(metadata: Metadata) -> TrainerConfig:
    """The configuration of a run of such a network: that of its method, or of `nerf-prune` where that is not one of
    this project, with the network's options.

    Args:
        metadata: What the file says of itself.

    Raises:
        FileFormatError: If no run has such a network.
    """
    method: Any = all_methods.get(metadata.method)
    if method is None or not isinstance(method.pipeline, PrunePipelineConfig):
        method = all_methods["nerf-prune" if metadata.contraction is None else "nerf-prune-real"]
    config: Any = deepcopy(method)
    _set_options(config.pipeline.model, metadata)
    return config


def _set_options(options: PruneModelConfig, metadata: Metadata) -> None:
    _check_constants(metadata)
    fine, sampling, collider = metadata.fine, metadata.sampling, metadata.collider
    layers = len(fine.trunk), len(fine.head)
    for name, field in metadata.fields.items():
        if len(field.trunk) != layers[0] or len(field.trained) != sum(layers):
            raise refuse(
                name,
                f"{layers[0]} trunk layers and {sum(layers)} widths, as a run has them",
                f"{len(field.trunk)} and {len(field.trained)}",
            )
    options.base_mlp_num_layers, options.head_mlp_num_layers = layers
    options.base_mlp_layer_width = max(fine.trained[: layers[0]])
    options.head_mlp_layer_width = max(fine.trained[layers[0] :])
    options.skip_connections = tuple(metadata.skips)
    options.position_max_freq_exp = metadata.position.highest
    options.use_scene_contraction = metadata.contraction is not None
    options.coarse_sampler = sampling.spacing
    options.num_coarse_samples, options.num_importance_samples = sampling.coarse, sampling.fine
    options.collider_params = {"near_plane": collider.trained_near, "far_plane": collider.far}
    options.background_color = metadata.background


def _check_constants(metadata: Metadata) -> None:
    """Refuses what a file may say and no run can be told."""
    near = metadata.collider.trained_near
    wanted = {
        "position": (metadata.position, Encoding(10, 0.0, metadata.position.highest, True)),
        "direction": (metadata.direction, Encoding(4, 0.0, 4.0, True)),
        "collider": (metadata.collider, Collider(0.0, metadata.collider.far, near)),
        "sampling, padding": (metadata.sampling.padding, PADDING),
    }
    for name, (found, expected) in wanted.items():
        if found != expected:
            raise refuse(name, f"{expected}, as in every run", str(found))


def nerf_model(config: Any, exported: Exported, metadata: Metadata) -> PruneModel:
    """The model of the run, with the weights of the file.

    The coarse field's colour, which the file leaves out, begins anew: layers as wide as those of the fine field,
    freshly drawn, and a last one of zeros, so that it is grey and can be trained.

    Args:
        config: See `nerf_config`.
        exported: What the file holds.
        metadata: What it says of itself.

    Raises:
        ValueError: If its parts form no model.
    """
    model = config.pipeline.model.setup(
        # The scene says nothing about the network.
        scene_box=SceneBox(torch.tensor([[-1.0] * 3, [1.0] * 3])),
        num_train_data=1,
    )
    state = dict(model.state_dict())
    for name, layer in exported.layers.items():
        state[f"{name}.weight"], state[f"{name}.bias"] = layer.weight, layer.bias
    state.update(_coarse_colour(metadata))
    initial = {}
    groups = [group.name for group in model.neuron_groups()]
    for name, field in metadata.fields.items():
        own = [group for group in groups if group.startswith(f"{name}.")]
        initial.update(zip(own, field.trained, strict=True))
    state["_extra_state"] = {**state["_extra_state"], **PruneState(initial_sizes=initial).to_dict()}
    model.take_up(state)
    return model


def _coarse_colour(metadata: Metadata) -> dict[str, Tensor]:
    """Weights and biases of the head and the colour of the coarse field."""
    name = FIELDS[0]
    found, inputs = {}, metadata.direction.width + metadata.coarse.density.columns
    with seeded(SEED, torch.device("cpu")):
        for i, form in enumerate(metadata.fine.head):
            layer = nn.Linear(inputs, form.rows)
            found[f"{name}.mlp_head.layers.{i}.weight"] = layer.weight.detach()
            found[f"{name}.mlp_head.layers.{i}.bias"] = layer.bias.detach()
            inputs = form.rows
    found[f"{colour_name(name)}.weight"] = torch.zeros(3, inputs)
    found[f"{colour_name(name)}.bias"] = torch.zeros(3)
    return found
