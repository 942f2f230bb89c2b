"""Exported files: same function, same bytes, open batch dimension, nothing left behind on failure."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from toolkit.errors import UnsupportedError
from toolkit.formats.onnx import export as onnx_export
from toolkit.formats.onnx.export import export_model
from toolkit.formats.onnx.model_file import load_model
from toolkit.formats.onnx.runtime import Session
from toolkit.formats.onnx.torch_import import check_import, import_module


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, 2, 1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 8),
        nn.ReLU(),
        nn.Linear(8, 3),
    )
    network(torch.rand(16, 1, 8, 8))  # so that the running statistics are not the identity
    return network


def test_round_trip(tmp_path: Path) -> None:
    network = _network()
    model = export_model(
        network, torch.rand(1, 1, 8, 8), tmp_path / "net.onnx", {"method": "magnitude", "density": "0.5"}
    )
    assert network.training
    assert model.opset == 13
    assert "BatchNormalization" not in {node.op_type for node in model.proto.graph.node}
    assert {entry.key: entry.value for entry in model.proto.metadata_props} == {"method": "magnitude", "density": "0.5"}
    imported = import_module(load_model(tmp_path / "net.onnx"))
    assert check_import(model, imported)
    x = torch.rand(1, 1, 8, 8)
    assert torch.allclose(imported(x)[0], network.eval()(x), atol=1e-5)


def test_a_network_with_masks_of_torch_is_exported_as_it_is_masked(tmp_path: Path) -> None:
    network = _network().eval()
    prune.l1_unstructured(network[4], "weight", 0.5)
    x = torch.rand(1, 1, 8, 8)
    expected = network(x)  # leaves a masked weight with a gradient behind
    model = export_model(network, x, tmp_path / "net.onnx")
    assert np.allclose(Session(model).run([x.numpy()])[0], expected.detach().numpy(), atol=1e-5)
    assert network[4].weight.requires_grad
    assert hasattr(network[4], "weight_mask")


def test_batch_is_open_and_nothing_else(tmp_path: Path) -> None:
    network = _network().eval()
    model = export_model(network, torch.rand(2, 1, 8, 8), tmp_path / "net.onnx")
    assert model.inputs[0].declared_shape == ("batch", 1, 8, 8)
    assert model.outputs[0].declared_shape == ("batch", 3)
    x = torch.rand(5, 1, 8, 8)
    (y,) = Session(model).run_batch([x.numpy()])
    assert np.allclose(y, network(x).detach().numpy(), atol=1e-5)


def test_same_bytes(tmp_path: Path) -> None:
    metadata = {"b": "2", "a": "1"}
    for name in ("first.onnx", "second.onnx", "first.onnx.gz", "second.onnx.gz"):
        export_model(_network(), torch.rand(1, 1, 8, 8), tmp_path / name, metadata)
        metadata = dict(reversed(metadata.items()))
    assert (tmp_path / "first.onnx").read_bytes() == (tmp_path / "second.onnx").read_bytes()
    assert (tmp_path / "first.onnx.gz").read_bytes() == (tmp_path / "second.onnx.gz").read_bytes()


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    class SumAndDifference(nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return a + b, a - b

    model = export_model(SumAndDifference(), [torch.rand(1, 2), torch.rand(1, 2)], tmp_path / "net.onnx")
    assert [info.name for info in model.inputs] == ["input_0", "input_1"]
    outputs = Session(model).run([np.array([3.0, 1.0]), np.array([1.0, 1.0])])
    assert [output.tolist() for output in outputs] == [[[4.0, 2.0]], [[2.0, 0.0]]]


def test_what_torch_cannot_export(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.eigvalsh(x @ x.T)

    with pytest.raises(UnsupportedError, match="cannot export") as error:
        export_model(Odd(), torch.rand(2, 2), tmp_path / "net.onnx")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_file_that_differs_is_not_put_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.onnx").write_bytes(b"old")
    monkeypatch.setattr(onnx_export, "close", lambda output, reference: False)
    with pytest.raises(UnsupportedError, match="does not agree"):
        export_model(_network(), torch.rand(1, 1, 8, 8), tmp_path / "net.onnx")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]
