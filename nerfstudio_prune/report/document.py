"""The report as Markdown, and all files that belong to it."""

from collections.abc import Callable, Sequence
from typing import Optional

from nerfstudio_prune.records.cost_schema import CostRecord
from nerfstudio_prune.report import paper
from nerfstudio_prune.report.charts import charts, front_chart
from nerfstudio_prune.report.claims import RULE, claims_table, claims_text
from nerfstudio_prune.report.cost_charts import cost_charts
from nerfstudio_prune.report.cost_tables import cost_tables
from nerfstudio_prune.report.file_charts import file_charts
from nerfstudio_prune.report.file_study import FileStudy
from nerfstudio_prune.report.file_tables import file_tables
from nerfstudio_prune.report.frontier_charts import frontier_charts
from nerfstudio_prune.report.frontier_study import FrontierStudy
from nerfstudio_prune.report.frontier_tables import frontier_tables
from nerfstudio_prune.report.headline import find_headline, sentences
from nerfstudio_prune.report.images import ERROR_SCALE, Gallery, gallery
from nerfstudio_prune.report.kilo_study import KiloStudy
from nerfstudio_prune.report.kilo_tables import kilo_tables
from nerfstudio_prune.report.markup import escape, missing
from nerfstudio_prune.report.page import to_html
from nerfstudio_prune.report.plots import Plot, svg_file
from nerfstudio_prune.report.splat_study import SplatStudy
from nerfstudio_prune.report.splat_targets import splat_tables
from nerfstudio_prune.report.study import FRONTIER_ROLES, Study, by_study, without_ablations
from nerfstudio_prune.report.tables import (
    BUSY,
    ablation_text,
    device_table,
    frontier_table,
    layers_table,
    measured_text,
    peers_table,
    speed_table,
)

TITLE = "Neuron pruning of a NeRF in mid-training"
NO_IMAGES = "Renderings are left out: images are not kept with the records. `ns-prune bench` writes them again."
PAPER_TABLES: list[tuple[str, str, Callable[[Study], Optional[str]]]] = [
    (
        "Table 1: pruning edges",
        "Masks hold single weights at zero. The paper gives one PSNR and does not say whether it trained on.",
        paper.masks_table,
    ),
    ("Table 2: uniform sampling", "", paper.uniform_table),
    ("Table 3: importance", "The paper does not say at which width.", paper.importance_table),
    ("Table 4: coreset, size and time", "", paper.coreset_table),
    ("Table 4: coreset, quality", "", paper.coreset_quality_table),
]

SPLAT_TITLES = {
    "splats-targets": "Targets",
    "splats-zero-shot": "Right after the cut",
    "splats-recovered": "Recovered, beside the controls",
    "splats-harmonics": "Spherical harmonics",
    "splats-speed": "Speed of Gaussians",
    "splats-lightgaussian": "LightGaussian's Tables 2 and 3",
}

KILO_TITLES = {
    "kilonerf-targets": "Targets of tiny networks",
    "kilonerf-arms": "Beside their controls",
    "kilonerf-frames": "Pictures in turns",
}

FILE_TITLES = {"files-targets": "Targets of small files", "files": "Every form"}

COST_TITLES = {
    "speed-stock": "Beside the host's own model",
    "speed-work": "Points, peak and memory",
    "speed-views": "Quality without the samples in empty space",
    "scaling-lines": "Straight lines",
    "scaling-points": "Times and memory by size",
    "scaling-frame": "A large picture",
}


def render(
    studies: Sequence[Study],
    splats: Sequence[SplatStudy] = (),
    costs: Sequence[CostRecord] = (),
    kilo: Sequence[KiloStudy] = (),
    files: Sequence[FileStudy] = (),
    frontier: Sequence[FrontierStudy] = (),
) -> dict[str, bytes]:
    """All files of a report by their path in its folder. The same records give the same bytes.

    Args:
        studies: Those of networks.
        splats: Those of Gaussians.
        costs: Records of what networks cost.
        kilo: Those of tiny networks.
        files: Those of small files.
        frontier: Those of all kinds of runs beside each other.

    Raises:
        RecordError: If a picture that a record names cannot be used; names the file.
    """
    return _Document(studies, splats, costs, kilo, files, frontier).files()


def _shown(plot: Plot) -> str:
    """Markdown of a plot and its caption; the page makes a figure of the two paragraphs."""
    return f"![{plot.alt}](plots/{plot.name}.svg)\n\n*{plot.caption}*"


