"""How plots look, and how they get into a page: SVG that follows the reader's light or dark scheme."""

import html
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

NEUTRAL = "#123457"
"""Colour of text, axes and the dense control while drawing. Nothing else has it, so that it can be replaced."""
PAPER_INK = "#24292f"
"""What it becomes on white."""
PALETTE = ("#1f83c6", "#d9661f", "#128a68", "#c25a9c", "#a67a00", "#7c6cd6", "#c74343", "#3f8f9f", "#7d8a2e", "#8d6e63")
"""Colours that keep a contrast of 3 on white and on the page's dark background; the first six stay apart for
colour-blind readers, and markers tell the others apart."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
"""One fewer than there are colours, so that no pair of colour and marker comes twice among 90 series."""
WIDTH = 9.0
"""Inches; the page shows 100 pixels an inch."""

_STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.alpha": 0.16,
    "grid.linewidth": 0.8,
    "grid.color": NEUTRAL,
    "axes.edgecolor": NEUTRAL,
    "axes.labelcolor": NEUTRAL,
    "axes.titlecolor": NEUTRAL,
    "text.color": NEUTRAL,
    "xtick.color": NEUTRAL,
    "ytick.color": NEUTRAL,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "lines.markersize": 6,
    # Names come from records: a dollar sign in one must not start a formula.
    "text.parse_math": False,
    "svg.fonttype": "none",
}


@dataclass(frozen=True)
class Plot:
    """A finished plot."""

    name: str
    """Unique within a report; letters, digits and dashes."""
    alt: str
    """What it shows, for those who cannot see it."""
    caption: str
    """Markdown: what is plotted, units, n."""
    svg: str
    """As drawn, with the neutral marker colour."""


@contextmanager
def style(name: str) -> Iterator[None]:
    """Settings for drawing one plot; the same name gives the same bytes."""
    with mpl.rc_context():
        mpl.rcdefaults()
        settings: Any = {**_STYLE, "svg.hashsalt": name}
        mpl.rcParams.update(settings)
        yield


def to_svg(figure: Figure) -> str:
    """Writes a figure as SVG without date and program."""
    buffer = io.StringIO()
    metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(buffer, format="svg", bbox_inches="tight", pad_inches=0.05, transparent=True, metadata=metadata)
    return buffer.getvalue()


def svg_file(plot: Plot) -> str:
    """A plot as a file of its own, on opaque white: it is shown on light and dark pages without knowing which."""
    svg = plot.svg.replace(NEUTRAL, PAPER_INK)
    return re.sub(r"(<svg [^>]*>)", r'\1\n <rect width="100%" height="100%" fill="#ffffff"/>', svg, count=1)


def svg_inline(plot: Plot) -> str:
    """A plot as a part of an HTML page: neutral parts take the text colour, and names are unique in the page."""
    svg = plot.svg[plot.svg.index("<svg ") :].replace(NEUTRAL, "currentColor")
    # What the style says holds for all of a page; the page has it for its plots.
    svg = re.sub(r"<(metadata|style)\b.*?</\1>\s*", "", svg, flags=re.DOTALL)
    prefix = f"{plot.name}-"
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = svg.replace("url(#", f"url(#{prefix}").replace('xlink:href="#', f'href="#{prefix}')
    opening, _, rest = svg.partition(">")
    attributes = dict(re.findall(r'([\w:]+)="([^"]*)"', opening))
    pixels = float(attributes["width"].removesuffix("pt")) * 100 / 72
    label = html.escape(plot.alt)
    return (
        f'<svg role="img" aria-label="{label}" style="width: {pixels:.0f}px" viewBox="{attributes["viewBox"]}">{rest}'
    )


def colour(index: int) -> str:
    """Colour of the series of an index."""
    return PALETTE[index % len(PALETTE)]


def marker(index: int) -> str:
    """Marker of the series of an index."""
    return MARKERS[index % len(MARKERS)]


def short(value: float) -> str:
    """A count for an axis: 36k, 1.2M."""
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g}{unit}"
    return f"{value:.3g}"


def horizontal_grid(axes: Axes) -> None:
    """Grid lines for values on the vertical axis only."""
    axes.grid(False, axis="x")
