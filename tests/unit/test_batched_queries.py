"""Queries surveyed together: what is proved, what stays open, and that nothing is concluded from what goes wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from random_networks import PIECEWISE_LINEAR, SMOOTH, random_network, save, sizes
from random_queries import QueryCase, query_text, robustness

from toolkit import batched_queries
from toolkit.attack.gradient_attack import case_loss
from toolkit.batched_queries import bound_together
from toolkit.formats.vnnlib.read import read_query
from toolkit.problem.compile import compile_problem, places, stacked
from toolkit.problem.specialise_cases import specialised
from toolkit.result import Result, Verdict
from toolkit.run.clock import Clock, OutOfTime
from toolkit.search.root import RootBounds, boxes_at_once, first_bounds, joint_roots, root_bounds
from toolkit.settings import Settings
from toolkit.verify import LoadedNetwork, LoadedQuery, decide, load_networks, load_query, precision, verify

FAST = Settings(timeout=30, device="cpu", attack_restarts=2, attack_steps=10, alpha_iterations=3, beta_iterations=3)
COUNT = 8


def network(family: str, folder: Path, seed: int = 0) -> tuple[Path, int, int]:
    """A random network with the numbers of its inputs and outputs."""
    model = random_network(family, seed)
    return save(model, folder), *sizes(model)


def with_outcome(path: Path, cases: list[QueryCase], margin: float) -> list[QueryCase]:
    """The cases, shifted so that the least value met at random points is this margin above zero."""
    session = onnxruntime.InferenceSession(path)
    (info,) = session.get_inputs()
    points = cases[0].points(np.random.default_rng(1), 300)
    run = [session.run(None, {info.name: p.astype(np.float32).reshape(info.shape)})[0].reshape(-1) for p in points]
    least = min(case.worst(points, np.stack(run)).min() for case in cases)
    return [case.shifted(margin - least) for case in cases]


def specs_of(path: Path, inputs: int, outputs: int, folder: Path) -> list[Path]:
    """Robustness queries from clearly sat to clearly unsat."""
    specs = []
    for number, margin in enumerate(np.linspace(-1.0, 8.0, COUNT)):
        cases = with_outcome(path, robustness(np.random.default_rng(number), inputs, outputs), float(margin))
        specs.append(folder / f"{number}.vnnlib")
        specs[-1].write_text(query_text(cases))
    return specs


def problems_of(networks: dict[str, LoadedNetwork], specs: Sequence[Path]) -> list:
    found = []
    for spec in specs:
        loaded = load_query(networks, read_query(spec))
        whole = compile_problem(loaded.query, {n: net.binding for n, net in loaded.networks.items()}, loaded.cases)
        (part,) = specialised(whole)
        found.append(part.problem)
    return found


def values(root: RootBounds) -> list[torch.Tensor]:
    return [root.bounds.lower, root.bounds.upper, root.lower, root.multipliers.alpha, root.multipliers.weight]


@pytest.mark.parametrize("family", sorted(PIECEWISE_LINEAR))
def test_joint_bounds_are_those_of_each_query_alone(family: str, tmp_path: Path) -> None:
    path, inputs, outputs = network(family, tmp_path)
    problems = problems_of(load_networks({"": path}), specs_of(path, inputs, outputs, tmp_path))
    clock = Clock.started(60)
    with torch.no_grad():
        alone = [root_bounds(problem, clock, lambda event: None) for problem in problems]
        for one, root in zip(alone, joint_roots(problems, clock), strict=True):
            for ours, theirs in zip(values(root), values(one), strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
            assert (root.unstable, root.unstable_interval) == (one.unstable, one.unstable_interval)


@pytest.mark.parametrize("family", sorted(PIECEWISE_LINEAR | SMOOTH))
def test_joint_bounds_hold_at_every_point(family: str, tmp_path: Path) -> None:
    path, inputs, outputs = network(family, tmp_path)
    problems = problems_of(load_networks({"": path}), specs_of(path, inputs, outputs, tmp_path))
    # A box that fixes an input of a smooth operator has a program of its own.
    groups = [[problem for problem in problems if problem.program is other.program] for other in problems]
    problems = max(groups, key=len)
    assert len(problems) > 1
    with torch.no_grad():
        for problem, root in zip(problems, joint_roots(problems, Clock.started(60)), strict=True):
            share = torch.rand(500, inputs, dtype=torch.float64)
            share[::3] = share[::3].round()
            points = problem.lower + share * (problem.upper - problem.lower)
            for case in range(problem.num_cases):
                assert root.lower[case] <= case_loss(problem, points, torch.full((500,), case)).min()


def test_a_stack_keeps_every_atom_with_its_box(tmp_path: Path) -> None:
    path, inputs, outputs = network("mlp", tmp_path)
    problems = problems_of(load_networks({"": path}), specs_of(path, inputs, outputs, tmp_path))
    whole = stacked(problems)
    for problem, (regions, cases) in zip(problems, places(problems), strict=True):
        torch.testing.assert_close(whole.lower[regions], problem.lower)
        torch.testing.assert_close(whole.lower[whole.region[cases]], problem.lower[problem.region])
        torch.testing.assert_close(whole.weights[whole.rows[cases]], problem.weights[problem.rows])
        torch.testing.assert_close(whole.offsets[whole.rows[cases]], problem.offsets[problem.rows])


def test_programs_of_different_queries_are_not_stacked(tmp_path: Path) -> None:
    path, inputs, outputs = network("mlp", tmp_path)
    specs = specs_of(path, inputs, outputs, tmp_path)[:1]
    problems = [problems_of(load_networks({"": path}), specs)[0] for _ in range(2)]
    with pytest.raises(AssertionError):
        stacked(problems)


@pytest.mark.parametrize("boxes", [1, 3, 100])
@pytest.mark.parametrize("family", ["mlp", "residual"])
def test_surveyed_queries_get_the_verdicts_that_they_get_alone(
    family: str, boxes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batched_queries, "boxes_at_once", lambda program: boxes)
    path, inputs, outputs = network(family, tmp_path)
    specs, networks = specs_of(path, inputs, outputs, tmp_path), load_networks({"": path})
    alone = [verify(load_networks({"": path}), read_query(spec), FAST) for spec in specs]
    found = bound_together(networks, specs, FAST, Clock.started(30))
    proofs = [item for item in found if isinstance(item, Result)]
    loaded = [item for item in found if isinstance(item, LoadedQuery)]
    assert proofs
    assert len(proofs) + len(loaded) == len(specs)
    assert all(item.known_root is not None for item in loaded)
    assert {proof.verdict for proof in proofs} == {Verdict.UNSAT}
    after = [item if isinstance(item, Result) else decide(item, FAST, Clock.started(30)) for item in found if item]
    assert [result.verdict for result in after] == [result.verdict for result in alone]
    assert {result.verdict for result in after} == {Verdict.SAT, Verdict.UNSAT}
    for proof in proofs:
        one = alone[found.index(proof)].statistics
        assert (proof.statistics.relus, proof.statistics.decided_by) == (one.relus, one.decided_by)


def test_a_query_that_does_not_fit_costs_the_others_nothing(tmp_path: Path) -> None:
    path, inputs, outputs = network("mlp", tmp_path)
    specs, networks = specs_of(path, inputs, outputs, tmp_path), load_networks({"": path})
    whole = bound_together(networks, specs, FAST, Clock.started(30))
    (tmp_path / "broken.vnnlib").write_text("(assert (<= X_0")
    (tmp_path / "other.vnnlib").write_text(
        "(declare-const X_0 Real)(declare-const Y_0 Real)(assert (<= X_0 1))(assert (>= X_0 0))(assert (<= Y_0 0))"
    )
    wrong = [tmp_path / "missing.vnnlib", tmp_path / "broken.vnnlib", tmp_path / "other.vnnlib"]
    found = bound_together(networks, [*wrong, *specs], FAST, Clock.started(30))
    assert found[:3] == [None] * 3
    assert [type(item) for item in found[3:]] == [type(item) for item in whole]


def test_queries_of_several_boxes_and_of_none_stay_open(tmp_path: Path) -> None:
    path, inputs, outputs = network("mlp", tmp_path)
    cases = robustness(np.random.default_rng(0), inputs, outputs)[:1]
    apart = QueryCase(cases[0].lower + 9, cases[0].upper + 9, cases[0].on_x, cases[0].on_y, cases[0].constant)
    two, none = tmp_path / "two.vnnlib", tmp_path / "none.vnnlib"
    two.write_text(query_text([*cases, apart]))
    none.write_text(query_text(cases) + "(assert (>= X_0 1000.0))\n")
    found = bound_together(load_networks({"": path}), [two, none], FAST, Clock.started(30))
    assert all(isinstance(item, LoadedQuery) and item.known_root is None for item in found)
    assert isinstance(found[1], LoadedQuery)
    assert decide(found[1], FAST, Clock.started(30)).statistics.decided_by == "specification"


def test_nothing_is_concluded_when_time_or_memory_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, inputs, outputs = network("mlp", tmp_path)
    specs, networks = specs_of(path, inputs, outputs, tmp_path), load_networks({"": path})
    assert bound_together(networks, specs, FAST, Clock.started(30, spent=30)) == [None] * COUNT
    for error in (OutOfTime(), MemoryError(), torch.OutOfMemoryError()):

        def fails(*_: object, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr(batched_queries, "joint_roots", fails)
        found = bound_together(networks, specs, FAST, Clock.started(30))
        assert all(isinstance(item, LoadedQuery) and item.known_root is None for item in found)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_bounds_that_are_not_finite_prove_nothing(
    value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoilt(*arguments: Any) -> tuple:
        lower, multipliers = first_bounds(*arguments)
        return torch.full_like(lower, value), multipliers

    monkeypatch.setattr("toolkit.search.root.first_bounds", spoilt)
    path, inputs, outputs = network("mlp", tmp_path)
    found = bound_together(
        load_networks({"": path}), specs_of(path, inputs, outputs, tmp_path), FAST, Clock.started(30)
    )
    assert all(isinstance(item, LoadedQuery) for item in found)


def test_queries_about_one_output_share_a_program(tmp_path: Path) -> None:
    path, inputs, outputs = network("mlp", tmp_path)
    box = QueryCase(np.zeros(inputs), np.ones(inputs), np.zeros((1, inputs)), np.zeros((1, outputs)), np.zeros(1))
    specs = []
    for output in range(outputs):
        on_y = np.eye(outputs)[output][None]
        specs.append(tmp_path / f"{output}.vnnlib")
        specs[-1].write_text(query_text([QueryCase(box.lower, box.upper, box.on_x, on_y, box.constant)]))
    problems = problems_of(load_networks({"": path}), specs)
    assert len({id(problem.program) for problem in problems}) == 1
    for output, problem in enumerate(problems):
        assert problem.weights[0].tolist() == np.eye(outputs)[output].tolist()


def test_larger_networks_fill_the_processor_with_fewer_boxes(tmp_path: Path) -> None:
    path, inputs, outputs = network("mlp", tmp_path)
    (problem,) = problems_of(load_networks({"": path}), specs_of(path, inputs, outputs, tmp_path)[:1])
    problem = problem.to(torch.device("cpu"), precision(problem))
    assert boxes_at_once(problem.program) > COUNT
