"""Networks read from ONNX for training: same function, in a row where possible, batched, with parameters."""

from __future__ import annotations

from pathlib import Path

import onnx.numpy_helper
import onnx.parser
import pytest
import torch
from torch import nn

from toolkit.data.dataset import Dataset
from toolkit.data.input_space import InputSpace
from toolkit.data.load import load_dataset
from toolkit.errors import InputError, UnsupportedError
from toolkit.formats.onnx.export import export_model
from toolkit.models.architecture_options import Mlp, OnnxNet, PresetNet
from toolkit.models.build import build_model
from toolkit.models.imported import LayerGraph, insert_batch_norms, read_network
from toolkit.models.layers import InputDomain, Normalise, Residual
from toolkit.models.structure import channel_sites, count_relus
from toolkit.pruning.masks import weight_masks
from toolkit.recipe import Data
from toolkit.training.certified_accuracy import certified
from toolkit.training.differentiable_intervals import image_box, propagate

SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset(Data(name="digits"))


def export(network: nn.Module, path: Path) -> nn.Module:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
    export_model(network, torch.zeros(1, *SHAPE), path)
    return network.eval()


class MatrixProducts(nn.Module):
    """A flat network of matrix products and sums, as many other tools write them."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.second = (
            nn.Parameter(torch.randn(shape, generator=generator) / 8) for shape in ((64, 12), (12, 10))
        )
        self.bias = nn.Parameter(torch.randn(12, generator=generator))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x.matmul(self.first) + self.bias).matmul(self.second)


@pytest.mark.parametrize("options", [PresetNet(architecture="digits_conv"), Mlp(hidden=(12,))])
def test_straight_lines_come_back_as_layers(digits: Dataset, tmp_path: Path, options: PresetNet | Mlp) -> None:
    original = export(build_model(options, digits, 1), tmp_path / "net.onnx")
    network = build_model(OnnxNet(file=tmp_path / "net.onnx"), digits, 0).eval()
    images = digits.test.images[:50]
    assert torch.allclose(network(images), original(images), atol=1e-5)
    assert isinstance(network[0], Normalise)
    assert all(parameter.requires_grad for parameter in network.parameters())
    bounds, _ = propagate(network, image_box(images, 0.02))
    reference, _ = propagate(original, image_box(images, 0.02))
    assert torch.allclose(bounds.upper, reference.upper, atol=1e-4)


def test_matrix_products_become_linear_layers(digits: Dataset, tmp_path: Path) -> None:
    export_model(MatrixProducts(), torch.zeros(1, 64), tmp_path / "flat.onnx")
    network = build_model(OnnxNet(file=tmp_path / "flat.onnx"), digits, 0)
    assert [type(layer) for layer in network] == [nn.Flatten, nn.Linear, nn.ReLU, nn.Linear]
    images = digits.test.images[:20]
    assert torch.allclose(network(images), MatrixProducts()(images.flatten(1)), atol=1e-5)
    assert set(weight_masks(network, ["linear"])) == {"1.weight", "3.weight"}


class Gated(nn.Module):
    """A product of two branches, which is no line of layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, 2), nn.ReLU(), nn.Flatten())
        self.first, self.second = nn.Linear(16, 10), nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(x)
        return self.first(x) * self.second(x)


def residual() -> nn.Sequential:
    """Two residual additions, one inside of the other's branch, one with a layer in its shortcut."""
    torch.manual_seed(0)
    inner = Residual(nn.Sequential(nn.Conv2d(4, 4, 3, 1, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 1, 1)), nn.Identity())
    outer = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), inner, nn.ReLU(), nn.Conv2d(4, 4, 1))
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, 1, 1),
        nn.ReLU(),
        Residual(outer, nn.Sequential(nn.Conv2d(3, 4, 1, 2))),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 7),
        nn.ReLU(),
        nn.Linear(7, 10),
    )


def test_residual_additions_come_back_as_layers(digits: Dataset, tmp_path: Path) -> None:
    original = export(residual(), tmp_path / "net.onnx")
    network = build_model(OnnxNet(file=tmp_path / "net.onnx"), digits, 0).eval()
    assert [type(layer) for layer in network] == [type(layer) for layer in original]
    images = digits.test.images[:30]
    assert torch.allclose(network(images), original(images), atol=1e-5)
    bounds, reference = (propagate(net, image_box(images, 0.02))[0] for net in (network, original))
    assert torch.allclose(bounds.upper, reference.upper, atol=1e-4)
    normed = build_model(OnnxNet(file=tmp_path / "net.onnx", batch_norm=True), digits, 0).eval()
    assert torch.allclose(normed(images), original(images), atol=1e-4)
    sites = channel_sites(normed)
    assert [(type(dict(normed.named_modules())[site.layer]), site.channels) for site in sites] == [
        (nn.Linear, 7), (nn.Conv2d, 4),
    ]  # fmt: skip


