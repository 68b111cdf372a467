"""The project's own tables: what was measured, frontier, speed, peers, layers."""

from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Optional

from nerfstudio_prune.records.schema import LEARNING_RATE, PART_COSTS, ModelSize, RunRecord, SpeedRecord, Stage
from nerfstudio_prune.report.markup import Column, bold_best, code, escape, item_table, stat_column, table, widths_text
from nerfstudio_prune.report.stats import NOTHING, TIMES, TO, Stat, number
from nerfstudio_prune.report.study import FRONTIER_ROLES, SIZED_ROLES, Arm, Study, paired, psnr

SMALL_RATIO = 0.5
"""Pruning ratio of the small network that an ablation is compared with."""
MASKS_SOME = 0.98
"""Share of weights that are not zero below which masks are at work; fresh biases are zero without any."""
BUSY = (
    "† The machine was busy: a run got less than 70 % of its threads' processor time. Its seconds and rays/s say "
    "little; see the section on speed, where both networks were measured in turns."
)


def measured_text(studies: Sequence[Study]) -> str:
    """What was measured, where, and whether times can be compared."""
    devices = {study.letter: study.device for study in studies}
    lines = [measured_table(studies), versions_text(studies)]
    if len(devices) > 1:
        names = "; ".join(f"{letter}: {escape(device)}" for letter, device in sorted(devices.items()))
        lines.insert(
            0,
            f"**The records come from {len(devices)} devices ({names}).** Every row names its device by this letter. "
            "Times are compared within one device only; no ratio mixes two.",
        )
    else:
        lines.insert(0, "All records come from one device.")
    lines.append(
        "PSNR (dB), SSIM and LPIPS are of the fine field, means over the evaluation views; sizes and "
        "multiply-accumulates (MACs) count all networks that are trained. MB are 10⁶ bytes, of fp32. «±» is the "
        "standard deviation over n seeds. Δ dense is the difference to the dense run of the same seed, seed by seed. "
        "The best mean of each group of equal pruning ratio is bold, whether or not the difference is clear. "
        "With one thread on a CPU, training and rendering are timed by the processor's clock, else by the wall clock."
    )
    return "\n\n".join(lines)


def measured_table(studies: Sequence[Study]) -> str:
    """What was measured, where."""
    rows = []
    for study in studies:
        runs = [run for arm in study.arms for run in arm.runs]
        rows.append(
            [
                study.letter,
                escape(study.device),
                escape(study.scene),
                f"{escape(study.scale)}, {escape(study.method)}",
                escape(study.schedule or "the scale's own"),
                str(len(runs)),
                _distinct(run.seed for run in runs),
                _distinct(run.steps for run in runs if run.role == "dense") or _distinct(run.steps for run in runs),
                _distinct([run.rays_per_batch for run in runs] + [speed.rays_per_batch for speed in study.speeds]),
                _distinct(run.eval_views for run in runs),
                _distinct(run.curve_rays for run in runs),
                str(len(study.speeds)),
            ]
        )
    headers = [
        "",
        "device",
        "scene",
        "scale, method",
        "schedule",
        "runs",
        "seeds",
        "steps",
        "rays per batch",
        "views",
        "curve rays",
    ]
    return table([*headers, "speed records"], rows, text_columns=5)


def versions_text(studies: Sequence[Study]) -> str:
    """Versions and commits behind the records."""
    machines = [machine for study in studies for machine in study.machines]
    names = list(dict.fromkeys(name for machine in machines for name in machine.versions))
    versions = [f"{escape(n)} {_distinct(m.versions[n] for m in machines if n in m.versions)}" for n in names]
    commits = [machine.git_commit or "unknown" for machine in machines]
    platforms = _distinct(machine.platform for machine in machines)
    text = f"Versions: {', '.join(versions)}; {platforms}. Commit: {_distinct(commits)}"
    return text + (" (`+`: with changes that were not committed)." if any("+" in c for c in commits) else ".")


def _distinct(values: Iterable[object]) -> str:
    # Numbers sort as numbers.
    unique = sorted(set(values), key=lambda value: (str(type(value)), value))  # type: ignore[arg-type,return-value]
    return ", ".join(escape(number(value) if isinstance(value, int) else value) for value in unique)


def sizes_of(arm: Arm) -> ModelSize:
    """What the network of the first seed is at the end."""
    return arm.first.end.sizes


def _parameters(arm: Arm) -> str:
    return number(sizes_of(arm).parameters)


def _nonzero(arm: Arm) -> str:
    """Only where masks are at work."""
    sizes = sizes_of(arm)
    return number(sizes.nonzero) if sizes.nonzero < MASKS_SOME * sizes.parameters else NOTHING


