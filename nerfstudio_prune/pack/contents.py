"""The bytes of a run's file, by the profile."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import torch

from nerfstudio_prune.engine.saved_run import SavedRun, noted_transforms
from nerfstudio_prune.gaussians.contributions import collect
from nerfstudio_prune.gaussians.scores import score_by_name
from nerfstudio_prune.pack.command import Pack
from nerfstudio_prune.pack.fitting import largest_budget, smallest_budget
from nerfstudio_prune.pack.quality import mean_psnr, packed_model
from nerfstudio_prune.pack.run_views import RunViews
from nerfstudio_prune.raster.gaussians import Gaussians
from nerfstudio_prune.splat_files.evidence import Evidence
from nerfstudio_prune.splat_files.packed import decode_packed, encode_packed, encode_paper
from nerfstudio_prune.splat_files.profiles import PAPER_BITS, PROFILES, ProfileName, RoundedName
from nerfstudio_prune.splat_files.sensitivities import evidence_from_views
from nerfstudio_prune.splat_files.stored import Placement, StoredGaussians
from nerfstudio_prune.splats.model import SplatPruneModel

MEGABYTE = 10**6
FITTING_VIEWS = 25
"""Training views that a loss is measured on, evenly spaced."""


@dataclass(frozen=True, eq=False)
class Source:
    """What a file is made of."""

    model: SplatPruneModel
    gaussians: Gaussians
    """Those of the model, with coefficients of spherical harmonics as colours, on its device."""
    stored: StoredGaussians
    views: Optional[RunViews]
    options: Pack


def content_of(run: SavedRun[SplatPruneModel], options: Pack, views: Optional[RunViews]) -> bytes:
    """The bytes of the file.

    Args:
        run: The run.
        options: Options of the command.
        views: The run's views; None where its data are not there.

    Raises:
        SizeError: If it does not fit into the largest size.
        ValueError: If something about the run has no place in a file.
    """
    gaussians = run.model.in_harmonics(run.model.gaussians.detach())
    return CONTENTS[options.profile](Source(run.model, gaussians, stored_gaussians(run), views, options))


def stored_gaussians(run: SavedRun[SplatPruneModel]) -> StoredGaussians:
    """What a file holds of a run, as it is: nothing is rounded.

    Args:
        run: The run.
    """
    model = run.model
    gaussians = model.in_harmonics(model.gaussians.detach()).to("cpu").to(torch.float32)
    return StoredGaussians(gaussians, model.config.rasterize_mode == "antialiased", placement_of(run.config_file))


def _small(source: Source) -> bytes:
    return _rounded(source, "small")


def _tiny(source: Source) -> bytes:
    return _rounded(source, "tiny")


def _rounded(source: Source, profile: RoundedName) -> bytes:
    """As coarsely as the profile, or a largest size, allows."""
    options, views, model = source.options, source.views, source.model
    evidence = None if views is None else _evidence(source, views)

    def encoded(budget: Optional[float]) -> bytes:
        return encode_packed(
            source.stored, profile, evidence=evidence, budget=budget, position_bits=options.position_bits
        )

    if options.target_mb is not None:
        largest = int(options.target_mb * MEGABYTE)
        return encoded(smallest_budget(lambda budget: len(encoded(budget)), largest))
    photos = [] if views is None else views.photos("train", FITTING_VIEWS)
    if not photos:
        return encoded(None)
    bound = mean_psnr(model.with_gaussians(model.gaussians), photos) - PROFILES[profile].largest_loss

    def fits(budget: float) -> bool:
        return mean_psnr(packed_model(model, decode_packed(encoded(budget)).gaussians), photos) >= bound

    return encoded(largest_budget(fits))


def _paper(source: Source) -> bytes:
    """By global significance, or by opacity where there are no views."""
    score, seen = score_by_name("opacity", {}), None
    if source.views is not None:
        score = score_by_name("significance", {})
        seen = collect(
            source.gaussians,
            source.views.cameras(),
            source.model.rasterizer,
            source.gaussians.sh_degree,
            source.model.behind.to(source.model.device),
            wants=score.needs,
            antialiased=bool(source.stored.antialiased),
        )
    significance = score(source.gaussians, seen).double().cpu().numpy()
    return encode_paper(source.stored, significance, source.options.position_bits or PAPER_BITS)


CONTENTS: Mapping[ProfileName, Callable[[Source], bytes]] = {"small": _small, "tiny": _tiny, "paper": _paper}
"""Profile -> what makes the file."""


def _evidence(source: Source, views: RunViews) -> Evidence:
    model = source.model
    return evidence_from_views(
        source.gaussians,
        views.cameras(),
        model.rasterizer,
        model.behind.to(model.device),
        antialiased=bool(source.stored.antialiased),
    )


def placement_of(config_file: Path) -> Optional[Placement]:
    """How the scene lies in its data; None where the run does not tell.

    Args:
        config_file: The run's config.yml.
    """
    try:
        noted = noted_transforms(config_file)
        rows = tuple(tuple(float(value) for value in row) for row in noted["transform"][:3])
        placement = Placement(rows, float(noted["scale"]))  # type: ignore[arg-type]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # a run that was copied without it
        return None
    is_whole = len(rows) == 3 and all(len(row) == 4 for row in rows)
    return placement if is_whole else None
