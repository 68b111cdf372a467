"""Which files of a folder are whole checkpoints, and what a checkpoint is made of."""

import os
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nerfstudio.engine.schedulers import CosineDecaySchedulerConfig, ExponentialDecaySchedulerConfig
from support.tiny_run import same_bits, train

from nerfstudio_prune.engine.checkpoints import (
    NETWORK,
    TRAINING,
    CheckpointError,
    checkpoint_of_step,
    checkpoint_path,
    newest_checkpoint,
    plain,
    read_checkpoint,
    saved_checkpoints,
    write_checkpoint,
)


def state(step: int, **entries: Any) -> dict[str, Any]:
    """A checkpoint of one weight, large enough to be torn in the middle of it."""
    network = {"weight": torch.full((3000,), float(step)), "extra": {"history": [torch.ones(2)]}}
    return {"step": step, "pipeline": network, "optimizers": {}, "schedulers": {}, "scalers": {}, **entries}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with whole checkpoints of steps 1 and 5."""
    for step in (1, 5):
        write_checkpoint(tmp_path / "run" / "nerfstudio_models", state(step))
    return tmp_path / "run" / "nerfstudio_models"


def cut(share: float) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def zeroed(path: Path) -> None:
    """As a disk leaves a file whose length was written before its content when the power went."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle - 2048 : middle + 2048] = bytes(4096)
    path.write_bytes(content)


def replaced(value: Any) -> Callable[[Path], Any]:
    return lambda path: torch.save(value, path)


def compressed(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10_000))


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps(state(9)))


TORN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "it is empty"),
    "first bytes": (cut(0.01), "it is cut off"),
    "half": (cut(0.5), "it is cut off"),
    "without the last byte": (cut(0.9999), "it is cut off"),
    "zeros": (zeroed, "it is damaged: archive/data/0 differs from its checksum"),
    "text": (lambda path: path.write_text("see the other disk"), "expected a whole checkpoint"),
    "picture": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(99)), "expected a whole checkpoint"),
    "compressed": (compressed, "it is compressed"),
    "pickled by Python": (pickled, "expected a whole checkpoint"),
    "with code": (replaced(state(9, scalers={"run": os.getcwd})), "expected a whole checkpoint"),
    "weights only": (replaced({"step": 9, "pipeline": {}}), "it holds no optimizers, scalers"),
    "model alone": (replaced({"weight": torch.ones(2)}), "it holds no step of a training"),
    "list": (replaced([1, 2]), "it holds no step of a training"),
    "step as text": (replaced(state(9) | {"step": "9"}), "it holds no step of a training"),
    "negative step": (replaced(state(9) | {"step": -9}), "it holds no step of a training"),
    "renamed": (replaced(state(4)), "expected the checkpoint of step 9: it is the one of step 4"),
}
"""Name -> how a checkpoint of step 9 is made that is not whole, and what is to be said of it."""