def test_other_graphs_can_be_trained_too(digits: Dataset, tmp_path: Path) -> None:
    original = export(Gated(), tmp_path / "net.onnx")
    network = build_model(OnnxNet(file=tmp_path / "net.onnx"), digits, 0)
    assert isinstance(network[0], LayerGraph)
    images = digits.test.images[:20]
    assert torch.allclose(network(images), original(images), atol=1e-4)
    network(images).sum().backward()
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert len(weight_masks(network, ["conv"])) == len(convolutions) == 2
    assert all(module.weight.grad is not None for module in convolutions)
    assert count_relus(network, SHAPE) == count_relus(original, SHAPE)


def test_other_graphs_say_what_they_cannot_do(digits: Dataset, tmp_path: Path) -> None:
    export(Gated(), tmp_path / "net.onnx")
    network = build_model(OnnxNet(file=tmp_path / "net.onnx"), digits, 0)
    with pytest.raises(UnsupportedError, match="use the loss standard"):
        propagate(network, image_box(digits.test.images[:2], 0.02))
    with pytest.raises(InputError, match="so prune weights"):
        build_model(OnnxNet(file=tmp_path / "net.onnx", batch_norm=True), digits, 0)


def test_inserted_batch_normalisation_changes_nothing(digits: Dataset, tmp_path: Path) -> None:
    original = export(build_model(PresetNet(architecture="digits_conv"), digits, 1), tmp_path / "net.onnx")
    network = build_model(OnnxNet(file=tmp_path / "net.onnx", batch_norm=True), digits, 0).eval()
    assert [site.channels for site in channel_sites(network)] == [8, 16, 32]
    images = digits.test.images[:50]
    assert torch.allclose(network(images), original(images), atol=1e-4)


def test_batch_normalisation_is_not_inserted_twice() -> None:
    layers = [nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2).eval(), nn.ReLU()]
    assert insert_batch_norms(layers, torch.rand(4, 1, 8, 8)) == layers


def test_files_that_do_not_fit_are_input_errors(digits: Dataset, tmp_path: Path) -> None:
    export_model(nn.Linear(7, 10), torch.zeros(1, 7), tmp_path / "seven.onnx")
    export_model(nn.Linear(64, 3), torch.zeros(1, 64), tmp_path / "three.onnx")
    export_model(nn.Linear(64, 1), torch.zeros(1, 64), tmp_path / "one.onnx")
    for name, words in (
        ("seven.onnx", "but the images are"),
        ("three.onnx", "3 outputs"),
        ("one.onnx", "1 output, .* 10 classes; of a regressor, "),
        ("none.onnx", "none.onnx"),
    ):
        with pytest.raises(InputError, match=words):
            build_model(OnnxNet(file=tmp_path / name), digits, 0)


def graph_file(path: Path, text: str, weights: dict[str, torch.Tensor], output: str = "1,10") -> Path:
    """A network in onnx's text form, from ``x`` to ``y`` of this shape, with these initializers."""
    header = f"<ir_version: 8, opset_import: ['': 17]> agraph (float[1,64] x) => (float[{output}] y) {{ {text} }}"
    model = onnx.parser.parse_model(header.replace("'", '"'))
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value.numpy(), name) for name, value in weights.items())
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("shape", [(12,), (1, 12), (1,)])
def test_a_bias_may_have_any_shape_that_adds_the_same(digits: Dataset, tmp_path: Path, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    weights = {"W": torch.randn(64, 12) / 8, "b": torch.randn(shape), "V": torch.randn(12, 10)}
    text = "h = MatMul(x, W) i = Add(h, b) j = Relu(i) y = MatMul(j, V)"
    network = build_model(OnnxNet(file=graph_file(tmp_path / "net.onnx", text, weights)), digits, 0)
    assert [type(layer) for layer in network] == [nn.Flatten, nn.Linear, nn.ReLU, nn.Linear]
    images = digits.test.images[:20]
    expected = torch.relu(images.flatten(1) @ weights["W"] + weights["b"]) @ weights["V"]
    assert torch.allclose(network(images), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("h = Gemm(x, W) i = Relu(h) j = Gemm(i, W) y = Gemm(j, V)", "share the weight W"),
        ("T = Transpose<perm = [1, 0]>(W) h = MatMul(x, W) i = Relu(h) j = MatMul(i, T) y = MatMul(j, V)", "share"),
        ("t = Transpose<perm = [1, 0]>(x) h = MatMul(U, t) y = Transpose<perm = [1, 0]>(h)", "no weights to prune"),
        ("u = Unsqueeze(x, one) h = MatMul(u, S) y = Squeeze(h, one)", "no weights to prune"),
    ],
)
def test_weights_that_cannot_be_pruned_are_refused_in_words(
    digits: Dataset, tmp_path: Path, text: str, words: str
) -> None:
    torch.manual_seed(0)
    weights = {
        "W": torch.randn(64, 64),
        "V": torch.randn(64, 10),
        "U": torch.randn(10, 64),
        "S": torch.randn(1, 64, 10),
    }
    used = {name: value for name, value in weights.items() if f"{name})" in text or f"({name}," in text}
    if "one" in text:
        used["one"] = torch.tensor([1])
    with pytest.raises(UnsupportedError, match=words):
        build_model(OnnxNet(file=graph_file(tmp_path / "net.onnx", text, used)), digits, 0)


