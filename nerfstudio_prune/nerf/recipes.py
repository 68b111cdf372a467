"""What the options of pruning come to; all that the code below the configuration sees of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional

from nerfstudio_prune.engine.options import Recipe
from nerfstudio_prune.nerf.teacher.config import TeacherRecipe
from nerfstudio_prune.neurons.compaction import MomentsMode
from nerfstudio_prune.neurons.edges import EdgeScope
from nerfstudio_prune.neurons.refit import Refit
from nerfstudio_prune.neurons.samples import SampleWeights
from nerfstudio_prune.neurons.scores import Score
from nerfstudio_prune.neurons.strategies import Strategy

COARSE_ERROR_WEIGHT = 0.03
"""How much errors of the coarse field count against those of the fine one, unless something else is asked for."""


@dataclass(frozen=True)
class Calibration:
    """What calibration collects, and how it is weighted."""

    num_rays: int = 512
    """Training rays, >= 1."""
    num_samples: int = 32768
    """Most samples that are kept per field; more are thinned out at random."""
    weights: SampleWeights = "gradient"
    """gradient: each layer's samples count by the norm of the gradient of the pixel's colour with respect to its
    pre-activations, its rows by the root mean square of theirs; contribution: samples count by what they contribute
    to the pixel (transmittance times alpha), rows alike."""
    floor: float = 0.05
    """Share of the weight that is spread evenly over all samples, in [0, 1], so that empty space stays empty."""
    density_weight: float = 1.0
    """Factor for errors of the density against those of the colour head at the last layer of the trunk, > 0."""
    coarse_colour_weight: float = 1.0
    """Factor for errors of the coarse field's colour head against those of its density, > 0."""
    loss_gradients: bool = False
    """Whether the sums for scores `taylor` and `fisher` are collected."""


@dataclass(frozen=True)
class FieldTarget:
    """Widths that are asked for; a ratio, or explicit ones."""

    width: Optional[int] = None
    """Neurons that stay in each trunk layer; the head shrinks in proportion unless `head_width` is given."""
    head_width: Optional[int] = None
    """Neurons that stay in each head layer."""
    pruning_ratio: Optional[float] = None
    """Fraction of the initial neurons to remove from every layer, in [0, 1)."""
    prefix: str = ""
    """What stands before the options' names on the command line."""


@dataclass(frozen=True, kw_only=True)
class FieldRecipe(Recipe):
    """What all ways to prune a radiance field have."""

    groups: tuple[str, ...]
    """Patterns of the layers to prune."""
    moments: MomentsMode
    """What becomes of the moments of refitted layers."""
    teacher: TeacherRecipe
    """The dense network as a teacher."""
    shrink_steps: int
    """Training steps before each event in which the weights that read doomed neurons are drawn to zero; 0 where no
    neurons leave."""
    shrink_weight: float
    """Factor of that penalty, > 0."""


@dataclass(frozen=True, kw_only=True)
class EdgeRecipe(FieldRecipe):
    """Single weights are masked."""

    threshold: Optional[float]
    """Keep weights with at least this absolute value; None: the kept fraction counts."""
    keep_fraction: float
    """Keep this share of the weights, in (0, 1]."""
    scope: EdgeScope
    """Whether the share counts within each layer or over all together."""


@dataclass(frozen=True, kw_only=True)
class NeuronRecipe(FieldRecipe):
    """Neurons are removed."""

    chooses: Strategy
    """Which neurons stay."""
    score_function: Optional[Score]
    """Score of a neuron; None for a rule without one."""
    refit: Refit
    """What becomes of the weights behind pruned layers."""
    calibration: Optional[Calibration]
    """What an event collects; None: nothing."""
    common: FieldTarget
    """Target of the fields without an own one."""
    own: Mapping[str, FieldTarget]
    """Name of the field -> own target."""
    group_widths: Optional[Mapping[str, int]]
    """Name pattern -> neurons that stay."""
    budget: Optional[tuple[str, float]]
    """Name and value of the budget that widths follow from."""
    coarse_error_weight: float
    """Under a budget: how much errors of the coarse field count, > 0."""
    min_width: int
    """Fewest neurons of a layer."""
