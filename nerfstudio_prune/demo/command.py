"""`ns-prune demo`: trains the built-in scene, prunes it in mid-training, and shows what was gained and what it cost."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Optional

import tyro


@dataclass
class Demo:
    """Train the built-in scene, prune it in mid-training, evaluate, and print what was gained."""

    what: Annotated[Literal["splats", "neurons"], tyro.conf.Positional] = "splats"
    """What is pruned: splats (Gaussians, method splat-prune-demo), or neurons (method nerf-prune-demo)."""
    output_dir: Path = Path("outputs")
    """Where the run is saved."""
    max_num_iterations: Optional[int] = None
    """Training steps. None: as in the method. The cut comes after the same share of them."""
    image_size: Optional[int] = None
    """Height and width of the scene's views, in pixels. None: as in the method."""
    num_test_views: int = 3
    """Views that PSNR and SSIM are averaged over."""
    view: int = 0
    """Test view that is shown."""

    def main(self) -> None:
        """Runs the demo.

        Raises:
            ValueError: If an option is out of range.
        """
        if not 0 <= self.view < self.num_test_views:
            raise ValueError(f"view must be in [0, {self.num_test_views - 1}], got {self.view}")
        if self.max_num_iterations is not None and self.max_num_iterations < 4:
            raise ValueError(f"max_num_iterations must be at least 4, got {self.max_num_iterations}")
        # It imports the whole of Nerfstudio, and `ns-prune --help` needs none of it.
        from nerfstudio_prune.demo.demonstration import Demonstration  # noqa: PLC0415

        Demonstration(self).run()
