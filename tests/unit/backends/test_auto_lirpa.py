"""The second backend: its bounds are bounds, agree with ours where both compute the same, and prove nothing in failure.

Most tests need the library and are skipped without it; those of its absence and of failures do not.
"""

from __future__ import annotations

import builtins
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from programs import ResidualNetwork, mlp
from random_networks import NetworkBuilder, save
from torch import Tensor, nn

from toolkit.backends import auto_lirpa as lirpa
from toolkit.bench.run_options import Options
from toolkit.bounds.crown import bound_features, crown_bounds
from toolkit.bounds.interval import Bounds
from toolkit.cli import run
from toolkit.errors import InputError
from toolkit.experiments.campaign import run_folder
from toolkit.formats.vnnlib.read import parse_query
from toolkit.problem.cases import compile_cases
from toolkit.problem.compile import (
    Binding,
    FeatureNetwork,
    FeatureQuestion,
    Problem,
    compile_problem,
    compile_question,
    in_double,
)
from toolkit.result import Result, Verdict
from toolkit.run.clock import Clock, OutOfTime
from toolkit.settings import Settings
from toolkit.verify import load_networks, silent, verify

FAST = Settings(timeout=30, device="cpu", attack_restarts=2, attack_steps=10, alpha_iterations=5, beta_iterations=3)
SECOND = FAST.model_copy(update={"bounds": "auto-lirpa"})
SHAPES = {"mlp": (1, 4), "convolutions": (1, 1, 6, 6)}


@pytest.fixture
def installed() -> Any:
    """The library, or the test is skipped."""
    try:
        return lirpa.library()
    except InputError as error:
        pytest.skip(str(error))


