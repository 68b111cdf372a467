"""Losses of distillation, against loops and numbers made by hand."""

import math

import pytest
import torch
from support.single_networks import some_classes, some_shape

from nerfstudio_prune.kilonerf.classes import NetworkClasses
from nerfstudio_prune.kilonerf.distillation import (
    RGB_FLOOR,
    distillation_loss,
    opacity,
    saturated,
    view_dependent_penalty,
)


def test_the_loss_is_made_of_opacities_and_visible_colours() -> None:
    """Densities differ by thousands where nothing is to be seen of it; opacities of a step do not. A colour counts by
    how much of it the teacher shows."""
    generator = torch.Generator().manual_seed(0)
    density, teacher_density = (30 * torch.rand(3, 4, generator=generator) for _ in range(2))
    rgb, teacher_rgb = (torch.rand(3, 4, 3, generator=generator) for _ in range(2))
    found = distillation_loss(density, rgb, teacher_density, teacher_rgb, 0.05)
    for i in range(3):
        alpha = colour = 0.0
        for j in range(4):
            wanted = 1 - math.exp(-0.05 * float(teacher_density[i, j]))
            alpha += (1 - math.exp(-0.05 * float(density[i, j])) - wanted) ** 2 / 4
            colour += (wanted + RGB_FLOOR) * float((rgb[i, j] - teacher_rgb[i, j]).square().sum()) / 4
        assert float(found.alpha[i]) == pytest.approx(alpha, rel=1e-4)
        assert float(found.rgb[i]) == pytest.approx(colour, rel=1e-4)
    assert float(found.total) == pytest.approx(float(found.of_networks.sum()))


def test_a_colour_behind_everything_counts_as_that_of_something_opaque() -> None:
    """Light that nothing stops shows it, with nothing dense there: in a cell that it shares with a wall it would count
    a twentieth of that. Its opacity is learnt as it is."""
    density, rgb = torch.zeros(1, 2), torch.tensor([[[0.5, 0.5, 0.5], [0.2, 0.2, 0.2]]])
    behind, teacher_rgb = torch.tensor([[True, False]]), torch.tensor([[[0.7, 0.5, 0.5], [0.2, 0.6, 0.2]]])
    found = distillation_loss(density, rgb, density, teacher_rgb, 0.1, behind)
    assert float(found.rgb) == pytest.approx((1.05 * 0.2**2 + 0.05 * 0.4**2) / 2) and float(found.alpha) == 0
    former = distillation_loss(density, rgb, density, teacher_rgb, 0.1)
    assert float(former.rgb) == pytest.approx(0.05 * (0.2**2 + 0.4**2) / 2)


def test_a_network_has_its_own_gradient_whatever_their_number() -> None:
    """The loss is summed over the networks: a mean would shrink every step by their number."""
    generator = torch.Generator().manual_seed(1)
    values = [torch.rand(5, 4, generator=generator) for _ in range(2)]
    colours = [torch.rand(5, 4, 3, generator=generator) for _ in range(2)]
    density = values[0].clone().requires_grad_()
    distillation_loss(density, colours[0], values[1], colours[1], 0.1).total.backward()
    alone = values[0][2:3].clone().requires_grad_()
    distillation_loss(alone, colours[0][2:3], values[1][2:3], colours[1][2:3], 0.1).total.backward()
    assert density.grad is not None and alone.grad is not None
    torch.testing.assert_close(density.grad[2:3], alone.grad)


def test_small_opacities_are_exact() -> None:
    """1 - exp(-x) loses all digits of a thin fog in single precision."""
    assert float(opacity(torch.tensor(1e-9), 1.0)) == pytest.approx(1e-9, rel=1e-6)


def test_distilling_makes_networks_those_of_the_teacher() -> None:
    """A step of the optimizer on the sum lowers the error of every network, of all widths, towards a teacher that such
    networks can be."""
    student, master = some_classes({8: 2, 5: 1}, seed=0), some_classes({8: 2, 5: 1}, seed=5)
    generator = torch.Generator().manual_seed(3)
    positions = 2 * torch.rand(3, 64, 3, generator=generator) - 1
    directions = torch.nn.functional.normalize(torch.randn(3, 64, 3, generator=generator), dim=-1)
    with torch.no_grad():
        wanted = master.batched(positions, directions)
    optimizer = torch.optim.Adam(student.parameters(), lr=0.02, eps=1e-12)
    losses = []
    for _ in range(60):
        loss = distillation_loss(*student.batched(positions, directions), *wanted, 1.0)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        losses.append(loss.of_networks.detach())
    assert bool((losses[-1] < 0.2 * losses[0]).all())


def test_the_penalty_is_on_direction_and_colour_only() -> None:
    """Weights of the trunk hold the shape of the scene, and biases no reflections."""
    networks = NetworkClasses.uniform(2, some_shape(), torch.Generator().manual_seed(0))
    stack = next(iter(networks))
    expected = sum(float(stack.get_parameter(name).detach().square().sum()) for name in ("w_direction", "w_rgb"))
    penalty = view_dependent_penalty(networks)
    assert float(penalty.detach()) == pytest.approx(expected)
    penalty.backward()
    moved = {name for name, p in stack.named_parameters() if p.grad is not None}
    assert moved == {"w_direction", "w_rgb"}


def test_networks_that_are_stuck_are_found() -> None:
    """A channel that is black everywhere has no gradient to come back by, and shows as a cube of one colour. A cell
    that is to be black is fine, and one black point is as well."""
    rgb, teacher = torch.full((4, 5, 3), 0.5), torch.full((4, 5, 3), 0.5)
    rgb[0, :, 1] = 0.0
    rgb[1, :, 2] = 1.0
    rgb[2, :, 0] = teacher[2, :, 0] = 1.0
    rgb[3, 0, 0] = 0.0
    assert saturated(rgb, teacher).tolist() == [True, True, False, False]
