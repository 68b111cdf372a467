"""Training views that are kept back from what a network is changed by, to measure the change on."""

KEPT_BACK = 8
"""One of so many training views is kept back to measure on."""
FEWEST, MOST = 8, 64
"""Views that are kept back where there are as many, and at most."""


def split_views(count: int) -> tuple[list[int], list[int]]:
    """Views to judge a cut by, and views to measure it on: evenly spaced, since neighbours of a video are alike.

    Args:
        count: Training views.

    Returns:
        Indices of both; the latter are an eighth, or more where that would be few, but at most half of them.
    """
    kept = min(count // 2, max(FEWEST, count // KEPT_BACK), MOST)
    back = [(2 * i + 1) * count // (2 * kept) for i in range(kept)]
    return sorted(set(range(count)) - set(back)), back
