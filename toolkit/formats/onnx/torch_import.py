"""ONNX to torch: the network that the verifier traces, compared with onnxruntime before anyone may use it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from toolkit.errors import InputError, UnsupportedError, one_line
from toolkit.formats.onnx.converters import static  # noqa: F401  (registers its converters)
from toolkit.formats.onnx.converters.library import onnx2torch
from toolkit.formats.onnx.dependence import record
from toolkit.formats.onnx.model_file import OnnxModel
from toolkit.formats.onnx.normalise import Normalised, normalise
from toolkit.formats.onnx.origins import origin
from toolkit.formats.onnx.probe import TensorFacts, sample_inputs
from toolkit.formats.onnx.runtime import Session, close
from toolkit.tuning import tuned

CANCELLATION_SHARE = 2.0**-18
"""Share of the largest number inside a network that rounding may leave of it in an output."""

SCALES = (1.0, 8.0)
"""Largest magnitudes of the inputs at which a network is compared beside those of the probe."""


Box = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True)
class SourceNode:
    """A node of the file whose result depends on the inputs."""

    origin: str
    """File, operator and node, for messages."""
    op_type: str
    elements: int
    """Elements of its results."""


class ImportedModel(nn.Module):
    """A network read from ONNX: takes the model's inputs at their concrete shapes, returns a tuple of outputs."""

    def __init__(
        self,
        inputs: Sequence[str],
        outputs: Sequence[str],
        constants: Mapping[str, torch.Tensor],
        steps: Sequence[tuple[nn.Module, Sequence[str], Sequence[str]]],
        origins: Sequence[str],
        sources: Iterable[SourceNode] = (),
    ) -> None:
        """``steps`` are (operator, names of operands, names of results) in order; "" is an absent operand.

        ``origins`` says of each which node of the file it comes from, ``sources`` are all of these.
        """
        super().__init__()
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.operators = nn.ModuleList(module for module, _, _ in steps)
        self.wiring = tuple((tuple(operands), tuple(results)) for _, operands, results in steps)
        self.origins, self.sources = tuple(origins), tuple(sources)
        self.constants = {name: f"constant_{index}" for index, name in enumerate(constants)}
        for name, buffer in self.constants.items():
            self.register_buffer(buffer, constants[name])

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Outputs in the model's order."""
        values = self.tensors(*inputs)
        return tuple(values[name] for name in self.outputs)

    def tensors(self, *inputs: torch.Tensor) -> dict[str, Any]:
        """All tensors by name, for inputs in the model's order."""
        values: dict[str, Any] = {"": None}
        values.update(zip(self.inputs, inputs, strict=True))
        values.update({name: getattr(self, buffer) for name, buffer in self.constants.items()})
        for operator, (operands, results), where in zip(self.operators, self.wiring, self.origins, strict=True):
            with origin(where):
                computed = operator(*(values[name] for name in operands))
            computed = computed if isinstance(computed, (tuple, list)) else (computed,)
            if len(computed) < len(results):
                raise ValueError(f"of the results {results}, only {len(computed)} are computed")
            values.update((name, value) for name, value in zip(results, computed, strict=False) if name)
        return values


def import_module(model: OnnxModel) -> nn.Module:
    """The torch module of ``model``, in evaluation mode, on the CPU, without gradients for its weights.

    Its outputs were compared with onnxruntime's on one sample. Raises UnsupportedError naming file, operator, version
    and node for what cannot be imported.
    """
    normalised = normalise(model)
    module = _convert(normalised).eval().requires_grad_(False)
    _check_probe(model, module, normalised)
    return module


def check_import(model: OnnxModel, module: nn.Module, box: Box | None = None, samples: int | None = None) -> bool:
    """Whether ``module`` computes what onnxruntime does on random inputs, up to rounding.

    ``box`` is a lower and an upper bound for the concatenated, flattened inputs. A network with discontinuous
    operators passes when one sample agrees. None stands for the usual number of samples.
    """
    session = Session(model)
    verdicts = []
    for seed in range(tuned().networks.import_samples if samples is None else samples):
        inputs = sample_inputs(model, seed) if box is None else _inputs_in(model, box, seed)
        verdicts.append(_agree(model, module, inputs, session.run_undeclared(inputs)))
    return any(verdicts) if _is_discontinuous(model) else all(verdicts)


def _is_discontinuous(model: OnnxModel) -> bool:
    return any(record(node).jumps for node in model.proto.graph.node)


def _convert(normalised: Normalised) -> nn.Module:
    """Ask the library's registry for the module of each node and wire them."""
    graph = onnx2torch.onnx_graph.OnnxGraph(normalised.proto.graph)
    steps, origins, used = [], [], set()
    for node in graph.nodes.values():
        module, mapping = _operator(node, graph, normalised)
        steps.append((module, mapping.inputs, node.output_values))
        origins.append(_origin(node.name, normalised))
        used.update(mapping.inputs)
    constants = {name: tensor.to_torch() for name, tensor in graph.initializers.items() if name in used}
    sources = _sources(normalised.facts)
    return ImportedModel(graph.input_values, graph.output_values, constants, steps, origins, sources)


