"""Running a model with onnxruntime on the CPU: the semantics that witnesses are judged by. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from toolkit.errors import InputError, UnsupportedError, one_line
from toolkit.formats.onnx.model_file import OnnxModel, TensorInfo
from toolkit.run.memory_limits import refused

_FATAL = 4


def close(output: NDArray[Any], reference: NDArray[Any], slack: float = 0.0) -> bool:
    """Whether two computations of one tensor agree up to the rounding of sums, in shape too.

    The largest finite entry sets the scale, for entries may cancel; ``slack`` is what they may be apart besides.
    Infinities agree with infinities of their sign, NaN with NaN alone. Not enough for a proof: that is judged by bounds
    on the errors of rounding (`toolkit.agreement`).
    """
    if output.shape != reference.shape:
        return False
    if reference.dtype.kind not in "fc":
        return bool(np.array_equal(output, reference))
    finite = np.isfinite(reference)
    if not np.array_equal(output[~finite], reference[~finite], equal_nan=True):
        return False
    scale = max(1.0, float(np.max(np.abs(reference[finite]), initial=0.0)))
    return bool(np.allclose(output[finite], reference[finite], rtol=1e-3, atol=1e-4 * scale + slack))


class Session:
    """An onnxruntime session of one model at its concrete shapes."""

    def __init__(
        self,
        model: OnnxModel,
        threads: int = 1,
        hidden: Sequence[str] = (),
        optimise: bool = True,
        fuse_quantised: bool = False,
    ) -> None:
        """Load ``model``; ``hidden`` names tensors inside the graph that are returned after the outputs.

        ``optimise=False`` leaves the graph as it is, which opens faster and runs slower. ``fuse_quantised`` lets
        onnxruntime replace operators between DequantizeLinear and QuantizeLinear by operators of integers, which is its
        habit; their results may be whole steps away from what the standard says.
        Raises :class:`UnsupportedError` when onnxruntime cannot load the model.
        """
        self.model = model
        self.inputs: tuple[TensorInfo, ...] = model.inputs
        self.outputs: tuple[TensorInfo, ...] = model.outputs
        self.hidden = tuple(hidden)
        self._names = [info.name for info in model.outputs] + list(hidden)
        self._threads, self._fuses = threads, fuse_quantised
        self._session = _open(model, _options(threads, optimise, fuse_quantised), hidden)

    @cached_property
    def fused(self) -> Session:
        """A session as onnxruntime opens one by itself: this one, unless activations of the model are quantised."""
        if self._fuses or b"QuantizeLinear" not in self.model.data:
            return self
        return Session(self.model, self._threads, self.hidden, fuse_quantised=True)

    @property
    def batched(self) -> bool:
        """Whether the model leaves the leading dimension of every input and output open."""
        return all(info.batched for info in (*self.inputs, *self.outputs))

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Outputs (and hidden tensors) for one sample, of the sizes that the model declares.

        ``inputs`` are in the model's order, with the model's number of elements each, in any shape; they are cast to
        the element types of the model. Raises :class:`InputError` when their number or sizes are wrong, or outputs
        have other sizes than the model declares.
        """
        outputs = self.run_undeclared(inputs)
        for info, array in zip(self.outputs, outputs, strict=False):  # hidden tensors come after
            if array.size != info.size:
                raise InputError(
                    f"{self.model.path}: output {info.name!r} has the shape {list(array.shape)}, and is declared as"
                    f" {list(info.shape)}; export the model again, or correct its declaration"
                )
        return outputs

    def run_undeclared(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Outputs (and hidden tensors) for one sample, of whatever sizes: where what the model declares is not asked.

        Raises :class:`InputError` when the number or the sizes of the inputs are wrong.
        """
        if len(inputs) != len(self.inputs):
            raise InputError(f"{self.model.path}: takes {len(self.inputs)} inputs, got {len(inputs)}")
        for info, array in zip(self.inputs, inputs, strict=True):
            if np.size(array) != info.size:
                raise InputError(
                    f"{self.model.path}: input {info.name!r} has {info.size} elements, got {np.size(array)}"
                )
        return self._call(inputs, ())

    def run_batch(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Outputs for B samples: each input is ``(B, size)`` and each output ``(B, size)``.

        One call when the model allows a batch, else one call for each sample.
        """
        count = len(inputs[0])
        if self.batched and all(info.shape[0] == 1 for info in self.inputs):
            try:
                outputs = self._call(inputs, (count,))
            except InputError:
                outputs = []  # an open leading dimension that the graph does not keep: sample by sample
            if outputs and self._are_rows(outputs, count):
                return [array.reshape(count, -1) for array in outputs]
        rows = [self.run([array[i] for array in inputs]) for i in range(count)]
        return [np.stack(column).reshape(count, -1) for column in zip(*rows, strict=True)]

    def _are_rows(self, outputs: Sequence[NDArray[Any]], count: int) -> bool:
        """Whether these are as many rows as there are samples, of the declared sizes."""
        sizes = [info.size for info in self.outputs]
        return all(array.size % count == 0 and len(array) == count for array in outputs) and all(
            array.size == count * size for array, size in zip(outputs, sizes, strict=False)
        )

    def takes_batches(self, inputs: Sequence[NDArray[Any]]) -> bool:
        """Whether one call for these samples, as in :meth:`run_batch`, gives the finite numbers that a call for each
        gives."""
        count = len(inputs[0])
        try:
            outputs = self._call(inputs, (count,))
        except InputError:
            return False
        rows = [self.run([array[i] for array in inputs]) for i in range(count)]
        columns = [np.stack(column).reshape(count, -1) for column in zip(*rows, strict=True)]
        return all(
            array.size == column.size and len(array) == count
            and np.isfinite(column).all() and close(array.reshape(count, -1), column)
            for array, column in zip(outputs, columns, strict=True)
        )  # fmt: skip

    def _call(self, inputs: Sequence[NDArray[Any]], batch: tuple[int, ...]) -> list[NDArray[Any]]:
        feed = {
            info.name: np.asarray(array, dtype=_numpy_type(info)).reshape((*batch, *info.shape[len(batch) :]))
            for info, array in zip(self.inputs, inputs, strict=True)
        }
        try:
            return list(self._session.run(self._names, feed))
        except Exception as error:  # onnxruntime's exceptions have no common base class
            if refused(error):
                raise MemoryError(f"onnxruntime runs {self.model.path}") from None
            raise InputError(f"{self.model.path}: onnxruntime failed ({one_line(error)})") from None


def _options(threads: int, optimise: bool, fuse_quantised: bool) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL
    # Waiting threads must not take cores from the other processes of a benchmark run.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not fuse_quantised:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        options.add_session_config_entry("session.disable_double_qdq_remover", "1")
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def _open(model: OnnxModel, options: onnxruntime.SessionOptions, hidden: Sequence[str]) -> onnxruntime.InferenceSession:
    data = _with_outputs(model, hidden) if hidden else model.data
    try:
        # Without fallback: it would try the same again, and print to stdout about it.
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"], enable_fallback=False)
    except Exception as error:  # onnxruntime's exceptions have no common base class
        if refused(error):
            raise MemoryError(f"onnxruntime loads {model.path}") from None
        advice = "; most operators have one for float32: export the network so" if "NOT_IMPL" in str(error) else ""
        raise UnsupportedError(f"{model.path}: onnxruntime cannot load the model ({one_line(error)}){advice}") from None


def _with_outputs(model: OnnxModel, names: Sequence[str]) -> bytes:
    """The model with more of its tensors listed as outputs; onnxruntime infers their types."""
    produced = {name for node in model.proto.graph.node for name in node.output}
    present = {info.name for info in model.outputs}
    missing = [name for name in names if name not in produced]
    if missing:
        raise InputError(f"{model.path}: no node of the graph has the output {missing[0]!r}")
    extra = onnx.ModelProto()
    extra.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names) if name not in present)
    # Serialised messages merge when they are joined, so the weights need not be written again.
    return model.data + bytes(extra.SerializeToString())


def expose(model: OnnxModel, names: Sequence[str]) -> OnnxModel:
    """``model`` with tensors inside its graph as further outputs, after its own.

    Their element types and shapes are learnt by running it once. Raises InputError for a name that no node has.
    """
    if not names:
        return model
    inputs = [np.zeros(info.shape, dtype=_numpy_type(info)) for info in model.inputs]
    values = Session(model, hidden=names, optimise=False).run_undeclared(inputs)[len(model.outputs) :]
    infos = [
        TensorInfo(name, str(value.dtype), value.shape, value.shape) for name, value in zip(names, values, strict=True)
    ]
    data = _with_outputs(model, names)
    proto = onnx.ModelProto.FromString(data)
    return replace(model, data=data, proto=proto, outputs=(*model.outputs, *infos))


def _numpy_type(info: TensorInfo) -> np.dtype[Any]:
    try:
        return np.dtype(info.dtype)
    except TypeError:
        raise UnsupportedError(f"input {info.name!r} has the element type {info.dtype}, which cannot be fed") from None
