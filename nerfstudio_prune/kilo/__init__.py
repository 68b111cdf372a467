"""KiloNeRF as a method of the host: tiny networks from a trained field, in one run. Knows `kilonerf` and `nerf`."""
