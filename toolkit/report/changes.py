"""How certified accuracy differs between two networks: of the images of one run, and over seeds.

Images without a verdict count on both ends: a difference is at least what remains when all of them are held against it,
and at most what remains when none is. Where that leaves its sign open, it is said to be within the limit.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from toolkit.bench.journal import JournalRecord
from toolkit.bench.scoring import mcnemar, wilson
from toolkit.report.seeds import student
from toolkit.report.summary import ModelRecord, SummaryRow, certified_text, chain_names
from toolkit.result import DECIDED, Verdict


def effects(rows: Sequence[SummaryRow]) -> list[str]:
    """One sentence for each pruned or retrained network: its accuracies beside those of its dense one."""
    dense = {chain: row for row in rows if row.state == 0 for chain in row.chains}
    return [
        f"{row.model} ({row.method}, density {row.density:.3g}, {row.parameters:,} parameters): "
        f"standard accuracy {_standard(dense[row.chains[0]])} -> {_standard(row)}, "
        f"certified {certified_text(dense[row.chains[0]])} -> {certified_text(row)}"
        for row in rows
        if row.state > 0 and row.chains[0] in dense
    ]


def _standard(row: SummaryRow) -> str:
    low, high = wilson(round(row.standard_accuracy * row.tested), row.tested)
    return f"{row.standard_accuracy:.1%} [{100 * low:.1f}, {100 * high:.1f}]"


@dataclass(frozen=True)
class PairedVerdicts:
    """Verdicts of two networks on the same images, as pairs before and after."""

    pairs: tuple[tuple[Verdict, Verdict], ...]

    @classmethod
    def of(cls, before: str, after: str, records: Sequence[JournalRecord]) -> PairedVerdicts:
        """The images that both networks (exported files) were asked about."""
        first, second = (
            {record.vnnlib: record.verdict for record in records if record.onnx == network}
            for network in (before, after)
        )
        return cls(tuple((first[image], second[image]) for image in first if image in second))

    @property
    def gained(self) -> int:
        """Images proved after and not before."""
        return sum(new and not old for old, new in self._outcomes(False, False))

    @property
    def lost(self) -> int:
        """Images proved before and not after."""
        return sum(old and not new for old, new in self._outcomes(False, False))

    @property
    def undecided(self) -> int:
        """Images without a verdict of one of the networks."""
        return sum(not DECIDED.issuperset(pair) for pair in self.pairs)

    @property
    def least(self) -> int:
        """Certified images gained less those lost, where undecided ones are robust before and not after."""
        return sum(new - old for old, new in self._outcomes(True, False))

    @property
    def most(self) -> int:
        """Certified images gained less those lost, where undecided ones are robust after and not before."""
        return sum(new - old for old, new in self._outcomes(False, True))

    @property
    def p_value(self) -> float:
        """Exact McNemar test at the end that is nearer to no difference."""
        return mcnemar(self._outcomes(True, False) if self.least > 0 else self._outcomes(False, True))

    def _outcomes(self, before: bool, after: bool) -> list[tuple[bool, bool]]:
        """Whether each image is certified before and after, where undecided ones count as these."""
        return [(_certified(old, before), _certified(new, after)) for old, new in self.pairs]


def _certified(verdict: Verdict, undecided: bool) -> bool:
    return verdict == Verdict.UNSAT or (undecided and verdict not in DECIDED)


@dataclass(frozen=True)
class NetworkChange:
    """How certified accuracy differs between two networks, on the same images."""

    subject: str
    """What the sentence about it begins with."""
    before: SummaryRow
    after: SummaryRow
    images: PairedVerdicts
    tried: int = 1
    """Networks that the second was chosen from, as the best."""

    @property
    def p_value(self) -> float:
        """Exact McNemar test, times ``tried`` (Bonferroni)."""
        return min(1.0, self.tried * self.images.p_value)

    @property
    def points(self) -> tuple[float, float]:
        """Change of certified accuracy in percentage points, at least and at most."""
        count = max(1, len(self.images.pairs))
        return 100 * self.images.least / count, 100 * self.images.most / count

    def __str__(self) -> str:
        least, most = self.points
        strength = "significant" if self.p_value < 0.05 else "within chance"
        verdict = f"{strength} (p = {self.p_value:.2g})"
        if is_within_limit(least, most):
            verdict = f"within the limit (the sign depends on {self.images.undecided} undecided images)"
        choice = f", the best of {self.tried}" if self.tried > 1 else ""
        return (
            f"{self.subject}: certified accuracy {direction(least, most)} from {certified_text(self.before)} "
            f"({described(self.before)}) to {certified_text(self.after)} ({described(self.after)}{choice}): "
            f"{range_text(least, most)} points, {self.images.gained} gained and {self.images.lost} lost of "
            f"{len(self.images.pairs)} images, {verdict}"
        )


def described(row: SummaryRow) -> str:
    """What a network is, in a sentence."""
    density = "" if row.density == 1 else f", density {row.density:.3g}"
    unpruned = {"retrained": "as many epochs without pruning", "stretched": "as many epochs in one training, unpruned"}
    return unpruned.get(row.control, row.method.replace("_", " ") + density)


def is_within_limit(least: float, most: float) -> bool:
    """Whether the sign of a difference between these ends depends on images without a verdict."""
    return least < most and least <= 0 <= most


def direction(least: float, most: float) -> str:
    """What a figure does that changes by something between these ends."""
    if is_within_limit(least, most):
        return "goes"
    return "rises" if least > 0 else "falls" if most < 0 else "stays"


def range_text(least: float, most: float) -> str:
    """A difference with its sign, or both of its ends."""
    return f"{least:+.1f}" if most - least < 0.05 else f"{least:+.1f} to {most:+.1f}"


def changes(
    models: Sequence[ModelRecord], rows: Sequence[SummaryRow], records: Sequence[JournalRecord]
) -> list[NetworkChange]:
    """What pruning did to certified accuracy, for each chain and seed: the best pruned network beside its controls and
    the dense one. First of all come those beside the control of equal epochs, and what training alone did."""
    found = list[NetworkChange]()
    pairs = list(zip(models, rows, strict=True))
    seeds = list(dict.fromkeys(model.seed for model in models))
    for chain, seed in itertools.product(chain_names(models), seeds):
        label = chain if len(seeds) == 1 else f"{chain} (seed {seed})"
        own = [pair for pair in pairs if chain in pair[0].chains and pair[0].seed == seed]
        found += _chain_changes(label, own, records)
    return sorted(found, key=lambda change: "retrained" not in (change.before.control, change.after.control))


def _chain_changes(
    label: str, pairs: Sequence[tuple[ModelRecord, SummaryRow]], records: Sequence[JournalRecord]
) -> Iterator[NetworkChange]:
    """The changes of one chain and seed, those beside the control of equal epochs first."""
    pruned = [pair for pair in pairs if pair[0].is_pruned]
    if not pruned:
        return
    best = max(pruned, key=lambda pair: (pair[1].certified, -pair[1].density))
    controls = {model.control: (model, row) for model, row in pairs if model.control and model.state == best[0].state}
    dense = [pair for pair in pairs if pair[0].state == 0]

    def change(
        subject: str, before: tuple[ModelRecord, SummaryRow], after: tuple[ModelRecord, SummaryRow], tried: int
    ) -> NetworkChange:
        images = PairedVerdicts.of(before[0].network, after[0].network, records)
        return NetworkChange(subject, before[1], after[1], images, tried)

    for before in (*controls.values(), *dense):
        if before[1].images:
            yield change(label, before, best, len(pruned))
        if before[0].control == "retrained":
            yield from (change(f"{label}, training alone", first, before, 1) for first in dense if first[1].images)


@dataclass(frozen=True)
class Gain:
    """How certified accuracy changes to the best pruned network of a chain, paired by seed: from the unpruned one of as
    many epochs where there is such a control, else from the dense one."""

    chain: str
    against: str
    """What the pruned networks are compared with."""
    density: float
    seeds: int
    tried: int
    """Pruned networks that the best was chosen from, by its mean."""
    least: float
    """Mean of the differences, a part of one, where undecided images are held against them."""
    most: float
    """Where they are counted for them."""
    low: float
    """Lower end of Student's 95 % interval of the least, widened for the choice (Bonferroni)."""
    high: float
    """Upper end, of the most."""

    def __str__(self) -> str:
        limit = ", within the limit" if is_within_limit(self.least, self.most) else ""
        return (
            f"{self.chain}: over {self.seeds} seeds, certified accuracy changes against {self.against} by "
            f"{range_text(100 * self.least, 100 * self.most)} points [{100 * self.low:+.1f}, {100 * self.high:+.1f}] "
            f"at density {self.density:.3g} (the best of {self.tried}){limit}; the interval is about other seeds on "
            "these images"
        )


