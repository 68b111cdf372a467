"""Sentences that say which way the numbers point. They know no expectation: whatever the numbers are, they follow."""

from collections.abc import Iterator, Sequence
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
    def names(self) -> str:
        """The two arms."""
        return f"{code(self.arm)} against {code(self.other)}"


@dataclass(frozen=True)
class Question:
    """What several comparisons of one pruning ratio are about."""

    subject: str
    other: str
    claims: list[Claim]
    remark: str = ""

    @property
    def sentence(self) -> str:
        """The answer, with the number of comparisons and seeds behind it."""
        subject = self.subject[0].upper() + self.subject[1:]
        seeds = seeds_text([claim.difference for claim in self.claims])
        if len(self.claims) == 1:
            (claim,) = self.claims
            text = f"{subject} ends {distance(claim.difference)} {self.other}, {verdict(claim.difference)}"
            return f"{text} (one comparison: {claim.names}, {seeds}{self.remark})."
        n = len(self.claims)
        above, below = (sum(claim.difference.direction == way for claim in self.claims) for way in (1, -1))
        ordered = sorted(self.claims, key=lambda claim: claim.difference.mean or 0.0)
        low, high = (f"{number(c.difference.mean, 2, True)} dB ({c.names})" for c in (ordered[0], ordered[-1]))
        reach = f"they reach from {low} to {high}, over {seeds}{self.remark}"
        if above + below == 0:
            alone = ", too few to call any clear" if all(claim.difference.n == 1 for claim in self.claims) else ""
            text = f"None of {n} comparisons shows a clear difference between {self.subject} and {self.other}"
            return f"{text}: {reach}{alone}."
        text = f"{subject} ends clearly above {self.other} in {of(above, n)} comparisons, clearly below in {of(below)}"
        level = n - above - below
        return f"{text}{f', and in {level} there is {NO_DIFFERENCE}' if level else ''}: {reach}."


def of(count: int, whole: Optional[int] = None) -> str:
    """A count in a sentence: none, 2, all 5."""
    if whole is None:
        return str(count) if count else "none"
    return f"all {whole}" if count == whole else f"{of(count)} of {whole}"


def distance(difference: Stat) -> str:
    """A difference in words, ready for what it is a distance to: 0.15 ± 0.18 dB below."""
    mean = round(difference.mean or 0.0, 2)
    spread = "" if difference.std is None else f" ± {number(difference.std, 2)}"
    return f"{number(abs(mean), 2)}{spread} dB {'above' if mean > 0 else 'below' if mean < 0 else 'away from'}"


def verdict(difference: Stat) -> str:
    """Whether a difference is a clear one."""
    return "a clear difference" if difference.direction else NO_DIFFERENCE


def seeds_text(differences: Sequence[Stat]) -> str:
    """How many seeds are behind differences: 3 seeds, 1 to 3 seeds."""
    counts = sorted({difference.n for difference in differences})
    text = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{text} seed{'' if counts == [1] else 's'}"


def compare(arm: Optional[Arm], other: Optional[Arm]) -> Optional[Claim]:
    """Compares two arms over the seeds that both have; None if there are none."""
    if arm is None or other is None:
        return None
    difference = paired(arm, other)
    return Claim(arm.name, other.name, difference) if difference.n else None


def claims_text(study: Study) -> Optional[str]:
    """What the comparisons say, a sentence for each question, by pruning ratio; None if the records allow none."""
    parts = []
    ratios = sorted({*study.ratios, *(record.pruning_ratio for record in study.speeds)})
    for ratio in ratios:
        sentences = [question.sentence for question in _questions(study, ratio)] + _speed_sentences(study, ratio)
        if sentences:
            lines = "\n".join(f"- {sentence}" for sentence in sentences)
            parts.append(f"With {100 * ratio:g} % of the neurons of every layer gone:\n\n{lines}")
    return "\n\n".join(parts) or None


def claims_table(study: Study) -> Optional[str]:
    """Every single comparison; None if the records allow none."""
    claims = [claim for ratio in study.ratios for question in _questions(study, ratio) for claim in question.claims]
    rows = [
        [
            code(claim.arm),
            code(claim.other),
            claim.difference.text(2, signed=True),
            str(claim.difference.n),
            claim.verdict,
        ]
        for claim in claims
    ]
    rows = [list(row) for row in dict.fromkeys(map(tuple, rows))]
    return table(["arm", "against", "difference dB", "n", "verdict"], rows, text_columns=2) if rows else None


def _questions(study: Study, ratio: float) -> Iterator[Question]:
    """The questions that the arms of a pruning ratio answer."""

    def ask(subject: str, other: str, claims: Sequence[Optional[Claim]], remark: str = "") -> Iterator[Question]:
        found = [claim for claim in claims if claim is not None]
        if found:
            yield Question(subject, other, found, remark)

    def only(strategy: str, **fields: Optional[str]) -> list[Arm]:
        return study.find("pruned", strategy=strategy, pruning_ratio=ratio, recovery=CONTINUE, **fields)

    def first(role: str) -> Optional[Arm]:
        return next(iter(study.find(role, pruning_ratio=ratio)), None)

    pruned = [arm for arm in study.find("pruned", pruning_ratio=ratio) if arm.inherits]
    w_in, w_out = (next(iter(only("importance", score=score)), None) for score in ("w_in", "w_out"))
    remark = "; the paper: 0.5 dB above"
    yield from ask("importance by `w_out`", "importance by `w_in`", [compare(w_out, w_in)], remark)
    coresets = [arm for arm in pruned if arm.first.strategy.split("-")[0] == "coreset"]
    importance = only("importance")
    yield from ask("a coreset", "importance", [compare(a, b) for a in coresets for b in importance])
    uniform = next(iter(only("uniform")), None)
    chosen = [arm for arm in pruned if arm is not uniform]
    yield from ask("choosing neurons", "drawing them at random", [compare(arm, uniform) for arm in chosen])
    network = "the pruned network"
    yield from ask(network, "the dense one of equal steps", [compare(arm, study.dense) for arm in pruned])
    fresh = study.find("pruned", pruning_ratio=ratio, strategy=ANY_STRATEGY, recovery="scratch")
    kept = [compare(arm, other) for other in fresh for arm in pruned]
    yield from ask("keeping the weights", "a new initialisation at the cut", kept)
    for role, title in (("small", "as many steps"), ("small-equal-time", "as much time")):
        small = first(role)
        other = f"a small one trained from scratch for {title}"
        yield from ask(network, other, [compare(arm, small) for arm in pruned])
    masked = first("masked")
    if masked is not None:
        choice = (masked.first.strategy, masked.first.score)
        same = [arm for arm in pruned if (arm.first.strategy, arm.first.score) == choice]
        yield from ask("removing neurons", "masking them", [compare(arm, masked) for arm in same])


def _speed_sentences(study: Study, ratio: float) -> list[str]:
    sentences = []
    for record in study.speeds:
        factors = speed_factors(record)["training step"]
        if factors and record.pruning_ratio == ratio:
            sentences.append(
                f"A training step takes {1 / median(factors):.2f} of the dense one's time with "
                f"{1 / mac_factor(record):.2f} of its multiply-accumulates (median of {len(factors)} blocks, "
                f"{1 / max(factors):.2f} to {1 / min(factors):.2f}, on device {study.letter})."
            )
    return sentences