def _times_smaller(study: Study, arm: Arm) -> str:
    if study.dense is None:
        return NOTHING
    return f"{sizes_of(study.dense).parameters / sizes_of(arm).parameters:.1f}{TIMES}"


def _lpips(stage: Stage) -> Optional[float]:
    return stage.quality.lpips


def frontier_table(study: Study, compact: bool = False) -> str:
    """Every arm with its size, quality and time; the best quality of each pruning ratio is bold.

    Args:
        study: The study.
        compact: Fewer columns, and only arms whose size tells, for a page of results.
    """
    columns = [
        Column("arm", lambda arm: code(arm.name)),
        Column("layers", lambda arm: widths_text(sizes_of(arm).parts)),
        Column("parameters", _parameters),
        Column("not zero", _nonzero),
        Column("smaller", lambda arm: _times_smaller(study, arm)),
        Column("MACs per ray", lambda arm: number(sizes_of(arm).macs_per_ray)),
        Column("fields MB", lambda arm: number(sizes_of(arm).fields_mb, 2)),
        stat_column("PSNR before dB", lambda arm: arm.at("before", psnr), 2),
        stat_column("right after dB", lambda arm: arm.at("right after", psnr), 2, max),
        stat_column("end dB", lambda arm: arm.psnr, 2, max),
        stat_column("Δ dense dB", study.delta, 2, max, signed=True),
        stat_column("SSIM", lambda arm: arm.at("end", lambda stage: stage.quality.ssim), 3, max),
        stat_column("LPIPS", lambda arm: arm.at("end", _lpips), 3, min),
        Column("training s", _training_text),
        stat_column("train rays/s", lambda arm: arm.stat(lambda run: run.rays_per_sec), 0),
        Column("steps", lambda arm: number(arm.stat(lambda run: run.steps).mean)),
        Column("n", lambda arm: str(arm.n)),
        Column("device", lambda arm: study.letter),
    ]
    if compact:
        titles = ("arm", "parameters", "MACs per ray", "right after dB", "end dB", "Δ dense dB", "SSIM", "n")
        columns = [column for column in columns if column.title in titles]
    return item_table(columns, [block for _, block in study.blocks(SIZED_ROLES if compact else FRONTIER_ROLES)])


def ablation_table(study: Study, compact: bool = False) -> Optional[str]:
    """What pruned by a recipe, whole and without each of its parts, beside the controls.

    Args:
        study: The study.
        compact: Fewer columns, for a page of results.

    Returns:
        Rows for the dense network, the small one, whole recipes and presets by size, recipes without a part, and the
        others. None for a study without a recipe.
    """
    if not study.ablation:
        return None
    small = next(iter(study.find("small", pruning_ratio=SMALL_RATIO)), None)

    def delta_small(arm: Arm) -> Stat:
        return Stat(()) if small is None or arm in (small, study.dense) else paired(arm, small)

    def column(title: str, stat: Callable[[Arm], Stat]) -> Column:
        return Column(title, lambda arm: _of_some(stat(arm), arm))

    columns = [
        Column("arm", lambda arm: code(arm.short_name) + rate_text(study, arm)),
        Column("parameters", _parameters),
        Column("smaller", lambda arm: _times_smaller(study, arm)),
        Column("MACs per ray", lambda arm: number(sizes_of(arm).macs_per_ray)),
        stat_column("before dB", lambda arm: _at_the_cut(arm, "before"), 2),
        stat_column("right after dB", lambda arm: _at_the_cut(arm, "right after"), 2),
        stat_column("end dB", lambda arm: arm.psnr, 2),
        column("Δ dense dB", study.delta),
        column("Δ small dB", delta_small),
        Column("training s", _training_text),
        column("Δ dense at equal time dB", study.delta_at_equal_time),
        Column("n", lambda arm: str(arm.n)),
    ]
    if compact:
        columns = [column for column in columns if column.title != "MACs per ray"]
    arms = [arm for arm in study.arms if arm.first.role in FRONTIER_ROLES]
    return item_table(columns, [sorted(arms, key=_ablation_order)])


def ablation_text(study: Study, compact: bool = False) -> Optional[str]:
    """The table of an ablation, with the footnote that it needs; None for a study without a recipe.

    Args:
        study: The study.
        compact: Fewer columns, for a page of results.
    """
    table = ablation_table(study, compact)
    busy = any(arm.busy for arm in study.arms if arm.first.role in FRONTIER_ROLES)
    return f"{table}\n\n{BUSY}" if table and busy else table


