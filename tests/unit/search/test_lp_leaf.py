"""Leaves whose rows have magnitudes far apart: what refutes them has no price, and no unit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from distance import space_of
from random_networks import NetworkBuilder, save
from torch import Tensor, nn

from toolkit.formats.vnnlib.read import parse_query
from toolkit.problem.compile import Binding, compile_problem
from toolkit.result import Verdict
from toolkit.run.budget import Budget
from toolkit.run.clock import Clock
from toolkit.search import lp_leaf
from toolkit.search.phase_domains import PhaseDomains, PhaseSpace, split
from toolkit.settings import Settings
from toolkit.verify import load_networks, verify

PHASES = Settings(device="cpu", timeout=30, strategy="relu", attack_restarts=0, processes=1)


def roof(generator: np.random.Generator, folder: Path, scale: float, unit: float) -> Path:
    """``1 - scale * sum |w_i . x / unit - c_i|`` of three absolute values of four inputs of magnitude ``unit``."""
    weight, shift = generator.normal(size=(3, 4)) / unit, generator.normal(size=3) * 0.3
    builder = NetworkBuilder(generator, (1, 4))
    both = np.concatenate([weight, -weight]).T, np.concatenate([-shift, shift])
    hidden = builder.op("Relu", builder.op("Gemm", "x", *(builder.constant(part) for part in both)))
    last = builder.constant(np.full((6, 1), -scale)), builder.constant(np.ones(1))
    return save(builder.model(builder.op("Gemm", hidden, *last), 1), folder)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 1e3, 1e5, 1e6])
@pytest.mark.parametrize("unit", [1e-4, 1.0, 1e4])
def test_a_roof_is_no_higher_than_its_ridge(scale: float, unit: float, tmp_path: Path) -> None:
    path = roof(np.random.default_rng(round(np.log10(scale)) + 10), tmp_path, scale, unit)
    lines = [f"(declare-const X_{k} Real)(assert (and (>= X_{k} {-unit}) (<= X_{k} {unit})))" for k in range(4)]
    lines.append("(declare-const Y_0 Real)")
    networks = load_networks({"": path})
    for assertion in ("(>= Y_0 1.01)", "(and (>= Y_0 1.01) (<= (* 1000000 X_0) 1.0))"):
        answer = verify(networks, parse_query("\n".join([*lines, f"(assert {assertion})"])), PHASES)
        assert answer.verdict == Verdict.UNSAT, (assertion, answer.reason)


class TwoRamps(nn.Module):
    """``-scale * (relu(x - 0.25) + relu(-x - 0.25))``, whose neurons are never active together."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return -self.scale * (torch.relu(x - 0.25) + torch.relu(-x - 0.25))


RAMPS = """
(declare-const X_0 Real)(declare-const Y_0 Real)
(assert (>= X_0 -1.0))(assert (<= X_0 1.0))(assert (<= Y_0 {0}))
"""


def leaves_of(scale: float, level: float) -> tuple[PhaseSpace, PhaseDomains]:
    """The four leaves of the question whether the ramps are at most ``level`` somewhere, which 0.25 and -0.25 reach."""
    query = parse_query(RAMPS.format(f"{level:.12f}"))
    bindings = {query.networks[0].name: Binding(TwoRamps(scale).double(), ((1, 1),), (torch.float64,))}
    space, domains = space_of(compile_problem(query, bindings))
    for neuron in range(2):
        domains = split(domains, torch.full((len(domains),), neuron))
    return space, domains


def undecided(space: PhaseSpace, leaves: PhaseDomains) -> int:
    """Leaves that stay open where no point is taken for a witness."""
    return lp_leaf.close_leaves(space, leaves, Budget(Clock.started(30), lambda point, region: False)).undecided


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4, 1e9])
def test_phases_that_no_input_has_are_refuted_whatever_the_atom_is_worth(scale: float) -> None:
    """Both neurons active, at most: that the atom holds everywhere by far must not outweigh it."""
    space, leaves = leaves_of(scale, 10 * scale)
    active = (leaves.phase == 1).all(1)
    assert active.sum() == 1
    assert undecided(space, leaves.select(active)) == 0
    assert undecided(space, leaves.select(~active)) == 3


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("with_point", [False, True])
def test_a_solver_that_errs_closes_no_leaf_that_has_a_witness(
    seed: int, with_point: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Multipliers are any, and the program is called infeasible, or optimal at a point that is no witness."""
    generator = np.random.default_rng(seed)
    space, leaves = leaves_of(1.0, 0.0)
    point = np.zeros(1) if with_point else None
    wrong = lp_leaf.LpSolution(generator.random(2) * 10.0 ** generator.integers(-3, 9), np.ones(1), point)
    monkeypatch.setattr(lp_leaf, "_solve", lambda program, domain, phases: wrong)
    assert undecided(space, leaves.select(~(leaves.phase == 1).all(1))) == 3


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_rows_are_measured_in_their_own_units(scale: float) -> None:
    generator = np.random.default_rng(1)
    coefficients, constant = generator.normal(size=(5, 3)), generator.normal(size=5)
    lower, upper = np.array([-1.0, 0.0, 2.0]), np.array([1.0, 0.5, 2.0])
    rows = lp_leaf.LeafRows.over_box(scale * coefficients, scale * constant, lower, upper)
    u = generator.uniform(-1, 1, 3)
    x = (lower + upper) / 2 + u * (upper - lower) / 2
    np.testing.assert_allclose((rows.coefficients @ u + rows.constant) * rows.scale,
                               scale * (coefficients @ x + constant))  # fmt: skip
    assert (np.abs(rows.coefficients).sum(1) + np.abs(rows.constant) <= 1 + 1e-12).all()
