"""torch to ONNX: operator set 13 with an open batch dimension, which every verifier reads.

torch's older exporter is used on purpose: it folds batch normalisation into convolutions and writes operator set 13;
the newer one writes 18 and later, which few verifiers read, and needs one more package.
"""

from __future__ import annotations

import copy
import gzip
import io
import os
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from toolkit import __version__
from toolkit.errors import UnsupportedError, one_line
from toolkit.formats.onnx.model_file import OnnxModel, load_model
from toolkit.formats.onnx.runtime import Session, close
from toolkit.tuning import tuned

OPSET = 13
_EXPORTING = threading.Lock()
"""torch's exporter keeps what it does in global variables, so that a process exports one network at a time."""


def export_model(
    module: nn.Module,
    example_input: torch.Tensor | Sequence[torch.Tensor],
    path: str | Path,
    metadata: Mapping[str, str] | None = None,
    *,
    batched: bool = True,
) -> OnnxModel:
    """Write ``module`` in evaluation mode to ``path`` (``.onnx`` or ``.onnx.gz``) and return the loaded file.

    ``example_input`` is one input, or one for each argument, with a leading batch dimension; that dimension is the only
    open one. Without ``batched`` there is no such dimension, and none is open. ``metadata`` is stored in the model. The
    file is put in place, atomically, only after onnxruntime agrees with ``module`` on random inputs in [0, 1]; it has
    the same bytes for the same module and metadata.

    Raises UnsupportedError when torch cannot export the module or onnxruntime computes something else.
    """
    path = Path(path)
    examples = [example_input] if isinstance(example_input, torch.Tensor) else list(example_input)
    examples = [example.detach().cpu() for example in examples]
    frozen = _copied(module).cpu().eval()
    proto = _with_metadata(_export(frozen, examples, path, batched), dict(metadata or {}))
    data = proto.SerializeToString(deterministic=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        draft.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
        model = replace(load_model(draft), path=path)
        _compare(frozen, examples, model, batched)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return model


def _copied(module: nn.Module) -> nn.Module:
    """A copy of a module. Tensors that its forward pass left behind, as masks of ``torch.nn.utils.prune`` do, and that
    cannot be copied for the gradients that they carry, go in by their values."""
    computed = [
        value
        for part in module.modules()
        for value in vars(part).values()
        if isinstance(value, torch.Tensor) and not value.is_leaf
    ]
    return copy.deepcopy(module, {id(tensor): tensor.detach().clone() for tensor in computed})


def _export(module: nn.Module, examples: Sequence[torch.Tensor], path: Path, batched: bool) -> onnx.ModelProto:
    """torch's export, in memory."""
    names = ["input"] if len(examples) == 1 else [f"input_{index}" for index in range(len(examples))]
    outputs = _output_names(module, examples)
    buffer = io.BytesIO()
    try:
        with _EXPORTING, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the older exporter says that it is deprecated
            torch.onnx.export(
                module,
                tuple(examples),
                # Streams are not in the signature of the newer exporter, which is not used here.
                buffer,  # type: ignore[arg-type]
                opset_version=OPSET,
                dynamo=False,
                input_names=names,
                output_names=outputs,
                dynamic_axes={name: {0: "batch"} for name in (*names, *outputs)} if batched else None,
            )
    except Exception as error:  # the exporter raises errors of many kinds
        reason = one_line(error)
        raise UnsupportedError(f"{path}: torch cannot export the network ({reason})") from None
    return onnx.ModelProto.FromString(buffer.getvalue())


def _output_names(module: nn.Module, examples: Sequence[torch.Tensor]) -> list[str]:
    with torch.no_grad():
        outputs = module(*examples)
    if isinstance(outputs, torch.Tensor):
        return ["output"]
    return [f"output_{index}" for index in range(len(outputs))]


def _with_metadata(model: onnx.ModelProto, metadata: dict[str, str]) -> onnx.ModelProto:
    """Name the producer, drop positions in source files, and store ``metadata`` sorted."""
    model.producer_name, model.producer_version = "prunecert", __version__
    model.graph.name = "main"
    for node in model.graph.node:
        node.ClearField("doc_string")
    onnx.helper.set_model_props(model, {key: metadata[key] for key in sorted(metadata)})
    return model


def _compare(module: nn.Module, examples: Sequence[torch.Tensor], model: OnnxModel, batched: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    samples = [
        torch.rand(tuned().networks.export_samples, *example.shape[int(batched) :], generator=generator).to(example)
        for example in examples
    ]
    with torch.no_grad():
        expected = module(*samples) if batched else torch.stack([module(*row) for row in zip(*samples, strict=True)])
    references = [expected] if isinstance(expected, torch.Tensor) else list(expected)
    outputs = Session(model).run_batch([np.asarray(sample) for sample in samples])
    for name, output, reference in zip(model.outputs, outputs, references, strict=True):
        if not close(output, reference.reshape(tuned().networks.export_samples, -1).numpy()):
            raise UnsupportedError(f"{model.path}: onnxruntime does not agree with torch on '{name.name}'")
