"""Witnesses of small ReLU networks by mixed-integer programming (Tjeng et al. 2019), by HiGHS in scipy.

Attacks follow gradients, which say nothing where a query is a formula in disguise: all inputs have to be right at once.
A mixed-integer program of the same query, one binary a neuron that is unstable at the root, is solved by presolve,
implied bounds and cuts instead. What comes out is a candidate: its phases are fixed, the largest atom is minimised in
their polytope, and the point is replayed like any other. That HiGHS finds no point proves nothing here.

On a network of a 3-SAT formula with 30 variables, 125 clauses and an assignment that satisfies them, it took 0.8 s of
processor time to a witness, branch and bound 2.0 s.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from toolkit.bounds.interval import Bounds, unstable_neurons
from toolkit.problem.affine import Affine, DenseAffine, in_numpy
from toolkit.problem.compile import Problem
from toolkit.problem.program import INPUT, Program
from toolkit.run.clock import Clock, OutOfTime
from toolkit.search.root import RootBounds, open_cases
from toolkit.search.search_task import SearchResult, SearchTask
from toolkit.tuning import tuned

Array = NDArray[np.float64]


def is_small_relu_network(program: Program, unstable: int) -> bool:
    """Whether a network has only ReLUs, matrices with few elements in all, and at least one unstable neuron."""
    maps = program.maps()
    dense = all(isinstance(affine, DenseAffine) for affine in maps)
    relus = all(layer.op == "relu" for layer in program.layers)
    return dense and relus and unstable > 0 and sum(map(_elements, maps)) <= tuned().mixed_integer.most_elements


def _elements(affine: Affine) -> int:
    return sum(matrix.numel() for matrix in affine.matrices) if isinstance(affine, DenseAffine) else 0


def by_mixed_integers(task: SearchTask, root: RootBounds) -> SearchResult:
    """Look for a witness of the weakest cases for a while.

    Raises OutOfTime where there is none: that says nothing, and others have their turn.
    """
    cases = open_cases(root)
    cases = cases[root.lower[cases].nan_to_num(-torch.inf).argsort()[: tuned().mixed_integer.most_cases]]
    clock = task.clock.soon(tuned().mixed_integer.seconds)
    for number, case in enumerate(cases.tolist()):
        task.clock.check()
        point = candidate(task.problem, root.bounds, case, clock.part(1 / (len(cases) - number)))
        if point is not None and task.accept(point, int(task.problem.region[case])):
            return SearchResult(True, False, "mixed-integer")
    raise OutOfTime


def candidate(problem: Problem, bounds: Bounds, case: int, clock: Clock) -> torch.Tensor | None:
    """A point of a case's box, ``(n,)``, that HiGHS takes for a witness; None where it finds none in time."""
    region = int(problem.region[case])
    lower, upper = problem.lower[region], problem.upper[region]
    program = _MilpColumns.of(problem, bounds, case)
    values = program.solve(max(clock.left, 0.01))
    if values is None:
        return None
    point = torch.as_tensor(values[: len(lower)], dtype=lower.dtype, device=lower.device)
    return torch.minimum(torch.maximum(point, lower), upper)


@dataclass
class _MilpRows:
    """Sparse rows ``low <= row . columns <= high``."""

    index: list[NDArray[np.int32]]
    value: list[Array]
    low: list[float]
    high: list[float]

    def add(self, index: NDArray[np.int64], value: Array, low: float, high: float) -> None:
        self.index.append(index.astype(np.int32))
        self.value.append(value)
        self.low.append(low)
        self.high.append(high)