class _Document:
    def __init__(
        self,
        studies: Sequence[Study],
        splats: Sequence[SplatStudy],
        costs: Sequence[CostRecord],
        kilo: Sequence[KiloStudy],
        stored: Sequence[FileStudy],
        frontier: Sequence[FrontierStudy],
    ) -> None:
        self.studies, self.splats, self.costs, self.kilo, self.stored = studies, splats, costs, kilo, stored
        self.file_plots = file_charts(stored)
        self.frontier, self.frontier_plots = frontier, frontier_charts(frontier, stored)
        self.plain = without_ablations(studies)
        self.cost_plots = cost_charts(costs)
        self.plots = {study.slug: charts(study) for study in studies}
        headline = find_headline(studies)
        self.front = None if headline is None else front_chart(headline)
        self.galleries: dict[str, Gallery] = {}
        for study in studies:
            made = gallery(study)
            if made is not None:
                self.galleries[study.slug] = made

    def files(self) -> dict[str, bytes]:
        """All files by path."""
        opening, body = self.opening(), self.body()
        plots = {plot.name: plot for kinds in self.plots.values() for plot in kinds.values()}
        plots |= {plot.name: plot for plot in (*self.cost_plots, *self.file_plots, *self.frontier_plots)}
        if self.front is not None:
            plots[self.front.name] = self.front
        images = {name: content for made in self.galleries.values() for name, content in made.files.items()}
        return {
            **{f"plots/{plot.name}.svg": svg_file(plot).encode() for plot in plots.values()},
            **{f"images/{name}": content for name, content in images.items()},
            "report.md": f"# {TITLE}\n\n{opening}\n\n{body}\n".encode(),
            "index.html": to_html(TITLE, opening, body, plots, images).encode(),
        }

    def opening(self) -> str:
        """One figure, and what the records come to in sentences that can be repeated."""
        said = "\n".join(f"- {sentence}" for sentence in sentences(self.studies))
        figure = f"{_shown(self.front)}\n\n" if self.front is not None else ""
        return f"{figure}{said}\n\nMade by `ns-prune report` from records only."

    def body(self) -> str:
        """The sections as Markdown."""
        sections = [
            ("What was measured", measured_text(self.studies)),
            ("Presets and recipes", self._ablation()),
            ("What the comparisons say", f"{RULE}\n\n{self._studies(claims_text, 'frontier', self.plain)}"),
            ("The paper's tables", self._paper()),
            ("Quality against size and time", self._frontier()),
            ("Speed", self._speed()),
            *([("Cost", self._costs())] if self.costs else []),
            ("Other libraries", self._peers()),
            ("Layers and scores", self._layers()),
            ("Renderings", self._renderings()),
            ("All comparisons", self._studies(claims_table, "frontier")),
            *([("Gaussians", self._splats())] if self.splats else []),
            *([("Tiny networks", self._kilo())] if self.kilo else []),
            *([("Small files", self._stored())] if self.stored else []),
            *([("Everything beside each other", self._everything())] if self.frontier else []),
        ]
        return "\n\n".join(f"## {number}. {title}\n\n{text}" for number, (title, text) in enumerate(sections, 1))

    def _studies(
        self, make: Callable[[Study], Optional[str]], suite: str, studies: Optional[Sequence[Study]] = None
    ) -> str:
        """One part for each study, or each of some, that something can be made of; headings only where the report has
        several studies."""
        made = list(by_study(self.studies if studies is None else studies, make))
        if not made:
            return missing(suite)
        if len(self.studies) == 1:
            return made[0][1]
        return "\n\n".join(f"### {study.letter}: {escape(study.title)}\n\n{text}" for study, text in made)

    def _plot(self, study: Study, kind: str) -> Optional[str]:
        plot = self.plots[study.slug].get(kind)
        return _shown(plot) if plot else None

    def _paper(self) -> str:
        intro = (
            "Ding et al. 2025 ([arXiv 2504.00950](https://arxiv.org/abs/2504.00950)) prune, «retrain» and measure. "
            "The word has two readings, and both are here: the pruned network keeps its weights and trains on, or "
            "it starts from a new initialisation at the new widths. The paper's scene, views and network sizes are "
            "its own; compare differences and shares rather than absolute values. Its sizes count one network, ours "
            "both fields."
        )

        def make(study: Study) -> Optional[str]:
            parts = []
            for title, note, table in PAPER_TABLES:
                text = table(study)
                if text:
                    level = "###" if len(self.studies) == 1 else "####"
                    parts += [f"{level} {title}", *([note] if note else []), text]
            weights = self._plot(study, "weights")
            if weights:
                parts += [f"{'###' if len(self.studies) == 1 else '####'} Figure 2: weights", weights]
            if parts and any(arm.busy for arm in study.find("pruned", strategy="coreset")):
                parts.append(BUSY)
            return "\n\n".join(parts) or None

        return f"{intro}\n\n{self._studies(make, 'paper', self.plain)}"

    def _frontier(self) -> str:
        def make(study: Study) -> Optional[str]:
            arms = [arm for arm in study.arms if arm.first.role in FRONTIER_ROLES]
            if not arms:
                return None
            parts = [frontier_table(study), f"Device {study.letter}: {escape(study.device)}."]
            if any(arm.busy for arm in arms):
                parts.append(BUSY)
            parts += [plot for kind in ("frontier", "time", "recovery") if (plot := self._plot(study, kind))]
            return "\n\n".join(parts)

        text = self._studies(make, "frontier")
        devices = device_table(self.studies)
        if devices:
            title = "### The same arms on several devices\n\nPSNR at the end, mean ± standard deviation (n)."
            text += f"\n\n{title}\n\n{devices}"
        return text

    def _splats(self) -> str:
        tables = splat_tables(self.splats)
        return "\n\n".join(f"### {SPLAT_TITLES[name]}\n\n{make()}" for name, make in tables.items())

    def _kilo(self) -> str:
        tables = kilo_tables(self.kilo)
        return "\n\n".join(f"### {KILO_TITLES[name]}\n\n{make()}" for name, make in tables.items())

    def _stored(self) -> str:
        parts = [f"### {FILE_TITLES[name]}\n\n{make()}" for name, make in file_tables(self.stored).items()]
        return "\n\n".join([*parts, *map(_shown, self.file_plots)])

    def _everything(self) -> str:
        parts = [make() for make in frontier_tables(self.frontier, self.stored).values()]
        return "\n\n".join([*parts, *map(_shown, self.frontier_plots)])

    def _costs(self) -> str:
        parts = [f"### {COST_TITLES[name]}\n\n{make()}" for name, make in cost_tables(self.costs).items()]
        return "\n\n".join([*parts, *map(_shown, self.cost_plots)])

    def _ablation(self) -> str:
        note = (
            "A recipe prunes by several means at once; each arm `without` leaves one of them out. Δ small is the "
            "difference to the network of half the width from scratch of the same seed. Δ dense at equal time compares "
            "the end of the curve on held-out rays with the dense curve at the same training time, a straight line "
            "between two of its points; there is none on another device, on a busy machine, or beyond the dense curve. "
            "Nothing is bold: the arms differ in size."
        )
        text = self._studies(ablation_text, "ablation")
        return f"{note}\n\n{text}" if len(self.plain) < len(self.studies) else text

    def _speed(self) -> str:
        def make(study: Study) -> Optional[str]:
            table = speed_table(study)
            if table is None:
                return None
            note = (
                "Dense and pruned took turns in one process. Each speed-up is the median of the ratios of neighbouring "
                "blocks, with their range; `a → b` are the medians of dense and pruned, memory is what a training "
                "step takes at most above what is held between two steps. "
                f"Device {study.letter}: {escape(study.device)}."
            )
            return "\n\n".join([table, note, self._plot(study, "speed") or ""])

        return self._studies(make, "speed")

    def _peers(self) -> str:
        def make(study: Study) -> Optional[str]:
            table = peers_table(study)
            if table is None:
                return None
            parts = [
                table,
                "One dense checkpoint a seed, pruned to the same widths and trained on alike; only the seeds that the "
                "other libraries were run with. Masked networks keep their parameters.",
            ]
            for run in (run for arm in study.find("peer") for run in arm.runs):
                if run.notes.get("surgery_agrees") is False:
                    parts.append(f"`{run.name}`: the library's own surgery gave another network than this project's.")
            return "\n\n".join(parts)

        return self._studies(make, "peers", self.plain)

    def _layers(self) -> str:
        def make(study: Study) -> Optional[str]:
            table = layers_table(study)
            note = "Arms of equal widths share a column; `+` says how many more there are." if table else None
            return "\n\n".join(part for part in (table, note, self._plot(study, "scores")) if part) or None

        return self._studies(make, "frontier")

    def _renderings(self) -> str:
        if not self.galleries:
            return NO_IMAGES
        note = (
            "One view, the lowest seed (the paper's Figure 4); the first row is the ground truth. Error: mean absolute "
            f"difference of the three colours, from black (0) to light yellow ({ERROR_SCALE:g} or more, of 1). "
            "Enlarged: the window in which the mean error of all networks is largest. Pixels are shown as they are."
        )

        def make(study: Study) -> Optional[str]:
            return self.galleries[study.slug].text if study.slug in self.galleries else None

        return f"{note}\n\n{self._studies(make, 'frontier')}"
