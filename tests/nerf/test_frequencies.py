"""Places are encoded by the frequencies that a run asks for, and a network by no other than its own."""

import math
from typing import Any

import pytest
import torch
from support.tiny_run import copied_state, same_bits, tiny_model


def test_finest_detail_is_an_option() -> None:
    """Frequencies above those that a picture can show teach nothing and slow down the rest. With 2^3 as the highest of
    ten, they rise from 1 by a ninth of that each; sines come before cosines, and the place itself last."""
    encoding = tiny_model(position_max_freq_exp=3.0).field_fine.position_encoding
    place = torch.tensor([[0.1, 0.2, 0.3]], dtype=torch.float64)
    angles = [2 * math.pi * value * 2 ** (3 * k / 9) for value in (0.1, 0.2, 0.3) for k in range(10)]
    expected = [*map(math.sin, angles), *map(math.cos, angles), 0.1, 0.2, 0.3]
    assert torch.allclose(encoding(place)[0], torch.tensor(expected, dtype=torch.float64), atol=1e-6)


@pytest.mark.parametrize(("trained", "wanted"), [(3.0, 8.0), (8.0, 3.0), (3.0, 2.5)])
def test_network_of_another_encoding_is_refused(trained: float, wanted: float) -> None:
    """No shape tells the encodings apart: a network that is shown by another one shows noise, and would be trained on
    from there. That is refused before anything changes, and the option that is right is named."""
    saved = copied_state(tiny_model(position_max_freq_exp=trained))
    model = tiny_model(position_max_freq_exp=wanted)
    before = copied_state(model)
    with pytest.raises(ValueError, match=rf"model.position_max_freq_exp {trained}, this run has {wanted:g}"):
        model.load_state_dict(saved)
    assert same_bits(copied_state(model), before)
    again = tiny_model(position_max_freq_exp=trained)
    again.load_state_dict(saved)
    assert same_bits(copied_state(again), saved)


def test_checkpoint_with_the_hosts_encoding_says_nothing_of_it() -> None:
    """It can be read by the versions that knew no other."""
    assert "position_max_freq_exp" not in tiny_model().state_dict()["_extra_state"]


@pytest.mark.parametrize("wrong", ["three", None, math.nan, [3.0]])
def test_damaged_note_of_the_encoding_is_refused(wrong: Any) -> None:
    """A file from elsewhere may hold anything there."""
    saved = copied_state(tiny_model(position_max_freq_exp=3.0))
    saved["_extra_state"]["position_max_freq_exp"] = wrong
    with pytest.raises(ValueError, match="position_max_freq_exp"):
        tiny_model(position_max_freq_exp=3.0).load_state_dict(saved)
