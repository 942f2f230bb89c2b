"""The bounded program: what every analysis works on.

A network and the quantities its query asks about, as alternating affine maps and elementwise nonlinear *layers* over
flat vectors: layer i has pre-activations ``z_i = affine_i(x, a_0 .. a_{i-1})`` and activations ``a_i = op_i(z_i)``;
the *features* (the outputs, and inputs where the query mixes them) are one last affine map. Residual connections are
affine maps with several sources. All neurons also have one number in the concatenation of the layers.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, fx

from toolkit.problem.affine import Affine, DenseAffine, GraphAffine, absolute_module, compact, flat_size
from toolkit.problem.exactness import computed_exactly, lossless, units_of
from toolkit.problem.fold_channels import fold_splits
from toolkit.problem.linear_part import linear_part, without_offset
from toolkit.problem.operator_table import IN_ORDER, NONLINEAR, check_supported, depends_on_input
from toolkit.problem.sum_lengths import is_composed, sum_terms
from toolkit.problem.sum_rounding import MapErrors, gamma
from toolkit.tuning import tuned

INPUT = -1
"""Source number of the input box."""


@dataclass(frozen=True)
class Layer:
    """One elementwise nonlinear operator and the affine map that feeds it."""

    name: str
    op: str
    affine: Affine
    start: int
    """Number of its first neuron; its neurons are ``start : stop``."""

    @property
    def stop(self) -> int:
        return self.start + self.affine.size

    @property
    def neurons(self) -> slice:
        """The layer's slice of any vector over all neurons."""
        return slice(self.start, self.stop)


@dataclass(frozen=True)
class ProgramOrigin:
    """Where the inputs and neurons of a reduced program are in the one that was compiled."""

    inputs: Tensor
    """Number of each input there, ``(n,)``."""
    base: Tensor
    """What is added to each input for its value there, ``(n,)``."""
    neurons: Tensor
    """Number of each neuron there, ``(num_neurons,)``."""


@dataclass(frozen=True)
class StackedMatrix:
    """The matrices by which later layers read one source, one below the other."""

    first: int
    """Number of the first neuron whose map is in the stack."""
    matrix: Tensor
    """Coefficients of the neurons from ``first`` on, ``(num_neurons - first, size of source)``."""


@dataclass(frozen=True)
class Program:
    """A network as layers of affine maps and elementwise nonlinearities, from an input vector to features."""

    num_inputs: int
    layers: tuple[Layer, ...]
    features: Affine
    device: torch.device
    dtype: torch.dtype
    stacks: Mapping[int, StackedMatrix] | None = field(default=None, repr=False, compare=False)
    """For each source the matrices of all layers that read it, one below the other (`toolkit.problem.fast_maps`); None
    where maps are kept apart."""
    rational: Callable[[], bool] | None = field(default=None, repr=False, compare=False)
    """Tells whether the maps are exactly those of the network, without any rounding: asked by those alone who decide in
    rational arithmetic. None: they are not, as those of whatever is made of this program."""
    errors: MapErrors | None = field(default=None, repr=False, compare=False)
    """Bounds on rounding errors that hold for the boxes of one problem (`toolkit.bounds.backward_rounding`); None where
    they are computed for each bound."""
    origin: ProgramOrigin | None = field(default=None, repr=False, compare=False)
    """Where the inputs and neurons of a reduced program are in the program that it was made of; None for others."""
    merged: list[Program] = field(init=False, default_factory=list, repr=False, compare=False)
    """At most one program: this one with its neurons merged (`toolkit.problem.merge_neurons`), kept once it is made."""

    @property
    def num_neurons(self) -> int:
        """Number of neurons of all layers."""
        return self.layers[-1].stop if self.layers else 0

    def maps(self) -> list[Affine]:
        """The affine map of every layer, then that of the features."""
        return [*(layer.affine for layer in self.layers), self.features]

    @property
    def cost(self) -> int:
        """Multiplications of one backward pass of one row, estimated."""
        return sum(affine.cost for affine in self.maps())

    @property
    def is_shallow(self) -> bool:
        """Whether all hidden layers read the input alone: their bounds are exact on every box."""
        return all(layer.affine.sources == (INPUT,) for layer in self.layers)

    def ending_at(self, number: int) -> Program:
        """The program of the layers before one, whose map's values are the features."""
        errors = None if self.errors is None else self.errors.ending_at(number)
        return replace(self, layers=self.layers[:number], features=self.layers[number].affine, errors=errors)

    def to(self, device: torch.device, dtype: torch.dtype) -> Program:
        """Move the program to another device and another precision."""
        if (device, dtype) == (self.device, self.dtype):
            return self
        layers = tuple(replace(layer, affine=layer.affine.to(device, dtype)) for layer in self.layers)
        features = self.features.to(device, dtype)
        return Program(self.num_inputs, layers, features, device, dtype, origin=self.origin)


