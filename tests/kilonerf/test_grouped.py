"""Grouped products: every way against a loop in float64, forward and backward."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from nerfstudio_prune.kilonerf import grouped
from nerfstudio_prune.kilonerf.grouped import Evaluation, Groups, Way, grouped_matmul, native_works

CPU = torch.device("cpu")
NATIVE = native_works(CPU, torch.float32)
WAYS: list[Evaluation] = ["native", "buckets", "tiles", "loop", "auto"]
COUNTS = {
    "skewed": [1, 0, 40, 3, 0, 0, 7, 100, 2, 8],
    "one group": [9],
    "one point": [0, 1, 0],
    "no points": [0, 0, 0],
    "no groups": [],
}


def usable(way: Evaluation) -> Evaluation:
    if way == "native" and not NATIVE:
        pytest.skip("this PyTorch's grouped_mm does not pass the check")
    return way


def reference(x: Tensor, weights: Tensor, counts: list[int]) -> Tensor:
    """Row by row."""
    ids = [group for group, count in enumerate(counts) for _ in range(count)]
    return torch.einsum("ri,rio->ro", x.double(), weights.double()[torch.tensor(ids, dtype=torch.int64)])


def drawn(counts: list[int], inputs: int, outputs: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(sum(counts), inputs, generator=generator) / inputs**0.5
    weights = torch.randn(len(counts), inputs, outputs, generator=generator)
    return x, weights, torch.randn(sum(counts), outputs, generator=generator)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", COUNTS)
def test_every_way_is_a_loop_over_rows(way: Evaluation, case: str) -> None:
    """A row that is multiplied with its neighbour's matrix looks like noise in a picture. Most cells are empty in most
    chunks, and widths need not suit any alignment. Both gradients are what training goes by."""
    counts = COUNTS[case]
    groups = Groups.of_counts(torch.tensor(counts, dtype=torch.int64))
    for inputs, outputs in ((8, 12), (7, 5)):
        x, weights, factor = drawn(counts, inputs, outputs)
        x, weights = x.requires_grad_(), weights.requires_grad_()
        found = grouped_matmul(x, weights, groups, usable(way))
        expected = reference(x, weights, counts)
        torch.testing.assert_close(found.double(), expected, atol=2e-6, rtol=1e-6)
        of_x, of_weights = torch.autograd.grad((found * factor).sum(), (x, weights))
        exact = torch.autograd.grad((expected * factor).sum(), (x, weights))
        torch.testing.assert_close(of_x, exact[0], atol=5e-6, rtol=1e-6)
        torch.testing.assert_close(of_weights, exact[1], atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("way", ["buckets", "tiles", "loop"])
def test_gradients_pass_gradcheck(way: Evaluation) -> None:
    """Against differences of the function itself, in float64, which the native way does not take."""
    x, weights, _ = drawn([3, 0, 5], 4, 3)
    groups = Groups.of_counts(torch.tensor([3, 0, 5]))
    inputs = (x.double().requires_grad_(), weights.double().requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: grouped_matmul(a, b, groups, way), inputs)


@pytest.mark.parametrize("way", WAYS)
def test_a_gradient_that_is_expanded_from_a_sum_is_taken(way: Evaluation) -> None:
    """The native product refuses strides of zero, which the gradient of a sum has."""
    x, weights, _ = drawn([3, 6], 8, 4)
    x.requires_grad_()
    groups = Groups.of_counts(torch.tensor([3, 6]))
    grouped_matmul(x, weights, groups, usable(way)).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad[:3], weights[0].sum(dim=1).expand(3, -1))


@pytest.mark.parametrize("way", WAYS)
def test_only_wanted_gradients_are_computed(way: Evaluation) -> None:
    """The encoded position of a point has no use for a gradient, and the first layer is a fifth of the work."""
    x, weights, _ = drawn([3, 6], 8, 4)
    weights.requires_grad_()
    grouped_matmul(x, weights, Groups.of_counts(torch.tensor([3, 6])), usable(way)).sum().backward()
    assert x.grad is None and weights.grad is not None


def test_rows_in_the_wrong_groups_give_another_result() -> None:
    """The control of all comparisons here: with the groups' numbers shuffled they fail."""
    counts = COUNTS["skewed"]
    x, weights, _ = drawn(counts, 8, 4)
    shuffled = Groups.of_counts(torch.tensor(counts).roll(1))
    found = grouped_matmul(x, weights, shuffled)
    assert bool((found - reference(x, weights, counts)).abs().max() > 0.5)


def test_values_of_other_groups_stay_out_of_buckets() -> None:
    """Short groups are filled up with rows of others; one network that is no number would spoil its neighbours'
    gradients."""
    x, weights, factor = drawn([4, 2, 3], 4, 4)
    x[0] = torch.nan
    weights.requires_grad_()
    groups = Groups.of_counts(torch.tensor([4, 2, 3]))
    (grouped_matmul(x, weights, groups, "buckets") * factor).sum().backward()
    assert weights.grad is not None and bool(weights.grad[1:].isfinite().all())
    assert not bool(weights.grad[0].isfinite().all())


