"""Whether a program that a search made of another is the same function on its boxes, at some of their points."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from toolkit.bounds.interval import Bounds
from toolkit.errors import DisagreementError
from toolkit.problem.evaluate_program import evaluate, transposed_wrongly
from toolkit.problem.program import Program
from toolkit.problem.sum_rounding import unit_roundoff
from toolkit.tuning import tuned

COMPARED_POSITIONS = (0.5, 0.0, 1.0, None)
"""Points of each box, by their shares of the way between its corners; None stands for random shares."""


def check_same(
    what: str, program: Program, made: Program, box: Bounds, translate: Callable[[Bounds], Bounds] = lambda box: box
) -> None:
    """Raise DisagreementError unless ``made`` computes the features of ``program`` in boxes ``(R, n)``.

    ``translate`` says where its own boxes are.
    """
    points = _points(box)
    own = translate(Bounds(points, points)).lower
    with torch.no_grad():
        expected, _ = evaluate(program, points, torch.zeros_like(points), 0.0)
        found, _ = evaluate(made, own, unit_roundoff(own.dtype) * own.abs(), 0.0)
        # Products may underflow, which no error in proportion to them counts.
        rounding = expected.tolerance + found.tolerance + torch.finfo(own.dtype).tiny
        allowed = tuned().agreement.reduced_tolerances * rounding
        near = (found.value - expected.value).abs() <= allowed
        same = near | (found.value == expected.value) | (found.value.isnan() & expected.value.isnan())
        if not bool(same.all()):
            row, column = (int(index) for index in (~same).nonzero()[0])
            values = float(found.value[row, column]), float(expected.value[row, column])
            raise DisagreementError(
                f"{what} is not the network that it was made of: feature {column} is {values[0]:.9g} instead of "
                f"{values[1]:.9g}; this is a fault of the verifier"
            )
        if transposed_wrongly(made) is not None or not _stacked_rightly(made):
            raise DisagreementError(
                f"{what} has a map that differs from its transpose; this is a fault of the verifier"
            )


def _points(box: Bounds) -> Tensor:
    """Points of some boxes, ``(B, n)``."""
    generator = torch.Generator().manual_seed(0)
    count = len(box.lower)
    found = []
    for number in sorted({0, count // 2, count - 1})[: tuned().agreement.compared_boxes]:
        lower, upper = box.lower[number], box.upper[number]
        for share in COMPARED_POSITIONS:
            part = torch.rand(len(lower), generator=generator).to(lower) if share is None else share
            found.append((lower + part * (upper - lower)).clamp(lower, upper))
    return torch.stack(found)


def _stacked_rightly(program: Program) -> bool:
    """Whether what is pushed back to a source at once is what each layer reads of it."""
    for source, stack in (program.stacks or {}).items():
        for layer in program.layers:
            if layer.start < stack.first:
                continue
            rows = stack.matrix[layer.start - stack.first : layer.stop - stack.first]
            matrices = dict(zip(layer.affine.sources, getattr(layer.affine, "matrices", ()), strict=True))
            expected = matrices.get(source)
            if not (torch.equal(rows, expected) if expected is not None else not bool(rows.any())):
                return False
    return True
