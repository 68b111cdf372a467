"""The folder *KiloNeRF* of the viewer: what the run is at, what its pictures cost, and what they are stopped by."""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Optional

from torch import Tensor

from nerfstudio_prune.core.form import FormField
from nerfstudio_prune.kilo.model import KiloModel
from nerfstudio_prune.kilo.narrowing import described
from nerfstudio_prune.kilo.outputs import FURTHER, ViewOutputs
from nerfstudio_prune.kilo.phases import Phases
from nerfstudio_prune.kilonerf.budget import megabytes

if TYPE_CHECKING:  # nothing of the viewer is imported before there is one
    from nerfstudio_prune.viewer.folder import Frame
    from nerfstudio_prune.viewer.session import TrainingState

OF_TEACHER = ("teacher", "difference")
"""Outputs that there are in the first phase of a training only."""
THRESHOLD, PASS = "transmittance threshold", "samples per pass"
MOST_LIGHT, MOST_SAMPLES = 0.5, 64.0
"""Ends of the sliders, where the options of the run do not lie beyond."""


@dataclass(frozen=True)
class Work:
    """What a picture took."""

    samples: float
    """Samples of a ray that were evaluated, in the mean of all rays."""
    most: int
    """Those of the ray that had most."""


class KiloFolder:
    """What KiloNeRF offers in the viewer.

    Args:
        model: The model.
        phases: Gives the phases of the run; None where nothing is trained.
    """

    title = "KiloNeRF"
    cpu_still = 384
    split = "networks"

    def __init__(self, model: KiloModel, phases: Callable[[], Optional[Phases]]) -> None:
        self.model: Any = model
        self.phases = phases

    def further(self, trains: bool) -> Mapping[str, int]:
        """Name of each output that is rendered only where it is shown -> channels; the teacher's in a training only.

        Args:
            trains: Whether there is a training.
        """
        return {name: channels for name, channels in FURTHER.items() if trains or name not in OF_TEACHER}

    def fields(self) -> Sequence[FormField]:
        """When a ray is followed no further."""
        config = self.model.config
        light, samples = float(config.transmittance_threshold), float(config.samples_per_pass or 0)
        return (
            FormField(
                THRESHOLD,
                light,
                "Light below which a ray is followed no further, the largest error of a colour: fewer samples, and "
                "where there are passes a faster picture. In this viewer only.",
                high=max(MOST_LIGHT, light),
                step=0.005,
                slider=True,
            ),
            FormField(
                PASS,
                samples,
                "Samples of a ray between two looks at what light is left; 0: as many as suit. On a CPU that is all "
                "at once, and the threshold then has no effect. In this viewer only.",
                high=max(MOST_SAMPLES, samples),
                step=1.0,
                slider=True,
            ),
        )

    def stand_in(self, values: Mapping[str, Any]) -> KiloModel:
        """The model with other options of rendering; networks and cells are shared.

        Args:
            values: Name of the field -> value, checked.
        """
        other = copy(self.model)
        # The end of a slider may be 1, where rays would show nothing.
        light, samples = min(float(values[THRESHOLD]), 0.999), int(values[PASS])
        other.config = replace(other.config, transmittance_threshold=light, samples_per_pass=samples or None)
        return other

    def measured(self, outputs: Mapping[str, Tensor]) -> Work:
        """How many samples a picture took.

        Args:
            outputs: What the model gave.
        """
        assert isinstance(outputs, ViewOutputs)
        counts = outputs.counts
        return Work(float(counts.float().mean()), int(counts.max())) if counts.numel() else Work(0.0, 0)

    def text(self, step: int, training: "TrainingState", frame: Optional["Frame"]) -> str:
        """Phase, sizes, and what the last picture took.

        Args:
            step: Training step that ended last.
            training: What the trainer does.
            frame: The last picture; None if there was none.
        """
        from nerfstudio_prune.viewer.texts import table  # noqa: PLC0415  only with a viewer

        live, networks = self.model.cells.live, self.model.networks
        if live is None:
            return "no networks yet"
        x, y, z = live.grid.shape
        parameters = networks.num_parameters
        rows = [
            ("networks", f"{networks.num_networks:,}"),
            ("cells", f"{live.count:,} of {x * y * z:,} live"),
            ("parameters", f"{parameters:,}"),
            ("MB in fp32", f"{megabytes(parameters):.2f}"),
        ]
        if sum(count > 0 for count in networks.counts) > 1:
            rows.append(("widths", described(networks)))
        if frame is not None:
            rows += [
                ("samples/ray", f"{frame.measured.samples:.2f}, at most {frame.measured.most:,}"),
                ("picture", f"{1000 * frame.seconds:,.0f} ms, {frame.width:,} x {frame.height:,}"),
            ]
        return f"{self._stage(step, training)}\n\n{table(('', 'now'), rows)}"

    def _stage(self, step: int, training: "TrainingState") -> str:
        """Where the run stands, in words."""
        phases = self.phases()
        if phases is None:
            return f"**trained**, step {step:,}"
        first = phases.phase(step) == "distil"
        begin, end = (0, phases.distil_steps) if first else (phases.distil_steps, phases.steps)
        more = {"paused": ", paused", "completed": ", training has ended"}.get(training, "")
        return f"**{phases.phase(step)}**, step {step - begin + 1:,} of {end - begin:,}{more}"
