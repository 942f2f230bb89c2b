"""Points of the boxes: centres first, all inside, the same for a seed, and only those that seem to be witnesses."""

from pathlib import Path

import numpy as np
from sums import posed

from toolkit.attack.point_sampling import sample
from toolkit.run.clock import Clock
from toolkit.tuning import tuned

EVERYWHERE = "(or (and (<= X_0 0.5) (>= Y_0 -99.0)) (and (>= X_0 -0.25) (>= Y_0 -99.0)))"


def tried(tmp_path: Path, condition: str, seed: int = 0) -> list[tuple[np.ndarray, int]]:
    """All points of one round that are replayed, with their boxes."""
    *_, losses = posed(tmp_path, condition)
    seen: list[tuple[np.ndarray, int]] = []
    assert not sample(losses, seed, Clock.started(60), lambda point, region: bool(seen.append((point, region))))
    return seen


def test_points_lie_in_their_boxes_and_begin_at_centres(tmp_path: Path) -> None:
    _, cases, _ = posed(tmp_path, EVERYWHERE)
    seen = tried(tmp_path, EVERYWHERE)
    assert len(seen) == 2 * tuned().points.per_region
    for point, region in seen:
        assert (point >= cases.lower[region]).all()
        assert (point <= cases.upper[region]).all()
    for region in range(2):
        first = next(point for point, number in seen if number == region)
        assert np.array_equal(first, (cases.lower[region] + cases.upper[region]) / 2)


def test_a_seed_gives_the_same_points(tmp_path: Path) -> None:
    one, same, other = (tried(tmp_path, EVERYWHERE, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for (a, _), (b, _) in zip(one, same, strict=True))
    assert not all(np.array_equal(a, b) for (a, _), (b, _) in zip(one, other, strict=True))


def test_what_is_no_witness_is_not_replayed(tmp_path: Path) -> None:
    seen = tried(tmp_path, "(>= Y_0 0.5)")
    assert 0 < len(seen) < tuned().points.per_region
    assert all(point.sum() >= 0.49 for point, _ in seen)


def test_it_ends_with_the_first_witness(tmp_path: Path) -> None:
    *_, losses = posed(tmp_path, EVERYWHERE)
    calls: list[int] = []
    assert sample(losses, 0, Clock.started(60), lambda p, region: len(calls) == 3 or bool(calls.append(region)))
    assert len(calls) == 3


def test_it_ends_in_time(tmp_path: Path) -> None:
    *_, losses = posed(tmp_path, "(>= Y_0 31.0)")
    clock = Clock.started(0.2)
    assert not sample(losses, 0, clock, lambda point, region: True, rounds=1_000_000)
    assert clock.elapsed < 5
