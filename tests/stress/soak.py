"""A long evening at the panel: three people who click without thinking, a tab whose camera wanders, pictures that end
at any line, previews and plots, during one training with a schedule of its own.

By hand: `python tests/stress/soak.py --minutes 10` prints the figures as JSON.
"""

import argparse
import contextlib
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import psutil
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.viewer_legacy.server.viewer_utils import IOChangeException, SetTrace
from support.live import with_panel
from support.raw_client import RawClient
from support.tiny_run import make_config
from websockets.exceptions import ConnectionClosed

from nerfstudio_prune.core.optimizer_state import check_optimizers

KINDS = ("cuts", "undos", "plans", "previews", "plots", "refused", "interrupted pictures", "whole pictures")
"""What a soak is not over without."""
PATIENCE = 600.0
"""Seconds that it may take beyond what it was asked for."""


def soak(config: Any, seconds: float, seed: int = 0) -> dict[str, Any]:
    """Trains for some time, and until each of `KINDS` has happened.

    Args:
        config: Configuration of a run.
        seconds: How long at least.
        seed: Seed of what is clicked.

    Returns:
        Figures: how often what happened, and memory, descriptors and threads at the start, in the middle, at the end.

    Raises:
        AssertionError: If the training, the panel or anybody did not come to a good end.
    """
    config.max_num_iterations = 10_000_000
    with with_panel(config) as (trainer, panel):
        done, errors, over = Counter[str](), list[Exception](), threading.Event()
        controller, samples, bad_losses = trainer.pipeline.controller, list[dict[str, float]](), list[int]()
        counted = (
            (controller, "prune_by_hand", "cuts"),
            (controller, "undo", "undos"),
            (controller, "retarget", "plans"),
        )
        for owner, name, kind in (*counted, (panel.session, "preview", "previews"), (panel, "_draw", "plots")):
            _count(owner, name, kind, done)
        inner = trainer.train_iteration

        def train_iteration(step: int) -> Any:
            found = inner(step)
            if not bool(torch.isfinite(found[0].detach())):
                bad_losses.append(step)
            done["steps"] += 1
            return found

        trainer.train_iteration = train_iteration

        def noted(work: Callable[..., None], *args: Any) -> None:
            try:
                work(*args)
            except Exception as error:
                errors.append(error)
                over.set()

        def watch() -> None:
            start = time.monotonic()
            for at in (0.2, 0.6, 1.0):
                over.wait(max(0.0, at * seconds - (time.monotonic() - start)))
                samples.append(_sample())
            while not (over.is_set() or all(done[kind] for kind in KINDS)):
                assert time.monotonic() < start + seconds + PATIENCE, done
                time.sleep(0.1)
            over.set()
            trainer.stop_training = True

        people = [threading.Thread(target=noted, args=(_click, panel, n, done, over)) for n in range(3)]
        others = [(watch,), (_render, trainer, panel, seed, done, over), (_wander, config, seed, done, over)]
        threads = [*people, *(threading.Thread(target=noted, args=work) for work in others)]
        for thread in threads:
            thread.start()
        try:
            trainer.train()
        finally:
            over.set()
            for thread in threads:
                thread.join(60)
        assert errors == [], errors
        assert bad_losses == [], bad_losses
        assert panel._thread.is_alive() and not any(thread.is_alive() for thread in threads)
        model, optimizers = trainer.pipeline.model, trainer.optimizers
        check_optimizers(optimizers.optimizers, optimizers.parameters, model.get_param_groups())
        with trainer.train_lock:  # the panel is still at work
            model.eval()
            assert bool(torch.isfinite(model.get_outputs_for_camera(_camera())["rgb"]).all())
        checkpoints = len(list(trainer.checkpoint_dir.glob("*.ckpt")))
    return {"seed": seed, **done, "checkpoints": checkpoints, "start, middle, end": samples}


def _sample() -> dict[str, float]:
    """What the process holds."""
    process = psutil.Process()
    rss = process.memory_info().rss / 1e6
    return {"rss_mb": round(rss, 1), "descriptors": process.num_fds(), "threads": process.num_threads()}


