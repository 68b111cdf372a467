"""Saved runs of Gaussians in Nerfstudio's own commands, and what their configuration is read by."""

import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from nerfstudio.utils.eval_utils import eval_setup
from plyfile import PlyData
from support.tiny_splats import counts, pictures, train

from nerfstudio_prune.engine.config_file import read_config_file
from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.splats.pipeline import SplatPrunePipeline

Config = Callable[..., Any]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, scene_cache: Path) -> dict[int, Any]:
    """Degree of the spherical harmonics -> a finished run that was pruned to it."""
    from support.tiny_splats import tiny_config as make

    folder = tmp_path_factory.mktemp("trained")
    return {
        degree: train(make(folder, scene_cache, f"degree{degree}", sh_degree=degree, start_step=10, sh_step=11))
        for degree in (3, 2, 0)
    }
