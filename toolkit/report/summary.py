"""The table of an experiment: one row per model, from what its instances were answered."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from statistics import fmean
from typing import Protocol

from toolkit.bench.journal import JournalRecord
from toolkit.bench.scoring import wilson
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
    """Accuracy of the exported file on the whole test set."""
    pgd_accuracy: float
    """Accuracy under a gradient attack, on the images that are verified: an upper bound of the certified accuracy."""
    group: str = ""
    """Name without the seed: the same network of every seed; the name itself if empty."""
    seed: int = 0
    tested: int = 0
    """Test images of the standard accuracy."""
    retrained: bool = False
    """Pruned and then trained from the initial weights, so that it can be a lottery ticket."""
    layers: tuple[dict[str, float], ...] = ()
    """Stability of each ReLU layer by interval bounds, as :class:`toolkit.training.stats.LayerStability` has it."""
    curve: tuple[dict[str, float | None], ...] = ()
    """Each epoch of its training, as :class:`toolkit.training.training_curve.EpochRecord` has it."""
    fgsm_accuracy: float = math.nan
    """Under a one-step attack, on the whole test set: the adversarial accuracy of the paper."""
    content: str = ""
    """Hash of the exported file."""
    control: str = ""
    """Which control of its chain's pruned network, at the same state, this one is; empty for pruned and dense ones."""
    grafted: bool = False
    """Whether some of its ReLUs were made linear."""

    @property
    def is_pruned(self) -> bool:
        """Whether it is a network that a method pruned."""
        return self.state > 0 and not self.control


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
    """What is proved: the lower end of the certified accuracy."""
    certified_low: float
    """Lower end of the 95 % Wilson interval of what is proved."""
    certified_high: float
    """Upper end of the 95 % Wilson interval of what is proved and undecided."""
    mean_seconds: float
    relus: int
    mean_unstable_interval: float
    """Unstable ReLUs by interval bounds, mean over the images that have root bounds."""
    mean_unstable: float
    """Unstable ReLUs by the root bounds ``bounds``, mean over the images that have them: an image that an attack
    refutes first has none, so that networks are not compared on the same images."""
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
    certified_most: float = math.nan
    """Proved and undecided: the upper end of the certified accuracy, whatever the verifier's limits left open."""
    parameters_left: float = math.nan
    """Part of all parameters of the dense network that are left; ``density`` is what the method prunes by."""
    control: str = ""
    checked: int = 0
    """Proofs whose certificate the checker accepted."""
    mean_certificate_bytes: float = math.nan
    """Size of a certificate, mean over those that there are."""
    mean_checking_seconds: float = math.nan
    """Time that the checker took for one, mean over those that it saw."""
    grafted: bool = False
    retrained: bool = False
    """Pruned and then trained from the initial weights, so that it can be a lottery ticket."""

    @property
    def is_pruned(self) -> bool:
        """Whether it is a network that a method pruned."""
        return self.state > 0 and not self.control

    @property
    def has_certificates(self) -> bool:
        """Whether some of its proofs have a certificate."""
        return not math.isnan(self.mean_certificate_bytes)


def summarise(models: Sequence[ModelRecord], records: Sequence[JournalRecord]) -> list[SummaryRow]:
    """One row per model, from the records of its network."""
    rows = [_row(model, [record for record in records if record.onnx == model.network]) for model in models]
    return with_tickets(with_parameters_left(rows))


def with_parameters_left(rows: Sequence[SummaryRow]) -> list[SummaryRow]:
    """The rows with the part of all parameters that each network has left, of its architecture's largest dense one."""
    dense: dict[str, int] = {}
    for row in rows:
        if row.state == 0:
            dense[row.architecture] = max(row.parameters, dense.get(row.architecture, 0))
    return [
        replace(
            row, parameters_left=row.parameters / dense[row.architecture] if dense.get(row.architecture) else math.nan
        )
        for row in rows
    ]


