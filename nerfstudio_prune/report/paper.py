"""The tables of Ding et al. 2025 (arXiv 2504.00950) with ours beside theirs."""

from collections.abc import Sequence
from typing import Optional

from nerfstudio_prune.records.schema import RunRecord
from nerfstudio_prune.report.markup import Column, bold_best, code, item_table, table, widths_text
from nerfstudio_prune.report.stats import NOTHING, TIMES, Stat, number
from nerfstudio_prune.report.study import CONTINUE, SCRATCH, Arm, Study, psnr
from nerfstudio_prune.report.tables import sizes_of

BASELINE_PSNR = 21.5
MASKS = {
    ("threshold", 0.05): (40, 21.3),
    ("threshold", 0.1): (20, 20.8),
    ("share kept", 0.4): (40, 21.3),
    ("share kept", 0.2): (20, 20.8),
}
"""Table 1: how single weights were masked -> what remains in percent, PSNR; by threshold, and by what that left in the
paper."""
UNIFORM = {0.75: (16.5, 0.7)}
"""Table 2: pruning ratio -> PSNR, model size in MB."""
IMPORTANCE = {"w_in": 19.5, "w_out": 20.0, "w_in_w_out": 20.0}
"""Table 3: score -> PSNR."""
CORESET = {0.0: (595, 2.38, 21.5, 78.75), 0.5: (288, 1.14, 21.3, 51.25), 0.75: (177, 0.7, 20.1, 46.25)}
"""Table 4: pruning ratio -> thousand parameters, model size in MB, PSNR, minutes per 100k iterations."""
PAPER_WIDTH = 256


def minutes_per_100k(run: RunRecord) -> Optional[float]:
    """Minutes of 100 000 training iterations at the speed at the end of a run."""
    return 1e5 * run.rays_per_batch / run.rays_per_sec / 60 if run.rays_per_sec > 0 else None


def _ours(study: Study, arm: Optional[Arm]) -> list[tuple[str, Optional[float]]]:
    """PSNR right after the cut, at the end with kept weights, and at the end from a new initialisation."""
    fresh = study.reinitialised(arm) if arm else None
    stats = [arm.at("right after", psnr) if arm else Stat(()), arm.psnr if arm else Stat(())]
    stats.append(fresh.psnr if fresh else Stat(()))
    return [(stat.text(2), stat.mean) for stat in stats]


OURS = ["our right after dB", "our end, weights kept dB", "our end, new initialisation dB"]


def _marked(rows: list[list[str]], values: Sequence[Sequence[Optional[float]]], first: int) -> None:
    """Marks the best of our values in each of the columns from `first` on."""
    for offset in range(len(OURS)):
        texts = bold_best([row[first + offset] for row in rows], [value[offset] for value in values], max)
        for row, text in zip(rows, texts, strict=True):
            row[first + offset] = text


def _psnr_table(
    study: Study, headers: list[str], dense_cells: list[str], rows: list[tuple[list[str], Arm]], tail: bool = True
) -> str:
    """Rows of text, then our three values, then n; the baseline comes first and is no candidate for the best."""
    body, values = [], []
    for cells, arm in rows:
        ours = _ours(study, arm)
        body.append([*cells, *[text for text, _ in ours], str(arm.n)])
        values.append([value for _, value in ours])
    _marked(body, values, len(headers))
    dense = study.dense
    if dense is not None:
        body.insert(0, [*dense_cells, NOTHING, dense.psnr.text(2), NOTHING, str(dense.n)])
    return table([*headers, *OURS, "n"], body)


def remaining(arm: Arm) -> Optional[float]:
    """Percentage of the weights that are not zero right after the cut."""
    return arm.at("right after", lambda stage: 100 * stage.sizes.nonzero / max(stage.sizes.parameters, 1)).mean


def _masking(study: Study) -> list[Arm]:
    """Arms that mask single weights and keep the others."""
    return [arm for arm in study.arms if arm.traits.weight_options and arm.first.recovery != SCRATCH]


