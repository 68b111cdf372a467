"""Notes what the fields of a model are asked and answer in a pass, so that nothing is evaluated twice."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Optional

from nerfstudio.cameras.rays import RaySamples
from nerfstudio.field_components.field_heads import FieldHeadNames
from torch import Tensor

from nerfstudio_prune.nerf.field_passes import observed_fields
from nerfstudio_prune.nerf.model import PruneModel
from nerfstudio_prune.nerf.teacher.distillation import FieldValues


@dataclass
class FieldPass:
    """One pass of a field."""

    samples: RaySamples
    """Where it was asked."""
    student: FieldValues
    """What it answered."""
    teacher: Optional[FieldValues] = None
    """What the teacher's field says there, once it was asked."""


@contextmanager
def observed_passes(model: PruneModel) -> Iterator[dict[str, FieldPass]]:
    """Notes the passes of all fields.

    Args:
        model: Model whose passes are noted.

    Yields:
        Name of the field -> its latest pass; filled in when the model is called.
    """
    passes: dict[str, FieldPass] = {}

    def note(name: str, samples: RaySamples, outputs: Any) -> None:
        passes[name] = FieldPass(samples, values_of(samples, outputs))

    with observed_fields(model, note):
        yield passes


def values_of(samples: RaySamples, outputs: dict[Any, Tensor]) -> FieldValues:
    """Outputs of a field at samples; in single precision, where squares of small differences do not vanish."""
    assert samples.deltas is not None
    density, rgb = outputs[FieldHeadNames.DENSITY].float(), outputs[FieldHeadNames.RGB].float()
    return FieldValues(density, rgb, samples.deltas.float())
