"""Sentences that say which way the numbers point. They know no expectation: whatever the numbers are, they follow."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Optional

from nerfstudio_prune.report.markup import code, table
from nerfstudio_prune.report.stats import Stat, number
from nerfstudio_prune.report.study import ANY_STRATEGY, CONTINUE, Arm, Study, paired
from nerfstudio_prune.report.tables import mac_factor, speed_factors

NO_DIFFERENCE = "no clear difference"
RULE = (
    "A difference is called clear if its mean over the seeds is at least two standard errors away from zero; with less "
    f"than two seeds there is {NO_DIFFERENCE}. All are differences of the PSNR at the end between runs of one seed. Of "
    "many comparisons a few look clear by chance."
)


@dataclass(frozen=True)
class Claim:
    """One comparison of two arms."""

    arm: str
    other: str
    difference: Stat
    """PSNR of `arm` less that of `other` over the seeds, in dB."""

    @property
    def verdict(self) -> str:
        """Which way it points."""
        return {1: "higher", -1: "lower", 0: NO_DIFFERENCE}[self.difference.direction]

    @property
    def sentence(self) -> str:
        """The comparison in words and numbers."""
        difference = self.difference
        spread = "" if difference.std is None else f"standard deviation {number(difference.std, 2)} dB, "
        return (
            f"{code(self.arm)} against {code(self.other)}: {number(difference.mean, 2, signed=True)} dB "
            f"({spread}n = {difference.n}): {self.verdict}."
        )


def compare(arm: Optional[Arm], other: Optional[Arm]) -> Optional[Claim]:
    """Compares two arms over the seeds that both have; None if there are none."""
    if arm is None or other is None:
        return None
    difference = paired(arm, other)
    return Claim(arm.name, other.name, difference) if difference.n else None


def claims_text(study: Study) -> Optional[str]:
    """What the comparisons say, a sentence for each question; None if the records allow none."""
    lines = []
    for question, claims in _answered(study):
        answer = claims[0].sentence if len(claims) == 1 else _count(claims)
        lines.append(f"- **{question}** {answer}")
    lines += _speed_claims(study)
    return "\n".join(lines) or None


def claims_table(study: Study) -> Optional[str]:
    """Every single comparison; None if the records allow none."""
    rows = [
        [
            code(claim.arm),
            code(claim.other),
            claim.difference.text(2, signed=True),
            str(claim.difference.n),
            claim.verdict,
        ]
        for _, claims in _answered(study)
        for claim in claims
    ]
    rows = [list(row) for row in dict.fromkeys(map(tuple, rows))]
    return table(["arm", "against", "difference dB", "n", "verdict"], rows, text_columns=2) if rows else None


def _answered(study: Study) -> Iterator[tuple[str, list[Claim]]]:
    for question, claims in _questions(study):
        found = [claim for claim in claims if claim is not None]
        if found:
            yield question, found


def _count(claims: list[Claim]) -> str:
    verdicts = [claim.verdict for claim in claims]
    counts = ", ".join(f"{verdict} {verdicts.count(verdict)}" for verdict in ("higher", "lower", NO_DIFFERENCE))
    ordered = sorted(claims, key=lambda claim: claim.difference.mean or 0.0)
    ends = [
        f"{number(claim.difference.mean, 2, signed=True)} dB ({code(claim.arm)} against {code(claim.other)})"
        for claim in (ordered[0], ordered[-1])
    ]
    seeds = sorted({claim.difference.n for claim in claims})
    n = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return f"Of {len(claims)} comparisons: {counts}; from {ends[0]} to {ends[1]}, n = {n}."


def _questions(study: Study) -> Iterator[tuple[str, list[Optional[Claim]]]]:
    for ratio in study.ratios:

        def only(strategy: str, ratio: float = ratio, **fields: Optional[str]) -> list[Arm]:
            return study.find("pruned", strategy=strategy, pruning_ratio=ratio, recovery=CONTINUE, **fields)

        def first(role: str, ratio: float = ratio) -> Optional[Arm]:
            return next(iter(study.find(role, pruning_ratio=ratio)), None)

        at = f", pruning ratio {ratio:g}:"
        pruned = [arm for arm in study.find("pruned", pruning_ratio=ratio) if arm.inherits]
        importance = only("importance")
        w_in, w_out = (next(iter(only("importance", score=score)), None) for score in ("w_in", "w_out"))
        yield f"Importance by `w_out` against `w_in` (paper: +0.5 dB){at}", [compare(w_out, w_in)]
        coresets = [arm for arm in pruned if arm.first.strategy.split("-")[0] == "coreset"]
        yield f"Coreset against importance{at}", [compare(a, b) for a in coresets for b in importance]
        uniform = next(iter(only("uniform")), None)
        chosen = [arm for arm in pruned if arm is not uniform]
        yield f"Choosing neurons against drawing them at random{at}", [compare(arm, uniform) for arm in chosen]
        yield f"Pruned against the dense control of equal steps{at}", [compare(arm, study.dense) for arm in pruned]
        fresh = study.find("pruned", pruning_ratio=ratio, strategy=ANY_STRATEGY, recovery="scratch")
        kept = [compare(arm, other) for other in fresh for arm in pruned]
        yield f"Keeping weights against a new initialisation at the cut{at}", kept
        for role, title in (("small", "equal steps"), ("small-equal-time", "equal training time")):
            small = first(role)
            yield f"Pruned against small from scratch at {title}{at}", [compare(arm, small) for arm in pruned]
        masked = first("masked")
        if masked is not None:
            same = [
                a for a in pruned if (a.first.strategy, a.first.score) == (masked.first.strategy, masked.first.score)
            ]
            yield f"Removing neurons against masking them{at}", [compare(arm, masked) for arm in same]


def _speed_claims(study: Study) -> list[str]:
    lines = []
    for record in study.speeds:
        factors = speed_factors(record)["training step"]
        if factors:
            lines.append(
                f"- **Time, pruning ratio {record.pruning_ratio:g}:** a training step takes "
                f"{1 / median(factors):.2f} of the dense one's time (blocks {1 / max(factors):.2f} to "
                f"{1 / min(factors):.2f}, n = {len(factors)}) with {1 / mac_factor(record):.2f} of its "
                f"multiply-accumulates, on device {study.letter}."
            )
    return lines
