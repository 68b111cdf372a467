"""A configuration is read, not run: whoever looks at a stranger's run must not have to trust it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from nerfstudio.configs.external_methods import ExternalMethodDummyTrainerConfig
from nerfstudio.configs.method_configs import all_methods

from nerfstudio_prune.engine.config_file import MAX_BYTES, ConfigFileError, read_config_file

OLD_RUNS = Path(__file__).parents[1] / "nerf" / "old_runs"
METHODS = [name for name, config in all_methods.items() if type(config) is not ExternalMethodDummyTrainerConfig]


def test_every_registered_method_is_read_as_the_host_reads_it(tmp_path: Path) -> None:
    """The loader is another one, the configuration must not be: any run of Nerfstudio's methods, and of this project's
    earlier versions, gives what the host's own loader gives."""
    path = tmp_path / "config.yml"
    texts = {name: yaml.dump(all_methods[name]) for name in METHODS}
    texts |= {old.name: (old / "config.yml").read_text() for old in OLD_RUNS.iterdir()}
    assert {"nerf-prune", "nerf-prune-real", "vanilla-nerf", "nerfacto", "splatfacto", "neurons"} <= set(texts)
    for name, text in texts.items():
        path.write_text(text)
        assert read_config_file(path) == yaml.load(text, Loader=yaml.Loader), name


DANGEROUS = [
    "!!python/object/apply:os.system ['touch canary']",
    "!!python/object/new:os.system ['touch canary']",
    "!!python/object/apply:subprocess.Popen [[touch, canary]]",
    "!!python/object/apply:builtins.open [canary, w]",
    "!!python/object/apply:nerfstudio.utils.scripts.run_command ['touch canary']",
    "!!python/object/apply:nerfstudio.utils.scripts.subprocess.run [[touch, canary]]",
    "!!python/object/apply:nerfstudio_prune.engine.host.seed_host [1]",
    "!!python/object/apply:nerfstudio.engine.trainer.TrainerConfig []",
    "!!python/object:nerfstudio.engine.trainer.Trainer {}",
    "!!python/object:pathlib.Path {}",
    "!!python/name:os.system ''",
    "!!python/name:nerfstudio.engine.trainer.os ''",
    "!!python/name:nerfstudio.utils.scripts.run_command ''",
    "!!python/name:nerfstudio.scripts.train.main ''",
    "!!python/name:nerfstudio.engine.trainer.Path ''",
    "!!python/name:torch.load ''",
    "!!python/name:torch.optim.os ''",
    "!!python/name:nerfstudio ''",
    "!!python/name:nerfstudio.no.Class ''",
    "!!python/module:os",
    "!!python/object/apply:pathlib.PosixPath [!!python/object/apply:os.system ['touch canary']]",
    "!!python/object/apply:_operator.getitem [[1], 0]",
    "!!python/object/apply:_operator.getitem []",
]


@pytest.mark.parametrize("value", DANGEROUS)
def test_what_is_named_is_not_run(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these runs something, or hands out what could, with the host's loader. As a value in a place that takes
    anything, and as the whole file."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "config.yml"
    whole = yaml.dump(all_methods["nerf-prune"])
    for text in (value, whole.replace("gradient_accumulation_steps: {}", f"gradient_accumulation_steps: {value}")):
        path.write_text(text)
        with pytest.raises(ConfigFileError, match=r"^(line \d+: |Expected |it holds )"):
            read_config_file(path)
    assert not Path("canary").exists()


def read(tmp_path: Path, old: str, new: str) -> Any:
    text = yaml.dump(all_methods["nerf-prune"])
    assert old in text
    path = tmp_path / "config.yml"
    path.write_text(text.replace(old, new, 1))
    return read_config_file(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("load_step: null", "load_step: [1]", "TrainerConfig.load_step: list did not match any element in the union"),
        ("num_coarse_samples: 64", "num_coarse_samples: many", "PruneModelConfig.num_coarse_samples: str is not an in"),
        ("base_mlp_layer_width: 256", "base_mlp_layer_width: 2.5", "PruneModelConfig.base_mlp_layer_width: float is"),
        ("vis: viewer", "vis: cinema", "TrainerConfig.vis: str is not any of"),
        ("load_step: null", "save_config: 1", "TrainerConfig.save_config is no field"),
        ("  - dnerf", "  - other", "TemporalDistortionKind: expected one of dnerf"),
        ("load_step: null", "<<: {load_step: 1}", "merges mappings, which no configuration does"),
        (
            "!!python/name:nerfstudio_prune.nerf.model.PruneModel ''",
            "!!python/name:my_plugin.Model ''",
            "my_plugin.Model",
        ),
    ],
)
def test_errors_name_line_and_field(old: str, new: str, message: str, tmp_path: Path) -> None:
    """A value of the wrong type would fail far away from the file, in a network or a path, and name neither."""
    with pytest.raises(ConfigFileError, match=r"^line \d+: ") as caught:
        read(tmp_path, old, new)
    assert message in str(caught.value)


def test_fields_of_other_versions(tmp_path: Path) -> None:
    """A field that an earlier version did not write has its default, and one that a later version added is passed
    over; a path that was written on Windows is read."""
    config = read(tmp_path, "load_step: null\n", "")
    assert config.load_step is None
    assert read(tmp_path, "load_step: null\n", "load_stepping: 3\n").load_step is None
    text = "!!python/object/apply:pathlib.WindowsPath ['C:\\', out, puts]"
    assert read(tmp_path, "load_dir: null", f"load_dir: {text}").load_dir == Path("C:/out/puts")


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    """Too large, too deep, or of another kind: an error at once, whatever the file costs to read to its end."""
    path = tmp_path / "config.yml"
    for text in ("[" * 5000, "a: &x [*x]", "a: 1", "", "\0", "- " * 3000 + "1", "9" * 5000):
        path.write_text(text)
        with pytest.raises(ConfigFileError):
            read_config_file(path)
    path.write_text(" " * (MAX_BYTES + 1))
    with pytest.raises(OSError, match="has 256,001 bytes, expected at most 256,000"):
        read_config_file(path)
    with pytest.raises(OSError, match="is a device, expected a regular file"):
        read_config_file(Path("/dev/zero"))
