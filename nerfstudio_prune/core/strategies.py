"""From scores to the units (neurons, points) that stay. `STRATEGIES` is the registry: name -> dataclass."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Optional, TypeVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Selection:
    """The units of one part that stay: the neurons of a layer, the points of a cloud."""

    keep: Int64[Tensor, " kept"]
    """Indices, sorted and unique."""
    scale: Optional[Float[Tensor, " kept"]] = None
    """Factor for what each kept unit gives on, a neuron's outgoing column; None leaves the weights as they are."""
    refit: Mapping[str, tuple[Tensor, Optional[Tensor]]] = field(default_factory=dict)
    """Module path of a layer that reads the units -> new weight [outputs, inputs] and bias, in the size before the
    cut; columns of units that leave count for nothing. Layers that are not named keep their values."""


class Strategy(ABC):
    """Rule that chooses units. A subclass is a dataclass whose fields are its options.

    Register it with `@register_strategy("name")`; a field `x` is then filled from the option `name_x` of the
    pruning configuration if there is one.
    """

    @property
    def default_score(self) -> Optional[str]:
        """Score used when none is chosen; None for rules that use no score."""
        return "w_in_w_out"

    @property
    def reweights(self) -> bool:
        """Whether selections carry a `scale`."""
        return False

    @property
    def needs_samples(self) -> bool:
        """Whether `own_scores` reads statistics on samples."""
        return False

    def own_scores(self, group: Any, n_keep: int) -> Optional[Float[Tensor, " units"]]:
        """Scores of a rule that ranks the units itself; None for rules that take the scores that are chosen.

        Args:
            group: The part, with statistics if `needs_samples`; for neurons a `NeuronGroup`.
            n_keep: Number of units that stay.
        """
        return None

    @abstractmethod
    def select(self, scores: Float[Tensor, " units"], n_keep: int, generator: torch.Generator) -> Selection:
        """Chooses exactly `n_keep` units, whatever the ties.

        Args:
            scores: Finite score per unit, on the CPU; higher means keep.
            n_keep: Number of units that stay, in [1, units].
            generator: The only source of randomness.
        """


STRATEGIES: dict[str, type[Strategy]] = {}
"""Name -> strategy class."""

RESERVED_NAMES = {"none"}
"""Words that option `strategy` takes besides the names of the registry."""

S = TypeVar("S", bound=type[Strategy])


def register_strategy(name: str) -> Callable[[S], S]:
    """Class decorator that makes a strategy available under a name.

    Raises:
        ValueError: If the name is taken.
    """

    def register(cls: S) -> S:
        if name in STRATEGIES or name in RESERVED_NAMES:
            raise ValueError(f"strategy name {name!r} is taken")
        STRATEGIES[name] = cls
        return cls

    return register


def select(strategy: Strategy, scores: Float[Tensor, " units"], n_keep: int, generator: torch.Generator) -> Selection:
    """Applies a strategy and checks what went in and what came out.

    Args:
        strategy: The rule.
        scores: Score per unit, higher means keep.
        n_keep: Number of units that stay. Keeping all is the identity for every strategy.
        generator: The only source of randomness.

    Raises:
        ValueError: If `n_keep` is out of range, a score is not finite, or the strategy broke its contract.
    """
    units = scores.shape[0]
    if not 1 <= n_keep <= units:
        raise ValueError(f"n_keep must be in [1, {units}], got {n_keep}")
    if n_keep == units:
        return Selection(torch.arange(units))
    if not bool(torch.isfinite(scores).all()):
        raise ValueError(f"scores must be finite, got {int((~torch.isfinite(scores)).sum())} that are not")
    selection = strategy.select(scores.detach().cpu().double(), n_keep, generator)
    keep = selection.keep
    if keep.shape != (n_keep,) or bool((keep[1:] <= keep[:-1]).any()) or keep[0] < 0 or keep[-1] >= units:
        raise ValueError(
            f"{type(strategy).__name__} must give {n_keep} sorted unique indices below {units}, got {keep.tolist()}"
        )
    return selection


