"""Many samples in one call of a model whose file fixes the leading dimensions at 1.

Most graphs would take a batch all the same. Here the declarations are opened, and so is the 1 that a Reshape names;
whether the samples then stay apart is tried out. No torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import onnx
import onnx.numpy_helper
from numpy.typing import NDArray

from toolkit.errors import InputError, UnsupportedError
from toolkit.formats.onnx.model_file import OnnxModel, TensorInfo
from toolkit.formats.onnx.runtime import Session
from toolkit.tuning import tuned


def batch_session(session: Session) -> Session:
    """A session that takes batches, for :meth:`Session.run_batch`; the given one where none can be had."""
    model = session.model
    ones = all(info.shape[:1] == (1,) for info in (*model.inputs, *model.outputs))
    if session.batched or not ones or len(model.data) > tuned().runtime.most_copied_bytes:
        return session
    generator = np.random.default_rng(0)
    samples = [generator.random((tuned().runtime.compared_samples, info.size)) for info in model.inputs]
    try:
        if _seconds(lambda: session.run([sample[0] for sample in samples])) > tuned().runtime.slow_run_seconds:
            return session
        opened = Session(_opened(model), hidden=session.hidden)
        return opened if opened.takes_batches(samples) else session
    except (InputError, UnsupportedError):
        return session


def _seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def _opened(model: OnnxModel) -> OnnxModel:
    """A copy that leaves its leading dimensions open."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    names = {info.name for info in (*model.inputs, *model.outputs)}
    for value in (*proto.graph.input, *proto.graph.output):
        if value.name in names and value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del proto.graph.value_info[:]
    _open_reshapes(proto.graph)

    def opened(info: TensorInfo) -> TensorInfo:
        return replace(info, declared_shape=("batch", *info.shape[1:]))

    inputs, outputs = tuple(map(opened, model.inputs)), tuple(map(opened, model.outputs))
    return replace(model, proto=proto, data=proto.SerializeToString(), inputs=inputs, outputs=outputs)


def _open_reshapes(graph: onnx.GraphProto) -> None:
    """Let a Reshape to [1, ...] keep the leading dimension that it finds, which 0 says."""
    constants = dict(_constants(graph))
    for number, node in enumerate(graph.node):
        shape = constants.get(node.input[1]) if node.op_type == "Reshape" and len(node.input) == 2 else None
        if shape is not None and shape.ndim == 1 and shape[:1] == [1]:
            opened = onnx.numpy_helper.from_array(np.append([0], shape[1:]), f"{node.name}_{number}_open_shape")
            graph.initializer.append(opened)
            node.input[1] = opened.name


def _constants(graph: onnx.GraphProto) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Constant tensors of integers by name."""
    for tensor in graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT64:
            yield tensor.name, onnx.numpy_helper.to_array(tensor)
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name == "value" and attribute.t.data_type == onnx.TensorProto.INT64:
                yield node.output[0], onnx.numpy_helper.to_array(attribute.t)