def _at_the_cut(arm: Arm, label: str) -> Stat:
    """PSNR around the cut; nothing where there were several, of which the last shows little."""
    single = all(sum(stage.label == label for stage in run.stages) == 1 for run in arm.runs)
    return arm.at(label, psnr) if single else Stat(())


def rate_text(study: Study, arm: Arm) -> str:
    """Says so if a network was trained at another learning rate than the dense one from the beginning."""
    dense = None if study.dense is None else study.dense.first.config.get(LEARNING_RATE)
    own = arm.first.config.get(LEARNING_RATE)
    return "" if dense is None or own in (None, dense) else f" at {own / dense:g} times the rate"


def _of_some(difference: Stat, arm: Arm) -> str:
    """Differences that not all seeds of the row have tell how many have."""
    return difference.text(2, signed=True) + (f" (n = {difference.n})" if 0 < difference.n < arm.n else "")


def _ablation_order(arm: Arm) -> tuple[int, int]:
    if arm.first.role in ("dense", "small"):
        return (("dense", "small").index(arm.first.role), 0)
    if not arm.recipe:
        return (4, 0)
    return (3, 0) if arm.lacks_a_part else (2, -sizes_of(arm).parameters)


def _training_text(arm: Arm) -> str:
    return arm.stat(_train_seconds).text(1) + (" †" if arm.busy else "")


def _train_seconds(run: RunRecord) -> float:
    return run.seconds.train_total


def device_table(studies: Sequence[Study]) -> Optional[str]:
    """PSNR of arms that several devices of one scene, scale, method and schedule have; None if there are no such."""
    groups: dict[tuple[str, str, str, str], list[Study]] = {}
    for study in studies:
        if any(arm.first.role in FRONTIER_ROLES for arm in study.arms):
            key = (study.scene, study.scale, study.method, study.schedule)
            groups.setdefault(key, []).append(study)
    parts = []
    for (scene, scale, _, schedule), group in groups.items():
        arms = [{arm.name: arm for arm in study.arms if arm.first.role in FRONTIER_ROLES} for study in group]
        names = [name for name in arms[0] if sum(name in others for others in arms) > 1]
        names += [name for others in arms[1:] for name in others if name not in arms[0]]
        names = [name for name in dict.fromkeys(names) if sum(name in others for others in arms) > 1]
        if names:
            title = ", ".join(escape(part) for part in (scene, scale, schedule) if part)
            headers = [title, *[f"{study.letter} dB (n)" for study in group]]
            parts.append(table(headers, [[code(name), *[_cell(a.get(name)) for a in arms]] for name in names]))
    return "\n\n".join(parts) or None


def _cell(arm: Optional[Arm]) -> str:
    return f"{arm.psnr.text(2)} ({arm.n})" if arm else NOTHING


def block_ratios(dense: Sequence[float], pruned: Sequence[float], inverse: bool = False) -> list[float]:
    """How many times better the pruned network is, block by block: values at one position were taken in turns.

    Args:
        dense: Values of the dense network.
        pruned: Values of the pruned network.
        inverse: Whether more is better, as for a rate; else less is, as for a time.
    """
    pairs = list(zip(dense, pruned, strict=False))
    return [b / a if inverse else a / b for a, b in pairs if a > 0 and b > 0]


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):.2f}{TIMES} ({min(values):.2f}{TO}{max(values):.2f})" if values else NOTHING


def speed_factors(record: SpeedRecord) -> dict[str, list[float]]:
    """Speed-up block by block: training step, rendered rays, one image."""
    dense, pruned = record.dense, record.pruned
    return {
        "training step": block_ratios(dense.train_step_seconds, pruned.train_step_seconds),
        "rendering": block_ratios(dense.eval_rays_per_sec, pruned.eval_rays_per_sec, inverse=True),
        "one image": block_ratios(dense.image_seconds, pruned.image_seconds),
    }


def mac_factor(record: SpeedRecord) -> float:
    """How many times fewer multiply-accumulates the pruned network needs."""
    return record.dense.sizes.macs_per_ray / max(record.pruned.sizes.macs_per_ray, 1)


