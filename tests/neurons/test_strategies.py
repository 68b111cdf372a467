"""From scores to the neurons that stay."""

import itertools
import math
import random
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from nerfstudio_prune.core import strategies
from nerfstudio_prune.neurons.strategies import (
    STRATEGIES,
    CoresetStrategy,
    ImportanceStrategy,
    Selection,
    Strategy,
    UniformStrategy,
    register_strategy,
    select,
)

every_strategy = pytest.mark.parametrize(
    "strategy",
    [
        *(pytest.param(cls(), id=name) for name, cls in STRATEGIES.items()),
        pytest.param(CoresetStrategy("mussay"), id="mussay"),
    ],
)
random_strategies = pytest.mark.parametrize(
    "strategy", [UniformStrategy(), CoresetStrategy(), CoresetStrategy("mussay")], ids=["uniform", "paper", "mussay"]
)
both_variants = pytest.mark.parametrize(
    "strategy", [CoresetStrategy(), CoresetStrategy("mussay")], ids=["paper", "mussay"]
)

SKEWED = torch.tensor([8.0, 1.0, 4.0, 0.5, 2.0, 1.0], dtype=torch.float64)
DRAWS = 4000


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def chi_square(observed: list[float], expected: list[float]) -> float:
    return sum((o - e) ** 2 / e for o, e in zip(observed, expected, strict=True))


def order_probability(order: tuple[int, ...], scores: list[float]) -> float:
    """Probability that distinct neurons first appear in this order, when drawn in proportion to their score."""
    probability, left = 1.0, sum(scores)
    for i in order:
        probability *= scores[i] / left
        left -= scores[i]
    return probability


@every_strategy
@pytest.mark.parametrize("n_keep", [1, 2, 5, 11])
@pytest.mark.parametrize(
    "scores",
    [
        torch.ones(12),
        torch.zeros(12),
        torch.tensor([0.0, 3.0] * 6),
        torch.tensor([1.0] + [0.0] * 11),
        torch.tensor([2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.5]),
    ],
    ids=["equal", "zero", "half zero", "one positive", "steps"],
)
def test_exact_count_whatever_the_ties(strategy: Strategy, n_keep: int, scores: Tensor) -> None:
    """The width after an event is a promise (records compare networks of equal size), and ties are common: dead neurons
    all score zero. Every strategy that is registered, now or later, must give exactly the count, sorted and unique."""
    for seed in range(5):
        selection = select(strategy, scores, n_keep, seeded(seed))
        keep = selection.keep.tolist()
        assert len(keep) == n_keep and keep == sorted(set(keep)) and 0 <= keep[0] and keep[-1] < 12
        assert selection.keep.dtype == torch.int64
        if selection.scale is not None:
            assert selection.scale.shape == (n_keep,) and bool(torch.isfinite(selection.scale).all())


@every_strategy
def test_keeping_all_is_the_identity(strategy: Strategy) -> None:
    """An event that has nothing to remove must not re-weight or reorder anything, also for a coreset that would."""
    generator = seeded()
    before = generator.get_state()
    selection = select(strategy, SKEWED, 6, generator)
    assert selection.keep.tolist() == [0, 1, 2, 3, 4, 5] and selection.scale is None
    assert torch.equal(generator.get_state(), before)


@every_strategy
def test_generator_is_the_only_source_of_randomness(strategy: Strategy) -> None:
    """Dense and pruned runs of one seed must see the same batches of rays, so an event may not advance the global
    random state; and an event must be repeatable from its seed, whatever that global state is."""
    scores = torch.rand(20, generator=seeded(9))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = select(strategy, scores, 8, seeded(3))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again = select(strategy, scores, 8, seeded(3))
    assert torch.equal(first.keep, again.keep)
    assert first.scale is again.scale is None or (
        first.scale is not None and again.scale is not None and torch.equal(first.scale, again.scale)
    )


@random_strategies
def test_random_strategies_depend_on_the_seed(strategy: Strategy) -> None:
    """Error bars over seeds are worth nothing if all seeds choose the same neurons."""
    scores = torch.rand(20, generator=seeded(9)) + 0.5
    assert len({tuple(select(strategy, scores, 8, seeded(seed)).keep.tolist()) for seed in range(20)}) >= 19


