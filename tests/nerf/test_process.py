"""The console script as a user runs it: killed in mid-run, resumed, evaluated."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from nerfstudio.utils.eval_utils import eval_setup
from support.tiny_run import tiny_widths, widths

OPTIONS = """nerf-prune-demo --machine.device-type cpu --output-dir runs --experiment-name tiny
    --steps-per-save 4 --save-only-latest-checkpoint False --steps-per-eval-image 5 --steps-per-eval-batch 5
    --pipeline.model.base-mlp-num-layers 5 --pipeline.model.base-mlp-layer-width 16
    --pipeline.model.head-mlp-layer-width 8 --pipeline.model.skip-connections 2
    --pipeline.model.num-coarse-samples 8 --pipeline.model.num-importance-samples 8
    --pipeline.datamanager.train-num-rays-per-batch 32 --pipeline.datamanager.eval-num-rays-per-batch 32
    --pipeline.prune.min-width 2 --pipeline.prune.num-eval-rays 64""".split()
SCENE = "demo-data --data scene --image-size 16 --num-train-views 4 --num-val-views 2 --num-test-views 2".split()


def command(*options: str) -> list[str]:
    return [str(Path(sys.executable).parent / "ns-train"), *OPTIONS, *options, *SCENE, "--supersampling", "1"]


@pytest.fixture
def environment(tmp_path: Path, torch_home: Path) -> dict[str, str]:
    """A process without caches of its own."""
    own = {"TORCH_HOME": str(torch_home), "XDG_CACHE_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **own, "COLUMNS": "200"}


def wait_for(path: Path, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 180
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


@pytest.mark.slow
def test_killed_run_is_resumed_and_evaluated(
    tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The promise to the user in one piece, through the real command line: a run prunes twice, is killed without a
    chance to clean up, goes on from its checkpoint without the schedule being typed again, prunes a third time as
    planned, ends by itself, and is evaluated at the small size."""
    log = tmp_path / "first.log"
    prune = "--pipeline.prune.preset paper --pipeline.prune.schedule iterative --pipeline.prune.num-events 3".split()
    steps = "--pipeline.prune.start-step 2 --pipeline.prune.stop-step 10".split()
    with log.open("wb") as stream:
        first = command("--timestamp", "first", "--max-num-iterations", "100000", *prune, *steps)
        process = subprocess.Popen(first, cwd=tmp_path, env=environment, stdout=stream, stderr=subprocess.STDOUT)
        checkpoints = tmp_path / "runs/tiny/nerf-prune-demo/first/nerfstudio_models"
        try:
            # The next checkpoint has begun: the one of step 8 is complete.
            wait_for(checkpoints / "step-000000012.ckpt", process, log)
        finally:
            process.kill()
            process.wait(timeout=60)
    assert process.returncode == -signal.SIGKILL
    before: dict[str, Any] = torch.load(checkpoints / "step-000000008.ckpt")["pipeline"]["_model._extra_state"]
    happened = [(event["step"], event["after"]["parts"]) for event in before["history"]]
    assert happened == [(2, tiny_widths(14, 7)), (6, tiny_widths(11, 6))]

    for path in checkpoints.iterdir():  # what a killed process was just writing may be cut off
        if path.name > "step-000000008.ckpt":
            path.unlink()

    second = command("--timestamp", "second", "--max-num-iterations", "4", "--load-dir", str(checkpoints))
    resumed = subprocess.run(
        second, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=180, check=False
    )
    text = " ".join((resumed.stdout + resumed.stderr).split())
    assert resumed.returncode == 0, text
    assert "Pruning plan (taken up from the checkpoint; options that are given again replace it)" in text
    assert "step 10: to widths 8, 4 (phase pruning)" in text
    assert text.count("Pruning at step 10 (coreset, continue)") == 1 and text.count("Pruning at step") == 1
    assert "LPIPS is left out" in text and "Training Finished" in text

    folder = tmp_path / "runs/tiny/nerf-prune-demo/second"
    after = torch.load(folder / "nerfstudio_models/step-000000012.ckpt")["pipeline"]["_model._extra_state"]
    assert [event["step"] for event in after["history"]] == [2, 6, 10]
    assert after["history"][:2] == before["history"] and after["phase"] == "recovery"

    monkeypatch.chdir(tmp_path)  # the folders were given as relative ones
    evaluated: Any = eval_setup(folder / "config.yml")
    pipeline, step = evaluated[1], evaluated[3]
    model = pipeline.model
    model.lpips.may_download = False
    assert step == 12 and widths(model) == tiny_widths(8, 4)
    metrics = pipeline.get_average_eval_image_metrics()
    assert 3 < metrics["psnr"] < 60 and -1 <= metrics["fine_ssim"] <= 1
