"""Rendered images as bytes and as files."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image


def to_uint8(image: torch.Tensor) -> np.ndarray:
    """Image with values in [0, 1], of any shape, as bytes on the CPU; what lies outside is cut off."""
    return (image.clamp(0, 1) * 255).round().byte().cpu().numpy()


def save_image(image: torch.Tensor, path: Path) -> None:
    """Saves an image [height, width, 3] with values in [0, 1] as PNG; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(to_uint8(image)).save(path)
