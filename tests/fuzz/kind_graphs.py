"""Kinds about whole verifications of random ONNX graphs: what is compiled is what is written, and verdicts are true."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import torch
from choices import Choices
from graphs import RandomGraph, random_graph
from kind_programs import small_zonotopes
from kind_searches import random_settings
from kinds import Unsuited, Wrong, kind
from random_queries import QueryCase, query_text
from scenes import Array, random_box, random_points

from toolkit import verify as verifier
from toolkit.attack.gradient_attack import forward
from toolkit.bounds.interval import Bounds, interval_bounds
from toolkit.errors import ToolkitError, UnsupportedError
from toolkit.formats.onnx.model_file import load_model
from toolkit.formats.vnnlib.read import parse_query
from toolkit.problem.compile import compile_problem
from toolkit.problem.program import Program
from toolkit.quick_proof import quick_proof
from toolkit.result import Result, Verdict
from toolkit.run.clock import Clock
from toolkit.settings import Settings
from toolkit.tuning import tuned, using
from toolkit.verify import LoadedNetwork, decide, load_query

CLOSENESS = 1e-5
"""Of the compiled network to the truth, relative to the largest output: constants are written in single precision."""

SINGLE = {"widest_double": 0, "most_double_cost": 0}
"""Limits below which no program is bounded in double precision."""


def load(model: onnx.ModelProto) -> LoadedNetwork:
    """A model as it is loaded from a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        onnx.save(model, path)
        return LoadedNetwork(load_model(path))


def random_case(choices: Choices, lower: Array, upper: Array, outputs: int, inputs: int) -> QueryCase:
    """One or two atoms over the outputs, now and then over inputs too."""
    count = choices.between(1, 2)
    on_y = np.array([choices.of((1.0, -1.0, 0.5, 0.0, -2.0)) for _ in range(count * outputs)]).reshape(count, outputs)
    mixed = choices.chance(0.15)
    on_x = np.array([choices.of((0.0, 1.0, -0.5)) if mixed else 0.0 for _ in range(count * inputs)])
    return QueryCase(lower, upper, on_x.reshape(count, inputs), on_y, np.zeros(count))


def compiled_alike(network: LoadedNetwork, query: Any, graph: RandomGraph, points: Array, truth: Array) -> int:
    """Judge the compiled program at points; nothing where it is unsupported, or rounds."""
    if graph.rounded:
        return 0
    try:
        problem = compile_problem(query, {query.networks[0].name: network.binding})
    except UnsupportedError:
        return 0
    used = problem.program.features.size - graph.outputs
    found = forward(problem.program, torch.as_tensor(points)).numpy()[:, max(0, used) :]
    scale = 1 + np.abs(truth).max()
    if found.shape == truth.shape and not (np.abs(found - truth) <= CLOSENESS * scale).all():
        at = int(np.abs(found - truth).max(1).argmax())
        raise Wrong(
            "compiled program",
            f"{found[at].tolist()}, the truth is {truth[at].tolist()} at {points[at].tolist()}: "
            f"{' '.join(node.op_type for node in graph.model.graph.node)}",
        )
    return len(points) + in_single_precision(problem.program, torch.as_tensor(points))


def in_single_precision(program: Program, points: torch.Tensor) -> int:
    """Judge the intervals of points in single precision: the values in double precision lie in them."""
    values, box = forward(program, points), Bounds(points.float(), points.float())
    neurons, features = interval_bounds(program.to(torch.device("cpu"), torch.float32), box)
    rounding = 1e-12 * (1 + values.abs().sum(1, keepdim=True))
    if not bool((neurons.lower <= neurons.upper).all()):
        raise Wrong("crossed intervals", f"of neurons, at {points.tolist()}")
    if not bool(((features.lower <= values + rounding) & (values - rounding <= features.upper)).all()):
        raise Wrong("intervals of points", f"{values.tolist()} are not in {features}")
    return len(points)


