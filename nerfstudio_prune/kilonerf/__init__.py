"""A field as a grid of tiny networks, one for each part of space. Torch only: no Nerfstudio."""
