"""Whether two networks give one and the same class on a whole box: what the answers about each of them tell together.

Where both are proved robust, both give the image's label at every point of its box. Where one is proved and the other
has a counterexample, they differ at that point. Every other image is open, also where both have counterexamples, which
may be the same ones. Nothing has to be bounded for that which was not bounded before.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from toolkit.bench.journal import JournalRecord
from toolkit.report.summary import ModelRecord
from toolkit.report.tables import Table, make_table, number, percent, short, word
from toolkit.result import Verdict


@dataclass(frozen=True)
class ClassAgreement:
    """In how many boxes a network has the class of its chain's dense network everywhere."""

    model: str
    dense: str
    density: float
    seed: int
    images: int
    """Images that both networks were asked about."""
    proved: int
    """Images on whose whole box both networks have the label."""
    refuted: int
    """Images on whose whole box one network has the label, while the other has another class somewhere."""

    @property
    def least(self) -> float:
        """Part of the images where agreement is proved."""
        return self.proved / self.images

    @property
    def most(self) -> float:
        """Part of the images where it is not refuted."""
        return 1 - self.refuted / self.images

    def __str__(self) -> str:
        return (
            f"{self.model} and {self.dense} have the same class on the whole box for {agreement_text(self)} of "
            f"{self.images} images: proved for {self.proved}, refuted for {self.refuted}"
        )


def class_agreements(models: Sequence[ModelRecord], records: Sequence[JournalRecord]) -> list[ClassAgreement]:
    """One for each network that is not dense, with the dense one of its chain and seed."""
    verdicts: dict[str, dict[str, Verdict]] = {}
    for record in records:
        verdicts.setdefault(record.onnx, {})[record.vnnlib] = record.verdict
    dense = {(model.seed, chain): model for model in models if model.state == 0 for chain in model.chains}
    pairs = [(model, dense.get((model.seed, model.chains[0]))) for model in models if model.state > 0]
    found = [
        _compared(model, first, verdicts.get(first.network, {}), verdicts.get(model.network, {}))
        for model, first in pairs
        if first is not None
    ]
    return [agreement for agreement in found if agreement.images]


def _compared(
    model: ModelRecord, dense: ModelRecord, before: dict[str, Verdict], after: dict[str, Verdict]
) -> ClassAgreement:
    pairs = [{before[image], after[image]} for image in before if image in after]
    return ClassAgreement(
        model=model.name,
        dense=dense.name,
        density=model.density,
        seed=model.seed,
        images=len(pairs),
        proved=sum(pair == {Verdict.UNSAT} for pair in pairs),
        refuted=sum(pair == {Verdict.UNSAT, Verdict.SAT} for pair in pairs),
    )


def agreement_text(row: ClassAgreement) -> str:
    """The part of the images, from what is proved to what is not refuted."""
    ends = dict.fromkeys(f"{100 * part:.1f}" for part in (row.least, row.most))
    return f"{'-'.join(ends)} %"


COLUMNS = (
    word("model", "name of the exported network", lambda row: row.model),
    word("dense", "the network that it is compared with", lambda row: row.dense),
    number("density", "part of the prunable weights or channels left", lambda row: row.density, short),
    number("images", "images that both networks were asked about", lambda row: row.images),
    number("proved", "both have the image's label on its whole box", lambda row: row.proved),
    number("refuted", "one has, and the other has another class somewhere", lambda row: row.refuted),
    number("agree, at least", "part of the images where agreement is proved", lambda row: row.least, percent),
    number("at most", "part of the images where it is not refuted", lambda row: row.most, percent),
)


def agreement_table(rows: Sequence[ClassAgreement]) -> Table:
    """The agreements as a table."""
    return make_table(COLUMNS, rows)


def agreement_csv(rows: Sequence[ClassAgreement]) -> str:
    """The agreements as CSV with a header, rates with six digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*ClassAgreement.__dataclass_fields__, "least", "most"])
    writer.writerows([*asdict(row).values(), f"{row.least:.6f}", f"{row.most:.6f}"] for row in rows)
    return text.getvalue()