def masks_table(study: Study) -> Optional[str]:
    """Table 1; None without records."""
    arms = _masking(study)
    if not arms:
        return None
    options = list(dict.fromkeys(option for option, _ in MASKS))

    def order(arm: Arm) -> tuple[int, float]:
        option = arm.weight_option
        return (options.index(option[0]) if option else len(options), -(remaining(arm) or 0.0))

    rows = []
    for arm in sorted(arms, key=order):
        option = arm.weight_option
        percent, quality = MASKS.get(option, (None, None)) if option else (None, None)
        text = f"{option[0]} {option[1]:g}" if option else code(arm.name)
        rows.append(([text, number(percent), number(remaining(arm), 0), number(quality, 1)], arm))
    headers = ["edges", "paper remaining %", "our remaining %", "paper dB"]
    return _psnr_table(study, headers, ["threshold 0", "100", "100", number(BASELINE_PSNR, 1)], rows)


def _layer_size(ratio: float) -> str:
    width = round(PAPER_WIDTH * (1 - ratio))
    return f"{width}{TIMES}{width}"


def uniform_table(study: Study) -> Optional[str]:
    """Table 2; None without records."""
    arms = [arm for arm in study.find("pruned", strategy="uniform") if arm.inherits]
    if not arms:
        return None
    rows = []
    for arm in arms:
        ratio = arm.first.pruning_ratio or 0.0
        quality, size = UNIFORM.get(ratio, (None, None))
        paper_size = _layer_size(ratio) if quality else NOTHING
        sizes = sizes_of(arm)
        cells = [f"uniform {ratio:g}", paper_size, widths_text(sizes.parts)]
        rows.append(([*cells, number(size, 2), number(sizes.fields_mb, 2), number(quality, 1)], arm))
    headers = ["", "paper layers", "our layers", "paper MB", "our MB", "paper dB"]
    return _psnr_table(study, headers, _dense_cells(study), rows)


def _dense_cells(study: Study) -> list[str]:
    if study.dense is None:
        return []
    sizes = sizes_of(study.dense)
    size = number(CORESET[0.0][1], 2)
    return [
        "dense",
        _layer_size(0),
        widths_text(sizes.parts),
        size,
        number(sizes.fields_mb, 2),
        number(BASELINE_PSNR, 1),
    ]


def importance_table(study: Study) -> Optional[str]:
    """Table 3; None without records. The paper does not say which width it is of."""
    arms = [arm for arm in study.find("pruned", strategy="importance") if arm.inherits]
    if not arms:
        return None
    parts = []
    for ratio in dict.fromkeys(arm.first.pruning_ratio for arm in arms):
        block = [arm for arm in arms if arm.first.pruning_ratio == ratio]
        block.sort(key=lambda arm: _position(list(IMPORTANCE), arm.first.score))
        rows = []
        for arm in block:
            quality = IMPORTANCE.get(arm.first.score or "")
            change = None if quality is None else quality - BASELINE_PSNR
            delta = study.delta(arm)
            cells = [code(arm.first.score), number(quality, 1), number(change, 1, signed=True)]
            rows.append(([*cells, delta.text(2, signed=True)], arm))
        headers = [f"score (pruning ratio {ratio:g})", "paper dB", "paper Δ dense dB", "our Δ dense dB"]
        dense_cells = ["none, dense", number(BASELINE_PSNR, 1), NOTHING, NOTHING]
        parts.append(_psnr_table(study, headers, dense_cells, rows))
    return "\n\n".join(parts)


def _position(order: list[str], score: Optional[str]) -> tuple[int, str]:
    return (order.index(score) if score in order else len(order), score or "")


