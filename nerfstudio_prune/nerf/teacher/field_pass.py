"""Notes what the fields of a model are asked and answer in a pass, so that nothing is evaluated twice."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Optional

from nerfstudio.cameras.rays import RaySamples
from nerfstudio.field_components.field_heads import FieldHeadNames
from torch import Tensor

from nerfstudio_prune.nerf.model import FIELDS, PruneModel
from nerfstudio_prune.nerf.teacher.distillation import FieldValues


@dataclass
class Heard:
    """One pass of a field."""

    samples: RaySamples
    """Where it was asked."""
    student: FieldValues
    """What it answered."""
    teacher: Optional[FieldValues] = None
    """What the teacher's field says there, once it was asked."""


@contextmanager
def listening(model: PruneModel) -> Iterator[dict[str, Heard]]:
    """Notes the passes of both fields.

    Forward hooks would hear nothing: the host calls `field.forward` itself.

    Args:
        model: Model whose passes are noted.

    Yields:
        Name of the field -> its latest pass; filled in when the model is called.
    """
    heard: dict[str, Heard] = {}

    def noting(name: str, inner: Any) -> Any:
        def forward(samples: RaySamples, *args: Any, **kwargs: Any) -> Any:
            outputs = inner(samples, *args, **kwargs)
            heard[name] = Heard(samples, values_of(samples, outputs))
            return outputs

        return forward

    for name in FIELDS:
        nerf_field = getattr(model, name)
        nerf_field.forward = noting(name, nerf_field.forward)
    try:
        yield heard
    finally:
        for name in FIELDS:
            del getattr(model, name).forward


def values_of(samples: RaySamples, outputs: dict[Any, Tensor]) -> FieldValues:
    """Outputs of a field at samples; in single precision, where squares of small differences do not vanish."""
    assert samples.deltas is not None
    density, rgb = outputs[FieldHeadNames.DENSITY].float(), outputs[FieldHeadNames.RGB].float()
    return FieldValues(density, rgb, samples.deltas.float())
