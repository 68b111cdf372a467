"""What the tests of Gaussians share."""

import pytest
from support.brute_splats import BruteRasterizer


@pytest.fixture
def rasterizer() -> BruteRasterizer:
    """Every Gaussian at every pixel."""
    return BruteRasterizer()