def gains(models: Sequence[ModelRecord], rows: Sequence[SummaryRow]) -> list[Gain]:
    """For each chain that ran with several seeds, one gain of its networks beside which there is an unpruned one of as
    many epochs, and one of those that only the dense one can be compared with, such as grafted ones."""
    pairs = list(zip(models, rows, strict=True))
    chains = [[row for _, row in pairs if chain in row.chains] for chain in chain_names(models)]
    return [gain for chain, own in zip(chain_names(models), chains, strict=True) for gain in _gains(chain, own)]


def _gains(chain: str, rows: Sequence[SummaryRow]) -> Iterator[Gain]:
    dense = {row.seed: row for row in rows if row.state == 0}
    retrained = {(row.seed, row.state): row for row in rows if row.control == "retrained"}
    pruned = [row for row in rows if row.is_pruned and row.seed in dense]
    beside = [(retrained[key], row) for row in pruned if (key := (row.seed, row.state)) in retrained]
    others = [(dense[row.seed], row) for row in pruned if (row.seed, row.state) not in retrained]
    for against, pairs in (("as many epochs without pruning", beside), ("dense", others)):
        if len({row.seed for _, row in pairs}) > 1:
            yield _gain(chain, against, pairs)


def _gain(chain: str, against: str, pairs: Sequence[tuple[SummaryRow, SummaryRow]]) -> Gain:
    """The gain at the state that is best in the mean over seeds, of pairs of an unpruned and a pruned network."""
    states = sorted({row.state for _, row in pairs})
    ends = {state: [_ends(before, row) for before, row in pairs if row.state == state] for state in states}
    best = max(states, key=lambda state: fmean(least for least, _ in ends[state]))
    least, most = ([pair[end] for pair in ends[best]] for end in (0, 1))
    level = 1 - 0.05 / len(states)
    density = fmean(row.density for _, row in pairs if row.state == best)
    interval = student(least, level)[0], student(most, level)[1]
    return Gain(chain, against, density, len(least), len(states), fmean(least), fmean(most), *interval)


def _ends(before: SummaryRow, row: SummaryRow) -> tuple[float, float]:
    """Least and most by which certified accuracy changes."""
    return row.certified_accuracy - before.certified_most, row.certified_most - before.certified_accuracy
