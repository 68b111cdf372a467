"""The machine that a method trains on by default."""

import torch
from nerfstudio.configs.base_config import MachineConfig


def default_machine() -> MachineConfig:
    """The first GPU if there is one, else the CPU, so that no option is needed on machines without a GPU."""
    return MachineConfig(device_type="cuda" if torch.cuda.is_available() else "cpu")
