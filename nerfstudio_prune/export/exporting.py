"""From a finished run to a file: the kinds of runs that can be exported."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nerfstudio.engine.trainer import TrainerConfig

from nerfstudio_prune.engine.saved_run import SavedRunError, read_config
from nerfstudio_prune.export.command import Export
from nerfstudio_prune.export.kilo_exporting import export_kilo
from nerfstudio_prune.export.nerf_exporting import export_nerf
from nerfstudio_prune.export.numbers import Numbers, numbers_of
from nerfstudio_prune.kilo.saved_run import is_of_tiny_networks
from nerfstudio_prune.nerf.saved_run import model_options


@dataclass(frozen=True)
class RunKind:
    """One kind of runs."""

    methods: Sequence[str]
    """Those that make such runs."""
    takes: Callable[[TrainerConfig], bool]
    """Whether a configuration is one of such a run."""
    export: Callable[[TrainerConfig, Export, Numbers], None]
    """Writes the file, and prints what it is worth."""


RUN_KINDS: Sequence[RunKind] = (
    RunKind(("nerf-prune", "vanilla-nerf"), lambda config: model_options(config) is not None, export_nerf),
    RunKind(("kilonerf",), is_of_tiny_networks, export_kilo),
)


def export(options: Export) -> None:
    """Writes a file, reads it back, and prints what it is worth.

    The file is there before anything is rendered, so that whoever interrupts the measurement has it.

    Args:
        options: Options of the command.

    Raises:
        ValueError: See `Export.main`.
    """
    numbers = numbers_of(options)
    config = read_config(options.load_config)
    for kind in RUN_KINDS:
        if kind.takes(config):
            kind.export(config, options, numbers)
            return
    methods = ", ".join(method for kind in RUN_KINDS for method in kind.methods)
    raise SavedRunError(
        f"--load-config {options.load_config}: expected a run of {methods}, got method {config.method_name}"
    )
