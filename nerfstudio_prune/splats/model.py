"""Splatfacto that runs with and without a GPU, can be resumed, and whose Gaussians can be removed while it trains."""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Optional

import torch
from gsplat.strategy import DefaultStrategy
from jaxtyping import Float
from nerfstudio.cameras.camera_optimizers import CameraOptimizer
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.model_components.lib_bilagrid import BilateralGrid, color_correct
from nerfstudio.models.splatfacto import (
    RGB2SH,
    SH2RGB,
    SplatfactoModel,
    SplatfactoModelConfig,
    num_sh_bases,
    random_quat_tensor,
)
from nerfstudio.utils.colors import get_color
from pytorch_msssim import SSIM
from torch import Tensor, nn
from torchmetrics.image import PeakSignalNoiseRatio

from nerfstudio_prune.core.events import PruneState
from nerfstudio_prune.core.optimizer_state import sync_lists
from nerfstudio_prune.data.metrics import LazyLpips, counted, masked, ssim
from nerfstudio_prune.data.pixels import counted_pixels
from nerfstudio_prune.raster.choosing import rasterizer_for
from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.raster.interface import Rasterizer, Rendering
from nerfstudio_prune.splats.checkpoint import fit_to_checkpoint
from nerfstudio_prune.splats.checks import check_model
from nerfstudio_prune.splats.growth import SCHEDULE_STEPS, Growth, coarsest, growth_of
from nerfstudio_prune.splats.seeding import initial_scales
from nerfstudio_prune.splats.views import view_of

RUNNING = ("grad2d", "count", "radii")
"""What the densification keeps of each Gaussian between two of its steps."""
LOADED_STEP = 10**9
"""Step of a model that is loaded and not trained: all degrees of the spherical harmonics, full resolution."""
FIRST_OPACITY = 0.1
VIEWER_BACKGROUND = torch.tensor([0.1490, 0.1647, 0.2157])
"""The host's colour behind pictures of models that are trained on random ones: that of its viewer."""


@dataclass
class SplatPruneModelConfig(SplatfactoModelConfig):
    """Splatfacto whose rasteriser and length of schedule are options."""

    _target: type = field(default_factory=lambda: SplatPruneModel)
    rasterizer: Literal["auto", "gsplat", "cpu"] = "auto"
    """What renders: gsplat (needs CUDA), cpu, or auto: gsplat on a GPU and cpu on a CPU."""
    background_color: Literal["auto", "random", "black", "white"] = "auto"  # type: ignore[assignment]
    """Colour behind the Gaussians in training: auto is the colour that the data set's pictures are blended with where
    they have opacity (white for blender-data), else random."""
    schedule_steps: Optional[int] = SCHEDULE_STEPS
    """Length of the run, in steps, that the options that count training steps are written for (warmup-length,
    refine-every, resolution-schedule, sh-degree-interval, stop-screen-size-at, stop-split-at). A run of another
    max-num-iterations scales them, so that it has the same shape; but refine-every is never shortened, nor the time
    between two opacity resets below 1,000 steps. None: they are taken as they are."""
    initial_file: Optional[Path] = None
    """File of Gaussians to begin with (.gsvt, .ply, .compressed.ply, .spz or .sog), in the space of the scene, instead
    of points of the data or random ones. The optimizers' moments begin anew; of another degree than sh-degree harmonics
    that are missing are zero, and those beyond are left out. Not read by a run that goes on from a checkpoint."""


