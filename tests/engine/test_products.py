"""The faster way to compute products is taken where it is faster and as exact: both are measured, not believed."""

from collections.abc import Callable
from typing import Any, Optional

import pytest
import torch
from nerfstudio.utils.eval_utils import eval_setup
from support.tiny_run import after_each_step, start, train
from torch import Tensor

from nerfstudio_prune.engine import products
from nerfstudio_prune.engine.products import (
    GAIN,
    Comparison,
    WantedPrecision,
    compare,
    comparison,
    set_precision,
    typical_products,
)

Config = Callable[..., Any]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
FASTER = Comparison(gain=1.9, error=2e-7, highest_error=1.5e-7)
SLOWER = Comparison(gain=0.9, error=2e-7, highest_error=1.5e-7)
ROUNDS_FACTORS = Comparison(gain=2.4, error=2.8e-3, highest_error=1.5e-7)


@pytest.fixture(autouse=True)
def usual_precision() -> None:
    """What a pipeline of another test set for the whole process does not count here."""
    torch.set_float32_matmul_precision("highest")


class Machine:
    """A machine whose products take as long, and are rounded, as they are told to.

    Args:
        gain: How many times faster medium is.
        rounding: Which of three products medium rounds to bfloat16.
    """

    def __init__(self, gain: float, rounding: Optional[int] = None) -> None:
        self.gain, self.rounding, self.now = gain, rounding, 0.0
        self.threads: set[int] = set()
        generator = torch.Generator().manual_seed(0)
        self.pairs = [torch.rand(2, 8, 8, generator=generator) for _ in range(3)]

    def product(self, which: int) -> products.Product:
        one, other = self.pairs[which]

        def computed(kind: torch.dtype) -> Tensor:
            self.threads.add(torch.get_num_threads())
            medium = torch.get_float32_matmul_precision() == "medium"
            self.now += 1.0 / self.gain if medium else 1.0
            rounds = medium and which == self.rounding and kind == torch.float32
            factor = one.bfloat16() if rounds else one
            return factor.to(kind) @ other.to(kind)

        return computed

    def compared(self) -> Comparison:
        return compare([self.product(which) for which in range(3)], lambda: self.now)


@pytest.mark.parametrize("gain", [0.5, GAIN - 0.02, GAIN + 0.02, 1.9])
@pytest.mark.parametrize("rounding", [None, 0, 2])
def test_faster_and_exact(gain: float, rounding: Optional[int]) -> None:
    """Medium is twice as fast on machines without units for bfloat16 and rounds nothing there; on others the same word
    costs four digits, be it in one kind of products only. Neither the speed nor the digits may be taken for granted."""
    found = Machine(gain, rounding).compared()
    assert found.gain == pytest.approx(gain) and found.exact == (rounding is None)
    assert found.choice == ("medium" if rounding is None and gain > GAIN else "highest")
    assert found.highest_error < 1e-6 and (found.error > 1e-4) == (rounding is not None)


def test_reasons() -> None:
    """A person who reads that the faster way is not taken must be able to judge, and to take it nevertheless."""
    text = "medium is 2.4 times as fast here, but rounds the factors: relative error 2.8e-03, with highest 1.5e-07"
    assert ROUNDS_FACTORS.reason == text
    assert FASTER.reason == "1.9 times as fast here as highest, and as exact: relative error 2.0e-07"
    assert Comparison(1.0, 1e-7, 1e-7).reason == "medium is just as exact here, but only 1.0 times as fast"


def test_comparing_leaves_nothing_behind() -> None:
    """It happens before a training, whose random numbers, threads and precision must be as without it, after an error
    as well. One thread computes: several would measure what else the machine does."""
    machine, state, threads = Machine(1.9), torch.get_rng_state(), torch.get_num_threads()
    machine.compared()
    assert machine.threads == {1} and torch.get_num_threads() == threads
    assert torch.get_float32_matmul_precision() == "highest" and torch.equal(torch.get_rng_state(), state)

    def fail(kind: torch.dtype) -> Tensor:
        if torch.get_float32_matmul_precision() == "medium":
            raise MemoryError
        return torch.ones(1, dtype=kind)

    with pytest.raises(MemoryError):
        compare([fail])
    assert torch.get_float32_matmul_precision() == "highest" and torch.get_num_threads() == threads


def test_choice_holds_on_this_machine() -> None:
    """Whatever this machine is: float32 must come out where the choice is medium, at sizes where PyTorch uses the other
    way at all; small products are exact on every machine."""
    found, state = comparison(), torch.get_rng_state()
    assert 0 < found.highest_error < 1e-6
    torch.set_float32_matmul_precision(found.choice)
    for product in typical_products():
        exact = product(torch.float64)
        assert exact.numel() * 64 > 2**17
        assert float((product(torch.float32) - exact).norm() / exact.norm()) < 2e-6
    assert torch.equal(torch.get_rng_state(), state)


@pytest.fixture
def on_machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[Comparison], None]:
    """Lets this be a machine where a comparison comes out as told."""
    return lambda found: monkeypatch.setattr(products, "comparison", lambda: found)


