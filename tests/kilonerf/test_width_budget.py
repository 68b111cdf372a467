"""Sharing a budget out over networks, against all possible choices."""

import itertools

import numpy as np
import pytest

from nerfstudio_prune.kilonerf.width_budget import allocate

COSTS = (10, 25, 50, 85)


def curves(networks: int, seed: int) -> np.ndarray:
    """Falling errors, steep first in most, with steps that gain nothing and bumps."""
    rng = np.random.default_rng(seed)
    errors = np.sort(rng.random((networks, 4)) ** 3, axis=1)[:, ::-1].copy()
    errors[rng.random(networks) < 0.3, 2] += 0.05
    errors[:, 3] = 0.0
    return errors


def total(chosen: np.ndarray) -> int:
    return sum(COSTS[k] for k in chosen)


@pytest.mark.parametrize("seed", range(4))
def test_it_is_nearly_the_best_of_all_choices_and_never_above_the_budget(seed: int) -> None:
    """Of five networks all 1,024 choices are tried. What is lost is less than a single step gains."""
    errors = curves(5, seed)
    choices = list(itertools.product(range(4), repeat=5))
    for budget in (50, 51, 90, 130, 200, 260, 424, 425, 1000):
        chosen = allocate(errors, COSTS, budget)
        assert total(chosen) <= budget
        best = min(errors[range(5), c].sum() for c in choices if sum(COSTS[k] for k in c) <= budget)
        assert best <= errors[range(5), chosen].sum() <= best + errors[:, 0].max()
    assert allocate(errors, COSTS, 425).tolist() == [3] * 5


def test_on_the_hull_it_is_the_best() -> None:
    """Budgets that are met exactly by steps in the order of their gains leave nothing to lose."""
    errors = np.array([[1.0, 0.4, 0.1, 0.0], [0.3, 0.1, 0.02, 0.0]])
    # Gains for each parameter: 0.04, 0.012, 0.003 and 0.0133, 0.0032, 0.0006.
    for budget, expected in ((20, [0, 0]), (35, [1, 0]), (50, [1, 1]), (75, [2, 1]), (100, [2, 2]), (135, [3, 2])):
        assert allocate(errors, COSTS, budget).tolist() == expected


def test_a_network_that_loses_nothing_stays_narrow() -> None:
    """Cells that are empty or of one colour need least, however much there is to spend."""
    errors = np.array([[0.0, 0.0, 0.0, 0.0], [0.5, 0.2, 0.1, 0.0], [0.5, 0.6, 0.7, 0.0]])
    assert allocate(errors, COSTS, 1000).tolist() == [0, 3, 3]
    assert allocate(errors, COSTS, 100).tolist() == [0, 2, 0]


def test_widths_that_a_network_cannot_have_are_not_given() -> None:
    """A network that was narrowed before does not grow again."""
    errors = np.array([[0.9, 0.0, np.inf, np.inf], [np.inf, np.inf, 0.4, 0.0]])
    assert allocate(errors, COSTS, 1000).tolist() == [1, 3]
    assert allocate(errors, COSTS, 60).tolist() == [0, 2]


def test_equal_networks_are_chosen_in_a_fixed_order() -> None:
    """The same run gives the same widths on every machine."""
    errors = np.tile([[0.4, 0.2, 0.1, 0.0]], (6, 1))
    assert allocate(errors, COSTS, 90).tolist() == [1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("errors", "costs", "budget", "message"),
    [
        ([[0.1, 0.0]], (10, 20), 9, r"narrowest widths take 10 parameters, which is above the budget of 9"),
        ([[0.1, 0.0]], (10, 20), np.nan, r"grid\.narrow_to: the budget must be a number, got nan"),
        ([[0.1, 0.0]], (20, 10), 90, r"costs must ascend"),
        ([[0.1, 0.0]], (10,), 90, r"one for each of 2 widths"),
        ([[0.1, np.nan]], (10, 20), 90, r"errors must be numbers"),
        ([[np.inf, np.inf]], (10, 20), 90, r"must have a width with a finite one"),
    ],
)
def test_what_cannot_be_shared_out_is_refused(errors: list, costs: tuple, budget: float, message: str) -> None:
    """Before anything is cut."""
    with pytest.raises(ValueError, match=message):
        allocate(np.array(errors), costs, budget)
