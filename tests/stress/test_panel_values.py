"""A part of what `panel_values.py` does by hand."""

import pytest

from stress.panel_values import throw


def test_nonsense_is_refused_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    """Behind the gate of the server stand the panel and the form: each has to hold without the other. No value that a
    field does not offer is asked for, and none ends in a raw error."""
    found = throw(200)
    assert sum(found.values()) == 200 and found["refused"] > 50
    assert "Traceback" not in capsys.readouterr().out
