"""Means over seeds: one row for the networks that differ in the seed alone, with Student's intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from statistics import fmean, stdev

from scipy.special import stdtrit

from toolkit.report.summary import ModelRecord, SummaryRow, chain_names, with_tickets


def student(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Student's confidence interval of the mean; from minus to plus infinity of fewer than two values."""
    if len(values) < 2:
        return -math.inf, math.inf
    reach = float(stdtrit(len(values) - 1, (1 + level) / 2)) * stdev(values) / math.sqrt(len(values))
    return fmean(values) - reach, fmean(values) + reach


def averages(models: Sequence[ModelRecord], rows: Sequence[SummaryRow]) -> list[SummaryRow]:
    """One row for each network, the mean over its seeds; a network of one seed keeps its row and Wilson's interval."""
    groups: dict[str, list[tuple[ModelRecord, SummaryRow]]] = {}
    for model, row in zip(models, rows, strict=True):
        groups.setdefault(model.group or model.name, []).append((model, row))
    means = [_average(name, [row for _, row in pairs]) for name, pairs in groups.items()]
    return with_tickets([pairs[0][0] for pairs in groups.values()], means)


def _average(name: str, rows: Sequence[SummaryRow]) -> SummaryRow:
    if len(rows) == 1:
        return replace(rows[0], model=name)
    low, high = student([row.certified_accuracy for row in rows])
    first = rows[0]
    means = {f.name: fmean(getattr(row, f.name) for row in rows) for f in fields(SummaryRow) if f.type == "float"}
    sums = {
        count: sum(getattr(row, count) for row in rows) for count in ("images", "certified", "falsified", "undecided")
    }
    ends = {"certified_low": max(0.0, low), "certified_high": min(1.0, high)}
    parameters = round(fmean(row.parameters for row in rows))
    return replace(first, model=name, seeds=len(rows), parameters=parameters, **(means | sums | ends))


@dataclass(frozen=True)
class Gain:
    """How certified accuracy changes from the dense to the best pruned network of a chain, paired by seed."""

    chain: str
    density: float
    seeds: int
    tried: int
    """Pruned networks that the best was chosen from, by its mean."""
    mean: float
    """Of the differences, a part of one."""
    low: float
    """Lower end of Student's 95 % interval, widened for the choice (Bonferroni)."""
    high: float

    def __str__(self) -> str:
        return (
            f"{self.chain}: over {self.seeds} seeds, certified accuracy changes by {100 * self.mean:+.1f} points "
            f"[{100 * self.low:+.1f}, {100 * self.high:+.1f}] at density {self.density:.3g} (the best of {self.tried})"
        )


def gains(models: Sequence[ModelRecord], rows: Sequence[SummaryRow]) -> list[Gain]:
    """One gain for each chain that ran with several seeds."""
    pairs = list(zip(models, rows, strict=True))
    return [gain for chain in chain_names(models) for gain in _gain(chain, [p for p in pairs if chain in p[0].chains])]


def _gain(chain: str, pairs: Sequence[tuple[ModelRecord, SummaryRow]]) -> list[Gain]:
    dense = {row.seed: row.certified_accuracy for _, row in pairs if row.state == 0}
    states = sorted({row.state for _, row in pairs} - {0})
    if len(dense) < 2 or not states:
        return []
    changes = {
        state: [
            row.certified_accuracy - dense[row.seed] for _, row in pairs if row.state == state and row.seed in dense
        ]
        for state in states
    }
    best = max(states, key=lambda state: fmean(changes[state]))
    low, high = student(changes[best], 1 - 0.05 / len(states))
    density = fmean(row.density for _, row in pairs if row.state == best)
    return [Gain(chain, density, len(changes[best]), len(states), fmean(changes[best]), low, high)]
