"""Values at points, and how far another evaluation may be: the tolerance of what is compared with onnxruntime."""

from __future__ import annotations

import pytest
import torch

from toolkit.problem.evaluate_program import Arithmetic, PointValues
from toolkit.tuning import tuned


def test_a_kink_within_tolerance_is_met_although_no_copy_is_beyond_it() -> None:
    """Copies a tenth of a unit around -0.3, so that another evaluation may be at 0.1: of a relu, that is not zero."""
    value = torch.full((3, 1), -0.3, dtype=torch.float64)
    away = (
        torch.tensor([0.1, -0.1, 0.05, -0.05], dtype=torch.float64)
        .reshape(tuned().agreement.disturbed_copies, 1, 1)
        .expand(tuned().agreement.disturbed_copies, 3, 1)
    )
    z = PointValues(value, torch.full_like(value, 10.0), value + away)
    assert torch.allclose(z.tolerance, torch.tensor(0.1 * tuned().agreement.spread_factor, dtype=torch.float64))
    found = Arithmetic.of(2.0**-24).apply_operator("relu", z)
    assert torch.allclose(found.tolerance, torch.tensor(0.1, dtype=torch.float64))


def test_far_from_a_kink_errors_stay_what_they_are() -> None:
    value = torch.tensor([[5.0, -5.0]], dtype=torch.float64)
    copies = value + torch.tensor([1e-3, -1e-3, 5e-4, 0.0], dtype=torch.float64).reshape(
        tuned().agreement.disturbed_copies, 1, 1
    )
    found = Arithmetic.of(2.0**-24).apply_operator("relu", PointValues(value, torch.full_like(value, 1.0), copies))
    assert torch.equal(found.copies, torch.relu(copies))
    assert found.tolerance.tolist() == [[pytest.approx(1e-3 * tuned().agreement.spread_factor), 0.0]]
