"""Readers and judges of proofs in other formats, which share nothing with what writes them.

A tree of activation patterns is judged as its own checker does: all patterns are covered, and a mixed-integer program
about each leaf has no counterexample. With ``whole=False`` the program is relaxed to a linear one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from scipy.optimize import Bounds, LinearConstraint, milp

Vector = NDArray[np.float64]
Layers = list[tuple[Vector, Vector]]
"""Weights ``(out, in)`` and biases; a ReLU stands between each two."""


def dense_model(
    layers: Layers, first: Sequence[NodeProto | TensorProto] = (), inputs: tuple[int, ...] | None = None
) -> ModelProto:
    """A network of layers as an ONNX model; ``first`` are nodes and constants in place of the first layer, for inputs
    of another shape."""
    nodes = [part for part in first if isinstance(part, NodeProto)]
    constants = [part for part in first if isinstance(part, TensorProto)]
    for number, (weight, bias) in enumerate(layers):
        x, y = f"a{number - 1}" if number else "x", f"z{number}" if number < len(layers) - 1 else "y"
        if number or not first:
            parts = {f"w{number}": weight, f"b{number}": bias}
            constants += [numpy_helper.from_array(part.astype(np.float32), name) for name, part in parts.items()]
            nodes.append(helper.make_node("Gemm", [x, *parts], [y], transB=1))
        if y != "y":
            nodes.append(helper.make_node("Relu", [y], [f"a{number}"]))
    shapes = {"x": inputs or (1, layers[0][0].shape[1]), "y": (1, len(layers[-1][1]))}
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)] for name, shape in shapes.items()]
    graph = helper.make_graph(nodes, "layers", *ends, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])


def outputs(layers: Layers, x: Vector) -> Vector:
    """Outputs ``(B, n)`` at points ``(B, inputs)``."""
    for number, (weight, bias) in enumerate(layers):
        x = (np.maximum(x, 0) if number else x) @ weight.T + bias
    return x


@dataclass
class PatternProof:
    """What a file of activation patterns says: ``row . outputs <= end`` has no point in the box."""

    box: Vector
    """Ends, ``(inputs, 2)``."""
    row: Vector
    end: float
    neurons: int
    leaves: list[tuple[int, ...]]


NUMBER = r"-?\d+\.\d+"


def read_patterns(text: str) -> PatternProof:
    """Read the text by the grammar of the format, all of it."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith(";")]
    counts = {"X": 0, "Y": 0, "N": 0}
    found, ends, leaves, objectives = [], dict[tuple[int, str], float](), list[tuple[int, ...]](), list[re.Match[str]]()
    for line in lines:
        if declared := re.fullmatch(r"\(declare-(?:const ([XY])_(\d+) Real|pwl (N)_(\d+) ReLU)\)", line):
            kind, number = (declared[1], declared[2]) if declared[1] else (declared[3], declared[4])
            assert int(number) == counts[kind] + (kind == "N"), "declared in order, inputs and outputs from 0"
            counts[kind] += 1
        elif bound := re.fullmatch(rf"\(assert \((<=|>=) X_(\d+) ({NUMBER})\)\)", line):
            ends[int(bound[2]), bound[1]] = float(bound[3])
        elif compared := re.fullmatch(rf"\(assert \((<=|>=) Y_(\d+) (?:Y_(\d+)|({NUMBER}))\)\)", line):
            objectives.append(compared)
        elif re.fullmatch(r"\(and( \((<|>=) N_\d+ 0\))+\)", line):
            phases = re.findall(r"\((<|>=) N_(\d+) 0\)", line)
            leaves.append(tuple(int(number) if sign == ">=" else -int(number) for sign, number in phases))
        else:
            found.append(line)
    assert found == ["(assert (or", "))"] and len(objectives) == 1, found
    assert all(abs(neuron) <= counts["N"] for leaf in leaves for neuron in leaf)
    [compared], row = objectives, np.zeros(counts["Y"])
    row[int(compared[2])] = 1
    if compared[3]:
        row[int(compared[3])] = -1
    sign = 1 if compared[1] == "<=" else -1
    box = np.array([[ends[i, ">="], ends[i, "<="]] for i in range(counts["X"])])
    return PatternProof(box, sign * row, sign * float(compared[4] or 0), counts["N"], leaves)


def cover(leaves: list[tuple[int, ...]]) -> bool:
    """Whether every pattern of phases has a leaf: the leaves are split at one neuron after the other."""
    if () in leaves:
        return True
    if not leaves:
        return False
    neuron = abs(leaves[0][0])
    return all(
        cover([tuple(p for p in leaf if p != side) for leaf in leaves if -side not in leaf])
        for side in (neuron, -neuron)
    )