@register_strategy("uniform")
@dataclass
class UniformStrategy(Strategy):
    """Every subset of `n_keep` units is equally likely; the random control of every comparison."""

    @property
    def default_score(self) -> None:
        """No score."""
        return None

    def select(self, scores: Float[Tensor, " units"], n_keep: int, generator: torch.Generator) -> Selection:
        """Draws without replacement; the scores only tell how many units there are."""
        return Selection(torch.randperm(scores.shape[0], generator=generator)[:n_keep].sort().values)


@register_strategy("importance")
@dataclass
class ImportanceStrategy(Strategy):
    """Keeps the units with the highest scores (Ding et al. 2025, arXiv 2504.00950, section 3.5). Deterministic."""

    def select(self, scores: Float[Tensor, " units"], n_keep: int, generator: torch.Generator) -> Selection:
        """Takes by rank, never by threshold; of equal scores the lower index stays."""
        return Selection(scores.argsort(descending=True, stable=True)[:n_keep].sort().values)


@register_strategy("coreset")
@dataclass
class CoresetStrategy(Strategy):
    """Samples neurons with probability proportional to their score until `n_keep` distinct ones are found.

    `paper` is Algorithm 1 of Ding et al. 2025 (arXiv 2504.00950): `pr ~ w_in * relu(beta * w_out)` on the means.
    Non-negative scores pass the ReLU unchanged, so beta cancels and the score is `w_in_w_out`. Its weight u is
    unsigned and the same for every output; it cannot stand in for a weight and is not used: kept weights stay.

    `mussay` is the source (Mussay et al. 2020, arXiv 1907.04018, Algorithm 1): probability from `sensitivity`, and
    outgoing columns of kept neurons are multiplied by `count / (draws * pr)`, which makes the layer's output unbiased.

    Sampling with replacement ends when one more distinct neuron than wanted appears, and that last draw is discarded;
    the drawn sequence is then exchangeable and `count / (draws * pr)` has expectation 1 for every neuron. `count` is
    taken as its expectation given the order in which the neurons appeared, which lowers the variance.
    """

    variant: Literal["paper", "mussay"] = "paper"
    """`paper` keeps the weights, `mussay` re-weights the outgoing columns."""

    def __post_init__(self) -> None:
        if self.variant not in ("paper", "mussay"):
            raise ValueError(f"coreset_variant must be paper or mussay, got {self.variant!r}")

    @property
    def default_score(self) -> str:
        """The variant's own."""
        return "w_in_w_out" if self.variant == "paper" else "sensitivity"

    @property
    def reweights(self) -> bool:
        """Whether the variant re-weights."""
        return self.variant == "mussay"

    def select(self, scores: Float[Tensor, " units"], n_keep: int, generator: torch.Generator) -> Selection:
        """Simulates the draws in one pass, so that tiny probabilities cost no time.

        Independent exponential clocks with rates `pr` ring in the order in which distinct neurons appear; between two
        new ones the number of repeats is geometric. Neurons of probability zero come last, by index.

        Raises:
            ValueError: If a score is negative.
        """
        if bool((scores < 0).any()):
            raise ValueError(f"coreset sampling needs non-negative scores, got a minimum of {scores.min().item()}")
        clocks = torch.empty_like(scores).exponential_(generator=generator) / scores
        order = clocks.argsort(stable=True)
        keep, positions = order[:n_keep].sort()
        n_positive = int((scores > 0).sum())
        if not self.reweights:
            return Selection(keep)
        if n_keep >= n_positive:
            return Selection(keep, torch.ones(n_keep, dtype=scores.dtype))
        pr = (scores / scores.sum())[order]
        unseen = pr.flip(0).cumsum(0).flip(0)[1 : n_keep + 1]  # mass not yet drawn after 1, 2, ..., n_keep neurons
        uniform = torch.rand(n_keep, generator=generator, dtype=scores.dtype).clamp_min(math.ulp(0.0))
        repeats = (uniform.log() / torch.log1p(-unseen.clamp(max=1 - 2**-53))).floor()
        draws = n_keep + repeats.sum()
        # Neuron i takes part in the repeats of every stage from its own arrival on, in proportion to its probability.
        shares = (repeats / (1 - unseen)).flip(0).cumsum(0).flip(0)
        count = 1 + pr[:n_keep] * shares
        return Selection(keep, (count / (draws * pr[:n_keep]))[positions])
