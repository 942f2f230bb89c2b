"""The neurons of a network that is one chain of layers with ReLUs between them, numbered layer by layer. No torch."""

from __future__ import annotations

from itertools import accumulate

from toolkit.errors import InputError
from toolkit.proof.linear_maps import BlockMatrix, Convolution, LinearMap
from toolkit.proof.network import Activation, AffineStep, ProofNetwork, Step, sources


def relu_layers(network: ProofNetwork) -> dict[int, int]:
    """The number of elements before each tensor that a ReLU reads, in all tensors like it, by the tensor's value.

    Elements of a tensor follow each other in row-major order. Raises InputError for any network that is not a chain of
    fully connected layers and plain two-dimensional convolutions with a ReLU after each but the last one.
    """
    layers, activations = network.steps[::2], network.steps[1::2]
    if [source for step in network.steps for source in sources(step)] != [0, *(s.value for s in network.steps[:-1])]:
        raise _no_chain("a tensor is read twice, or tensors are added")
    if not all(isinstance(step, AffineStep) and _is_layer(step.terms[0][1]) for step in layers):
        raise _no_chain("it has a layer that is neither fully connected nor a plain convolution of images")
    if not activations or not all(map(_is_relu, activations)):
        raise _no_chain("it has another operator than a ReLU between two layers, or no ReLU")
    last = network.steps[-1]
    if not isinstance(last, AffineStep) or not _is_dense(last.terms[0][1]):
        raise _no_chain("the last layer is not fully connected")
    if (network.compared >= 0).any():
        raise _no_chain("it ends in a softmax")
    sizes = [network.sizes[step.value] for step in layers[:-1]]
    return dict(zip([step.value for step in layers[:-1]], accumulate([0, *sizes]), strict=False))


def _is_relu(step: Step) -> bool:
    return isinstance(step, Activation) and step.name == "bend" and step.parameters == (0.0,)


def _is_dense(linear: LinearMap) -> bool:
    return isinstance(linear, BlockMatrix) and linear.blocks == 1


def _is_layer(linear: LinearMap) -> bool:
    if not isinstance(linear, Convolution):
        return _is_dense(linear)
    window = linear.window
    flat = len(window.shape) == 2 and linear.groups == linear.images == 1
    return flat and set(window.dilations) == {1} and all(before == after for before, after in window.pads)


def _no_chain(reason: str) -> InputError:
    return InputError(f"the network is no chain of layers with ReLUs between them, as this format asks: {reason}")
