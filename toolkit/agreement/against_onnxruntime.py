"""What was bounded against onnxruntime: every value, within what rounding explains. No torch.

Each way of bounding says what it computes at the samples, and how far an evaluation that rounds may be from that
(`Bounded`). Where a value is farther away, a slower look at every operator decides whether rounding explains it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from toolkit.agreement.query_samples import Array, Candidate, OnnxReference, QuerySamples
from toolkit.errors import DisagreementError
from toolkit.tuning import tuned


@dataclass(frozen=True)
class ValueComparison:
    """Values that were bounded beside those of onnxruntime, ``(B, m)`` each."""

    value: Array
    tolerance: Array
    """How far apart rounding may put them; infinite or NaN where that is not known."""
    reference: Array
    jumps: bool = False
    """Whether functions with jumps take part: where rounding decides on which side of one a sample is, the tolerance is
    a whole step."""

    def within(self, tolerance: Array, largest: float) -> NDArray[np.bool_]:
        """Which values agree: infinities in sign, NaN with NaN alone, finite values up to the tolerance.

        A value near or beyond the largest number of the network's types may overflow there.
        """
        value, reference = self.value, self.reference
        with np.errstate(invalid="ignore"):
            near = np.abs(value - reference) <= np.nan_to_num(tolerance, nan=np.inf)
            beyond = np.isinf(reference) & (np.sign(value) == np.sign(reference))
            overflows = beyond & np.isfinite(value) & (np.abs(value) + tolerance >= largest)
            same = (value == reference) | (np.isnan(value) & np.isnan(reference))
        return same | overflows | (near & np.isfinite(value) & np.isfinite(reference))


class Bounded(Protocol):
    """Something that was bounded in place of the networks."""

    @property
    def regions(self) -> NDArray[np.int64]:
        """Boxes of the query on which it was."""

    @property
    def work(self) -> int:
        """Multiplications of an evaluation at one point."""

    def compare(self, samples: QuerySamples, original: OnnxReference) -> ValueComparison:
        """The bounded values beside onnxruntime's at samples. Raises DisagreementError where it contradicts itself."""

    def looked_into(self, samples: QuerySamples, original: OnnxReference) -> Array:
        """How far rounding may put values apart, operator by operator, ``(B, m)``."""

    def reach(self, samples: QuerySamples) -> Array:
        """Largest number of any tensor of the networks that depends on the input, at each sample, ``(B,)``."""

    def explain(self, samples: QuerySamples, row: int, column: int) -> str:
        """What a value is, and the first tensor that differs, where one can be told."""


def check_agreement(bounded: Bounded, original: OnnxReference, candidates: Sequence[Candidate] = ()) -> None:
    """Raise DisagreementError unless what was bounded is what onnxruntime computes at points of its boxes."""
    if not len(bounded.regions):
        return
    limits = tuned().agreement
    affordable = limits.most_multiplications // max(1, bounded.work)
    count = int(np.clip(affordable, limits.fewest_points, limits.most_points))
    samples = original.sample(bounded.regions, count, candidates)
    found = bounded.compare(samples, original)
    if found.value.shape != found.reference.shape:
        raise DisagreementError(f"the bounded program has {found.value.shape[1]} values where the query uses "
                                f"{found.reference.shape[1]}")  # fmt: skip
    same = agreeing(found, original.largest, lambda: bounded.reach(samples))
    if not same.all():
        wider = np.fmax(found.tolerance, bounded.looked_into(samples, original))
        same = agreeing(replace(found, tolerance=wider), original.largest, lambda: bounded.reach(samples))
    if not same.all():
        row, column = (int(index) for index in np.argwhere(~same)[0])
        raise DisagreementError(_difference(found, row, column, bounded.explain(samples, row, column)))


def agreeing(found: ValueComparison, largest: float, reach: Callable[[], Array]) -> NDArray[np.bool_]:
    """Which values agree, by tolerances that are small beside a value or beside what it is computed from."""
    tolerance = found.tolerance
    near = found.within(tolerance, largest)
    with np.errstate(invalid="ignore"):
        loose = (
            near
            & ~(tolerance <= tuned().agreement.large_tolerance * np.maximum(1.0, np.abs(found.reference)))
            & np.isfinite(found.value)
        )
    if not loose.any():
        return near
    small = np.fmin(tolerance, tuned().agreement.most_tolerance_of_tensors * reach()[:, None])
    closely = near & found.within(small, largest)
    # A step is explained at samples that are next to its end; it is no measure, so that another one must agree closely.
    return near & closely.any(0) if found.jumps else closely


def _difference(found: ValueComparison, row: int, column: int, what: str) -> str:
    value, reference = found.value[row, column], found.reference[row, column]
    return (f"what was bounded is not the network: {what} is {value:.9g} where onnxruntime says {reference:.9g}; "
            "this is a fault of the verifier, and nothing is concluded")  # fmt: skip