def _row(model: ModelRecord, records: Sequence[JournalRecord]) -> SummaryRow:
    count = {verdict: sum(record.verdict == verdict for record in records) for verdict in Verdict}
    certified, images = count[Verdict.UNSAT], len(records)
    undecided = sum(record.verdict not in DECIDED for record in records)
    low, high = wilson(certified, images)[0], wilson(certified + undecided, images)[1]
    bounded = [record.statistics for record in records if record.statistics.bounds]
    proofs = [record.statistics for record in records if record.certificate]
    accepted = [record.statistics.checking_seconds for record in records if record.proof_checked]
    return SummaryRow(
        model=model.name,
        **{name: value for name, value in vars(model).items() if name in _COMMON},
        images=images,
        certified=certified,
        falsified=count[Verdict.SAT],
        undecided=undecided,
        certified_accuracy=certified / images if images else math.nan,
        certified_most=(certified + undecided) / images if images else math.nan,
        certified_low=low,
        certified_high=high,
        mean_seconds=_mean([record.seconds for record in records]),
        relus=max((record.statistics.relus for record in records), default=0),
        mean_unstable_interval=_mean([statistics.unstable_interval for statistics in bounded]),
        mean_unstable=_mean([statistics.unstable for statistics in bounded]),
        bounds=", ".join(sorted({statistics.bounds for statistics in bounded})),
        mean_domains=_mean([record.statistics.domains for record in records]),
        checked=len(accepted),
        mean_certificate_bytes=_mean([proof.certificate_bytes for proof in proofs]),
        mean_checking_seconds=_mean(accepted),
    )


_COMMON = {field.name for field in fields(ModelRecord)} & {field.name for field in fields(SummaryRow)}


def with_tickets(rows: Sequence[SummaryRow]) -> list[SummaryRow]:
    """The rows, with the certified lottery tickets among them marked."""
    return [replace(row, ticket=row.retrained and _is_ticket(row, rows)) for row in rows]


def _is_ticket(row: SummaryRow, rows: Sequence[SummaryRow]) -> bool:
    """Whether a retrained network is as good as the dense network of the same chain and seed."""
    rivals = [dense for dense in rows if dense.state == 0 and row.seed == dense.seed]
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


def certified_text(row: SummaryRow) -> str:
    """Certified accuracy from what is proved to what is not refuted, with its 95 % interval."""
    least, most = 100 * row.certified_accuracy, 100 * row.certified_most
    ends = f"{least:.1f}" if most - least < 0.05 else f"{least:.1f}-{most:.1f}"
    return f"{ends} % [{100 * row.certified_low:.0f}, {100 * row.certified_high:.0f}]"


class ModelAccuracies(Protocol):
    """Accuracies of a network, on the same images for all networks."""

    @property
    def standard_accuracy(self) -> float: ...

    @property
    def certified_accuracy(self) -> float: ...

    @property
    def certified_most(self) -> float: ...


def is_certified_ticket(dense: ModelAccuracies, pruned: ModelAccuracies) -> bool:
    """Whether a network pruned and retrained from its initial weights is as good as the dense one in both respects,
    whatever images without a verdict come to.

    Certified lottery ticket of Li et al. (TMLR 2023). It speaks of the figures as they are, without their intervals.
    """
    return pruned.standard_accuracy >= dense.standard_accuracy and pruned.certified_accuracy >= dense.certified_most


def ticket_findings(rows: Sequence[SummaryRow]) -> list[str]:
    """One sentence for each chain with networks that may be certified lottery tickets: which of them are."""
    found = []
    for chain in chain_names(rows):
        own = [row for row in rows if chain in row.chains and row.retrained]
        tickets = [row for row in own if row.ticket]
        which = ", ".join(f"{row.density:.3g}" for row in tickets)
        many = f"certified lottery tickets at density {which}" if tickets else "no certified lottery ticket"
        counted = f"{len(tickets)} of {len(own)} networks lose neither standard nor certified accuracy"
        found += [f"{chain}: {many} ({counted})"] if own else []
    return found


def chain_names(items: Iterable[ModelRecord] | Iterable[SummaryRow]) -> list[str]:
    """All chains, in the order of the models."""
    return list(dict.fromkeys(chain for item in items for chain in item.chains))
