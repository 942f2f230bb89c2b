"""The answer to a query: one verdict out of a closed list, with its reason and what it took."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

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
    layers: dict[str, dict[str, int]] = field(default_factory=dict)
    """By layer of the network: ``neurons``, and how many are unstable by each method of root bounds that was run
    (interval, crown or forward, alpha-crown); the largest over the query's boxes."""
    passes: int = 0
    """Bounding passes of the process that the query was put to, which ``Settings.passes`` limits."""

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
class Result:
    """Verdict of one query. ``sat`` always carries a witness that onnxruntime replayed."""

    verdict: Verdict
    reason: str = ""
    witness: Witness | None = None
    statistics: Statistics = field(default_factory=Statistics)
