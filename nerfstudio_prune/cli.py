"""The command `ns-prune`."""

import sys

import tyro

from nerfstudio_prune.bench.bench import Bench
from nerfstudio_prune.bench.inspect_run import Inspect
from nerfstudio_prune.bench.report import Report
from nerfstudio_prune.demo import Demo


def entrypoint() -> None:
    """Entry point of the console script."""
    tyro.extras.set_accent_color("bright_yellow")
    commands = {"demo": Demo, "bench": Bench, "report": Report, "inspect": Inspect}
    command = tyro.extras.subcommand_cli_from_dict(commands, description="Tools of nerfstudio-prune.")
    try:
        command.main()
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    entrypoint()