def test_a_reshape_before_a_flattening_is_none(digits: Dataset, tmp_path: Path) -> None:
    export_model(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), torch.zeros(1, 64, 1), tmp_path / "net.onnx")
    network = build_model(OnnxNet(file=tmp_path / "net.onnx"), digits, 0)
    assert [type(layer) for layer in network] == [nn.Flatten, nn.Linear]


@pytest.mark.parametrize("factor", [[2.0, 0.5, 4.0], [2.0, -0.5, 4.0]])
@pytest.mark.parametrize("operation", ["Mul", "Div"])
def test_a_standardisation_of_features_is_a_layer_unless_it_turns_bounds_around(
    tmp_path: Path, factor: list[float], operation: str
) -> None:
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 13]>
        net (float[N, 3] x) => (float[N, 2] y)
        <float[3] m = {{1.0, 2.0, 3.0}}, float[1, 3] f = {{{", ".join(map(str, factor))}}},
         float[3, 2] w = {{1.0, 0.0, 0.0, 1.0, 1.0, 1.0}}>
        {{ c = Sub(x, m)  s = {operation}(c, f)  y = MatMul(s, w) }}"""
    )
    onnx.save(model, tmp_path / "net.onnx")
    layers = read_network(tmp_path / "net.onnx", (3,), 2)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    scaled = (x - torch.tensor([1.0, 2.0, 3.0])) * torch.tensor(factor) ** (1 if operation == "Mul" else -1)
    expected = torch.stack([scaled[:, 0] + scaled[:, 2], scaled[:, 1] + scaled[:, 2]], 1)
    network = nn.Sequential(*layers)
    assert torch.allclose(network(x), expected, atol=1e-5)
    assert [type(layer) for layer in layers] == ([Normalise, nn.Linear] if min(factor) > 0 else [LayerGraph])
    if min(factor) > 0:
        bounds, _ = propagate(network, image_box(x, 0.0, domain=InputDomain(InputSpace(-10.0, 10.0))))
        assert torch.allclose(bounds.upper, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "axes", "columns", "output"),
    [("y = Squeeze(h, axes)", [1], 1, "1"), ("y = Unsqueeze(h, axes)", [2, 3], 10, "1,10,1,1")],
)
def test_scores_of_any_shape_become_rows(tmp_path: Path, text: str, axes: list[int], columns: int, output: str) -> None:
    torch.manual_seed(0)
    weight, images = torch.randn(64, columns), torch.rand(20, *SHAPE)
    path = graph_file(
        tmp_path / "net.onnx", f"h = MatMul(x, W) {text}", {"W": weight, "axes": torch.tensor(axes)}, output
    )
    network = nn.Sequential(*read_network(path, SHAPE, max(2, columns)))
    scores = images.flatten(1) @ weight
    expected = scores if columns > 1 else torch.cat([-scores / 2, scores / 2], 1)
    assert torch.allclose(network(images), expected, atol=1e-5)
    assert certified(network, images, expected.argmax(1), 0.0).all()


@pytest.mark.parametrize(
    "text",
    [
        "h = Conv(i, K) j = GlobalAveragePool(h) y = Flatten(j)",
        "h = Conv(i, K) y = ReduceMean<axes = [-2, -1], keepdims = 0>(h)",
        "h = Conv(i, K) j = ReduceMean<axes = [2, 3]>(h) y = Flatten(j)",
    ],
)
def test_means_over_pixels_are_layers(tmp_path: Path, text: str) -> None:
    torch.manual_seed(0)
    kernel, images = torch.randn(10, 1, 3, 3), torch.rand(20, *SHAPE)
    constants = {"K": kernel, "shape": torch.tensor([1, 1, 8, 8])}
    layers = read_network(graph_file(tmp_path / "net.onnx", f"i = Reshape(x, shape) {text}", constants), SHAPE, 10)
    assert [type(layer) for layer in layers[-3:]] == [nn.Conv2d, nn.AdaptiveAvgPool2d, nn.Flatten]
    expected = nn.functional.conv2d(images, kernel).mean((2, 3))
    assert torch.allclose(nn.Sequential(*layers)(images), expected, atol=1e-5)


def test_images_of_another_layout_or_number_are_told_what_to_do(tmp_path: Path) -> None:
    colours = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    for shape, words in (((1, 2, 2, 3), "channels before height and width"), ((4, 3, 2, 2), "with an open batch")):
        export_model(colours, torch.zeros(shape), tmp_path / "net.onnx", batched=False)
        with pytest.raises(InputError, match=words):
            read_network(tmp_path / "net.onnx", (3, 2, 2), 2)
