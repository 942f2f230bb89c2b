"""Why a query stays undecided: which cases are open, how good their bounds are, how far points came, what to try.

Everything is taken from what observers hear; needs no torch.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import UnsupportedError
from toolkit.formats.vnnlib.atom_text import AtomWriter
from toolkit.formats.vnnlib.query import AtomBlock, Query
from toolkit.problem.cases import Cases
from toolkit.result import Explanation, OpenCase
from toolkit.run.clock import Clock
from toolkit.run.events import (
    AttackTried,
    Event,
    NoBounds,
    PhaseBegun,
    ProblemBegun,
    RootBounded,
    RoundDone,
    SearchBegun,
)


@dataclass
class CaseTracker:
    """An observer that keeps the best bound of each case, and the least loss of the points that were tried."""

    cases: Cases
    clock: Clock
    every: float = 0.25
    """Least time between two looks at all open domains, in seconds, or those that passes count as."""
    phase: str = ""
    lower: NDArray[np.float64] = field(init=False)
    """Best lower bounds, ``(C,)``; a positive one refutes its case."""
    nearest: NDArray[np.float64] = field(init=False)
    """Least losses of points, ``(C,)``; at most zero would be a witness."""
    domains: int = 0
    open_domains: int = 0
    rise: tuple[float, float] = (math.nan, math.nan)
    """The weakest bound of the present search when it was first heard of, and now."""
    unbounded: str = ""
    """Why nothing can be bounded."""
    _part: NDArray[np.int64] = field(init=False, repr=False)
    """The query's cases that those of the present problem are."""
    _frontier: Callable[[], Any] = field(default=lambda: None, repr=False)
    _searched: set[int] = field(default_factory=set, repr=False)
    """Cases that the present search began with."""
    _search: str = field(default="branch and bound", repr=False)
    """The search that is under way."""
    _looked: float = field(default=0.0, repr=False)

    def __post_init__(self) -> None:
        self.lower = np.full(len(self.cases), -np.inf)
        self.nearest = np.full(len(self.cases), np.inf)
        self._part = np.arange(len(self.cases))

    def __call__(self, event: Event) -> None:
        """Take note of what the event says of cases."""
        note = _NOTES.get(type(event))
        if note is not None:
            note(self, event)

    def raise_bounds(self, cases: NDArray[np.int64], lower: NDArray[np.float64]) -> None:
        """Keep bounds of some of the present problem's cases where they are better than what is known."""
        number = self._part[cases]
        self.lower[number] = np.fmax(self.lower[number], lower)

    def come_near(self, losses: NDArray[np.float64]) -> None:
        """Keep the losses ``(C,)`` of points of all cases where they are the least so far."""
        self.nearest = np.fmin(self.nearest, losses)

    def look(self, frontier: Any) -> None:
        """Take the bounds of all domains that a search has open; cases that it has none of any more are refuted."""
        weakest: Mapping[int, float] = frontier.weakest_by_case()
        bounds = dict.fromkeys(self._searched, math.inf) | dict(weakest)
        if bounds and not frontier.progress.undecided:
            self.raise_bounds(np.array(list(bounds), dtype=np.int64), np.array(list(bounds.values())))

    def _problem_begun(self, event: ProblemBegun) -> None:
        regions = np.asarray(event.regions)
        self._part = np.flatnonzero(np.isin(self.cases.region, regions))

    def _phase_begun(self, event: PhaseBegun) -> None:
        self.phase = event.phase
        self._search = event.phase if event.search else self._search

    def _root_bounded(self, event: RootBounded) -> None:
        if event.root is not None and len(event.root.lower) == len(self._part):
            lower = event.root.lower.double().cpu().numpy()
            self.raise_bounds(np.arange(len(lower)), lower)

    def _search_begun(self, event: SearchBegun) -> None:
        if self._frontier() is not event.frontier:
            self._frontier, self._searched = weakref.ref(event.frontier), set()
            self.rise = (math.nan, math.nan)
        self._searched |= {case for domains in event.bounded for case in domains.case.cpu().numpy().tolist()}

    def _round_done(self, event: RoundDone) -> None:
        self.domains, self.open_domains, self.phase = event.bounded, event.open, self._search
        first = event.lower if math.isnan(self.rise[0]) else self.rise[0]
        self.rise = (first, event.lower)
        frontier = self._frontier()
        if frontier is not None and self.clock.elapsed - self._looked >= self.every:
            self._looked = self.clock.elapsed
            self.look(frontier)

    def _attack_tried(self, event: AttackTried) -> None:
        cases, losses = event.cases.cpu().numpy(), event.losses.double().cpu().numpy()
        np.fmin.at(self.nearest, self._part[cases], losses)

    def _no_bounds(self, event: NoBounds) -> None:
        self.unbounded = event.reason