class SplatPruneModel(SplatfactoModel):
    """Splatfacto with a rasteriser for every device.

    Losses, densification, parameter groups and camera optimizer are the host's. Metrics count the pixels that count,
    LPIPS only where it can be had.

    Args:
        config: Options.
        scene_box: The scene's.
        num_train_data: Training views.
        seed_points: Places and colours (0 to 255) to begin with. None: the host's cube, until `seed` is called.
        **kwargs: For the host.
    """

    config: SplatPruneModelConfig
    gauss_params: nn.ParameterDict

    def populate_modules(self) -> None:
        """Builds Gaussians, metrics and the strategy of densification.

        Raises:
            ValueError: If an option is out of its range.
        """
        config = self.config
        check_model(config)
        # Not SplatfactoModel's: it downloads the weights of LPIPS and puts seed points on a GPU.
        self.prune_state = PruneState()
        self.gauss_params = nn.ParameterDict()
        if self.seed_points is not None and not config.random_init:
            self.seed(*self.seed_points)
        else:
            means = (torch.rand((config.num_random, 3)) - 0.5) * config.random_scale
            self.seed(means, torch.empty(0, 3))
        self.camera_optimizer: CameraOptimizer = config.camera_optimizer.setup(
            num_cameras=self.num_train_data, device="cpu"
        )
        self.psnr = PeakSignalNoiseRatio(data_range=1.0)
        self.ssim = SSIM(data_range=1.0, size_average=True, channel=3)
        self.lpips = LazyLpips()
        self.step = 0
        self.info: dict[str, Any] = {}
        self.pairs_per_pixel: Optional[float] = None
        """Gaussians that each pixel of the last picture was composed of, where that is known; what a step costs."""
        self.learns_geometry = True
        """Whether a training step moves Gaussians, or their colours alone."""
        self.crop_box = None
        self.set_behind(None if config.background_color in ("auto", "random") else get_color(config.background_color))
        if config.use_bilateral_grid:
            x, y, w = config.grid_shape
            self.bil_grids = BilateralGrid(num=self.num_train_data, grid_X=x, grid_Y=y, grid_W=w)
        self.fit_schedule(SCHEDULE_STEPS, [])

    def seed(
        self,
        means: Float[Tensor, "gaussians 3"],
        colors: Float[Tensor, "colours 3"],
        scales: Optional[Float[Tensor, "gaussians 1"]] = None,
    ) -> None:
        """Begins with Gaussians at some places; parameters are new, so that no optimizer may know the old ones.

        Args:
            means: Places, in world units.
            colors: Colours from 0 to 255, one a place. None at all: random ones.
            scales: Standard deviations, in world units. None: mean distances to the three nearest places.
        """
        degree, count, device = self.config.sh_degree, len(means), means.device
        scales = initial_scales(means) if scales is None else scales
        if len(colors):
            share = colors.to(device).float() / 255
            features_dc = RGB2SH(share) if degree > 0 else torch.logit(share, eps=1 / 510)
        else:
            features_dc = torch.rand(count, 3, device=device)
        values = {
            "means": means.float(),
            "scales": scales.log().expand(-1, 3),
            "quats": random_quat_tensor(count).to(device),
            "features_dc": features_dc,
            "features_rest": torch.zeros((count, num_sh_bases(degree) - 1, 3), device=device),
            "opacities": torch.logit(torch.full((count, 1), FIRST_OPACITY, device=device)),
        }
        for name, value in values.items():
            self.gauss_params[name] = nn.Parameter(value.contiguous().clone())

    def set_behind(self, color: Optional[Float[Tensor, "3"]]) -> None:
        """Says what lies behind the Gaussians.

        Args:
            color: The colour; None: another one at every training step, and in evaluation that of the host's viewer.
        """
        self._random_behind = color is None
        self.behind: Float[Tensor, "3"] = VIEWER_BACKGROUND if color is None else color.float()
        """What lies behind in evaluation; the viewer, and only it, may show another colour."""
        self.background_color = self.behind

    def _get_background_color(self) -> Float[Tensor, "3"]:
        if not self.training:
            return self.background_color.to(self.device)
        return torch.rand(3, device=self.device) if self._random_behind else self.behind.to(self.device)

    @property
    def gaussians(self) -> Gaussians:
        """The parameters, in their graph."""
        return Gaussians.of(dict(self.gauss_params.items()))

    @property
    def rasterizer(self) -> Rasterizer:
        """What renders on the model's device.

        Raises:
            ValueError: If the one that is asked for cannot; says why.
        """
        return rasterizer_for(self.config.rasterizer, self.device)

    @property
    def running(self) -> dict[str, Tensor]:
        """What the densification keeps of each Gaussian, where it has seen any."""
        found = {name: self.strategy_state.get(name) for name in RUNNING}
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    def fit_schedule(self, num_iterations: int, sides: Sequence[int]) -> None:
        """Scales what goes by the step to the length of the run, and begins the densification's notes anew.

        Where Gaussians were removed already, growth is over: it would refill what was cut.

        Args:
            num_iterations: Training steps of the run.
            sides: Smaller side of each training picture, in pixels.
        """
        config = self.config
        length = config.schedule_steps
        factor = 1.0 if length is None else num_iterations / length
        self.growth: Growth = growth_of(config, factor, self.num_train_data)
        if self.prune_state.succeeded:
            self.growth = replace(self.growth, stop=0)
        self._downscales = coarsest(config.num_downscales, sides) if sides else config.num_downscales
        self.strategy = DefaultStrategy(
            prune_opa=config.cull_alpha_thresh,
            grow_grad2d=config.densify_grad_thresh,
            grow_scale3d=config.densify_size_thresh,
            grow_scale2d=config.split_screen_size,
            prune_scale3d=config.cull_scale_thresh,
            prune_scale2d=config.cull_screen_size,
            refine_scale2d_stop_iter=self.growth.screen_stop,
            refine_start_iter=self.growth.start,
            refine_stop_iter=self.growth.stop,
            reset_every=self.growth.reset_every,
            refine_every=self.growth.every,
            pause_refine_after_reset=self.growth.pause,
            absgrad=config.use_absgrad,
            revised_opacity=False,
            verbose=False,
        )
        self.strategy_state = self.strategy.initialize_state(scene_scale=1.0)

    def step_cb(self, optimizers: Optimizers, step: int) -> None:
        """Notes the step and the optimizers, before it."""
        super().step_cb(optimizers, step)
        self._parameter_lists = optimizers.parameters

    def step_post_backward(self, step: int) -> None:
        """Densifies, after a step. The host's second list of parameters, which it clips over, follows."""
        super().step_post_backward(step)
        sync_lists(self.optimizers, self._parameter_lists)

    def active_sh_degree(self) -> int:
        """Degree of the spherical harmonics that counts at the present step."""
        return min(self.step // self.growth.degree_every, self.gaussians.sh_degree)

    def _get_downscale_factor(self) -> int:
        if not self.training:
            return 1
        return 2 ** max(self._downscales - self.step // self.growth.resolution_every, 0)

    def render(
        self,
        gaussians: Gaussians,
        camera: Cameras,
        pose: Optional[Float[Tensor, "3 4"]] = None,
        depth: bool = False,
        colors: Optional[Float[Tensor, "gaussians channels"]] = None,
    ) -> Rendering:
        """Renders Gaussians as this model does.

        Args:
            gaussians: Those of the model, or others.
            camera: A single camera.
            pose: Its pose, where that is not the camera's own.
            depth: Whether to render the depth.
            colors: Colours in place of their own.
        """
        if colors is None and self.config.sh_degree == 0:
            colors = torch.sigmoid(gaussians.features_dc)
        return self.rasterizer.render(
            gaussians,
            view_of(camera, pose),
            min(self.active_sh_degree(), gaussians.sh_degree),
            antialiased=self.config.rasterize_mode == "antialiased",
            depth=depth,
            absgrad=self.training and self.strategy.absgrad,
            colors=colors,
        )

    def in_harmonics(self, gaussians: Gaussians) -> Gaussians:
        """The same Gaussians with the coefficients of spherical harmonics as `features_dc`, for whoever renders without
        this model. In a model that never had any, these are logits of colours, as in the host.

        Args:
            gaussians: Those of the model, or some of them.
        """
        if self.config.sh_degree > 0:
            return gaussians
        return replace(gaussians, features_dc=RGB2SH(torch.sigmoid(gaussians.features_dc)))

    def from_harmonics(self, gaussians: Gaussians) -> Gaussians:
        """Gaussians with coefficients of spherical harmonics as `features_dc` as this model takes them; undoes
        `in_harmonics`.

        Args:
            gaussians: Those of a file, for example.
        """
        if self.config.sh_degree > 0:
            return gaussians
        shares = SH2RGB(gaussians.features_dc)
        return replace(gaussians, features_dc=torch.logit(shares, eps=1 / 510))

    def get_outputs(self, camera: Cameras) -> dict[str, Any]:  # type: ignore[override]
        """Renders a camera, as the host does.

        Args:
            camera: A single camera.

        Returns:
            `rgb` [height, width, 3], `accumulation` and `depth` [height, width, 1] (depth None in training, unless it
            is asked for), and `background`.
        """
        pose = self.camera_optimizer.apply_to_camera(camera)[0] if self.training else None
        factor = self._get_downscale_factor()
        if factor > 1:
            camera = copy(camera)
            camera.rescale_output_resolution(1 / factor)
        gaussians = self.gaussians
        if self.training and not self.learns_geometry:
            still = {name: getattr(gaussians, name).detach() for name in ("means", "scales", "quats", "opacities")}
            gaussians = replace(gaussians, **still)
        if self.crop_box is not None and not self.training:
            inside = self.crop_box.within(self.means).reshape(-1).nonzero()[:, 0]
            if len(inside) == 0:
                size = int(camera.width.item()), int(camera.height.item())
                return self.get_empty_outputs(*size, self.background_color.to(self.device))
            gaussians = gaussians.select(inside)
        depth = self.config.output_depth_during_training or not self.training
        rendering = self.render(gaussians, camera, pose, depth)
        height, width = rendering.colors.shape[:2]
        self.last_size = (height, width)
        self.pairs_per_pixel = None if rendering.pairs is None else rendering.pairs / (height * width)
        if self.training and self.step < self.strategy.refine_stop_iter:
            self.info = rendering.strategy_info()
            self.strategy.step_pre_backward(
                self.gauss_params, self.optimizers, self.strategy_state, self.step, self.info
            )
        background = self._get_background_color()
        rgb = (rendering.colors + (1 - rendering.alphas) * background).clamp(0, 1)
        cam_idx = (camera.metadata or {}).get("cam_idx")
        if self.config.use_bilateral_grid and self.training and cam_idx is not None:
            rgb = self._apply_bilateral_grid(rgb[None], cam_idx, height, width)[0]
        depths = rendering.depths
        if depths is not None:
            depths = torch.where(rendering.alphas > 0, depths, depths.detach().max())
        return {
            "rgb": rgb,
            "depth": depths,
            "accumulation": rendering.alphas,
            "background": background if self.training else background.expand(height, width, 3),
        }

    def get_rgba_image(self, outputs: dict[str, Tensor], output_name: str = "rgb") -> Float[Tensor, "height width 4"]:
        """Colour without the background, and the accumulation as alpha.

        Not the host's: it asks for the renderer of a radiance field, which Gaussians have not.

        Args:
            outputs: Outputs of the model.
            output_name: Which of them is the picture.
        """
        alpha = outputs["accumulation"]
        rgb = (outputs[output_name] - outputs["background"] * (1 - alpha)) / alpha.clamp_min(1e-10)
        return torch.cat([rgb.clamp(0, 1), alpha], dim=-1)

    def get_metrics_dict(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        """PSNR of a training view over the pixels that count, in dB, and how many Gaussians there are."""
        truth = self.composite_with_background(self.get_gt_img(batch["image"]), outputs["background"])
        rgb = outputs["rgb"]
        pixels = self._pixels(batch, rgb)
        seen, true = (x if pixels is None else x[pixels] for x in (rgb.detach(), truth))
        metrics: dict[str, Any] = {"psnr": self.psnr(seen, true), "gaussian_count": self.num_points}
        if self.config.color_corrected_metrics:
            metrics["cc_psnr"] = self.psnr(color_correct(seen, true), true)
        self.camera_optimizer.get_metrics_dict(metrics)
        return metrics

    def get_image_metrics_and_images(
        self, outputs: dict[str, Tensor], batch: dict[str, Tensor]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Metrics and picture of a view: PSNR and SSIM over the pixels that count, LPIPS only where it can be had."""
        truth = self.composite_with_background(self.get_gt_img(batch["image"]), outputs["background"])
        rgb = outputs["rgb"]
        pixels = self._pixels(batch, rgb)
        metrics = self._quality(truth, rgb, pixels)
        if self.config.color_corrected_metrics:
            corrected = rgb.clone()
            where = slice(None) if pixels is None else pixels
            corrected[where] = color_correct(rgb[where], truth[where])
            metrics.update({f"cc_{name}": value for name, value in self._quality(truth, corrected, pixels).items()})
        return metrics, {"img": torch.cat([truth, rgb], dim=1)}

    def _quality(self, truth: Tensor, rgb: Tensor, pixels: Optional[Tensor]) -> dict[str, float]:
        """Metrics of a rendered picture over the pixels that count."""
        true, seen = (x.moveaxis(-1, 0)[None] for x in (truth, masked(rgb, truth, pixels)))
        metrics = {
            "psnr": float(self.psnr(counted(seen, pixels), counted(true, pixels))),
            "ssim": float(self.ssim(true, seen)) if pixels is None else ssim(true, seen, pixels),
        }
        lpips = self.lpips(true, seen)
        if lpips is not None:
            metrics["lpips"] = lpips
        return metrics

    def _pixels(self, batch: Mapping[str, Any], rgb: Tensor) -> Optional[Tensor]:
        """The pixels that count, at the size of a rendered picture; None where all do."""
        if "mask" not in batch:
            return None
        if batch["mask"].shape[:2] == rgb.shape[:2]:
            return counted_pixels(dict(batch)).to(rgb.device)
        return self._downscale_if_required(batch["mask"]).to(rgb.device)[..., 0] > 0.5

    def with_gaussians(self, gaussians: Gaussians) -> "SplatPruneModel":
        """A model of other Gaussians for rendering, in evaluation mode, that no optimizer knows.

        Args:
            gaussians: Any number, of any degree.
        """
        other = copy(self)
        params = nn.ParameterDict({name: nn.Parameter(value.detach(), False) for name, value in gaussians.items()})
        other._modules = {**self._modules, "gauss_params": params}
        other._parameters = {"device_indicator_param": nn.Parameter(gaussians.means.new_empty(0), False)}
        other.crop_box, other.training = None, False
        return other

    def get_extra_state(self) -> dict[str, Any]:
        """Pruning state for the checkpoint: plain numbers, strings and tensors."""
        return self.prune_state.to_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes up the pruning state of a checkpoint."""
        self.prune_state = PruneState.from_dict(state)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:  # type: ignore[override]
        """Loads a checkpoint of any number of Gaussians and any degree, of this method or of the stock `splatfacto`.

        The host makes new parameters here, which its optimizers never hear of (nerfstudio issue 3554); these keep their
        identity.

        Raises:
            ValueError: If the checkpoint does not fit; nothing is changed then. Not a RuntimeError, which the host
                would swallow.
        """
        fitting = fit_to_checkpoint(self, state_dict)
        # The host's own override would replace the parameters.
        result = super(SplatfactoModel, self).load_state_dict(fitting, strict=True, assign=False)
        self.step = LOADED_STEP
        self.strategy_state = self.strategy.initialize_state(scene_scale=1.0)
        return result
