"""`ns-prune view`: what a page is shown is what the file holds, seen from where the page looks."""

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from PIL import Image
from support.browser import CHROMIUM, PATIENCE, chromium, free_port
from support.exported import small_model, write_model
from support.pages import ROOT
from support.raw_client import RawClient

from nerfstudio_prune.export.rendering import load_exported
from nerfstudio_prune.opening.cameras import Pose, first_look, pose_of, rays_of
from nerfstudio_prune.opening.refining import LEAST, Pace, Pictures
from nerfstudio_prune.opening.view_command import View

TURNED: Any = SimpleNamespace(wxyz=(0.5, 0.5, -0.5, 0.7), position=(1.0, -2.0, 3.0), fov=0.8, aspect=1.5)
"""A camera of viser that stands askew."""


def posed(camera: Any = TURNED) -> Pose:
    """Its pose."""
    found = pose_of(camera)
    assert found is not None
    return found


def test_rays_are_those_of_the_host() -> None:
    """Pages give cameras that look along z with y down, the host's look along -z with y up; a sign that is wrong shows
    the scene upside down or from behind."""
    pose, height = posed(), 10
    focal = height / 2 / np.tan(pose.fov / 2)
    axes = pose.rotation * torch.tensor([1.0, -1.0, -1.0])
    cameras = Cameras(
        torch.cat([axes, pose.position[:, None]], dim=1)[None], fx=focal, fy=focal, cx=7.5, cy=5.0, width=15, height=10
    )
    expected = cameras.generate_rays(0)
    origins, directions = rays_of(pose, 15, height, 0, height)
    torch.testing.assert_close(directions, expected.directions.view(-1, 3), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(origins, expected.origins.view(-1, 3))
    part = rays_of(pose, 15, height, 3, 5)[1]
    assert torch.equal(part, directions[45:75])
    assert torch.allclose(pose.rotation @ pose.rotation.T, torch.eye(3), atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"wxyz": (0.0, 0.0, 0.0, 0.0)},
        {"wxyz": (1.0, 0.0, 0.0)},
        {"position": (float("nan"), 0.0, 0.0)},
        {"position": (1e9, 0.0, 0.0)},
        {"position": None},
        {"fov": 0.0},
        {"fov": 4.0},
        {"aspect": 0.0},
        {"aspect": 1e5},
        {"aspect": "wide"},
    ],
)
def test_cameras_that_are_none(change: dict[str, Any]) -> None:
    """Whoever reaches the server may say anything; the thread that renders must not end with it, nor make a picture of
    a million columns."""
    assert pose_of(SimpleNamespace(**{**vars(TURNED), **change})) is None


