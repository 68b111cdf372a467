"""A file is there as a whole or not at all."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from support.full_disk import FullDisk

from nerfstudio_prune.engine.files import remove_abandoned, write_whole

ABANDONED, JUST_MADE, OLD = (".saving-" + 32 * letter for letter in "abc")


def test_reader_sees_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    """A power cut while a checkpoint is written must leave the former one: until the new one is complete nothing may
    have touched it. Afterwards nothing else may lie about, for Nerfstudio takes any name for a checkpoint."""
    path = tmp_path / "folder" / "file"

    def write(file: BinaryIO) -> None:
        file.write(b"new")
        file.flush()
        assert not path.exists() or path.read_bytes() == b"old"
        assert [entry.name for entry in path.parent.iterdir()] == (["file"] if path.exists() else [])

    write_whole(path, write, tmp_path)
    path.write_bytes(b"old")
    write_whole(path, write, tmp_path)
    assert path.read_bytes() == b"new"
    assert sorted(entry.name for entry in tmp_path.rglob("*")) == ["file", "folder"]


def test_other_people_can_read_it_as_before(tmp_path: Path) -> None:
    """Groups share the runs of one machine; a temporary file that only its owner may read must not become the
    checkpoint."""
    former = os.umask(0o027)
    try:
        write_whole(tmp_path / "file", lambda file: file.write(b"1"), tmp_path)
    finally:
        os.umask(former)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("room", [0, 100, 5000])
def test_full_disk_is_an_error_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """`torch.save` hides a full disk behind a RuntimeError of its own, which says «unexpected pos»; people need to read
    that there is no space. The former file stays, and the rest gives its space back."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    FullDisk(monkeypatch).room = room
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_whole(path, lambda file: torch.save({"weights": torch.zeros(10_000)}, file), tmp_path)
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_other_errors_pass_through(tmp_path: Path) -> None:
    """A mistake in a state dict is not to be told as a full disk."""

    def fail(file: BinaryIO) -> None:
        raise RuntimeError("no such layer")

    with pytest.raises(RuntimeError, match="no such layer"):
        write_whole(tmp_path / "file", fail, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_folder_on_a_disk_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints are often a link to a large disk, where a file from beside the link cannot be moved to. The
    unfinished file then lies among the checkpoints, under a name that Nerfstudio's own way of reading names lets pass
    as the oldest."""
    inner, seen = Path.replace, []

    def replace(self: Path, target: Any) -> Path:
        seen.append(self)
        if self.parent != Path(target).parent:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return inner(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    path = tmp_path / "folder" / "step-000000005.ckpt"
    write_whole(path, lambda file: file.write(b"new"), tmp_path)
    assert path.read_bytes() == b"new" and [entry.name for entry in tmp_path.rglob("*")] == ["folder", path.name]
    names = [path.name, seen[-1].name]
    assert sorted(int(x[x.find("-") + 1 : x.find(".")]) for x in names) == [-1, 5]
    seen[-1].write_bytes(b"1")
    remove_abandoned(path.parent)
    assert list(path.parent.iterdir()) == [path]


def test_leftovers_of_a_killed_process_go_and_nothing_else(tmp_path: Path) -> None:
    """A killed save of a large network leaves gigabytes. What another process is writing at this moment, or a person
    calls by a similar name, is not ours to remove."""
    for name in (ABANDONED, f"step--1{ABANDONED}", ".saving-notes", "step-000000001.ckpt", "config.yml"):
        (tmp_path / name).write_bytes(b"1")
    (tmp_path / JUST_MADE).touch()  # its process may be about to lock it
    (tmp_path / OLD).touch()
    os.utime(tmp_path / OLD, (0, time.time() - 3600))
    held: list[str] = []

    def write(file: BinaryIO) -> None:
        file.write(b"unfinished")
        file.flush()
        remove_abandoned(tmp_path)
        held.extend(entry.name for entry in tmp_path.iterdir())
        file.write(b" no more")

    write_whole(tmp_path / "whole", write, tmp_path)
    remaining = {".saving-notes", "step-000000001.ckpt", "config.yml", JUST_MADE}
    assert set(held) > remaining and len(held) == len(remaining) + 1
    assert {entry.name for entry in tmp_path.iterdir()} == remaining | {"whole"}
    assert (tmp_path / "whole").read_bytes() == b"unfinished no more"
    remove_abandoned(tmp_path / "missing")


def test_leftover_of_a_process_that_lives_stays(tmp_path: Path) -> None:
    """Two runs may share a folder by mistake, or one goes on from the folder of another that still saves there."""
    script = (
        "import sys, pathlib, time\nfrom nerfstudio_prune.engine.files import write_whole\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "def write(file):\n    file.write(b'1'); file.flush(); print('writing', flush=True); time.sleep(60)\n"
        "write_whole(folder / 'whole', write, folder)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"writing\n"
        remove_abandoned(tmp_path)
        assert len(list(tmp_path.iterdir())) == 1
    finally:
        process.kill()
        process.wait()
    remove_abandoned(tmp_path)
    assert list(tmp_path.iterdir()) == []
