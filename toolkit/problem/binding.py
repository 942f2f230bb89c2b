"""From an ONNX model to what `compile_problem` traces: its torch module with the shapes and types it takes."""

from __future__ import annotations

import torch

from toolkit.errors import UnsupportedError
from toolkit.formats.onnx_file import OnnxModel
from toolkit.formats.onnx_import import import_module
from toolkit.problem.compile import Binding

DTYPES = {"float32": torch.float32, "float64": torch.float64, "float16": torch.float16}
"""Element types a bounded input may have."""


def bind_module(model: OnnxModel) -> Binding:
    """Import a model. Raises UnsupportedError for operators without a converter and for inputs that are not floats."""
    for info in model.inputs:
        if info.dtype not in DTYPES:
            raise UnsupportedError(f"{model.path}: input '{info.name}' has element type {info.dtype}; only floating "
                                   "point inputs can be bounded")  # fmt: skip
    return Binding(
        import_module(model),
        tuple(info.shape for info in model.inputs),
        tuple(DTYPES[info.dtype] for info in model.inputs),
    )
