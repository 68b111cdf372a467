"""A run's network as one small file: rounded, written, read with care, and rendered without Nerfstudio."""
