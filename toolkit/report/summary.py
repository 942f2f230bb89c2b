"""The table of an experiment: one row per model, from what its instances were answered."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from statistics import fmean
from typing import Protocol

from toolkit.bench.journal import JournalRecord
from toolkit.bench.scoring import mcnemar, wilson
from toolkit.result import DECIDED, Verdict


@dataclass(frozen=True)
class ModelRecord:
    """What an experiment knows of a model before verification. Accuracies lie in [0, 1]."""

    name: str
    chains: tuple[str, ...]
    """Chains it belongs to: chains of equal training share their dense network."""
    architecture: str
    method: str
    """How it was pruned; ``dense`` when it was not."""
    state: int
    """Pruning steps done; 0 is dense."""
    density: float
    """Part of the prunable weights (or channels) that is left."""
    parameters: int
    """Parameters other than zero."""
    network: str
    """The exported file, as ``instances.csv`` names it."""
    standard_accuracy: float
    """Of the exported file, on the whole test set."""
    pgd_accuracy: float
    """Under a gradient attack, on the images that are verified: an upper bound of certified accuracy."""
    group: str = ""
    """Name without the seed: the same network of every seed; the name itself if empty."""
    seed: int = 0
    tested: int = 0
    """Test images of the standard accuracy."""
    retrained: bool = False
    """Pruned and then trained from the initial weights, so that it can be a lottery ticket."""
    layers: tuple[dict[str, float], ...] = ()
    """Stability of each ReLU layer by interval bounds, as :class:`toolkit.training.stats.LayerStability` has it."""
    fgsm_accuracy: float = math.nan
    """Under a one-step attack, on the whole test set: the adversarial accuracy of the paper."""
    content: str = ""
    """Hash of the exported file."""


@dataclass(frozen=True)
class SummaryRow:
    """One line of the table; rates lie in [0, 1]."""

    model: str
    chains: tuple[str, ...]
    architecture: str
    method: str
    state: int
    density: float
    parameters: int
    standard_accuracy: float
    pgd_accuracy: float
    images: int
    """Images verified."""
    certified: int
    """Proved robust (``unsat``)."""
    falsified: int
    """With a counterexample (``sat``), misclassified images among them."""
    undecided: int
    """Neither: time limit, unknown or error."""
    certified_accuracy: float
    certified_low: float
    """Lower end of the 95 % Wilson interval of the certified accuracy."""
    certified_high: float
    mean_seconds: float
    relus: int
    mean_unstable_interval: float
    """Unstable ReLUs by interval bounds, mean over the images."""
    mean_unstable: float
    """Unstable ReLUs by the root bounds ``bounds``, mean over the images that have them."""
    bounds: str
    mean_domains: float
    """Branch-and-bound domains, mean over the images."""
    seed: int = 0
    tested: int = 0
    seeds: int = 1
    """Runs that the row is the mean of."""
    ticket: bool = False
    """Whether the network is a certified lottery ticket."""
    fgsm_accuracy: float = math.nan


def summarise(models: Sequence[ModelRecord], records: Sequence[JournalRecord]) -> list[SummaryRow]:
    """One row per model, from the records of its network."""
    rows = [_row(model, [record for record in records if record.onnx == model.network]) for model in models]
    return with_tickets(models, rows)


def _row(model: ModelRecord, records: Sequence[JournalRecord]) -> SummaryRow:
    count = {verdict: sum(record.verdict == verdict for record in records) for verdict in Verdict}
    certified, images = count[Verdict.UNSAT], len(records)
    low, high = wilson(certified, images)
    bounded = [record.statistics for record in records if record.statistics.bounds]
    return SummaryRow(
        model=model.name,
        **{name: value for name, value in vars(model).items() if name in _COMMON},
        images=images,
        certified=certified,
        falsified=count[Verdict.SAT],
        undecided=sum(record.verdict not in DECIDED for record in records),
        certified_accuracy=certified / images if images else math.nan,
        certified_low=low,
        certified_high=high,
        mean_seconds=_mean([record.seconds for record in records]),
        relus=max((record.statistics.relus for record in records), default=0),
        mean_unstable_interval=_mean([statistics.unstable_interval for statistics in bounded]),
        mean_unstable=_mean([statistics.unstable for statistics in bounded]),
        bounds=", ".join(sorted({statistics.bounds for statistics in bounded})),
        mean_domains=_mean([record.statistics.domains for record in records]),
    )


_COMMON = {field.name for field in fields(ModelRecord)} & {field.name for field in fields(SummaryRow)}


def with_tickets(models: Sequence[ModelRecord], rows: Sequence[SummaryRow]) -> list[SummaryRow]:
    """The rows, with the certified lottery tickets among them marked."""
    pairs = list(zip(models, rows, strict=True))
    return [replace(row, ticket=model.retrained and _is_ticket(row, pairs)) for model, row in pairs]


def _is_ticket(row: SummaryRow, pairs: Sequence[tuple[ModelRecord, SummaryRow]]) -> bool:
    """Whether a retrained network is as good as the dense network of the same chain and seed."""
    rivals = [dense for model, dense in pairs if model.state == 0 and row.seed == dense.seed]
    return any(is_certified_ticket(dense, row) for dense in rivals if set(row.chains) <= set(dense.chains))


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else math.nan


def summary_csv(rows: Sequence[SummaryRow]) -> str:
    """The table as CSV with a header, numbers rounded to six digits."""
    header = [field.name for field in fields(SummaryRow)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_csv_value(getattr(row, name)) for name in header] for row in rows)
    return text.getvalue()


def stability_csv(models: Sequence[ModelRecord]) -> str:
    """One line for each ReLU layer of each model: stability by interval bounds, means over the verified images."""
    lines = [{"model": model.name, "layer": str(i)} | layer for model in models for i, layer in enumerate(model.layers)]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]) if lines else ["model", "layer"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _csv_value(value) for name, value in line.items()} for line in lines)
    return text.getvalue()


def _csv_value(value: object) -> object:
    if isinstance(value, tuple):
        return " ".join(value)
    return round(value, 6) if isinstance(value, float) else value


def effects(rows: Sequence[SummaryRow]) -> list[str]:
    """One sentence for each pruned or retrained network: its accuracies beside those of its dense one."""
    dense = {chain: row for row in rows if row.state == 0 for chain in row.chains}
    return [
        f"{row.model} ({row.method}, density {row.density:.3g}, {row.parameters:,} parameters): "
        f"standard accuracy {_standard(dense[row.chains[0]])} -> {_standard(row)}, "
        f"certified {_certified_accuracy(dense[row.chains[0]])} -> {_certified_accuracy(row)}"
        for row in rows
        if row.state > 0 and row.chains[0] in dense
    ]


def _standard(row: SummaryRow) -> str:
    low, high = wilson(round(row.standard_accuracy * row.tested), row.tested)
    return f"{row.standard_accuracy:.1%} [{100 * low:.1f}, {100 * high:.1f}]"


def _certified_accuracy(row: SummaryRow) -> str:
    return f"{row.certified_accuracy:.1%} [{100 * row.certified_low:.0f}, {100 * row.certified_high:.0f}]"


class ModelAccuracies(Protocol):
    """Accuracies of a network, on the same images for all networks."""

    @property
    def standard_accuracy(self) -> float: ...

    @property
    def certified_accuracy(self) -> float: ...


def is_certified_ticket(dense: ModelAccuracies, pruned: ModelAccuracies) -> bool:
    """Whether a network pruned and retrained from its initial weights is as good as the dense one in both respects.

    Certified lottery ticket of Li et al. (TMLR 2023). It speaks of the figures as they are, without their intervals.
    """
    return pruned.standard_accuracy >= dense.standard_accuracy and pruned.certified_accuracy >= dense.certified_accuracy


def ticket_findings(rows: Sequence[SummaryRow]) -> list[str]:
    """One sentence for each chain: which of its networks are certified lottery tickets."""
    found = []
    for chain in chain_names(rows):
        own = [row for row in rows if chain in row.chains and row.density < 1]
        tickets = [row for row in own if row.ticket]
        which = ", ".join(f"{row.density:.3g}" for row in tickets)
        many = f"certified lottery tickets at density {which}" if tickets else "no certified lottery ticket"
        found.append(
            f"{chain}: {many} ({len(tickets)} of {len(own)} networks lose neither standard nor certified accuracy)"
        )
    return found


def chain_names(items: Iterable[ModelRecord] | Iterable[SummaryRow]) -> list[str]:
    """All chains, in the order of the models."""
    return list(dict.fromkeys(chain for item in items for chain in item.chains))


@dataclass(frozen=True)
class DenseToBestChange:
    """How the best pruned model of a chain compares with its dense one, on the same images."""

    chain: str
    best: SummaryRow
    dense: SummaryRow
    gained: int
    """Images certified after pruning and not before."""
    lost: int
    tried: int
    """Pruned models that the best was chosen from."""
    p_value: float
    """Exact McNemar test, times ``tried`` (Bonferroni)."""

    @property
    def points(self) -> float:
        """Change of certified accuracy in percentage points."""
        return 100 * (self.best.certified_accuracy - self.dense.certified_accuracy)

    def __str__(self) -> str:
        what = "rises" if self.points > 0 else "falls" if self.points < 0 else "stays"
        strength = "significant" if self.p_value < 0.05 else "within chance"
        return (
            f"{self.chain}: certified accuracy {what} from {self.dense.certified_accuracy:.1%} "
            f"({self.dense.method}) to "
            f"{self.best.certified_accuracy:.1%} (density {self.best.density:.3g}, the best of {self.tried}): "
            f"{self.points:+.1f} points, {self.gained} gained and {self.lost} lost of {self.dense.images} images, "
            f"{strength} (p = {self.p_value:.2g})"
        )


def changes(
    models: Sequence[ModelRecord], rows: Sequence[SummaryRow], records: Sequence[JournalRecord]
) -> list[DenseToBestChange]:
    """For each chain and seed with a dense and a pruned model: did certified accuracy rise? The control counts as dense
    too."""
    found = []
    seeds = list(dict.fromkeys(model.seed for model in models))
    for chain, seed in itertools.product(chain_names(models), seeds):
        pairs = [
            (model, row)
            for model, row in zip(models, rows, strict=True)
            if chain in model.chains and model.seed == seed
        ]
        label = chain if len(seeds) == 1 else f"{chain} (seed {seed})"
        pruned = [pair for pair in pairs if pair[0].density < 1]
        for dense in [pair for pair in pairs if pair[0].density == 1 and pruned and pair[1].images]:
            best = max(pruned, key=lambda pair: (pair[1].certified, -pair[1].density))
            found.append(_change(label, dense, best, len(pruned), records))
    return found


def _change(
    chain: str,
    dense: tuple[ModelRecord, SummaryRow],
    best: tuple[ModelRecord, SummaryRow],
    tried: int,
    records: Sequence[JournalRecord],
) -> DenseToBestChange:
    before, after = (_certified(model.network, records) for model, _ in (dense, best))
    pairs = [(before[spec], after[spec]) for spec in before.keys() & after.keys()]
    return DenseToBestChange(
        chain=chain,
        best=best[1],
        dense=dense[1],
        gained=sum(new and not old for old, new in pairs),
        lost=sum(old and not new for old, new in pairs),
        tried=tried,
        p_value=min(1.0, tried * mcnemar(pairs)),
    )


def _certified(network: str, records: Sequence[JournalRecord]) -> dict[str, bool]:
    return {record.vnnlib: record.verdict == Verdict.UNSAT for record in records if record.onnx == network}