def speed_table(study: Study, compact: bool = False) -> Optional[str]:
    """Speed-up beside the ratio of operations; None without records."""
    if not study.speeds:
        return None

    def both(record: SpeedRecord, values: Sequence[str]) -> Sequence[Optional[float]]:
        return [
            median(getattr(arm, values[0])) if getattr(arm, values[0]) else None
            for arm in (record.dense, record.pruned)
        ]

    rows = []
    for record in study.speeds:
        step, image = both(record, ["train_step_seconds"]), both(record, ["image_seconds"])
        memory = [record.dense.peak_memory_mb, record.pruned.peak_memory_mb]
        factors = {name: _spread(values) for name, values in speed_factors(record).items()}
        rows.append(
            [
                f"{record.pruning_ratio:g}",
                widths_text(record.pruned.sizes.parts),
                f"{mac_factor(record):.2f}{TIMES}",
                *factors.values(),
                _pair([None if value is None else value * 1e3 for value in step], 1),
                _pair(image, 2),
                _pair(memory, 0),
                str(len(record.pruned.train_step_seconds)),
                study.letter,
            ]
        )
    for column in (3, 4, 5):
        factors = [list(speed_factors(record).values())[column - 3] for record in study.speeds]
        texts = bold_best([row[column] for row in rows], [median(f) if f else None for f in factors], max)
        for row, text in zip(rows, texts, strict=True):
            row[column] = text
    headers = ["pruning ratio", "layers", "fewer MACs", "training step faster", "rendering faster", "one image faster"]
    headers += ["step ms", "image s", "memory of a step MB", "blocks", "device"]
    kept = [0, 2, 3, 4, 8, 9] if compact else range(len(headers))
    return table([headers[i] for i in kept], [[row[i] for i in kept] for row in rows], 1 if compact else 2)


def _pair(values: Sequence[Optional[float]], digits: int) -> str:
    first, second = values
    text = f"{number(first, digits)} → {number(second, digits)}"
    return NOTHING if first is None and second is None else text


def peers_table(study: Study, compact: bool = False) -> Optional[str]:
    """Other libraries and this project on the same dense checkpoints; None without records of peers."""
    peers = study.find("peer")
    if not peers:
        return None
    seeds = {run.seed for arm in peers for run in arm.runs}
    blocks = []
    for ratio in dict.fromkeys(arm.first.pruning_ratio for arm in peers):
        own = [arm for arm in study.find("pruned", pruning_ratio=ratio) if arm.inherits]
        same_seeds = [Arm([e for e in arm.entries if e.record.seed in seeds], arm.label) for arm in own]
        blocks.append([arm for arm in peers if arm.first.pruning_ratio == ratio] + [a for a in same_seeds if a.entries])
    columns = [
        Column("library", lambda arm: escape(arm.first.strategy) if arm.first.role == "peer" else "this project"),
        Column("criterion", _criterion),
        Column("pruning ratio", lambda arm: f"{arm.first.pruning_ratio:g}" if arm.first.pruning_ratio else NOTHING),
        Column("parameters", _parameters),
        Column("not zero", _nonzero),
        stat_column("right after dB", lambda arm: arm.at("right after", psnr), 2, max),
        stat_column("end dB", lambda arm: arm.psnr, 2, max),
        stat_column("Δ dense dB", study.delta, 2, max, signed=True),
        stat_column("pruning s", lambda arm: arm.stat(lambda run: run.seconds.prune), 2),
        stat_column("train rays/s", lambda arm: arm.stat(lambda run: run.rays_per_sec), 0),
        Column("n", lambda arm: str(arm.n)),
        Column("device", lambda arm: study.letter),
    ]
    if compact:
        columns = [column for column in columns if column.title not in ("pruning ratio", "train rays/s", "device")]
    return item_table(columns, blocks, text_columns=2)


def _criterion(arm: Arm) -> str:
    run = arm.first
    if run.role == "peer":
        return escape(run.score or NOTHING)
    return escape(run.strategy + (f" {run.score}" if run.score else ""))


def layers_table(study: Study) -> Optional[str]:
    """Width and parameters of every layer; arms of equal widths share a column. None without a pruned network."""
    shown: dict[tuple[tuple[str, int], ...], list[Arm]] = {}
    for arm in study.arms:
        if arm.first.role in ("dense", "pruned", "small", "peer"):
            shown.setdefault(tuple(sizes_of(arm).parts.items()), []).append(arm)
    if len(shown) < 2:
        return None
    groups = list(shown.values())
    headers = ["layer"]
    for group in groups:
        more = f" +{len(group) - 1}" if len(group) > 1 else ""
        headers += [f"neurons: {code(group[0].name)}{more}", "parameters", "MACs per ray"]
    rows = []
    for layer in dict.fromkeys(name for group in groups for name in sizes_of(group[0]).part_costs):
        row = [code(layer)]
        for group in groups:
            sizes = sizes_of(group[0])
            width, costs = sizes.parts.get(layer), sizes.part_costs.get(layer, {})
            row += [NOTHING if width is None else str(width)]
            row += [number(costs[name]) if name in costs else NOTHING for name in PART_COSTS]
        rows.append(row)
    return table(headers, rows)
