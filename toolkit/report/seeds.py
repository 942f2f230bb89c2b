"""Means over seeds: one row for the networks that differ in the seed alone, with Student's intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from statistics import fmean, stdev

from scipy.special import stdtrit

from toolkit.report.summary import ModelRecord, SummaryRow, is_certified_ticket


def student(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Student's confidence interval of the mean; from minus to plus infinity of fewer than two values."""
    if len(values) < 2:
        return -math.inf, math.inf
    reach = float(stdtrit(len(values) - 1, (1 + level) / 2)) * stdev(values) / math.sqrt(len(values))
    return fmean(values) - reach, fmean(values) + reach


def averages(models: Sequence[ModelRecord], rows: Sequence[SummaryRow]) -> list[SummaryRow]:
    """One row for each network, the mean over its seeds; a network of one seed keeps its row and Wilson's interval."""
    groups: dict[str, list[SummaryRow]] = {}
    for model, row in zip(models, rows, strict=True):
        groups.setdefault(model.group or model.name, []).append(row)
    means = [_average(name, own) for name, own in groups.items()]
    return [
        replace(mean, ticket=mean.retrained and _is_ticket(own, rows))
        for mean, own in zip(means, groups.values(), strict=True)
    ]


def _is_ticket(own: Sequence[SummaryRow], rows: Sequence[SummaryRow]) -> bool:
    """Whether the mean of a network's rows is a certified lottery ticket beside that of the dense networks of the same
    chain and the same seeds, of which there may be more where other chains have more seeds."""
    seeds, chains = {row.seed for row in own}, set(own[0].chains)
    dense = [row for row in rows if row.state == 0 and row.seed in seeds and chains <= set(row.chains)]
    return bool(dense) and is_certified_ticket(_average("", dense), _average("", own))


def _average(name: str, rows: Sequence[SummaryRow]) -> SummaryRow:
    if len(rows) == 1:
        return replace(rows[0], model=name)
    low, high = student([row.certified_accuracy for row in rows])[0], student([row.certified_most for row in rows])[1]
    first = rows[0]
    means = {f.name: fmean(getattr(row, f.name) for row in rows) for f in fields(SummaryRow) if f.type == "float"}
    counts = ("images", "certified", "falsified", "undecided", "checked")
    sums = {count: sum(getattr(row, count) for row in rows) for count in counts}
    ends = {"certified_low": max(0.0, low), "certified_high": min(1.0, high)}
    parameters = round(fmean(row.parameters for row in rows))
    return replace(first, model=name, seeds=len(rows), parameters=parameters, **(means | sums | ends))
