"""Which room may import which; docs/design.md shows the same."""

_BELOW_NERF = ("core", "scenes", "data", "neurons", "engine", "records", "viewer", "report")
_UP_TO_NERF = (*_BELOW_NERF, "nerf")
LAYERS: dict[str, tuple[str, ...]] = {
    "core": (),
    "scenes": (),
    "data": (),
    "neurons": ("core",),
    "engine": ("core",),
    "records": ("core",),
    "viewer": ("core", "engine"),
    "report": ("core", "records"),
    "nerf": ("core", "scenes", "data", "neurons", "engine", "viewer"),
    "method": ("nerf",),
    "method_configs": ("scenes", "data", "engine", "nerf"),
    "inspect": _UP_TO_NERF,
    "bench": _UP_TO_NERF,
    "demo": (*_UP_TO_NERF, "method", "method_configs", "inspect", "bench"),
    "cli": (*_UP_TO_NERF, "method", "method_configs", "inspect", "bench", "demo"),
}
"""Room -> rooms that its modules may import, lowest first. A room is a folder or a single module of the package."""