def build_program(
    graph: fx.GraphModule,
    dtype: torch.dtype = torch.float64,
    rational: Callable[[], bool] | None = None,
) -> Program:
    """Cut a traced graph (one flat input, one flat output) at its nonlinear operators.

    ``rational`` tells whether no map is rounded (`rounds_nothing`). Raises UnsupportedError for an operator without a
    rule.
    """
    check_supported(graph.graph)
    graph = traced_operators(graph, dtype)
    (x,) = (node for node in graph.graph.nodes if node.op == "placeholder")
    (output,) = (node for node in graph.graph.nodes if node.op == "output")
    cuts = [node for node in graph.graph.nodes if node.op == "call_function" and node.target in NONLINEAR]
    sources = {x: INPUT, **{node: number for number, node in enumerate(cuts)}}
    places = {node: place for place, node in enumerate(graph.graph.nodes)}
    layers: list[Layer] = []
    for node in cuts:
        affine = _map_between(graph, sources, places, node.args[0], dtype)
        start = layers[-1].stop if layers else 0
        layers.append(Layer(node.name, NONLINEAR[node.target], affine, start))
    features = _map_between(graph, sources, places, output.args[0], dtype)
    size = flat_size(x.meta["shape"])
    return Program(size, tuple(layers), features, torch.device("cpu"), dtype, rational=rational)


def rounds_nothing(graph: fx.GraphModule) -> bool:
    """Whether the maps of the program that is made of a traced graph are stored without any rounding."""
    return not graph.meta.get("folded", True) and all(
        computed_exactly(each, lambda node: node.target in NONLINEAR) for each in (graph, traced_operators(graph))
    )


def traced_operators(graph: fx.GraphModule, dtype: torch.dtype = torch.float64) -> fx.GraphModule:
    """The operators of a traced graph from which its program is built, in one precision."""
    return fold_splits(_in_precision(graph, dtype))


def _in_precision(graph: fx.GraphModule, dtype: torch.dtype) -> fx.GraphModule:
    """All floating constants in one precision: the program is about real numbers, which keep their values in every
    wider type. Conversions to a narrower one are operators of their own (`toolkit.problem.trace`)."""
    result = graph.to(dtype=dtype)
    for node in list(result.graph.nodes):
        if node.target is torch.ops.aten._to_copy.default:
            node.replace_all_uses_with(node.args[0])
            result.graph.erase_node(node)
    return result


def _map_between(
    graph: fx.GraphModule, sources: dict[fx.Node, int], places: dict[fx.Node, int], target: Any, dtype: torch.dtype
) -> Affine:
    """The affine operators between the nearest cuts and ``target``, in the form that is the faster one."""
    product = _one_product(graph, sources, target)
    return compact(_affine_between(graph, sources, places, target, dtype)) if product is None else product