def module(kind: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return (mlp(4, 12, 12, 3) if kind == "mlp" else ResidualNetwork()).eval().requires_grad_(False)


def text(inputs: int, assertion: str, radius: float = 0.4) -> str:
    """A specification about three outputs: a box around 0.3, and what is asked."""
    lines = [f"(declare-const X_{i} Real)" for i in range(inputs)] + [f"(declare-const Y_{i} Real)" for i in range(3)]
    lines += [f"(assert (and (>= X_{i} {0.3 - radius}) (<= X_{i} {0.3 + radius})))" for i in range(inputs)]
    return "\n".join([*lines, assertion])


ALL_ATOMS = "(assert (or (and (<= Y_0 Y_1) (<= Y_2 1.5)) (and (>= Y_1 2.0)) (and (<= (+ X_0 Y_2) 0.1))))"
TWO_REGIONS = "(assert (or (and (<= X_0 0.2) (<= Y_0 Y_1)) (and (>= X_0 0.2) (<= Y_0 Y_1)) (and (<= Y_2 -1.0))))"


def both(kind: str, seed: int, assertion: str) -> tuple[FeatureNetwork, FeatureQuestion, Problem]:
    """One query as the library takes it and as our own bounds do."""
    shape = SHAPES[kind]
    query = parse_query(text(int(np.prod(shape)), assertion, 0.4 if kind == "mlp" else 0.1))
    networks = {query.networks[0].name: Binding(module(kind, seed), (shape,), (torch.float32,))}
    cases = compile_cases(query)
    features = FeatureNetwork(query, in_double(networks), cases)
    return features, compile_question(cases), compile_problem(query, networks, cases)


def ours(problem: Problem) -> Tensor:
    """CROWN bounds of the cases, ``(C,)``: a conjunction by its best atom."""
    box = Bounds(problem.lower[problem.region], problem.upper[problem.region])
    atoms, constants = problem.weights[problem.rows], problem.offsets[problem.rows]
    return bound_features(problem.program, atoms, box, crown_bounds(problem.program, box), constants)[1].amax(1)


def smallest(features: FeatureNetwork, question: FeatureQuestion, count: int = 300) -> Tensor:
    """The smallest value of each case's best atom over samples of its box, ``(C,)``."""
    generator = torch.Generator().manual_seed(0)
    lower, upper = question.lower[question.region], question.upper[question.region]
    share = torch.rand(count, *lower.shape, generator=generator, dtype=torch.float64)
    share[::3] = share[::3].round()
    values = torch.stack([features(points) for points in lower + share * (upper - lower)])
    atoms = torch.einsum("sbf,bkf->sbk", values, question.weights[question.rows]) + question.offsets[question.rows]
    return atoms.amax(2).amin(0)


@pytest.mark.parametrize("iterations", [0, 5])
@pytest.mark.parametrize("assertion", [ALL_ATOMS, TWO_REGIONS])
@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("seed", range(3))
def test_bounds_of_both_are_below_every_sample(
    installed: Any, seed: int, kind: str, assertion: str, iterations: int
) -> None:
    features, question, problem = both(kind, seed, assertion)
    least = smallest(features, question)
    theirs = lirpa.lower_bounds(features, question, iterations)
    assert theirs.isfinite().all()
    assert (theirs <= least).all()
    assert (ours(problem) <= least).all()


@pytest.mark.parametrize("seed", range(4))
def test_crown_of_both_agrees(installed: Any, seed: int) -> None:
    """The slopes are the same adaptive ones; ours are intersected with intervals, so they can only be tighter."""
    features, question, problem = both("mlp", seed, TWO_REGIONS)
    theirs, own = lirpa.lower_bounds(features, question), ours(problem)
    assert (own >= theirs - 1e-6 * (1 + theirs.abs())).all()
    intervals_matter = (own - theirs).abs() > 0.2 * (1 + theirs.abs())
    assert not intervals_matter.any()


def test_one_hidden_layer_gives_the_same_number(installed: Any) -> None:
    """Intervals of the first layer are exact, so nothing but rounding can differ."""
    torch.manual_seed(5)
    network = mlp(4, 30, 3).eval().requires_grad_(False)
    query = parse_query(text(4, ALL_ATOMS))
    networks = {query.networks[0].name: Binding(network, ((1, 4),), (torch.float32,))}
    cases = compile_cases(query)
    features = FeatureNetwork(query, in_double(networks), cases)
    theirs = lirpa.lower_bounds(features, compile_question(cases))
    torch.testing.assert_close(theirs, ours(compile_problem(query, networks, cases)), rtol=1e-9, atol=1e-9)


def test_optimised_slopes_are_no_worse(installed: Any) -> None:
    features, question, _ = both("mlp", 1, TWO_REGIONS)
    crown, alpha = (lirpa.lower_bounds(features, question, iterations) for iterations in (0, 20))
    assert (alpha >= crown).all()
    assert (alpha > crown).any()


def test_the_default_element_type_is_left_alone(installed: Any) -> None:
    features, question, _ = both("mlp", 0, ALL_ATOMS)
    lirpa.lower_bounds(features, question)
    assert torch.get_default_dtype() == torch.float32


class Fixed(nn.Module):
    """A network that fixes its batch dimension."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x.reshape(1, 4))[:, :3] - 0.5


def test_networks_that_take_one_sample_are_bounded_one_region_at_a_time(installed: Any) -> None:
    query = parse_query(text(4, TWO_REGIONS))
    networks = {query.networks[0].name: Binding(Fixed(), ((1, 4),), (torch.float32,))}
    cases = compile_cases(query)
    features = FeatureNetwork(query, in_double(networks), cases)
    question = compile_question(cases)
    assert len(question.lower) > 1
    assert not lirpa.takes_batches(features, question.lower[:2])
    theirs = lirpa.lower_bounds(features, question)
    torch.testing.assert_close(theirs, ours(compile_problem(query, networks, cases)), rtol=1e-9, atol=1e-9)


def test_slots_hold_every_case_once() -> None:
    """Two cases of a region share an atom; a third, of another region, has it too."""
    empty = torch.zeros(2, 1)
    question = FeatureQuestion(
        lower=empty,
        upper=empty,
        region=torch.tensor([0, 0, 1]),
        rows=torch.tensor([[2, 1], [2, 2], [2, 0]]),
        weights=torch.zeros(3, 1),
        offsets=torch.zeros(3),
    )
    found = lirpa.slots(question)
    assert found.atoms.shape == (2, 2)
    assert torch.equal(found.atoms[question.region.unsqueeze(1), found.of_case], question.rows)


# --- verdicts ---------------------------------------------------------------------------------------------------------


def network(tmp_path: Path, activation: str, bias: float) -> Path:
    """Two inputs to one output: the activation of twice their sum, plus a bias."""
    builder = NetworkBuilder(np.random.default_rng(0), (1, 2))
    total = builder.op("MatMul", "x", builder.constant(np.full((2, 1), 2.0)))
    hidden = builder.op(activation, total)
    return save(builder.model(builder.op("Add", hidden, builder.constant(np.array([bias]))), 1), tmp_path)


def header(radius: float) -> str:
    names = "".join(f"(declare-const X_{i} Real)" for i in range(2)) + "(declare-const Y_0 Real)"
    return names + "".join(f"(assert (>= X_{i} -{radius}))(assert (<= X_{i} {radius}))" for i in range(2))


def decide(path: Path, query: str, settings: Settings) -> Result:
    return verify(load_networks({"": path}), parse_query(query), settings)


@pytest.mark.parametrize(("bias", "expected"), [(0.1, Verdict.UNSAT), (-0.1, Verdict.SAT)])
def test_both_backends_say_the_same(installed: Any, bias: float, expected: Verdict, tmp_path: Path) -> None:
    path, query = network(tmp_path, "Relu", bias), header(0.5) + "(assert (<= Y_0 0.0))"
    assert decide(path, query, FAST).verdict == expected
    result = decide(path, query, SECOND)
    assert result.verdict == expected
    if expected == Verdict.UNSAT:
        assert result.statistics.decided_by == lirpa.CROWN


def test_what_it_leaves_open_is_searched(installed: Any, tmp_path: Path) -> None:
    """relu(t) - relu(t) + 0.1 is 0.1, which no line below the one and above the other shows."""
    builder = NetworkBuilder(np.random.default_rng(0), (1, 2))
    hidden = builder.op("Relu", builder.op("MatMul", "x", builder.constant(np.ones((2, 2)))))
    difference = builder.op("MatMul", hidden, builder.constant(np.array([[1.0], [-1.0]])))
    path = save(builder.model(builder.op("Add", difference, builder.constant(np.array([0.1]))), 1), tmp_path)
    result = decide(path, header(1.0) + "(assert (<= Y_0 0.0))", SECOND)
    assert result.verdict == Verdict.UNSAT
    assert not result.statistics.decided_by.startswith("auto-lirpa")


def test_an_operator_that_we_lack_is_bounded(installed: Any, tmp_path: Path) -> None:
    path, query = network(tmp_path, "Tan", 1.0), header(0.1) + "(assert (<= Y_0 0.0))"
    native = decide(path, query, FAST.model_copy(update={"timeout": 2.0}))
    assert native.verdict == Verdict.UNKNOWN
    assert "tan" in native.reason
    assert decide(path, query, SECOND).verdict == Verdict.UNSAT


def test_a_query_that_neither_decides_is_unknown_for_both_reasons(installed: Any, tmp_path: Path) -> None:
    nodes = [helper.make_node("Cosh", ["x"], ["e"]), helper.make_node("Mul", ["e", "x"], ["y"])]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 2)) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "unsupported", infos[:1], infos[1:])
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    query = header(1.0).replace("(declare-const Y_0 Real)", "(declare-const Y_0 Real)(declare-const Y_1 Real)")
    result = decide(path, query + "(assert (<= Y_0 -100.0))", SECOND.model_copy(update={"timeout": 4.0}))
    assert result.verdict == Verdict.UNKNOWN
    assert "cosh" in result.reason
    assert "auto_LiRPA" in result.reason


# --- failure and absence: these need no library -----------------------------------------------------------------------


def question_of(count: int) -> FeatureQuestion:
    ones = torch.ones(1, 1, dtype=torch.float64)
    cases = torch.zeros(count, dtype=torch.int64)
    return FeatureQuestion(
        lower=-ones, upper=ones, region=cases, rows=cases.unsqueeze(1), weights=ones, offsets=torch.zeros(1).double()
    )


def bounded_by(monkeypatch: pytest.MonkeyPatch, behaviour: Any) -> lirpa.LirpaRootBounds:
    monkeypatch.setattr(lirpa, "lower_bounds", behaviour)
    return lirpa.lirpa_root_bounds(nn.Identity(), question_of(3), 5, Clock.started(10.0), silent)


@pytest.mark.parametrize("error", [RuntimeError("odd shape"), AssertionError(), SystemExit(0), MemoryError("full")])
def test_whatever_the_library_raises_refutes_nothing(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Tensor:
        raise error

    found = bounded_by(monkeypatch, fail)
    assert len(found.open) == 3
    assert type(error).__name__ in found.reason


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 0.0, -1.0])
def test_bounds_that_prove_nothing_leave_cases_open(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    found = bounded_by(monkeypatch, lambda features, question, *_: torch.full(question.region.shape, value))
    assert len(found.open) == 3
    assert "3 of 3" in found.reason


def test_only_open_cases_are_bounded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def lower(_: nn.Module, question: FeatureQuestion, *__: Any) -> Tensor:
        sizes.append(len(question.region))
        return torch.arange(len(question.region), dtype=torch.float64)

    found = bounded_by(monkeypatch, lower)
    assert sizes == [3, 1]
    assert found.open.tolist() == [0]


def test_the_time_limit_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*_: Any) -> Tensor:
        raise OutOfTime

    with pytest.raises(OutOfTime):
        bounded_by(monkeypatch, late)


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without the library."""
    original = builtins.__import__

    def importing(name: str, *arguments: Any, **options: Any) -> Any:
        if name.split(".", maxsplit=1)[0] == "auto_LiRPA":
            raise ModuleNotFoundError("No module named 'auto_LiRPA'")
        return original(name, *arguments, **options)

    monkeypatch.delitem(sys.modules, "auto_LiRPA", raising=False)
    monkeypatch.setattr(builtins, "__import__", importing)


@pytest.mark.usefixtures("absent")
def test_without_the_library_the_error_tells_where_it_is() -> None:
    with pytest.raises(InputError, match=r"Verified-Intelligence/auto_LiRPA.*`lirpa`"):
        lirpa.library()


@pytest.mark.usefixtures("absent")
def test_without_the_library_the_command_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "spec.vnnlib"
    spec.write_text(header(0.5) + "(assert (<= Y_0 0.0))")
    arguments = ["verify", str(spec), "--network", str(network(tmp_path, "Relu", 0.1)), "--device", "cpu"]
    assert run([*arguments, "--bounds", "auto-lirpa"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Verified-Intelligence/auto_LiRPA" in captured.err
    assert run(arguments) == 0


@pytest.mark.usefixtures("absent")
def test_without_the_library_no_run_starts(tmp_path: Path) -> None:
    network(tmp_path, "Relu", 0.1)
    (tmp_path / "spec.vnnlib").write_text(header(0.5) + "(assert (<= Y_0 0.0))")
    (tmp_path / "instances.csv").write_text("network.onnx,spec.vnnlib,10\n")
    with pytest.raises(InputError, match="auto_LiRPA"):
        run_folder(tmp_path, Options(setting=("bounds=auto-lirpa",), out=tmp_path / "out"))
    assert not list((tmp_path / "out").glob("results.csv"))


def test_the_remark_is_told_with_a_timeout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: Any) -> Tensor:
        raise RuntimeError("odd shape")

    def late(*_: Any) -> None:
        raise OutOfTime

    monkeypatch.setattr("toolkit.verify.check_settings", lambda settings: None)
    monkeypatch.setattr(lirpa, "lower_bounds", fail)
    monkeypatch.setattr("toolkit.search.strategy.root_bounds", late)
    result = decide(network(tmp_path, "Relu", 0.1), header(0.5) + "(assert (<= Y_0 0.0))", SECOND)
    assert result.verdict == Verdict.TIMEOUT
    assert "odd shape" in result.reason
