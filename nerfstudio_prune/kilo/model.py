"""The model: rays through occupied cells, each with its tiny network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import ceil
from typing import Any, Optional

import torch
from jaxtyping import Float
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.model_components.losses import MSELoss
from nerfstudio.model_components.renderers import RGBRenderer
from nerfstudio.models.base_model import Model, ModelConfig
from nerfstudio.utils import colormaps
from torch import Tensor, nn
from torch.nn.modules.module import _IncompatibleKeys
from torchmetrics.image import PeakSignalNoiseRatio

from nerfstudio_prune.data.metrics import LazyLpips, counted, masked, ssim
from nerfstudio_prune.data.pixels import counted_pixels
from nerfstudio_prune.engine.checks import check_values
from nerfstudio_prune.engine.options import Rule, at_least
from nerfstudio_prune.kilo.checkpoint import Stack, checked_state
from nerfstudio_prune.kilo.outputs import COUNTS, Look, Places, SeesPoints, ViewOutputs, view_outputs
from nerfstudio_prune.kilo.spaces import SPACES, Space
from nerfstudio_prune.kilo.state import KiloState
from nerfstudio_prune.kilo.stored_cells import StoredCells
from nerfstudio_prune.kilonerf.cell_errors import CellErrors, Shares, attributed
from nerfstudio_prune.kilonerf.cells import LiveCells
from nerfstudio_prune.kilonerf.classes import NetworkClasses
from nerfstudio_prune.kilonerf.composite import (
    Rendered,
    automatic_passes,
    composite,
    last_colours,
    render,
    with_last_behind,
)
from nerfstudio_prune.kilonerf.distillation import view_dependent_penalty
from nerfstudio_prune.kilonerf.evaluate import evaluate
from nerfstudio_prune.kilonerf.grouped import Evaluation
from nerfstudio_prune.kilonerf.march import Lattice, Marcher, Samples
from nerfstudio_prune.kilonerf.networks import TinyNetworks
from nerfstudio_prune.kilonerf.shape import NetworkShape

EVAL_RAYS = 2**16
"""Rays that are rendered at once by default: with fewer, each network has too few points for a product."""
NOTHING = 1e-6
"""Accumulation below which a ray shows the background only."""


@dataclass
class KiloModelConfig(ModelConfig):
    """How tiny networks are rendered."""

    _target: type = field(default_factory=lambda: KiloModel)
    enable_collider: bool = False
    """Not used: rays begin and end where the teacher's did."""
    eval_num_rays_per_chunk: int = EVAL_RAYS
    """Rays that are rendered at once in evaluation."""
    transmittance_threshold: float = 0.01
    """Light below which a ray is followed no further in evaluation, in [0, 1); the largest error of a colour."""
    samples_per_pass: Optional[int] = None
    """Samples of a ray that are evaluated between two looks at what light is left. None: as many as leave each network
    enough points; on a CPU usually all."""
    evaluation: Evaluation = "auto"
    """How products of all networks are computed: native (PyTorch's grouped product), buckets (padded batches of like
    groups), tiles (one batch of equal pieces, for GPUs), loop; auto: what suits and agrees with a loop on this
    machine."""


RULES: tuple[Rule, ...] = (
    (("eval_num_rays_per_chunk",), *at_least(1, 2**20)),
    (("transmittance_threshold",), lambda value: 0 <= value < 1, "in [0, 1)"),
    (("samples_per_pass",), *at_least(1, 2**20)),
    (("evaluation",), lambda value: True, "one of its words"),
    (("enable_collider",), lambda value: not value, "False: rays begin and end where the teacher's did"),
)


def check_model(config: KiloModelConfig) -> None:
    """Checks types and ranges.

    Args:
        config: Options of the model.

    Raises:
        ValueError: Names the option, what was found and what was expected.
    """
    check_values(config, "pipeline.model.", RULES)


