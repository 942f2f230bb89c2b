"""The checker's reader of ONNX and its bounds, operator by operator, against onnxruntime."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from node_models import model_of, one
from onnx import TensorProto, helper, numpy_helper

from toolkit.proof.bounds import Model, Rows, backward, fresh_bounds
from toolkit.proof.linear_maps import exact_copy
from toolkit.proof.network import AffineStep, UnreadableError, load_network

RNG = np.random.default_rng(7)


def f(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


CASES = {
    "gemm": one("Gemm", (2, 3), (f(3, 4), f(4))),
    "gemm-trans": one("Gemm", (3, 2), (f(4, 3), f(2, 4)), transA=1, transB=1, alpha=0.5, beta=2.0),
    "gemm-no-bias": one("Gemm", (1, 3), (f(3, 4),), alpha=0.3),
    "matmul": one("MatMul", (2, 3, 4), (f(4, 5),)),
    "matmul-vector": one("MatMul", (4,), (f(4, 5),)),
    "matmul-left": model_of([("MatMul", ["w", "x"], ["y"], {})], (2, 4, 3), {"w": f(5, 4)}),
    "conv": one("Conv", (1, 3, 5, 6), (f(4, 3, 3, 2), f(4)), pads=[1, 0, 2, 1], strides=[2, 1]),
    "conv-1d": one("Conv", (2, 3, 7), (f(4, 3, 3),), dilations=[2]),
    "conv-3d": one("Conv", (1, 2, 3, 4, 3), (f(2, 2, 2, 2, 2), f(2))),
    "conv-groups": one("Conv", (1, 4, 5, 5), (f(6, 2, 3, 3), f(6)), group=2, dilations=[1, 2]),
    "conv-same-upper": one("Conv", (1, 2, 5, 6), (f(3, 2, 2, 4),), auto_pad="SAME_UPPER", strides=[2, 3]),
    "conv-same-lower": one("Conv", (1, 2, 5, 6), (f(3, 2, 2, 4),), auto_pad="SAME_LOWER", strides=[2, 3]),
    "conv-valid": one("Conv", (1, 2, 5, 6), (f(3, 2, 2, 4),), auto_pad="VALID"),
    "conv-transpose": one("ConvTranspose", (1, 3, 4, 3), (f(3, 2, 3, 2), f(2)), strides=[2, 3], pads=[1, 0, 0, 1]),
    "conv-transpose-groups": one(
        "ConvTranspose", (2, 4, 3, 3), (f(4, 3, 3, 3),), group=2, strides=[2, 2], dilations=[2, 1],
        output_padding=[1, 1],
    ),
    "average-pool": one("AveragePool", (1, 2, 5, 5), kernel_shape=[3, 2], pads=[1, 1, 1, 0], strides=[2, 1]),
    "average-pool-pads": one("AveragePool", (1, 2, 5, 5), kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1),
    "global-average-pool": one("GlobalAveragePool", (1, 3, 4, 5)),
    "max-pool": one("MaxPool", (1, 2, 5, 6), kernel_shape=[2, 3], strides=[2, 1], pads=[0, 1, 1, 1]),
    "max-pool-dilated": one("MaxPool", (1, 2, 7), kernel_shape=[3], dilations=[2]),
    "batch-norm": one("BatchNormalization", (2, 3, 4), (f(3), f(3), f(3), abs(f(3)) + 0.1)),
    "batch-norm-flat": one("BatchNormalization", (1, 3), (f(3), f(3), f(3), abs(f(3)) + 0.1), epsilon=0.01),
    "batch-norm-image": one("BatchNormalization", (1, 3, 2, 4), (f(3), f(3), f(3), abs(f(3)) + 0.1)),
    "relu": one("Relu", (2, 9)),
    "leaky": one("LeakyRelu", (2, 9), alpha=0.2),
    "leaky-default": one("LeakyRelu", (2, 9)),
    "leaky-steep": one("LeakyRelu", (2, 9), alpha=1.7),
    "leaky-negative": one("LeakyRelu", (2, 9), alpha=-0.4),
    "clip": one("Clip", (2, 9), (np.float32(-0.3), np.float32(0.7))),
    "clip-below": one("Clip", (2, 9), (np.float32(0.2),)),
    "clip-above": one("Clip", (2, 9), (None, np.float32(0.2))),
    "clip-6": one("Clip", (2, 9), opset=7, min=-0.5, max=0.25),
    "abs": one("Abs", (2, 9)),
    "sigmoid": one("Sigmoid", (2, 9)),
    "tanh": one("Tanh", (2, 9)),
    "add": one("Add", (2, 3), (f(4, 1, 3),)),
    "add-scalar": one("Add", (2, 3), (np.float32(1.5),)),
    "sub": one("Sub", (2, 3), (f(3),)),
    "sub-left": model_of([("Sub", ["c", "x"], ["y"], {})], (2, 3), {"c": f(3)}),
    "mul": one("Mul", (2, 1), (f(3),)),
    "div": one("Div", (2, 3), (f(2, 1),)),
    "add-two": model_of([("Relu", ["x"], ["r"], {}), ("Add", ["x", "r"], ["y"], {})], (2, 3)),
    "add-same": model_of([("Add", ["x", "x"], ["y"], {})], (2, 3)),
    "sub-wide": model_of(
        [("ReduceSum", ["x", "a"], ["r"], {}), ("Sub", ["x", "r"], ["y"], {})], (2, 3), {"a": ints(1)}),
    "neg": one("Neg", (2, 3)),
    "reshape": one("Reshape", (2, 3, 4), (ints(0, -1, 2),)),
    "reshape-flatten-chain": model_of(
        [("Shape", ["x"], ["s"], {}), ("Gather", ["s", "i"], ["b"], {"axis": 0}), ("Unsqueeze", ["b", "z"], ["u"], {}),
         ("Concat", ["u", "m"], ["t"], {"axis": 0}), ("Reshape", ["x", "t"], ["y"], {})],
        (2, 3, 4), {"i": np.array(0), "z": ints(0), "m": ints(-1)}),
    "flatten": one("Flatten", (2, 3, 4), axis=2),
    "transpose": one("Transpose", (2, 3, 4), perm=[2, 0, 1]),
    "transpose-default": one("Transpose", (2, 3, 4)),
    "squeeze": one("Squeeze", (1, 3, 1), (ints(0),)),
    "squeeze-11": one("Squeeze", (1, 3, 1), opset=11, axes=[2]),
    "unsqueeze": one("Unsqueeze", (3, 2), (ints(0, -1),)),
    "slice": one("Slice", (4, 5, 6), (ints(1, -2), ints(3, 100), ints(0, 2))),
    "slice-steps": one("Slice", (4, 5, 6), (ints(-1, 4, 1), ints(-100, 0, 6), ints(0, 1, 2), ints(-1, -2, 2))),
    "slice-all-backwards": one("Slice", (3, 2), (ints(-1, 5), ints(-100, -100), ints(0, 1), ints(-1, -1))),
    "expand": one("Expand", (1, 3), (ints(2, 4, 1),)),
    "tile": one("Tile", (2, 3), (ints(2, 1),)),
    "depth-to-space": one("DepthToSpace", (1, 8, 2, 3), blocksize=2, mode="CRD"),
    "space-to-depth": one("SpaceToDepth", (1, 2, 4, 6), blocksize=2),
    "split-uneven": model_of([("Split", ["x"], ["a", "b", "c"], {"num_outputs": 3, "axis": -1}),
                              ("MatMul", ["c", "w"], ["y"], {})], (2, 8), {"w": f(2, 3)}, opset=18),
    "slice-9": one("Slice", (4, 5), opset=9, starts=[1], ends=[-1], axes=[1]),
    "gather": one("Gather", (4, 5), (np.array([[0, -1], [2, 2]]),), axis=1),
    "gather-scalar": one("Gather", (4, 5), (np.array(3),), axis=0),
    "pad": one("Pad", (2, 3), (ints(0, 1, 2, 0), np.float32(1.5))),
    "pad-reflect": one("Pad", (2, 3), (ints(0, 1, 0, 2),), mode="reflect"),
    "pad-edge": one("Pad", (2, 3), (ints(2, 1, 0, 2),), mode="edge"),
    "pad-axes": one("Pad", (2, 3), (ints(1, 2), np.float32(-1.5), ints(-1)), opset=18),
    "pad-zero": one("Pad", (2, 3), (ints(0, 1, 2, 0),)),
    "pad-10": one("Pad", (2, 3), opset=10, pads=[1, 0, 0, 1], value=0.5),
    "concat": model_of([("Neg", ["x"], ["n"], {}), ("Concat", ["x", "c", "n", "x"], ["y"], {"axis": 1})], (2, 3),
                       {"c": f(2, 2)}),
    "split": model_of([("Split", ["x", "s"], ["a", "b"], {"axis": 1}), ("MatMul", ["b", "w"], ["y"], {})], (2, 5),
                      {"s": ints(2, 3), "w": f(3, 2)}),
    "split-11": model_of([("Split", ["x"], ["a", "b"], {"axis": 1}), ("Sub", ["a", "b"], ["y"], {})], (2, 4), opset=11),
    "split-two-outputs": one("Split", (2, 5), opset=11, outputs=("y", "z"), axis=1, split=[2, 3]),
    "identity": one("Identity", (2, 3)),
    "dropout": one("Dropout", (2, 3)),
    "dropout-11": one("Dropout", (2, 3), opset=11, ratio=0.3),
    "widened": model_of([("ReduceSum", ["x", "a"], ["r"], {"keepdims": 0}), ("Add", ["r", "c"], ["y"], {})], (2, 3),
                        {"a": ints(0), "c": f(3, 1)}),
    "reduce-sum": one("ReduceSum", (2, 3, 4), (ints(0, 2),)),
    "reduce-sum-11": one("ReduceSum", (2, 3, 4), opset=11, axes=[1], keepdims=0),
    "reduce-sum-all": one("ReduceSum", (2, 3, 4)),
    "reduce-mean": one("ReduceMean", (2, 3, 4), axes=[-1], keepdims=0),
    "reduce-mean-18": one("ReduceMean", (2, 3, 4), (ints(1),), opset=18),
    "constant-node": model_of(
        [("Constant", [], ["c"], {"value": numpy_helper.from_array(f(3))}), ("Add", ["x", "c"], ["y"], {})], (2, 3)),
    "residual": model_of(
        [("Gemm", ["x", "w"], ["a"], {}), ("Relu", ["a"], ["b"], {}), ("Gemm", ["b", "w"], ["c"], {}),
         ("Add", ["c", "x"], ["d"], {}), ("Tanh", ["d"], ["e"], {}), ("Abs", ["e"], ["g"], {}),
         ("MatMul", ["g", "w"], ["y"], {})], (1, 4), {"w": f(4, 4)}),
}  # fmt: skip


def random_convolution(generator: np.random.Generator, axes: int) -> onnx.ModelProto:
    """A convolution with random windows and groups."""
    groups, inside, outside = (int(n) for n in generator.integers(1, 4, 3))
    kernel = generator.integers(1, 4, axes).tolist()
    attributes = {
        "group": groups,
        "strides": generator.integers(1, 4, axes).tolist(),
        "dilations": generator.integers(1, 3, axes).tolist(),
        "pads": generator.integers(0, 3, 2 * axes).tolist(),
    }
    size = [int(n) + 5 for n in generator.integers(0, 4, axes)]
    operands = [f(groups * outside, inside, *kernel)]
    if generator.random() < 0.7:
        operands.append(f(groups * outside))
    if generator.random() < 0.5:
        attributes["kernel_shape"] = kernel
    return one("Conv", (1, groups * inside, *size), operands, **attributes)


CASES |= {
    f"conv-random-{axes}-{seed}": random_convolution(np.random.default_rng(100 * axes + seed), axes)
    for axes in (1, 2)
    for seed in range(12)
}


@pytest.fixture(params=CASES)
def case(request, tmp_path):
    """A model, its session, and the checker's network."""
    model = CASES[request.param]
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session, load_network(path), path


