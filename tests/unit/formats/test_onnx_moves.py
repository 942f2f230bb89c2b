"""Operators that move, repeat or interpolate elements: random nodes of every kind, against onnxruntime, and bounded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from toolkit.errors import UnsupportedError
from toolkit.formats.onnx.model_file import OnnxModel, load_model
from toolkit.formats.onnx.resize_matrix import run_alone
from toolkit.formats.onnx.torch_import import check_import, import_module
from toolkit.problem.program import build_program
from toolkit.problem.trace import trace

Rng = np.random.Generator
Case = tuple[onnx.NodeProto, int, tuple[int, ...], dict[str, np.ndarray]]
"""A node that reads ``x``, the operator set, the shape of ``x``, and the other operands."""


def _node(op_type: str, *operands: str, **attributes: Any) -> onnx.NodeProto:
    return onnx.helper.make_node(op_type, ["x", *operands], ["y"], **attributes)


def _shape(rng: Rng, rank: int, least: int = 1, most: int = 4) -> tuple[int, ...]:
    return tuple(int(size) for size in rng.integers(least, most + 1, rank))


def pad(rng: Rng) -> Case:
    """All modes, ranks, negative amounts and chosen axes; the amounts an attribute before version 11."""
    opset = int(rng.choice([2, 10, 11, 13, 18, 19, 21, 23]))
    modes = ["constant", "reflect", "edge"] + ["wrap"] * (opset >= 19)
    mode = str(rng.choice(modes))
    rank = int(rng.integers(1, 6)) if mode == "constant" or opset >= 11 else 4
    shape = _shape(rng, rank, 3)
    chosen = sorted(rng.choice(rank, int(rng.integers(1, rank + 1)), replace=False)) if opset >= 18 else range(rank)
    most = 3 if mode in ("constant", "edge") else 2
    amounts = rng.integers(-1, most, (2, len(chosen)))
    names, operands = [], {}
    if opset < 11:
        return _node("Pad", mode=mode, pads=amounts.reshape(-1).tolist(), value=1.5), max(opset, 7), shape, {}
    names, operands = ["p"], {"p": amounts.reshape(-1)}
    if mode == "constant" and rng.random() < 0.5:
        names, operands["v"] = ["p", "v"], np.float32(-0.75)
    if opset >= 18 and len(chosen) < rank:
        names = [*names, *[""] * (2 - len(names)), "a"]
        operands["a"] = np.array([axis - rank * int(rng.integers(2)) for axis in chosen])
    return _node("Pad", *names, mode=mode), opset, shape, operands


def depth_to_space(rng: Rng) -> Case:
    """With the order of channels named, or the default."""
    block = int(rng.integers(1, 4))
    shape = (1, int(rng.integers(1, 3)) * block**2, *_shape(rng, 2, 1, 3))
    mode = {} if rng.random() < 0.4 else {"mode": str(rng.choice(["DCR", "CRD"]))}
    return _node("DepthToSpace", blocksize=block, **mode), int(rng.choice([11, 13])), shape, {}


def space_to_depth(rng: Rng) -> Case:
    """Blocks of space."""
    block = int(rng.integers(1, 4))
    height, width = rng.integers(1, 3, 2) * block
    return _node("SpaceToDepth", blocksize=block), int(rng.choice([7, 13])), (1, 2, int(height), int(width)), {}


def gather(rng: Rng) -> Case:
    """Rows by indices of any rank."""
    shape = _shape(rng, int(rng.integers(1, 4)), 2)
    axis = int(rng.integers(-len(shape), len(shape)))
    index = rng.integers(-shape[axis], shape[axis], _shape(rng, int(rng.integers(0, 3))))
    return _node("Gather", "i", axis=axis), int(rng.choice([11, 13])), shape, {"i": np.asarray(index)}


def gather_elements(rng: Rng) -> Case:
    """Indices shorter than the operand along other axes, negative ones included."""
    shape = _shape(rng, int(rng.integers(1, 4)), 2)
    axis = int(rng.integers(-len(shape), len(shape)))
    sizes = [int(rng.integers(1, size + 1)) for size in shape]
    sizes[axis] = int(rng.integers(1, 6))
    index = rng.integers(-shape[axis], shape[axis], sizes)
    return _node("GatherElements", "i", axis=axis), int(rng.choice([11, 13])), shape, {"i": index}


def gather_nd(rng: Rng) -> Case:
    """Whole elements and parts, with batches."""
    shape = _shape(rng, int(rng.integers(2, 5)), 2, 3)
    shared = int(rng.integers(0, len(shape) - 1))
    depth = int(rng.integers(1, len(shape) - shared + 1))
    bounds = np.array(shape[shared : shared + depth])
    rows = (*shape[:shared], *_shape(rng, int(rng.integers(1, 3)), 1, 3))
    index = rng.integers(-bounds, bounds, (*rows, depth))
    return _node("GatherND", "i", batch_dims=shared), int(rng.choice([12, 13])), shape, {"i": index}


def reverse_sequence(rng: Rng) -> Case:
    """Along either of the first two axes."""
    shape = _shape(rng, int(rng.integers(2, 4)), 2)
    time = int(rng.integers(2))
    lengths = rng.integers(0, shape[time] + 1, shape[1 - time])
    return _node("ReverseSequence", "n", time_axis=time, batch_axis=1 - time), 13, shape, {"n": lengths}


def compress(rng: Rng) -> Case:
    """Rows of an axis, or elements."""
    shape = _shape(rng, int(rng.integers(1, 4)), 2)
    if rng.random() < 0.5:
        chosen, axis = rng.random(int(np.prod(shape))) < 0.6, {}
    else:
        axis = {"axis": int(rng.integers(-len(shape), len(shape)))}
        chosen = rng.random(shape[axis["axis"]]) < 0.6
    chosen[0] = True
    return _node("Compress", "c", **axis), int(rng.choice([9, 11])), shape, {"c": chosen}


def center_crop_pad(rng: Rng) -> Case:
    """Longer and shorter axes, odd differences."""
    shape = _shape(rng, 3, 1, 6)
    axes = sorted(int(axis) for axis in rng.choice(3, int(rng.integers(1, 4)), replace=False))
    return _node("CenterCropPad", "s", axes=axes), 18, shape, {"s": rng.integers(1, 7, len(axes))}


def scatter_nd(rng: Rng) -> Case:
    """Constant updates at distinct places."""
    shape = _shape(rng, int(rng.integers(1, 4)), 2)
    depth = int(rng.integers(1, len(shape) + 1))
    places = list(np.ndindex(shape[:depth]))
    chosen = rng.permutation(len(places))[: int(rng.integers(1, len(places) + 1))]
    index = np.array([places[k] for k in chosen])
    updates = rng.normal(size=(len(index), *shape[depth:])).astype(np.float32)
    return _node("ScatterND", "i", "u"), int(rng.choice([11, 13, 18])), shape, {"i": index, "u": updates}


def scatter_elements(rng: Rng) -> Case:
    """Constant updates at distinct places of each row."""
    shape = _shape(rng, int(rng.integers(1, 4)), 2)
    axis = int(rng.integers(-len(shape), len(shape)))
    sizes = [int(rng.integers(1, size + 1)) for size in shape]
    order = np.argsort(rng.random(shape), axis=axis)
    index = order[tuple(slice(size) for size in sizes)]
    updates = rng.normal(size=sizes).astype(np.float32)
    return (
        _node("ScatterElements", "i", "u", axis=axis),
        int(rng.choice([11, 13, 18])),
        shape,
        {"i": index, "u": updates},
    )


def trilu(rng: Rng) -> Case:
    """Either triangle, from any diagonal."""
    shape = _shape(rng, int(rng.integers(2, 4)), 2)
    return _node("Trilu", "k", upper=int(rng.integers(2))), 14, shape, {"k": rng.integers(-3, 4)}


EQUATIONS = {
    "ij->ji": 2, "ij->i": 2, "ij->": 2, "ii->i": 2, "ij": 2, "ji": 2, "ijk->kij": 3, "iij->j": 3, "...ij->...ji": 3,
    "i,i->i": 1, "ij,jk->ik": 2, "ij,kj->ik": 2, "ij,j->i": 2, "bij,bjk->bik": 3, "...i,i->...": 3, "ij,ij->": 2,
    "ik,jk": 2, "i,j->ij": 1,
}  # fmt: skip


def einsum(rng: Rng) -> Case:
    """Transposition, sums, diagonals and products with a constant; outputs named or not."""
    equation = str(rng.choice(list(EQUATIONS)))
    size = int(rng.integers(2, 4))
    shape = (size,) * EQUATIONS[equation]
    if "," not in equation:
        return _node("Einsum", equation=equation), 12, shape, {}
    second = equation.partition("->")[0].split(",")[1]
    weights = rng.normal(size=(size,) * len(second.replace("...", ""))).astype(np.float32)
    return _node("Einsum", "w", equation=equation), 12, shape, {"w": weights}


KINDS: list[Callable[[Rng], Case]] = [
    pad, depth_to_space, space_to_depth, gather, gather_elements, gather_nd, reverse_sequence, compress,
    center_crop_pad, scatter_nd, scatter_elements, trilu, einsum,
]  # fmt: skip
SEEDS = {pad: 40, einsum: 24}


def loaded(path: Path, case: Case) -> OnnxModel | None:
    """The model of a case; None where onnxruntime itself does not take it."""
    node, opset, shape, operands = case
    image = run_alone(node, opset, {"x": np.ones(shape, dtype=np.float32), **operands})
    if image is None:
        return None
    graph = onnx.helper.make_graph(
        [node],
        "one",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, image.shape)],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in operands.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return load_model(path)


def bounded(model: OnnxModel, module: torch.nn.Module) -> bool:
    """Whether the imported network is one that the verifier can bound, and the import agrees with onnxruntime."""
    shape, size = model.inputs[0].shape, model.inputs[0].size
    build_program(trace(lambda x: module(x.reshape(shape))[0].reshape(-1), [torch.rand(size)]))
    return check_import(model, module, (np.full(size, -2.0), np.full(size, 1.0)))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_moves_are_imported_and_bounded(tmp_path: Path, kind: Callable[[Rng], Case]) -> None:
    taken = 0
    for seed in range(SEEDS.get(kind, 12)):
        case = kind(np.random.default_rng(seed))
        model = loaded(tmp_path / "net.onnx", case)
        if model is None:
            continue
        taken += 1
        assert bounded(model, import_module(model)), (seed, case[:3])
    assert taken >= 6


MODES = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]
NEWER_MODES = ["half_pixel_symmetric", "tf_crop_and_resize"]
NEAREST = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]


def resize(rng: Rng) -> Case:
    """Every mode, coordinates, way to give sizes, with axes and policies, antialiased and cropped."""
    opset = int(rng.choice([10, 11, 13, 18, 19]))
    mode = str(rng.choice(["nearest", "linear"] + ["cubic"] * (opset >= 11)))
    rank = 4 if mode != "nearest" else int(rng.integers(2, 5))
    shape = (1, int(rng.integers(1, 3)), *_shape(rng, 2, 2, 5))[-rank:] if rank > 2 else _shape(rng, 2, 2, 5)
    spatial = list(range(max(rank - 2, 0), rank))
    scales = np.where(np.isin(np.arange(rank), spatial), rng.choice([0.5, 0.75, 1.0, 1.25, 2.0, 2.5], rank), 1.0)
    if opset == 10:
        return _node("Resize", "s", mode=mode), 10, shape, {"s": scales.astype(np.float32)}
    attributes: dict[str, Any] = {"mode": mode}
    modes = MODES + NEWER_MODES[: 1 if opset >= 19 else 0] + (NEWER_MODES[1:] if rng.random() < 0.5 else [])
    attributes["coordinate_transformation_mode"] = coordinates = str(rng.choice(modes))
    if mode == "nearest":
        attributes["nearest_mode"] = str(rng.choice(NEAREST))
    elif mode == "cubic":
        attributes.update(cubic_coeff_a=float(rng.choice([-0.5, -0.75])), exclude_outside=int(rng.integers(2)))
    axes = spatial if opset >= 18 and rng.random() < 0.6 else list(range(rank))
    if axes != list(range(rank)):
        attributes["axes"] = axes
    if opset >= 18 and mode != "nearest" and rng.random() < 0.4 and coordinates != "tf_crop_and_resize":
        attributes["antialias"] = 1
    operands: dict[str, np.ndarray] = {}
    names = ["", "", ""]
    if coordinates == "tf_crop_and_resize":
        low, high = rng.uniform(0, 0.3, len(axes)), rng.uniform(0.6, 1.1, len(axes))
        whole = ~np.isin(axes, spatial)
        names[0], operands["r"] = "r", np.r_[np.where(whole, 0, low), np.where(whole, 1, high)].astype(np.float32)
    if rng.random() < 0.5:
        names[1], operands["s"] = "s", scales[axes].astype(np.float32)
        names = names[:2]
    else:
        sizes = np.where(np.isin(axes, spatial), rng.integers(1, 8, len(axes)), np.array(shape)[axes])
        names[2], operands["z"] = "z", sizes
        if "axes" in attributes and rng.random() < 0.5:
            attributes["keep_aspect_ratio_policy"] = str(rng.choice(["not_larger", "not_smaller", "stretch"]))
    return _node("Resize", *names, **attributes), opset, shape, operands


def test_resizing_is_imported_and_bounded_or_refused(tmp_path: Path) -> None:
    taken = refused = 0
    of_axes: list[bool] = []
    for seed in range(60):
        case = resize(np.random.default_rng(seed))
        model = loaded(tmp_path / "net.onnx", case)
        if model is None:
            continue
        try:
            module = import_module(model)
        except UnsupportedError as error:
            assert "Resize" in str(error) or "onnxruntime" in str(error), error
            refused += 1
            continue
        taken += 1
        assert bounded(model, module), (seed, case[:3])
        of_axes.append(any(entry.name == "axes" for entry in case[0].attribute))
    assert taken >= 30
    assert sum(of_axes) >= 5
    assert refused < taken / 2
