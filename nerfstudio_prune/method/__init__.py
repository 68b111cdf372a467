"""Where classes that stand in a run's `config.yml` were looked for in earlier versions.

A `config.yml` names classes by module path. Those that stand in one today have their home in the modules on the right
for good; `yaml` finds an old path here.
"""

import sys
from importlib import import_module

HOMES = {
    "config": "nerfstudio_prune.nerf.config",
    "model": "nerfstudio_prune.nerf.model",
    "pipeline": "nerfstudio_prune.nerf.pipeline",
    "teacher_config": "nerfstudio_prune.nerf.teacher.config",
}
"""Former module of this package -> module that has its classes now."""

for _former, _home in HOMES.items():
    sys.modules[f"{__name__}.{_former}"] = import_module(_home)
