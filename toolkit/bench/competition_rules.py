"""Points and truth by the rules of VNN-COMP 2026, of the answers of several tools to one instance.

A counterexample that holds without any tolerance settles an instance: each ``unsat`` about it is wrong. A ``sat``
without a counterexample that counts is wrong itself. Otherwise an ``unsat`` is taken for right. Where no one judged
a counterexample that contradicts an ``unsat``, the instance is disputed, and nobody gets points for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from toolkit.bench.answer_sources import ToolAnswer
from toolkit.bench.scoring import CORRECT, WRONG
from toolkit.result import DECIDED, Verdict


class WitnessState(StrEnum):
    """What is known of the counterexample behind an answer ``sat``."""

    VALID = "valid"
    """onnxruntime confirms it without any tolerance."""
    TOLERATED = "within tolerance"
    """A counterexample that holds only with the scorer's tolerance on inputs: it counts for its tool, against none."""
    WRONG = "wrong"
    """A counterexample that is missing, malformed, or violates nothing."""
    UNSUPPORTED = "cannot be judged"
    """The specification or network cannot be evaluated here."""
    UNCHECKED = "not looked at"


@dataclass(frozen=True)
class JudgedAnswer:
    """An answer with its verdict within the time limit, the state of its counterexample, and its points."""

    answer: ToolAnswer
    verdict: Verdict
    """The verdict that counts: ``timeout`` where it came after the time limit."""
    witness: WitnessState | None
    """State of the counterexample; None where the verdict is not ``sat``."""
    points: int
    limit: float
    """Time limit of the instance in seconds; NaN where it is not known."""

    @property
    def right(self) -> bool:
        """Whether it counts as a correct answer."""
        return self.points > 0

    @property
    def wrong(self) -> bool:
        """Whether it counts as an incorrect answer."""
        return self.points < 0

    @property
    def seconds(self) -> float:
        """Run time in seconds; NaN where it is not known."""
        return self.answer.seconds

    @property
    def cost(self) -> float:
        """What the instance adds to PAR-2, in seconds: its time where it is right, else twice the limit."""
        return self.seconds if self.right else 2 * self.limit


def verdict_in_time(answer: ToolAnswer, limit: float) -> Verdict:
    """The verdict, unless it came after the limit (seconds; NaN for none)."""
    return Verdict.TIMEOUT if answer.verdict in DECIDED and answer.seconds > limit else answer.verdict


def true_verdict(claims: Sequence[tuple[Verdict, WitnessState | None]]) -> Verdict | None:
    """What an instance is, as far as the answers tell; None where they decide nothing, or it is disputed."""
    states = [state for verdict, state in claims if verdict == Verdict.SAT]
    if WitnessState.VALID in states:
        return Verdict.SAT
    unsat = any(verdict == Verdict.UNSAT for verdict, _ in claims)
    if WitnessState.UNCHECKED in states:
        return None if unsat else Verdict.SAT
    return Verdict.UNSAT if unsat else None


def points_of(verdict: Verdict, witness: WitnessState | None, truth: Verdict | None) -> int:
    """Points of one answer: 10 for a right one, -150 for a wrong one, 0 otherwise."""
    if verdict == Verdict.UNSAT:
        return WRONG if truth == Verdict.SAT else CORRECT if truth == Verdict.UNSAT else 0
    if verdict != Verdict.SAT:
        return 0
    if witness == WitnessState.WRONG:
        return WRONG
    if witness in (WitnessState.VALID, WitnessState.TOLERATED):
        return CORRECT
    return CORRECT if witness == WitnessState.UNCHECKED and truth == Verdict.SAT else 0


def are_opposite(verdicts: Sequence[Verdict]) -> bool:
    """Whether some of the verdicts is ``sat`` and some ``unsat``."""
    return set(verdicts) >= DECIDED


def share_of_best(points: float, best: float) -> float:
    """The score of a tool in one category: percent of the best tool's points, never below zero."""
    return max(0.0, 100 * points / best) if best > 0 else 0.0


def mean_cost(answers: Sequence[JudgedAnswer]) -> float:
    """PAR-2 in seconds; NaN where some time or limit is not known, or there are no answers."""
    return sum(answer.cost for answer in answers) / len(answers) if answers else math.nan
