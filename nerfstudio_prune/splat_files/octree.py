"""Cells as the occupancy of an octree, level by level, as in LightGaussian (arXiv 2311.17245, section 3.4): a byte for
each node that is not empty, whose bits say which of its eight parts are not."""

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from nerfstudio_prune.exchange.errors import refuse


def encode_octree(codes: Int64[ndarray, " points"], bits: int) -> tuple[bytes, Int64[ndarray, " leaves"]]:
    """Bytes of all nodes, from the root on, and how many points each leaf holds.

    Args:
        codes: Morton codes, in rising order.
        bits: Of a coordinate: levels of the tree.
    """
    leaves, counts = np.unique(codes, return_counts=True)
    levels = []
    children = leaves
    for _ in range(bits):
        parents, of = np.unique(children >> 3, return_inverse=True)
        occupancy = np.zeros(len(parents), np.uint8)
        np.bitwise_or.at(occupancy, of, (1 << (children & 7)).astype(np.uint8))
        levels.append(occupancy.tobytes())
        children = parents
    return b"".join(reversed(levels)), counts


def decode_octree(content: bytes, bits: int, most: int, section: str) -> Int64[ndarray, " leaves"]:
    """Morton codes of the leaves, in rising order; undoes `encode_octree`.

    Args:
        content: The bytes of all nodes.
        bits: Levels of the tree.
        most: Leaves that there may be.
        section: What it is called in an error.

    Raises:
        FileFormatError: If a node is empty, there are more leaves, or the bytes do not end with the last level.
    """
    nodes = np.frombuffer(content, np.uint8)
    codes, at = np.zeros(1, np.int64), 0
    for _ in range(bits):
        level = nodes[at : at + len(codes)]
        if len(level) < len(codes) or not level.all():
            raise refuse(section, "nodes that are not empty, down to the last level", "others")
        at += len(level)
        children = np.unpackbits(level[:, None], axis=1, bitorder="little")
        if int(children.sum()) > most:
            raise refuse(section, f"at most {most:,} leaves", f"{int(children.sum()):,} nodes of a level")
        parents, parts = children.nonzero()
        codes = codes[parents] << 3 | parts
    if at != len(nodes):
        raise refuse(section, "nothing behind the last level", f"{len(nodes) - at:,} bytes")
    return codes
