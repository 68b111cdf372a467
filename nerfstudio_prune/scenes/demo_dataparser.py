"""The `demo-data` dataparser: renders the demo scene into a cache folder on first use and reads it from there."""

import hashlib
import json
import os
import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

import numpy as np
from filelock import FileLock, Timeout
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.plugins.registry_dataparser import DataParserSpecification
from nerfstudio.utils.colors import COLORS_DICT
from nerfstudio.utils.io import load_from_json, write_to_json
from nerfstudio.utils.rich_utils import CONSOLE, get_progress
from PIL import Image
from rich.markup import escape

from nerfstudio_prune.scenes.demo_scene import FIELD_OF_VIEW, SCENE_VERSION, camera_poses, render_view

SPLITS = ("train", "val", "test")
TEMPORARY = ".rendering-"
"""How the names of temporary folders begin."""
LOCK = "lock"
"""File in a temporary folder that is locked as long as its process lives."""


def default_cache_folder() -> Path:
    """Folder of the demo scene below the user's cache folder; never fails, since it is called at import."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not cache.is_absolute():
        try:
            cache = Path.home() / ".cache"
        except RuntimeError:
            cache = Path(tempfile.gettempdir())
    return cache / "nerfstudio-prune" / "demo-data"


MAX_PIXELS = 10**9
"""Of all views together; a data manager holds them in memory, twelve bytes each."""


@dataclass
class DemoDataParserConfig(DataParserConfig):
    """Demo scene parser config"""

    _target: type = field(default_factory=lambda: DemoDataParser)
    """target class to instantiate"""
    data: Path = field(default_factory=default_cache_folder)
    """Cache folder. Each combination of the options below is rendered once, into a sub-folder of it."""
    image_size: int = 100
    """Width and height of the images in pixels, 8 to 2,048."""
    num_train_views: int = 60
    """Number of training images."""
    num_val_views: int = 8
    """Number of validation images."""
    num_test_views: int = 8
    """Number of test images."""
    seed: int = 0
    """Seed of the camera positions, 0 or more."""
    supersampling: int = 3
    """Rays along each side of a pixel, averaged against aliasing; 1 to 8."""
    alpha_color: Optional[str] = "white"
    """Color of the background, by name. When set to None, images keep their alpha channel."""


def _check_options(config: DemoDataParserConfig) -> None:
    """Raise a ValueError that names the first option with a value out of range."""
    ranges = {"image_size": (8, 2048), "seed": (0, 2**63 - 1), "supersampling": (1, 8)}
    ranges |= {f"num_{split}_views": (1, 10_000) for split in SPLITS}
    for name, (least, most) in ranges.items():
        value = getattr(config, name)
        if type(value) is not int or not least <= value <= most:
            label = f"demo-data: --{name.replace('_', '-')}"
            raise ValueError(f"{label} is {value!r:.40}, expected a whole number in [{least}, {most}].")
    pixels = config.image_size**2 * sum(getattr(config, f"num_{split}_views") for split in SPLITS)
    if pixels > MAX_PIXELS:
        raise ValueError(
            f"demo-data: --image-size {config.image_size} with that many views makes {pixels:,} pixels, expected at "
            f"most {MAX_PIXELS:,}."
        )
    if config.alpha_color is not None and config.alpha_color.lower() not in COLORS_DICT:
        names = ", ".join(COLORS_DICT)
        raise ValueError(f"demo-data: --alpha-color is {config.alpha_color!r}, expected None or one of {names}.")


def scene_folder(config: DemoDataParserConfig) -> Path:
    """Sub-folder of the cache folder for the options of `config` that change the images or the cameras."""
    settings = {
        "version": SCENE_VERSION,
        "image_size": config.image_size,
        "views": [config.num_train_views, config.num_val_views, config.num_test_views],
        "seed": config.seed,
        "supersampling": config.supersampling,
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    views = "-".join(str(count) for count in settings["views"])
    return config.data / f"{config.image_size}px-{views}views-seed{config.seed}-{digest}"


def _find_damage(folder: Path, config: DemoDataParserConfig) -> Optional[str]:
    """What is wrong with a scene in the cache, None if it is complete."""
    for split in SPLITS:
        transforms = folder / f"transforms_{split}.json"
        try:
            frames = load_from_json(transforms)["frames"]
            files = [folder / f"{frame['file_path']}.png" for frame in frames]
        except (OSError, ValueError, KeyError, TypeError):
            return f"{transforms.name} is missing or unreadable"
        if len(files) != getattr(config, f"num_{split}_views"):
            return f"{transforms.name} lists {len(files)} frames"
        for file in files:
            try:
                with Image.open(file) as image:
                    image.verify()
                    size = image.size
            # Pillow reports a bad PNG chunk as a SyntaxError.
            except (OSError, SyntaxError):
                return f"{file.relative_to(folder)} is missing or unreadable"
            if size != (config.image_size, config.image_size):
                return f"{file.relative_to(folder)} has {size[0]}x{size[1]} pixels"
    return None


def _write_scene(folder: Path, config: DemoDataParserConfig) -> None:
    """Render all splits into a new folder, in the layout of NeRF-Synthetic."""
    counts = [getattr(config, f"num_{split}_views") for split in SPLITS]
    with get_progress("Rendering the demo scene", suffix="images/s") as progress:
        task = progress.add_task("render", total=sum(counts))
        for index, (split, count) in enumerate(zip(SPLITS, counts, strict=True)):
            (folder / split).mkdir(parents=True)
            frames = []
            # One stream of random numbers per split: the number of views of one does not move those of another.
            for view, pose in enumerate(camera_poses(count, np.random.default_rng([config.seed, index]))):
                frames.append({"file_path": f"./{split}/r_{view}", "transform_matrix": pose.tolist()})
                image = Image.fromarray(render_view(pose, config.image_size, config.supersampling))
                image.save(folder / split / f"r_{view}.png")
                progress.advance(task)
            write_to_json(folder / f"transforms_{split}.json", {"camera_angle_x": FIELD_OF_VIEW, "frames": frames})


def _remove_leftovers(cache: Path) -> None:
    """Removes temporary folders that no living process renders into."""
    for folder in cache.glob(f"{TEMPORARY}*"):
        # One that is in use, or that another process removes as well, is let alone.
        with suppress(Timeout, OSError):
            # In one that was made just now the lock may be yet to come.
            if time.time() - folder.stat().st_mtime > 60:
                with FileLock(folder / LOCK, timeout=0):
                    shutil.rmtree(folder, ignore_errors=True)


def prepare_scene(config: DemoDataParserConfig) -> Path:
    """Make sure that the scene is in the cache folder.

    It is rendered into a temporary folder beside its place and then renamed, so that nobody ever sees half of it.
    Temporary folders of processes that were killed are removed.

    Args:
        config: Options of the dataparser.

    Returns:
        Folder with the complete scene, in the layout of NeRF-Synthetic.

    Raises:
        OSError: The cache folder cannot be written.
    """
    folder = scene_folder(config)
    damage = _find_damage(folder, config)
    if damage is None:
        return folder
    if folder.exists():
        CONSOLE.print(f"[yellow]demo-data: rendering {escape(str(folder))} again, because {escape(damage)}.")
    try:
        config.data.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(config.data)
        with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=config.data) as temporary:
            with FileLock(Path(temporary) / LOCK):
                rendered = Path(temporary) / "scene"
                _write_scene(rendered, config)
                # Another process may have finished the same scene in the meantime.
                if _find_damage(folder, config) is not None:
                    if folder.exists():
                        folder.rename(Path(temporary) / "damaged")
                    rendered.rename(folder)
    except OSError as error:
        if _find_damage(folder, config) is not None:
            raise OSError(
                f"demo-data: the cache folder {config.data} cannot be written ({error}). "
                "Choose a folder that can with --data."
            ) from error
    return folder


@dataclass
class DemoDataParser(DataParser):
    """The demo scene, rendered on first use and then read as any NeRF-Synthetic scene."""

    config: DemoDataParserConfig

    def __init__(self, config: DemoDataParserConfig):
        super().__init__(config=config)
        _check_options(config)

    def _generate_dataparser_outputs(self, split: str = "train", **kwargs: Optional[dict]) -> DataparserOutputs:
        if split not in SPLITS:
            raise ValueError(f"demo-data: the split is {split!r}, expected one of {', '.join(SPLITS)}.")
        blender = BlenderDataParserConfig(data=prepare_scene(self.config), alpha_color=self.config.alpha_color)
        return blender.setup().get_dataparser_outputs(split)


demo_data = DataParserSpecification(
    config=DemoDataParserConfig(),
    description="Small built-in scene of textured solids, rendered on first use. No data needs to be downloaded.",
)
