"""The command `ns-prune`."""

import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Optional

import tyro

from nerfstudio_prune.apply.command import Apply
from nerfstudio_prune.bench.command import Bench
from nerfstudio_prune.convert.command import Convert
from nerfstudio_prune.demo.command import Demo
from nerfstudio_prune.engine.terminal import print_in_any_encoding
from nerfstudio_prune.export.command import Export
from nerfstudio_prune.inspect.command import Inspect
from nerfstudio_prune.kilo.command import Distil
from nerfstudio_prune.opening.eval_command import Eval
from nerfstudio_prune.opening.restore_command import Restore
from nerfstudio_prune.opening.view_command import View
from nerfstudio_prune.pack.command import Pack
from nerfstudio_prune.report.command import Report

COMMANDS = {
    "demo": Demo,
    "bench": Bench,
    "report": Report,
    "inspect": Inspect,
    "distil": Distil,
    "apply": Apply,
    "export": Export,
    "eval": Eval,
    "view": View,
    "restore": Restore,
    "convert": Convert,
    "pack": Pack,
}
"""Name -> dataclass of options with a `main`, which imports what the command works with."""

OF_THE_HOST = (
    (r"`torch\.cuda\.amp\.custom_[fb]wd", FutureWarning),
    (r"Using a non-tuple sequence for multidimensional indexing", UserWarning),
    (r"Importing `spectral_angle_mapper` from", FutureWarning),
)
"""Warnings that Nerfstudio's own code gives rise to whenever it is imported, or makes the rays of a view: whoever uses
these commands can do nothing about them."""


def parse(arguments: Optional[Sequence[str]] = None) -> Any:
    """The chosen command with its options.

    Args:
        arguments: Words after `ns-prune`; None for those of this process.

    Raises:
        SystemExit: If they make no command.
    """
    return tyro.extras.subcommand_cli_from_dict(
        COMMANDS, prog="ns-prune", args=arguments, description="Tools of nerfstudio-prune."
    )


def entrypoint() -> None:
    """Entry point of the console script."""
    print_in_any_encoding()
    for message, category in OF_THE_HOST:
        warnings.filterwarnings("ignore", message, category)
    tyro.extras.set_accent_color("bright_yellow")
    try:
        parse().main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # what reads the output, `head` for one, has seen enough
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor can Python write the rest at its end
        sys.exit(141)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    entrypoint()
