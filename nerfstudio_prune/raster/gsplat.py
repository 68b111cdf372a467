"""Renders Gaussians on CUDA, by gsplat 1.4 (Ye et al., arXiv 2409.06765)."""


class GsplatRasterizer:
    """Comes."""

    name = "gsplat"

    def __init__(self) -> None:
        raise ValueError("rasterizer gsplat is not ready")