@pytest.mark.parametrize("n_keep", range(1, 13))
def test_importance_keeps_the_top(n_keep: int) -> None:
    """Importance means the highest scores, by rank; of equal ones the lower index stays, so that a run can be repeated
    on another machine. The reference sorts (score, index) in Python; the scores repeat, and come in no order."""
    scores = torch.tensor([0.2, 0.9, 0.2, 0.0, 0.9, 0.5, 0.2, 0.0, 0.7, 0.5, 0.9, 0.1])
    ranked = sorted(range(12), key=lambda i: (-scores[i].item(), i))
    assert select(ImportanceStrategy(), scores, n_keep, seeded()).keep.tolist() == sorted(ranked[:n_keep])


def test_importance_takes_negative_scores() -> None:
    """Later scores (Taylor, loss change) can be negative; rank does not mind."""
    scores = torch.tensor([-1.0, -3.0, 2.0, -0.5])
    assert select(ImportanceStrategy(), scores, 2, seeded()).keep.tolist() == [2, 3]


def test_uniform_is_uniform() -> None:
    """The random control stands beside every result, so it has to be random: each of the 10 pairs out of 5 neurons must
    be equally likely, whatever the scores. The bound is the 0.1 % quantile of chi square with 9 degrees of freedom."""
    generator, scores = seeded(), torch.tensor([100.0, 10.0, 1.0, 0.1, 0.0])
    strategy = UniformStrategy()
    counts = Counter(tuple(strategy.select(scores, 2, generator).keep.tolist()) for _ in range(DRAWS))
    pairs = list(itertools.combinations(range(5), 2))
    assert chi_square([counts[pair] for pair in pairs], [DRAWS / 10] * 10) < 27.9


@both_variants
def test_coreset_first_draw_follows_the_score(strategy: CoresetStrategy) -> None:
    """A coreset of one neuron is one draw, whose probability is the normalised score: the definition that all else
    rests on. 0.1 % quantile of chi square with 5 degrees of freedom."""
    generator = seeded()
    counts = Counter(int(strategy.select(SKEWED, 1, generator).keep) for _ in range(DRAWS))
    expected = (SKEWED / SKEWED.sum() * DRAWS).tolist()
    assert chi_square([counts[i] for i in range(6)], expected) < 20.5


@both_variants
@pytest.mark.parametrize(("n_keep", "bound"), [(2, 36.1), (3, 43.8), (5, 20.5)])
def test_coreset_subsets_follow_sequential_sampling(strategy: CoresetStrategy, n_keep: int, bound: float) -> None:
    """The draws are simulated by exponential clocks instead of being made, which is right only if every subset comes
    out as often as when neurons are drawn one after the other. The reference adds up the exact probabilities of all
    orders; the bounds are 0.1 % quantiles of chi square."""
    generator = seeded(1)
    counts = Counter(tuple(strategy.select(SKEWED, n_keep, generator).keep.tolist()) for _ in range(DRAWS))
    scores = SKEWED.tolist()
    subsets = list(itertools.combinations(range(6), n_keep))
    expected = [sum(order_probability(o, scores) for o in itertools.permutations(s)) * DRAWS for s in subsets]
    assert sum(expected) == pytest.approx(DRAWS)
    assert chi_square([counts[s] for s in subsets], expected) < bound


def mussay_samples(scores: Tensor, n_keep: int, seed: int, draws: int = DRAWS) -> list[dict[int, float]]:
    """Many selections, as neuron -> scale."""
    strategy, generator = CoresetStrategy("mussay"), seeded(seed)
    samples = []
    for _ in range(draws):
        selection = strategy.select(scores, n_keep, generator)
        assert selection.scale is not None
        samples.append(dict(zip(selection.keep.tolist(), selection.scale.tolist(), strict=True)))
    return samples


def literal_samples(scores: Tensor, n_keep: int, seed: int) -> list[dict[int, float]]:
    """The definition, draw by draw: until one more distinct neuron than wanted appears, which is discarded."""
    source, weights = random.Random(seed), scores.tolist()
    samples = []
    for _ in range(DRAWS):
        counts: Counter[int] = Counter()
        while True:
            i = source.choices(range(len(weights)), weights)[0]
            if i not in counts and len(counts) == n_keep:
                break
            counts[i] += 1
        draws = sum(counts.values())
        samples.append({i: c / (draws * weights[i] / sum(weights)) for i, c in counts.items()})
    return samples


def mean_and_error(values: list[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    return mean, math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values))


