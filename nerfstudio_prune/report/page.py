"""From Markdown to one HTML file that needs nothing else; `page.html` beside this module is its template."""

import base64
import html
from collections.abc import Mapping
from importlib.resources import files
from string import Template
from typing import Optional
from xml.etree.ElementTree import Element, SubElement

from markdown import Markdown
from markdown.extensions import Extension
from markdown.treeprocessors import Treeprocessor

from nerfstudio_prune.report.plots import Plot, svg_inline

AFTER_INLINE = 15
"""Priority of a step that sees the elements that inline Markdown became: between `inline` (20) and `prettify` (10)."""


def to_html(title: str, opening: str, text: str, plots: Mapping[str, Plot], images: Mapping[str, bytes]) -> str:
    """Makes one page.

    Args:
        title: Title of the page.
        opening: Markdown that stands above the list of contents; without headings.
        text: Markdown of the sections. Both refer to plots as `plots/NAME.svg` and to pictures as `images/NAME`.
        plots: Plots by name.
        images: PNG files by name.
    """
    converter = Markdown(
        extensions=["tables", "toc", "sane_lists", _Embedding(plots)],
        # Sections only: the list fits on a screen however many studies there are.
        extension_configs={"toc": {"toc_depth": 2}},
    )
    body = converter.convert(text)
    contents: str = getattr(converter, "toc")  # noqa: B009  set by an extension, which types do not know
    page = Template(files("nerfstudio_prune.report").joinpath("page.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(title), opening=converter.reset().convert(opening), contents=contents, body=body
    )
    for name, content in images.items():
        source = f'src="images/{html.escape(name)}"'
        page = page.replace(source, f'src="data:image/png;base64,{base64.b64encode(content).decode("ascii")}"')
    return page


class _Embedding(Extension):
    """Puts plots with their captions into the page, and lets wide tables scroll."""

    def __init__(self, plots: Mapping[str, Plot]) -> None:
        super().__init__()
        self.plots = plots

    def extendMarkdown(self, md: Markdown) -> None:
        md.treeprocessors.register(_Embedder(md, self.plots), "embedding", AFTER_INLINE)


class _Embedder(Treeprocessor):
    def __init__(self, md: Markdown, plots: Mapping[str, Plot]) -> None:
        super().__init__(md)
        self.markdown = md
        self.plots = {f"plots/{name}.svg": plot for name, plot in plots.items()}

    def run(self, root: Element) -> None:
        captions = []
        for i, element in enumerate(list(root)):
            if element.tag == "table":
                root[i] = Element("div", {"class": "scroll", "tabindex": "0"})
                root[i].append(element)
            elif (plot := self._plot(element)) is not None:
                captions.append(root[i + 1])
                root[i] = self._figure(plot, caption=root[i + 1][0])
        for paragraph in captions:
            root.remove(paragraph)

    def _figure(self, plot: Plot, caption: Element) -> Element:
        figure = Element("figure")
        drawing = SubElement(figure, "div", {"class": "plot", "tabindex": "0"})
        drawing.text = self.markdown.htmlStash.store(svg_inline(plot))
        caption.tag = "figcaption"
        figure.append(caption)
        return figure

    def _plot(self, element: Element) -> Optional[Plot]:
        """The plot that a paragraph consists of; the next paragraph is its caption."""
        if element.tag != "p" or len(element) != 1 or element[0].tag != "img":
            return None
        return self.plots.get(element[0].get("src", ""))
