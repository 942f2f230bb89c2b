"""A network read from ONNX as a network to train: batched, with parameters, and a ``Sequential`` where it can be one.

The importer's network runs at the file's concrete shapes and has constants. Here weights are parameters, reshapes keep
the batch apart, and a sequence of layers, with residual additions, becomes a ``Sequential``, which interval
propagation, channel pruning and stability statistics understand. Any other graph can be trained and its weights pruned.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import dropwhile, pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from toolkit.data.rows import MEASURED
from toolkit.errors import InputError, UnsupportedError, one_line
from toolkit.formats.onnx.classifier import load_classifier
from toolkit.formats.onnx.converters.static import Expression, output, view
from toolkit.formats.onnx.logits import without_probabilities
from toolkit.formats.onnx.model_file import OnnxModel
from toolkit.formats.onnx.runtime import close
from toolkit.formats.onnx.torch_import import ImportedModel, import_module
from toolkit.models.layers import BatchReshape, Normalise, Residual
from toolkit.tuning import tuned

KNOWN = (
    nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, nn.ReLU, nn.Flatten, nn.Identity, nn.MaxPool2d, nn.AvgPool2d,
    nn.AdaptiveAvgPool2d, Normalise, BatchReshape,
)  # fmt: skip
"""Layers of a ``Sequential`` that all of training and pruning understands."""

Step = tuple[nn.Module, tuple[str, ...], tuple[str, ...]]
"""A layer, the names of its operands and of its results."""


class LayerGraph(nn.Module):
    """Layers wired by the names of their operands and results; takes one input and returns one output."""

    def __init__(self, source: str, target: str, steps: Sequence[Step], constants: dict[str, Tensor]) -> None:
        super().__init__()
        self.source, self.target = source, target
        self.layers = nn.ModuleList(layer for layer, _, _ in steps)
        self.wiring = tuple((operands, results) for _, operands, results in steps)
        self.constants = {name: f"constant_{index}" for index, name in enumerate(constants)}
        for name, buffer in self.constants.items():
            self.register_buffer(buffer, constants[name].clone())

    @property
    def strange_layers(self) -> list[str]:
        """Kinds of its layers that a sequence cannot have."""
        strange = (layer for layer in self.layers if not isinstance(layer, KNOWN))
        names = (x.function.__name__ if isinstance(x, Expression) else type(x).__name__ for x in strange)
        return sorted({name.removeprefix("Onnx") for name in names})

    def forward(self, x: Tensor) -> Tensor:
        """The network's output for a batch."""
        values = {name: getattr(self, buffer) for name, buffer in self.constants.items()} | {self.source: x}
        for layer, (operands, results) in zip(self.layers, self.wiring, strict=True):
            values[results[0]] = layer(*(values[name] for name in operands))
        return values[self.target]


def read_network(path: Path, shape: tuple[int, ...], classes: int) -> list[nn.Module]:
    """The layers of a classifier for images of ``shape`` (channels, height, width), or rows of so many numbers, in
    evaluation mode. It has a score for each class: a single score s becomes -s/2 and s/2.

    Raises:
        InputError: the file's input or output does not fit the images or classes.
        UnsupportedError: the file cannot be imported, or not be run on several images at once.
    """
    model = scores_of(path)
    _check_interface(model, shape, classes)
    _check_floats(model)
    _check_untied(model)
    imported = import_module(model)
    assert isinstance(imported, ImportedModel)
    graph = _trainable(imported)
    own = sample_shape(model)
    sequence = as_sequence(graph)
    layers: list[nn.Module] = [graph] if sequence is None else sequence
    if own != shape and not isinstance(layers[0], nn.Flatten):  # which any shape is as good as another for
        layers = [BatchReshape(own) if len(own) != 1 else nn.Flatten(), *layers]
    _check_trainable(model, layers)
    network = nn.Sequential(*layers).eval().requires_grad_(True)
    _check_batched(network, imported, model, shape)
    layers = _with_rows(layers, network, shape)
    return _with_two_scores(layers) if model.outputs[0].size == 1 else layers


