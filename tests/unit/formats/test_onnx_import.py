"""The imported torch module computes what onnxruntime computes: real networks, torch's exporters, single operators."""

import contextlib
import io
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_models import load_text, node_model, relu_net
from torch import nn

import toolkit
from toolkit.errors import ToolkitError, UnsupportedError
from toolkit.formats.onnx.model_file import load_model
from toolkit.formats.onnx.torch_import import check_import, import_module

VNNCOMP = Path(os.environ.get("VNNCOMP_DIR", "none"))
UNUSED = {"mscn_2048d.onnx.gz", "mscn_2048d_dual.onnx.gz"}  # Git LFS pointers in the public repository
LARGE = ("N=M=40", "N=M=48", "N=M=56", "N=M=64")  # same architecture as smaller ones
NETWORKS = [
    path
    for path in sorted(VNNCOMP.glob("*/onnx/*.onnx*"))
    if path.name not in UNUSED and not any(size in path.name for size in LARGE)
]


REFUSED = {"cctsdb_yolo": "the shape of its result depends on the value of"}
"""Families of which no network has fixed shapes, and what is said of them."""


def _families(refused: bool) -> list[str]:
    return sorted({path.parent.parent.name for path in NETWORKS if (path.parent.parent.name in REFUSED) == refused})


@pytest.mark.parametrize("family", _families(refused=True))
def test_vnncomp_networks_without_fixed_shapes_are_refused(family: str) -> None:
    for path in (path for path in NETWORKS if path.parent.parent.name == family):
        with pytest.raises(UnsupportedError, match=REFUSED[family]):
            import_module(load_model(path))


@pytest.mark.skipif(not NETWORKS, reason="VNNCOMP_DIR is not set")
@pytest.mark.parametrize("family", _families(refused=False))
def test_vnncomp_networks(family: str) -> None:
    for path in (path for path in NETWORKS if path.parent.parent.name == family):
        model = load_model(path)
        module = import_module(model)
        assert check_import(model, module, samples=2), path
        outputs = module(*(torch.zeros(info.shape) for info in model.inputs))
        assert [tuple(output.shape) for output in outputs] == [info.shape for info in model.outputs]


class Call(nn.Module):
    """A function of the input and some modules."""

    def __init__(self, function: Callable[..., torch.Tensor], *modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.parts = nn.ModuleList(modules)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x, *self.parts)


def _flat(*parts: torch.Tensor) -> torch.Tensor:
    return torch.cat([part.flatten(1) for part in parts], 1)