def replayed(session, x):
    return np.concatenate([np.ravel(part) for part in session.run(None, {"x": x})]).astype(float)


def shape_of(session):
    return [size if isinstance(size, int) else 1 for size in session.get_inputs()[0].shape]


def test_values(case):
    """The range over a box of one point is narrow and is where onnxruntime is, up to single precision."""
    session, network, _ = case
    for _ in range(5):
        x = f(*shape_of(session))
        point = x.astype(float).reshape(1, -1)
        bounds = fresh_bounds(Model.of(network), point, point, [])
        low, high = bounds.lower[network.output][0], bounds.upper[network.output][0]
        assert (high - low <= 1e-9).all()
        np.testing.assert_allclose(replayed(session, x), low, rtol=2e-5, atol=2e-5)


def test_ranges(case):
    """Ranges, and backward passes of random functionals, hold at random points of a box, several boxes at once."""
    session, network, _ = case
    centres = np.stack([f(*shape_of(session)).ravel() for _ in range(3)]).astype(float)
    radius = abs(f(*centres.shape)).astype(float) * np.array([[1.0], [0.1], [3.0]])
    bounds = fresh_bounds(Model.of(network), centres - radius, centres + radius, [])
    weights = RNG.normal(size=(6, network.sizes[network.output]))
    owner = np.array([0, 1, 2, 2, 1, 0])
    found = backward(bounds, Rows(owner, {network.output: weights}, np.zeros(6)))
    for _ in range(40):
        corner = RNG.choice([-1.0, 1.0, 2.0], centres.shape)
        part = np.where(corner == 2, RNG.uniform(-1, 1, centres.shape), corner)
        x = (centres + part * radius).astype(np.float32)
        for number in range(3):
            y = replayed(session, x[number].reshape(shape_of(session)))
            slack = 1e-4 * (1 + abs(y).max())
            assert (y >= bounds.lower[network.output][number] - slack).all()
            assert (y <= bounds.upper[network.output][number] + slack).all()
            for row in np.flatnonzero(owner == number):
                value = weights[row] @ y
                assert value >= found.least[row] - 10 * slack
                assert value >= found.coefficients[row] @ x[number] + found.constant[row] - 10 * slack


