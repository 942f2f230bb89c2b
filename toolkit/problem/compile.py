"""A query and its networks, compiled into one bounded problem.

``sat`` iff some case has a point of its box (its *region*) at which all its atoms are at most zero. Every atom is a row
``weights[i] . features(x) + offsets[i]`` over the program's features.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Container, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, reduce
from itertools import accumulate
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from toolkit.errors import InputError, UnsupportedError
from toolkit.formats.onnx.converters.conversion import Conversion
from toolkit.formats.onnx.model_file import OnnxModel
from toolkit.formats.onnx.operators import check_inputs
from toolkit.formats.onnx.torch_import import import_module
from toolkit.formats.vnnlib.query import Network, Query, Relation
from toolkit.problem.cases import Cases, compile_cases
from toolkit.problem.program import Program, build_program, rounds_nothing
from toolkit.problem.sum_rounding import outward
from toolkit.problem.trace import trace
from toolkit.tuning import tuned


@dataclass(frozen=True)
class FeatureQuestion:
    """What is asked about the features, without the network: boxes, cases and atoms as tensors on one device."""

    lower: Tensor
    """Lower corners of the regions, ``(R, n)``."""
    upper: Tensor
    """Upper corners of the regions, ``(R, n)``."""
    region: Tensor
    """Region of each case, ``(C,)``."""
    rows: Tensor
    """Atoms of each case, ``(C, K)``; a case with fewer than K atoms repeats its first."""
    weights: Tensor
    """Coefficients of the atoms on the features, ``(m, F)``."""
    offsets: Tensor
    """Constants of the atoms, ``(m,)``."""
    strict: Tensor | None = field(default=None, kw_only=True)
    """Which atoms are to be less than zero, ``(m,)`` bool, not at most; None: no atom is."""

    @property
    def num_cases(self) -> int:
        """Number of cases, C."""
        return len(self.region)

    @property
    def varying_inputs(self) -> int:
        """Largest number of inputs that are not fixed, over the regions."""
        return int((self.lower < self.upper).sum(1).max())

    @property
    def strict_atoms(self) -> Tensor:
        """Which atoms are strict, ``(m,)`` bool."""
        return torch.zeros_like(self.offsets, dtype=torch.bool) if self.strict is None else self.strict

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Move the question to another device and another precision. Boxes are rounded outward."""
        lower, upper = outward(self.lower, self.upper, dtype)
        return replace(
            self,
            lower=lower.to(device),
            upper=upper.to(device),
            region=self.region.to(device),
            rows=self.rows.to(device),
            weights=self.weights.to(device, dtype),
            offsets=self.offsets.to(device, dtype),
            strict=None if self.strict is None else self.strict.to(device),
        )

    def with_cases(self, cases: Tensor) -> Self:
        """Restrict the question to some of its cases, by position or mask."""
        return replace(self, region=self.region[cases], rows=self.rows[cases])


@dataclass(frozen=True)
class Problem(FeatureQuestion):
    """A question with the program that computes the features."""

    program: Program

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Move the question and its program to another device and another precision. Boxes are rounded outward."""
        return replace(super().to(device, dtype), program=self.program.to(device, dtype))


@dataclass(frozen=True, eq=False)
class SharedProgram:
    """A program with the boxes of the query that it was traced for, whose magnitudes are the units of its products."""

    program: Program
    cases: Cases


@dataclass(frozen=True)
class Binding:
    """A network's module and the shapes it takes, in the order of the ONNX model's inputs."""

    module: torch.nn.Module
    input_shapes: tuple[tuple[int, ...], ...]
    input_dtypes: tuple[torch.dtype, ...]
    """Element types of the inputs; tracing happens in them, bounding in the program's own."""
    programs: dict[Hashable, SharedProgram] = field(init=False, default_factory=dict, repr=False, compare=False)
    """Programs compiled for earlier queries, by what these take from the networks."""
    inspected: set[int] = field(init=False, default_factory=set, repr=False, compare=False)
    """Which of these were compared with the network tensor by tensor (`toolkit.agreement.layerwise_check`), by
    identity."""


INPUT_DTYPES = {"float32": torch.float32, "float64": torch.float64, "float16": torch.float16}
"""Element types that an input of a network may have to be bounded."""