@pytest.mark.parametrize("kind", TORN)
def test_newest_whole_checkpoint_is_taken(folder: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The machine died while it saved: the run must go on from the checkpoint before without anybody guessing its
    step, and say so. Who asks for the torn one by name gets an error that names it, not another step."""
    spoil, reason = TORN[kind]
    torn = write_checkpoint(folder, state(9))
    spoil(torn)
    found = newest_checkpoint(folder, TRAINING)
    assert (found.path, found.step) == (checkpoint_path(folder, 5), 5)
    assert same_bits(found.content, {name: state(5)[name] for name in (*TRAINING, "schedulers")})
    told = capsys.readouterr().out
    assert f"Passed over {torn}" in told and reason in told
    assert f"The newest whole checkpoint is {found.path}" in told
    for path in saved_checkpoints(folder).values():
        if path != torn:
            path.unlink()
    for ask in (newest_checkpoint, lambda folder, entries: checkpoint_of_step(folder, 9, entries)):
        with pytest.raises(CheckpointError) as caught:
            ask(folder, TRAINING)
        assert str(torn) in str(caught.value) and reason in str(caught.value)


def test_whatever_else_lies_in_the_folder_is_ignored(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nerfstudio takes every name for a checkpoint; file managers, editors, copies in progress and people put others
    there. Nothing is to be said of them either: they are no checkpoints that failed."""
    for name in (
        *(".DS_Store", "notes.txt", "README", "step-.ckpt", "step-7.ckpt.tmp", "step-000000007.ckpt.part"),
        *(
            "step-7.pt",
            "STEP-7.ckpt",
            "step--7.ckpt",
            "step-7 (copy).ckpt",
            "step-\N{ARABIC-INDIC DIGIT SEVEN}.ckpt",
            "best.ckpt",
            "-7.ckpt",
        ),
    ):
        (folder / name).write_text("nothing")
    (folder / "step-000000008.ckpt").mkdir()
    (folder / "step-000000009.ckpt").symlink_to(folder / "missing")
    os.mkfifo(folder / "step-000000010.ckpt")
    assert list(saved_checkpoints(folder)) == [1, 5]
    assert newest_checkpoint(folder).step == 5
    assert capsys.readouterr().out == ""


def test_names_go_by_number(folder: Path) -> None:
    """The name of a step of ten digits sorts before those of nine; people who sort files by hand leave digits out."""
    for step in (999_999_999, 1_000_000_000):
        write_checkpoint(folder, state(step))
    torch.save(state(7), folder / "step-7.ckpt")
    assert list(saved_checkpoints(folder)) == [1, 5, 7, 999_999_999, 1_000_000_000]
    assert newest_checkpoint(folder).step == 1_000_000_000
    assert checkpoint_of_step(folder, 7).path.name == "step-7.ckpt"
    write_checkpoint(folder, state(7))
    assert checkpoint_of_step(folder, 7).path.name == "step-000000007.ckpt"


def test_errors_name_the_folder(folder: Path, tmp_path: Path) -> None:
    """People give the run's folder in place of that of its checkpoints, a file in place of a folder, or a step that was
    deleted; before the first save there is none at all."""
    run = folder.parent
    for place in (tmp_path, tmp_path / "missing"):
        with pytest.raises(CheckpointError) as caught:
            newest_checkpoint(place)
        assert str(caught.value) == f"{place}: holds no checkpoint; expected step-*.ckpt"
    with pytest.raises(CheckpointError, match=f"{run}: holds no checkpoint; expected .*, as in {folder}"):
        newest_checkpoint(run)
    with pytest.raises(CheckpointError, match="expected a folder of checkpoints"):
        newest_checkpoint(checkpoint_path(folder, 5))
    with pytest.raises(CheckpointError, match=f"{folder}: holds no checkpoint of step 4; there are 1, 5"):
        checkpoint_of_step(folder, 4)
    with pytest.raises(CheckpointError, match=r"missing\.ckpt: expected a whole checkpoint.* there is no such file"):
        read_checkpoint(folder / "missing.ckpt")
    with pytest.raises(CheckpointError, match="there is no such file"):
        read_checkpoint(folder)


def test_older_format_of_torch_is_read(folder: Path) -> None:
    """Files from before PyTorch 1.6, and of tools that still write so, have no checksums and cannot be mapped."""
    torch.save(state(9), checkpoint_path(folder, 9), _use_new_zipfile_serialization=False)
    assert same_bits(newest_checkpoint(folder).content["pipeline"], state(9)["pipeline"])


def test_evaluation_needs_the_network_alone(folder: Path) -> None:
    """Checkpoints that are passed on often come without the moments, which are two thirds of the file."""
    torch.save({"step": 9, "pipeline": state(9)["pipeline"]}, checkpoint_path(folder, 9))
    assert newest_checkpoint(folder, NETWORK).step == 9
    assert newest_checkpoint(folder, TRAINING).step == 5


def test_what_was_read_does_not_hang_on_the_file(folder: Path) -> None:
    """A file that is mapped into memory and then cut short by someone ends the process without a word. What a training
    keeps as it was loaded, moments and masks, has to be memory of its own."""
    path = write_checkpoint(folder, state(9, optimizers={"fields": {"state": {0: torch.ones(5000)}}}))
    found = read_checkpoint(path, TRAINING)
    path.write_bytes(bytes(path.stat().st_size))
    assert found.content["optimizers"]["fields"]["state"][0].sum() == 5000
    assert found.content["pipeline"]["extra"]["history"][0].sum() == 2


def test_disk_that_cannot_be_mapped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network disks refuse; their checkpoints are whole nevertheless."""
    inner = torch.load

    def load(*values: Any, mmap: bool = False, **named: Any) -> Any:
        if mmap:
            raise RuntimeError("unable to mmap")
        return inner(*values, **named)

    monkeypatch.setattr(torch, "load", load)
    assert newest_checkpoint(folder).step == 5


def test_plain_numbers_are_the_same_numbers() -> None:
    """A resumed run has to go on bit for bit, and module versions that ride on a state dict must not get lost."""
    modules = OrderedDict(weight=torch.ones(2), factor=np.float32(0.1))
    modules._metadata = {"": {"version": 2}}  # type: ignore[attr-defined]
    value = {"lr": np.float64(0.1), "last": [np.int64(3), (np.bool_(True), 1e-300)], "modules": modules, 4: None}
    found = plain(value)
    assert found["lr"] == 0.1 and type(found["lr"]) is float
    assert found["last"] == [3, (True, 1e-300)] and [type(x) for x in found["last"][1]] == [bool, float]
    assert found["modules"]["factor"] == float(np.float32(0.1)) and found["modules"]["weight"] is modules["weight"]
    assert found["modules"]._metadata == {"": {"version": 2}} and type(found["modules"]) is OrderedDict
    assert list(found) == list(value) and type(modules["factor"]) is np.float32


def test_checkpoint_loads_where_there_is_only_torch(tiny_config: Callable[..., Any]) -> None:
    """Checkpoints go to people, and to tools, that have neither this package nor Nerfstudio. Numpy's numbers, which the
    schedulers leave in the state, are refused there by PyTorch 2.6 and later."""
    paths, rates = [], []
    for name, scheduler in {
        "exponential": ExponentialDecaySchedulerConfig(lr_final=1e-5, max_steps=20, warmup_steps=3),
        "cosine": CosineDecaySchedulerConfig(warm_up_end=2, max_steps=20),
    }.items():
        config = tiny_config(name, start_step=3)
        config.optimizers["fields"]["scheduler"] = scheduler
        trainer = train(config)
        (rate,) = trainer.optimizers.schedulers["fields"].get_last_lr()
        assert type(rate) is np.float64  # else this shows nothing
        paths.append(str(trainer.checkpoint_dir / "step-000000009.ckpt"))
        rates.append(float(rate))
    script = (
        "import sys, torch\nstates = [torch.load(path, weights_only=True) for path in sys.argv[1:]]\n"
        "assert not {'nerfstudio', 'nerfstudio_prune'} & set(sys.modules)\n"
        "print([state['schedulers']['fields']['_last_lr'][0] for state in states])"
    )
    done = subprocess.run([sys.executable, "-c", script, *paths], capture_output=True, text=True, check=False)
    assert done.stdout == f"{rates}\n", done.stderr
