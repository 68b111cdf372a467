"""What of a finished run goes into a file."""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Optional

import msgspec

from nerfstudio_prune.engine.saved_run import SavedRun, noted_transforms
from nerfstudio_prune.exchange.errors import refuse
from nerfstudio_prune.export.container import NO_SUM
from nerfstudio_prune.export.layers import LayerTensors, check_finite
from nerfstudio_prune.export.schema import (
    VERSION,
    Activations,
    Collider,
    Cut,
    Encoding,
    Field,
    Layer,
    Metadata,
    Sampling,
    Scene,
    Storage,
    colour_name,
    density_name,
)
from nerfstudio_prune.nerf.model import FIELDS, PruneModel
from nerfstudio_prune.neurons.groups import linears

LIBRARIES = ("nerfstudio-prune", "nerfstudio", "torch", "safetensors")
"""Whose versions a file tells."""


def layers_of(model: PruneModel) -> dict[str, LayerTensors]:
    """The layers that pictures need: of the coarse field, which only places samples, those of its density.

    Args:
        model: The model.

    Raises:
        FileFormatError: If a weight is not finite.
    """
    found = {}
    for name, layer in linears(model.neuron_groups()).items():
        if name.startswith(FIELDS[0]) and not name.startswith((f"{FIELDS[0]}.mlp_base.", density_name(FIELDS[0]))):
            continue
        found[name] = LayerTensors(layer.weight.detach().float().cpu(), layer.bias.detach().float().cpu())
        for part in ("weight", "bias"):
            check_finite(getattr(found[name], part), f"{name}.{part} of the checkpoint")
    return found


def uniform_bits(names: Mapping[str, Any], bits: int) -> dict[str, int]:
    """Bits of each layer: the same for all, but at least eight where density and colour come out, which are few weights
    that everything passes through.

    Args:
        names: Names of the layers.
        bits: Bits of a weight, in [2, 8], 16 or 32.
    """
    ends = {end(field) for field in FIELDS for end in (density_name, colour_name)}
    return {name: max(bits, 8) if name in ends else bits for name in names}


def describe(
    run: SavedRun[PruneModel],
    layers: Mapping[str, LayerTensors],
    bits: Mapping[str, int],
    storage: Storage,
    scene: Scene,
) -> Metadata:
    """What a file says of a run.

    Args:
        run: The run, of a scene at rest.
        layers: See `layers_of`.
        bits: Name of each layer -> bits of its weights.
        storage: How its numbers are stored.
        scene: See `scene_of`.

    Raises:
        ValueError: If its scene moves, or something about it has no place in a file.
    """
    model, options = run.model, run.model.config
    if options.enable_temporal_distortion:
        raise refuse("model.enable_temporal_distortion", "False: a file holds a scene at rest", "True")
    assert options.collider_params is not None
    forms = {name: Layer(*values.weight.shape, bits[name]) for name, values in layers.items()}  # type: ignore[arg-type]
    initial = model.prune_state.initial_sizes
    trained = {group.name: initial.get(group.name, group.width) for group in model.neuron_groups()}
    coarse, fine = (_field(name, forms, trained) for name in FIELDS)
    metadata = Metadata(
        crc32=NO_SUM,
        version=VERSION,
        storage=storage,
        coarse=coarse,
        fine=fine,
        position=_encoding(model.field_fine.position_encoding),
        direction=_encoding(model.field_fine.direction_encoding),
        skips=sorted({i for i in options.skip_connections if i < options.base_mlp_num_layers}),
        activations=Activations(),
        sampling=Sampling(
            options.coarse_sampler,
            options.num_coarse_samples,
            options.num_importance_samples,
            model.sampler_pdf.histogram_padding,
        ),
        # In evaluation the host's collider lets rays begin at the camera.
        collider=Collider(0.0, options.collider_params["far_plane"], options.collider_params["near_plane"]),
        background=options.background_color,
        contraction="unit_ball" if options.use_scene_contraction else None,
        scene=scene,
        method=str(run.config.method_name)[:100],
        step=run.step,
        cuts=[
            Cut(
                event.step,
                event.strategy[:100],
                *(sizes.costs.get("parameters") for sizes in (event.before, event.after)),
            )
            for event in model.prune_state.succeeded
        ][-1000:],
        versions={name: version(name) for name in LIBRARIES},
    )
    try:
        return msgspec.convert(msgspec.to_builtins(metadata), Metadata)
    except msgspec.ValidationError as error:
        raise refuse("run", "values within the limits of a file", str(error)) from error


def scene_of(config_file: Path, outputs: Optional[Any]) -> Scene:
    """How a run's scene lies in its data.

    Args:
        config_file: The run's config.yml; beside it the host has noted the transform of the training views.
        outputs: What the data parser gives for the training views; None where the data are not there.
    """
    box, known = None, {"transform": None, "scale": None}
    if outputs is not None:
        box = outputs.scene_box.aabb.tolist()
        known = {"transform": outputs.dataparser_transform.tolist(), "scale": float(outputs.dataparser_scale)}
    try:
        return msgspec.convert({"box": box, **noted_transforms(config_file)}, Scene)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # a run that was copied without it
        return msgspec.convert({"box": box, **known}, Scene)


def _field(name: str, forms: Mapping[str, Layer], trained: Mapping[str, int]) -> Field:
    trunk, head = (
        [form for layer, form in forms.items() if layer.startswith(f"{name}.{part}.")]
        for part in ("mlp_base", "mlp_head")
    )
    widths = [width for layer, width in trained.items() if layer.startswith(f"{name}.")]
    return Field(trunk, forms[density_name(name)], head, forms.get(colour_name(name)), widths)


def _encoding(encoding: Any) -> Encoding:
    return Encoding(encoding.num_frequencies, encoding.min_freq, encoding.max_freq, encoding.include_input)