@dataclass
class _MilpColumns:
    """Columns: inputs, activations of all neurons, switches of the unstable ones, and the largest atom."""

    lower: Array
    upper: Array
    binary: NDArray[np.int64]
    """Numbers of the switches."""
    rows: _MilpRows

    @classmethod
    def of(cls, problem: Problem, bounds: Bounds, case: int) -> _MilpColumns:
        """The mixed-integer program of a case, for bounds of the neurons ``(R, num_neurons)``."""
        program, region = problem.program, int(problem.region[case])
        low, high = in_numpy(bounds.lower[region]), in_numpy(bounds.upper[region])
        switched = in_numpy(unstable_neurons(program, bounds.select(problem.region[case : case + 1]))[0]).nonzero()[0]
        inputs, neurons = program.num_inputs, program.num_neurons
        binary = inputs + neurons + np.arange(len(switched))
        lower = np.concatenate([in_numpy(problem.lower[region]), np.maximum(low, 0), np.zeros(len(switched)), [0.0]])
        upper = np.concatenate([in_numpy(problem.upper[region]), np.maximum(high, 0), np.ones(len(switched)), [0.0]])
        mixed = cls(lower, upper, binary, _MilpRows([], [], [], []))
        switch = dict(zip(switched.tolist(), binary.tolist(), strict=True))
        for layer in program.layers:
            matrix = _over_columns(program, layer.affine, len(lower))
            shift = in_numpy(layer.affine.bias)
            for row, neuron in enumerate(range(layer.start, layer.stop)):
                mixed._relu(matrix[row], shift[row], inputs + neuron, (low[neuron], high[neuron]), switch.get(neuron))
        mixed._atoms(problem, case)
        return mixed

    def _relu(self, row: Array, shift: float, column: int, bounds: tuple[float, float], switch: int | None) -> None:
        """``activation = relu(row . columns + shift)``, by a switch that is one where the neuron is active."""
        low, high = bounds
        own = -row
        own[column] = 1.0  # of activation - row . columns
        index = own.nonzero()[0]
        if switch is not None:
            self.rows.add(index, own[index], shift, np.inf)
            self.rows.add(np.append(index, switch), np.append(own[index], -low), -np.inf, shift - low)
            self.rows.add(np.array([column, switch]), np.array([1.0, -high]), -np.inf, 0.0)
        elif low >= 0:
            self.rows.add(index, own[index], shift, shift)

    def _atoms(self, problem: Problem, case: int) -> None:
        """Each atom is at most the last column, which is zero until phases are fixed."""
        matrix = _over_columns(problem.program, problem.program.features, len(self.lower))
        weights = in_numpy(problem.weights[problem.rows[case]])
        constant = weights @ in_numpy(problem.program.features.bias) + in_numpy(problem.offsets[problem.rows[case]])
        for row, offset in zip(weights @ matrix, constant, strict=True):
            row[-1] = -1.0
            index = row.nonzero()[0]
            self.rows.add(index, row[index], -np.inf, -offset)

    def solve(self, seconds: float) -> Array | None:
        """Values of the columns at which all atoms are at most zero, as far below as their phases let them."""
        values = self._optimum(seconds)
        if values is None:
            return None
        phases = np.round(values[self.binary])
        self.lower[self.binary] = self.upper[self.binary] = phases
        self.lower[-1], self.upper[-1] = -np.inf, np.inf
        best = self._optimum(seconds, whole=False)
        return values if best is None else best

    def _optimum(self, seconds: float, whole: bool = True) -> Array | None:
        """Values of the columns where the last one is least; switches need not be ``whole`` once they are fixed."""
        from scipy.optimize import Bounds as Between  # half a second that most queries need not pay
        from scipy.optimize import LinearConstraint, milp
        from scipy.sparse import csr_array

        rows, count = self.rows, len(self.lower)
        starts = np.concatenate([[0], np.cumsum([len(index) for index in rows.index])])
        matrix = csr_array((np.concatenate(rows.value), np.concatenate(rows.index), starts), (len(rows.low), count))
        integrality = np.zeros(count)
        integrality[self.binary] = whole
        found = milp(
            np.eye(1, count, count - 1)[0],
            integrality=integrality,
            bounds=Between(self.lower, self.upper),
            constraints=LinearConstraint(matrix, np.array(rows.low), np.array(rows.high)),
            options={"time_limit": seconds},
        )
        return None if found.x is None or not np.isfinite(found.x).all() else found.x


def _over_columns(program: Program, affine: Affine, count: int) -> Array:
    """The matrix of a map over all columns of a mixed-integer program, ``(size, count)``."""
    assert isinstance(affine, DenseAffine)
    matrix = np.zeros((affine.size, count))
    for source, part in zip(affine.sources, affine.matrices, strict=True):
        start = 0 if source == INPUT else program.num_inputs + program.layers[source].start
        matrix[:, start : start + part.shape[1]] = in_numpy(part)
    return matrix
