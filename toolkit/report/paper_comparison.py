"""Our networks beside published ones: the dense one and the best pruned one of each chain."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from toolkit.paper import PaperRow, dense_key, paper_rows
from toolkit.report.summary import SummaryRow, certified_text
from toolkit.report.tables import Column, Table, make_table, number, percent, short, word


@dataclass(frozen=True)
class PaperPair:
    """One of our networks and one of the paper's."""

    chain: str
    ours: SummaryRow
    key: str
    theirs: PaperRow


def pairs(rows: Sequence[SummaryRow], keys: Mapping[str, Sequence[str]]) -> list[PaperPair]:
    """For each chain with rows of the paper (by chain name): the dense pair once, then the best pruned network's.

    The paper shows the network of a chain with the best certified accuracy; the same choice is made here. Grafted ones
    are left out, as the paper has none.
    """
    found: dict[tuple[str, str], PaperPair] = {}
    for chain, wanted in keys.items():
        own = [row for row in rows if chain in row.chains and row.images]
        pruned = [row for row in own if row.is_pruned and not row.grafted]
        for row in own:
            if row.state == 0:
                found |= {(row.model, dense_key(key)): _pair(chain, row, dense_key(key)) for key in wanted}
        if pruned:
            best = max(pruned, key=lambda row: (row.certified_accuracy, -row.density))
            found |= {(best.model, key): _pair(chain, best, key) for key in wanted}
    return list(found.values())


def _pair(chain: str, row: SummaryRow, key: str) -> PaperPair:
    return PaperPair(chain, row, key, paper_rows()[key])


def _published(pair: PaperPair) -> str:
    """The published certified accuracy: of one network, or in round figures, of which there may be a range."""
    row = pair.theirs
    if not math.isnan(row.standard):
        return f"{row.certified:.1f} %"
    return f"{row.certified:g} %" if math.isnan(row.certified_most) else f"{row.certified:g}-{row.certified_most:g} %"


COLUMNS = (
    word("network", "the dense network of a chain, or its best certified one", lambda pair: pair.ours.model),
    number("density", "part of the prunable weights or channels left", lambda pair: pair.ours.density, short),
    number("standard", "accuracy on the whole test set", lambda pair: pair.ours.standard_accuracy, percent),
    number("FGSM", "under a one-step attack, on the whole test set", lambda pair: pair.ours.fgsm_accuracy, percent),
    Column(
        "certified [95 %]",
        "from what is proved to what is not refuted, with its interval",
        lambda pair: pair.ours.certified_accuracy,
        lambda pair: certified_text(pair.ours),
    ),
    number("seconds", "mean time per image", lambda pair: pair.ours.mean_seconds, short),
    word("paper", "row of Li et al. (TMLR 2023), Tables I and II, or figures of CTBench", lambda pair: pair.key),
    number("density (paper)", "", lambda pair: pair.theirs.density, short),
    number("standard (paper)", "per cent", lambda pair: pair.theirs.standard, "{:.1f} %".format),
    number(
        "FGSM (paper)",
        "per cent; of adversarial training only",
        lambda pair: pair.theirs.adversarial,
        "{:.1f} %".format,
    ),
    Column("certified (paper)", "per cent; Li et al.: of 200 images", lambda pair: pair.theirs.certified, _published),
    number("seconds (paper)", "on one RTX A6000", lambda pair: pair.theirs.seconds, short),
)


def paper_table(rows: Sequence[SummaryRow], keys: Mapping[str, Sequence[str]]) -> Table:
    """The pairs as a table; without rows where no chain names rows of the paper."""
    return make_table(COLUMNS, pairs(rows, keys))