def test_adjoint_and_exact_copy(case):
    """The two directions of each map belong together, and the exact matrix is the map."""
    network = case[1]
    for step in network.steps:
        for _, linear in step.terms if isinstance(step, AffineStep) else ():
            x, y = RNG.normal(size=(2, linear.inputs)), RNG.normal(size=(2, linear.outputs))
            np.testing.assert_allclose((linear.forward(x) * y).sum(1), (x * linear.adjoint(y)).sum(1), atol=1e-9)
            assert (linear.magnitude.forward(abs(x)) >= abs(linear.forward(x)) - 1e-9).all()
            if not linear.slack:
                exact = exact_copy(linear, np.vectorize(Fraction, otypes=[object]))
                np.testing.assert_allclose(exact.forward(x.astype(object)).astype(float), linear.forward(x), atol=1e-9)


REFUSED = {
    "slice from before the start": one("Slice", (4, 3), (ints(-9), ints(-100), ints(0), ints(-1))),
    "unknown attribute of a move": one("Transpose", (2, 3), surprise=1),
    "unknown operator": one("Sin", (2, 3)),
    "product of computed": model_of([("Mul", ["x", "x"], ["y"], {})], (2, 3)),
    "softmax inside": model_of([("Softmax", ["x"], ["s"], {}), ("Relu", ["s"], ["y"], {})], (2, 3)),
    "division by computed": model_of([("Div", ["c", "x"], ["y"], {})], (2, 3), {"c": f(3)}),
    "wrapping pad": one("Pad", (2, 3), (ints(0, 1, 0, 0),), mode="wrap", opset=19),
    "infinite pad": one("Pad", (2, 3), (ints(0, 1, 0, 0), np.float32(np.inf))),
    "cropping pad": one("Pad", (2, 3), (ints(0, 1, 0, -1),)),
    "infinite weight": one("MatMul", (1, 2), (np.array([[np.inf], [1]], np.float32),)),
    "nan bias": one("Add", (1, 2), (np.array([[np.nan, 1]], np.float32),)),
    "inexact constants": model_of([("Div", ["a", "b"], ["c"], {}), ("Add", ["x", "c"], ["y"], {})], (1,),
                                  {"a": np.float32(1), "b": np.float32(3)}),
    "ceil mode": one("MaxPool", (1, 1, 6), kernel_shape=[3], strides=[2], ceil_mode=1),
    "cast to integers": model_of([("Cast", ["x"], ["i"], {"to": TensorProto.INT64}),
                                  ("Cast", ["i"], ["y"], {"to": TensorProto.FLOAT})], (2,)),
    "unknown attribute": one("Relu", (2,), surprise=1),
    "another domain": one("Relu", (2,), domain="com.example"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_name_of_the_node(name, tmp_path):
    onnx.save(REFUSED[name], tmp_path / "m.onnx")
    with pytest.raises(UnreadableError, match="node 'n"):
        load_network(tmp_path / "m.onnx")


def test_external_data_and_types(tmp_path):
    """Weights beside the file are read and belong to the hash; half floats are exact."""
    model = one("MatMul", (1, 64), (f(64, 8),))
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    first = load_network(tmp_path / "m.onnx")
    data = bytearray((tmp_path / "w.bin").read_bytes())
    data[2] ^= 1
    (tmp_path / "w.bin").write_bytes(data)
    assert load_network(tmp_path / "m.onnx").digest != first.digest
    for entry in model.graph.initializer:
        entry.external_data.add(key="location", value="../w.bin")
        entry.data_location = TensorProto.EXTERNAL
    (tmp_path / "bad.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UnreadableError, match="external"):
        load_network(tmp_path / "bad.onnx")
    tenth = np.array([[0.1], [3.0]])
    for kind in (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE):
        weight = helper.make_tensor("w", kind, tenth.shape, tenth.ravel().tolist())
        model = model_of([("MatMul", ["x", "w"], ["y"], {})], (1, 2))
        model.graph.initializer.append(weight)
        onnx.save(model, tmp_path / "t.onnx")
        (step,) = load_network(tmp_path / "t.onnx").steps
        assert (step.terms[0][1].matrix == numpy_helper.to_array(weight).astype(float)).all()


@pytest.mark.parametrize("cut", range(0, 200, 7))
def test_damaged_models_are_unreadable_or_something_else(cut, tmp_path):
    """No damaged file makes the reader fail in another way than by its error."""
    data = bytearray(CASES["conv"].SerializeToString())
    data[cut % len(data)] ^= 1 << (cut % 8)
    path: Path = tmp_path / "m.onnx"
    path.write_bytes(data)
    try:
        load_network(path)
    except UnreadableError:
        return
