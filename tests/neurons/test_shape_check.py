"""The runtime check of shapes that all other tests run under."""

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import nn

from nerfstudio_prune.core.optimizer_state import ParameterEdit
from nerfstudio_prune.neurons.strategies import ImportanceStrategy, Selection, select


def test_wrong_number_of_dimensions_is_caught() -> None:
    """The shape strings in the signatures are checked in every test run; should the hook in pyproject.toml stop
    working, they would turn into comments that nobody verifies, and this test fails."""
    with pytest.raises(TypeCheckError, match="scores"):
        select(ImportanceStrategy(), torch.ones(2, 3), 1, torch.Generator())


def test_wrong_dtype_is_caught() -> None:
    """A boolean mask in place of indices has the right number of dimensions and would select neurons 0 and 1."""
    with pytest.raises(TypeCheckError):
        Selection(torch.tensor([True, False]))


def test_sizes_that_disagree_are_caught() -> None:
    """One name stands for one size within a signature: a scale for another number of neurons must not pass."""
    with pytest.raises(TypeCheckError):
        Selection(torch.arange(3), torch.ones(2))


def test_core_is_checked_too() -> None:
    """The hook lists its packages one by one; core is the other one."""
    linear, weight = nn.Linear(2, 3), nn.Parameter(torch.zeros(3, 2))
    with pytest.raises(TypeCheckError):
        ParameterEdit("w", linear, "weight", weight, weight, {0: torch.ones(2)})
