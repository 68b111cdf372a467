"""Choosing, removing, merging and distilling Gaussians. Torch only: no Nerfstudio."""
