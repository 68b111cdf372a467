"""The methods `kilonerf`, `kilonerf-real` and `kilonerf-demo`."""

from typing import Any

from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManagerConfig
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.engine.optimizers import AdamOptimizerConfig
from nerfstudio.plugins.types import MethodSpecification

from nerfstudio_prune.data.datamanager import CheckedDataManager
from nerfstudio_prune.engine.host import default_machine, local_viewer
from nerfstudio_prune.engine.trainer import PruneTrainerConfig
from nerfstudio_prune.kilo.config import EPS, OPTIMIZER_LR
from nerfstudio_prune.kilo.pipeline import GROUP, KiloPipelineConfig
from nerfstudio_prune.scenes.demo_dataparser import DemoDataParserConfig


def trainer(method_name: str, dataparser: Any, vis: Any, **pipeline: Any) -> PruneTrainerConfig:
    """Configuration of a method.

    Args:
        method_name: Its name.
        dataparser: Parser of its data.
        vis: How it is watched.
        **pipeline: Options of the pipeline.
    """
    return PruneTrainerConfig(
        method_name=method_name,
        machine=default_machine(),
        # A run ends with its phases; fewer iterations end it before.
        max_num_iterations=1_000_000,
        steps_per_save=500,
        steps_per_eval_batch=500,
        steps_per_eval_image=500,
        vis=vis,
        viewer=local_viewer(),
        pipeline=KiloPipelineConfig(
            datamanager=VanillaDataManagerConfig(_target=CheckedDataManager, dataparser=dataparser), **pipeline
        ),
        optimizers={GROUP: {"optimizer": AdamOptimizerConfig(lr=OPTIMIZER_LR, eps=EPS), "scheduler": None}},
    )


kilonerf = MethodSpecification(
    config=trainer("kilonerf", BlenderDataParserConfig(), "viewer+tensorboard"),
    description="A grid of tiny networks from a trained nerf-prune or vanilla-nerf, for fast pictures.",
)

kilonerf_real = MethodSpecification(
    config=trainer("kilonerf-real", NerfstudioDataParserConfig(), "viewer+tensorboard"),
    description="kilonerf for photographs taken by hand, from a trained nerf-prune-real: unbounded scenes.",
)

kilonerf_demo = MethodSpecification(
    config=trainer("kilonerf-demo", DemoDataParserConfig(), "tensorboard", own_teacher_steps=1500),
    description="kilonerf on the built-in scene, of a small teacher that it trains first; for CPUs and first looks.",
)