def coreset_table(study: Study) -> Optional[str]:
    """Table 4; None without records."""
    arms = [arm for arm in study.find("pruned", strategy="coreset", recovery=CONTINUE) if arm.inherits]
    if not arms:
        return None
    dense = study.dense
    rows = []
    for arm in [*([dense] if dense else []), *arms]:
        ratio = arm.first.pruning_ratio or 0.0
        thousands, size, _, minutes = CORESET.get(ratio, (None, None, None, None))
        ours = arm.stat(minutes_per_100k)
        baseline = dense.stat(minutes_per_100k).mean if dense else None
        share = ours.mean / baseline if ours.mean and baseline else None
        sizes = sizes_of(arm)
        rows.append(
            [
                "dense" if arm is dense else f"coreset {ratio:g}",
                _layer_size(ratio) if size else NOTHING,
                widths_text(sizes.parts),
                f"{thousands}K" if thousands else NOTHING,
                f"{sizes.parameters / 1e3:.0f}K",
                number(size, 2),
                number(sizes.fields_mb, 2),
                number(minutes, 2),
                ours.text(2) + (" †" if arm.busy else ""),
                number(minutes / CORESET[0.0][3], 2) if minutes else NOTHING,
                number(share, 2),
            ]
        )
    headers = ["", "paper layers", "our layers", "paper parameters", "our parameters", "paper MB", "our MB"]
    headers += [
        "paper min per 100k",
        f"our min per 100k on {study.letter}",
        "paper share of dense",
        "our share of dense",
    ]
    return table(headers, rows)


def coreset_quality_table(study: Study) -> Optional[str]:
    """The PSNR of Table 4; None without records."""
    arms = [arm for arm in study.find("pruned", strategy="coreset", recovery=CONTINUE) if arm.inherits]
    if not arms:
        return None
    rows = []
    for arm in arms:
        ratio = arm.first.pruning_ratio or 0.0
        quality = CORESET[ratio][2] if ratio in CORESET else None
        change = None if quality is None else quality - BASELINE_PSNR
        cells = [f"coreset {ratio:g}", number(quality, 1), number(change, 1, signed=True)]
        rows.append(([*cells, study.delta(arm).text(2, signed=True)], arm))
    headers = ["", "paper dB", "paper Δ dense dB", "our Δ dense dB"]
    return _psnr_table(study, headers, ["dense", number(BASELINE_PSNR, 1), NOTHING, NOTHING], rows)


def compact_table(study: Study) -> Optional[str]:
    """All four in one, PSNR only; None without records of any."""
    items: list[tuple[str, str, Optional[float], Arm]] = []
    for arm in _masking(study):
        option = arm.weight_option
        if option and option[0] == "threshold":
            text = f"edges, threshold {option[1]:g} ({number(remaining(arm))} % left)"
            items.append(("1", text, MASKS[option][1] if option in MASKS else None, arm))
    for arm in study.arms:
        run, ratio = arm.first, arm.first.pruning_ratio
        if not arm.inherits or run.recovery != CONTINUE or ratio is None:
            continue
        left = f"{1 - ratio:g} of the width left"
        if run.strategy == "uniform" and ratio in UNIFORM:
            items.append(("2", f"uniform, {left}", UNIFORM[ratio][0], arm))
        elif run.strategy == "importance" and run.score in IMPORTANCE and ratio == 0.5:
            items.append(("3", f"importance {code(run.score)}, {left}", IMPORTANCE[run.score], arm))
        elif run.strategy == "coreset" and ratio in CORESET:
            items.append(("4", f"coreset, {left}", CORESET[ratio][2], arm))
    if not items:
        return None
    columns = [
        Column("table", lambda item: item[0]),
        Column("", lambda item: item[1]),
        Column("paper dB", lambda item: number(item[2], 1)),
        *[
            Column(title, lambda item, i=i: _ours(study, item[3])[i][0])
            for i, title in enumerate(("right after dB", "end, weights kept dB", "end, new initialisation dB"))
        ],
        Column("Δ dense dB", lambda item: study.delta(item[3]).text(2, signed=True)),
        Column("n", lambda item: str(item[3].n)),
    ]
    text = item_table(columns, [sorted(items, key=lambda item: item[0])], text_columns=2)
    if study.dense is not None:
        kept = study.dense.psnr.text(2)
        text += f"\n\nDense: {BASELINE_PSNR} dB in the paper, {kept} dB here (n = {study.dense.n})."
    return text