def judge_verdict(result: Result, case: QueryCase, witness: Array | None, truth_at: Any, room: float = 1e-3) -> int:
    """Judge a verdict, given a point that is a witness for certain, or none.

    A counterexample holds in the replay's arithmetic, and in the truth but for a rounding error of such a share.
    """
    if result.verdict == Verdict.UNSAT and witness is not None:
        raise Wrong(f"unsat by {result.statistics.decided_by}", f"there is a witness at {witness.tolist()}")
    if result.verdict == Verdict.SAT and result.witness is not None:
        point = result.witness.inputs[None]
        replayed = case.worst(point, np.float64(result.witness.values[-1]).reshape(1, -1))[0]
        truth = truth_at(point)
        worst, scale = case.worst(point, truth)[0], 1 + np.abs(truth).max()
        outside = np.maximum(case.lower - point[0], point[0] - case.upper).max()
        if worst > room * scale or replayed > 1e-6 * scale or outside > 1e-6 * (1 + np.abs(point).max()):
            raise Wrong("sat", f"the largest atom is {worst}, {replayed} in the replay, at {point[0].tolist()}, "
                               f"{outside} outside")  # fmt: skip
    return 1


def with_threshold(choices: Choices, case: QueryCase, points: Array, truth: Array) -> tuple[QueryCase, Array | None]:
    """The case moved so that the best of some points is a witness, by a margin, or so that it is none."""
    worst = case.worst(points, truth)
    best = int(worst.argmin())
    margin = choices.of((1e-3, 1e-6, 0.1, -1e-2, -0.3)) * (1 + np.abs(truth[best]).max())
    return case.shifted(-margin - worst[best]), points[best] if margin > 0 else None


def answered(choices: Choices, network: LoadedNetwork, query: Any) -> Result:
    """The verdict with settings and limits at random."""
    with ExitStack() as stack:
        settings = without_attacks(choices, stack, random_settings(choices))
        if choices.chance(0.3):
            stack.enter_context(small_zonotopes(choices))
            stack.enter_context(using(tuned().changed(roots={"forward_neurons_per_input": 0})))
        if choices.chance(0.3):  # single precision, as of wide networks
            stack.enter_context(using(tuned().changed(precision=SINGLE)))
        return decide(load_query({"": network}, query), settings, Clock.started(settings.timeout))


def without_attacks(choices: Choices, stack: ExitStack, settings: Settings) -> Settings:
    """Mostly no search for witnesses comes before the bounds, so that a wrong proof is not hidden by one."""
    if choices.chance(0.3):
        return settings
    for name in ("sample", "follow_secants"):
        stack.enter_context(mock.patch.object(verifier, name, lambda *arguments: False))
    return settings.model_copy(update={"attack_restarts": 0})


def limits(choices: Choices, stack: ExitStack) -> None:
    """Operators themselves in place of matrices, now and then."""
    if choices.chance(0.2):
        operators = {"most_dense_elements": 0, "most_dense_convolution_elements": 0}
        stack.enter_context(using(tuned().changed(problem=operators)))


def judge_graph(choices: Choices, graph: RandomGraph) -> int:
    """Compile a graph and put a few queries about it."""
    network = load(graph.model)
    judged = 0
    with ExitStack() as stack:
        limits(choices, stack)
        for _ in range(choices.between(1, 3)):
            lower, upper = random_box(choices, graph.inputs)
            points = np.float64(np.float32(random_points(choices, lower, upper, 10)))
            truth = graph.values(points)
            case = random_case(choices, lower, upper, graph.outputs, graph.inputs)
            case, witness = with_threshold(choices, case, points, truth)
            query = parse_query(query_text([case]))
            if case.on_y.any():  # else the program has no outputs
                judged += compiled_alike(network, query, graph, points, truth)
            judged += judge_verdict(answered(choices, network, query), case, witness, graph.values)
            judged += judge_light(choices, network, query, witness)
    return judged


def judge_light(choices: Choices, network: LoadedNetwork, query: Any, witness: Array | None) -> int:
    """Judge the proofs that need no torch."""
    posed = load_query({"": network}, query)
    if not len(posed.cases):
        return 0
    found = quick_proof(posed.query, posed.cases, network.model, Clock.started(0.05)) is not None
    if found and witness is not None:
        raise Wrong("light proof", f"there is a witness at {witness.tolist()}")
    return 1


def tried(choices: Choices, graph: RandomGraph) -> int:
    """As `judge_graph`; a graph that is refused is no case."""
    try:
        return judge_graph(choices, graph)
    except ToolkitError:
        raise Unsuited from None


@kind(share=4)
def graphs(choices: Choices) -> int:
    """Random ONNX graphs of affine and piecewise-linear operators: the compiled program, and verdicts."""
    return tried(choices, random_graph(choices, False, choices.of(("float32", "float64"))))


@kind(share=2)
def smooth_graphs(choices: Choices) -> int:
    """Random ONNX graphs with smooth operators, products and normalisations: the compiled program, and verdicts."""
    return tried(choices, random_graph(choices, True))
