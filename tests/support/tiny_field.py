"""A NeRF in miniature for the tests: same structure, a handful of neurons, torch only."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nerfstudio_prune.neurons.groups import Consumer, NeuronGroup, mlp_groups
from nerfstudio_prune.neurons.strategies import Selection

POSITION = 3
"""Size of the trunk's input, the column offset at the skip layer."""
DIRECTION = 2
"""Size of the direction, the column offset at the first layer of the head."""
SKIP_LAYER = 2
"""Trunk layer whose input is the position followed by the hidden features."""
TRUNK_WIDTH, HEAD_WIDTH = 7, 5
PREFIX = "field"
GROUP_NAMES = tuple(f"{PREFIX}.trunk.{i}" for i in range(4)) + tuple(f"{PREFIX}.head.{i}" for i in range(2))


class TinyField(nn.Module):
    """Trunk with a skip connection, density head, and a colour head that reads [direction, trunk].

    The activation is softplus instead of ReLU, so that no neuron is ever dead and each one shows in the output, unless
    another one is asked for.
    """

    def __init__(
        self,
        trunk: Sequence[int] = (TRUNK_WIDTH,) * 4,
        head: Sequence[int] = (HEAD_WIDTH,) * 2,
        bias: bool = True,
        dtype: torch.dtype = torch.float64,
        seed: int = 0,
        activation: Callable[[Tensor], Tensor] = nn.functional.softplus,
    ) -> None:
        super().__init__()
        self.activation = activation
        inputs = [POSITION, *trunk[:-1]]
        inputs[SKIP_LAYER] += POSITION
        self.trunk = nn.ModuleList([nn.Linear(i, o, bias) for i, o in zip(inputs, trunk, strict=True)])
        self.density = nn.Linear(trunk[-1], 1, bias)
        inputs = [DIRECTION + trunk[-1], *head[:-1]]
        self.head = nn.ModuleList([nn.Linear(i, o, bias) for i, o in zip(inputs, head, strict=True)])
        self.rgb = nn.Linear(head[-1], 3, bias)
        generator = torch.Generator().manual_seed(seed)
        self.to(dtype)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64) / p.shape[-1] ** 0.5)

    def forward(self, position: Tensor, direction: Tensor, gates: Optional[Mapping[str, Tensor]] = None) -> Tensor:
        """Colour and density; `gates` multiplies the neurons of a group, the reference for what pruning must do."""

        def activate(name: str, x: Tensor) -> Tensor:
            x = self.activation(x)
            return x if gates is None or name not in gates else x * gates[name]

        x = position
        for i, layer in enumerate(self.trunk):
            x = torch.cat([position, x], dim=-1) if i == SKIP_LAYER else x
            x = activate(f"{PREFIX}.trunk.{i}", layer(x))
        density = self.density(x)
        x = torch.cat([direction, x], dim=-1)
        for i, layer in enumerate(self.head):
            x = activate(f"{PREFIX}.head.{i}", layer(x))
        return torch.cat([self.rgb(x), density], dim=-1)

    def layers(self) -> dict[str, nn.Linear]:
        """Module path -> layer, in forward order."""
        return {f"{PREFIX}.{name}": m for name, m in self.named_modules() if isinstance(m, nn.Linear)}

    def groups(self) -> list[NeuronGroup]:
        """The groups as a model states them."""
        layers = self.layers()
        density = Consumer(f"{PREFIX}.density", self.density, 0)
        color = Consumer(f"{PREFIX}.head.0", layers[f"{PREFIX}.head.0"], DIRECTION)
        rgb = Consumer(f"{PREFIX}.rgb", self.rgb, 0)
        trunk = [layer for name, layer in layers.items() if ".trunk." in name]
        head = [layer for name, layer in layers.items() if ".head." in name]
        return [
            *mlp_groups(
                f"{PREFIX}.trunk",
                trunk,
                [density, color],
                skip_layers=(SKIP_LAYER,),
                skip_width=POSITION,
                network=PREFIX,
                role="trunk",
            ),
            *mlp_groups(f"{PREFIX}.head", head, [rgb], network=PREFIX, role="head"),
        ]

    def named(self) -> dict[str, nn.Parameter]:
        """Path of the parameter -> parameter."""
        return {f"{PREFIX}.{name}": p for name, p in self.named_parameters()}


