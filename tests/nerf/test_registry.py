"""What Nerfstudio finds of us, also from a built wheel."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from nerfstudio.configs.base_config import InstantiateConfig
from nerfstudio.configs.method_configs import all_methods
from nerfstudio.plugins.registry import discover_methods
from nerfstudio.plugins.registry_dataparser import discover_dataparsers

from nerfstudio_prune.engine.schedulers import RunDecaySchedulerConfig
from nerfstudio_prune.nerf.config import FieldTargetConfig, PruneConfig
from nerfstudio_prune.nerf.model import PruneModelConfig
from nerfstudio_prune.nerf.pipeline import PrunePipelineConfig
from nerfstudio_prune.scenes.demo_dataparser import DemoDataParserConfig

ROOT = Path(__file__).parents[2]
METHODS = ("nerf-prune", "nerf-prune-demo", "nerf-prune-real")
SPLATS = ("splat-prune", "splat-prune-big", "splat-prune-demo")
KILO = ("kilonerf", "kilonerf-demo", "kilonerf-real")


@pytest.mark.parametrize("name", METHODS)
def test_methods_are_registered_under_their_names(name: str) -> None:
    """The host keys methods by `method_name` and not by the entry point; where the two differ, `ns-train <entry
    point>` does not exist and `ns-eval` does not find the method of a saved run."""
    methods, descriptions = discover_methods()
    spec = entry_points(group="nerfstudio.method_configs")[name].load()
    assert spec.config.method_name == name
    assert methods[name] is spec.config
    assert descriptions[name] and descriptions[name] == spec.description
    config: Any = all_methods[name]
    assert isinstance(config.pipeline, PrunePipelineConfig) and isinstance(config.pipeline.model, PruneModelConfig)
    config.pipeline.prune.validate()


def test_dataparser_is_registered() -> None:
    """`ns-train <any method> demo-data` has to work, not only ours."""
    dataparsers, _ = discover_dataparsers()
    assert isinstance(dataparsers["demo-data"], DemoDataParserConfig)


def test_defaults_are_those_of_the_stock_method() -> None:
    """`nerf-prune` is compared with `vanilla-nerf`; every setting of training that both have must be equal, or the
    comparison measures the settings. The exceptions are what the host uses to tell, to show and to save runs, and how
    many rays are rendered at once, which changes no picture."""
    ours: Any = all_methods["nerf-prune"]
    stock: Any = all_methods["vanilla-nerf"]
    for part in (ours.pipeline.model, ours.pipeline.datamanager):
        reference = stock.pipeline.model if part is ours.pipeline.model else stock.pipeline.datamanager
        for f in dataclasses.fields(reference):
            if f.name not in ("_target", "eval_num_rays_per_chunk"):
                assert getattr(part, f.name) == getattr(reference, f.name), f.name
    # The paper lets the rate decay, the stock method does not.
    assert all(ours.optimizers[name]["optimizer"] == stock.optimizers[name]["optimizer"] for name in stock.optimizers)
    different = {f.name for f in dataclasses.fields(ours) if getattr(ours, f.name) != getattr(stock, f.name)}
    shown_and_saved = {"_target", "vis", "viewer"}
    assert different <= {"method_name", "pipeline", "max_num_iterations", "machine", "optimizers", *shown_and_saved}
    assert (ours.max_num_iterations, ours.vis) == (100_000, "viewer+tensorboard")
    sizes = ("base_mlp_num_layers", "base_mlp_layer_width", "head_mlp_num_layers", "head_mlp_layer_width")
    assert [getattr(ours.pipeline.model, name) for name in sizes] == [8, 256, 2, 128]
    assert ours.pipeline.model.skip_connections == (4,)


def test_methods_share_one_table_of_optimizers() -> None:
    """What can be trained follows from the options of the model, which all methods have; a method without an optimizer
    for it would refuse them when the run starts. Each has a scheduler, so that its options are on the command line."""
    tables = [all_methods[name].optimizers for name in METHODS]
    assert {tuple(table) for table in tables} == {("fields", "temporal_distortion")}
    schedulers = [part["scheduler"] for table in tables for part in table.values()]
    assert all(type(scheduler) is RunDecaySchedulerConfig for scheduler in schedulers)
    assert len({id(scheduler) for scheduler in schedulers}) == len(schedulers)
    rates = {
        name: {(part["optimizer"].lr, part["scheduler"].lr_final) for part in all_methods[name].optimizers.values()}
        for name in METHODS
    }
    assert rates == {
        "nerf-prune": {(5e-4, None)},
        "nerf-prune-demo": {(2e-2, 4e-4)},
        "nerf-prune-real": {(5e-4, None)},
    }


def test_no_method_needs_a_login_to_end() -> None:
    """With `viewer` alone no evaluation runs and the process never ends; the host's default asks for a wandb login."""
    assert {name: all_methods[name].vis for name in METHODS} == {
        "nerf-prune": "viewer+tensorboard",
        "nerf-prune-demo": "tensorboard",
        "nerf-prune-real": "viewer+tensorboard",
    }