@pytest.mark.parametrize("n_keep", [1, 2, 3, 5])
def test_mussay_reweighting_is_unbiased(n_keep: int) -> None:
    """Re-weighting is there so that the sampled layer computes the full one on average: for every neuron the factor,
    taken as zero when the neuron leaves, must have expectation one. Dividing by the draws made until the n-th
    distinct neuron is off by up to 30 %; the bound here is four standard errors, which the second assertion keeps
    small."""
    samples = mussay_samples(SKEWED, n_keep, seed=2)
    for i in range(6):
        mean, error = mean_and_error([sample.get(i, 0.0) for sample in samples])
        assert abs(mean - 1) < 4 * error, (i, mean, error)
        assert error < 0.1


@pytest.mark.parametrize("n_keep", [2, 3, 5])
def test_mussay_shares_add_up(n_keep: int) -> None:
    """In every single selection the counts add up to the draws, that is, the sum of scale times probability is exactly
    one: a constant output of all neurons alike would be reproduced without any error."""
    total = SKEWED.sum().item()
    for sample in mussay_samples(SKEWED, n_keep, seed=3, draws=200):
        assert sum(scale * SKEWED[i].item() / total for i, scale in sample.items()) == pytest.approx(1, rel=1e-12)


def test_mussay_agrees_with_drawing_literally() -> None:
    """The one-pass simulation must follow the definition, which is a loop over draws. Against that loop, written out:
    the same subsets as often (chi square of two samples, 0.1 %), within each subset the same mean factors (4.5
    standard errors), and less variance, since counts are replaced by their expectations."""
    fast, literal = mussay_samples(SKEWED, 3, seed=4), literal_samples(SKEWED, 3, seed=5)
    by_subset: list[dict[tuple[int, ...], list[dict[int, float]]]] = []
    for samples in (fast, literal):
        groups = defaultdict(list)
        for sample in samples:
            groups[tuple(sorted(sample))].append(sample)
        by_subset.append(groups)
    subsets = set(by_subset[0]) | set(by_subset[1])
    a, b = ([len(groups.get(s, [])) for s in subsets] for groups in by_subset)
    assert sum((x - y) ** 2 / (x + y) for x, y in zip(a, b, strict=True)) < 43.8
    compared = 0
    for subset in subsets:
        if min(len(groups.get(subset, [])) for groups in by_subset) < 100:
            continue
        for i in subset:
            (m, e), (n, f) = (mean_and_error([sample[i] for sample in groups[subset]]) for groups in by_subset)
            assert abs(m - n) < 4.5 * math.hypot(e, f), (subset, i, m, n)
            assert e**2 * len(by_subset[0][subset]) < f**2 * len(by_subset[1][subset])
            compared += 1
    assert compared >= 18


def test_mussay_error_falls_with_the_size() -> None:
    """A coreset that keeps more must approximate better. The layer's output with re-weighted signed outgoing weights is
    compared with the full one, mean square over many draws, for four sizes."""
    generator = seeded(6)
    activations = torch.rand(64, generator=generator, dtype=torch.float64) + 0.1
    outgoing = torch.randn(8, 64, generator=generator, dtype=torch.float64)
    scores, strategy = outgoing.abs().amax(dim=0) * activations, CoresetStrategy("mussay")
    full = outgoing @ activations
    errors = []
    for n_keep in (8, 24, 48, 62):
        total = 0.0
        for _ in range(200):
            s = strategy.select(scores, n_keep, generator)
            assert s.scale is not None
            total += float(((outgoing[:, s.keep] * s.scale) @ activations[s.keep] - full).square().mean())
        errors.append(total / 200)
    assert all(b < 0.6 * a for a, b in itertools.pairwise(errors)), errors


@both_variants
@pytest.mark.parametrize(
    ("n_keep", "expected"), [(3, [1, 3, 6]), (4, [0, 1, 3, 6]), (5, [0, 1, 2, 3, 6]), (6, [0, 1, 2, 3, 4, 6])]
)
def test_zero_probability_comes_last(strategy: CoresetStrategy, n_keep: int, expected: list[int]) -> None:
    """A dead neuron is never drawn, so a literal loop would not end if more are wanted than live; the living ones
    must all stay, the dead ones fill up by index, and with all living neurons kept no factor is needed."""
    scores = torch.tensor([0.0, 1e-6, 0.0, 5.0, 0.0, 0.0, 1.0])
    for seed in range(5):
        selection = select(strategy, scores, n_keep, seeded(seed))
        assert selection.keep.tolist() == expected
        assert selection.scale is None or selection.scale.tolist() == [1.0] * n_keep