def _one_product(graph: fx.GraphModule, sources: dict[fx.Node, int], target: Any) -> DenseAffine | None:
    """The matrix of a fully connected layer as it is in the graph; None for any other operators."""
    product = _before_reshaping(target, sources)
    if product in sources or product.target is not torch.ops.aten.addmm.default or product.kwargs:
        return None
    bias, rows, weight = product.args
    source = _before_reshaping(rows, sources)
    if source not in sources or rows.meta["shape"][0] != 1 or any(map(depends_on_input, (bias, weight))):
        return None
    matrix = graph.get_buffer(str(weight.target)).T
    if matrix.numel() > tuned().problem.most_dense_elements:
        return None
    offset = graph.get_buffer(str(bias.target)).expand(1, len(matrix))[0]
    return DenseAffine((sources[source],), (matrix.contiguous(),), offset.contiguous())


def _before_reshaping(node: Any, sources: Container[fx.Node]) -> Any:
    """The nearest node, from one on back to the sources, that does more than change the shape."""
    while node not in sources and node.target in IN_ORDER:
        node = node.args[0]
    return node


def _affine_between(
    graph: fx.GraphModule,
    sources: dict[fx.Node, int],
    places: dict[fx.Node, int],
    target: fx.Node,
    dtype: torch.dtype,
) -> GraphAffine:
    """The affine operators between the nearest cuts and ``target``, as a map of flat vectors."""
    needed, used = _ancestors(target, sources, places)
    part = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in used:
        flat = part.placeholder(f"s{sources[node] + 1}")
        flat.meta["shape"] = (flat_size(node.meta["shape"]),)
        copies[node] = part.call_function(torch.reshape, (flat, list(node.meta["shape"])))
        copies[node].meta["shape"] = node.meta["shape"]
    for node in needed:
        copies[node] = part.node_copy(node, lambda old: copies[old])
    part.output(part.call_function(torch.reshape, (copies[target], [-1])))
    module = fx.GraphModule(graph, part)
    sizes = tuple(flat_size(node.meta["shape"]) for node in used)
    zeros = [torch.zeros(size, dtype=dtype) for size in sizes]
    bias = module(*zeros).detach()
    numbers = tuple(sources[node] for node in used)
    linear = linear_part(module)
    terms, absolute = sum_terms(module), absolute_module(linear)
    magnitude = absolute_module(module)(*zeros).detach()
    if is_composed(module) and not lossless(
        units_of(module).constants, [magnitude]
    ):  # then terms of the bias may have cancelled
        slack = gamma(terms, dtype) * magnitude
    else:
        slack = torch.zeros_like(bias)
    return GraphAffine(
        numbers,
        sizes,
        flat_size(target.meta["shape"]),
        without_offset(linear),
        without_offset(absolute),
        bias,
        slack=slack,
        taken_back=absolute(*zeros).detach(),
        terms=terms,
    )


def _ancestors(
    target: fx.Node, sources: dict[fx.Node, int], places: dict[fx.Node, int]
) -> tuple[list[fx.Node], list[fx.Node]]:
    """Nodes to recompute for ``target`` in topological order, and the sources they start from.

    ``places`` are the nodes' positions in the graph, found once: chains of thousands of layers are cut in linear time.
    """
    needed: set[fx.Node] = set()
    used: set[fx.Node] = set()
    pending = [target]
    while pending:
        node = pending.pop()
        if node in sources:
            used.add(node)
        elif node not in needed:
            needed.add(node)
            pending.extend(node.all_input_nodes)
    ordered = sorted(needed, key=lambda node: places[node])
    # A constant target is an affine map too: of the input, with coefficients zero.
    return ordered, sorted(used or {next(iter(sources))}, key=lambda node: sources[node])


def split_layers(program: Program, neurons: Tensor) -> list[Tensor]:
    """A tensor over all neurons, ``(..., num_neurons)``, as one view a layer."""
    return [neurons[..., layer.neurons] for layer in program.layers]
