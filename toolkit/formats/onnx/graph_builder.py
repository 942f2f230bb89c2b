"""What a normalised graph is written with: a builder of nodes, and the table of the rewrites that use it.

`toolkit.formats.onnx.normalise` goes through a model's nodes and calls the rewrites of
`toolkit.formats.onnx.node_rewrites`, which register themselves here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from toolkit.formats.onnx.probe import TensorFacts
from toolkit.registry import Registry

STATIC = "prunecert"
"""Domain of the operators whose parameters are all attributes; converters in `toolkit.formats.onnx.converters`."""

Rewrite = Callable[[onnx.NodeProto, TensorFacts, "GraphBuilder"], None]
REWRITES: Registry[str, Rewrite] = Registry("rewrite", folder="toolkit.formats.onnx.node_rewrites")
rewrite = REWRITES.register
"""Registers how nodes of some operator types are emitted."""


class GraphBuilder:
    """Collects the nodes and the new initializers of the emitted graph."""

    def __init__(self, facts: TensorFacts) -> None:
        self._taken = facts.names
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.aliases: dict[str, str] = {}
        self.sequences: dict[str, list[str]] = {}
        """Names of the tensors in every sequence that depends on the inputs."""
        self._count = 0

    def fresh(self, hint: str) -> str:
        """A tensor name that nothing else has, in the file neither."""
        self._count += 1
        while (name := f"__{hint}_{self._count}") in self._taken:
            self._count += 1
        return name

    def constant(self, value: NDArray[Any]) -> str:
        """Name of a new initializer."""
        name = self.fresh("constant")
        self.initializers[name] = onnx.numpy_helper.from_array(np.asarray(value), name)
        return name

    def alias(self, name: str, source: str) -> None:
        """Let ``name`` be another name of ``source``."""
        self.aliases[name] = self.resolve(source)

    def resolve(self, name: str) -> str:
        """The tensor that a name stands for."""
        return self.aliases.get(name, name)

    def emit(self, op_type: str, inputs: list[str], output: str = "", domain: str = "", **attributes: Any) -> str:
        """Append a node with one output; returns the output's name."""
        output = output or self.fresh(op_type)
        inputs = [self.resolve(name) for name in inputs]
        self.nodes.append(onnx.helper.make_node(op_type, inputs, [output], domain=domain, **attributes))
        return output

    def static(self, op_type: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        """Append a node of the ``STATIC`` domain; empty lists are left out, converters supply them."""
        given = {key: value for key, value in attributes.items() if not (isinstance(value, list) and not value)}
        return self.emit(op_type, inputs, output, STATIC, **given)

    def copy(self, node: onnx.NodeProto, used: frozenset[str]) -> None:
        """Append a node of the source graph as it is, without trailing outputs that nothing uses."""
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.domain = ""
        while len(copy.output) > 1 and copy.output[-1] not in used:
            del copy.output[-1]
        copy.input[:] = [self.resolve(name) for name in node.input]
        self.nodes.append(copy)