def _count(owner: Any, name: str, kind: str, done: Counter[str]) -> None:
    inner = getattr(owner, name)

    def counted(*args: Any) -> Any:
        result = inner(*args)
        done[kind] += 1
        return result

    setattr(owner, name, counted)


def _click(panel: Any, seed: int, done: Counter[str], over: threading.Event) -> None:
    """A person, until it is over."""
    choose = random.Random(seed)
    while not over.is_set():
        what = choose.randrange(10)
        if what == 0:
            panel.elements["strategy"].value = choose.choice(["importance", "uniform", "obs", "coreset"])
        elif what == 1:
            # A bit narrower than it is, mostly: nothing would be left to cut after some minutes.
            status = panel.session.status()
            part = next(iter(status.sizes.parts))
            cut = 1 - status.sizes.parts[part] / status.initial.parts[part]
            panel.elements["value"].value = choose.choice([0.0, 1.0, *[min(0.95, cut + 0.03)] * 6])
        elif what == 2:
            panel.elements["target"].value = choose.choice(["pruning_ratio"] * 4 + ["target_parameters", "target_macs"])
        elif what == 3:
            panel.elements["refit"].value = choose.choice(["none", "lstsq", "merge"])
        elif what == 4:
            panel.preview.value = not panel.preview.value
        elif what == 5:
            panel.pause.value = not panel.pause.value
        elif what == 6:
            panel.plot.value = choose.choice(["scores", "weights", "sizes", "PSNR"])
            panel._on_plot()
        else:
            name = choose.choice(["prune", "undo", "undo", "retarget"])
            accepted = panel._on_request(name)
            done["requests" if accepted else "refused"] += 1
        over.wait(choose.choice([0.0, 0.01, 0.1, 0.5, 1.0]))


def _wander(config: Any, seed: int, done: Counter[str], over: threading.Event) -> None:
    """A tab that comes and goes, and whose camera moves and rests."""
    choose = random.Random(seed)
    while not over.is_set():
        done["tabs"] += 1
        # Where the machine has much to do, the server may take a tab for dead.
        with contextlib.suppress(ConnectionClosed), RawClient(config.viewer.websocket_port) as client:
            for _ in range(choose.randrange(1, 10)):
                for n in range(choose.randrange(60)):
                    client.move(0.1 * n)
                    client.drain(1 / 60)
                client.drain(choose.random())
                if over.is_set():
                    break


def _render(trainer: Any, panel: Any, seed: int, done: Counter[str], over: threading.Event) -> None:
    """As the host does: a picture that is not wanted any more ends at any line."""
    choose = random.Random(seed)
    while not over.is_set():
        with trainer.train_lock:
            model = panel.scene
            training = model.training
            model.eval()
            try:
                with SetTrace(_interrupt(choose.choice([50, 500, 5000, 10**9]))):
                    model.get_outputs_for_camera(_camera())
                done["whole pictures"] += 1
            except IOChangeException:
                done["interrupted pictures"] += 1
            finally:
                if training:
                    model.train()
        over.wait(0.05)


def _interrupt(lines: int) -> Callable[..., Any]:
    """A trace function that ends what is traced after some lines, as the host's does when the camera moves."""
    left = [lines]

    def trace(frame: Any, event: str, argument: Any) -> Any:
        if event == "line":
            left[0] -= 1
            if left[0] == 0:
                raise IOChangeException
        return trace

    return trace


def _camera() -> Cameras:
    pose = torch.from_numpy(np.eye(4, dtype=np.float32))[None, :3].clone()
    pose[0, 2, 3] = 4.0
    return Cameras(camera_to_worlds=pose, fx=8.0, fy=8.0, cx=3.0, cy=2.5, width=6, height=5)


def soak_config(make: Callable[..., Any]) -> Any:
    """A run with some neurons to cut and events of its own; `make` makes tiny ones."""
    config = make("soak", schedule="iterative", num_events=3, start_step=20, stop_step=80)
    config.pipeline.model.base_mlp_layer_width, config.pipeline.model.head_mlp_layer_width = 64, 32
    return config


def main() -> None:
    """Soaks and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        config = soak_config(lambda name, **prune: make_config(path, path / "scene", name, **prune))
        print(json.dumps(soak(config, 60 * options.minutes, options.seed), indent=2))


if __name__ == "__main__":
    main()
