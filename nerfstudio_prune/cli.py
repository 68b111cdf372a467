"""The command `ns-prune`."""

import sys
from collections.abc import Sequence
from typing import Any, Optional

import tyro

from nerfstudio_prune.bench.command import Bench
from nerfstudio_prune.demo import Demo
from nerfstudio_prune.inspect.command import Inspect
from nerfstudio_prune.report.command import Report

COMMANDS = {"demo": Demo, "bench": Bench, "report": Report, "inspect": Inspect}
"""Name -> dataclass of options with a `main`."""


def parse(arguments: Optional[Sequence[str]] = None) -> Any:
    """The chosen command with its options.

    Args:
        arguments: Words after `ns-prune`; None for those of this process.

    Raises:
        SystemExit: If they make no command.
    """
    return tyro.extras.subcommand_cli_from_dict(COMMANDS, args=arguments, description="Tools of nerfstudio-prune.")


def entrypoint() -> None:
    """Entry point of the console script."""
    tyro.extras.set_accent_color("bright_yellow")
    command = parse()
    try:
        command.main()
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    entrypoint()