IMAGE, ROW, SEQUENCE = (1, 3, 8, 8), (1, 12), (1, 5, 8)
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 4)), IMAGE),
    "view": (lambda: Call(lambda x, m: m(x.view(x.size(0), -1)), nn.Linear(192, 4)), IMAGE),
    "conv": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.BatchNorm2d(8),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 4),
        ),
        IMAGE,
    ),
    "residual": (
        lambda: Call(lambda x, a, b: nn.functional.relu(a(x) + b(x)), nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(3, 4, 1, 2)),
        IMAGE,
    ),
    "pooling": (
        lambda: nn.Sequential(nn.MaxPool2d(2), nn.AvgPool2d(2, padding=1), nn.AdaptiveMaxPool2d(1), nn.Flatten()),
        IMAGE,
    ),
    "activations": (
        lambda: Call(
            lambda x: _flat(
                nn.functional.leaky_relu(x),
                nn.functional.elu(x),
                x.sigmoid(),
                x.tanh(),
                nn.functional.softplus(x),
                nn.functional.gelu(x),
                nn.functional.silu(x),
                x.abs(),
                x.exp(),
                nn.functional.hardtanh(x, -0.2, 0.3),
                nn.functional.relu6(x),
                x.sin(),
                x.cos(),
                x.sqrt(),
                x.sign(),
                x.erf(),
            )
        ),
        ROW,
    ),
    "arithmetic": (
        lambda: Call(
            lambda x: _flat(
                torch.maximum(x, x * x),
                torch.minimum(x, 1 - x),
                torch.where(x > 0.5, x, -x),
                x.clamp(min=0.3),
                x.clamp(max=0.3),
                x**3,
                1 / (1 + x),
                nn.functional.softmax(x, 1),
                nn.functional.log_softmax(x, 1),
                x.cumsum(1),
            )
        ),
        ROW,
    ),
    "reductions": (
        lambda: Call(
            lambda x: _flat(x.sum((1, 2)), x.mean(2), x.amax((1, 2)), x.amin(1), x.norm(dim=(1, 2)), x.logsumexp(1))
        ),
        IMAGE,
    ),
    "movement": (
        lambda: Call(
            lambda x: _flat(
                x[:, 1:, ::2, 3:7],
                x.flip(2),
                x.permute(0, 2, 3, 1),
                x.split([1, 2], 1)[1],
                nn.functional.pad(x, (1, 2, 0, 1), value=0.5),
                nn.functional.pad(x, (1, 2, 1, 1), mode="reflect"),
                x.repeat(1, 2, 1, 1),
                x[:, [2, 0]],
                torch.stack([x, x], 1),
                x.roll(1, 2),
                x[..., -1],
                nn.functional.interpolate(x, scale_factor=2),
                nn.functional.interpolate(x, scale_factor=2, mode="bilinear"),
            )
        ),
        IMAGE,
    ),
    "normalisations": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.InstanceNorm2d(8), nn.Flatten(), nn.LayerNorm(288)
        ),
        IMAGE,
    ),
    "transposed": (
        lambda: nn.Sequential(
            nn.ConvTranspose2d(3, 4, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(4, 4, 3, 2, 1, 1, groups=2)
        ),
        IMAGE,
    ),
    "padded": (
        lambda: nn.Sequential(nn.Conv2d(3, 6, 4, padding="same", groups=3), nn.Conv2d(6, 4, 3, dilation=2)),
        IMAGE,
    ),
    "attention": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu"), SEQUENCE),
}
EXPORTS = {
    "new": {"dynamo": True},
    "new-open-batch": {"dynamo": True, "dynamic_shapes": ({0: torch.export.Dim("batch")},)},
    "new-22": {"dynamo": True, "opset_version": 22},
    "old-17": {"dynamo": False, "opset_version": 17},
    "old-9": {"dynamo": False, "opset_version": 9},
}
OTHERS = [("conv", "new-open-batch"), ("movement", "new-22"), ("mlp", "old-9"), ("conv", "old-9")]
NEW, OLD = [(name, "new") for name in MODELS], [(name, "old-17") for name in MODELS if name != "attention"]


def _torch_export(module: nn.Module, shape: tuple[int, ...], path: Path, kind: str) -> None:
    silence = io.StringIO()
    logging.disable(logging.WARNING)
    with warnings.catch_warnings(), contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (torch.rand(shape),), str(path), **EXPORTS[kind])  # type: ignore[arg-type]
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize(("name", "kind"), [*NEW, *OLD, *OTHERS])
def test_what_torch_exports(tmp_path: Path, name: str, kind: str) -> None:
    build, shape = MODELS[name]
    torch.manual_seed(0)
    module = build().eval()
    _torch_export(module, shape, tmp_path / "net.onnx", kind)
    model = load_model(tmp_path / "net.onnx")
    imported = import_module(model)
    assert check_import(model, imported)
    x = torch.rand(shape)
    assert torch.allclose(imported(x)[0], module(x), atol=1e-4)


def _node(op_type: str, operands: int = 0, outputs: int = 1, **attributes: object) -> onnx.NodeProto:
    inputs = ["x", *(f"c{index}" for index in range(operands))]
    return onnx.helper.make_node(op_type, inputs, [f"y{index}" for index in range(outputs)], **attributes)


