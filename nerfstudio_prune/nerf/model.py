"""The vanilla-NeRF-derived model: fields of any size, their groups of neurons, outputs and metrics."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Optional, TypeGuard

import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.field_components.encodings import NeRFEncoding
from nerfstudio.field_components.field_heads import FieldHeadNames
from nerfstudio.field_components.temporal_distortions import TemporalDistortionKind
from nerfstudio.fields.vanilla_nerf_field import NeRFField
from nerfstudio.model_components.losses import MSELoss
from nerfstudio.model_components.ray_samplers import PDFSampler, UniformLinDispPiecewiseSampler, UniformSampler
from nerfstudio.model_components.renderers import AccumulationRenderer, DepthRenderer, RGBRenderer
from nerfstudio.models.base_model import Model
from nerfstudio.models.vanilla_nerf import NeRFModel, VanillaModelConfig
from nerfstudio.utils import colormaps
from nerfstudio.utils.math import intersect_aabb
from torch import Tensor, nn
from torchmetrics.image import PeakSignalNoiseRatio

from nerfstudio_prune.core.events import PruneState
from nerfstudio_prune.core.plain import shown
from nerfstudio_prune.data.metrics import LazyLpips, counted, masked, ssim
from nerfstudio_prune.data.pixels import counted_pixels
from nerfstudio_prune.engine.checks import check_values
from nerfstudio_prune.engine.host import default_eval_chunk
from nerfstudio_prune.engine.options import MAX_STEPS, Rule, above, at_least
from nerfstudio_prune.nerf.checkpoint import ENCODING, MAX_FREQ_EXP, OCCUPANCY, fit_to_checkpoint, pruning_entries
from nerfstudio_prune.nerf.empty_space import EmptySpace, GridOptions
from nerfstudio_prune.nerf.field import PruneField, UnitBallContraction
from nerfstudio_prune.nerf.layouts import fields_of, layout_of
from nerfstudio_prune.nerf.rows import rows_of_rays
from nerfstudio_prune.neurons.groups import NeuronGroup, count_parameters, linears, macs_per_sample
from nerfstudio_prune.occupancy import DensityFn, Grids, density_threshold, grids_from_dict, grids_to_dict

FIELDS = ("field_coarse", "field_fine")
COARSE_PLACES = 3
"""Places of a coarse sample's interval that are looked up."""
COARSE_CAUTION = 0.1
"""Factor on `alpha_thre` for the coarse field."""


