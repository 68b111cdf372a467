"""The methods `splat-prune`, `splat-prune-big` and `splat-prune-demo`."""

from dataclasses import replace
from typing import Any

from nerfstudio.data.datamanagers.full_images_datamanager import FullImageDatamanagerConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.plugins.types import MethodSpecification

from nerfstudio_prune.data.image_datamanager import CheckedImageDataManager
from nerfstudio_prune.engine.host import default_machine, local_viewer
from nerfstudio_prune.engine.optimizers import RunAdamOptimizerConfig
from nerfstudio_prune.engine.schedulers import RunDecaySchedulerConfig
from nerfstudio_prune.engine.trainer import PruneTrainerConfig
from nerfstudio_prune.scenes.demo_dataparser import DemoDataParserConfig
from nerfstudio_prune.splats.growth import SCHEDULE_STEPS
from nerfstudio_prune.splats.model import SplatPruneModelConfig
from nerfstudio_prune.splats.pipeline import SplatPrunePipelineConfig


def optimizers(bilateral_grid: float) -> dict[str, Any]:
    """Splatfacto's optimizers. Rates that decay do so to the end of the run. Those of places, shapes and colours begin
    higher where it is shorter, for each step has to do more, and end where splatfacto's do.

    Args:
        bilateral_grid: Rate of the grid that takes up differences between photographs.
    """
    rates = {
        "means": (1.6e-4, 1.6e-6),
        "features_dc": (0.0025, None),
        "features_rest": (0.0025 / 20, None),
        "opacities": (0.05, None),
        "scales": (0.005, None),
        "quats": (0.001, None),
        "camera_opt": (1e-4, 5e-7),
        "bilateral_grid": (bilateral_grid, 1e-4),
    }
    late = ("camera_opt", "bilateral_grid")  # what takes up errors must not do so before there is a scene
    short = ("means", "features_dc", "features_rest", "scales", "quats")
    return {
        name: {
            "optimizer": RunAdamOptimizerConfig(lr=lr, eps=1e-15, rate_steps=SCHEDULE_STEPS if name in short else None),
            "scheduler": RunDecaySchedulerConfig(
                lr_final=lr if last is None else last,
                warmup_steps=1000 if name in late else 0,
                warmup_run=SCHEDULE_STEPS if name in late else None,
            ),
        }
        for name, (lr, last) in rates.items()
    }


def pictures(dataparser: Any) -> FullImageDatamanagerConfig:
    """A data manager of whole pictures.

    Args:
        dataparser: Configuration of the data set's parser.
    """
    return FullImageDatamanagerConfig(_target=CheckedImageDataManager, dataparser=dataparser, cache_images_type="uint8")


def splats(name: str, model: SplatPruneModelConfig, bilateral_grid: float = 2e-3) -> PruneTrainerConfig:
    """A method with splatfacto's settings.

    Args:
        name: Name of the method.
        model: What it trains.
        bilateral_grid: See `optimizers`.
    """
    return PruneTrainerConfig(
        method_name=name,
        machine=default_machine(),
        steps_per_eval_image=100,
        steps_per_eval_batch=0,
        steps_per_save=2000,
        steps_per_eval_all_images=1000,
        max_num_iterations=30_000,
        mixed_precision=False,
        vis="viewer+tensorboard",
        viewer=local_viewer(num_rays_per_chunk=1 << 15),
        pipeline=SplatPrunePipelineConfig(
            datamanager=pictures(NerfstudioDataParserConfig(load_3D_points=True)), model=model
        ),
        optimizers=optimizers(bilateral_grid),
    )


splat_prune = MethodSpecification(
    config=splats("splat-prune", SplatPruneModelConfig()),
    description="Gaussians that are pruned while they train: splatfacto with and without a GPU.",
)

splat_prune_big = MethodSpecification(
    config=splats("splat-prune-big", SplatPruneModelConfig(cull_alpha_thresh=0.005, densify_grad_thresh=0.0005), 5e-3),
    description="splat-prune with more Gaussians, as splatfacto-big.",
)

splat_prune_demo = MethodSpecification(
    config=replace(
        splats("splat-prune-demo", SplatPruneModelConfig(background_color="white")),
        max_num_iterations=1500,
        steps_per_eval_image=500,
        steps_per_eval_all_images=10**9,
        steps_per_save=500,
        vis="tensorboard",
    ),
    description="Small splat-prune on the built-in scene, for CPUs and for seeing pruning happen.",
)
splat_prune_demo.config.pipeline.datamanager = pictures(
    DemoDataParserConfig(image_size=200, num_train_views=50, num_val_views=3, num_test_views=3)
)
