"""What goes by the step, scaled to the length of a run."""

import pytest

from nerfstudio_prune.splats.growth import LENGTH, MEMORY, coarsest, growth_of, length_of_run
from nerfstudio_prune.splats.model import SplatPruneModelConfig

CONFIG = SplatPruneModelConfig()


def test_a_run_of_splatfacto_s_length_is_splatfacto_s() -> None:
    """Whoever trains 30,000 steps wants the stock method's schedule, and compares with it."""
    growth = growth_of(CONFIG, 1.0, 100)
    assert (growth.start, growth.every, growth.stop, growth.reset_every, growth.pause) == (500, 100, 15000, 3000, 200)
    assert (growth.screen_stop, growth.degree_every, growth.resolution_every) == (4000, 1000, 3000)
    assert growth.settled == 15500


def test_a_short_run_has_the_same_shape() -> None:
    """Taken as they are, the settings of 30,000 steps would let a run of 3,000 grow to its end. Densification is not
    more frequent, though, and opacities have time to climb back."""
    growth = growth_of(CONFIG, 0.1, 100)
    assert (growth.start, growth.stop, growth.screen_stop, growth.degree_every) == (50, 1500, 400, 100)
    assert (growth.every, growth.reset_every, growth.pause, growth.settled) == (100, 1000, 110, 1550)
    assert growth_of(CONFIG, 2.0, 100).every == 200


def test_many_views_do_not_stop_the_growth() -> None:
    """With 2,900 views the host's pause behind a reset outlasts the time between two resets (nerfstudio issue 2927)."""
    growth = growth_of(CONFIG, 1.0, 2900)
    assert growth.pause == 1500 < growth.reset_every


def test_a_run_without_growth_can_be_cut_at_once() -> None:
    """`stop-split-at 0` trains the Gaussians that it begins with; there is nothing to wait for."""
    assert growth_of(SplatPruneModelConfig(stop_split_at=0), 1.0, 100).settled == 0


@pytest.mark.parametrize(("sides", "halvings"), [([800], 2), ([256], 2), ([255], 1), ([135], 1), ([100], 0), ([], 0)])
def test_coarse_pictures_stay_pictures(sides: list[int], halvings: int) -> None:
    """A quarter of 100 pixels has no window for the structural similarity, and nothing to learn from."""
    assert coarsest(2, sides) == halvings


@pytest.mark.parametrize(
    ("memory", "first_step", "length"),
    [
        ({}, 0, 70_000),
        ({MEMORY: {LENGTH: 2000}}, 1500, 2000),
        ({}, 3000, 70_000),
        ({}, 30_000, 30_000),
    ],
    ids=["fresh", "resumed", "stock in mid-growth", "finished stock run"],
)
def test_length_that_growth_is_scaled_to(memory: dict, first_step: int, length: int) -> None:
    """A resumed run that is scaled to its own length would grow again. A finished run of the stock method, which says
    nothing of a length, would do so if it went on for more than twice its steps."""
    assert length_of_run(memory, 70_000, first_step, CONFIG) == length


def test_growth_in_words() -> None:
    """«Growing to step 30 every 100 steps» would promise Gaussians that never come."""
    growth = growth_of(CONFIG, 1.0, 100)
    assert growth.text(0).startswith(
        "growing from step 500 to 15,000 every 100 steps, opacities reset every 3,000; a cut"
    )
    assert growth.text(0).endswith("from step 15,500 on") and growth.text(15_500) == "growth is over"
    short = growth_of(CONFIG, 0.002, 100)
    assert short.text(0) == "the run is too short for growth; a cut may happen from step 31 on"
