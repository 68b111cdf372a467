"""Strategies that rank neurons themselves, on calibration samples; the registry and the rules that take scores are
those of `core.strategies`."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nerfstudio_prune.core.strategies import (
    RESERVED_NAMES,
    STRATEGIES,
    CoresetStrategy,
    ImportanceStrategy,
    Selection,
    Strategy,
    UniformStrategy,
    register_strategy,
    select,
)
from nerfstudio_prune.neurons.groups import NeuronGroup
from nerfstudio_prune.neurons.obs import eliminate, pivot_order

__all__ = [
    "EDGE",
    "STRATEGIES",
    "CoresetStrategy",
    "ImportanceStrategy",
    "ObsStrategy",
    "PivotedQrStrategy",
    "Selection",
    "Strategy",
    "UniformStrategy",
    "register_strategy",
    "select",
]

EDGE = "edge"
"""What option `strategy` calls masking single weights, which is no rule for neurons."""
RESERVED_NAMES.add(EDGE)


@register_strategy("obs")
@dataclass
class ObsStrategy(ImportanceStrategy):
    """Greedy backward elimination on calibration samples with exact refit after each removal (`obs.eliminate`).

    Optimal brain surgeon for neurons (ZipLM, arXiv 2302.04089; SlimGPT, arXiv 2412.18110). Made for refit `lstsq`.
    Deterministic.
    """

    @property
    def default_score(self) -> None:
        """No score: it ranks the neurons itself."""
        return None

    @property
    def needs_samples(self) -> bool:
        """It does."""
        return True

    def own_scores(self, group: NeuronGroup, n_keep: int) -> Float[Tensor, " neurons"]:
        """The later a neuron leaves, the higher."""
        assert group.statistics is not None
        order = eliminate(group.statistics, n_keep).order
        scores = torch.full((group.width,), float(group.width), dtype=torch.float64)
        scores[order] = torch.arange(len(order), dtype=torch.float64)
        return scores


@register_strategy("pivoted-qr")
@dataclass
class PivotedQrStrategy(ObsStrategy):
    """Neurons whose activations span those of the others best (`obs.pivot_order`), blind to what they are used for.

    Interpolative decomposition (Chee et al. 2022, arXiv 2108.00065). Faster than `obs`; made for refit `lstsq`.
    Deterministic.
    """

    def own_scores(self, group: NeuronGroup, n_keep: int) -> Float[Tensor, " neurons"]:
        """The earlier a neuron is a pivot, the higher."""
        assert group.statistics is not None
        order = pivot_order(group.statistics, n_keep)
        scores = torch.zeros(group.width, dtype=torch.float64)
        scores[order] = torch.arange(n_keep, 0, -1, dtype=torch.float64)
        return scores
