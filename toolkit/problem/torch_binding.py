"""From an ONNX model to what `compile_problem` traces: its torch module with the shapes and types it takes."""

from __future__ import annotations

import torch

from toolkit.formats.onnx.model_file import OnnxModel
from toolkit.formats.onnx.operators import check_inputs
from toolkit.formats.onnx.torch_import import import_module
from toolkit.problem.compile import Binding

DTYPES = {"float32": torch.float32, "float64": torch.float64, "float16": torch.float16}
"""Element types a bounded input may have."""


def bind_module(model: OnnxModel) -> Binding:
    """Import a model. Raises UnsupportedError for operators without a converter and for inputs that are not floats."""
    check_inputs(model)
    return Binding(
        import_module(model),
        tuple(info.shape for info in model.inputs),
        tuple(DTYPES[info.dtype] for info in model.inputs),
    )
