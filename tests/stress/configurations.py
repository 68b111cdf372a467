"""Mutated `config.yml` files, opened by what `ns-prune inspect` opens them with; none may run what it names.

python tests/stress/configurations.py --count 10000
"""

import random
import sys
import tempfile
from functools import cache
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import yaml
from nerfstudio.configs.method_configs import all_methods
from support.fuzz import RAW, TAKEN, main
from support.saved_run import save_run
from support.tiny_run import make_config, tiny_model

from nerfstudio_prune.engine.saved_run import read_config
from nerfstudio_prune.inspect.inspection import inspect_model
from nerfstudio_prune.nerf.saved_run import load_run

OLD_RUNS = Path(__file__).parents[1] / "nerf" / "old_runs"
CANARY = "canary"
"""File that every dangerous value would make, in the present folder."""
ODD = (
    *("null", "true", "-1", "0", "1", "3", "1.5", ".nan", ".inf", "1e400", "9" * 400, "9" * 5000, "100000000000"),
    *(
        "[]",
        "{}",
        "[1, 2]",
        "{a: 1}",
        "text",
        "''",
        "'8'",
        "2001-01-01",
        "0o17",
        "1:30:30",
        "*id001",
        "&x [*x]",
        "x" * 9000,
    ),
    *(
        "[" * 3000,
        "{a: " * 3000,
        "!!binary aGFsbG8=",
        "!!set {a}",
        "!!omap [a: 1]",
        "!unknown 1",
        "|",
        "'",
        "\0",
        "\ud7ff",
    ),
    *("!!python/tuple [1, 2]", "!!python/tuple [1000000000]", "!!python/tuple []", "!!python/none", "!!python/dict {}"),
    "!!python/object/apply:pathlib.PosixPath [/dev]",
    "!!python/object/apply:pathlib.PosixPath [1]",
    "!!python/object/apply:pathlib.WindowsPath ['C:', x]",
    "!!python/object/apply:nerfstudio.utils.writer.EventName [Test PSNR]",
    "!!python/object/apply:nerfstudio.utils.writer.EventName [x]",
    "!!python/object/apply:_operator.getitem [1, 2]",
    "!!python/name:torch.optim.adam.Adam ''",
    "!!python/name:nerfstudio.models.vanilla_nerf.NeRFModel ''",
    "!!python/name:nerfstudio_prune.nerf.model.PruneModel ''",
    "!!python/object:nerfstudio.engine.trainer.TrainerConfig {}",
    "!!python/object:nerfstudio_prune.nerf.config.PruneConfig {filled: 1}",
    "!!python/object:nerfstudio_prune.nerf.model.PruneModelConfig {base_mlp_num_layers: 1000000000}",
    # What would run something with the host's own loader.
    f"!!python/object/apply:os.system ['touch {CANARY}']",
    f"!!python/object/new:os.system ['touch {CANARY}']",
    f"!!python/object/apply:subprocess.Popen [[touch, {CANARY}]]",
    f"!!python/object/new:subprocess.Popen [[touch, {CANARY}]]",
    f"!!python/object/apply:builtins.open [{CANARY}, w]",
    f'!!python/object/apply:builtins.eval [\'open("{CANARY}", "w")\']',
    f"!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.PosixPath [{CANARY}]]",
    f"!!python/object/apply:nerfstudio.utils.scripts.run_command ['touch {CANARY}']",
    f"!!python/object/apply:nerfstudio.utils.scripts.subprocess.run [[touch, {CANARY}]]",
    f"!!python/object/apply:nerfstudio_prune.core.files.write_file [{CANARY}, x]",
    "!!python/name:os.system ''",
    "!!python/name:nerfstudio.utils.scripts.run_command ''",
    "!!python/name:nerfstudio.utils.scripts.subprocess ''",
    "!!python/name:nerfstudio.engine.trainer.os ''",
    "!!python/module:os",
)
"""Values to put in."""


@cache
def runs() -> tuple[tuple[str, bytes], ...]:
    """Configuration and checkpoint of runs of several methods and of an earlier version."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.manual_seed(0)
        path = save_run(folder / "run", tiny_model(), make_config(folder, folder, group_widths={"*": 8}))
        checkpoint = path.parent / "nerfstudio_models" / "step-000000009.ckpt"
        found.append((path.read_text("utf-8"), checkpoint.read_bytes()))
        found += [
            (yaml.dump(all_methods[method]), checkpoint.read_bytes()) for method in ("vanilla-nerf", "splatfacto")
        ]
        for old in OLD_RUNS.iterdir():
            saved = old / "nerfstudio_models" / "step-000000009.ckpt"
            found.append(((old / "config.yml").read_text("utf-8"), saved.read_bytes()))
    return tuple(found)


def mutated(text: str, rng: random.Random) -> bytes:
    """A configuration with other values, lines or bytes."""
    lines = text.splitlines()
    for _ in range(rng.choice((1, 1, 2, 5))):
        i = rng.randrange(len(lines))
        kind = rng.randrange(8)
        key, colon, value = lines[i].partition(":")
        if kind < 4 and colon:
            lines[i] = f"{key}: {rng.choice(ODD)}"
        elif kind == 4 and len(lines) > 1:
            del lines[i]
        elif kind == 5:
            lines.insert(i, rng.choice(lines))
        elif kind == 6:
            lines[i] = rng.choice(("  ", "- ", "", "<<: ", "? ", "--- ")) + lines[i]
        elif colon:
            others = [f"{key}x:{value}", f"{key}:{value[:-1]}", f"{key}:{value}0", f"{key}: {i}", f"{key}: {i / 100}"]
            lines[i] = rng.choice(others)
    content = "\n".join(lines).encode()
    if rng.random() < 0.1:
        content = content[: rng.randrange(len(content))]
    if rng.random() < 0.1:
        changed = bytearray(content or b"x")
        changed[rng.randrange(len(changed))] = rng.randrange(256)
        content = bytes(changed)
    return content


def trial(rng: random.Random) -> str:
    """Mutates a configuration and opens its run."""
    text, checkpoint = rng.choice(runs())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "nerfstudio_models").mkdir()
        (folder / "nerfstudio_models" / "step-000000009.ckpt").write_bytes(checkpoint)
        (folder / "config.yml").write_bytes(mutated(text, rng))
        try:
            inspect_model(load_run(read_config(folder / "config.yml"), folder / "config.yml"), ("w_out",))
            return TAKEN
        finally:
            canary = Path(CANARY)
            if canary.exists():
                canary.unlink()
                raise AssertionError(f"{RAW}: the file was run")


if __name__ == "__main__":
    main(trial, __doc__)