@pytest.mark.parametrize("tiny", [1e-12, 1e-30, 1e-45])
@pytest.mark.parametrize("n_keep", [1, 2, 10, 63])
def test_tiny_probabilities_cost_no_time(tiny: float, n_keep: int) -> None:
    """A trained layer has neurons of hardly any score; when they are needed to fill up, a loop over draws would run for
    1e30 rounds (this test would not end). The factors must stay finite and positive, down to float32's smallest
    number, and the likely neuron keeps its weight."""
    scores = torch.full((64,), tiny)
    scores[17] = 1.0
    for seed in range(5):
        selection = select(CoresetStrategy("mussay"), scores, n_keep, seeded(seed))
        assert selection.scale is not None and 17 in selection.keep
        assert bool(torch.isfinite(selection.scale).all()) and bool((selection.scale > 0).all())
        assert selection.scale[selection.keep == 17].item() == pytest.approx(1, rel=1e-6)


@both_variants
def test_negative_scores_are_no_probabilities(strategy: CoresetStrategy) -> None:
    """A signed score with coreset sampling is a mistake in the configuration, not a neuron to be dropped."""
    with pytest.raises(ValueError, match=r"coreset sampling needs non-negative scores, got a minimum of -0\.5"):
        select(strategy, torch.tensor([1.0, -0.5, 2.0]), 2, seeded())


def test_variants_name_their_score() -> None:
    """Each variant comes with the score of its paper and says whether it re-weights (rewinding refuses that), so that
    naming the variant is enough to reproduce it; an unknown one must not fall back to a default."""
    assert (CoresetStrategy().default_score, CoresetStrategy().reweights) == ("w_in_w_out", False)
    assert (CoresetStrategy("mussay").default_score, CoresetStrategy("mussay").reweights) == ("sensitivity", True)
    unchecked: Any = CoresetStrategy()
    unchecked.variant = "other"
    with pytest.raises(ValueError, match="coreset_variant must be paper or mussay, got 'other'"):
        unchecked.__post_init__()


@pytest.mark.parametrize("n_keep", [0, -1, 7])
def test_n_keep_out_of_range(n_keep: int) -> None:
    """A layer without neurons cuts the network in two, and one cannot keep more than there are; both must be said
    before a slice quietly gives something else."""
    with pytest.raises(ValueError, match=rf"n_keep must be in \[1, 6\], got {n_keep}"):
        select(ImportanceStrategy(), SKEWED, n_keep, seeded())


@every_strategy
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_must_be_finite(strategy: Strategy, value: float) -> None:
    """NaN compares false with everything, so a sort would place it anywhere; a diverged run must say so."""
    with pytest.raises(ValueError, match="scores must be finite, got 2 that are not"):
        select(strategy, torch.tensor([1.0, value, 2.0, value]), 2, seeded())


@dataclass
class Fixed(Strategy):
    """Gives what it was told to."""

    keep: tuple[int, ...] = (0, 1)

    def select(self, scores: Tensor, n_keep: int, generator: torch.Generator) -> Selection:
        return Selection(torch.tensor(self.keep))


@pytest.mark.parametrize("keep", [(1, 0), (1, 1), (0,), (0, 1, 2), (-1, 0), (1, 4)])
def test_broken_strategy_is_caught(keep: tuple[int, ...]) -> None:
    """Strategies are the extension point. Unsorted, repeated or out-of-range indices from a custom one would permute or
    duplicate neurons while shapes fit, so they are checked, and the strategy is named."""
    with pytest.raises(ValueError, match=r"Fixed must give 2 sorted unique indices below 4, got \["):
        select(Fixed(keep), torch.ones(4), 2, seeded())
    assert select(Fixed((0, 3)), torch.ones(4), 2, seeded()).keep.tolist() == [0, 3]


def test_register_a_strategy_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A strategy of one's own is one decorated dataclass in one's own file; the decorator must give the class back
    unchanged, so that it can still be used and subclassed."""
    registry = dict(STRATEGIES)
    monkeypatch.setattr(strategies, "STRATEGIES", registry)
    assert register_strategy("fixed")(Fixed) is Fixed
    assert registry["fixed"] is Fixed and "fixed" not in STRATEGIES


@pytest.mark.parametrize("name", ["uniform", "importance", "coreset", "none", "edge"])
def test_taken_names(name: str) -> None:
    """Replacing a built-in strategy by accident would change published results under their own names; `none` and `edge`
    are options of the configuration that are no neuron strategies."""
    before = dict(STRATEGIES)
    with pytest.raises(ValueError, match=f"strategy name '{name}' is taken"):
        register_strategy(name)(Fixed)
    assert before == STRATEGIES
