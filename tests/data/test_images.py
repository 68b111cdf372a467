"""Pictures show what was rendered, value by value."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from nerfstudio_prune.data.images import save_image, to_uint8


def test_bytes_of_colours() -> None:
    """Overshoot is cut off and halves are rounded, not cut, so that 0.999 is white."""
    assert to_uint8(torch.tensor([-0.5, 0.0, 0.5, 0.999, 1.7])).tolist() == [0, 0, 128, 255, 255]


def test_saved_picture(tmp_path: Path) -> None:
    """Pictures of two runs are compared pixel by pixel: rows stay rows, and no value is compressed away."""
    image = torch.arange(18).reshape(2, 3, 3) / 255
    save_image(image, tmp_path / "new" / "picture.png")
    with Image.open(tmp_path / "new" / "picture.png") as picture:
        assert picture.format == "PNG" and np.asarray(picture).tolist() == np.arange(18).reshape(2, 3, 3).tolist()
