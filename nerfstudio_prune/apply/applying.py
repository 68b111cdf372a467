"""From a finished run to a smaller one: opened, cut in memory, written as a whole."""

import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

from nerfstudio_prune.apply.command import Apply
from nerfstudio_prune.apply.cutting import cut
from nerfstudio_prune.apply.folder import digest, name_run, write_run
from nerfstudio_prune.apply.kinds import kind_of
from nerfstudio_prune.apply.opened import Asked, Kind, Opened
from nerfstudio_prune.apply.options import check_promise, given_options
from nerfstudio_prune.apply.recovering import check_recovery, recover
from nerfstudio_prune.apply.searching import SHARES, smallest
from nerfstudio_prune.apply.tables import loss_text, size_table
from nerfstudio_prune.apply.training import content_of
from nerfstudio_prune.apply.trying import Trials
from nerfstudio_prune.core.plain import shown
from nerfstudio_prune.engine.saved_run import read_config

CURVE = (0.1, 0.15, 0.28, 0.5)
"""Shares of the present size that a dry run shows."""
RAYS, PROMISED_RAYS, LEAST_RAYS, MOST_RAYS = 2048, 16_384, 8192, 2**20
"""Rays to measure on: unless told otherwise, also where the quality is promised, at least then, and at most."""


def apply(asked: Apply) -> None:
    """Cuts a run, and writes what is left as a new one.

    Args:
        asked: Options of the command.

    Raises:
        ValueError: See `Apply.main`.
    """
    start = time.perf_counter()
    file = asked.load_config
    config = read_config(file)
    kind = kind_of(config, file)
    options = _options(kind, asked)
    if not torch.cuda.is_available():
        torch.set_flush_denormal(True)  # as in a training
    opened = kind.open(config, file, Asked(asked.step, asked.data, _rays(asked)))
    options = kind.without_recovery(options, opened.pixels)
    check_recovery(asked.recovery_steps, opened.without_data)
    folder = name_run(opened.config, asked.output_dir, asked.experiment_name, asked.timestamp)
    sources = (file, opened.checkpoint.path)
    former = digest(*sources)
    if opened.without_data:
        CONSOLE.print(f"[yellow]Nothing is measured: {escape(opened.without_data)}", soft_wrap=True)
    if not opened.keeps_moments:
        CONSOLE.print("[yellow]The checkpoint has no moments: a training that goes on begins with new ones")
    promised = asked.target_psnr_drop
    if promised is not None:
        options = _searched(kind, opened, options, promised)
    elif asked.dry_run and not opened.without_data:
        _show_curve(kind, opened, options)
    drop = cut(opened, options)
    CONSOLE.print(f"loss: {loss_text(drop)} dB (mean over views, ± 2 standard errors)")
    if promised is not None and (drop is None or drop.bound > promised):
        raise ValueError(f"--target-psnr-drop {promised:g}: the cut loses {loss_text(drop)} dB; nothing is written")
    if asked.dry_run:
        CONSOLE.print(f"dry run, nothing is written; it took {time.perf_counter() - start:.0f} s")
        return
    opened.config.pipeline.prune = options  # type: ignore[attr-defined]
    content = content_of(opened.config, opened.checkpoint, opened.model, opened.optimizers)
    if digest(*sources) != former:
        raise ValueError(f"--load-config {file}: the run has changed while it was read; nothing is written")
    written = write_run(folder, opened.config, content, file.parent)
    if asked.recovery_steps:
        recover(opened.config, asked.recovery_steps)
    _tell(written, opened, time.perf_counter() - start)


def _options(kind: Kind, asked: Apply) -> Any:
    options: Any = given_options(kind.options(), asked.prune)
    if asked.target_psnr_drop is not None and asked.target_mb is not None:
        raise ValueError("--target-psnr-drop searches the size, and --target-mb says what it is; give one of the two")
    if asked.target_psnr_drop is not None:
        check_promise(options, kind.targets, asked.target_psnr_drop)
    if asked.target_mb is not None:
        options = replace(options, target_mb=asked.target_mb)
    options.validate()
    return options


def _rays(asked: Apply) -> int:
    """Rays to measure on.

    Raises:
        ValueError: If they are too few or too many.
    """
    promised = asked.target_psnr_drop is not None
    least, usual = (LEAST_RAYS, PROMISED_RAYS) if promised else (0, RAYS)
    rays = usual if asked.rays is None else asked.rays
    if not least <= rays <= MOST_RAYS:
        what = " with --target-psnr-drop" if promised else ""
        raise ValueError(f"--rays must be in [{least}, {MOST_RAYS}]{what}, got {shown(rays)}")
    return rays


def _searched(kind: Kind, opened: Opened, options: Any, promised: float) -> Any:
    """Options with the smallest size that keeps a promise.

    Raises:
        ValueError: If there is none, or nothing to measure on.
    """
    if opened.without_data:
        raise ValueError(f"--target-psnr-drop {promised:g} is measured on training views: {opened.without_data}")
    trials = Trials(kind, opened, options)
    if len(trials.before) < 2:
        raise ValueError(
            f"--target-psnr-drop {promised:g} takes at least two views that the cut is not judged by, and there are "
            f"{len(trials.before)}; give a size"
        )
    best, tried = smallest(trials.possible(SHARES), trials.probe, promised)
    _show(opened, trials, tried)
    if best is None:
        largest = max(tried, key=lambda probe: probe.share)
        raise ValueError(
            f"--target-psnr-drop {promised:g}: the largest size that was tried, {largest.share:.0%} of the present "
            f"one, loses {loss_text(largest.drop)} dB; nothing is written"
        )
    return best.options


def _show_curve(kind: Kind, opened: Opened, options: Any) -> None:
    """Quality at several sizes, by the rule that is asked for."""
    given = {name.partition(".")[0]: None for name in options.names_given() if name.partition(".")[0] in kind.targets}
    fresh = kind.options()
    trials = Trials(kind, opened, replace(options, **{name: getattr(fresh, name) for name in given}))
    try:
        shares = trials.possible(CURVE)
    except ValueError as error:  # masks of single weights leave the size as it is
        CONSOLE.print(f"[yellow]No other sizes are shown: {escape(str(error))}", soft_wrap=True)
        return
    if len(trials.before):
        _show(opened, trials, [trials.probe(share) for share in shares])


def _show(opened: Opened, trials: Trials, probes: Any) -> None:
    before = float(trials.before.mean())
    CONSOLE.print(size_table(trials.subject, before, probes, opened.held_out.description))


def _tell(written: Path, opened: Opened, seconds: float) -> None:
    """Says where the new run is, and what can be done with it."""
    place, config = shlex.quote(str(written)), opened.config
    for label, line in {
        "written": f"{place}, in {seconds:.0f} s",
        "measure it": f"ns-eval --load-config {place}",
        "look at it": f"ns-viewer --load-config {place}",
        "train on": f"ns-train {config.method_name} --load-config {place}",
    }.items():
        CONSOLE.print(escape(f"{label + ':':12}{line}"), soft_wrap=True)
