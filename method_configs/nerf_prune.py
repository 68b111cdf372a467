"""The methods `nerf-prune`, `nerf-prune-demo` and `nerf-prune-real`."""

from typing import Any, Optional

from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManagerConfig
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.engine.optimizers import RAdamOptimizerConfig
from nerfstudio.plugins.types import MethodSpecification

from nerfstudio_prune.data.datamanager import CheckedDataManager
from nerfstudio_prune.engine.host import default_machine, local_viewer
from nerfstudio_prune.engine.schedulers import RunDecaySchedulerConfig
from nerfstudio_prune.engine.trainer import PruneTrainerConfig
from nerfstudio_prune.nerf.config import PruneConfig
from nerfstudio_prune.nerf.model import PruneModelConfig
from nerfstudio_prune.nerf.pipeline import PrunePipelineConfig
from nerfstudio_prune.scenes.demo_dataparser import DemoDataParserConfig


def optimizers(lr: float, lr_final: Optional[float] = None) -> dict[str, Any]:
    """Optimizers of all parameters that a method may have.

    Args:
        lr: Learning rate at the beginning.
        lr_final: Learning rate at the end. None: the scheduler's default.
    """
    return {
        name: {
            "optimizer": RAdamOptimizerConfig(lr=lr, eps=1e-8),
            "scheduler": RunDecaySchedulerConfig(lr_final=lr_final),
        }
        for name in ("fields", "temporal_distortion")
    }


nerf_prune = MethodSpecification(
    config=PruneTrainerConfig(
        method_name="nerf-prune",
        machine=default_machine(),
        max_num_iterations=100_000,
        vis="viewer+tensorboard",
        viewer=local_viewer(),
        pipeline=PrunePipelineConfig(
            datamanager=VanillaDataManagerConfig(_target=CheckedDataManager, dataparser=BlenderDataParserConfig()),
            model=PruneModelConfig(),
        ),
        optimizers=optimizers(lr=5e-4),
    ),
    description="Vanilla NeRF that is pruned while it trains.",
)

nerf_prune_demo = MethodSpecification(
    config=PruneTrainerConfig(
        method_name="nerf-prune-demo",
        machine=default_machine(),
        max_num_iterations=4000,
        steps_per_save=1000,
        steps_per_eval_batch=100,
        steps_per_eval_image=1000,
        vis="tensorboard",
        viewer=local_viewer(),
        pipeline=PrunePipelineConfig(
            datamanager=VanillaDataManagerConfig(
                _target=CheckedDataManager,
                dataparser=DemoDataParserConfig(),
                train_num_rays_per_batch=512,
                eval_num_rays_per_batch=256,
            ),
            model=PruneModelConfig(
                base_mlp_num_layers=4,
                base_mlp_layer_width=96,
                head_mlp_layer_width=48,
                skip_connections=(),
                num_coarse_samples=32,
                num_importance_samples=32,
                # Periods of four pixels; finer ones make this short training slower.
                position_max_freq_exp=3.0,
                # Steps are twice as long as those of 64 samples.
                alpha_thre=0.01,
                occupancy_warm_up_steps=60,
                occupancy_update_interval=300,
            ),
            prune=PruneConfig(start_step=700, schedule="one-shot"),
        ),
        optimizers=optimizers(lr=2e-2, lr_final=4e-4),
    ),
    description="Small nerf-prune on the built-in scene, for CPUs and for seeing pruning happen.",
)

nerf_prune_real = MethodSpecification(
    config=PruneTrainerConfig(
        method_name="nerf-prune-real",
        machine=default_machine(),
        max_num_iterations=100_000,
        vis="viewer+tensorboard",
        viewer=local_viewer(),
        pipeline=PrunePipelineConfig(
            datamanager=VanillaDataManagerConfig(_target=CheckedDataManager, dataparser=NerfstudioDataParserConfig()),
            model=PruneModelConfig(
                use_scene_contraction=True,
                coarse_sampler="piecewise",
                collider_params={"near_plane": 0.05, "far_plane": 1000.0},
                background_color="last_sample",
                skip_empty_space=False,
            ),
        ),
        optimizers=optimizers(lr=5e-4),
    ),
    description="nerf-prune for photographs taken by hand: unbounded scenes.",
)
