"""Cuts on copies of a run, which share what they are judged by and what they are measured on."""

from collections.abc import Sequence
from typing import Any

from nerfstudio_prune.apply.cutting import seed_of
from nerfstudio_prune.apply.opened import Kind, Opened
from nerfstudio_prune.apply.quality import drop_of
from nerfstudio_prune.apply.searching import Probe
from nerfstudio_prune.engine.copies import cut_copy
from nerfstudio_prune.engine.run import event_seed


class Trials:
    """Cuts of one run to several sizes.

    Args:
        kind: What it is a run of.
        opened: The run; it stays as it is.
        options: Options of all cuts, without a target.

    Raises:
        ValueError: If the model cannot be cut.
    """

    def __init__(self, kind: Kind, opened: Opened, options: Any) -> None:
        self.kind, self.opened = kind, opened
        self.subject = opened.subject_of(options.filled())
        self.options = self.subject.at_once(options)
        self.subject.check()
        self.seed = seed_of(opened, options)
        self._evidence: list[Any] = []
        self.before = opened.held_out.psnr(opened.model)
        """PSNR of each view before, in dB."""

    def possible(self, shares: Sequence[float]) -> list[float]:
        """Those of some shares of the present size that something can be cut to.

        Args:
            shares: Shares, rising.

        Raises:
            ValueError: If none can; says why not the largest.
        """
        found, reason = [], None
        for share in shares:
            try:
                self.kind.sized(self.subject, self.options, share)
            except ValueError as error:
                reason = error
            else:
                found.append(share)
        if not found and reason is not None:
            raise reason
        return found

    def probe(self, share: float) -> Probe:
        """Cuts a copy, and measures it.

        Args:
            share: Share of the present size that stays.

        Raises:
            ValueError: If what a cut is judged by is not there, or there is nothing as small.
        """
        options = self.kind.sized(self.subject, self.options, share)
        recipe = options.resolve()
        step = self.opened.checkpoint.step
        if not self._evidence:  # sizes differ, and what they are judged by does not
            self._evidence.append(self.subject.gather(recipe, event_seed(self.seed, step)))
        copy = cut_copy(self.subject, recipe, self._evidence[0], self.seed, step)
        after = self.opened.held_out.psnr(copy.model)
        return Probe(share, options, copy.sizes(), drop_of(self.before, after))
