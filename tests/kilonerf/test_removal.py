"""Networks that leave or become others: parameters, gradients, moments and places, all or nothing."""

import pytest
import torch
from support.single_networks import some_classes
from torch.nn.functional import normalize

from nerfstudio_prune.core.optimizer_state import check_optimizers
from nerfstudio_prune.kilonerf.classes import NetworkClasses
from nerfstudio_prune.kilonerf.removal import prepare_removal, prepare_replacement

STAYS = torch.tensor([True, False, True, True, False, True, True])


def trained() -> tuple[NetworkClasses, torch.optim.Adam, torch.Tensor, torch.Tensor]:
    """Networks of three widths after some steps, with gradients, and what they were trained on."""
    networks = some_classes({8: 3, 4: 2, 12: 2})
    optimizer = torch.optim.Adam(networks.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(1)
    positions = 2 * torch.rand(7, 5, 3, generator=generator) - 1
    directions = normalize(torch.randn(7, 5, 3, generator=generator), dim=-1)
    for _ in range(3):
        step(networks, optimizer, positions, directions)
    return networks, optimizer, positions, directions


def step(
    networks: NetworkClasses, optimizer: torch.optim.Adam, positions: torch.Tensor, directions: torch.Tensor
) -> None:
    optimizer.zero_grad()
    density, rgb = networks.batched(positions, directions)
    (density.square().sum() + rgb.square().sum()).backward()
    optimizer.step()


def test_what_stays_trains_on_as_if_the_others_had_never_been() -> None:
    """Networks do not know each other: with weights, moments and counters in place, later steps are those of the whole
    grid. A row that is off by one would show at once."""
    networks, optimizer, positions, directions = trained()
    twin, twin_optimizer, _, _ = trained()
    listed = list(networks.parameters())
    prepared = prepare_removal(networks, STAYS, {"networks": optimizer}, {"networks": listed})
    assert networks.num_networks == 7 and prepared.removes
    prepared.apply()
    assert networks.num_networks == 5 and networks.counts == [
        int(STAYS[twin.widths == width].sum()) for width in (8, 4, 12)
    ]
    check_optimizers({"networks": optimizer}, {"networks": listed}, {"networks": list(networks.parameters())})
    for _ in range(3):
        step(networks, optimizer, positions[STAYS], directions[STAYS])
        step(twin, twin_optimizer, positions, directions)
    found, expected = networks.batched(positions[STAYS], directions[STAYS]), twin.batched(positions, directions)
    torch.testing.assert_close(found[0], expected[0][STAYS])
    torch.testing.assert_close(found[1], expected[1][STAYS])


def test_edits_are_along_the_networks_and_named_by_their_path() -> None:
    """The list of edits is what the optimizers are changed by; a stack that loses nothing is in none."""
    networks, optimizer, _, _ = trained()
    stays = torch.ones(7, dtype=torch.bool)
    stays[(networks.widths == 4).nonzero()[0, 0]] = False
    prepared = prepare_removal(networks, stays, {"networks": optimizer}, {})
    assert {edit.name for edit in prepared.edits} == {
        f"networks.stacks.1.{name}"
        for name, _ in next(stack for stack in networks if stack.shape.hidden_width == 4).named_parameters()
    }
    assert all(set(edit.keep) == {0} and len(edit.keep[0]) == 1 for edit in prepared.edits)


def test_a_class_may_end_up_empty_and_all_may_stay() -> None:
    """Narrow networks leave first; their stack stays as a place for none. Nothing to remove changes nothing."""
    networks, optimizer, positions, directions = trained()
    stays = networks.widths != 4
    prepare_removal(networks, stays, {"networks": optimizer}, {}).apply()
    assert networks.counts == [3, 0, 2]
    step(networks, optimizer, positions[stays], directions[stays])
    nothing = prepare_removal(networks, torch.ones(5, dtype=torch.bool), {"networks": optimizer}, {})
    assert not nothing.removes and not nothing.edits and not nothing.buffers


def test_removing_everything_is_refused() -> None:
    """An empty grid shows nothing and learns nothing."""
    networks, optimizer, _, _ = trained()
    with pytest.raises(ValueError, match="none of the 7 networks would be left"):
        prepare_removal(networks, torch.zeros(7, dtype=torch.bool), {"networks": optimizer}, {})


def test_parameters_that_no_optimizer_knows_are_refused() -> None:
    """They would stop learning without a word; nothing is changed."""
    networks, _, _, _ = trained()
    with pytest.raises(ValueError, match="is in none of the optimizers"):
        prepare_removal(networks, STAYS, {}, {})
    assert networks.num_networks == 7


def test_networks_become_others_and_learn_on_as_these() -> None:
    """What is narrowed takes the place of what was, in the model and in both of the host's lists: the next steps are
    those of the others under an optimizer of their own."""
    networks, optimizer, positions, directions = trained()
    others = some_classes({8: 2, 4: 5, 12: 0})
    listed = list(networks.parameters())
    edits = prepare_replacement(networks, others, {"networks": optimizer}, {"networks": listed})
    assert networks.counts == [3, 2, 2] and listed == list(networks.parameters())
    optimizer.zero_grad()
    edits.apply()
    check_optimizers({"networks": optimizer}, {"networks": listed}, {"networks": list(networks.parameters())})
    fresh = torch.optim.Adam(others.parameters(), lr=0.01)
    for _ in range(3):
        step(networks, optimizer, positions, directions)
        step(others, fresh, positions, directions)
    assert networks.counts == [2, 5, 0] and torch.equal(networks.position, others.position)
    assert all(torch.equal(a, b) for a, b in zip(networks.parameters(), others.parameters(), strict=True))


def test_networks_of_other_classes_are_refused() -> None:
    """A checkpoint has room for the classes that a run began with."""
    networks, optimizer, _, _ = trained()
    with pytest.raises(ValueError, match="networks must have the same classes"):
        prepare_replacement(networks, some_classes({8: 3, 4: 4}), {"networks": optimizer}, {})
    assert networks.counts == [3, 2, 2]