def _i(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def _f(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


A = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
SINGLE = {
    "flatten-1": (_node("Flatten", axis=2), 8, (1, 2, 3, 4), ()),
    "dropout-7": (_node("Dropout", ratio=0.5), 8, (1, 4), ()),
    "upsample-9": (_node("Upsample", 1, mode="nearest"), 9, (1, 2, 3, 4), (_f(1, 1, 2, 3),)),
    "upsample-7": (_node("Upsample", mode="linear", scales=[1.0, 1.0, 2.0, 2.0]), 7, (1, 2, 3, 4), ()),
    "resize-10": (_node("Resize", 1), 10, (1, 2, 3, 4), (_f(1, 1, 2, 2),)),
    "resize-13": (
        _node("Resize", 3, mode="cubic", coordinate_transformation_mode="align_corners"),
        13,
        (1, 2, 3, 4),
        (_f(), _f(), _i(1, 2, 7, 6)),
    ),
    "resize-19": (_node("Resize", 3, mode="linear", antialias=1), 19, (1, 2, 6, 8), (_f(), _f(), _i(1, 2, 3, 4))),
    "batchnorm-8": (
        _node("BatchNormalization", 4, epsilon=0.1),
        8,
        (1, 3, 2),
        (_f(1, 2, 3), _f(0, 1, 2), _f(3, 2, 1), _f(1, 2, 3)),
    ),
    "softmax-9": (_node("Softmax", axis=1), 9, (1, 2, 3), ()),
    "softmax-13": (_node("Softmax", axis=1), 13, (1, 2, 3), ()),
    "pad-2": (_node("Pad", pads=[0, 1, 2, 0], value=0.5), 10, (2, 3), ()),
    "pad-18": (_node("Pad", 3), 18, (2, 3), (_i(1, 2), np.float32(0.5), _i(-1))),
    "pad-negative": (_node("Pad", 1), 13, (2, 3), (_i(0, -1, 0, 1),)),
    "slice-9": (_node("Slice", starts=[1, -3], ends=[9, -1], axes=[0, 1]), 9, (3, 4), ()),
    "slice-back": (_node("Slice", 4), 13, (3, 4), (_i(-1), _i(-(2**62)), _i(1), _i(-2))),
    "split-18": (_node("Split", outputs=2, num_outputs=2, axis=1), 18, (3, 5), ()),
    "split-2": (_node("Split", outputs=2, split=[1, 4], axis=1), 11, (3, 5), ()),
    "reshape-zero": (_node("Reshape", 1), 13, (2, 3, 4), (_i(0, -1),)),
    "reshape-allowzero": (_node("Reshape", 1, allowzero=1), 18, (2, 3, 4), (_i(4, 6),)),
    "squeeze-21": (_node("Squeeze", 1), 21, (1, 3), (_i(0),)),
    "reduce-18": (_node("ReduceL2", 1, keepdims=0), 18, (2, 3), (_i(1),)),
    "reduce-noop": (_node("ReduceSum", noop_with_empty_axes=1), 18, (2, 3), ()),
    "gather": (_node("Gather", 1, axis=1), 13, (2, 3), (_i(-1, 0),)),
    "gather-scalar": (_node("Gather", 1, axis=1), 13, (2, 3), (np.int64(-1),)),
    "gemm-transposed": (_node("Gemm", 2, transA=1, transB=1, alpha=0.5, beta=2.0), 13, (3, 2), (A, _f(1, 2, 3, 4))),
    "gemm-scaled": (_node("Gemm", 2, transB=1, alpha=0.5, beta=2.0), 13, (2, 3), (A, _f(1, 2, 3, 4))),
    "gemm-7": (_node("Gemm", 2, transB=1), 7, (1, 3), (A, np.ones((1, 4), dtype=np.float32))),
    "gemm-column-bias": (_node("Gemm", 2, transB=1), 13, (2, 3), (A, np.ones((2, 1), dtype=np.float32))),
    "clip-6": (_node("Clip", min=0.2, max=0.6), 9, (2, 3), ()),
    "clip-lower": (_node("Clip", 1), 13, (2, 3), (np.float32(0.4),)),
    "maxpool-same": (
        _node("MaxPool", kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER"),
        12,
        (1, 1, 5, 5),
        (),
    ),
    "maxpool-lower": (_node("MaxPool", kernel_shape=[2, 2], auto_pad="SAME_LOWER"), 12, (1, 1, 5, 5), ()),
    "averagepool-22": (_node("AveragePool", kernel_shape=[2, 2], pads=[1, 1, 1, 1]), 22, (1, 1, 4, 4), ()),
    **{
        f"averagepool-{name}": (_node("AveragePool", kernel_shape=[3, 2], **attributes), 19, (1, 2, 5, 4), ())
        for name, attributes in {
            "same": {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
            "lower": {"strides": [2, 1], "auto_pad": "SAME_LOWER"},
            "uneven": {"pads": [0, 0, 1, 1], "strides": [2, 1], "ceil_mode": 1},
            "counted": {"pads": [0, 1, 2, 0], "count_include_pad": 1, "ceil_mode": 1, "strides": [2, 2]},
            "gaps": {"dilations": [2, 1], "pads": [1, 0, 1, 0]},
        }.items()
    },
    **{
        f"transposed-{name}": (
            _node("ConvTranspose", 2, group=2, strides=[2, 2], **attributes),
            11,
            (1, 2, 3, 3),
            (_f(*range(24)).reshape(2, 2, 3, 2), _f(1, 2, 3, 4)),
        )
        for name, attributes in {
            "same": {"auto_pad": "SAME_UPPER"},
            "lower": {"auto_pad": "SAME_LOWER"},
            "valid": {"auto_pad": "VALID"},
            "uneven": {"pads": [0, 1, 1, 0]},
            "uneven-extra": {"pads": [0, 1, 1, 0], "output_padding": [1, 0]},
            "shape": {"output_shape": [5, 6]},
            "shape-extra": {"output_shape": [6, 6], "output_padding": [0, 1], "auto_pad": "SAME_UPPER"},
        }.items()
    },
    "conv-same": (
        _node("Conv", 1, auto_pad="SAME_LOWER", strides=[2, 2]),
        13,
        (1, 1, 5, 6),
        (np.ones((2, 1, 2, 3), np.float32),),
    ),
    "gelu-20": (_node("Gelu", approximate="tanh"), 20, (2, 3), ()),
    "mish-18": (_node("Mish"), 18, (2, 3), ()),
    "trilu": (_node("Trilu", upper=0), 14, (3, 3), ()),
    "max-many": (_node("Max", 2), 13, (2, 3), (_f(0.3), _f(0.1, 0.5, 0.9))),
    "mean-many": (_node("Mean", 2), 13, (2, 3), (_f(0.3), _f(0.1, 0.5, 0.9))),
    "power": (_node("Pow", 1), 15, (2, 3), (_f(1, 2, 3),)),
    "expand": (_node("Expand", 1), 13, (3, 1), (_i(2, 1, 4),)),
    "tile": (_node("Tile", 1), 13, (2, 3), (_i(2, 1),)),
    "cumsum": (_node("CumSum", 1, reverse=1, exclusive=1), 14, (2, 3), (np.int64(1),)),
    "topk": (_node("TopK", 1, outputs=2), 11, (1, 5), (_i(2),)),
}


@pytest.mark.parametrize("name", SINGLE)
def test_single_operators(tmp_path: Path, name: str) -> None:
    node, opset, shape, operands = SINGLE[name]
    constants = {f"c{index}": np.asarray(value) for index, value in enumerate(operands)}
    model = node_model(tmp_path / "net.onnx", node, opset, shape, **constants)
    assert check_import(model, import_module(model))


def test_a_result_beyond_the_windows_of_a_transposed_convolution_is_refused(tmp_path: Path) -> None:
    node = _node("ConvTranspose", 1, output_shape=[10], strides=[2])
    model = node_model(tmp_path / "net.onnx", node, 11, (1, 1, 4), c0=np.ones((1, 1, 3), np.float32))
    with pytest.raises(UnsupportedError, match=r"operator ConvTranspose .*larger than its windows reach"):
        import_module(model)


def test_shape_arithmetic_is_folded(tmp_path: Path) -> None:
    text = """main (float[N,2,3] x) => (float[N,M] y) {
        s = Shape(x)  zero = Constant<value = int64 {0}>()  n = Gather<axis=0>(s, zero)
        axes = Constant<value = int64[1] {0}>()  u = Unsqueeze(n, axes)  rest = Constant<value = int64[1] {-1}>()
        shape = Concat<axis=0>(u, rest)  y = Reshape(x, shape)
    }"""
    module = import_module(load_text(tmp_path / "net.onnx", text))
    assert [type(part).__name__ for part in module.operators] == ["Expression", "Expression"]


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    text = """main (float[1,2] a, double[2] b) => (float[1,2] twice, double[2] b2, float[1,2] a2) {
        twice = Add(a, a)  b2 = Identity(b)  a2 = Identity(twice)
    }"""
    model = load_text(tmp_path / "net.onnx", text)
    module = import_module(model)
    assert check_import(model, module)
    outputs = module(torch.tensor([[1.0, 2.0]]), torch.tensor([3.0, 4.0], dtype=torch.float64))
    assert [output.reshape(-1).tolist() for output in outputs] == [[2, 4], [3, 4], [2, 4]]
    assert outputs[1].dtype == torch.float64


def test_scalar_inputs(tmp_path: Path) -> None:
    model = load_text(tmp_path / "net.onnx", "main (float x) => (float y) { y = Add(x, x) }")
    assert model.inputs[0].shape == ()
    assert check_import(model, import_module(model))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_files_raise_only_toolkit_errors(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(relu_net(tmp_path / "net.onnx").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "mutant.onnx"
    path.write_bytes(content)
    try:
        import_module(load_model(path))
    except ToolkitError as error:
        assert "\n" not in str(error)
        assert str(path) in str(error)


def test_local_functions_are_expanded(tmp_path: Path) -> None:
    text = """main (float[1,2] x) => (float[1,2] y) { y = mine.Double(x) }
        <domain: "mine", opset_import: ["" : 13]> Double (a) => (b) { b = Add(a, a) }"""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 13, "mine" : 1]>\n{text}')
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    module = import_module(load_model(tmp_path / "net.onnx"))
    assert module(torch.tensor([[1.0, 2.0]]))[0].tolist() == [[2.0, 4.0]]


UNSUPPORTED = {
    "random": ("main (float[1,2] x) => (float[1,2] y) { n = RandomNormalLike(x) y = Add(x, n) }", "RandomNormalLike"),
    "operator": ("main (float[1,2] x) => (float[1,2] y) { y = LpNormalization(x) }", "LpNormalization"),
    "shape": ("main (float[1,2] x) => (int64[2,N] y) { y = NonZero(x) }", "NonZero"),
    "training": (
        "main (float[1,2] x) => (float[1,2] y) { r = Constant<value = float {0.5}>() t = Constant<value = bool {1}>()"
        " y = Dropout(x, r, t) }",
        "training",
    ),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_cannot_be_imported_is_named(tmp_path: Path, name: str) -> None:
    text, what = UNSUPPORTED[name]
    with pytest.raises(UnsupportedError, match=what) as error:
        import_module(load_text(tmp_path / "net.onnx", text))
    assert str(tmp_path / "net.onnx") in str(error.value)
    assert "\n" not in str(error.value)


def test_foreign_domains_and_old_operator_sets_are_refused(tmp_path: Path) -> None:
    text = "main (float[1,2] x) => (float[1,2] y) { y = Relu(x) }"
    with pytest.raises(UnsupportedError, match="too old"):
        import_module(load_text(tmp_path / "net.onnx", text, opset=6))


def test_a_wrong_module_is_noticed(tmp_path: Path) -> None:
    model = load_text(tmp_path / "net.onnx", "main (float[1,2] x) => (float[1,2] y) { y = Add(x, x) }")
    assert check_import(model, Call(lambda x: (2 * x,)))
    assert not check_import(model, Call(lambda x: (2.01 * x,)))
    assert not check_import(model, Call(lambda x: (2 * x[0],)))
    box = np.full(2, -1.0), np.full(2, 1.0)
    assert not check_import(model, Call(lambda x: (2 * x.abs(),)), box)


def test_the_imported_module_is_frozen(tmp_path: Path) -> None:
    text = "main (float[1,2] x) => (float[1,2] y) { h = MatMul(x, w) y = Relu(h) }"
    module = import_module(load_text(tmp_path / "net.onnx", text, w=np.eye(2, dtype=np.float32)))
    assert not module.training
    x = torch.ones(1, 2)
    module(x)
    assert x.tolist() == [[1.0, 1.0]]
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_importing_does_not_load_torchvision() -> None:
    code = "import sys, toolkit.formats.onnx.torch_import; sys.exit('torchvision' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(Path(toolkit.__file__).parents[1])}
    assert subprocess.run([sys.executable, "-c", code], check=False, env=environment).returncode == 0