class KiloModel(Model):
    """Tiny networks in a grid of cells. Holds none, and shows the background, until cells are put in or loaded.

    Args:
        config: How networks are rendered.
    """

    config: KiloModelConfig

    def populate_modules(self) -> None:
        """Makes room for networks, and metrics.

        Raises:
            ValueError: If an option is out of its range.
        """
        check_model(self.config)
        super().populate_modules()
        self.state = KiloState()
        self.cells = StoredCells()
        self.errors = CellErrors()
        self._shares: Optional[Shares] = None
        """Who made the colours of the last training step, until these are compared with photos."""
        self.make_room(NetworkShape())
        self.renderer_rgb = RGBRenderer(background_color=self.state.background)
        self.rgb_loss = MSELoss()
        self.psnr = PeakSignalNoiseRatio(data_range=1.0)
        self.lpips = LazyLpips()
        self.penalty_factor = 0.0
        """Factor on the squared weights of direction and colour."""
        self.shift: Optional[Tensor] = None
        """Where in their steps the samples of the rays of a training step lie. None: in the middle."""
        self.look: Optional[Look] = None
        """What samples are shown as. None: as what their networks say."""
        self.teacher: Optional[SeesPoints] = None
        """What is learnt from, to be shown beside the networks; None where there is none any more."""

    def make_room(self, shape: NetworkShape, narrows: bool = False) -> None:
        """Begins with no network of other sizes; before optimizers are made.

        Args:
            shape: Sizes of the networks.
            narrows: Whether there is to be room for narrower ones as well, see `NetworkClasses.uniform`.

        Raises:
            ValueError: If the width is too small for that.
        """
        self.networks = NetworkClasses.uniform(0, shape, torch.Generator(), narrows)
        self._marchers: dict[bool, tuple[LiveCells, Marcher]] = {}

    @property
    def stack(self) -> TinyNetworks:
        """The networks of full width."""
        return list(self.networks)[-1]

    def begin(self, live: LiveCells, lattice: Lattice, shape: NetworkShape, state: KiloState) -> None:
        """Takes up cells with new networks. Parameters stay the objects that optimizers hold.

        Args:
            live: The cells.
            lattice: Steps of rays in training.
            shape: Sizes of the networks, of as many layers as there is room for.
            state: State of the run; its seed is that of the weights.
        """
        generator = torch.Generator().manual_seed(state.seed)
        fresh = NetworkClasses.uniform(live.count, shape, generator, narrows=len(self.networks.counts) > 1)
        self._put([Stack(stack.shape, dict(stack.named_parameters())) for stack in fresh], fresh.position)
        self.cells.put(live, lattice)
        self.errors.forget(live.count)
        self._take_state(state)

    @torch.no_grad()
    def _put(self, stacks: Sequence[Stack], position: Tensor) -> None:
        for own, stack in zip(self.networks, stacks, strict=True):
            own.shape = stack.shape
            for name, parameter in own.named_parameters():
                parameter.data = stack.weights[name].detach().to(parameter.device, parameter.dtype, copy=True)
                parameter.grad = None
        self.networks.position = position.to(self.networks.position.device, copy=True)
        self._marchers.clear()

    def _take_state(self, state: KiloState) -> None:
        self.state = state
        self.renderer_rgb.background_color = state.background

    @property
    def space(self) -> Space:
        """The space that cells lie in."""
        return SPACES[self.state.space]

    def step_size(self) -> float:
        """Length of a step of rays in the space of the cells, in training. No property: the host's viewer looks at
        those of a model that has no cells yet."""
        lattice = self.cells.lattice_of_rays
        assert lattice is not None
        return self.space.extent(lattice.near, lattice.far) / lattice.steps

    def get_param_groups(self) -> dict[str, list[nn.Parameter]]:
        """All networks as one group, `networks`."""
        return {"networks": list(self.networks.parameters())}

    def forward(self, ray_bundle: RayBundle) -> dict[str, Tensor]:  # type: ignore[override]
        """Renders rays; in evaluation in chunks of at most `eval_num_rays_per_chunk`.

        Args:
            ray_bundle: Rays of any shape.
        """
        chunk = self.config.eval_num_rays_per_chunk
        if self.training or len(ray_bundle) <= chunk:
            return self.get_outputs(ray_bundle)
        flat = ray_bundle.flatten()
        parts = [self.get_outputs(flat[i : i + chunk]) for i in range(0, len(flat), chunk)]
        return {name: torch.cat([part[name] for part in parts]).view(*ray_bundle.shape, -1) for name in parts[0]}

    @torch.no_grad()
    def get_outputs_for_camera_ray_bundle(  # type: ignore[override]
        self, camera_ray_bundle: RayBundle
    ) -> ViewOutputs:
        """Renders a whole view. Outputs beside colour, depth and accumulation are rendered when they are looked up.

        Args:
            camera_ray_bundle: Rays of the view, of shape [height, width].
        """
        found = super().get_outputs_for_camera_ray_bundle(camera_ray_bundle)
        live = self.cells.live
        steps = 1 if live is None else self._marcher().lattice.steps
        cells = None if live is None else live.cells
        return view_outputs(self, camera_ray_bundle, found, steps, cells, self.errors.roots())

    def get_outputs(self, ray_bundle: RayBundle) -> dict[str, Tensor]:  # type: ignore[override]
        """Colour, depth along the ray, accumulation, and how many samples of the ray were evaluated.

        Args:
            ray_bundle: Rays of any shape; where they have near and far planes, of a crop say, only between these.
        """
        shape = ray_bundle.origins.shape[:-1]
        origins, directions = ray_bundle.origins.reshape(-1, 3), ray_bundle.directions.reshape(-1, 3)
        if self.cells.live is None:
            nothing = origins.new_zeros(len(origins), 1)
            rgb, depth, accumulation = self._background(origins), nothing, nothing
            counts = nothing.long()
        else:
            samples = self._samples(origins, directions, ray_bundle)
            shown, last = self._render(samples, origins, directions)
            background = self._background(origins) if last is None else last
            rgb = shown.over(background)
            accumulation, counts = shown.accumulation[:, None], shown.evaluated[:, None]
            assert self.cells.lattice_of_rays is not None
            far = torch.full_like(accumulation, self.cells.lattice_of_rays.far)
            depth = torch.where(accumulation > NOTHING, shown.depth[:, None] / accumulation.clamp(min=NOTHING), far)
        found = {"rgb": rgb, "depth": depth, "accumulation": accumulation, COUNTS: counts}
        return {name: value.view(*shape, -1) for name, value in found.items()}

    def _background(self, like: Float[Tensor, "rays 3"]) -> Float[Tensor, "rays 3"]:
        """Colour behind rays; black where the host leaves it open."""
        name = self.state.background
        if name in ("random", "last_sample"):
            name = "black"
        return self.renderer_rgb.get_background_color(name, shape=like.shape, device=like.device)

    def _marcher(self) -> Marcher:
        """Finds samples: in training from the near plane on, else from the camera on, as in the host."""
        live, lattice = self.cells.live, self.cells.lattice_of_rays
        assert live is not None and lattice is not None
        known = self._marchers.get(self.training)
        if known is None or known[0] is not live:
            if not self.training:
                lattice = self.space.evaluated(lattice)
            known = self._marchers[self.training] = (live, Marcher(live, lattice, self.space.contraction))
        return known[1]

    def _samples(
        self, origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"], bundle: RayBundle
    ) -> Samples:
        found = self._marcher().occupied(origins, directions, self.shift if self.training else None)
        if bundle.nears is None or bundle.fars is None:
            return found
        ray = found.ray.long()
        nears, fars = bundle.nears.reshape(-1)[ray], bundle.fars.reshape(-1)[ray]
        return found.of(((found.distance >= nears) & (found.distance <= fars)).nonzero()[:, 0])

    def _render(
        self, samples: Samples, origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"]
    ) -> tuple[Rendered, Optional[Float[Tensor, "rays 3"]]]:
        """What rays show, and the colour of each one's last sample where that is the background."""
        live, config = self.cells.live, self.config
        assert live is not None
        network = live.networks(samples.voxel)
        points = self.space.from_world(samples.points(origins, directions))
        local = live.local(points, network)
        length = self.space.lengths(self._marcher().lattice, samples.step, points)

        def values(which: Tensor) -> tuple[Tensor, Tensor]:
            of, ray = network[which], samples.ray[which]
            own = partial(evaluate, self.networks, local[which], of, ray, directions, config.evaluation)
            return own() if self.look is None else self.look(own, Places(points[which], of, ray, directions))

        rays = len(origins)
        if self.training or self.state.background == "last_sample":
            density, rgb = values(torch.arange(len(samples), device=origins.device))
            last = last_colours(rgb, samples.ray, rays) if self.state.background == "last_sample" else None
            whole = composite(density, rgb, samples.ray, samples.distance, length, rays)
            if self.training:
                weights = whole.weights.detach()
                if last is not None:
                    weights = with_last_behind(weights, samples.ray, whole.transmittance.detach())
                self._shares = Shares(network, samples.ray, weights)
            return whole, last
        hit = len(samples.ray.unique_consecutive())
        passes = automatic_passes(len(samples), hit, live.count, origins.device)
        if config.samples_per_pass is not None and rays:
            most = int(samples.ray.long().bincount().max()) if len(samples) else 0
            passes = [config.samples_per_pass] * max(0, ceil(most / config.samples_per_pass) - 1)
        shown = render(values, samples.ray, samples.distance, length, rays, config.transmittance_threshold, passes)
        return shown, None

    def get_loss_dict(
        self, outputs: dict[str, Tensor], batch: dict[str, Tensor], metrics_dict: Optional[dict[str, Any]] = None
    ) -> dict[str, Tensor]:
        """Squared error of the colours, and in training a little of the squared weights of direction and colour. In
        training the error of each network is noted.

        Args:
            outputs: Outputs of the model.
            batch: Colours of the photos as `image`.
            metrics_dict: Not used.
        """
        rgb, image = self.renderer_rgb.blend_background_for_loss_computation(
            pred_image=outputs["rgb"],
            pred_accumulation=outputs["accumulation"],
            gt_image=batch["image"].to(self.device),
        )
        losses = {"rgb_loss": self.rgb_loss(image, rgb)}
        if self.training:
            self._note_errors(image, rgb)
            # Even at a factor of 0: a batch may have no occupied sample, and a loss needs a graph.
            losses["view_dependent_penalty"] = self.penalty_factor * view_dependent_penalty(self.networks)
        return losses

    @torch.no_grad()
    def _note_errors(self, image: Float[Tensor, "*rays 3"], rgb: Float[Tensor, "*rays 3"]) -> None:
        """What photos say of the networks that the last rays met."""
        shares, self._shares = self._shares, None
        if shares is not None:
            squares = (image - rgb).square().mean(dim=-1).flatten()
            self.errors.note(*attributed(shares, squares, self.networks.num_networks))

    def get_metrics_dict(self, outputs: dict[str, Tensor], batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """PSNR of a batch of rays, in dB.

        Args:
            outputs: Outputs of the model.
            batch: Colours of the photos as `image`.
        """
        image = self.renderer_rgb.blend_background(batch["image"].to(self.device))
        return {"psnr": self.psnr(outputs["rgb"].detach(), image)}

    def get_image_metrics_and_images(
        self, outputs: dict[str, Tensor], batch: dict[str, Tensor]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """PSNR and SSIM over the pixels that count, LPIPS only where it can be had; and pictures.

        Args:
            outputs: Outputs of a whole view.
            batch: The view's `image`, and its `mask` where something limits the pixels.
        """
        rgb = outputs["rgb"]
        image = self.renderer_rgb.blend_background(batch["image"].to(rgb.device))
        pixels = counted_pixels(batch).to(rgb.device) if "mask" in batch else None
        truth, seen = (x.moveaxis(-1, 0)[None] for x in (image, masked(rgb, image, pixels)))
        metrics = {
            "psnr": float(self.psnr(counted(seen, pixels), counted(truth, pixels))),
            "ssim": ssim(truth, seen, pixels),
        }
        lpips = self.lpips(truth, seen)
        if lpips is not None:
            metrics["lpips"] = lpips
        lattice = self.cells.lattice_of_rays
        near, far = (lattice.near, lattice.far) if lattice is not None else (0.0, 1.0)
        depth = colormaps.apply_depth_colormap(
            outputs["depth"], outputs["accumulation"], near_plane=near, far_plane=far
        )
        return metrics, {
            "img": torch.cat([image, rgb], dim=1),
            "accumulation": colormaps.apply_colormap(outputs["accumulation"]),
            "depth": depth,
        }

    def get_rgba_image(self, outputs: dict[str, Tensor], output_name: str = "rgb") -> Float[Tensor, "*batch 4"]:
        """Colour without the background, and the accumulation as alpha.

        Args:
            outputs: Outputs of the model.
            output_name: Which of them is the picture.
        """
        rgb, alpha = outputs[output_name], outputs["accumulation"]
        if self.state.background == "last_sample":
            return torch.cat([rgb, alpha], dim=-1)
        rgb = rgb - self._background(rgb) * (1 - alpha)
        return torch.cat([(rgb / alpha.clamp_min(1e-10)).clamp(0, 1), alpha], dim=-1)

    def get_extra_state(self) -> dict[str, Any]:
        """State of the run for the checkpoint: plain values."""
        return self.state.plain()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Is the host's to call; the state is taken up with everything else, see `load_state_dict`."""

    def load_state_dict(  # type: ignore[override]
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Loads a checkpoint of any number of networks, of any sizes.

        Args:
            state_dict: Entries of the checkpoint, without the pipeline's prefix.
            strict: Not used: all has to fit.
            assign: Not used: parameters stay the objects that optimizers hold.

        Raises:
            ValueError: If it does not fit; nothing is changed then. Not a RuntimeError, which the host would swallow.
        """
        loaded = checked_state(self.networks, self.state_dict(), state_dict)
        self._put(loaded.stacks, loaded.position)
        self.cells.take(loaded.cells, SPACES[loaded.state.space].spacing)
        self.errors.put(*loaded.errors)
        self._take_state(loaded.state)
        return _IncompatibleKeys([], [])
