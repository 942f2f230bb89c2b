"""Before `unsat` is said, what was bounded is compared with onnxruntime: a fault planted at any stage is an error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from random_networks import PIECEWISE_LINEAR, SMOOTH, NetworkBuilder, random_network, save, sizes
from small_models import load_text

import toolkit.batched_queries
import toolkit.verify
from toolkit.agreement.against_onnxruntime import ValueComparison, agreeing, check_agreement
from toolkit.agreement.bounded_programs import BoundedModule, BoundedProgram
from toolkit.batched_queries import bound_together
from toolkit.errors import DisagreementError
from toolkit.formats.onnx.model_file import OnnxModel
from toolkit.formats.onnx.runtime import close
from toolkit.formats.vnnlib.read import parse_query
from toolkit.problem import compile as compiling
from toolkit.problem import program as programs
from toolkit.problem import specialise_cases
from toolkit.problem.affine import DenseAffine
from toolkit.problem.compile import FeatureNetwork, compile_problem, in_double
from toolkit.problem.program import Program
from toolkit.problem.rewrites import REWRITES
from toolkit.problem.specialise_cases import specialised
from toolkit.proof.network import HANDLERS, Computed, NodeView
from toolkit.result import Result, Verdict
from toolkit.run.clock import Clock
from toolkit.search import search_task
from toolkit.settings import Settings
from toolkit.verify import LoadedQuery, load_networks, load_query, verify

SETTINGS = Settings(timeout=30, device="cpu", attack_restarts=2, attack_steps=10, alpha_iterations=3, beta_iterations=3)
Fault = Callable[[Program], Program]


def header(inputs: int, outputs: int) -> str:
    """Declarations, and the box [-1, 1] of all inputs."""
    text = "".join(f"(declare-const X_{i} Real)" for i in range(inputs))
    text += "".join(f"(declare-const Y_{i} Real)" for i in range(outputs))
    return text + "".join(f"(assert (>= X_{i} -1.0))(assert (<= X_{i} 1.0))" for i in range(inputs))


def loaded_of(model: onnx.ModelProto, folder: Path, condition: str = "(<= Y_0 -1000.0)") -> LoadedQuery:
    inputs, outputs = sizes(model)
    return load_query(
        load_networks({"": save(model, folder)}), parse_query(header(inputs, outputs) + f"(assert {condition})")
    )


def decided(model: onnx.ModelProto, folder: Path, condition: str = "(<= Y_0 -1000.0)", **changes: Any) -> Result:
    inputs, outputs = sizes(model)
    query = parse_query(header(inputs, outputs) + f"(assert {condition})")
    return verify(load_networks({"": save(model, folder)}), query, SETTINGS.model_copy(update=changes))


def bounded(loaded: LoadedQuery, dtype: torch.dtype) -> BoundedProgram:
    bindings = {name: network.binding for name, network in loaded.needed.items()}
    (part,) = specialised(compile_problem(loaded.query, bindings, loaded.cases))
    return BoundedProgram(loaded.imported(), part.problem.to(torch.device("cpu"), dtype), part.regions.numpy())


def changed_map(program: Program, change: Callable[[DenseAffine], DenseAffine]) -> Program:
    """The program with the map of its last layer, or of its features, changed."""
    if not program.layers:
        return replace(program, features=change(program.features))
    last = replace(program.layers[-1], affine=change(program.layers[-1].affine))
    return replace(program, layers=(*program.layers[:-1], last))


def other_weight(program: Program) -> Program:
    return changed_map(program, lambda map_: replace(map_, matrices=tuple(m + 0.02 for m in map_.matrices)))


def dropped_bias(program: Program) -> Program:
    return replace(program, features=replace(program.features, bias=torch.zeros_like(program.features.bias)))


def swapped_rows(program: Program) -> Program:
    """The features in another order, as where a buffer is taken for another."""
    features = program.features
    return replace(program, features=replace(
        features, matrices=tuple(m.flip(0) for m in features.matrices), bias=features.bias.flip(0)
    ))  # fmt: skip


def other_operator(program: Program) -> Program:
    """Pre-activations of the first layer with the other sign."""
    first = program.layers[0]
    turned = replace(first.affine, matrices=tuple(-m for m in first.affine.matrices), bias=-first.affine.bias)
    return replace(program, layers=(replace(first, affine=turned), *program.layers[1:]))


FAULTS = (other_weight, dropped_bias, swapped_rows, other_operator)


@pytest.mark.parametrize("name", [*sorted(PIECEWISE_LINEAR), *sorted(SMOOTH)])
def test_faithful_programs_pass_and_faults_do_not(name: str, tmp_path: Path) -> None:
    """Of random networks, in both precisions, with faults drawn at random."""
    caught = 0
    for seed in range(2):
        generator = np.random.default_rng(seed)
        loaded = loaded_of(random_network(name, seed), tmp_path)
        for dtype in (torch.float64, torch.float32):
            good = bounded(loaded, dtype)
            check_agreement(good, loaded.original)
            if not all(isinstance(affine, DenseAffine) for affine in good.problem.program.maps()):
                continue
            fault = FAULTS[int(generator.integers(len(FAULTS)))]
            problem = replace(good.problem, program=fault(good.problem.program))
            found = replace(good, problem=problem).compare(loaded.original.sample(good.regions, 12), loaded.original)
            if np.abs(found.value - found.reference).max() < 1e-3:
                continue  # where a neuron is dead on all points, a fault of its weights is none of the values
            caught += 1
            with pytest.raises(DisagreementError):
                check_agreement(replace(good, problem=problem), loaded.original)
    assert caught


def net(generator_seed: int = 0) -> onnx.ModelProto:
    """Four inputs, two hidden layers, three outputs."""
    builder = NetworkBuilder(np.random.default_rng(generator_seed), (1, 4))
    x = builder.op("Relu", builder.dense("x", 4, 6))
    return builder.model(builder.dense(builder.op("Relu", builder.dense(x, 6, 5)), 5, 3), 3)


def spoilt(function: Callable[..., Any], fault: Fault) -> Callable[..., Any]:
    return lambda *args, **kwargs: fault(function(*args, **kwargs))


STAGES: dict[str, tuple[Any, str]] = {
    "compiled": (compiling, "build_program"),
    "merged": (specialise_cases, "merge_neurons"),
    "specialised": (specialise_cases, "substitute"),
    "moved to its device": (Program, "to"),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_compilation_is_an_error(
    stage: str, fault: Fault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert decided(net(), tmp_path).verdict == Verdict.UNSAT
    monkeypatch.setattr(*STAGES[stage], spoilt(getattr(*STAGES[stage]), fault))
    result = decided(net(), tmp_path)
    assert result.verdict == Verdict.ERROR
    assert ("of Y" in result.reason and "where onnxruntime says" in result.reason) or "the layer" in result.reason


def flat(operator: str) -> onnx.ModelProto:
    """A network whose output is 0 almost everywhere, whatever is inside: relu(... - 1000)."""
    builder = NetworkBuilder(np.random.default_rng(5), (1, 4))
    hidden = builder.dense("x", 4, 6)
    bounds = [builder.constant(np.array(value)) for value in (-0.25, 0.5)] if operator == "Clip" else []
    x = builder.dense(builder.op(operator, hidden, *bounds), 6, 3)
    return builder.model(builder.op("Relu", builder.op("Sub", x, builder.constant(np.array(1000.0)))), 3)


@pytest.mark.parametrize("operator", ["Clip", "LeakyRelu", "Abs"])
def test_a_wrong_rewrite_is_an_error_where_outputs_are_flat(
    operator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert decided(flat(operator), tmp_path, "(>= Y_0 1.0)").verdict == Verdict.UNSAT
    for name, rewrite in list(REWRITES.items()):
        if any(word in str(name) for word in ("clamp", "hardtanh", "leaky", "abs")):
            wrong = replace(rewrite, function=lambda *args, f=rewrite.function, **kwargs: f(*args, **kwargs) + 0.25)
            monkeypatch.setitem(REWRITES, name, wrong)
    result = decided(flat(operator), tmp_path, "(>= Y_0 1.0)")
    assert result.verdict == Verdict.ERROR
    assert "the tensor 't" in result.reason


def test_a_wrong_map_is_an_error_where_outputs_are_flat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert decided(flat("Relu"), tmp_path, "(>= Y_0 1.0)").verdict == Verdict.UNSAT
    made = programs.compact
    monkeypatch.setattr(programs, "compact", lambda graph: replace(made(graph), bias=made(graph).bias + 0.25))
    result = decided(flat("Relu"), tmp_path, "(>= Y_0 1.0)")
    assert result.verdict == Verdict.ERROR
    assert "what feeds the layer" in result.reason


def test_a_survey_tells_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    networks, spec = load_networks({"": save(net(), tmp_path)}), tmp_path / "query.vnnlib"
    spec.write_text(header(4, 3) + "(assert (<= Y_0 -1000.0))")
    for expected in (Verdict.UNSAT, Verdict.ERROR):
        result, *_ = bound_together(networks, [spec] * 20, SETTINGS, Clock.started(60))  # many have more time
        assert isinstance(result, Result)
        assert result.verdict == expected
        networks = load_networks({"": save(net(), tmp_path)})
        monkeypatch.setattr(compiling, "build_program", spoilt(compiling.build_program, other_weight))


def narrow_condition(loaded: LoadedQuery) -> str:
    """A condition that root bounds leave open and that no point of a fine sample fulfils."""
    samples = loaded.original.sample(np.array([0]), 2000)
    return f"(<= Y_0 {samples.variables[:, 4].min() - 0.25:.6f})"


@pytest.mark.parametrize("function", ["reduce_program", "with_sparse_maps", "with_stacks"])
def test_a_fault_of_a_smaller_program_is_an_error(
    function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    condition = narrow_condition(loaded_of(net(), tmp_path))
    settings = {"strategy": "relu", "attack_restarts": 0, "alpha_iterations": 0}
    assert decided(net(), tmp_path, condition, **settings).verdict == Verdict.UNSAT
    made = getattr(search_task, function)

    def wrong(*args: Any, **kwargs: Any) -> Any:
        result = made(*args, **kwargs)
        return (
            replace(result, program=other_weight(result.program)) if hasattr(result, "inputs") else other_weight(result)
        )

    monkeypatch.setattr(search_task, function, wrong)
    result = decided(net(), tmp_path, condition, **settings)
    assert result.verdict == Verdict.ERROR
    assert "is not the network that it was made of" in result.reason


def test_a_wrong_transpose_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DenseAffine, "transpose", lambda self, rows: [rows @ (m + 0.01) for m in self.matrices])
    result = decided(net(), tmp_path)
    assert result.verdict == Verdict.ERROR
    assert "transpose" in result.reason


@pytest.mark.parametrize("function", ["_atom_matrix", "_padded"])
def test_a_fault_of_the_question_is_an_error(function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    condition = "(or (and (<= Y_0 -1000.0) (<= Y_1 -1000.0)) (<= Y_2 -1000.0))"
    made = getattr(compiling, function)
    monkeypatch.setattr(compiling, function, lambda cases: np.roll(made(cases), 1, 0))
    result = decided(net(), tmp_path, condition)
    assert result.verdict == Verdict.ERROR
    assert "of the specification" in result.reason


def test_a_box_that_is_too_small_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "outward", lambda lower, upper, dtype: (lower.to(dtype) + 0.5, upper.to(dtype)))
    result = decided(net(), tmp_path)
    assert result.verdict == Verdict.ERROR
    assert "boxes" in result.reason


def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has not imported torch yet."""
    monkeypatch.setattr(toolkit.verify, "sys", SimpleNamespace(modules={}))


