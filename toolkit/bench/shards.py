"""Equal parts of a run, for machines that share no memory: which instances the part I of N has."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from toolkit.errors import InputError


@dataclass(frozen=True)
class Shard:
    """The part ``index`` of ``count``, counted from 1. Neighbours, which are often of one kind, go to different
    parts, so that all parts take about as long."""

    index: int
    count: int

    def positions(self, total: int) -> range:
        """Which of so many instances are in the part, counted from 0; none where there are more parts than those."""
        return range(self.index - 1, total, self.count)

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def parse_shard(text: str) -> Shard:
    """The part that ``I/N`` names. Raises InputError unless 1 <= I <= N."""
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    shard = Shard(int(found[1]), int(found[2])) if found else Shard(0, 0)
    if not 1 <= shard.index <= shard.count:
        raise InputError(f"--shard {text}: expected I/N, part I of N counted from 1, as in 2/4")
    return shard


def missing_shards(positions: Iterable[int], total: int, count: int) -> list[Shard]:
    """The parts, of ``count``, that have instances among ``total``, but all of them at the absent ``positions``."""
    absent = set(positions)
    shards = (Shard(index, count) for index in range(1, min(count, total) + 1))
    return [shard for shard in shards if absent.issuperset(shard.positions(total))]
