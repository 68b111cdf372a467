"""Which room may import which; docs/design.md shows the same."""

_TENSORS = ("raster", "gaussians", "splat_files", "neurons", "occupancy", "kilonerf")
_BELOW_METHODS = ("core", "scenes", "exchange", "data", *_TENSORS, "engine", "records", "viewer", "report")
_UP_TO_METHODS = (*_BELOW_METHODS, "nerf", "splats", "kilo")
LAYERS: dict[str, tuple[str, ...]] = {
    "core": (),
    "scenes": (),
    "exchange": (),
    "data": (),
    "neurons": ("core",),
    "raster": ("core",),
    "gaussians": ("core", "raster"),
    "splat_files": ("core", "exchange", "raster"),
    "occupancy": ("core",),
    "kilonerf": ("core", "occupancy"),
    "engine": ("core",),
    "records": ("core",),
    "viewer": ("core", "engine"),
    "report": ("core", "records"),
    "nerf": ("core", "scenes", "data", "neurons", "occupancy", "engine", "viewer"),
    "splats": ("core", "scenes", "data", "raster", "gaussians", "splat_files", "engine", "viewer"),
    "kilo": ("core", "data", "occupancy", "kilonerf", "engine", "viewer", "nerf"),
    "method": ("nerf",),
    "method_configs": ("scenes", "data", "engine", "nerf", "splats", "kilo"),
    "export": ("core", "exchange", "data", "neurons", "occupancy", "kilonerf", "engine", "nerf", "kilo"),
    "convert": ("core", "exchange", "raster", "splat_files"),
    "apply": _UP_TO_METHODS,
    "opening": ("core", "exchange", "data", "kilonerf", "engine", "nerf", "kilo", "export"),
    "pack": ("core", "exchange", "data", "raster", "gaussians", "splat_files", "engine", "splats"),
    "inspect": _UP_TO_METHODS,
    "bench": (*_UP_TO_METHODS, "export", "pack"),
    "demo": (*_UP_TO_METHODS, "method", "method_configs", "inspect", "bench"),
    "cli": (
        *_UP_TO_METHODS,
        "method",
        "method_configs",
        "export",
        "convert",
        "apply",
        "pack",
        "opening",
        "inspect",
        "bench",
        "demo",
    ),
}
"""Room -> rooms that its modules may import, lowest first. A room is a folder or a single module of the package."""