def bind_module(model: OnnxModel) -> Binding:
    """Import a model. Raises UnsupportedError for operators without a converter and for inputs that are not floats."""
    check_inputs(model)
    return Binding(
        import_module(model),
        tuple(info.shape for info in model.inputs),
        tuple(INPUT_DTYPES[info.dtype] for info in model.inputs),
    )


class FeatureNetwork(torch.nn.Module):
    """The features of a query as a function of its inputs, ``(B, n)`` to ``(B, F)``.

    A network that fixes its batch dimension takes B = 1 only.
    """

    def __init__(self, query: Query, networks: Mapping[str, Binding], cases: Cases) -> None:
        """``networks`` maps each declared network's name to its module; one that is ``equal-to`` another may lack."""
        super().__init__()
        self.query, self.networks = query, networks
        self.asked = frozenset(tensor.offset for tensor in query.tensors if cases.mentions(tensor))
        self.parts = torch.nn.ModuleList(binding.module for binding in networks.values())
        self.used = cases.used[cases.used < query.num_variables]
        products = cases.used[cases.used >= query.num_variables] - query.num_variables
        self.products = tuple(query.products[number] for number in products.tolist())
        """What the cases use beyond variables: products of these, in the order of their numbers."""
        start = 0
        for number, size in enumerate(size for net in query.networks for size in _part_sizes(net)):
            own = self.used[(start <= self.used) & (self.used < start + size)] - start
            self.register_buffer(f"used_{number}", torch.as_tensor(own) if len(own) < size else None)
            start += size
        self.eval()
        self.magnitudes = self._magnitudes(cases) if self.products and len(cases.lower) else {}

    def forward(self, x: Tensor) -> Tensor:
        """Values of the variables and products that the cases use. Raises InputError where sizes disagree."""
        parts = _variables(self.query, self.networks, self.asked, x)
        positions = [getattr(self, f"used_{number}") for number in range(len(parts))]
        found = [
            part if position is None else part.index_select(1, position)
            for part, position in zip(parts, positions, strict=True)
            if position is None or len(position)
        ]
        if self.products:
            values = torch.cat(parts, 1)
            found += [self._product(values, product) for product in self.products]
        return _side_by_side(found)

    def _product(self, values: Tensor, variables: Sequence[int]) -> Tensor:
        """The product of some variables, ``(B, 1)``, of factors of magnitude one and then of their magnitudes."""
        scales = [self.magnitudes.get(variable, 1.0) for variable in variables]
        factors = [values.narrow(1, variable, 1) * (1 / s) for variable, s in zip(variables, scales, strict=True)]
        return reduce(torch.mul, factors) * math.prod(scales)

    def _magnitudes(self, cases: Cases) -> dict[int, float]:
        """Powers of two as large as the factors of products are, by variable: inputs in their boxes, outputs at corners
        and the centre of the first.

        Any would be right, but bounds of products are the tighter the nearer the magnitudes of the factors are.
        """
        size = dict(
            zip(cases.inputs.tolist(), np.maximum(np.abs(cases.lower), np.abs(cases.upper)).max(0), strict=True)
        )
        corners = np.stack([cases.lower[0], (cases.lower[0] + cases.upper[0]) / 2, cases.upper[0]])
        dtype = next(iter(self.networks.values())).input_dtypes[0]
        with torch.no_grad():
            points = torch.as_tensor(corners).to(dtype).split(1)
            outputs = (
                torch.cat([torch.cat(_variables(self.query, self.networks, self.asked, point), 1) for point in points])
                .abs()
                .amax(0)
            )
        used = {variable for product in self.products for variable in product}
        return {variable: _power_of_two(size.get(variable, float(outputs[variable]))) for variable in used}


def _power_of_two(magnitude: float) -> float:
    """The next power of two; 1 where the magnitude says nothing, and not so large or small that products overflow."""
    if not math.isfinite(magnitude) or magnitude == 0:
        return 1.0
    return math.ldexp(1.0, min(max(math.frexp(magnitude)[1], -30), 30))


