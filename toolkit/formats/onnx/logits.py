"""A classifier without the last step that makes probabilities of its scores, which training does itself; no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx
from onnx import numpy_helper

from toolkit.formats.onnx.model_file import OnnxModel
from toolkit.formats.onnx.scores import KEEPS_ORDER, ending_in, over_all

PASSING = frozenset({"Identity", "Cast"})
"""Operators between tensors of floats that keep the order of scores."""


def without_probabilities(model: OnnxModel) -> OnnxModel:
    """The network up to what a last softmax reads; of two classes by a sigmoid, up to its operand, a single score.

    That is a softmax over all outputs or its logarithm, the sigmoid of a single score s, or the pair ``[1 - sigmoid(s),
    sigmoid(s)]``. The answer stays: the class of the largest score, or class 1 where s is positive. Other networks are
    given back as they are.
    """
    [output] = model.outputs
    found = _Graph(model).scores(output.name, output.shape, output.size)
    if found is None or not output.shape or output.shape[-1] != output.size:
        return model
    name, last = found.name, found.count
    declared = None if output.declared_shape is None else (*output.declared_shape[:-1], last)
    return ending_in(model, replace(output, name=name, shape=(*output.shape[:-1], last), declared_shape=declared))


@dataclass(frozen=True)
class _Scores:
    """A tensor of scores, and how many there are."""

    name: str
    count: int


class _Graph:
    """A model's graph, in which tensors are traced back to the operators that make them."""

    def __init__(self, model: OnnxModel) -> None:
        self.opset = model.opset
        self.makers = {name: node for node in model.proto.graph.node for name in node.output}
        self.weights = {tensor.name: tensor for tensor in model.proto.graph.initializer}

    def maker(self, name: str) -> onnx.NodeProto:
        """The node behind a tensor, before what only passes it on; one without a kind for an input or a weight."""
        node = self.makers.get(name, onnx.NodeProto())
        return self.maker(node.input[0]) if node.op_type in PASSING else node

    def scores(self, name: str, shape: tuple[int, ...], size: int) -> _Scores | None:
        """The scores that probabilities are made of; None where they are none."""
        last = self.maker(name)
        if last.op_type in KEEPS_ORDER:
            return _Scores(last.input[0], size) if over_all(last, shape, self.opset) else None
        if last.op_type == "Sigmoid" and size == 1:
            return _Scores(last.input[0], 1)
        if last.op_type == "Concat" and size == 2 and len(last.input) == 2:
            return self._of_pair(*last.input)
        return None

    def _of_pair(self, other: str, own: str) -> _Scores | None:
        """The score s of ``[1 - sigmoid(s), sigmoid(s)]``."""
        sigmoid, difference = self.maker(own), self.maker(other)
        if sigmoid.op_type != "Sigmoid" or difference.op_type != "Sub" or self.maker(difference.input[1]) != sigmoid:
            return None
        whole = self.weights.get(difference.input[0])
        one = whole is not None and bool((numpy_helper.to_array(whole) == 1).all())
        return _Scores(sigmoid.input[0], 1) if one else None