class Clock:
    """Time that passes by what is rendered: so many rays in a second."""

    def __init__(self, rate: float) -> None:
        self.rate, self.now, self.rendered = rate, 0.0, 0

    def __call__(self) -> float:
        return self.now

    def render(self, origins: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
        self.now += len(origins) / self.rate
        self.rendered += len(origins)
        return directions


def test_pictures_are_soon_there_and_then_sharp() -> None:
    """The first picture of a new place takes no longer than it may, whatever the network; then each has twice as many
    rows, and when the sharpest is there nothing is computed any more."""
    clock, seen = Clock(5000.0), []
    pictures = Pictures(clock.render, 200, 0.25, Pace(clock))
    for _ in range(10):
        pictures.look(1, posed(), lambda picture: seen.append(picture.shape))
        before = clock.now
        assert pictures.step()
    assert clock.now - before <= 0.25 * 1.1
    assert abs(seen[-1][0] - (5000 * 0.25 / 1.5) ** 0.5) < 2 and seen[-1][1] == round(seen[-1][0] * 1.5)
    first = seen[-1][0]
    while pictures.step():
        pass
    assert [shape[0] for shape in seen[10:]] == [2 * first, 4 * first, 200]
    assert not pictures.step()
    pictures.again(300)
    assert pictures.step()
    pictures.leave(1)
    assert not pictures.step()


def test_camera_that_moves_is_followed_at_once() -> None:
    """A sharp picture of where the camera was would keep the page waiting: it is given up within the time of a soon
    one, and is not shown."""
    clock, seen, moved_at = Clock(1000.0), [], []

    def moving(*rays: torch.Tensor) -> torch.Tensor:
        found = clock.render(*rays)
        if seen == ["first"] and not moved_at:
            moved_at.append(clock.now)
            pictures.look(1, posed(), lambda picture: seen.append("second"))
        return found

    pictures = Pictures(moving, 400, 0.2, Pace(clock))
    pictures.look(1, posed(), lambda picture: seen.append("first"))
    assert pictures.step() and seen == ["first"]
    assert pictures.step() and seen == ["first"] and moved_at == [clock.now]
    assert pictures.step() and seen == ["first", "second"]


def test_pages_take_turns() -> None:
    """One page that refines must not keep another one waiting for its first picture."""
    clock, seen = Clock(1000.0), []
    pictures = Pictures(clock.render, 300, 0.2, Pace(clock))
    pictures.look(1, posed(), lambda picture: seen.append(1))
    pictures.step()
    pictures.look(2, posed(), lambda picture: seen.append(2))
    pictures.step()
    assert seen == [1, 2]


def test_thread_that_renders_waits_and_ends() -> None:
    """It is woken by a page that looks, and leaves when it is told to."""
    shown = threading.Event()
    pictures = Pictures(lambda origins, directions: directions, LEAST, 1.0)
    worker = threading.Thread(target=pictures.run)
    worker.start()
    pictures.look(1, posed(), lambda picture: shown.set())
    assert shown.wait(20)
    pictures.stop()
    worker.join(20)
    assert not worker.is_alive()


def test_first_camera_sees_the_scene(tmp_path: Path) -> None:
    """Somebody who opens a file must see something before he has found out how to walk: the middle of the scene, from
    between the planes of the training views; a photographed one from within."""
    metadata: Any = load_exported(write_model(tmp_path / "a.safetensors", small_model())).metadata
    position, middle = (torch.tensor(point) for point in first_look(metadata))
    assert torch.equal(middle, torch.zeros(3)) and position[2] > 0
    near, far = metadata.collider.trained_near, metadata.collider.far
    assert float((position - middle).norm()) == pytest.approx((near + far) / 2, rel=1e-5)
    inside = load_exported(write_model(tmp_path / "b.safetensors", small_model(use_scene_contraction=True))).metadata
    assert torch.tensor(first_look(inside)[0]).norm() < 1


WITHOUT_NERFSTUDIO = """
import signal
import sys
# As in a terminal; what a shell runs in the background begins with Ctrl+C switched off.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.modules["nerfstudio"] = None
from nerfstudio_prune.cli import entrypoint
sys.argv = ["ns-prune", "view", *sys.argv[1:]]
entrypoint()
"""


@contextmanager
def shown(path: Path, port: int, *options: str) -> Iterator[subprocess.Popen]:
    """A process that shows a file, on a machine without Nerfstudio."""
    process = subprocess.Popen(
        [sys.executable, "-c", WITHOUT_NERFSTUDIO, str(path), "--port", str(port), *options],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_page_gets_the_pictures_of_the_file(tmp_path: Path) -> None:
    """From the command to the pixels that a page gets, where there is no Nerfstudio: the address that was printed
    answers, the last picture is the sharpest and is the file's, and Ctrl+C ends it without a complaint."""
    path, port = write_model(tmp_path / "a.safetensors", small_model()), free_port()
    with shown(path, port, "--resolution", "64") as process:
        assert process.stdout is not None
        line = next(line for line in process.stdout if "Ctrl+C" in line)
        assert f"http://localhost:{port}" in line and str(path) in line
        with RawClient(port) as client:
            sizes: list[int] = []

            def pictures() -> list[dict[str, Any]]:
                return [m for m in client.messages if m["type"] == "BackgroundImageMessage"]

            def sharp() -> bool:
                sizes[:] = [Image.open(io.BytesIO(m["rgb_bytes"])).height for m in pictures()]
                return 64 in sizes

            client.read(until=sharp)
            # The server tells the page where to stand; this one stays where it was.
            assert {"SetCameraPositionMessage", "SetCameraLookAtMessage"} <= {m["type"] for m in client.messages}
            client.messages.clear()
            pose = {"wxyz": (0.0, 1.0, 0.0, 0.0), "position": (0.0, 0.3, 4.0)}
            look = {"look_at": (0.0, 0.0, 0.0), "up_direction": (0.0, 1.0, 0.0)}
            client.say("ViewerCameraMessage", **pose, **look, fov=0.5, aspect=1.0)
            client.read(until=sharp)
            found = np.asarray(Image.open(io.BytesIO(pictures()[-1]["rgb_bytes"])), dtype=float) / 255
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=60)[0]
        assert process.returncode == 0 and "Traceback" not in rest, rest
    camera = posed(SimpleNamespace(**pose, fov=0.5, aspect=1.0))
    expected = load_exported(path)(*rays_of(camera, 64, 64, 0, 64))["rgb"].view(64, 64, 3).numpy()
    assert expected.std() > 0.05
    assert np.abs(found - expected).mean() < 0.02


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt install chromium)")
def test_page_opens(tmp_path: Path) -> None:
    """What the server says of its look can break viser's page, which stays white then."""
    path, port = write_model(tmp_path / "a.safetensors", small_model()), free_port()
    with shown(path, port, "--resolution", "64") as process, chromium() as browser:
        assert process.stdout is not None
        assert any("Ctrl+C" in line for line in process.stdout)
        page, errors = browser.new_page(), []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"http://127.0.0.1:{port}")
        page.get_by_text(f"{path.stat().st_size:,} bytes").wait_for(timeout=1000 * PATIENCE)
        page.get_by_text("Rows at most").wait_for(timeout=1000 * PATIENCE)
        assert errors == []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"port": 0}, "--port must be in"),
        ({"resolution": 5}, "--resolution must be in"),
        ({"seconds": 0.0}, "--seconds must be in"),
        ({"host": "no.such.address.invalid"}, "--host"),
    ],
)
def test_what_is_refused(options: Any, text: str, tmp_path: Path) -> None:
    """viser would wait for ever for an address that this machine has not."""
    path = write_model(tmp_path / "a.safetensors", small_model())
    with pytest.raises(ValueError, match=text):
        View(path, **options).main()
