"""A network as a torch.fx graph of ATen operators, by running it once and writing down what it did.

Whatever does not depend on the inputs (shape arithmetic, folded weights) is evaluated on the way and becomes a
constant, so that the graph holds only the operators that matter. Piecewise-linear operators are written with ReLU
(`toolkit.problem.rewrites`), so that one relaxation and one way of branching serve them all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from toolkit.errors import UnsupportedError, one_line
from toolkit.formats.onnx.origins import current_origin
from toolkit.ops import ELEMENTWISE
from toolkit.problem.operator_table import EXACT_ON_CONSTANTS
from toolkit.problem.rewrites import REWRITES, Rewrite
from toolkit.problem.rewrites.elementwise import PRIMITIVES, ROUNDING, loses
from toolkit.problem.value_facts import is_nonnegative, may_be_undefined, minus_infinite

PORTABLE = {
    # A view asks for strides that only this run has (ReLU keeps those of a transposed tensor); its values do not.
    torch.ops.aten.view.default: torch.ops.aten.reshape.default,
    # torch writes the product of a vector and a matrix with it, on a tensor that nobody else sees.
    torch.ops.aten.squeeze_.dim: torch.ops.aten.squeeze.dim,
}
"""Operators that are recorded as others with the same values."""


FROM_ZERO = {
    PRIMITIVES[operator.name]: PRIMITIVES[operator.from_zero] for operator in ELEMENTWISE.values() if operator.from_zero
}
"""Operators without values below zero, and what they are recorded as where their argument is known not to be there."""


class _Recorder(TorchDispatchMode):
    """Appends every operator that touches a recorded tensor to an fx graph."""

    def __init__(self) -> None:
        super().__init__()
        self.graph = fx.Graph()
        self.root = torch.nn.Module()
        self.nodes: dict[int, fx.Node] = {}
        self.versions: dict[int, int] = {}
        """How often a constant had been changed in place when it was written down."""
        self.alive: list[torch.Tensor] = []  # ids are only unique while the tensors live
        self.folded = False
        """Whether some constant was computed on the way, and may be rounded."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here; saying so spares every command the import of torch's compiler (over a second)."""
        return False

    def bind(self, tensor: torch.Tensor, node: fx.Node) -> None:
        node.meta["shape"] = tuple(tensor.shape)
        self.nodes[id(tensor)] = node
        self.alive.append(tensor)

    def input(self, tensor: torch.Tensor) -> None:
        self.bind(tensor, self.graph.placeholder(f"x{len(self.nodes)}"))

    def constant(self, tensor: torch.Tensor) -> fx.Node:
        """The node of a constant's present value."""
        node, version = self.nodes.get(id(tensor)), tensor._version
        if node is not None and self.versions[id(tensor)] == version:
            return node
        name = f"c{len(self.root._buffers)}"
        self.root.register_buffer(name, tensor.detach().clone())
        node = self.graph.get_attr(name)
        node.meta["constant"] = True
        self.bind(tensor, node)
        self.versions[id(tensor)] = version
        return node

    def is_recorded(self, value: object) -> bool:
        node = self.nodes.get(id(value))
        return node is not None and "constant" not in node.meta

    def varies(self, argument: Any) -> bool:
        """Whether an argument depends on the inputs, lists included."""
        return any(self.is_recorded(tensor) for tensor in _tensors(argument))

    def as_argument(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return self.nodes[id(value)] if self.is_recorded(value) else self.constant(value)
        if isinstance(value, (list, tuple)):
            return type(value)(self.as_argument(item) for item in value)
        return value

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not self.varies((args, tuple(kwargs.values()))):
            result = func(*args, **kwargs)
            self.folded |= func not in EXACT_ON_CONSTANTS and any(t.is_floating_point() for t in _tensors(result))
            return result
        if func in REWRITES and REWRITES[func].when([self.varies(argument) for argument in args]):
            return self.rewritten(REWRITES[func], args, kwargs)
        _refuse_data_dependence(func)
        result = func(*args, **kwargs)
        self.record(func, args, kwargs, result)
        return result

    def rewritten(self, rewrite: Rewrite, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What a rewrite makes of an operator's arguments, with its own operators recorded."""
        if not rewrite.masked or not bool(torch.isneginf(args[0]).any()):
            with self:
                return rewrite(*args, **kwargs)
        node = self.nodes[id(args[0])]
        masked, zero = minus_infinite(self.root, node), torch.zeros((), dtype=args[0].dtype)
        with self:
            result = rewrite(*args, **kwargs, masked=masked)
            # What is undefined somewhere stays part of the program: nothing is proved there.
            return result + 0.0 * torch.where(masked, zero, args[0]) if may_be_undefined(node) else result

    def record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        if _rounds(args, kwargs, result):
            func, kwargs = _rounding(func, result.dtype), {}
        operands = tuple(self.as_argument(a) for a in args)
        if func in FROM_ZERO and is_nonnegative(self.root, operands[0]):
            func = FROM_ZERO[func]
        call = self.graph.call_function(
            PORTABLE.get(func, func),
            operands,
            {k: self.as_argument(v) for k, v in kwargs.items()},
        )
        call.meta["origin"] = current_origin()
        if isinstance(result, torch.Tensor):
            self.bind(result, call)
            return
        for index, part in enumerate(result):
            if isinstance(part, torch.Tensor):
                self.bind(part, self.graph.call_function(_getitem, (call, index)))


class _ReadingValues(TorchFunctionMode):
    """Refuses to hand out recorded values as numbers, past the dispatcher: they would look like constants then."""

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        reads = func in _NUMBERS or (func in _COPIES and not isinstance(args[0], torch.Tensor))
        if reads and self.recorder.varies(args):
            raise UnsupportedError(_DEPENDENT)
        return func(*args, **(kwargs or {}))


_NUMBERS = {torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.__array__, torch.Tensor.data_ptr}
_COPIES = {torch.tensor, torch.as_tensor, torch.asarray}
"""Functions that copy numbers into a tensor: of a list of tensors, they read the values."""
_DEPENDENT = "the network's control flow or a shape depends on the value of an input"


def _getitem(parts: Sequence[torch.Tensor], index: int) -> torch.Tensor:
    return parts[index]


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in _tensors(item)]
    return []


def _refuse_data_dependence(func: Any) -> None:
    if func is torch.ops.aten._local_scalar_dense.default:
        raise UnsupportedError(_DEPENDENT)
    if func._schema.is_mutable and func not in PORTABLE:
        raise UnsupportedError(f"operator {func} changes a tensor in place; export the network without it")


def _rounds(args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> bool:
    """Whether an operator was told to give a floating type that does not hold all numbers of its operands'."""
    if kwargs.get("dtype") is None or not result.dtype.is_floating_point:
        return False
    return any(tensor.is_floating_point() and loses(tensor.dtype, result.dtype) for tensor in _tensors(args))


def _rounding(func: Any, dtype: torch.dtype) -> Any:
    """The elementwise operator that is recorded for a conversion to a narrower type."""
    if func is not torch.ops.aten._to_copy.default or dtype not in ROUNDING:
        raise UnsupportedError(f"operator {func} rounds to {dtype}, which has no bounding rule")
    return ROUNDING[dtype]


def trace(function: Callable[..., torch.Tensor], examples: Sequence[torch.Tensor]) -> fx.GraphModule:
    """Record ``function(*examples)`` as a graph of ATen operators with one output.

    ``function`` must not branch on the values of its inputs. Every node carries its tensor's shape in
    ``node.meta["shape"]``. Raises UnsupportedError for data-dependent control flow and indices, and for in-place
    operators.
    """
    recorder = _Recorder()
    for example in examples:
        recorder.input(example)
    try:
        with torch.no_grad(), _ReadingValues(recorder), recorder:
            result = function(*examples)
    except (IndexError, RuntimeError, TypeError, ValueError) as error:
        # Shapes and weights are known to be right, so this is an operator that needs particular input values.
        where = next(iter(getattr(error, "__notes__", [])), "the network")
        raise UnsupportedError(f"{where}: cannot be traced ({one_line(error, 160)})") from error
    recorder.graph.output(recorder.as_argument(result))
    recorder.graph.eliminate_dead_code()
    module = fx.GraphModule(recorder.root, recorder.graph)
    module.meta["folded"] = recorder.folded
    return module
