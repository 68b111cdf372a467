"""`ns-prune convert`: Gaussians from one kind of file to another. No Nerfstudio."""