def test_tiles_are_what_a_gpu_takes() -> None:
    """Each kernel takes some time to be launched there, so that their number must not grow with that of the groups.
    Each row is in one tile, and stands where it is looked for."""
    somewhere = torch.empty(100, 8, device="meta")
    assert grouped._suited(somewhere, Groups.of_counts(torch.tensor([99, 1]))) == "tiles"
    counts = torch.tensor([0, 1, grouped.TILE_ROWS, 0, 2 * grouped.TILE_ROWS + 1, 0])
    tiles = Groups.of_counts(counts).tiles
    assert tiles.counts.tolist() == [0, 1, 1, 0, 3, 0] and tiles.group.tolist() == [1, 2, 4, 4, 4]
    rows = torch.arange(int(counts.sum()))
    assert tiles.rows[tiles.valid].tolist() == rows.tolist()
    assert tiles.rows.flatten()[tiles.place].tolist() == rows.tolist()


def test_buckets_hold_every_row_once_and_fill_up_little() -> None:
    """A row that is in none keeps whatever was in memory."""
    counts = torch.randint(0, 200, (300,), generator=torch.Generator().manual_seed(0))
    groups = Groups.of_counts(counts)
    rows = torch.cat([bucket.rows[bucket.valid] for bucket in groups.buckets])
    assert sorted(rows.tolist()) == list(range(int(counts.sum())))
    assert sum(bucket.rows.numel() for bucket in groups.buckets) < 1.3 * int(counts.sum())
    assert len(groups.buckets) < 20


def test_the_native_way_is_used_only_where_it_passes_its_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not documented for what it does here. A PyTorch that lacks it, refuses, or is wrong in one of the three
    products goes the other ways without a word; who asks for it by name is told."""

    def missing() -> object:
        raise NotImplementedError

    def refuses() -> object:
        def function(*arguments: object, **options: object) -> Tensor:
            raise RuntimeError("strides")

        return function

    def wrong() -> object:
        def function(x: Tensor, weights: Tensor, offs: Tensor) -> Tensor:
            if weights.dim() == 3:
                product = torch.zeros(len(x), weights.shape[2])
                bounds = [0, *offs.tolist()]
                for i, (a, b) in enumerate(pairwise(bounds)):
                    product[a:b] = x[a:b] @ weights[i]
                return product
            return torch.zeros(len(offs), x.shape[0], weights.shape[1])

        return function

    x, weights, _ = drawn([30, 50], 8, 4)
    groups = Groups.of_counts(torch.tensor([30, 50]))
    for function in (missing, refuses, wrong):
        native_works.cache_clear()
        monkeypatch.setattr(grouped, "_native_function", function)
        assert not native_works(CPU, torch.float32)
        torch.testing.assert_close(grouped_matmul(x, weights, groups), grouped_matmul(x, weights, groups, "loop"))
        with pytest.raises(ValueError, match=r"model\.evaluation native .* choose auto, buckets, tiles or loop"):
            grouped_matmul(x, weights, groups, "native")
    monkeypatch.undo()
    native_works.cache_clear()
    assert native_works(CPU, torch.float32) == NATIVE
    assert not native_works(CPU, torch.float64) and not native_works(CPU, torch.int32)


def test_the_check_takes_nothing_from_the_random_state() -> None:
    """It happens in the middle of a training, whose batches must not depend on it."""
    native_works.cache_clear()
    torch.manual_seed(3)
    state = torch.get_rng_state()
    native_works(CPU, torch.float32)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.skipif(not NATIVE, reason="this PyTorch's grouped_mm does not pass the check")
def test_the_way_follows_from_the_points_of_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Padded batches where networks have few points, PyTorch's own where they have many."""
    used: list[Way] = []
    apply = grouped._apply

    def noted(x: Tensor, weights: Tensor, groups: Groups, way: Way) -> Tensor:
        used.append(way)
        return apply(x, weights, groups, way)

    monkeypatch.setattr(grouped, "_apply", noted)
    for count in (2, 50):
        x, weights, _ = drawn([count] * 4, 8, 4)
        grouped_matmul(x, weights, Groups.of_counts(torch.tensor([count] * 4)))
    assert used == ["buckets", "native"]


def test_what_does_not_fit_is_refused() -> None:
    """Rows behind the last group would keep whatever was in memory."""
    x, weights, _ = drawn([3, 6], 8, 4)
    with pytest.raises(ValueError, match="2 matrices and 9 rows need as many groups and rows, got 2 groups of 8 rows"):
        grouped_matmul(x, weights, Groups.of_counts(torch.tensor([3, 5])))
    with pytest.raises(ValueError, match="got 3 groups of 9 rows"):
        grouped_matmul(x, weights, Groups.of_counts(torch.tensor([3, 5, 1])))
