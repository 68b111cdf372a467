"""Widths and bits under one size: fewer neurons with more bits, or more neurons with fewer, by what is measured.

A run is cut to several sizes in memory, as `ns-prune apply` would cut it, each cut gets the bits that fill the file,
and the file is rendered on rays of training views that neither was judged by.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Optional

import torch

from nerfstudio_prune.core.events import PruneEvent
from nerfstudio_prune.data.held_out import split_views
from nerfstudio_prune.data.pixels import CountedDataset
from nerfstudio_prune.data.view_quality import decibels
from nerfstudio_prune.engine.copies import cut_copy
from nerfstudio_prune.engine.run import event_seed
from nerfstudio_prune.engine.saved_run import SavedRun
from nerfstudio_prune.export.fitting import SizeError
from nerfstudio_prune.export.nerf_rendering import ExportedNeRF
from nerfstudio_prune.export.numbers import Numbers
from nerfstudio_prune.export.outcome import SEED
from nerfstudio_prune.export.reading import decode_exported
from nerfstudio_prune.export.rendering import network_of
from nerfstudio_prune.export.run_file import RunFile
from nerfstudio_prune.export.schema import Scene
from nerfstudio_prune.nerf.calibration import collect_samples
from nerfstudio_prune.nerf.config import PruneConfig
from nerfstudio_prune.nerf.finished import sized, without_recovery
from nerfstudio_prune.nerf.model import PruneModel
from nerfstudio_prune.nerf.rays import draw_rays
from nerfstudio_prune.nerf.recipes import Calibration
from nerfstudio_prune.nerf.subject import subject_of
from nerfstudio_prune.nerf.targets import initial_widths
from nerfstudio_prune.neurons.samples import Samples

SHARES = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.125, 0.09, 0.06)
"""Shares of the present parameters that are tried, falling."""
FILLED = 0.95
"""Share of the largest size below which a file has all the bits that there are: with fewer neurons it only loses."""
RAYS = 16_384
"""Rays that files are measured on."""
RAYS_AT_ONCE = 1024


@dataclass(frozen=True)
class Tried:
    """One cut as a file."""

    share: float
    """Share of the parameters that it was asked to keep."""
    file: RunFile
    content: bytes
    psnr: float
    """On rays that it was not judged by, in dB."""


def best_of(shares: Sequence[float], attempt: Callable[[float], Tried], largest: int) -> tuple[Tried, list[Tried]]:
    """Tries shares until fewer neurons can gain nothing any more.

    Args:
        shares: Shares, falling.
        attempt: Makes and measures the file of a share. A `SizeError` says that there are too many neurons, any other
            `ValueError` of a share below 1 that there is nothing as small.
        largest: Bytes that a file may have.

    Returns:
        The one with the highest PSNR, and all.

    Raises:
        SizeError: If none fits.
    """
    tried: list[Tried] = []
    too_large: Optional[SizeError] = None
    for share in shares:
        try:
            tried.append(attempt(share))
        except SizeError as error:
            too_large = error
            continue
        except ValueError:
            if not tried:
                raise
            break
        if len(tried[-1].content) < FILLED * largest:
            break
    if not tried:
        assert too_large is not None
        raise too_large
    return max(tried, key=lambda one: one.psnr), tried


class JointFiles:
    """Files of one run, cut to several sizes.

    Args:
        run: The run; it stays as it is.
        numbers: What was asked for, with a largest size.
        scene: How its scene lies in its data.
        views: Its training views, at least two.

    Raises:
        ValueError: If there are not as many, or masks leave no pixel.
    """

    def __init__(self, run: SavedRun[PruneModel], numbers: Numbers, scene: Scene, views: CountedDataset) -> None:
        if len(views) < 2:
            raise ValueError(f"--widths joint keeps training views back to measure on, and there are {len(views)}")
        self.run, self.numbers, self.scene = run, numbers, scene
        judged, back = split_views(len(views))
        self.judged = views.subset(judged)
        self.rays, self.colours = draw_rays(views, RAYS, torch.Generator().manual_seed(SEED), torch.tensor(back))
        pixels = int((self.judged.cameras.height * self.judged.cameras.width).sum())
        options = without_recovery(PruneConfig(), pixels)
        self.subject = subject_of(options.filled().strategy, run.model.requires_grad_(False), self._samples)
        self.options = self.subject.at_once(options)
        self._evidence: list[Any] = []

    def attempt(self, share: float) -> Tried:
        """Makes and measures a file.

        Args:
            share: Share of the parameters that stays, in (0, 1]; at 1 nothing is cut.

        Raises:
            SizeError: If it does not fit with the fewest bits.
            ValueError: If there is nothing as small, or a layer cannot be rounded.
        """
        model = self.run.model if share == 1 else self._cut(share)
        samples = self._samples(Calibration(), SEED, model)
        file = RunFile(replace(self.run, model=model), self.numbers, self.scene, samples)
        content = file.encode()
        network: Any = network_of(decode_exported(content))
        return Tried(share, file, content, self._psnr(network.to(model.device)))

    def _samples(
        self, calibration: Calibration, seed: int, model: Optional[PruneModel] = None
    ) -> Mapping[str, Samples]:
        return collect_samples(model or self.run.model, self.judged, calibration, seed)

    def _cut(self, share: float) -> PruneModel:
        """A copy with fewer neurons, whose state tells of the cut."""
        recipe: Any = sized(self.subject, self.options, share).resolve()
        if not self._evidence:  # sizes differ, and what they are judged by does not
            self._evidence.append(self.subject.gather(recipe, event_seed(SEED, self.run.step)))
        copy: Any = cut_copy(self.subject, recipe, self._evidence[0], SEED, self.run.step)
        state = copy.model.prune_state
        event = PruneEvent(
            self.run.step, None, recipe.strategy, recipe.recovery, before=self.subject.sizes(), after=copy.sizes()
        )
        state.initial_sizes, state.history = initial_widths(self.run.model), [*state.history, event]
        return copy.model.eval()

    @torch.no_grad()
    def _psnr(self, network: ExportedNeRF) -> float:
        model, squares = self.run.model, 0.0
        for begin in range(0, len(self.colours), RAYS_AT_ONCE):
            part = slice(begin, begin + RAYS_AT_ONCE)
            rays = self.rays[part].to(model.device)
            truth = model.renderer_rgb.blend_background(self.colours[part].to(model.device))
            shown = network(rays.origins, rays.directions)["rgb"]
            squares += float((shown - truth).double().square().sum())
        return decibels(squares / self.colours[..., :3].numel())