@pytest.mark.parametrize(
    "cls", [FieldTargetConfig, PruneConfig, PruneModelConfig, PrunePipelineConfig, DemoDataParserConfig]
)
def test_no_dataclass_instance_is_a_default(cls: Any) -> None:
    """Since Python 3.11 such a default raises when the module is imported, and the host loads plugins without a guard:
    it would break every `ns-train` of the user. Two runs would also share the instance."""
    for f in dataclasses.fields(cls):
        assert not dataclasses.is_dataclass(f.default), f.name
    if issubclass(cls, InstantiateConfig):
        make: Any = cls
        assert make() == make() and callable(make()._target)


def test_methods_share_no_options() -> None:
    """A mutable default shared between two methods lets an option of one leak into the other."""
    configs: list[Any] = [all_methods[name] for name in METHODS]
    for part in ("prune", "model", "datamanager"):
        assert len({id(getattr(config.pipeline, part)) for config in configs}) == len(METHODS)


def test_entry_points_name_what_is_there() -> None:
    """An entry point of a name that the module does not have breaks every `ns-train` of the user."""
    module = import_module("nerfstudio_prune.method_configs.nerf_prune")
    entries = [entry for entry in entry_points(group="nerfstudio.method_configs") if entry.name in METHODS]
    names = {entry.value.partition(":")[2] for entry in entries}
    assert all(hasattr(module, name) for name in names) and len(names) == len(METHODS)


def run(command: list[str], environment: dict[str, str], cwd: Path) -> str:
    done = subprocess.run(command, check=False, env=environment, cwd=cwd, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


CHILD = """
import json, sys
from importlib.metadata import distribution, entry_points
import nerfstudio_prune
found = {"file": nerfstudio_prune.__file__, "version": nerfstudio_prune.__version__, "loaded": {}}
found["metadata"] = str(distribution("nerfstudio-prune").locate_file(""))
for group in ("nerfstudio.method_configs", "nerfstudio.dataparser_configs"):
    for entry in entry_points(group=group):
        if entry.value.startswith("nerfstudio_prune."):
            spec = entry.load()
            found["loaded"][entry.name] = getattr(spec.config, "method_name", type(spec.config).__name__)
found["modules"] = {
    name: module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "nerfstudio_prune"
}
print(json.dumps(found))
"""


@pytest.mark.slow
def test_built_wheel(tmp_path: Path) -> None:
    """An editable installation hides a package that is left out of the wheel, and `method_configs` is mapped into it
    from a folder of another name. The wheel is built from a copy, unpacked into an empty folder, and its entry points
    loaded in a new process that stands elsewhere; every module must come from that folder."""
    source, wheels, target, elsewhere = (tmp_path / name for name in ("source", "wheels", "target", "elsewhere"))
    for name in ("nerfstudio_prune", "method_configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    elsewhere.mkdir()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    environment = {**os.environ, "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "XDG_CACHE_HOME": str(tmp_path)}
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(source)]
    run(build, environment, elsewhere)
    (wheel,) = wheels.glob("*.whl")
    names = set(ZipFile(wheel).namelist())
    assert {"nerfstudio_prune/py.typed", "nerfstudio_prune/method_configs/nerf_prune.py"} <= names
    assert not any(name.startswith(("method_configs/", "tests/")) for name in names)
    # Templates and markers too, not only modules.
    files = [
        path for path in (ROOT / "nerfstudio_prune").rglob("*") if path.is_file() and "__pycache__" not in path.parts
    ]
    assert {str(path.relative_to(ROOT)) for path in files} - names == set()

    install = [*pip, "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)]
    run(install, environment, elsewhere)
    output = run([sys.executable, "-c", CHILD], {**environment, "PYTHONPATH": str(target)}, elsewhere)
    found = json.loads(output.splitlines()[-1])
    methods = (*METHODS, *SPLATS, *KILO)
    assert found["loaded"] == {**{name: name for name in methods}, "demo-data": "DemoDataParserConfig"}
    assert Path(found["metadata"]).resolve() == target.resolve()
    files = {name: file for name, file in found["modules"].items() if file is not None}
    assert "nerfstudio_prune.method_configs.nerf_prune" in files and "nerfstudio_prune.engine.controller" in files
    assert [file for file in files.values() if target.resolve() not in Path(file).resolve().parents] == []
