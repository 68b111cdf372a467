"""From Markdown to one HTML file that needs nothing else."""

import base64
import html
import re
from collections.abc import Mapping

import markdown

from nerfstudio_prune.report.plots import Plot, svg_inline

CSS = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1f2328; --soft: #59636e; --line: #d5dae0; --shade: #f4f6f8;
  --link: #0b62c4; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --ink: #e3e7eb; --soft: #9aa4af; --line: #363d46;
  --shade: #1d2228; --link: #6cb0ff; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 76rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 1rem; }
h2 { font-size: 1.35rem; margin: 2.6rem 0 .8rem; padding-top: .5rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.08rem; margin: 1.8rem 0 .6rem; }
p, li { max-width: 48rem; }
a { color: var(--link); }
code { font: .88em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
nav { background: var(--shade); border-radius: 6px; padding: .6rem 1rem; margin: 1rem 0 2rem; font-size: .95rem; }
nav ul { margin: .2rem 0; padding-left: 1.1rem; }
.scroll { overflow-x: auto; margin: .8rem 0 1rem; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .5rem; border-bottom: 1px solid var(--line); text-align: left; white-space: nowrap;
  overflow-wrap: normal; }
th { border-bottom: 2px solid var(--line); vertical-align: bottom; font-weight: 600; white-space: normal;
  min-width: 3.6rem; }
tbody tr:hover { background: var(--shade); }
@media (min-width: 48rem) { th:first-child, td:first-child { position: sticky; left: 0; background: var(--paper); } }
td strong { color: var(--ink); }
figure { margin: 1.2rem 0; }
figcaption { color: var(--soft); font-size: .88rem; max-width: 48rem; margin-top: .3rem; }
.plot { overflow-x: auto; }
.plot svg * { stroke-linejoin: round; stroke-linecap: butt; }
.plot svg { display: block; max-width: 100%; min-width: 34rem; height: auto; color: var(--ink); }
td img { display: block; image-rendering: pixelated; height: auto; max-width: none; }
@media (max-width: 40rem) { body { padding: 1rem .8rem 3rem; } th, td { padding: .25rem .45rem; } }
@media print { :root { --paper: #fff; --ink: #000; --soft: #333; --line: #bbb; --shade: #fff; --link: #000; }
  body { max-width: none; padding: 0; font-size: 10pt; } nav { display: none; } .scroll, .plot { overflow: visible; }
  table { font-size: 6.5pt; } th, td { padding: 1pt 3pt; white-space: normal; } th { min-width: 0; }
  td img { width: 70px; }
  .plot svg { min-width: 0; } figure, tr { break-inside: avoid; } h2, h3 { break-after: avoid; } }
"""


def to_html(text: str, title: str, plots: Mapping[str, Plot], images: Mapping[str, bytes]) -> str:
    """Converts a report to one page.

    Args:
        text: Markdown; refers to plots as `plots/NAME.svg` and to pictures as `images/NAME`.
        title: Title of the page.
        plots: Plots by name.
        images: PNG files by name.
    """
    converter = markdown.Markdown(
        extensions=["tables", "toc", "sane_lists"], extension_configs={"toc": {"toc_depth": "2-3"}}
    )
    body = converter.convert(text)
    contents: str = getattr(converter, "toc")  # noqa: B009  set by an extension, which types do not know
    for name, plot in plots.items():
        figure = re.compile(
            rf'<p><img alt="[^"]*" src="plots/{re.escape(name)}\.svg"\s*/?></p>\s*<p><em>(.*?)</em></p>', re.DOTALL
        )
        drawing = svg_inline(plot)
        body = figure.sub(
            lambda match, drawing=drawing: (
                f'<figure><div class="plot" tabindex="0">{drawing}</div><figcaption>{match[1]}</figcaption></figure>'
            ),
            body,
        )
    body = re.sub(
        r'<img src="images/([^"]+)"', lambda match: f'<img src="{_data(images[html.unescape(match[1])])}"', body
    )
    body = body.replace("<table>", '<div class="scroll" tabindex="0"><table>').replace("</table>", "</table></div>")
    heading, _, rest = body.partition("</h1>")
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{html.escape(title)}</title>\n'
        f"<style>{CSS}</style>\n</head>\n<body>\n{heading}</h1>\n<nav>{contents}</nav>\n{rest}\n</body>\n</html>\n"
    )


def _data(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")
