"""Programs and compiled problems compute what onnxruntime does, in both forms of the affine maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from random_networks import FAMILIES, random_network, save, sizes
from random_queries import query_text, random_cases

from toolkit.attack.gradient_attack import case_loss, forward
from toolkit.errors import InputError
from toolkit.formats.onnx.model_file import load_model
from toolkit.formats.vnnlib.read import parse_query
from toolkit.problem.compile import Problem, bind_module, compile_problem
from toolkit.problem.program import Program
from toolkit.problem.sum_rounding import outward
from toolkit.tuning import tuned


def compiled(text: str, path: Path) -> Problem:
    query = parse_query(text)
    return compile_problem(query, {query.networks[0].name: bind_module(load_model(path))})


@pytest.mark.parametrize("limit", [0, 1 << 20], ids=["graph", "dense"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", FAMILIES)
def test_atoms_are_those_of_the_query(
    name: str, seed: int, limit: int, tmp_path: Path, tune: Callable[..., None]
) -> None:
    tune(problem={"most_dense_elements": limit, "most_dense_convolution_elements": limit})
    model = random_network(name, seed)
    generator = np.random.default_rng(seed)
    cases = random_cases(generator, *sizes(model))
    problem = compiled(query_text(cases), save(model, tmp_path))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    shape = session.get_inputs()[0].shape
    assert problem.num_cases == len(cases)
    for number, case in enumerate(cases):
        points = case.points(generator, 10).astype(np.float32)
        outputs = np.stack([session.run(None, {"x": p.reshape(shape)})[0].reshape(-1) for p in points])
        expected = case.worst(points.astype(float), outputs.astype(float))
        found = case_loss(problem, torch.tensor(points, dtype=torch.float64), torch.full((10,), number))
        np.testing.assert_allclose(found, expected, atol=2e-5)
        region = problem.region[number]
        np.testing.assert_array_equal(problem.lower[region], case.lower)
        np.testing.assert_array_equal(problem.upper[region], case.upper)


def test_boxes_are_rounded_outward() -> None:
    lower = torch.tensor([0.1, -0.1, 1.0, 1e-60, -1e300], dtype=torch.float64)
    low, high = outward(lower, lower, torch.float32)
    assert low.dtype == high.dtype == torch.float32
    assert bool((low.double() <= lower).all() and (high.double() >= lower).all())
    assert low[2] == high[2] == 1.0


@pytest.mark.parametrize("seed", range(3))
def test_a_problem_in_single_precision_has_no_smaller_boxes(seed: int, tmp_path: Path) -> None:
    model, generator = random_network("mlp", 0), np.random.default_rng(seed)
    (case, *_) = random_cases(generator, *sizes(model))
    shift = generator.random(len(case.lower)) * 1e-3
    case = replace(case, lower=case.lower + shift, upper=case.upper + shift)
    problem = compiled(query_text([case]), save(model, tmp_path))
    single = problem.to(torch.device("cpu"), torch.float32)
    assert bool((single.lower.double() <= problem.lower).all() and (single.upper.double() >= problem.upper).all())


def test_a_case_without_atoms_is_always_true(tmp_path: Path) -> None:
    path = save(random_network("mlp", 0), tmp_path)
    inputs, outputs = sizes(random_network("mlp", 0))
    text = "".join(f"(declare-const X_{i} Real)(assert (<= X_{i} 1))(assert (>= X_{i} 0))" for i in range(inputs))
    text += "".join(f"(declare-const Y_{i} Real)" for i in range(outputs))
    problem = compiled(text + "(assert (or (<= Y_0 3) (and (<= X_0 1) (>= X_0 0))))", path)
    points = torch.full((2, inputs), 0.5, dtype=torch.float64)
    assert case_loss(problem, points, torch.tensor([0, 1]))[1] == -1.0


def test_sizes_that_disagree_are_told(tmp_path: Path) -> None:
    path = save(random_network("wired", 0), tmp_path)
    text = "(declare-const X_0 Real)(declare-const Y_0 Real)(assert (<= X_0 1))(assert (>= X_0 0))(assert (<= Y_0 0))"
    with pytest.raises(InputError, match="elements"):
        compiled(text, path)


def test_products_of_variables_are_features(tmp_path: Path) -> None:
    path = save(random_network("wired", 0), tmp_path)
    text = "".join(f"(declare-const X_{i} Real)(assert (<= X_{i} 100))(assert (>= X_{i} -1))" for i in range(4))
    text += "(declare-const Y_0 Real)(declare-const Y_1 Real)"
    text += "(assert (<= (+ (* Y_0 Y_1) (* 2 X_1 X_1 X_3) (* -3 X_0 Y_1) X_2) 1))"
    problem = compiled(text, path)
    points = torch.rand(20, 4, dtype=torch.float64) * 101 - 1
    plain = compiled(text[: text.index("(assert (<= (+")] + "(assert (<= Y_0 Y_1))", path)
    y = forward(plain.program, points)
    x0, x1, x2, x3 = points.unbind(1)
    expected = y[:, 0] * y[:, 1] + 2 * x1 * x1 * x3 - 3 * x0 * y[:, 1] + x2 - 1
    found = case_loss(problem, points, torch.zeros(20, dtype=torch.int64))
    assert torch.allclose(found, expected, rtol=1e-9)


def queries(path: Path, atoms: list[str]) -> list[Program]:
    """Programs of queries about one network, one for each atom."""
    inputs, outputs = sizes(random_network("mlp", 0))
    text = "".join(f"(declare-const X_{i} Real)(assert (<= X_{i} 1))(assert (>= X_{i} 0))" for i in range(inputs))
    text += "".join(f"(declare-const Y_{i} Real)" for i in range(outputs))
    binding = bind_module(load_model(path))
    parsed = [parse_query(f"{text}(assert {atom})") for atom in atoms]
    found = [compile_problem(query, {query.networks[0].name: binding}).program for query in parsed]
    assert len(binding.programs) <= tuned().problem.most_programs
    return found


def test_queries_share_a_program_only_where_they_use_the_same(tmp_path: Path) -> None:
    path = save(random_network("mlp", 0), tmp_path)
    first, same, mixed = queries(path, ["(<= Y_0 3)", "(<= Y_1 Y_0)", "(<= Y_0 X_0)"])
    assert first is same
    assert mixed is not first
    assert mixed.features.size == first.features.size + 1


def test_programs_are_kept_in_bounds(tmp_path: Path) -> None:
    path = save(random_network("mlp", 0), tmp_path)
    inputs = ["X_0", "X_1", "X_2", "(+ X_0 X_1)", "(+ X_0 X_2)", "(+ X_1 X_2)"]
    assert len(inputs) > tuned().problem.most_programs
    first, *_, last = queries(path, [f"(<= Y_0 {term})" for term in [*inputs, inputs[0]]])
    assert first is not last