class NetworkProgram:
    """A mixed-integer program of a network on a box; ranges of neurons are exact, by programs of their own."""

    def __init__(self, layers: Layers, box: Vector) -> None:
        self.layers, self.box = layers, box
        self.ranges: list[Vector] = []
        for depth in range(len(layers) - 1):
            size = len(layers[depth][1])
            self.ranges.append(
                np.array([[s * self.solve(depth, s * np.eye(size)[i], {}) for s in (1, -1)] for i in range(size)])
            )

    def solve(self, depth: int, row: Vector, phases: dict[tuple[int, int], bool], whole: bool = True) -> float:
        """The least of ``row . (outputs of a layer)``, infinite where there is no point, in doubles of a solver."""
        lower, upper = [self.box[:, 0]], [self.box[:, 1]]
        integral, rows, low, high = [np.zeros(len(self.box))], list[Vector](), list[float](), list[float]()
        before, total = np.arange(len(self.box)), len(self.box) + sum(3 * len(bias) for _, bias in self.layers[:depth])

        def add(terms: dict[int, float], least: float, most: float) -> None:
            line = np.zeros(total)
            for place, factor in terms.items():
                line[place] += factor
            rows.append(line), low.append(least), high.append(most)

        place = len(self.box)
        for layer, (weight, bias) in enumerate(self.layers[:depth]):
            z, a, d = (place + np.arange(len(bias)) + k * len(bias) for k in range(3))
            place += 3 * len(bias)
            ends = self.ranges[layer]
            one = np.array([phases.get((layer, i)) for i in range(len(bias))], object)
            lower += [ends[:, 0] - 1e-9, np.zeros(len(bias)), np.array([float(phase is True) for phase in one])]
            upper += [
                ends[:, 1] + 1e-9,
                np.maximum(ends[:, 1], 0) + 1e-9,
                np.array([float(phase is not False) for phase in one]),
            ]
            integral += [np.zeros(2 * len(bias)), np.full(len(bias), float(whole))]
            for i in range(len(bias)):
                add({int(z[i]): -1.0} | dict(zip(before.tolist(), weight[i].tolist(), strict=True)), -bias[i], -bias[i])
                bottom, top = min(ends[i, 0], 0), max(ends[i, 1], 0)
                add({int(a[i]): 1.0, int(z[i]): -1.0}, 0, np.inf)
                add({int(a[i]): 1.0, int(z[i]): -1.0, int(d[i]): -bottom}, -np.inf, -bottom)
                add({int(a[i]): 1.0, int(d[i]): -top}, -np.inf, 0)
            before = a
        weight, bias = self.layers[depth]
        cost = np.zeros(total)
        cost[before] = row @ weight
        constraints = LinearConstraint(np.array(rows), low, high) if rows else ()
        bounds = Bounds(np.concatenate(lower), np.concatenate(upper))
        found = milp(cost, integrality=np.concatenate(integral), bounds=bounds, constraints=constraints)
        if found.status == 2:
            return np.inf
        assert found.status == 0, found.message
        return float(found.fun + row @ bias)

    def places(self) -> list[tuple[int, int]]:
        """Layer and element of each neuron, one layer after the other."""
        return [(layer, i) for layer, (_, bias) in enumerate(self.layers[:-1]) for i in range(len(bias))]

    def leaf(self, row: Vector, leaf: tuple[int, ...], whole: bool = True) -> float:
        """The least of a function of the outputs where neurons, numbered from 1, have these phases."""
        phases = {self.places()[abs(neuron) - 1]: neuron > 0 for neuron in leaf}
        return self.solve(len(self.layers) - 1, row, phases, whole)


def patterns_prove(proof: PatternProof, layers: Layers, whole: bool = True) -> bool:
    """Whether the leaves cover all patterns and none has a counterexample; relaxed, if not ``whole``."""
    program = NetworkProgram(layers, proof.box)
    assert proof.neurons == len(program.places())
    return cover(proof.leaves) and all(program.leaf(proof.row, leaf, whole) > proof.end for leaf in proof.leaves)


def boxes_cover(document: dict[str, Any]) -> bool:
    """Whether the leaf boxes are inside the root and cover it: between all ends there is a cell, in a leaf or not."""
    root = np.array([document["root"][end] for end in ("lo", "hi")])
    assert root.shape == (2, document["input_dim"])
    lower, upper = (np.array([leaf[end] for leaf in document["leaves"]]) for end in ("lo", "hi"))
    inside = (root[0] <= lower).all() and (lower <= upper).all() and (upper <= root[1]).all()
    cuts = [np.unique(np.concatenate([root[:, i], lower[:, i], upper[:, i]])) for i in range(root.shape[1])]
    middles = np.array(list(product(*[(cut[1:] + cut[:-1]) / 2 if len(cut) > 1 else cut for cut in cuts])))
    within = (lower[None] <= middles[:, None]) & (middles[:, None] <= upper[None])
    return bool(inside and within.all(2).any(1).all())


def boxes_are_bounded(document: dict[str, Any], rows: Vector, constants: Vector, layers: Layers) -> bool:
    """Whether each leaf has true bounds of ``rows . outputs + constants``, the one that it names above 0."""
    for leaf in document["leaves"]:
        witness, bound = leaf["witness_idx"], np.array(leaf["lb"])
        program = NetworkProgram(layers, np.stack([leaf["lo"], leaf["hi"]], 1))
        least = np.array([program.leaf(row, ()) for row in rows]) + constants
        sound = (bound <= least + 1e-7).all() and leaf["witness_margin"] == bound[witness]
        if not (sound and bound[witness] > 0 and leaf["threshold"] == [0] * len(bound)):
            return False
    return True


def boxes_prove(text: str, name: str, rows: Vector, constants: Vector, layers: Layers) -> bool:
    """Whether a file of leaf boxes, in the format of this name, proves that all rows are never at most 0 at once."""
    document = json.loads(text)
    assert set(document) == {"format", "input_dim", "root", "leaves"} and document["format"] == name
    return boxes_cover(document) and boxes_are_bounded(document, rows, constants, layers)
