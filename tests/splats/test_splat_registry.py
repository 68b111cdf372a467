"""The methods for Gaussians, as Nerfstudio finds them."""

import dataclasses
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

import pytest
import tyro
from nerfstudio.configs.base_config import InstantiateConfig
from nerfstudio.configs.method_configs import AnnotatedBaseConfigUnion, all_methods
from nerfstudio.plugins.registry import discover_methods

from nerfstudio_prune.engine.schedulers import RunDecaySchedulerConfig
from nerfstudio_prune.engine.trainer import PruneTrainer, PruneTrainerConfig
from nerfstudio_prune.splats.config import DistilOptions, SplatPruneConfig
from nerfstudio_prune.splats.model import SplatPruneModelConfig
from nerfstudio_prune.splats.pipeline import SplatPrunePipelineConfig

OF_OPTIMIZERS = ("lr", "eps", "max_norm", "weight_decay")
METHODS = ("splat-prune", "splat-prune-big", "splat-prune-demo")


@pytest.mark.parametrize("name", METHODS)
def test_methods_are_registered_under_their_names(name: str) -> None:
    """The host keys methods by `method_name` and not by the entry point; where the two differ, `ns-eval` does not find
    the method of a saved run. All are trained by this project's trainer, which tears no checkpoint."""
    methods, descriptions = discover_methods()
    spec = entry_points(group="nerfstudio.method_configs")[name].load()
    assert spec.config.method_name == name and methods[name] is spec.config
    assert descriptions[name] and descriptions[name] == spec.description
    config: Any = all_methods[name]
    assert type(config) is PruneTrainerConfig and config._target is PruneTrainer
    assert isinstance(config.pipeline, SplatPrunePipelineConfig)
    assert isinstance(config.pipeline.model, SplatPruneModelConfig)
    config.pipeline.prune.validate()


def test_entry_points_name_what_is_there() -> None:
    """An entry point of a name that the module does not have breaks every `ns-train` of the user."""
    module = import_module("nerfstudio_prune.method_configs.splat_prune")
    entries = [entry for entry in entry_points(group="nerfstudio.method_configs") if entry.name in METHODS]
    names = {entry.value.partition(":")[2] for entry in entries}
    assert all(hasattr(module, name) for name in names) and len(names) == len(METHODS)


def test_model_is_splatfacto() -> None:
    """A run of `splat-prune` is splatfacto's: what differs is what this project says that it changes, so that a
    comparison with a stock run compares pruning. `splat-prune-big` is to it what `splatfacto-big` is to splatfacto."""
    changed = {"_target", "background_color"}
    for ours, theirs in (("splat-prune", "splatfacto"), ("splat-prune-big", "splatfacto-big")):
        config, stock = all_methods[ours], all_methods[theirs]
        model: Any = config.pipeline.model
        reference: Any = stock.pipeline.model
        for f in dataclasses.fields(reference):
            if f.name not in changed:
                assert getattr(model, f.name) == getattr(reference, f.name), f"{ours}: {f.name}"
        assert {f.name for f in dataclasses.fields(model)} - {f.name for f in dataclasses.fields(reference)} == {
            *("rasterizer", "schedule_steps", "initial_file"),
        }
        assert config.max_num_iterations == stock.max_num_iterations == model.schedule_steps == 30_000
        tables = config.optimizers, stock.optimizers
        for name, part in stock.optimizers.items():
            kept = [getattr(table[name]["optimizer"], option) for option in OF_OPTIMIZERS for table in tables]
            assert kept[::2] == kept[1::2], f"{ours}: {name}"
            own, scheduler = config.optimizers[name]["scheduler"], part["scheduler"]
            if scheduler is None:  # one whose rate stays, so that an event can have another one
                assert own is None or own.lr_final == part["optimizer"].lr
            else:  # the curve ends with the run, which is as long as the host's
                assert type(own) is RunDecaySchedulerConfig and own.lr_final == scheduler.lr_final
                assert own.for_run(30_000).warmup_steps == scheduler.warmup_steps, f"{ours}: {name}"


def test_methods_share_nothing() -> None:
    """A mutable default shared between two methods lets an option of one leak into the other."""
    configs: list[Any] = [all_methods[name] for name in METHODS]
    for part in ("prune", "model", "datamanager"):
        assert len({id(getattr(config.pipeline, part)) for config in configs}) == len(METHODS)
    assert len({id(config.optimizers["means"]["scheduler"]) for config in configs}) == len(METHODS)
    assert len({id(config.pipeline.prune.distil) for config in configs}) == len(METHODS)


@pytest.mark.parametrize("cls", [SplatPruneConfig, DistilOptions, SplatPruneModelConfig, SplatPrunePipelineConfig])
def test_no_dataclass_instance_is_a_default(cls: Any) -> None:
    """Such a default raises when the module is imported, and the host loads plugins without a guard."""
    for f in dataclasses.fields(cls):
        assert not dataclasses.is_dataclass(f.default), f.name
    if issubclass(cls, InstantiateConfig):
        make: Any = cls
        assert make() == make() and callable(make()._target)


def test_command_line() -> None:
    """`ns-train splat-prune …` reaches options of trainer, model, pruning, optimizers and data."""
    words = """splat-prune --max-num-iterations 2000 --pipeline.model.rasterizer cpu --pipeline.model.stop-split-at 9000
        --pipeline.prune.preset paper --pipeline.prune.distil.steps 100 --pipeline.prune.target-gaussians 5000
        --optimizers.means.scheduler.lr-final 1e-5 --pipeline.model.camera-optimizer.mode SO3xR3
        demo-data --image-size 32""".split()
    config: Any = tyro.cli(AnnotatedBaseConfigUnion, args=words)  # type: ignore[arg-type]
    assert (config.max_num_iterations, config.pipeline.model.rasterizer) == (2000, "cpu")
    assert config.pipeline.prune == SplatPruneConfig(
        preset="paper", target_gaussians=5000, distil=DistilOptions(steps=100)
    )
    assert config.optimizers["means"]["scheduler"].lr_final == 1e-5
    assert config.pipeline.datamanager.dataparser.image_size == 32
    assert config.pipeline.model.camera_optimizer.mode == "SO3xR3"


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    """`ns-train splat-prune --help` is where a person looks first."""
    with pytest.raises(SystemExit) as caught:
        tyro.cli(AnnotatedBaseConfigUnion, args=["splat-prune", "--help"])  # type: ignore[arg-type]
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for option in ("--pipeline.prune.rounds", "--pipeline.prune.distil.sigma", "--pipeline.model.schedule-steps"):
        assert option in text