@dataclass
class PruneModelConfig(VanillaModelConfig):
    """Vanilla NeRF whose size is an option."""

    _target: type = field(default_factory=lambda: PruneModel)
    base_mlp_num_layers: int = 8
    """Layers of the trunk."""
    base_mlp_layer_width: int = 256
    """Neurons of each trunk layer before pruning."""
    head_mlp_num_layers: int = 2
    """Layers of the colour head."""
    head_mlp_layer_width: int = 128
    """Neurons of each head layer before pruning."""
    skip_connections: tuple[int, ...] = (4,)
    """Trunk layers that also read the encoded position; as in the host, indices past the last layer have no effect."""
    position_max_freq_exp: float = MAX_FREQ_EXP
    """Exponent of the highest of the ten frequencies that places are encoded by: 2^k periods in a unit of length. The
    host's 8 suits pictures of 800 pixels; details that no pixel shows only make training slower."""
    use_scene_contraction: bool = False
    """Contract unbounded space into the unit ball, for photographs."""
    eval_num_rays_per_chunk: int = field(default_factory=default_eval_chunk)
    """Rays that are rendered at once in evaluation. The default follows from the machine: more on a GPU."""
    coarse_sampler: Literal["uniform", "piecewise"] = "uniform"
    """Samples of the coarse field: uniform from near to far, or half of them uniform up to distance 1 and the rest
    spread towards infinity."""
    skip_empty_space: bool = True
    """Evaluate the fields only where a grid says that there is something: in training after a warm-up, and in pictures
    of whole views."""
    fine_field_only: bool = False
    """Pictures of whole views by the fine field alone, at as many evenly spaced samples as both fields have, all of
    them near what is not empty: faster, and another picture than the one that was trained for."""
    grid_resolution: int = 128
    """Cells of the grid along the longest side of what is not empty."""
    alpha_thre: float = 0.005
    """Opacity of a step from which a cell counts as occupied, in (0, 1)."""
    render_step_size: Optional[float] = None
    """Length of that step. None: a coarse sample's interval in training."""
    occupancy_warm_up_steps: int = 100
    """Training steps in which everything is evaluated."""
    occupancy_update_interval: int = 500
    """Training steps between two looks at the space: at what was not empty, and at a random eighth of the rest, so
    that what was empty may come back. The first interval has three looks more, for its fog clears soon."""

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Is called for the `config.yml` of a run; in those of earlier versions photographs are shown as they were."""
        vars(self).update(state)
        vars(self).setdefault("skip_empty_space", not state.get("use_scene_contraction", False))


class PruneModel(NeRFModel):
    """Vanilla NeRF whose layers can be pruned in mid-training.

    Args:
        config: Sizes and samplers.
    """

    config: PruneModelConfig
    field_coarse: PruneField
    field_fine: PruneField

    def populate_modules(self) -> None:
        """Builds fields, samplers, renderers and metrics.

        Raises:
            ValueError: If the sizes do not give a network.
        """
        config = self.config
        check_model(config)
        # Not NeRFModel's: it builds fields of fixed size, and an LPIPS network that is downloaded and saved.
        Model.populate_modules(self)
        self.prune_state = PruneState()
        self.empty_space = EmptySpace(
            grid_options(config), config.occupancy_warm_up_steps, config.occupancy_update_interval
        )
        position_encoding = NeRFEncoding(
            in_dim=3,
            num_frequencies=10,
            min_freq_exp=0.0,
            max_freq_exp=config.position_max_freq_exp,
            include_input=True,
        )
        direction_encoding = NeRFEncoding(
            in_dim=3, num_frequencies=4, min_freq_exp=0.0, max_freq_exp=4.0, include_input=True
        )
        for name in FIELDS:
            nerf_field = PruneField(
                position_encoding=position_encoding,
                direction_encoding=direction_encoding,
                base_mlp_num_layers=config.base_mlp_num_layers,
                base_mlp_layer_width=config.base_mlp_layer_width,
                head_mlp_num_layers=config.head_mlp_num_layers,
                head_mlp_layer_width=config.head_mlp_layer_width,
                skip_connections=config.skip_connections,  # type: ignore[arg-type]
                spatial_distortion=UnitBallContraction() if config.use_scene_contraction else None,
            )
            setattr(self, name, nerf_field)
        # An interval of the coarse samples is longer than a cell.
        self.field_coarse.places_per_interval = COARSE_PLACES

        sampler = UniformSampler if config.coarse_sampler == "uniform" else UniformLinDispPiecewiseSampler
        self.sampler_uniform = sampler(num_samples=config.num_coarse_samples)
        self.sampler_pdf = PDFSampler(num_samples=config.num_importance_samples)
        self.renderer_rgb = RGBRenderer(background_color=config.background_color)
        self.renderer_accumulation = AccumulationRenderer()
        self.renderer_depth = DepthRenderer()
        self.rgb_loss = MSELoss()
        self.psnr = PeakSignalNoiseRatio(data_range=1.0)
        self.lpips = LazyLpips()
        if config.enable_temporal_distortion:
            params = dict(config.temporal_distortion_params)
            self.temporal_distortion = params.pop("kind").to_temporal_distortion(params)

    def with_fields(self, fields: Mapping[str, NeRFField]) -> "PruneModel":
        """A model with other fields for rendering, in evaluation mode; samplers and renderers are shared.

        Args:
            fields: `field_coarse` and `field_fine`, of any widths.
        """
        other = copy(self)
        other._modules = {**self._modules, **fields}
        other.empty_space = self.empty_space.apart()
        other.training = False
        for nerf_field in fields.values():
            nerf_field.eval()
        return other

    def fields(self) -> dict[str, Any]:
        """The fields that can be pruned, by the name of their attribute."""
        return fields_of(self)

    def neuron_groups(self) -> list[NeuronGroup]:
        """Hidden layers of all fields in forward order, with the columns that read them."""
        return [group for name, own in self.fields().items() for group in layout_of(own).groups(name, own)]

    def sync_widths(self) -> None:
        """Brings the fields' own notes of their widths in line with the tensors."""
        for own in self.fields().values():
            layout_of(own).synced(own)

    def samples_per_ray(self, network: str) -> int:
        """Points at which a network is evaluated for one ray, all its calls together.

        Args:
            network: Name of a field, or of another trainable network of the model.
        """
        coarse = self.config.num_coarse_samples
        # The fine sampler merges the coarse bins with its own, which gives one interval more than the sum.
        fine = coarse + self.config.num_importance_samples + 1
        return {"field_coarse": coarse, "field_fine": fine}.get(network, coarse + fine)

    def layer_costs(self) -> dict[str, tuple[int, int]]:
        """Module path of each layer -> (parameters, multiply-accumulates per ray), read off the tensors.

        Layers of the fields come first, in forward order, frozen ones included; then what else is trainable: layers of
        other networks, the temporal distortion say, and tensors outside of any layer.
        """
        per_ray = {network: self.samples_per_ray(network) for network, _ in self.named_children()}
        networks = {
            layer: network for network, child in self.named_children() for layer in child.modules() if is_linear(layer)
        }
        layers = linears(self.neuron_groups())
        known = {id(layer) for layer in layers.values()}
        layers.update({name: m for name, m in self.named_modules() if is_linear(m) and id(m) not in known})
        trained = {id(p) for group in self.get_param_groups().values() for p in group}
        costs = {
            name: (count_parameters([layer]), macs_per_sample([layer]) * per_ray[networks[layer]])
            for name, layer in layers.items()
            # Not by its weight: under `torch.nn.utils.prune` that is no parameter but what a mask leaves of one.
            if id(layer) in known or any(id(p) in trained for p in layer.parameters())
        }
        counted = {id(p) for name in costs for p in layers[name].parameters()}
        costs.update(
            {name: (p.numel(), 0) for name, p in self.named_parameters() if id(p) in trained and id(p) not in counted}
        )
        return costs

    def get_outputs(self, ray_bundle: RayBundle) -> dict[str, Tensor]:
        """Stock outputs of both fields, and those of the fine field as `rgb`, `depth` and `accumulation`."""
        alone = self._skips and self.config.fine_field_only
        outputs = self._fine_outputs(ray_bundle) if alone else super().get_outputs(ray_bundle)
        fine = {name: outputs[f"{name}_fine"] for name in ("rgb", "depth", "accumulation")}
        return {**fine, **outputs}

    @property
    def _skips(self) -> bool:
        """Whether a whole view is rendered of which the fine field knows the empty space."""
        fine = self._skipping_fields().get("field_fine")
        return not self.training and fine is not None and fine.occupancy is not None

    def _fine_outputs(self, ray_bundle: RayBundle) -> dict[str, Tensor]:
        """Outputs of the fine field at evenly spaced samples; they stand for those of the coarse one too."""
        config, grid = self.config, self.field_fine.occupancy
        assert grid is not None and ray_bundle.nears is not None and ray_bundle.fars is not None
        if not config.use_scene_contraction:
            # The host's box has a flat form, and says where rays enter and leave it.
            enter, leave = intersect_aabb(ray_bundle.origins, ray_bundle.directions, grid.aabb.flatten())
            nears = torch.maximum(ray_bundle.nears, torch.minimum(enter[..., None], ray_bundle.fars))
            fars = torch.minimum(ray_bundle.fars, torch.maximum(leave[..., None], nears))
            ray_bundle = replace(ray_bundle, nears=nears, fars=fars)
        sampler = type(self.sampler_uniform)(config.num_coarse_samples + config.num_importance_samples)
        samples = sampler.eval()(ray_bundle)
        found = self.field_fine.forward(samples)
        weights = samples.get_weights(found[FieldHeadNames.DENSITY])
        outputs = {
            "rgb": self.renderer_rgb(rgb=found[FieldHeadNames.RGB], weights=weights),
            "accumulation": self.renderer_accumulation(weights),
            "depth": self.renderer_depth(weights, samples),
        }
        return {f"{name}_{kind}": value for kind in ("coarse", "fine") for name, value in outputs.items()}

    @property
    def training_grids(self) -> Grids:
        """Where the fields are evaluated in training steps; empty: everywhere."""
        return self.empty_space.training if self.config.skip_empty_space else {}

    def look(self, seed: int) -> None:
        """Looks anew where the scene is empty, for the training steps to come.

        Args:
            seed: Seed of the places that are looked at.
        """
        self.empty_space.look(self._densities(), seed, self.device)

    def get_outputs_for_camera(self, camera: Cameras, obb_box: Optional[OrientedBox] = None) -> dict[str, Tensor]:
        """Renders a view; of a large picture some rows at a time, see `rows_of_rays`.

        Args:
            camera: Its camera, one alone.
            obb_box: What the view is cropped to; None: nothing.
        """
        whole, height, row = {}, int(camera.height.item()), 0
        for rays in rows_of_rays(camera, obb_box):
            part = self.get_outputs_for_camera_ray_bundle(rays)
            if len(rays.origins) == height:
                return part
            for name, output in part.items():
                # Written into one tensor, for joined at the end all of it would be there twice.
                whole.setdefault(name, output.new_empty(height, *output.shape[1:]))[row : row + len(output)] = output
            row += len(rays.origins)
        return whole

    @torch.no_grad()
    def get_outputs_for_camera_ray_bundle(self, camera_ray_bundle: RayBundle) -> dict[str, Tensor]:
        """Renders a whole view; empty space is skipped.

        Args:
            camera_ray_bundle: Rays of the view, of shape [height, width].
        """
        grids = self.training_grids
        if self.config.skip_empty_space and not self.empty_space.in_training:
            grids = self.empty_space.for_evaluation(self._densities(), self._weights(), self.device)
        with self._skipping(grids):
            return super().get_outputs_for_camera_ray_bundle(camera_ray_bundle)

    def forward(self, ray_bundle: RayBundle) -> dict[str, Tensor]:  # type: ignore[override]
        """Renders rays; in evaluation in chunks of at most `eval_num_rays_per_chunk`, which bounds the memory.

        Empty space is skipped in training. In evaluation everything is evaluated: what an event is judged by must not
        depend on a grid that may be older than the cut.
        """
        if self.training:
            with self._skipping(self.training_grids):
                return super().forward(ray_bundle)  # type: ignore[return-value]
        chunk = self.config.eval_num_rays_per_chunk
        if len(ray_bundle) <= chunk:
            return super().forward(ray_bundle)  # type: ignore[return-value]
        flat = ray_bundle.flatten()
        parts: list[Any] = [Model.forward(self, flat[i : i + chunk]) for i in range(0, len(flat), chunk)]
        return {name: torch.cat([part[name] for part in parts]).view(*ray_bundle.shape, -1) for name in parts[0]}

    @contextmanager
    def _skipping(self, grids: Grids) -> Iterator[None]:
        """Fields are evaluated only where grids say that there is something, while the body runs."""
        fields = self._skipping_fields()
        try:
            for name, nerf_field in fields.items():
                nerf_field.occupancy = grids.get(name)
            yield
        finally:
            for nerf_field in fields.values():
                nerf_field.occupancy = None

    def _skipping_fields(self) -> dict[str, PruneField]:
        """Fields that can leave empty space out, by the name of their attribute."""
        fields = self.fields()
        return {name: fields[name] for name in self.empty_space.options if isinstance(fields.get(name), PruneField)}

    def _densities(self) -> dict[str, DensityFn]:
        return {name: nerf_field.density_at for name, nerf_field in self._skipping_fields().items()}

    def _weights(self) -> tuple[float, ...]:
        """Tells states of the fields' weights apart, whoever changed them and how."""
        tensors = [p.double() for nerf_field in self.fields().values() for p in nerf_field.parameters()]
        return tuple(float(torch.stack([f(p) for p in tensors]).sum()) for f in (torch.sum, torch.linalg.vector_norm))

    def get_rgba_image(self, outputs: dict[str, Tensor], output_name: str = "rgb") -> Float[Tensor, "*batch 4"]:
        """Colour without the background, and the accumulation as alpha."""
        rgb, alpha = outputs[output_name], outputs[output_name.replace("rgb", "accumulation")]
        background = self.renderer_rgb.background_color
        if background == "last_sample":
            return torch.cat([rgb, alpha], dim=-1)
        if background != "random":
            colour = self.renderer_rgb.get_background_color(background, shape=rgb.shape, device=rgb.device)
            rgb = rgb - colour * (1 - alpha)
        return torch.cat([(rgb / alpha.clamp_min(1e-10)).clamp(0, 1), alpha], dim=-1)

    def get_metrics_dict(self, outputs: dict[str, Tensor], batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """PSNR of the fine field on a batch of rays, in dB."""
        image = self.renderer_rgb.blend_background(batch["image"].to(self.device))
        return {"psnr": self.psnr(outputs["rgb_fine"].detach(), image)}

    def get_image_metrics_and_images(
        self, outputs: dict[str, Tensor], batch: dict[str, Tensor]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Metrics and pictures of one view, as the stock model gives them; LPIPS only where it can be had.

        Where a `mask` limits the pixels, the metrics are those of the pixels that count, which the stock model does not
        do: PSNR of their colours, the mean of SSIM's map over them, and LPIPS of the whole view with the true colours
        everywhere else.
        """
        rgb = outputs["rgb_fine"]
        image = self.renderer_rgb.blend_background(batch["image"].to(rgb.device))
        assert self.config.collider_params is not None
        near, far = self.config.collider_params["near_plane"], self.config.collider_params["far_plane"]
        if self.config.use_scene_contraction:
            # The far plane says nothing there, and single rays that miss all would take up the whole range.
            near, far = (float(x) for x in np.quantile(outputs["depth_fine"].cpu().numpy(), (0.02, 0.98)))
        pictures = {
            "img": [image, outputs["rgb_coarse"], rgb],
            "accumulation": [colormaps.apply_colormap(outputs[f"accumulation_{name}"]) for name in ("coarse", "fine")],
            "depth": [
                colormaps.apply_depth_colormap(
                    outputs[f"depth_{name}"], outputs[f"accumulation_{name}"], near_plane=near, far_plane=far
                )
                for name in ("coarse", "fine")
            ],
        }
        pixels = counted_pixels(batch).to(rgb.device) if "mask" in batch else None
        views = (image, masked(rgb, image, pixels), masked(outputs["rgb_coarse"], image, pixels))
        truth, fine, coarse = (x.moveaxis(-1, 0)[None] for x in views)
        fine_psnr, coarse_psnr = (float(self.psnr(counted(x, pixels), counted(truth, pixels))) for x in (fine, coarse))
        metrics = {
            "psnr": fine_psnr,
            "coarse_psnr": coarse_psnr,
            "fine_psnr": fine_psnr,
            "fine_ssim": ssim(truth, fine, pixels),
        }
        lpips = self.lpips(truth, fine)
        if lpips is not None:
            metrics["fine_lpips"] = lpips
        return metrics, {name: torch.cat(row, dim=1) for name, row in pictures.items()}

    def get_extra_state(self) -> dict[str, Any]:
        """Pruning state and grids for the checkpoint: plain numbers, strings and tensors."""
        state, space = self.prune_state.to_dict(), self.empty_space
        if self.config.position_max_freq_exp != MAX_FREQ_EXP:
            state[ENCODING] = self.config.position_max_freq_exp
        return {**state, OCCUPANCY: grids_to_dict(space.training)} if space.looked else state

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes up the pruning state and the grids of a checkpoint.

        Raises:
            ValueError: If they are none.
        """
        self.empty_space.training = grids_from_dict(state.get(OCCUPANCY, {}), self.device)
        self.empty_space.looked = OCCUPANCY in state
        self.prune_state = PruneState.from_dict(pruning_entries(state))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Loads a checkpoint of any widths, of this method or of the stock `vanilla-nerf`.

        Raises:
            ValueError: If the checkpoint does not fit; nothing is changed then. Not a RuntimeError, which the host
                would swallow.
        """
        return self.take_up(state_dict)

    def take_up(self, state_dict: Mapping[str, Any], finite: bool = True) -> Any:
        """Loads a checkpoint of any widths.

        Args:
            state_dict: Entries of the checkpoint, without the pipeline's prefix.
            finite: Whether weights must be finite; a network that is only looked at may have others.

        Raises:
            ValueError: If the checkpoint does not fit; nothing is changed then.
        """
        fitting = fit_to_checkpoint(self, self.neuron_groups(), state_dict, finite)
        result = super().load_state_dict(fitting, strict=True, assign=False)
        self.sync_widths()
        return result


def is_linear(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether a module is a linear layer."""
    return isinstance(module, nn.Linear)


def grid_options(config: PruneModelConfig) -> dict[str, GridOptions]:
    """How finely each field is looked at.

    What little density the coarse field has says where to sample, and moves the samples: its threshold is lower.

    Args:
        config: Options of the model.
    """
    step, caution = render_step_size(config), {"field_coarse": COARSE_CAUTION, "field_fine": 1.0}
    return {
        name: GridOptions(config.grid_resolution, density_threshold(factor * config.alpha_thre, step))
        for name, factor in caution.items()
    }


def render_step_size(config: PruneModelConfig) -> float:
    """Length of the step that `alpha_thre` is meant for.

    Args:
        config: Options of the model.
    """
    if config.render_step_size is not None:
        return config.render_step_size
    planes = config.collider_params or {"near_plane": 0.0, "far_plane": 1.0}
    # In the contracted space all rays pass through the unit ball.
    length = 2.0 if config.use_scene_contraction else planes["far_plane"] - planes["near_plane"]
    return length / config.num_coarse_samples


MAX_WEIGHTS = 10**8
"""Weights of the trunk of one field, 400 MB and as much again for each moment."""
RULES: Sequence[Rule] = (
    (("base_mlp_num_layers", "head_mlp_num_layers"), *at_least(1, 64)),
    (("base_mlp_layer_width", "head_mlp_layer_width"), *at_least(1, 4096)),
    (("num_coarse_samples", "num_importance_samples"), *at_least(1, 4096)),
    (("eval_num_rays_per_chunk",), *at_least(1, 2**20)),
    (("position_max_freq_exp",), lambda value: 0 <= value <= 16, "in [0, 16]"),
    (("grid_resolution",), *at_least(1, 1024)),
    (("alpha_thre",), lambda value: 0 < value < 1, "in (0, 1)"),
    (("render_step_size",), *above(0, 10**6)),
    (("occupancy_warm_up_steps",), *at_least(0, MAX_STEPS)),
    (("occupancy_update_interval",), *at_least(1, MAX_STEPS)),
    (
        ("collider_params",),
        lambda value: 0 <= value.get("near_plane", -1) < value.get("far_plane", -1) <= 10**6,
        "near_plane and far_plane with 0 <= near_plane < far_plane <= 1,000,000",
    ),
    (("enable_collider",), lambda value: value, "True: the samplers ask for a near and a far plane"),
    (
        ("loss_coefficients",),
        lambda value: all(0 <= factor <= 10**6 for factor in value.values()),
        "names of losses with factors in [0, 1,000,000]",
    ),
    (
        (
            "skip_connections",
            "skip_empty_space",
            "fine_field_only",
            "coarse_sampler",
            "background_color",
            "use_scene_contraction",
            "use_gradient_scaling",
            "enable_temporal_distortion",
        ),
        lambda value: True,
        "of its type",
    ),
)


def check_model(config: PruneModelConfig) -> None:
    """Checks that the options give a network that the host's `MLP` can run, and rays that it can be asked for.

    Raises:
        ValueError: Names the option, what was found and what was expected.
    """
    prefix = "pipeline.model."
    check_values(config, prefix, RULES)
    if config.collider_params is None:
        raise ValueError(f"{prefix}collider_params must be near_plane and far_plane, got None")
    kind = dict(config.temporal_distortion_params).get("kind")
    if config.enable_temporal_distortion and not isinstance(kind, TemporalDistortionKind):
        raise ValueError(f"{prefix}temporal_distortion_params must name a kind of distortion, got {shown(kind)}")
    weights = config.base_mlp_num_layers * config.base_mlp_layer_width**2
    if weights > MAX_WEIGHTS:
        raise ValueError(
            f"{prefix}base_mlp_num_layers {config.base_mlp_num_layers} and base_mlp_layer_width "
            f"{config.base_mlp_layer_width} give about {weights:,} weights a field; the most is {MAX_WEIGHTS:,}"
        )
    for index in config.skip_connections:
        if index < 1 or index == config.base_mlp_num_layers - 1:
            raise ValueError(
                f"{prefix}skip_connections: {index} must be neither the first nor the last of the "
                f"{config.base_mlp_num_layers} trunk layers"
            )
