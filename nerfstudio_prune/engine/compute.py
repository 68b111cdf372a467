"""Options of what holds for the whole process while it computes: threads, the precision of products, memory."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from nerfstudio.configs.base_config import PrintableConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipelineConfig

from nerfstudio_prune.engine.checks import check_values
from nerfstudio_prune.engine.options import Rule, at_least
from nerfstudio_prune.engine.products import WantedPrecision
from nerfstudio_prune.engine.threads import cores


@dataclass
class ComputeConfig(PrintableConfig):
    """Threads, precision, memory. They hold for the whole process; a training puts back what was there before it."""

    num_threads: Optional[int] = None
    """Threads of one operation in a training, at most as many as there are cores. On a CPU one or all, whichever is
    faster, is measured in the first steps, after each event and every few thousand steps. None: as measured."""
    matmul_precision: WantedPrecision = "auto"
    """Precision of products of float32 matrices, as in `torch.set_float32_matmul_precision`: high and medium may round
    to TF32 or bfloat16 where that is faster. auto takes medium on a CPU where it is measured to be faster and as exact
    as highest, else highest; on a GPU highest."""
    keep_memory: bool = True
    """Memory that a training step frees stays with the process for the next step, which is faster than getting it from
    the system anew. Linux with glibc; elsewhere, and where MALLOC_ variables are set, without effect."""


@dataclass
class ComputePipelineConfig(VanillaPipelineConfig):
    """Stock pipeline with these options."""

    compute: ComputeConfig = field(default_factory=ComputeConfig)
    """Threads, precision of products, memory."""

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Is called for the `config.yml` of a run; those of earlier versions have no such options."""
        vars(self).update(state)
        vars(self).setdefault("compute", ComputeConfig())


def check_compute(config: Any, trains: bool) -> None:
    """Checks these options.

    Args:
        config: The `ComputeConfig`.
        trains: Whether there is a training to come; one that is only shown may be from a larger machine.

    Raises:
        ValueError: Names the option, what was found and what was expected.
    """
    holds, expected = at_least(1, cores()) if trains else at_least(1)
    known = f"{expected}, the cores that this process may use" if trains else expected
    rules: tuple[Rule, ...] = (
        (("num_threads",), holds, known),
        (("matmul_precision",), lambda value: True, "one of its words"),
        (("keep_memory",), lambda value: True, "True or False"),
    )
    check_values(config, "pipeline.compute.", rules)