def _origin(name: str, normalised: Normalised) -> str:
    """Where an emitted node comes from; the file alone for those that only name the outputs."""
    source = normalised.source_nodes.get(name)
    return str(normalised.facts.path) if source is None else normalised.facts.where(source)


def _sources(facts: TensorFacts) -> Iterable[SourceNode]:
    for node in facts.nodes:
        if not all(name in facts.constants for name in node.output if name):
            yield SourceNode(facts.where(node), node.op_type, sum(facts.size(name) for name in node.output))


def _operator(node: Any, graph: Any, normalised: Normalised) -> Any:
    """The module of one node and which of its operands it still takes."""
    versions = {entry.domain: entry.version for entry in normalised.proto.opset_import}
    where = _origin(node.name, normalised)
    try:
        convert = onnx2torch.node_converters.registry.get_converter(
            node.operation_type, versions[node.domain], node.domain
        )
        return convert(node, graph)
    except NotImplementedError:  # the registry has no converter, and says so in its own terms
        raise UnsupportedError(f"{where}: not supported") from None
    except Exception as error:  # a converter refuses with whatever it likes
        raise UnsupportedError(f"{where}: not supported ({one_line(error)})") from None


def _check_probe(model: OnnxModel, module: nn.Module, normalised: Normalised) -> None:
    """Compare with what onnxruntime made of the file as it is, functions and all, and on both sides of zero."""
    inputs, expected = [normalised.facts.values[info.name] for info in model.inputs], normalised.outputs
    largest = _largest(normalised)
    agrees = _agree(model, module, inputs, expected) or check_import(model, module)
    # Large numbers inside may have cancelled, and left their rounding; what is bounded is judged later, by its errors.
    agrees = agrees or _agree(model, module, inputs, expected, CANCELLATION_SHARE * largest)
    if not agrees or not _agrees_widely(model, module, largest):
        raise UnsupportedError(f"{model.path}: the imported network does not compute what onnxruntime does")


def _largest(normalised: Normalised) -> float:
    """Largest finite number that a node computed for the sample."""
    values, constants = normalised.facts.values, normalised.facts.constants
    names = [name for node in normalised.proto.graph.node for name in node.output if name in values]
    arrays = [values[name] for name in names if name not in constants and values[name].dtype.kind == "f"]
    return max((float(np.abs(a[np.isfinite(a)]).max(initial=0.0)) for a in arrays), default=0.0)


def _agrees_widely(model: OnnxModel, module: nn.Module, largest: float) -> bool:
    """Whether some random inputs of either sign agree at each scale; True for what is costly to try.

    Values that are not finite are left out, and so are networks that jump. ``largest`` is the largest number inside
    the network at the probe, whose rounding may be left in an output.
    """
    if len(model.data) > tuned().networks.most_tried_bytes or _is_discontinuous(model):
        return True
    session = Session(model, optimise=False)

    def agrees(seed: int, scale: float) -> bool:
        inputs = _scaled_inputs(model, seed, scale)
        try:
            expected = session.run_undeclared(inputs)
        except InputError:  # what onnxruntime refuses to compute here is no measure
            return True
        return _agree(model, module, inputs, expected, CANCELLATION_SHARE * largest * scale, where_finite=True)

    return all(any(agrees(seed, scale) for seed in range(tuned().networks.import_samples)) for scale in SCALES)


def _scaled_inputs(model: OnnxModel, seed: int, scale: float) -> list[NDArray[Any]]:
    """Inputs between plus and minus the scale; integers as they are in `sample_inputs`."""
    rng = np.random.default_rng(seed)
    return [
        array if array.dtype.kind != "f" else rng.uniform(-scale, scale, array.shape).astype(array.dtype)
        for array in sample_inputs(model, seed)
    ]


def _agree(
    model: OnnxModel,
    module: nn.Module,
    inputs: Sequence[NDArray[Any]],
    expected: Sequence[NDArray[Any]],
    slack: float = 0.0,
    where_finite: bool = False,
) -> bool:
    try:
        with torch.no_grad():
            outputs = module(*(torch.from_numpy(array) for array in inputs))
    except Exception as error:  # whatever a converter's module raises, it is not the network
        raise UnsupportedError(f"{model.path}: the imported network fails ({one_line(error)})") from None
    pairs = [(output.numpy(), reference) for output, reference in zip(outputs, expected, strict=True)]
    if any(output.shape != reference.shape for output, reference in pairs):
        return False
    if where_finite:
        pairs = [(np.where(known, a, 0), np.where(known, b, 0)) for a, b in pairs for known in [np.isfinite(b)]]
    return all(close(output, reference, slack) for output, reference in pairs)


def _inputs_in(model: OnnxModel, box: Box, seed: int) -> list[NDArray[Any]]:
    lower, upper = box
    point = lower + np.random.default_rng(seed).random(lower.shape) * (upper - lower)
    offsets = np.cumsum([0] + [info.size for info in model.inputs])
    return [
        point[start : start + info.size].reshape(info.shape).astype(info.dtype)
        for start, info in zip(offsets[:-1], model.inputs, strict=True)
    ]
