"""Gaussians as files: the project's own small one, and those of other programs. Torch and numpy only: no Nerfstudio."""
