"""Scores of a run: VNN-COMP points, PAR-2, counts; and intervals for rates measured on few samples."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from toolkit.bench.journal import JournalRecord
from toolkit.result import DECIDED, Verdict

CORRECT, WRONG = 10, -150
"""Points of VNN-COMP since 2023; undecided instances get 0."""


@dataclass(frozen=True)
class CategoryScore:
    """What the runs of one category are worth."""

    category: str
    instances: int
    sat: int
    unsat: int
    unknown: int
    timeout: int
    error: int
    contradictions: int
    """Decided instances whose expected verdict is the opposite."""
    points: int
    """VNN-COMP points: 10 for a decided instance, -150 for a contradiction."""
    par2: float
    """Mean seconds, an undecided instance counting as twice its time limit."""

    @property
    def decided(self) -> int:
        """Instances answered ``sat`` or ``unsat``."""
        return self.sat + self.unsat


def is_contradiction(record: JournalRecord, expected: Verdict | None) -> bool:
    """Whether the answer is the opposite of the expected one; undecided answers contradict nothing."""
    return record.verdict in DECIDED and expected in DECIDED and record.verdict != expected


def points(record: JournalRecord, expected: Verdict | None) -> int:
    """VNN-COMP points of one answer. An answer of unknown truth counts as correct, as the competition does."""
    if record.verdict not in DECIDED:
        return 0
    return WRONG if is_contradiction(record, expected) else CORRECT


def par2(records: Sequence[JournalRecord]) -> float:
    """Penalised average run time, in seconds: an undecided instance costs twice its time limit. NaN of nothing."""
    if not records:
        return math.nan
    cost = [record.seconds if record.verdict in DECIDED else 2 * record.timeout for record in records]
    return sum(cost) / len(cost)


def score(category: str, records: Sequence[JournalRecord], expected: Sequence[Verdict | None]) -> CategoryScore:
    """Score the answers of one category against the expected verdicts (None where unknown), in the same order."""
    count = {verdict: sum(record.verdict == verdict for record in records) for verdict in Verdict}
    pairs = list(zip(records, expected, strict=True))
    return CategoryScore(
        category=category,
        instances=len(records),
        contradictions=sum(is_contradiction(record, truth) for record, truth in pairs),
        points=sum(points(record, truth) for record, truth in pairs),
        par2=par2(records),
        **{str(verdict): count[verdict] for verdict in Verdict},
    )


def wilson(successes: int, trials: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson score interval of a proportion (Wilson 1927), 95 % by default; (0, 1) without trials."""
    if trials == 0:
        return 0.0, 1.0
    rate, factor = successes / trials, 1 + z * z / trials
    centre = (rate + z * z / (2 * trials)) / factor
    half = z / factor * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    lower = 0.0 if successes == 0 else centre - half
    upper = 1.0 if successes == trials else centre + half
    return lower, upper


def mcnemar(pairs: Iterable[tuple[bool, bool]]) -> float:
    """Two-sided p-value of the exact McNemar test: do two classifiers differ on the same samples (McNemar 1947)?"""
    outcomes = list(pairs)
    gained = sum(after and not before for before, after in outcomes)
    lost = sum(before and not after for before, after in outcomes)
    changed = gained + lost
    tail = sum(math.comb(changed, k) for k in range(min(gained, lost) + 1))
    return min(1.0, 2 * tail / 2**changed)
