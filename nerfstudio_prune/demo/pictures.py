"""The picture that the demo leaves: views beside each other, with captions."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import uniform_filter

MARGIN, CAPTION = 8, 24
"""Pixels around a picture, and of the line of its caption."""
FONT_SIZE, INDENT = 15, 2
MAGNIFIED = 2
"""How much larger than the rest a detail is shown."""

Picture = UInt8[np.ndarray, "height width 3"]


def side_by_side(pictures: Sequence[Picture], captions: Sequence[str], scale: int = 2, columns: int = 0) -> Image.Image:
    """Rows of equally large pictures with captions, enlarged without smoothing.

    Args:
        pictures: At least one.
        captions: One for each.
        scale: Pixels along each side of a pixel, at least; more where a caption is wider than its picture.
        columns: Pictures in a row; 0: all.
    """
    columns = columns or len(pictures)
    font = ImageFont.load_default(FONT_SIZE)
    longest = max(math.ceil(font.getlength(caption)) for caption in captions) + 2 * INDENT
    height, width = pictures[0].shape[:2]
    scale = max(scale, -(-longest // width))
    height, width = height * scale, width * scale
    wide, high = width + MARGIN, height + CAPTION + MARGIN
    rows = -(-len(pictures) // columns)
    canvas = Image.new("RGB", (columns * wide + MARGIN, rows * high), "white")
    draw = ImageDraw.Draw(canvas)
    for i, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left, top = MARGIN + i % columns * wide, i // columns * high
        canvas.paste(Image.fromarray(picture).resize((width, height), Image.Resampling.NEAREST), (left, top + CAPTION))
        draw.text((left + INDENT, top + 3), caption, fill="black", font=font)
    return canvas


def framed(pictures: Sequence[Picture], truth: Picture, border: int = 6) -> list[Picture]:
    """Pictures without the empty space around what the truth shows.

    Args:
        pictures: Of the truth's size.
        truth: Its corner has the colour of the empty space.
        border: Pixels that are left around it.
    """
    rows, columns = (truth != truth[0, 0]).any(axis=-1).nonzero()
    if not len(rows):
        return list(pictures)
    box = tuple(slice(max(0, at.min() - border), at.max() + border + 1) for at in (rows, columns))
    return [picture[box] for picture in pictures]


def details(truth: Picture, others: Sequence[Picture]) -> Picture:
    """The same detail of four pictures, as one picture of their size: where the third one is worst.

    Args:
        truth: The true picture.
        others: Three more.
    """
    pictures = [truth, *others]
    height, width = (size // (2 * MAGNIFIED) for size in truth.shape[:2])
    error = np.square(others[1].astype(float) - truth).sum(axis=-1)
    window: Any = (height, width)
    inside = uniform_filter(error, window, mode="constant")[height // 2 :, width // 2 :]
    inside = inside[: truth.shape[0] - height + 1, : truth.shape[1] - width + 1]
    top, left = np.unravel_index(inside.argmax(), inside.shape)
    parts = [picture[top : top + height, left : left + width] for picture in pictures]
    parts = [part.repeat(MAGNIFIED, axis=0).repeat(MAGNIFIED, axis=1) for part in parts]
    sheet = np.full_like(truth, 255)
    for i, part in enumerate(parts):
        y, x = i // 2 * height * MAGNIFIED, i % 2 * width * MAGNIFIED
        sheet[y : y + part.shape[0], x : x + part.shape[1]] = part
    y, x = height * MAGNIFIED, width * MAGNIFIED
    sheet[y - 1 : y + 1] = sheet[:, x - 1 : x + 1] = 255
    return sheet
