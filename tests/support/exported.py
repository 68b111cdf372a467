"""Networks by hand, as files of `ns-prune export`."""

from pathlib import Path
from typing import Any

import torch
from nerfstudio.configs.method_configs import all_methods

from nerfstudio_prune.engine.saved_run import SavedRun
from nerfstudio_prune.export.from_run import describe, layers_of, scene_of, uniform_bits
from nerfstudio_prune.export.schema import Storage
from nerfstudio_prune.export.writing import encode_file
from nerfstudio_prune.nerf.model import PruneModel
from support.tiny_run import tiny_model


def contrasty(model: PruneModel, seed: int = 0) -> PruneModel:
    """Gives a model weights by which a picture has light, dark and depth in it, which freshly drawn ones do not.

    High frequencies count little, as in a trained network: by others any rounding would show.
    """
    generator = torch.Generator().manual_seed(seed)
    encoding: Any = model.field_fine.position_encoding
    waves = torch.logspace(0, -encoding.max_freq, encoding.num_frequencies, base=2)
    fading = torch.cat([waves.repeat(6), torch.ones(3)])
    reads_places = {0, *model.config.skip_connections}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            draw = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 2:
                gain = 1.4 if ".layers." in name else 4.0
                parameter.copy_(draw * gain / parameter.shape[1] ** 0.5)
                if ".mlp_base." in name and int(name.split(".")[3]) in reads_places:
                    parameter[:, : len(fading)] *= 3 * fading
            elif parameter.numel():
                parameter.copy_(draw * 0.1 - 1 * ("density" in name))
    return model.eval()


def small_model(**options: Any) -> PruneModel:
    """A tiny model that shows something."""
    return contrasty(tiny_model(**options))


def content_of(
    model: PruneModel, storage: Storage = "tensors", bits: int = 32, folder: Path = Path("nowhere")
) -> bytes:
    """A model as the bytes of a file."""
    run: Any = SavedRun(all_methods["nerf-prune"], folder / "config.yml", folder / "x.ckpt", 9, model)
    layers = layers_of(model)
    return encode_file(
        describe(run, layers, uniform_bits(layers, bits), storage, scene_of(run.config_file, None)), layers
    )


def write_model(path: Path, model: PruneModel, storage: Storage = "tensors", bits: int = 32) -> Path:
    """Writes a model to a file."""
    path.write_bytes(content_of(model, storage, bits))
    return path
