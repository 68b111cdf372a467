"""The method `kilonerf`."""

from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManagerConfig
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.engine.optimizers import AdamOptimizerConfig
from nerfstudio.plugins.types import MethodSpecification

from nerfstudio_prune.data.datamanager import CheckedDataManager
from nerfstudio_prune.engine.host import default_machine, local_viewer
from nerfstudio_prune.engine.trainer import PruneTrainerConfig
from nerfstudio_prune.kilo.config import EPS, LR
from nerfstudio_prune.kilo.pipeline import GROUP, KiloPipelineConfig

kilonerf = MethodSpecification(
    config=PruneTrainerConfig(
        method_name="kilonerf",
        machine=default_machine(),
        # A run ends with its phases; fewer iterations end it before.
        max_num_iterations=1_000_000,
        steps_per_save=500,
        steps_per_eval_batch=500,
        steps_per_eval_image=500,
        vis="viewer+tensorboard",
        viewer=local_viewer(),
        pipeline=KiloPipelineConfig(
            datamanager=VanillaDataManagerConfig(_target=CheckedDataManager, dataparser=BlenderDataParserConfig())
        ),
        optimizers={GROUP: {"optimizer": AdamOptimizerConfig(lr=LR, eps=EPS), "scheduler": None}},
    ),
    description="A grid of tiny networks from a trained nerf-prune or vanilla-nerf, for fast pictures.",
)