def scores_of(path: Path) -> OnnxModel:
    """The network up to its scores: without labels, maps and probabilities that exporters put behind them.

    Raises InputError and UnsupportedError, also for a file with an input for each feature.
    """
    classifier = load_classifier(path)
    if classifier.features:
        raise UnsupportedError(
            f"{path}: has an input for each of {len(classifier.features)} features; export it with one for them all"
        )
    return without_probabilities(classifier.model)


def is_vector(model: OnnxModel) -> bool:
    """Whether the network's input has no dimension for a batch."""
    return len(model.inputs[0].shape) == 1


def sample_shape(model: OnnxModel) -> tuple[int, ...]:
    """Shape of one sample of the network's input, without the batch where there is a dimension for it."""
    shape = model.inputs[0].shape
    return shape if is_vector(model) else shape[1:]


def _with_rows(layers: list[nn.Module], network: nn.Module, shape: tuple[int, ...]) -> list[nn.Module]:
    """The layers of a network with its scores in rows ``(B, K)``, where they have another shape: ``(B,)``, or
    ``(B, K, 1, 1)``."""
    with torch.no_grad():
        rank = network(torch.zeros(1, *shape)).dim()
    if rank == 2:
        return layers
    if rank == 1 and isinstance(layers[-1], BatchReshape):  # bounds take no layers without a dimension for scores
        return [*layers[:-1], nn.Flatten()]
    return [*layers, BatchReshape((1,)) if rank == 1 else nn.Flatten()]


def _with_two_scores(layers: list[nn.Module]) -> list[nn.Module]:
    """The layers with scores -s/2 and s/2, whose softmax has the sigmoid of s, in place of a single score s."""
    signs = torch.tensor([[-0.5], [0.5]])
    *rest, last = layers
    if isinstance(last, nn.Linear):
        return [*rest, _linear(signs @ last.weight, None if last.bias is None else signs @ last.bias)]
    return [*layers, _linear(signs)]


def _check_interface(model: OnnxModel, shape: tuple[int, ...], classes: int) -> None:
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise InputError(f"{model.path}: a network with one input and one output is needed")
    given, wanted, size = model.inputs[0], model.outputs[0], int(np.prod(shape))
    if given.dtype != "float32":
        raise InputError(f"{model.path}: its input is of type {given.dtype}; float32 is needed")
    if len(shape) == 1 and given.size != size:
        raise InputError(
            f"{model.path}: its input has shape {given.shape}, but the rows have {size} features; --drop NAME leaves a "
            "column of a table out"
        )
    if given.size != size or (len(given.shape) == 4 and len(shape) == 3 and given.shape[1:] != shape):
        remedy = ""
        if given.size == size:
            remedy = "; export it with the channels before height and width"
        elif given.size % size == 0 and given.shape[0] > 1:
            remedy = "; export it for one image, or with an open batch"
        raise InputError(f"{model.path}: its input has shape {given.shape}, but the images are {shape} each{remedy}")
    if wanted.size == 1 and classes > 2:
        raise InputError(
            f"{model.path}: has 1 output, which tells two classes apart, but the data set has {classes} classes; "
            f"{MEASURED}"
        )
    if max(2, wanted.size) < classes:
        raise InputError(
            f"{model.path}: has {wanted.size} outputs, but the data set has {classes} classes; labels that are numbers "
            "count from 0 unless --classes names them in the order of the outputs"
        )


def _check_floats(model: OnnxModel) -> None:
    """Raise UnsupportedError for a quantised network, whose weights training would move off their grid."""
    for node in model.proto.graph.node:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            raise UnsupportedError(f"{model.path}: is quantised ({node.op_type} {node.name or node.output[0]!r}); "
                                   "prune the network of floats, and quantise what comes of it")  # fmt: skip


WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators with weights that training changes."""


def _check_untied(model: OnnxModel) -> None:
    """Raise UnsupportedError where one weight is read by two layers: training would make two of it."""
    graph = model.proto.graph
    origins = {tensor.name: {tensor.name} for tensor in graph.initializer if len(tensor.dims) > 1}
    constants, readers = {tensor.name for tensor in graph.initializer}, dict[str, str]()
    for node in graph.node:
        name = node.name or node.output[0]
        if all(operand in constants or not operand for operand in node.input):
            constants.update(node.output)
            made = set().union(*(origins.get(operand, set()) for operand in node.input))
            origins.update(dict.fromkeys(node.output, made or set(node.output)))
        elif node.op_type in WEIGHTED:
            for weight in set().union(*(origins.get(operand, set()) for operand in node.input)):
                if weight in readers:
                    raise UnsupportedError(
                        f"{model.path}: nodes {readers[weight]} and {name} share the weight {weight}, and training "
                        "would make two of it; export the network with a copy for each to prune them one by one"
                    )
                readers[weight] = name


def _check_trainable(model: OnnxModel, layers: Sequence[nn.Module]) -> None:
    """Raise UnsupportedError where there is no layer whose weights could be pruned."""
    modules = [module for layer in layers for module in layer.modules()]
    if not any(isinstance(module, nn.Conv2d | nn.Linear) for module in modules):
        raise UnsupportedError(
            f"{model.path}: has no convolution and no product of its values with a constant matrix on the right, so "
            "there are no weights to prune; export its layers as Conv, Gemm or MatMul(x, W)"
        )


def _trainable(imported: ImportedModel) -> LayerGraph:
    """A trainable copy of an imported graph: reshapes keep the batch, and products with constants are linear layers."""
    constants: dict[str, Tensor] = {name: getattr(imported, buffer) for name, buffer in imported.constants.items()}
    triples = zip(imported.operators, imported.wiring, strict=True)
    steps = [step for module, wires in triples for step in _layers(copy.deepcopy(module), *wires, constants)]
    used = {name for _, operands, _ in steps for name in operands}
    kept = {name: value for name, value in constants.items() if name in used}
    return LayerGraph(imported.inputs[0], imported.outputs[0], steps, kept)


def _layers(
    module: nn.Module, operands: tuple[str, ...], results: tuple[str, ...], constants: dict[str, Tensor]
) -> list[Step]:
    """An operator as layers that can be trained: one, or two where means over pixels drop their axes."""
    kind = type(module).__name__
    if isinstance(module, Expression) and module.function is view:
        shape = list(module.attributes.get("shape", ()))[1:]
        return [(nn.Flatten() if len(shape) == 1 else BatchReshape(shape), operands, results)]
    if isinstance(module, Expression) and module.function is output:
        return [(nn.Identity(), operands, results)]
    if isinstance(module, Expression) and _is_mean_of_pixels(module):
        if module.attributes.get("keepdims", 1):
            return [(nn.AdaptiveAvgPool2d(1), operands, results)]
        pooled = (f"{results[0]}/pooled",)
        return [(nn.AdaptiveAvgPool2d(1), operands, pooled), (nn.Flatten(), pooled, results)]
    if kind == "OnnxMatMul" and len(operands) == 2 and _is_matrix(constants.get(operands[1])):
        return [(_linear(constants[operands[1]].t()), operands[:1], results)]
    return [(module, operands, results)]


def _is_mean_of_pixels(module: Expression) -> bool:
    """Whether an operator takes means over height and width of images ``(N, C, H, W)``."""
    axes = sorted(module.attributes.get("axes", ()))
    return module.function.__name__ == "ReduceMean" and axes == [2, 3]


def _is_matrix(constant: Tensor | None) -> bool:
    return constant is not None and constant.dim() == 2 and constant.is_floating_point()


def _linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
    layer.weight = nn.Parameter(weight.detach().clone().contiguous())
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone().reshape(-1))
    return layer


class NotSequential(Exception):  # noqa: N818 - not an error: the graph is trained as it is
    """A graph is no sequence of layers known to training, with residual additions."""


def as_sequence(graph: LayerGraph) -> list[nn.Module] | None:
    """The layers one after the other, each residual addition as one `Residual`; None where the graph is no sequence."""
    try:
        found = SequenceReader(graph).read(graph.source)
    except NotSequential:
        return None
    return found.layers if found.end == graph.target and found.join is None else None


@dataclass(frozen=True)
class LayerSequence:
    """Layers one after the other, the tensor that the last one gives, and where they are a branch of a residual
    addition, the position of that addition."""

    layers: list[nn.Module]
    end: str
    join: int | None


class SequenceReader:
    """Reads a graph as sequences of layers. Steps are named by their positions."""

    def __init__(self, graph: LayerGraph) -> None:
        self.graph = graph
        self.readers: dict[str, list[int]] = {}
        for index, (operands, _) in enumerate(graph.wiring):
            for name in operands:
                self.readers.setdefault(name, []).append(index)

    def read(self, current: str, index: int | None = None) -> LayerSequence:
        """The sequence from a tensor on, by its reader ``index`` where it has several. Raises NotSequential."""
        layers, arithmetic = list[nn.Module](), list[tuple[str, Tensor]]()
        while index is not None or current in self.readers:
            readers = self.readers[current] if index is None else [index]
            if len(readers) > 1:
                self._settle(layers, arithmetic)
                layer, current = self._residual(current, readers)
                layers.append(layer)
                continue
            if self._is_join(readers[0]):
                self._settle(layers, arithmetic)
                return LayerSequence(layers, current, readers[0])
            current = self._step(readers[0], current, layers, arithmetic)
            index = None
        self._settle(layers, arithmetic)
        return LayerSequence(layers, current, None)

    def _is_join(self, index: int) -> bool:
        operands, _ = self.graph.wiring[index]
        return len(operands) == 2 and not self.graph.constants.keys() & set(operands)

    def _step(self, index: int, current: str, layers: list[nn.Module], arithmetic: list[tuple[str, Tensor]]) -> str:
        """Add a step to the sequence; returns the name of the tensor that it gives. Raises NotSequential."""
        layer, (operands, results) = self.graph.layers[index], self.graph.wiring[index]
        if len(operands) == 2 and operands[0] in self.graph.constants and _operation(layer) in ("add", "mul"):
            operands = operands[::-1]
        if operands[0] != current or len(results) != 1:
            raise NotSequential
        if isinstance(layer, KNOWN) and len(operands) == 1:
            self._settle(layers, arithmetic)
            layers += [] if isinstance(layer, nn.Identity) else [layer]
        elif len(operands) == 2 and operands[1] in self.graph.constants:
            arithmetic.append((_operation(layer), getattr(self.graph, self.graph.constants[operands[1]])))
        else:
            raise NotSequential
        return results[0]

    def _settle(self, layers: list[nn.Module], arithmetic: list[tuple[str, Tensor]]) -> None:
        """Make layers of the arithmetic with constants so far."""
        layers += _collect(arithmetic, layers)
        arithmetic.clear()

    def _residual(self, current: str, readers: list[int]) -> tuple[nn.Module, str]:
        """The addition that the two branches from a tensor end in, as a layer, and the tensor that it gives."""
        if len(readers) != 2:
            raise NotSequential
        branches = [
            LayerSequence([], current, index) if self._is_join(index) else self.read(current, index)
            for index in readers
        ]
        shortcut, main = sorted(branches, key=lambda branch: len(branch.layers))
        join = main.join
        if join is None or join != shortcut.join or _operation(self.graph.layers[join]) != "add":
            raise NotSequential
        operands, results = self.graph.wiring[join]
        if sorted(operands) != sorted((main.end, shortcut.end)):
            raise NotSequential
        beside = nn.Sequential(*shortcut.layers) if shortcut.layers else nn.Identity()
        return Residual(nn.Sequential(*main.layers), beside), results[0]


def _operation(layer: nn.Module) -> str:
    function = getattr(layer, "math_op_function", None) or getattr(layer, "_operator", None)
    return str(getattr(function, "__name__", "")).removeprefix("_onnx_")


def _collect(arithmetic: list[tuple[str, Tensor]], layers: list[nn.Module]) -> list[nn.Module]:
    """Arithmetic with constants as layers: a standardisation, or the bias of the linear layer before it.

    Raises NotSequential for what is neither.
    """
    names = [name for name, _ in arithmetic]
    if not arithmetic:
        return []
    if names in (["sub", "div"], ["sub", "mul"]) and not layers:
        return [_standardisation(arithmetic[0][1], arithmetic[1][1], names[1] == "mul")]
    last = layers[-1] if layers else None
    if names == ["add"] and isinstance(last, nn.Linear) and last.bias is None:
        bias = arithmetic[0][1]
        if bias.numel() in (1, last.out_features) and bias.numel() == (bias.shape[-1] if bias.dim() else 1):
            layers[-1] = _linear(last.weight, bias.reshape(-1).expand(last.out_features))  # [1, N] adds what [N] does
            return []
    raise NotSequential


def _standardisation(mean: Tensor, factor: Tensor, multiplied: bool) -> Normalise:
    """``(x - mean) / factor``, or times it, by constants of a number for each channel or feature.

    Raises NotSequential where a factor is not positive, which would turn bounds around.
    """
    std = 1 / factor if multiplied else factor
    if not bool((std > 0).all()):
        raise NotSequential
    wide = max((mean, factor), key=lambda constant: (constant.numel(), constant.dim()))
    after = len(list(dropwhile(lambda size: size == 1, wide.shape))[1:])
    axes = after if wide.numel() > 1 else 2 * (wide.dim() > 2)
    return Normalise(mean.flatten().tolist(), std.flatten().tolist(), axes)


def _check_batched(network: nn.Module, imported: nn.Module, model: OnnxModel, shape: tuple[int, ...]) -> None:
    images = torch.rand(tuned().networks.trainable_samples, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        single = [imported(image.reshape(model.inputs[0].shape))[0].reshape(-1) for image in images]
        try:
            together = network(images).reshape(tuned().networks.trainable_samples, -1)
        except RuntimeError as error:
            reason = one_line(error, 120)
            raise UnsupportedError(
                f"{model.path}: training needs the network on several images at once, but shapes are taken from the "
                f"file for one image, and its operators do not fit several ({reason}); export it without fixed or "
                "computed shapes (Reshape, Expand) in between"
            ) from None
    if not close(together.numpy(), torch.stack(single).numpy()):
        raise UnsupportedError(f"{model.path}: computes something else on several images at once; it cannot be trained")


def insert_batch_norms(layers: Iterable[nn.Module], inputs: Tensor) -> list[nn.Module]:
    """The layers with a batch normalisation between each convolution or linear layer and its ReLU that has none, for
    pruning channels and neurons; in the rows of residual additions, too.

    Its scale and shift undo what its statistics, those of ``inputs``, do: the network stays the same function.
    """
    row, x = list[nn.Module](), inputs
    with torch.no_grad():
        for layer, following in pairwise((*layers, None)):
            assert layer is not None
            row.append(_with_batch_norms(layer, x))
            x = layer(x)
            if isinstance(layer, nn.Conv2d | nn.Linear) and isinstance(following, nn.ReLU):
                row.append(_neutral(x))
    return row


def _with_batch_norms(layer: nn.Module, x: Tensor) -> nn.Module:
    if not isinstance(layer, Residual):
        return layer
    main, shortcut = (
        nn.Sequential(*insert_batch_norms(branch, x)) if isinstance(branch, nn.Sequential) else branch
        for branch in (layer.main, layer.shortcut)
    )
    assert isinstance(main, nn.Sequential)
    return Residual(main, shortcut)


def _neutral(x: Tensor) -> nn.BatchNorm1d | nn.BatchNorm2d:
    """Batch normalisation with the statistics of ``x`` that gives ``x`` back."""
    norm = (nn.BatchNorm1d if x.ndim == 2 else nn.BatchNorm2d)(x.shape[1]).eval()
    variance, mean = torch.var_mean(x, (0, *range(2, x.ndim)))
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    norm.weight.copy_((variance + norm.eps).sqrt())
    norm.bias.copy_(mean)
    return norm
