"""The answer to a query: one verdict out of a closed list, with its reason and what it took."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.formats.vnncomp.witness import Witness


class Verdict(StrEnum):
    """The only words an answer can be; the values are those of VNN-COMP's ``results.csv``."""

    SAT = "sat"
    UNSAT = "unsat"
    UNKNOWN = "unknown"
    TIMEOUT = "timeout"
    ERROR = "error"


DECIDED = frozenset({Verdict.SAT, Verdict.UNSAT})
"""The verdicts that answer the query."""


@dataclass(frozen=True)
class Statistics:
    """What one verification took."""

    seconds: float = 0.0
    domains: int = 0
    """Domains bounded by branch and bound; 0 when the root bounds or the attack decided."""
    depth: int = 0
    """Largest number of splits on a path."""
    relus: int = 0
    """Number of ReLU neurons; channels that are multiples of each other by plus or minus powers of two count once."""
    unstable_interval: int = 0
    """Unstable ReLU neurons by interval bounds, the largest over the query's boxes."""
    unstable: int = 0
    """Unstable ReLU neurons by the root bounds that branch and bound starts from."""
    bounds: str = ""
    """The method of the root bounds that ``unstable`` was counted with."""
    decided_by: str = ""
    """The phase that decided: specification, sampling, secants, light-crown, attack, crown, alpha-crown,
    branch-and-bound, input-split, auto-lirpa-crown, auto-lirpa-alpha-crown."""
    cases: int = 0
    """Ways in which the query may be true, where it stays undecided; 0 where it is decided."""
    open_cases: int = 0
    """How many of them are neither found nor refuted."""
    weakest_bound: float | None = None
    """The weakest of the open cases' best bounds: all positive would be a proof."""
    nearest_point: float | None = None
    """How far the best point was from being a counterexample: at most zero would be one."""
    layers: dict[str, dict[str, int]] = field(default_factory=dict)
    """By layer of the network: ``neurons``, and how many are unstable by each method of root bounds that was run
    (interval, crown or forward, alpha-crown); the largest over the query's boxes."""
    passes: int = 0
    """Bounding passes of the process that the query was put to, which ``Settings.passes`` limits."""
    certificate: str = ""
    """What is known of the certificate of ``unsat``: checked, complete (the checker was not asked) or incomplete (it
    leaves something open); empty without one."""
    certificate_bytes: int = 0
    """Size of the certificate."""
    checking_seconds: float = 0.0
    """Time that the checker took afterwards."""

    def plus(self, other: Statistics) -> Statistics:
        """Of both parts of a verification: work is added, sizes are the largest, methods the later part's."""
        return replace(
            other,
            domains=self.domains + other.domains,
            depth=max(self.depth, other.depth),
            relus=max(self.relus, other.relus),
            unstable_interval=max(self.unstable_interval, other.unstable_interval),
            unstable=max(self.unstable, other.unstable),
            layers=_largest(self.layers, other.layers),
        )


def _largest(first: dict[str, dict[str, int]], second: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """The larger of both counts for each layer and method."""
    return {
        layer: {
            method: max(counts.get(method, 0) for counts in (first.get(layer, {}), second.get(layer, {})))
            for method in first.get(layer, {}) | second.get(layer, {})
        }
        for layer in first | second
    }


@dataclass(frozen=True)
class OpenCase:
    """One way in which the query may be true that is neither found nor refuted."""

    case: int
    """Number of the case, counted from 0."""
    condition: str
    """Atoms of the case, as VNN-LIB writes them."""
    bound: float | None
    """Best lower bound of its atoms' combination: a positive one would refute it; None without any."""
    nearest: float | None
    """The largest atom at the best point tried: at most zero would be a counterexample; None without any."""


@dataclass(frozen=True)
class Explanation:
    """What is known where nothing decided."""

    phase: str
    """What was being done last."""
    cases: int
    open_cases: int
    described: tuple[OpenCase, ...]
    """Some of the open cases, the weakest bounds first."""
    weakest: float | None
    """Weakest of the bounds of all open cases."""
    nearest: float | None
    """Over all open cases."""
    domains: int
    """Domains that the last search bounded."""
    open_domains: int
    """Domains that it left open."""
    suggestions: tuple[str, ...]
    """What may decide the query."""

    def lines(self, most: int = 5) -> list[str]:
        """The explanation for people; of the open cases so many."""
        searched = f", {self.domains:,} domains bounded and {self.open_domains:,} open" if self.domains else ""
        lines = [f"{self.open_cases:,} of {self.cases:,} cases are open; last: {self.phase or 'reading'}{searched}"]
        for one in self.described[:most]:
            bound = "no bound" if one.bound is None else f"bound {one.bound:.4g}"
            nearest = "no point tried" if one.nearest is None else f"nearest point misses by {one.nearest:.4g}"
            lines.append(f"  case {one.case}: {one.condition}: {bound}, {nearest}")
        if self.open_cases > len(self.described[:most]):
            lines.append(f"  ... and {self.open_cases - len(self.described[:most])} more")
        return [*lines, *(f"try: {text}" for text in self.suggestions)]


@dataclass(frozen=True)
class Result:
    """Verdict of one query. ``sat`` always carries a witness that onnxruntime replayed."""

    verdict: Verdict
    reason: str = ""
    witness: Witness | None = None
    statistics: Statistics = field(default_factory=Statistics)
    explanation: Explanation | None = None
    """What is known where nothing decided; None where something did."""

    def to_json(self) -> str:
        """Everything about the answer as one JSON object; values of a witness are lists, flat, by tensor."""
        values = {
            "verdict": self.verdict,
            "reason": self.reason,
            "statistics": asdict(self.statistics),
            "explanation": None if self.explanation is None else asdict(self.explanation),
            "witness": None if self.witness is None else self.witness.to_lists(),
        }
        return json_text(values)


def json_text(values: Any) -> str:
    """Values of JSON's types as its text, with null for numbers that are not finite, for which JSON has no words."""
    return json.dumps(_finite(values), indent=1, allow_nan=False)


def _finite(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {name: _finite(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values