def compile_question(cases: Cases) -> FeatureQuestion:
    """What a query asks about its features, in float64 on the CPU."""
    return FeatureQuestion(
        lower=torch.as_tensor(cases.lower),
        upper=torch.as_tensor(cases.upper),
        region=torch.as_tensor(cases.region),
        rows=torch.as_tensor(_padded(cases)),
        # One more atom, always true (-1 <= 0), stands in for the atoms of a case that has none.
        weights=torch.as_tensor(np.pad(_atom_matrix(cases), ((0, 1), (0, 0)))),
        offsets=torch.as_tensor(np.append(cases.atoms.constant, -1.0)),
        strict=torch.as_tensor(np.append(cases.atoms.relation == Relation.LT, False)),
    )


def compile_problem(query: Query, networks: Mapping[str, Binding], cases: Cases | None = None) -> Problem:
    """Compile a query over the given networks, in float64 on the CPU.

    ``networks`` maps each declared network's name to its module; a network that is ``equal-to`` another may be left
    out. Raises InputError where sizes disagree, UnsupportedError for what has no bounding rule.
    """
    cases = compile_cases(query) if cases is None else cases
    return Problem(**vars(compile_question(cases)), program=shared_program(query, networks, cases).program)


def shared_program(query: Query, networks: Mapping[str, Binding], cases: Cases) -> SharedProgram:
    """The program of a query's features: one and the same for all queries that take the same of the same networks.

    It depends on the declared tensors and on the variables and products that are used, on no coefficient and, but for
    the units in which products are bounded, on no box.
    """
    features = FeatureNetwork(query, networks, cases)
    kept = next(iter(networks.values())).programs
    key = (tuple(networks.items()), query.networks, features.used.tobytes(), features.products)
    if key not in kept:
        if len(kept) >= tuned().problem.most_programs:
            kept.pop(next(iter(kept)))
        rational = cache(lambda: rounds_nothing(traced_features(query, networks, cases)))
        kept[key] = SharedProgram(build_program(traced_features(query, networks, cases), rational=rational), cases)
    return kept[key]


def in_double(networks: Mapping[str, Binding], device: torch.device | str = "cpu") -> dict[str, Binding]:
    """Copies of the networks that compute in float64, on a device, and round where the networks convert to less."""
    copies = {}
    for name, binding in networks.items():
        module = copy.deepcopy(binding.module).to(device, torch.float64).eval()
        for part in module.modules():
            if isinstance(part, Conversion):
                part.working = torch.float64
        copies[name] = replace(binding, module=module, input_dtypes=(torch.float64,) * len(binding.input_dtypes))
    return copies


def traced_features(query: Query, networks: Mapping[str, Binding], cases: Cases) -> fx.GraphModule:
    """The graph of a query's features, of which `toolkit.problem.operator_table` can tell whether it can be bounded.

    It is in double precision: what tracing folds is rounded as little as can be.
    """
    features = FeatureNetwork(query, in_double(networks), cases)
    return trace(lambda x: features(x.unsqueeze(0)).squeeze(0), [torch.as_tensor(example_point(cases)).double()])


def example_point(cases: Cases) -> NDArray[np.float64]:
    """The point at which the features of a query are traced: the middle of its first box."""
    return (cases.lower[0] + cases.upper[0]) / 2 if len(cases.lower) else np.zeros(len(cases.inputs))


def _part_sizes(network: Network) -> tuple[int, int]:
    """How many inputs and how many outputs a network has."""
    return sum(tensor.size for tensor in network.inputs), sum(tensor.size for tensor in network.outputs)


