"""Two hundred random sets of options in every run of the tests; `python tests/stress/options.py` tries thousands."""

from support.fuzz import CLEAR, TAKEN, attempts
from support.host_fixtures import clean_host, downloads, one_thread, torch_home  # noqa: F401

from stress.options import runs, trial


def test_options_are_refused_in_clear_words_or_carried_out() -> None:
    """Whatever a person, a script or a file gives: no exception without an option's name, no hang, no memory that the
    input did not earn, no NaN, nothing that fails when the training has begun."""
    runs()  # takes more memory than a trial may
    outcomes = attempts(trial, 200)
    assert outcomes.bad == {}
    # Neither is so rare that the other would say nothing.
    assert min(outcomes.counts[CLEAR], outcomes.counts[TAKEN]) >= 40
