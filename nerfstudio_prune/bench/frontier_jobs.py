"""Jobs of the suite of everything, as data. Carries nothing out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from nerfstudio_prune.bench.jobs import SuiteJob

FOLDER = "frontier-runs"


@dataclass(frozen=True)
class FrontierRun(SuiteJob):
    """Finished runs of all kinds, rendered in turns."""

    folder: ClassVar[str] = FOLDER
    seed: int
    networks: Mapping[str, str] = field(default_factory=dict)
    """Label -> run of a network."""
    tiny: Mapping[str, str] = field(default_factory=dict)
    """Label -> run of tiny networks."""
    gaussians: Mapping[str, str] = field(default_factory=dict)
    """Label -> run of Gaussians."""
    rounds: int = 5
    """Views that are timed."""
    stock_rows: int = 20
    """Of a picture by the host's model every so manieth row of pixels is rendered, and the time multiplied."""

    @property
    def name(self) -> str:
        """Unique within the suite."""
        return f"frontier-s{self.seed}"

    @property
    def sources(self) -> tuple[str, ...]:
        """Runs whose last checkpoint it needs."""
        return (*self.networks.values(), *self.tiny.values(), *self.gaussians.values())

    def sizes(self, scale: Any) -> dict[str, Any]:
        """Views that quality is measured on."""
        return {"views": scale.views}
