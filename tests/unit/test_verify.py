"""The strategy as a whole: verdicts that only hold with a proof or a replayed witness, whatever goes wrong."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from random_networks import NetworkBuilder, save
from small_models import save_text

import toolkit.verify
from toolkit.errors import InputError
from toolkit.formats.onnx.model_file import load_model
from toolkit.formats.onnx.runtime import Session
from toolkit.formats.vnncomp.witness import open_sessions, replay
from toolkit.formats.vnnlib.read import parse_query
from toolkit.result import Result, Statistics, Verdict
from toolkit.run.events import Event, MemoryShort, NoBounds, PhaseBegun, RootBounded, RoundDone
from toolkit.search import box_frontier, phase_frontier
from toolkit.settings import Settings
from toolkit.verify import QueryAttempt, load_networks, load_query, pick_device, silent, verify, verify_files

FAST = Settings(timeout=30, device="cpu", attack_restarts=2, attack_steps=10, alpha_iterations=3, beta_iterations=3)
BY_PHASES = FAST.model_copy(update={"strategy": "relu", "attack_restarts": 0, "alpha_iterations": 0, "batch": 64})


def header(inputs: int, outputs: int, low: float = -1.0, high: float = 1.0) -> str:
    """Declarations, and one box for all inputs."""
    text = "".join(f"(declare-const X_{i} Real)" for i in range(inputs))
    text += "".join(f"(declare-const Y_{i} Real)" for i in range(outputs))
    return text + "".join(f"(assert (>= X_{i} {low}))(assert (<= X_{i} {high}))" for i in range(inputs))


def absolute(tmp_path: Path, width: int = 1, bias: float = 0.0) -> Path:
    """The network ``|x_1| + ... + |x_n| + bias`` as ReLUs: its minimum is ``bias``, at the origin only."""
    builder = NetworkBuilder(np.random.default_rng(0), (1, width))
    both = np.concatenate([np.eye(width), -np.eye(width)])
    hidden = builder.op("Gemm", "x", builder.constant(both), builder.constant(np.zeros(2 * width)), transB=1)
    ones, offset = builder.constant(np.ones((1, 2 * width))), builder.constant(np.array([bias]))
    return save(builder.model(builder.op("Gemm", builder.op("Relu", hidden), ones, offset, transB=1), 1), tmp_path)


def hard(tmp_path: Path) -> tuple[Path, str]:
    """A network and a query that no strategy decides in a second: many inputs, many unstable neurons, no slack."""
    generator = np.random.default_rng(0)
    builder, x = NetworkBuilder(generator, (1, 40)), "x"
    for inputs, outputs in ((40, 120), (120, 120), (120, 120)):
        x = builder.op("Relu", builder.dense(x, inputs, outputs))
    path = save(builder.model(builder.dense(x, 120, 1), 1), tmp_path)
    session = Session(load_model(path))
    least = min(float(session.run([generator.uniform(-1, 1, 40)])[0].item()) for _ in range(200))
    return path, header(40, 1) + f"(assert (<= Y_0 {least - 3 * abs(least) - 1:.6f}))"


def decide(path: Path, text: str, settings: Settings = FAST, observer: Callable[[Event], None] = silent) -> Result:
    return verify(load_networks({"": path}), parse_query(text), settings, observer)


def test_a_corner_is_found_along_secants(tmp_path: Path) -> None:
    path, text = absolute(tmp_path, 20, -19.9), header(20, 1, -0.5, 1.0) + "(assert (>= Y_0 0.0))"
    result = decide(path, text)
    assert (result.verdict, result.statistics.decided_by) == (Verdict.SAT, "secants")
    assert decide(path, text, BY_PHASES).statistics.decided_by != "secants"


@pytest.mark.parametrize(
    ("condition", "compared", "expected"),
    [
        ("(<= Y_0 Y_1)", True, Verdict.SAT),
        ("(and (<= Y_0 Y_1) (>= X_0 0.5))", True, Verdict.UNSAT),
        ("(or (<= Y_0 0.001) (<= Y_0 Y_1))", False, Verdict.SAT),
        ("(>= Y_0 0.999999999)", False, Verdict.UNSAT),
        ("(>= (- Y_0 Y_1) 1.5)", False, Verdict.UNSAT),
        ("(>= Y_0 (* 2.0 Y_1))", False, Verdict.SAT),
    ],
)
def test_a_last_softmax_is_left_out_where_outputs_are_only_compared(
    condition: str, compared: bool, expected: Verdict, tmp_path: Path
) -> None:
    """Scores are 2 x_0 and x_0 - x_1, so that the first is less where x_0 + x_1 < 0."""
    builder = NetworkBuilder(np.random.default_rng(0), (1, 2))
    scores = builder.op("MatMul", "x", builder.constant(np.array([[2.0, 1.0], [0.0, -1.0]])))
    path = save(builder.model(builder.op("Softmax", scores), 2), tmp_path)
    query = parse_query(header(2, 2, -0.45, 1.0) + f"(assert {condition})")
    loaded = load_query(load_networks({"": path}), query)
    assert loaded.by_scores is compared
    assert decide(path, header(2, 2, -0.45, 1.0) + f"(assert {condition})").verdict == expected


def test_a_tie_of_outputs_that_underflow_is_a_witness(tmp_path: Path) -> None:
    """Of the real numbers the first is greater than the second; onnxruntime says 0 of both."""
    builder = NetworkBuilder(np.random.default_rng(0), (1, 2))
    scores = builder.op("Gemm", "x", builder.constant(np.zeros((2, 3))), builder.constant(np.array([1.0, 0.0, 500.0])))
    path = save(builder.model(builder.op("Softmax", scores), 3), tmp_path)
    result = decide(path, header(2, 3) + "(assert (<= Y_0 Y_1))")
    assert (result.verdict, result.statistics.decided_by) == (Verdict.SAT, "sampling")


def test_unsat_by_splitting(tmp_path: Path) -> None:
    result = decide(absolute(tmp_path, 3, 0.01), header(3, 1) + "(assert (<= Y_0 0.0))", BY_PHASES)
    assert result.verdict == Verdict.UNSAT
    assert result.witness is None
    assert result.statistics.relus == 3  # relu(z) and relu(-z) are one


@pytest.mark.parametrize("strategy", ["auto", "relu", "input"])
def test_sat_has_a_witness_that_replays(strategy: str, tmp_path: Path) -> None:
    path, text = absolute(tmp_path, 2, -0.01), header(2, 1, -0.9, 1.0) + "(assert (<= Y_0 -0.002))"
    result = decide(path, text, BY_PHASES.model_copy(update={"strategy": strategy}))
    assert result.verdict == Verdict.SAT
    assert result.witness is not None
    query = parse_query(text)
    sessions = open_sessions({"": load_model(path)}, query)
    assert replay(sessions, query, result.witness.inputs) is not None


def test_a_strict_assertion_stays_strict(tmp_path: Path) -> None:
    """The minimum of |x| is 0: not below, but at most."""
    path = absolute(tmp_path)
    assert decide(path, header(1, 1) + "(assert (<= Y_0 0.0))").verdict == Verdict.SAT
    assert decide(path, header(1, 1) + "(assert (< Y_0 0.0))").verdict != Verdict.SAT


def test_a_minimum_at_the_threshold_is_never_unsat(tmp_path: Path) -> None:
    for strategy in ("relu", "input"):
        settings = BY_PHASES.model_copy(update={"strategy": strategy, "timeout": 3.0})
        result = decide(absolute(tmp_path, 2), header(2, 1, -0.7, 1.1) + "(assert (<= Y_0 0.0))", settings)
        assert result.verdict != Verdict.UNSAT


def test_a_query_without_cases_is_unsat(tmp_path: Path) -> None:
    result = decide(absolute(tmp_path), header(1, 1) + "(assert (>= X_0 3.0))(assert (<= Y_0 9.0))")
    assert (result.verdict, result.statistics.decided_by) == (Verdict.UNSAT, "specification")


def with_weights(path: Path, value: float) -> Path:
    """The model with one weight replaced."""
    model = onnx.load(path)
    weight = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight.flat[0] = value
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, model.graph.initializer[0].name))
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("strategy", ["relu", "input"])
def test_weights_that_are_not_finite_prove_nothing(value: float, strategy: str, tmp_path: Path) -> None:
    path = with_weights(absolute(tmp_path, 2, 5.0), value)
    settings = FAST.model_copy(update={"strategy": strategy, "timeout": 2.0})
    result = decide(path, header(2, 1) + "(assert (<= Y_0 1.0))", settings)
    assert result.verdict in {Verdict.UNKNOWN, Verdict.TIMEOUT}
    assert result.reason


@pytest.mark.parametrize("scale", [1e30, 1e38])
def test_weights_that_overflow_prove_nothing_false(scale: float, tmp_path: Path) -> None:
    """|1e38 x| + |y| - 0.5 is negative at the origin, whatever overflows elsewhere."""
    path = with_weights(absolute(tmp_path, 2, -0.5), scale)
    result = decide(path, header(2, 1, -0.9) + "(assert (<= Y_0 -0.4))", FAST.model_copy(update={"timeout": 5.0}))
    assert result.verdict != Verdict.UNSAT


@pytest.mark.parametrize("strategy", ["relu", "input"])
def test_the_time_limit_is_kept(strategy: str, tmp_path: Path) -> None:
    path, text = hard(tmp_path)
    networks, query = load_networks({"": path}), parse_query(text)
    _ = networks[""].binding  # importing a network is done once for all its queries
    settings = Settings(timeout=1.0, device="cpu", strategy=strategy)
    start = time.perf_counter()
    result = verify(networks, query, settings)
    assert result.verdict == Verdict.TIMEOUT
    assert "1 s" in result.reason
    # Processor time is not what counts, but a loaded machine stretches the steps between two looks at the clock.
    assert time.perf_counter() - start < 4.0


def test_an_unsupported_operator_is_named(tmp_path: Path) -> None:
    nodes = [helper.make_node("Cosh", ["x"], ["e"], name="growth"), helper.make_node("Mul", ["e", "x"], ["y"])]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 2)) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "unsupported", infos[:1], infos[1:])
    path = save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path)
    result = decide(path, header(2, 2) + "(assert (<= Y_0 -100.0))", FAST.model_copy(update={"timeout": 2.0}))
    assert result.verdict == Verdict.UNKNOWN
    assert "unsupported" in result.reason
    assert result.explanation is not None
    assert all(case.bound is None and case.nearest is not None for case in result.explanation.described)
    assert "no bounds exist" in result.explanation.suggestions[0]
    assert "cosh" in result.reason.lower()


@pytest.mark.parametrize(("threshold", "verdict"), [(0.5, Verdict.SAT), (2.0, Verdict.UNKNOWN)])
def test_what_has_no_bounds_is_said_before_anything_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threshold: float, verdict: Verdict
) -> None:
    """Witnesses are looked for all the same, and nothing else is done."""
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 13]> main (float[1,2] x) => (float[1,2] y) { y = Hardmax(x) }'
    )
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    order: list[object] = []
    found = toolkit.verify.sample
    monkeypatch.setattr(
        "toolkit.verify.sample", lambda *args, **kwargs: order.append("sample") or found(*args, **kwargs)
    )
    monkeypatch.setattr(QueryAttempt, "_prove", lambda self: order.append("prove"))
    text = header(2, 2) + f"(assert (>= Y_0 {threshold}))"
    result = decide(tmp_path / "net.onnx", text, Settings(timeout=2), order.append)
    assert result.verdict == verdict
    assert isinstance(order[0], NoBounds)
    assert (
        order[0].reason
        == f"{tmp_path}/net.onnx: operator Hardmax (opset 13, node 'y'): not supported: no bounding rule"
    )
    order = [step for step in order if not isinstance(step, PhaseBegun)]
    assert order[1] == "sample"
    assert "prove" not in order
    assert verdict == Verdict.SAT or order[0].reason in result.reason


def test_memory_errors_are_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*args: object, **kwargs: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr("toolkit.search.strategy.root_bounds", exhausted)
    result = decide(absolute(tmp_path, 2, 1.0), header(2, 1) + "(assert (<= Y_0 0.0))")
    assert result.verdict == Verdict.UNKNOWN
    assert "no room" in result.reason


REFUSALS = {
    "gpu": torch.OutOfMemoryError("CUDA out of memory"),
    "processor": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    "numpy": MemoryError("Unable to allocate 8 bytes"),
}


def failing(times: set[int], original: Callable[..., object], kind: str = "gpu") -> Callable[..., object]:
    """A function that runs out of memory at some of its calls."""
    calls = [0]

    def run(*args: object, **kwargs: object) -> object:
        calls[0] += 1
        if calls[0] in times:
            raise REFUSALS[kind]
        return original(*args, **kwargs)

    return run


@pytest.mark.parametrize("times", [{1}, {2}, {2, 3, 5}], ids=str)
@pytest.mark.parametrize("bias", [0.01, -0.01])
@pytest.mark.parametrize("kind", REFUSALS)
def test_running_out_of_memory_shrinks_the_batch_and_changes_no_verdict(
    times: set[int], bias: float, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, text = absolute(tmp_path, 3, bias), header(3, 1, -0.9) + "(assert (<= Y_0 0.0))"
    expected = decide(path, text, BY_PHASES).verdict
    monkeypatch.setattr(phase_frontier, "bound_domains", failing(times, phase_frontier.bound_domains, kind))
    events: list[Event] = []
    result = decide(path, text, BY_PHASES, events.append)
    assert result.verdict == expected
    assert any(isinstance(event, MemoryShort) for event in events)


@pytest.mark.parametrize("times", [{1}, {2, 3}], ids=str)
@pytest.mark.parametrize("kind", REFUSALS)
def test_a_search_over_boxes_shrinks_its_batch(
    times: set[int], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, text = absolute(tmp_path, 3, 0.01), header(3, 1, -0.9) + "(assert (<= Y_0 0.0))"
    monkeypatch.setattr(box_frontier, "branch", failing(times, box_frontier.branch, kind))
    events: list[Event] = []
    settings = BY_PHASES.model_copy(update={"strategy": "input"})
    assert decide(path, text, settings, events.append).verdict == Verdict.UNSAT
    assert sum(isinstance(event, MemoryShort) for event in events) == len(times)


@pytest.mark.parametrize(
    "where", ["strategy.root_bounds", "strategy.reduced", "strategy.attack_part", "techniques.phase_search"]
)
@pytest.mark.parametrize("kind", REFUSALS)
def test_memory_that_is_short_anywhere_is_unknown(
    where: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"toolkit.search.{where}", failing({1}, lambda *_: None, kind))
    result = decide(absolute(tmp_path, 3, 0.01), header(3, 1, -0.9) + "(assert (<= Y_0 0.0))", BY_PHASES)
    assert result.verdict == Verdict.UNKNOWN
    assert "memory" in result.reason


@pytest.mark.parametrize("kind", REFUSALS)
@pytest.mark.parametrize("first", [1, 2])
def test_memory_that_is_never_enough_is_unknown(
    first: int, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        phase_frontier, "bound_domains", failing(set(range(first, 100)), phase_frontier.bound_domains, kind)
    )
    result = decide(absolute(tmp_path, 3, 0.01), header(3, 1, -0.9) + "(assert (<= Y_0 0.0))", BY_PHASES)
    assert result.verdict == Verdict.UNKNOWN
    assert "memory" in result.reason


def test_the_limit_on_domains_is_unknown(tmp_path: Path, tune: Callable[..., None]) -> None:
    tune(strategy={"gap_worth_waiting": 2.0})  # however much better bounds bring, no new search
    path, text = hard(tmp_path)
    result = decide(path, text, BY_PHASES.model_copy(update={"max_domains": 1, "beta_iterations": 0}))
    assert result.verdict == Verdict.UNKNOWN
    assert "limit of 1 domains" in result.reason


@pytest.mark.parametrize("strategy", ["relu", "auto"])
def test_where_passes_are_counted_the_machine_s_speed_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    path, text = hard(tmp_path)
    settings = FAST.model_copy(update={"strategy": strategy, "passes": 120, "timeout": 10_000, "batch": 16})
    first = decide(path, text, settings)
    real = time.perf_counter
    monkeypatch.setattr(time, "perf_counter", lambda: 100 * real())  # all takes a hundred times as long
    second = decide(path, text, settings)
    assert first.verdict == second.verdict == Verdict.UNKNOWN
    assert first.reason == second.reason == "limit of 120 bounding passes"
    assert 120 <= first.statistics.passes <= 130
    assert first.statistics.domains > 0
    assert dataclasses.replace(first.statistics, seconds=0) == dataclasses.replace(second.statistics, seconds=0)


def test_a_limit_of_passes_ends_by_time_all_the_same(tmp_path: Path) -> None:
    path, text = hard(tmp_path)
    result = decide(path, text, BY_PHASES.model_copy(update={"passes": 10**9, "timeout": 1.0}))
    assert result.verdict == Verdict.TIMEOUT


def test_observers_hear_of_bounds_and_rounds(tmp_path: Path) -> None:
    events: list[Event] = []
    text = header(3, 1, -0.9) + "(assert (<= Y_0 0.0))"
    result = decide(absolute(tmp_path, 3, 0.01), text, BY_PHASES, events.append)
    assert any(isinstance(event, RootBounded) for event in events)
    rounds = [event for event in events if isinstance(event, RoundDone)]
    assert rounds
    assert rounds[-1].bounded == result.statistics.domains > 0


def test_open_cases_are_explained(tmp_path: Path, tune: Callable[..., None]) -> None:
    tune(strategy={"gap_worth_waiting": 2.0})
    path, text = hard(tmp_path)
    settings = BY_PHASES.model_copy(update={"max_domains": 1, "attack_restarts": 2})
    result = decide(path, text, settings)
    found = result.explanation
    assert found is not None
    assert (found.cases, found.open_cases) == (1, 1)
    assert found.domains == result.statistics.domains > 0
    [case] = found.described
    assert case.condition.startswith("(<= Y_0 ")
    assert case.bound is not None
    assert case.nearest is not None
    # What holds of the query: no point is a counterexample, and a bound is below every value that a point has.
    assert case.bound < 0 < case.nearest
    told = result.statistics
    assert (told.cases, told.open_cases, told.weakest_bound, told.nearest_point) == (1, 1, case.bound, case.nearest)


def test_what_is_decided_needs_no_explanation(tmp_path: Path) -> None:
    result = decide(absolute(tmp_path, 2), header(2, 1) + "(assert (<= Y_0 -1.0))")
    assert result.verdict == Verdict.UNSAT
    assert result.explanation is None
    assert result.statistics.open_cases == 0


def test_the_answer_is_the_same_twice(tmp_path: Path) -> None:
    path, text = absolute(tmp_path, 3, 0.01), header(3, 1, -0.9) + "(assert (<= Y_0 0.0))"
    first, second = (decide(path, text, BY_PHASES) for _ in range(2))
    assert first.statistics.domains == second.statistics.domains
    assert first.verdict == second.verdict


def test_files_are_enough(tmp_path: Path) -> None:
    spec = tmp_path / "query.vnnlib"
    spec.write_text(header(2, 1) + "(assert (<= Y_0 -1.0))")
    assert verify_files({"": absolute(tmp_path, 2)}, spec, FAST).verdict == Verdict.UNSAT


@pytest.mark.parametrize("strategy", ["relu", "input"])
def test_a_tensor_without_elements_is_no_obstacle(strategy: str, tmp_path: Path) -> None:
    """A ReLU that no value reaches, as some tools leave it in a file, beside ``|x| + 0.01`` of one input."""
    builder = NetworkBuilder(np.random.default_rng(0), (1, 1))
    both = builder.op("MatMul", "x", builder.constant(np.array([[1.0, -1.0]])))
    nothing = builder.op("Gather", both, builder.constant(np.zeros(0, dtype=np.int64)), axis=1)
    joined = builder.op("Concat", builder.op("Relu", nothing), builder.op("Relu", both), axis=1)
    weights, offset = builder.constant(np.ones((1, 2))), builder.constant(np.array([0.01]))
    path = save(builder.model(builder.op("Gemm", joined, weights, offset, transB=1), 1), tmp_path)
    settings = BY_PHASES.model_copy(update={"strategy": strategy})
    assert decide(path, header(1, 1) + "(assert (<= Y_0 0.0))", settings).verdict == Verdict.UNSAT
    assert decide(path, header(1, 1) + "(assert (<= Y_0 0.02))", settings).verdict == Verdict.SAT


def test_a_query_about_another_network_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        decide(absolute(tmp_path, 2), header(3, 1) + "(assert (<= Y_0 -1.0))")


def test_devices() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_statistics_of_two_parts_are_joined() -> None:
    first = Statistics(domains=3, depth=2, layers={"a": {"neurons": 5, "interval": 2}})
    second = Statistics(domains=4, depth=1, layers={"a": {"interval": 3, "crown": 1}, "b": {"interval": 1}})
    both = first.plus(second)
    assert (both.domains, both.depth) == (7, 2)
    assert both.layers == {"a": {"neurons": 5, "interval": 3, "crown": 1}, "b": {"interval": 1}}


def test_a_scalar_inside_is_compared_with_what_onnxruntime_computes(tmp_path: Path) -> None:
    text = "main (float[1,2] x) => (float y) { s = ReduceSum<keepdims = 0>(x) y = Ceil(s) }"
    path, unreached = save_text(tmp_path / "net.onnx", text), header(2, 1) + "(assert (>= Y_0 3.5))"
    assert decide(path, unreached).verdict is Verdict.UNSAT


def test_a_constant_inside_is_compared_with_all_of_its_digits(tmp_path: Path) -> None:
    """Of one output a softmax is one, so that nothing here depends on the input."""
    text = "main (double[1,1] x) => (double[1,1] y) { s = Softmax<axis = 1>(x) y = Mul(s, c) }"
    path = save_text(tmp_path / "net.onnx", text, c=np.array([0.1]))
    assert decide(path, header(1, 1) + "(assert (>= Y_0 0.2))").verdict is Verdict.UNSAT


def test_gpus_may_not_round_factors_while_bounds_are_taken(tmp_path: Path) -> None:
    backends = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before, seen = [backend.allow_tf32 for backend in backends], list[list[bool]]()

    def look(event: Event) -> None:
        if not isinstance(event, PhaseBegun):  # points are tried before
            seen.append([backend.allow_tf32 for backend in backends])

    text = header(3, 1) + "(assert (<= Y_0 0.0))"
    try:
        torch.backends.cudnn.allow_tf32 = True
        decide(absolute(tmp_path, 3, 0.01), text, FAST, look)
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32 = before[0]
    assert seen
    assert seen == [[False, False]] * len(seen)
    assert [backend.allow_tf32 for backend in backends] == before


def test_where_no_certificate_is_written_nothing_is_certified(tmp_path: Path) -> None:
    path, text = absolute(tmp_path), header(1, 1) + "(assert (<= Y_0 -0.5))"
    assert decide(path, text).verdict is Verdict.UNSAT
    found = decide(path, text, FAST.changed({"certified": True}))
    assert (found.verdict, found.reason) == (Verdict.UNKNOWN, toolkit.verify.WITHOUT_CERTIFICATE)
