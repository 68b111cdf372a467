"""A third thing to prune, beside neurons and single weights: a cloud of points with one Adam a tensor.

Everything that the engine needs of it is here; nothing here knows of schedules, undo, pause, resuming or panels.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Optional

import torch
from nerfstudio.engine.optimizers import AdamOptimizerConfig
from nerfstudio.engine.optimizers import Optimizers as HostOptimizers
from torch import Tensor, nn

from nerfstudio_prune.core.events import PruneState, ScheduledEvent, Sizes
from nerfstudio_prune.core.form import FormField, check_values
from nerfstudio_prune.core.optimizer_state import ParameterEdit, prepare_rebind
from nerfstudio_prune.core.strategies import ImportanceStrategy, select
from nerfstudio_prune.core.subject import BufferEdit, Optimizers, PreparedEdits, Slicing, Subject
from nerfstudio_prune.engine.options import PART, PruneOptions, Recipe, option


class PointCloud(nn.Module):
    """Points with a colour in a basis of four functions, and a count of views that saw each of them."""

    seen: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        shapes = {"means": (count, 3), "features": (count, 4, 3), "opacities": (count,)}
        self.points = nn.ParameterDict({k: nn.Parameter(torch.randn(s, generator=draw)) for k, s in shapes.items()})
        self.register_buffer("seen", torch.arange(float(count)))
        self.prune_state = PruneState()

    def get_extra_state(self) -> dict[str, Any]:
        return self.prune_state.to_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.prune_state = PruneState.from_dict(state)

    def get_param_groups(self) -> dict[str, list[nn.Parameter]]:
        return {name: [p] for name, p in self.points.items()}

    def loss(self) -> Tensor:
        return torch.stack([(p - 1).square().sum() for p in self.points.values()]).sum()


@dataclass(frozen=True, kw_only=True)
class CloudRecipe(Recipe):
    keep: float


@dataclass
class CloudConfig(PruneOptions):
    """How much of a cloud stays."""

    strategy: Optional[str] = option("importance")
    keep: Optional[float] = option(0.5)
    rules = ((("keep",), *PART),)

    def validate(self) -> None:
        super().validate()
        if self.recovery not in (None, "continue"):
            raise ValueError(f"prune.recovery must be continue, points inherit what they are, got {self.recovery}")

    def resolve(self) -> CloudRecipe:
        o: Any = self.filled()
        return CloudRecipe(**o.shared(), score="opacity", rule=o.strategy, target=f"keep {o.keep:g}", keep=o.keep)


class CloudForm:
    closed = ""

    def exhausted(self, recipe: Any) -> str:
        return ""

    def fields(self, options: CloudConfig) -> tuple[FormField, ...]:
        return (FormField("keep", options.keep, "Share that stays.", slider=True),)

    def unused(self, values: Mapping[str, Any]) -> set[str]:
        return set()

    def options(self, values: Mapping[str, Any], base: CloudConfig) -> CloudConfig:
        check_values(values, self.fields(base))
        options = replace(base, keep=values["keep"])
        options.validate()
        return options

    def named(self, options: CloudConfig) -> dict[str, Any]:
        return {"keep": options.keep}


class CloudSubject(Subject[CloudRecipe]):
    unit, labels, form = "points", {"points": "points"}, CloudForm()

    def __init__(self, model: PointCloud) -> None:
        self.model = model

    def sizes(self) -> Sizes:
        return self._sizes(len(self.model.points["means"]))

    def initial_sizes(self) -> Sizes:
        return self._sizes(self.initial_parts()["cloud"])

    def _sizes(self, count: int) -> Sizes:
        return Sizes({"cloud": count}, {"points": count})

    def parameters(self) -> dict[str, nn.Parameter]:
        return {f"points.{name}": p for name, p in self.model.points.items()}

    def buffers(self) -> dict[str, Tensor]:
        return {"seen": self.model.seen}

    def set_buffers(self, buffers: Mapping[str, Tensor]) -> None:
        self.model._buffers.update(buffers)

    def targets(self, recipe: CloudRecipe) -> dict[str, int]:
        return {"cloud": round(recipe.keep * self.initial_parts()["cloud"])}

    def gather(self, recipe: CloudRecipe, seed: int) -> Tensor:
        return self.model.points["opacities"].detach().clone()

    def prepare(
        self, recipe: CloudRecipe, event: ScheduledEvent, evidence: Tensor, optimizers: Optimizers, seed: int
    ) -> Slicing:
        n_keep = min(event.targets["cloud"], len(evidence))
        keep = select(ImportanceStrategy(), evidence, n_keep, torch.Generator().manual_seed(seed)).keep
        edits = [
            ParameterEdit(f"points.{k}", self.model.points, k, p, nn.Parameter(p.detach()[keep]), {0: keep})
            for k, p in self.model.points.items()
        ]
        rebind = prepare_rebind(optimizers.optimizers, optimizers.parameters, edits)
        seen = BufferEdit(self.model._buffers, "seen", self.model.seen[keep])
        return Slicing(self, PreparedEdits(edits, rebind, [seen]))

    def scores(self, recipe: CloudRecipe, evidence: Tensor) -> tuple[str, dict[str, Tensor]]:
        return "opacity", {"cloud": evidence}

    def detached(self, device: Optional[torch.device] = None) -> "CloudSubject":
        model = deepcopy(self.model).requires_grad_(False).to(device)
        model.prune_state = replace(self.state)
        return CloudSubject(model)


def adams(cloud: PointCloud) -> HostOptimizers:
    """The host's optimizers, one Adam a tensor as in splatfacto."""
    config = {name: {"optimizer": AdamOptimizerConfig(lr=0.01), "scheduler": None} for name in cloud.points}
    return HostOptimizers(config, cloud.get_param_groups())