def _side_by_side(parts: Sequence[Tensor]) -> Tensor:
    """Tensors along their second axis; one alone as it is, which leaves no operator in a traced graph."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), 1)


def _variables(query: Query, networks: Mapping[str, Binding], asked: Container[int], x: Tensor) -> list[Tensor]:
    """Values of all variables for inputs ``(B, n)``: of each network its inputs, then its outputs, ``(B, size)`` each.

    Outputs at other offsets than those ``asked`` for are zeros, so that nothing depends on how they are computed.
    """
    parts: list[Tensor] = []
    position = 0
    for network in query.networks:
        if network.hidden:
            raise UnsupportedError(f"network {network.name} declares hidden tensors, which are not supported yet")
        binding = networks.get(network.name) or networks[network.equal_to or ""]
        size, _ = _part_sizes(network)
        inputs = x[:, position : position + size]
        position += size
        parts += [inputs, _run(network, binding, asked, inputs)]
    return parts


def _run(network: Network, binding: Binding, asked: Container[int], flat: Tensor) -> Tensor:
    """All outputs of one network, ``(B, size)``, for inputs ``(B, n)``; zeros for those that nobody asks about."""
    batch = len(flat)
    sizes = [int(np.prod(shape)) for shape in binding.input_shapes]
    if sizes != [tensor.size for tensor in network.inputs]:
        declared = [tensor.size for tensor in network.inputs]
        raise InputError(f"network {network.name}: the specification declares inputs of {declared} elements, the ONNX "
                         f"model has {sizes}")  # fmt: skip
    pieces = [flat] if len(sizes) == 1 else flat.split(sizes, 1)
    inputs = [
        piece.reshape((batch * shape[0], *shape[1:]) if shape else ()).to(dtype)  # samples along the leading dimension
        for piece, shape, dtype in zip(pieces, binding.input_shapes, binding.input_dtypes, strict=True)
    ]
    result = binding.module(*inputs)
    outputs: Sequence[Tensor] = result if isinstance(result, (list, tuple)) else [result]
    found = [output.numel() // batch for output in outputs[: len(network.outputs)]]
    if found != [tensor.size for tensor in network.outputs]:
        declared = [tensor.size for tensor in network.outputs]
        raise InputError(f"network {network.name}: the specification declares outputs of {declared} elements, the ONNX "
                         f"model has {found}")  # fmt: skip
    pairs = zip(network.outputs, outputs, strict=False)
    # New zeros, not made from the output: the traced graph must not read it.
    wanted = [
        output if tensor.offset in asked else torch.zeros(output.shape, dtype=flat.dtype, device=flat.device)
        for tensor, output in pairs
    ]
    return _side_by_side([output.reshape(batch, -1).to(flat.dtype) for output in wanted])


def _atom_matrix(cases: Cases) -> np.ndarray:
    """The atoms as a dense matrix over the variables that the cases use."""
    column = np.searchsorted(cases.used, cases.atoms.monomial)
    weights = np.zeros((len(cases.atoms), len(cases.used)))
    row = np.repeat(np.arange(len(cases.atoms)), np.diff(cases.atoms.starts))
    np.add.at(weights, (row, column), cases.atoms.coefficient)
    return weights


def _padded(cases: Cases) -> np.ndarray:
    """The cases' atoms as a rectangle, (C, K); a short row repeats its first atom, an empty one the true atom."""
    counts = np.diff(cases.starts)
    columns = np.minimum(np.arange(max(1, *counts, 1)), np.maximum(counts - 1, 0)[:, None])
    rows = np.append(cases.rows, len(cases.atoms))[cases.starts[:-1, None] + columns]
    return np.where(counts[:, None] > 0, rows, len(cases.atoms))


def stacked(problems: Sequence[Problem]) -> Problem:
    """All the problems as one. They share the program, and the number K of atoms of a case."""
    first = problems[0]
    assert all(problem.program is first.program for problem in problems)
    return Problem(
        lower=torch.cat([problem.lower for problem in problems]),
        upper=torch.cat([problem.upper for problem in problems]),
        region=_numbered([problem.region for problem in problems], [len(problem.lower) for problem in problems]),
        rows=_numbered([problem.rows for problem in problems], [len(problem.offsets) for problem in problems]),
        weights=torch.cat([problem.weights for problem in problems]),
        offsets=torch.cat([problem.offsets for problem in problems]),
        strict=torch.cat([problem.strict_atoms for problem in problems]),
        program=first.program,
    )


def places(problems: Sequence[Problem]) -> Iterator[tuple[Tensor, Tensor]]:
    """Numbers that the regions and the cases of each problem have in the stack."""
    regions = _split([len(problem.lower) for problem in problems], problems[0].region.device)
    cases = _split([problem.num_cases for problem in problems], problems[0].region.device)
    return zip(regions, cases, strict=True)


def _numbered(parts: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    """Numbers that count within each problem as numbers that count in the stack."""
    before = accumulate(sizes, initial=0)
    return torch.cat([part + start for part, start in zip(parts, before, strict=False)])


def _split(sizes: list[int], device: torch.device) -> tuple[Tensor, ...]:
    return torch.arange(sum(sizes), device=device).split(sizes)
