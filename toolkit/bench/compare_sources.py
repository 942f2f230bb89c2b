"""Comparison of the answers of several runs or tools to the same instances: contradictions, changes, and scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from toolkit.bench.answer_sources import AnswerSource
from toolkit.bench.competition_rules import (
    JudgedAnswer,
    WitnessState,
    are_opposite,
    mean_cost,
    points_of,
    share_of_best,
    true_verdict,
    verdict_in_time,
)
from toolkit.bench.match_instances import MatchedInstance, Matching
from toolkit.result import DECIDED, Verdict

WitnessJudge = Callable[[MatchedInstance, int], WitnessState]
"""Says of the answer ``sat`` that the source of a number gave to an instance what its counterexample is."""
LimitOf = Callable[[MatchedInstance], float]
"""The time limit that a benchmark gives an instance, in seconds; NaN where none is known."""
VIRTUAL_BEST = "virtual best"


@dataclass(frozen=True)
class JudgedInstance:
    """One instance with the judged answer of each source, None of those that have none."""

    instance: MatchedInstance
    answers: tuple[JudgedAnswer | None, ...]
    truth: Verdict | None

    @property
    def given(self) -> list[JudgedAnswer]:
        """The answers of the sources that have one."""
        return [answer for answer in self.answers if answer is not None]

    @property
    def contradicts(self) -> bool:
        """Whether answers are opposite, or one of them is wrong by itself."""
        return are_opposite([answer.verdict for answer in self.given]) or any(answer.wrong for answer in self.given)

    @property
    def complete(self) -> bool:
        """Whether every source has an answer."""
        return None not in self.answers

    @property
    def best(self) -> JudgedAnswer | None:
        """The fastest right answer; None where none is right."""
        right = [answer for answer in self.given if answer.right]
        return min(right, key=lambda answer: (math.isnan(answer.seconds), answer.seconds), default=None)


def judge_instance(instance: MatchedInstance, judge: WitnessJudge, limit_of: LimitOf) -> JudgedInstance:
    """Judge the answers to one instance by the rules of VNN-COMP."""
    official = limit_of(instance)
    known = [answer.timeout for answer in instance.answers if answer is not None and not math.isnan(answer.timeout)]
    common = max(known, default=math.nan)
    limits, verdicts = [], []
    for answer in instance.answers:
        own = math.nan if answer is None else answer.timeout
        limits.append(official if not math.isnan(official) else common if math.isnan(own) else own)
        verdicts.append(Verdict.UNKNOWN if answer is None else verdict_in_time(answer, limits[-1]))
    states = [judge(instance, number) if verdict == Verdict.SAT else None for number, verdict in enumerate(verdicts)]
    truth = true_verdict(list(zip(verdicts, states, strict=True)))
    judged = tuple(
        None if answer is None else JudgedAnswer(answer, verdict, state, points_of(verdict, state, truth), limit)
        for answer, verdict, state, limit in zip(instance.answers, verdicts, states, limits, strict=True)
    )
    return JudgedInstance(instance, judged, truth)


@dataclass(frozen=True)
class SourceScore:
    """The score of one source on the instances that all sources have; the virtual best of all counts as a source."""

    label: str
    instances: int
    unsat: int
    sat: int
    wrong: int
    undecided: int
    only: int
    """Instances that no other source decides rightly."""
    fastest: int
    points: int
    score: float
    """Over all categories, percent of the best source's points."""
    par2: float
    """Mean seconds, where what is not right costs twice the time limit; NaN where a time or limit is not known."""


@dataclass(frozen=True)
class AnswerChange:
    """How one source's answer differs from the first source's."""

    kind: str
    """``lost``, ``slower``, ``gained`` or ``faster``."""
    label: str
    instance: JudgedInstance
    before: JudgedAnswer
    after: JudgedAnswer

    @property
    def ratio(self) -> float:
        """Time after, over the time before; NaN where they are not known, or one of them decided nothing."""
        return self.after.seconds / max(self.before.seconds, 1e-9) if self.kind in ("slower", "faster") else math.nan


@dataclass(frozen=True)
class ChangeThresholds:
    """Thresholds from which on a difference of times counts as a change."""

    factor: float = 2.0
    """Times as long, or as short."""
    seconds: float = 1.0
    """Least difference in seconds."""


