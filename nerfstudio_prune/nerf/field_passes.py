"""Lets somebody look on while a model evaluates its fields."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from nerfstudio.cameras.rays import RaySamples

from nerfstudio_prune.nerf.model import PruneModel


@contextmanager
def observed_fields(model: PruneModel, note: Callable[[str, RaySamples, dict[Any, Any]], None]) -> Iterator[None]:
    """Calls `note` with name, samples and outputs of a field after each of its calls, while the body runs.

    Forward hooks would hear nothing: the host calls `field.forward` itself.

    Args:
        model: The model.
        note: What looks on; must not change anything.
    """
    fields = model.fields()

    def observed(name: str, inner: Any) -> Any:
        def forward(samples: RaySamples, *args: Any, **kwargs: Any) -> Any:
            outputs = inner(samples, *args, **kwargs)
            note(name, samples, outputs)
            return outputs

        return forward

    for name, field in fields.items():
        field.forward = observed(name, field.forward)
    try:
        yield
    finally:
        for field in fields.values():
            del field.forward