@pytest.mark.parametrize("operator", ["Relu", "Gemm", "Add", "MatMul"])
def test_what_is_read_wrongly_without_torch_is_an_error(
    operator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_torch(monkeypatch)
    builder = NetworkBuilder(np.random.default_rng(0), (1, 4))
    hidden = builder.op("Gemm", "x", builder.normal(4, 6), builder.normal(6))
    product = builder.op("MatMul", builder.op("Relu", hidden), builder.normal(6, 3))
    model = builder.model(builder.op("Add", product, builder.normal(3)), 3)
    right = decided(model, tmp_path)
    assert (right.verdict, right.statistics.decided_by) == (Verdict.UNSAT, "light-crown")
    rule = HANDLERS[operator]

    def wrong(node: NodeView) -> Computed:
        """Nine tenths of what the operator gives."""
        found = rule(node)
        assert isinstance(found, Computed)
        return node.reader.scaled(found, 0.9)

    monkeypatch.setitem(HANDLERS, operator, wrong)
    result = decided(model, tmp_path)
    assert (result.verdict, result.statistics.decided_by) == (Verdict.ERROR, "light-crown")
    assert "where onnxruntime says" in result.reason


@pytest.mark.parametrize("light", [True, False])
@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax"])
def test_scores_of_another_tensor_are_an_error(
    operator: str, light: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first output is by far the largest, with what is added last and without it."""
    if light:
        without_torch(monkeypatch)
    builder = NetworkBuilder(np.random.default_rng(3), (1, 4))
    raw = builder.op("Gemm", "x", builder.normal(4, 3, scale=0.2), builder.constant(np.array([6.0, 0.0, 0.0])))
    scores = builder.op("Add", raw, builder.constant(np.array([0.0, 3.0, 0.0])))
    model = builder.model(builder.op(operator, scores), 3)
    condition, strip = "(<= Y_0 Y_1)", toolkit.verify.without_softmax
    assert decided(model, tmp_path, condition).verdict == Verdict.UNSAT

    def other(model: OnnxModel) -> OnnxModel | None:
        """The tensor before what goes into the softmax."""
        found = strip(model)
        assert found is not None
        found.proto.graph.output[0].name = raw
        return replace(found, data=found.proto.SerializeToString(), outputs=(replace(found.outputs[0], name=raw),))

    monkeypatch.setattr(toolkit.verify, "without_softmax", other)
    result = decided(model, tmp_path, condition)
    assert result.verdict == Verdict.ERROR
    assert "softmax" in result.reason


def test_a_module_for_the_second_backend_is_judged_too(tmp_path: Path) -> None:
    loaded = loaded_of(net(), tmp_path)
    bindings = {name: network.binding for name, network in loaded.needed.items()}
    features = FeatureNetwork(loaded.query, in_double(bindings, torch.device("cpu")), loaded.cases)
    judged = BoundedModule(loaded.imported(), features, np.arange(1))
    check_agreement(judged, loaded.original)
    next(buffer for buffer in (*features.parameters(), *features.buffers()) if buffer.is_floating_point()).data += 0.02
    with pytest.raises(DisagreementError, match="where onnxruntime says"):
        check_agreement(judged, loaded.original)


def test_no_other_code_says_unsat() -> None:
    """`LoadedQuery.refuted` is the only place of the package where such a result is made."""
    root = Path(toolkit.verify.__file__).parent
    found = [path.name for path in root.rglob("*.py") for line in path.read_text().splitlines()
             if "Result(Verdict.UNSAT" in line]  # fmt: skip
    assert found == ["verify.py"]


@pytest.mark.parametrize("exponent", [12, 18, 24])
def test_what_single_precision_absorbs_is_explained_by_the_sums_that_absorb_it(tmp_path: Path, exponent: int) -> None:
    """relu(x + c) - c is x for real numbers, and a multiple of the last place of c for onnxruntime."""
    body = f"c = Constant<value = float[1] {{{2.0**exponent}}}>()  a = Add(x, c)  r = Relu(a)  y = Sub(r, c)"
    model = load_text(tmp_path / "absorb.onnx", f"main (float[1,1] x) => (float[1,1] y) {{ {body} }}")
    text = """(vnnlib-version <2.0>) (declare-network N (declare-input X real [1,1]) (declare-output Y real [1,1]))
        (assert (and (>= X[0,0] 0.00001) (<= X[0,0] 0.0001))) (assert (<= Y[0,0] 0.0))"""
    assert verify(load_networks({"N": model.path}), parse_query(text), SETTINGS).verdict == Verdict.UNSAT


def test_a_random_network_is_unknown_and_no_fault(tmp_path: Path) -> None:
    body = """ratio = Constant<value = float {0.5}>()  training = Constant<value = bool {1}>()
        d = Dropout(x, ratio, training)  r = Relu(d)  y = Add(r, x)"""
    model = load_text(tmp_path / "net.onnx", f"main (float[1,2] x) => (float[1,2] y) {{ {body} }}")
    declared = "".join(f"(declare-const {name}_{i} Real)" for name in "XY" for i in (0, 1))
    box = "".join(f"(assert (>= X_{i} 0.5))(assert (<= X_{i} 1.0))" for i in (0, 1))
    found = verify(load_networks({"": model.path}), parse_query(f"{declared}{box}(assert (<= Y_0 -1.0))"), SETTINGS)
    assert found.verdict == Verdict.UNKNOWN
    assert "random" in found.reason or "training" in found.reason


def test_a_network_that_only_moves_its_inputs_has_nothing_inside_to_compare(tmp_path: Path) -> None:
    """Beside another network, so that the question is not decided without bounding a program."""
    identity = load_text(tmp_path / "identity.onnx", "main (float[1,2] x) => (float[1,2] y) { y = Identity(x) }")
    declared = """(vnnlib-version <2.0>) (declare-network f (declare-input X float32 [1,2])
        (declare-output Y float32 [1,2])) (declare-network g (equal-to f) (declare-input U float32 [1,2])
        (declare-output V float32 [1,2]))"""
    box = "".join(f"(assert (and (>= {v}[0,{i}] -1.0) (<= {v}[0,{i}] 1.0)))" for v in "XU" for i in (0, 1))
    query = parse_query(f"{declared} {box} (assert (>= Y[0,0] (+ V[0,1] 2.5)))")
    networks = load_networks({"f": identity.path, "g": identity.path})
    assert verify(networks, query, SETTINGS.model_copy(update={"real_semantics": True})).verdict == Verdict.UNSAT


def test_what_cancels_between_operators_is_explained_by_rounding(tmp_path: Path) -> None:
    """(x + 4096 j) - 4096 j is x for the program, which sees one map, and loses digits for onnxruntime."""
    builder = NetworkBuilder(np.random.default_rng(0), (1, 4))
    large = builder.constant(4096.0 * np.arange(1, 5).reshape(1, 4))
    same = builder.op(
        "Sub", builder.op("Add", builder.op("Mul", "x", builder.constant(np.full(4, 1e-3))), large), large
    )
    loaded = loaded_of(builder.model(builder.op("Relu", same), 4), tmp_path)
    judged = bounded(loaded, torch.float64)
    samples = loaded.original.sample(judged.regions, 12)
    found = judged.compare(samples, loaded.original)
    assert not found.within(found.tolerance, 1e30).all(), "the first look knows nothing of what cancelled"
    check_agreement(judged, loaded.original)


@pytest.mark.parametrize(
    ("value", "reference", "same"),
    [
        (np.inf, np.inf, True), (np.inf, -np.inf, False), (np.nan, np.nan, True), (np.nan, 1.0, False),
        (1.0, np.nan, False), (1.0, np.inf, False), (3.5e38, np.inf, True), (-3.5e38, np.inf, False),
        (1.0, 1.0 + 1e-9, True), (1.0, 1.1, False), (np.inf, 1.0, False),
    ],
)  # fmt: skip
def test_infinities_and_nan_agree_with_themselves_alone(value: float, reference: float, same: bool) -> None:
    found = ValueComparison(np.array([[value]]), np.array([[1e-6]]), np.array([[reference]]))
    assert bool(found.within(found.tolerance, 3.4e38).all()) is same


@pytest.mark.parametrize(
    ("values", "jumps", "agrees"),
    [
        ([1.0, 3.0], True, True),  # a step that the tolerance explains, and a sample that is none
        ([1.0, 3.0], False, False),
        ([2.5, 3.0], True, False),  # nothing but steps
        ([1.0, 3.5], True, False),  # more than a step
        ([1.0, np.nan], True, False),
    ],
)
def test_a_step_is_explained_next_to_its_end_where_another_sample_agrees(
    values: list[float], jumps: bool, agrees: bool
) -> None:
    value, reference = np.array([values]).T, np.array([[1.0, 2.0]]).T
    found = ValueComparison(value, np.array([[1e-6 if values[0] == 1 else 2.0], [1.0]]), reference, jumps)
    assert agreeing(found, np.inf, lambda: np.array([2.0, 2.0])).all() == agrees


def test_close_accepts_nothing_beside_infinity() -> None:
    reference = np.array([np.inf, 1.0, 2.0])
    assert close(np.array([np.inf, 1.0, 2.0]), reference)
    assert not close(np.array([np.inf, 7.0, 2.0]), reference)
    assert not close(np.array([-np.inf, 1.0, 2.0]), reference)
    assert not close(np.array([np.nan, 1.0, 2.0]), reference)
    assert close(np.array([np.nan, 1.0]), np.array([np.nan, 1.0]))
    assert not close(np.array([1.0, 2.0]), np.array([[1.0, 2.0]]))


def test_quotients_agree_wherever_the_boxes_of_later_queries_are(tmp_path: Path) -> None:
    """The program of a network is traced in one query's box, and the units of its products are of that magnitude."""
    path = tmp_path / "net.onnx"
    load_text(path, "main (float[1,2] x) => (float[1,2] y) { n = ReduceL2<axes = [1]>(x) y = Div(x, n) }")
    networks = load_networks({"": path})
    for least in (1.0, 40.0):
        box = "".join(f"(assert (>= X_{i} {least}))(assert (<= X_{i} {1.01 * least}))" for i in range(2))
        names = "".join(f"(declare-const {name} Real)" for name in ("X_0", "X_1", "Y_0", "Y_1"))
        result = verify(networks, parse_query(f"{names}{box}(assert (<= Y_0 0.5))"), SETTINGS)
        assert (result.verdict, result.reason) == (Verdict.UNSAT, "")
        assert result.statistics.decided_by != "light-crown"
        for network in networks.values():
            network.binding.inspected.clear()


@pytest.mark.parametrize("operator", ["Pow", "Softmax"])
def test_an_output_that_no_input_reaches_is_compared(operator: str, tmp_path: Path) -> None:
    """The power 0, and the softmax over an axis of one element, are 1 whatever their operand is."""
    builder = NetworkBuilder(np.random.default_rng(0), (1, 3))
    hidden = builder.dense("x", 3, 3)
    zero = builder.constant(np.zeros(()))
    ones = builder.op("Pow", hidden, zero) if operator == "Pow" else builder.op("Softmax", hidden, axis=0)
    assert decided(builder.model(ones, 3), tmp_path, "(>= Y_0 1.5)").verdict is Verdict.UNSAT
    assert decided(builder.model(ones, 3), tmp_path, "(>= Y_0 0.5)").verdict is Verdict.SAT


def test_tensors_that_onnxruntime_does_not_return_are_left_out(tmp_path: Path) -> None:
    builder = NetworkBuilder(np.random.default_rng(0), (1, 3))
    rounded = builder.op("Cast", builder.dense("x", 3, 3), to=onnx.TensorProto.BFLOAT16)
    result = builder.op("Relu", builder.op("Cast", rounded, to=onnx.TensorProto.FLOAT))
    assert decided(builder.model(result, 3), tmp_path, "(<= Y_0 -0.5)").verdict is Verdict.UNSAT


def test_a_product_that_vanishes_in_the_type_of_the_network_is_no_fault(tmp_path: Path) -> None:
    """The values are too small for single precision, and zero in onnxruntime."""
    builder = NetworkBuilder(np.random.default_rng(0), (1, 2))
    small = builder.constant(np.full((2, 2), 1e-30))
    result = builder.op("MatMul", builder.op("Relu", builder.op("MatMul", "x", small)), small)
    assert decided(builder.model(result, 2), tmp_path, "(>= Y_0 1.0)").verdict is Verdict.UNSAT