def inputs(seed: int = 1, rows: int = 16, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Positions and directions."""
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(rows, POSITION, generator=generator, dtype=torch.float64).to(dtype),
        torch.randn(rows, DIRECTION, generator=generator, dtype=torch.float64).to(dtype),
    )


def draw_selections(
    groups: Iterable[NeuronGroup],
    names: Iterable[str] = GROUP_NAMES,
    seed: int = 2,
    scaled: bool = False,
    drop: int = 2,
) -> dict[str, Selection]:
    """Drops neurons of the named groups at random, and scales the others if wanted."""
    generator = torch.Generator().manual_seed(seed)
    names = set(names)
    selections = {}
    for group in groups:
        keep = torch.randperm(group.width, generator=generator)[drop:].sort().values
        scale = 0.5 + torch.rand(len(keep), generator=generator, dtype=torch.float64) if scaled else None
        if group.name in names:
            selections[group.name] = Selection(keep, scale)
    return selections


def gates_of(widths: Mapping[str, int], selections: Mapping[str, Selection]) -> dict[str, Tensor]:
    """Factors for `TinyField.forward`: zero where a neuron leaves, its scale or one where it stays."""
    gates = {}
    for name, selection in selections.items():
        gates[name] = torch.zeros(widths[name], dtype=torch.float64)
        gates[name][selection.keep] = 1.0 if selection.scale is None else selection.scale
    return gates


def cut_by_hand(tensors: Mapping[str, Tensor], keep: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Slices the tensors of a `TinyField` layer by layer, each written out; knows nothing of groups.

    Args:
        tensors: Path of the parameter -> tensor of the parameter's shape.
        keep: Name of every group -> neurons that stay.
    """
    rows = {name: keep[name] for name in GROUP_NAMES}
    every = {"position": torch.arange(POSITION), "direction": torch.arange(DIRECTION)}
    trunk = [rows[f"{PREFIX}.trunk.{i}"] for i in range(4)]
    head = [rows[f"{PREFIX}.head.{i}"] for i in range(2)]
    columns = {
        f"{PREFIX}.trunk.0": every["position"],
        f"{PREFIX}.trunk.1": trunk[0],
        f"{PREFIX}.trunk.2": torch.cat([every["position"], POSITION + trunk[1]]),
        f"{PREFIX}.trunk.3": trunk[2],
        f"{PREFIX}.density": trunk[3],
        f"{PREFIX}.head.0": torch.cat([every["direction"], DIRECTION + trunk[3]]),
        f"{PREFIX}.head.1": head[0],
        f"{PREFIX}.rgb": head[1],
    }
    cut = {}
    for name, tensor in tensors.items():
        layer, _, attribute = name.rpartition(".")
        part = tensor[rows[layer]] if layer in rows else tensor
        cut[name] = part[:, columns[layer]] if attribute == "weight" else part
    return cut


@dataclass
class Training:
    """A field in training, with the two places where the host keeps its parameters."""

    field: TinyField
    optimizers: dict[str, Optimizer]
    lists: dict[str, list[nn.Parameter]]

    @classmethod
    def start(
        cls, field: Optional[TinyField] = None, optimizer: type[Optimizer] = torch.optim.RAdam, **options: Any
    ) -> "Training":
        """Puts a field under an optimizer, like the host does."""
        field = TinyField() if field is None else field
        parameters = [p for p in field.parameters() if p.requires_grad]
        return cls(field, {"fields": optimizer(parameters, **{"lr": 1e-2, **options})}, {"fields": list(parameters)})

    def loss(self, seed: int) -> Tensor:
        """Loss on a batch; stands in for the rendering loss."""
        return (self.field(*inputs(seed)) - 0.3).square().sum()

    def step(self, seed: int) -> Tensor:
        """One training step; gives the loss with its graph."""
        self.optimizers["fields"].zero_grad()
        loss = self.loss(seed)
        loss.backward()
        self.optimizers["fields"].step()
        return loss

    def run(self, steps: int, first: int = 0) -> "Training":
        """Trains for some steps."""
        for seed in range(first, first + steps):
            self.step(seed)
        return self

    def moments(self, key: str) -> dict[str, Tensor]:
        """Path of the parameter -> one of its optimizer's states."""
        state = self.optimizers["fields"].state
        return {name: state[p][key].clone() for name, p in self.field.named().items()}


def fingerprint(training: Training) -> dict[str, Any]:
    """Everything that an event may change, down to the bit and to the identity of the tensors."""

    def print_of(value: Any) -> Any:
        return (id(value), tuple(value.shape), value.detach().numpy().tobytes()) if torch.is_tensor(value) else value

    prints: dict[str, Any] = {"random state": torch.get_rng_state().numpy().tobytes()}
    for name, p in training.field.named().items():
        prints[name] = (print_of(p), p.dtype, p.requires_grad, print_of(p.grad))
    for name, layer in training.field.layers().items():
        prints[name] = (layer.in_features, layer.out_features)
    for name, optimizer in training.optimizers.items():
        for i, group in enumerate(optimizer.param_groups):
            prints[f"optimizer {name} {i}"] = {**group, "params": [id(p) for p in group["params"]]}
        prints[f"state {name}"] = {
            id(p): {key: print_of(value) for key, value in state.items()} for p, state in optimizer.state.items()
        }
    for name, parameters in training.lists.items():
        prints[f"list {name}"] = (id(parameters), [id(p) for p in parameters])
    return prints