_NOTES: dict[type, Callable[[CaseTracker, Any], None]] = {
    ProblemBegun: CaseTracker._problem_begun,
    PhaseBegun: CaseTracker._phase_begun,
    RootBounded: CaseTracker._root_bounded,
    SearchBegun: CaseTracker._search_begun,
    RoundDone: CaseTracker._round_done,
    AttackTried: CaseTracker._attack_tried,
    NoBounds: CaseTracker._no_bounds,
}
"""How a tracker takes note of each kind of event; it ignores others."""


def explain(query: Query, tracker: CaseTracker, most: int = 20) -> Explanation:
    """What is known of the open cases of an undecided query; at most so many are described, the weakest first."""
    # The same comparison as in a proof: NaN is no proof.
    still_open = np.flatnonzero(~(tracker.lower > 0))
    order = still_open[np.argsort(tracker.lower[still_open], kind="stable")]
    described = tuple(
        OpenCase(int(case), case_text(query, tracker.cases, int(case)), _finite(tracker.lower[case]),
                 _finite(tracker.nearest[case]))
        for case in order[:most]
    )  # fmt: skip
    return Explanation(
        phase=tracker.phase,
        cases=len(tracker.cases),
        open_cases=len(still_open),
        described=described,
        weakest=_finite(tracker.lower[still_open].min(initial=np.inf)),
        nearest=_finite(tracker.nearest[still_open].min(initial=np.inf)),
        domains=tracker.domains,
        open_domains=tracker.open_domains,
        suggestions=tuple(suggestions(tracker)),
    )


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def case_text(query: Query, cases: Cases, case: int, longest: int = 200) -> str:
    """The atoms of a case as VNN-LIB, shortened where they are long."""
    rows = cases.rows_of(case)[:longest]
    try:
        writer = AtomWriter(replace(query, atoms=cases.atoms.take(rows), products=cases.products))
        text = " ".join(writer.texts(AtomBlock(0, len(rows))))
    except UnsupportedError as error:
        text = str(error)
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def suggestions(tracker: CaseTracker) -> list[str]:
    """What may decide an undecided query, by what was seen of it."""
    if tracker.unbounded:
        return [
            "no bounds exist for this network (prunecert ops lists the operators that have some): only counterexamples "
            "can be found, and a longer --timeout gives more points a try"
        ]
    found = [_of_rise(*tracker.rise), _of_nearest(tracker)]
    return [text for text in found if text] or ["a longer --timeout"]


def _of_rise(first: float, last: float) -> str:
    """What the weakest bound of the last search, from its first to its last round, says about more time."""
    if not (math.isfinite(first) and math.isfinite(last)):
        return ""
    if last > first:
        return f"the weakest bound rose from {first:.3g} to {last:.3g} in the last search: a longer --timeout may do"
    return (
        f"the weakest bound stood still at {last:.3g} in the last search: a smaller input set, or a network with fewer "
        "unstable neurons, may be decided where more time does not help"
    )


def _of_nearest(tracker: CaseTracker) -> str:
    """Whether points came nearer to a counterexample than the bounds to a proof."""
    still_open = ~(tracker.lower > 0)
    return advice_of_points(*(values[still_open].min(initial=np.inf) for values in (tracker.nearest, tracker.lower)))


def advice_of_points(nearest: float | None, weakest: float | None) -> str:
    """To try harder attacks, where a point misses a counterexample by less than half of what a proof is missed by.

    ``nearest`` is how far the best point was from a counterexample, ``weakest`` the weakest bound of the open cases;
    either may be unknown. Empty where this does not hold.
    """
    if nearest is None or weakest is None or not (math.isfinite(nearest) and 0 < 2 * nearest < -weakest):
        return ""
    return (
        "some point comes much nearer to a counterexample than the bounds to a proof: more --attack-restarts and "
        "--attack-steps may find one"
    )
