"""Making a case that goes wrong smaller, for as long as it goes wrong in the same way.

Draws are left out, set to the simplest, and made smaller, in blocks first. No kind has to help: a draw left out means
fewer neurons, nodes or assertions wherever their number was drawn before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from choices import again
from kinds import Finding, Kind, judge

SECONDS = 20.0
"""How long one case is worth."""

Draws = tuple[int, ...]


def shrunk(chosen: Kind, finding: Finding, seconds: float = SECONDS) -> Finding:
    """The smallest case found in so many seconds that has the finding's key."""
    end = time.perf_counter() + seconds

    def tried(draws: Draws, so_far: Finding) -> Finding | None:
        _, found = judge(chosen, again(draws))
        return found if found is not None and found.key == finding.key and smaller(found, so_far) else None

    best, improved = [finding], True
    while improved:
        improved = False
        for attempt in (_without, _zeroed, _lowered):
            for draws in _all(attempt, lambda: best[-1].choices):
                if time.perf_counter() > end:
                    return best[-1]
                if (found := tried(draws, best[-1])) is not None:
                    best.append(found)
                    improved = True
    return best[-1]


def smaller(first: Finding, second: Finding) -> bool:
    """Whether a case is simpler than another: fewer draws that are not 0 at the end, then smaller ones."""
    return _size(first.choices) < _size(second.choices)


def _size(draws: Draws) -> tuple[int, int, Draws]:
    return len(_stripped(draws)), sum(draw != 0 for draw in draws), _stripped(draws)


def _stripped(draws: Draws) -> Draws:
    """Without the zeros at the end, which follow anyway."""
    length = len(draws)
    while length and draws[length - 1] == 0:
        length -= 1
    return draws[:length]


def _all(attempt: Callable[[Draws, int, int], Iterator[Draws]], current: Callable[[], Draws]) -> Iterator[Draws]:
    """Attempts on every block of the draws as they are by then, large blocks first."""
    for block in (32, 8, 4, 2, 1):
        position = len(_stripped(current()))
        while position > 0:
            position = min(position, len(_stripped(current()))) - block
            yield from attempt(_stripped(current()), max(0, position), block)


def _without(draws: Draws, start: int, block: int) -> Iterator[Draws]:
    yield draws[:start] + draws[start + block :]
    if start:  # with one fewer to follow, where the draw before said how many
        yield (*draws[: start - 1], max(0, draws[start - 1] - 1), *draws[start + block :])


def _zeroed(draws: Draws, start: int, block: int) -> Iterator[Draws]:
    if any(draws[start : start + block]):
        yield draws[:start] + (0,) * block + draws[start + block :]


def _lowered(draws: Draws, start: int, block: int) -> Iterator[Draws]:
    """Halves, and one less, of a single draw."""
    if block > 1 or start >= len(draws):
        return
    value = draws[start]
    for less in sorted({1, 2, value // 4, value // 2, value - 2, value - 1}):
        if 0 < less < value:
            yield (*draws[:start], less, *draws[start + 1 :])
