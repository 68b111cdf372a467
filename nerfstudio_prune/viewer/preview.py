"""A cut on a copy of the network: what it would leave, and what it would look like."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Optional

import torch
from torch import Tensor

from nerfstudio_prune.core.events import ScheduledEvent, Sizes
from nerfstudio_prune.core.subject import NoOptimizers, Picture, Subject
from nerfstudio_prune.engine.options import Recipe
from nerfstudio_prune.engine.threads import follow_training


@dataclass(frozen=True, eq=False)
class Preview:
    """A network as it would be right after a cut."""

    step: int
    """Training step whose weights were cut."""
    model: Any
    """The cut network, for rendering."""
    before: Sizes
    """Sizes of the network as it is."""
    after: Sizes
    """Sizes of the cut one."""
    summary: Sequence[tuple[str, str, str]]
    """What the whole costs: label, without and with the cut."""
    score_name: Optional[str]
    """Score that `scores` are; None for a rule without one."""
    scores: Mapping[str, Tensor]
    """Name of the part -> score of each of its units before the cut, on the CPU."""
    seconds: float
    """What it took."""
    pictures: Mapping[str, Picture] = field(default_factory=dict)
    """Further outputs for the viewer: of the network before the cut, and of what leaves."""


@dataclass(frozen=True, eq=False)
class Draft:
    """A copy of the network, and what a cut of it needs."""

    recipe: Recipe
    """How to cut."""
    subject: Subject[Any]
    """Copy of what is pruned; its state is its own."""
    evidence: Any
    """What the cut is judged by."""
    step: int
    """Training step whose weights these are."""
    seed: int
    """Seed of an event at that step."""
    seconds: float
    """What it took."""


def take_draft(recipe: Recipe, subject: Subject[Any], step: int, seed: int) -> Draft:
    """Copies the network and gathers evidence. To be called with the trainer's lock held, and with nothing but it.

    Args:
        recipe: How to cut.
        subject: What is pruned, as it is trained.
        step: Training step that has just ended.
        seed: Seed of an event at that step.
    """
    start = time.perf_counter()
    if subject.device.type == "cpu":
        # Both belong to the thread, and this is not the trainer's.
        torch.set_flush_denormal(True)
        follow_training()
    copy = subject.detached()
    return Draft(recipe, copy, subject.gather(recipe, seed), step, seed, time.perf_counter() - start)


def cut_draft(draft: Draft) -> Preview:
    """Cuts the copy exactly as an event would. That takes longer than to make it; the training goes on meanwhile.

    Args:
        draft: The copy; it is used up.

    Raises:
        ValueError: If the cut is impossible.
    """
    start = time.perf_counter()
    recipe, copy, evidence = draft.recipe, draft.subject, draft.evidence
    copy.check()
    before = copy.sizes()
    score_name, scores = copy.scores(recipe, evidence)
    event = ScheduledEvent(draft.step, Fraction(1), copy.targets(recipe))
    change = copy.prepare(recipe, event, evidence, NoOptimizers(), draft.seed)
    pictures = copy.pictures(scores, copy.leaving(change))
    change.apply()
    after = copy.sizes()
    rows = zip(copy.summary(before), copy.summary(after), strict=True)
    summary = [(label, without, cut) for (label, without), (_, cut) in rows]
    seconds = draft.seconds + time.perf_counter() - start
    return Preview(draft.step, copy.model, before, after, summary, score_name, scores, seconds, pictures)


@dataclass(frozen=True)
class Scored:
    """What the units of a network were worth at some step."""

    step: int
    """Training step whose weights these are."""
    score_name: str
    """The score."""
    pictures: Mapping[str, Picture]
    """Further outputs for the viewer."""


def score_draft(draft: Draft) -> Scored:
    """Scores the copy as an event would, and cuts nothing.

    Args:
        draft: The copy; it is used up.

    Raises:
        ValueError: If it cannot be scored.
    """
    draft.subject.check()
    name, scores = draft.subject.scores(draft.recipe, draft.evidence)
    if name is None:
        raise ValueError(f"strategy {draft.recipe.strategy} takes no score; choose one that does")
    return Scored(draft.step, name, draft.subject.pictures(scores, {}))
