"""Saves tiny runs as `ns-train` leaves them, with a note of what is in them, for later versions to open.

    PYTHONPATH=tests:tests/method python tests/golden/saved_runs.py FOLDER

The folders in `old_runs` were saved by an earlier version and are never saved again: a run of another version
gets a folder of its own beside them.
"""

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from golden.reading import events_of, field_target, living_edges_of, teacher, widths_of
from golden.runs import Part, by_hand, canary, decaying, hashes, passed
from nerfstudio.utils.eval_utils import eval_setup
from support.tiny_run import make_config, rays

OLD_RUNS = Path(__file__).parent / "old_runs"
EXPECTED = "expected.json"
CUT_OFF = 9
"""Step of the checkpoints."""
SCENE, OUTPUTS = Path("scene"), Path("outputs")
"""Relative, as in the configuration of a run that is moved to another machine with its folder."""


def saving(config: Any) -> Any:
    """The configuration of a run of 16 steps that saves after step 9, where it is cut off."""
    config.max_num_iterations, config.steps_per_save, config.save_only_latest_checkpoint = 16, CUT_OFF, False
    return decaying(config)


def neurons() -> Part:
    """A run with groups of options in its configuration, an event of the plan, one by hand, and one to come."""
    config = make_config(
        OUTPUTS,
        SCENE,
        "neurons",
        strategy="importance",
        score="activation",
        refit="lstsq",
        calibration_rays=64,
        coarse=field_target(width=4, head_width=2),
        fine=field_target(pruning_ratio=0.75),
        groups=("field_coarse.*", "field_fine.mlp_base.*"),
        teacher=teacher(steps=4, point_share=0.5),
        schedule="iterative",
        num_events=2,
        start_step=3,
        stop_step=12,
        recovery_lr_factor=2.0,
    )
    config.pipeline.model.base_mlp_layer_width = 12
    return passed(saving(config), {6: by_hand(0.6, strategy="obs", refit="lstsq", recovery_lr_factor=1.5)})


def edges() -> Part:
    """A run with edge masks and with weights to rewind to, and an event to come."""
    config = make_config(
        OUTPUTS,
        SCENE,
        "edges",
        strategy="edge",
        edge_keep_fraction=0.4,
        edge_scope="global",
        recovery="rewind",
        rewind_step=1,
        schedule="iterative",
        num_events=2,
        start_step=3,
        stop_step=12,
    )
    config.pipeline.model.base_mlp_layer_width, config.pipeline.model.head_mlp_layer_width = 8, 4
    return passed(saving(config))


RUNS: dict[str, Callable[[], Part]] = {"neurons": neurons, "edges": edges}
"""Name -> run, in the present folder."""


def run_folder(name: str) -> Path:
    """Where `ns-train` keeps a run, below the present folder."""
    return OUTPUTS / "tiny" / "nerf-prune" / name


def pixels(model: Any) -> list[list[float]]:
    """Colours of fixed rays."""
    model.eval()
    with torch.no_grad():
        return model(rays(12).to(model.device))["rgb"].tolist()


def taken_up(name: str) -> Part:
    """Six more steps of the run in the present folder, by the options in its own `config.yml`."""
    config = yaml.load((run_folder(name) / "config.yml").read_text(), Loader=yaml.Loader)
    config.load_dir = config.get_checkpoint_dir()
    config.timestamp, config.max_num_iterations = f"{name}-taken-up", 6
    return passed(config)


def contents(model: Any) -> dict[str, Any]:
    """What is in a saved run, as plain values."""
    return {
        "widths": widths_of(model),
        "living_edges": living_edges_of(model),
        "events": events_of(model),
        "pixels": pixels(model),
    }


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description="Saves tiny runs for later versions to open.")
    parser.add_argument("folder", type=Path, help="new folder of the saved runs")
    folder = parser.parse_args().folder.resolve()
    torch.set_num_threads(1)
    recorded = canary()
    with tempfile.TemporaryDirectory() as temporary:
        os.chdir(temporary)
        for name, run in RUNS.items():
            run()
            checkpoints = run_folder(name) / "nerfstudio_models"
            for checkpoint in checkpoints.iterdir():
                if checkpoint.name != f"step-{CUT_OFF:09d}.ckpt":
                    checkpoint.unlink()
            saved = folder / name
            shutil.copytree(checkpoints, saved / checkpoints.name)
            shutil.copy(run_folder(name) / "config.yml", saved)
            _, pipeline, _, _ = eval_setup(run_folder(name) / "config.yml")
            expected = contents(pipeline.model)
            part = taken_up(name)
            expected["taken_up"] = {
                "canary": recorded,
                "hashes": hashes([part]),
                "widths": widths_of(part.trainer.pipeline.model),
                "living_edges": living_edges_of(part.trainer.pipeline.model),
            }
            (saved / EXPECTED).write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