@pytest.mark.parametrize(
    ("wanted", "device", "former", "found", "precision", "told"),
    [
        ("auto", CPU, "highest", FASTER, "medium", "Products: medium (1.9 times"),
        ("auto", CPU, "highest", ROUNDS_FACTORS, "highest", "Products: highest (medium is 2.4 times"),
        ("auto", CPU, "high", FASTER, "high", "Products: high, as it was set before"),
        ("auto", CPU, "medium", ROUNDS_FACTORS, "medium", "Products: medium, as it was set before"),
        ("auto", CUDA, "highest", FASTER, "highest", ""),
        ("auto", CUDA, "high", FASTER, "high", "Products: high, as it was set before"),
        ("high", CUDA, "highest", FASTER, "high", ""),
        ("highest", CPU, "medium", FASTER, "highest", ""),
        ("medium", CPU, "highest", ROUNDS_FACTORS, "medium", ""),
    ],
)
def test_what_is_set(
    wanted: WantedPrecision,
    device: torch.device,
    former: str,
    found: Comparison,
    precision: str,
    told: str,
    on_machine: Callable[[Comparison], None],
) -> None:
    """What a person asks for holds as it is; so does what somebody set before this project came. On a GPU nothing was
    measured, and nothing is changed."""
    on_machine(found)
    torch.set_float32_matmul_precision(former)
    text = set_precision(wanted, device)
    assert torch.get_float32_matmul_precision() == precision
    assert text.startswith(told) and bool(text) == bool(told)


def test_nothing_is_compared_without_need(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fixed precision costs no time at the start, nor does a GPU."""
    monkeypatch.setattr(products, "comparison", lambda: pytest.fail("compared"))
    for wanted, device in (("medium", CPU), ("highest", CPU), ("auto", CUDA)):
        torch.set_float32_matmul_precision("highest")
        set_precision(wanted, device)  # type: ignore[arg-type]


# In the host's loop


def precisions_of(trainer: Any) -> list[str]:
    """Precision at the end of each step from now on."""
    found: list[str] = []
    after_each_step(trainer, lambda step: found.append(torch.get_float32_matmul_precision()))
    return found


def test_training_has_it_and_puts_it_back(
    tiny_config: Config, on_machine: Callable[[Comparison], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """The precision is one for the whole process: what is computed behind the training must not find another one."""
    on_machine(FASTER)
    trainer = start(tiny_config(start_step=4))
    taken = precisions_of(trainer)
    trainer.train()
    assert taken == ["medium"] * 10 and torch.get_float32_matmul_precision() == "highest"
    assert " ".join(capsys.readouterr().out.split()).count("Products: medium (1.9 times as fast here as highest") == 1


def test_error_puts_it_back(tiny_config: Config) -> None:
    """Also where the training fails; a precision that is given holds until then."""
    config = tiny_config(start_step=4)
    config.pipeline.compute.matmul_precision = "medium"
    trainer = start(config)
    taken = precisions_of(trainer)

    def fail(step: int) -> None:
        if step == 2:
            raise RuntimeError("out of memory")

    trainer.callbacks[1].func = fail
    after_each_step(trainer, fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        trainer.train()
    assert taken == ["medium"] * 2 and torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize(
    ("former", "found", "precision"),
    [
        ("highest", FASTER, "highest"),
        ("medium", SLOWER, "medium"),
        ("medium", ROUNDS_FACTORS, "highest"),
        (None, FASTER, "medium"),
        ("exact", FASTER, "medium"),
    ],
)
def test_a_run_that_goes_on_keeps_its_precision(
    tiny_config: Config,
    on_machine: Callable[[Comparison], None],
    capsys: pytest.CaptureFixture[str],
    former: Any,
    found: Comparison,
    precision: str,
) -> None:
    """The clock may say something else than before, and the run would end in other bits; but a machine that rounds the
    factors is not to, and checkpoints of earlier versions say nothing."""
    trainer = train(tiny_config(start_step=4))
    path = trainer.checkpoint_dir / "step-000000009.ckpt"
    content = torch.load(path, weights_only=True)
    assert content["matmul_precision"] == torch.get_float32_matmul_precision()
    content["matmul_precision"] = former
    torch.save(content, path)
    on_machine(found)
    config = tiny_config("on", start_step=4, max_num_iterations=12)
    config.load_dir = path.parent
    resumed = start(config)
    assert torch.get_float32_matmul_precision() == precision
    kept = " ".join(capsys.readouterr().out.split()).count(f"Products: {former}, as in the run that goes on here")
    assert kept == (precision == former)
    taken = precisions_of(resumed)
    resumed.train()
    assert taken and set(taken) == {precision}


def test_a_precision_that_is_given_holds_in_a_run_that_goes_on(tiny_config: Config) -> None:
    """What a person asks for is not to be replaced by what a run chose before."""
    trainer = train(tiny_config(start_step=4))
    config = tiny_config("on", start_step=4)
    config.load_dir, config.pipeline.compute.matmul_precision = trainer.checkpoint_dir, "medium"
    start(config)
    assert torch.get_float32_matmul_precision() == "medium"


def test_evaluation_chooses_too(
    tiny_config: Config, on_machine: Callable[[Comparison], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """`ns-eval`, `ns-viewer` and `ns-render` only build the pipeline, and render with it for the rest of the process.
    What they print is the host's."""
    trainer = train(tiny_config(start_step=4))
    on_machine(FASTER)
    capsys.readouterr()
    eval_setup(trainer.base_dir / "config.yml", test_mode="test")
    assert torch.get_float32_matmul_precision() == "medium" and "Products" not in capsys.readouterr().out