@dataclass(frozen=True)
class SourceComparison:
    """Everything that the comparison of several sources finds."""

    sources: tuple[AnswerSource, ...]
    matching: Matching
    instances: tuple[JudgedInstance, ...]
    scores: tuple[SourceScore, ...]
    changes: tuple[AnswerChange, ...]

    @property
    def labels(self) -> list[str]:
        """The names of the sources, in their order."""
        return [source.label for source in self.sources]

    @property
    def common(self) -> list[JudgedInstance]:
        """The instances that every source has an answer to."""
        return [one for one in self.instances if one.complete]

    @property
    def contradictions(self) -> list[JudgedInstance]:
        """The instances with opposite or wrong answers."""
        return [one for one in self.instances if one.contradicts]

    def answers_of(self, number: int) -> list[JudgedAnswer]:
        """What a source answered to the common instances; for the number after the last, the virtual best."""
        if number == len(self.sources):
            return [best_or_first(one) for one in self.common]
        return [answer for one in self.common if (answer := one.answers[number]) is not None]

    def only_in(self, number: int) -> list[JudgedInstance]:
        """The instances that this source alone has."""
        return [one for one in self.instances if one.given == [one.answers[number]]]


def best_or_first(one: JudgedInstance) -> JudgedAnswer:
    """The fastest right answer, else the first that is not wrong, or any."""
    return one.best or min(one.given, key=lambda answer: answer.wrong)


def compare_sources(
    sources: Sequence[AnswerSource],
    matching: Matching,
    judge: WitnessJudge,
    limit_of: LimitOf,
    thresholds: ChangeThresholds,
) -> SourceComparison:
    """Judge all instances, score the sources on those that all of them have, and list what changed from the first."""
    instances = tuple(judge_instance(one, judge, limit_of) for one in matching.instances)
    found = SourceComparison(tuple(sources), matching, instances, (), ())
    return SourceComparison(
        found.sources, matching, instances, tuple(_scores(found)), tuple(_changes(found, thresholds))
    )


def _scores(found: SourceComparison) -> list[SourceScore]:
    labels = [*found.labels, VIRTUAL_BEST]
    columns = [found.answers_of(number) for number in range(len(labels))]
    categories = [one.instance.category for one in found.common]
    totals = [0.0] * len(labels)
    for category in dict.fromkeys(categories):
        points = [
            sum(answer.points for answer, own in zip(column, categories, strict=True) if own == category)
            for column in columns
        ]
        best = max(points[:-1])
        totals = [total + share_of_best(own, best) for total, own in zip(totals, points, strict=True)]
    return [_score(found, *row) for row in zip(labels, columns, totals, strict=True)]


def _score(found: SourceComparison, label: str, answers: Sequence[JudgedAnswer], total: float) -> SourceScore:
    pairs = list(zip(answers, found.common, strict=True))
    right = [answer for answer in answers if answer.right]
    return SourceScore(
        label=label,
        instances=len(answers),
        unsat=sum(answer.verdict == Verdict.UNSAT for answer in right),
        sat=sum(answer.verdict == Verdict.SAT for answer in right),
        wrong=sum(answer.wrong for answer in answers),
        undecided=sum(answer.verdict not in DECIDED for answer in answers),
        only=sum(own.right and sum(answer.right for answer in one.given) == 1 for own, one in pairs),
        fastest=sum(own.right and own.seconds == one.best.seconds for own, one in pairs if one.best),
        points=sum(answer.points for answer in answers),
        score=total,
        par2=mean_cost(answers),
    )


def _changes(found: SourceComparison, thresholds: ChangeThresholds) -> list[AnswerChange]:
    """What differs from the first source where nothing contradicts: lost and slower instances, the worst first."""
    changes = [
        AnswerChange(kind, label, one, before, after)
        for number, label in enumerate(found.labels[1:], 1)
        for one in found.instances
        if not one.contradicts
        and (before := one.answers[0]) is not None
        and (after := one.answers[number]) is not None
        and (kind := _kind(before, after, thresholds))
    ]
    order = ["lost", "slower", "gained", "faster"]
    return sorted(changes, key=lambda change: (order.index(change.kind), *_weight(change)))


def _kind(before: JudgedAnswer, after: JudgedAnswer, thresholds: ChangeThresholds) -> str:
    if before.right != after.right:
        return "lost" if before.right else "gained"
    if not before.right:
        return ""
    low, high = sorted((before.seconds, after.seconds))
    if not (high >= thresholds.factor * low and high - low >= thresholds.seconds):  # false of NaN
        return ""
    return "slower" if after.seconds > before.seconds else "faster"


def _weight(change: AnswerChange) -> tuple[float, ...]:
    """Sorts lost and gained instances by how quickly they were decided, the others by how much their time changed."""
    if change.kind in ("lost", "gained"):
        decided = change.before if change.kind == "lost" else change.after
        return (decided.seconds if not math.isnan(decided.seconds) else math.inf,)
    return (-abs(math.log(max(change.ratio, 1e-9))),)
