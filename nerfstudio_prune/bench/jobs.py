"""What jobs of all suites say of themselves."""

from typing import Any, ClassVar


class SuiteJob:
    """Something that a suite carries out and records; its fields decide, with the scale, what it gives."""

    folder: ClassVar[str]
    """Folder of their records."""

    @property
    def sources(self) -> tuple[str, ...]:
        """Runs whose last checkpoint it needs."""
        return ()

    @property
    def needs(self) -> tuple[str, ...]:
        """Jobs that have to be recorded before it."""
        return self.sources

    @property
    def told_steps(self) -> str:
        """Training steps that it takes, for a person; empty where it measures only."""
        return ""

    def sizes(self, scale: Any) -> dict[str, Any]:
        """Sizes of the scale that decide what it gives.

        Args:
            scale: Sizes of the suite.
        """
        return {}


class SplatSuiteJob(SuiteJob):
    """What jobs with Gaussians say of themselves."""

    folder: ClassVar[str] = "splat-runs"

    def settings(self, scale: Any) -> dict[str, Any]:
        """What decides what it gives, beside its fields.

        Args:
            scale: Sizes of the suite.
        """
        return {"options": dict(scale.options), "views": scale.views}
