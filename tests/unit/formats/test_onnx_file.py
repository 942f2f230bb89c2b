"""Loading: what is accepted, and that everything else is one line naming the file."""

import gzip
import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_models import load_text, relu_net, save_text

from toolkit.errors import InputError, ToolkitError
from toolkit.formats.onnx.model_file import load_model


def assert_one_line(error: pytest.ExceptionInfo[BaseException], path: Path) -> None:
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message


def test_inputs_and_outputs(tmp_path: Path) -> None:
    model = load_model(relu_net(tmp_path / "net.onnx"))
    (x,), (y,) = model.inputs, model.outputs
    assert (x.name, x.dtype, x.shape, x.declared_shape, x.size) == ("x", "float32", (1, 2), ("N", 2), 2)
    assert (y.name, y.shape) == ("y", (1, 2))
    assert x.batched
    assert model.opset == 13


def test_digest_is_that_of_the_uncompressed_file(tmp_path: Path) -> None:
    plain = relu_net(tmp_path / "net.onnx")
    packed = tmp_path / "net.onnx.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert load_model(packed).sha256 == load_model(plain).sha256 == hashlib.sha256(plain.read_bytes()).hexdigest()


def test_initializers_listed_as_inputs_are_not_inputs(tmp_path: Path) -> None:
    text = "main (float[1,2] x, float[2] b) => (float[1,2] y) { y = Add(x, b) }"
    model = load_text(tmp_path / "net.onnx", text, b=np.ones(2, dtype=np.float32))
    assert [info.name for info in model.inputs] == ["x"]


@pytest.mark.parametrize("dim", [0, -1])
def test_open_dimensions_written_as_numbers(tmp_path: Path, dim: int) -> None:
    proto = onnx.load(str(relu_net(tmp_path / "net.onnx")))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = dim
    (tmp_path / "net.onnx").write_bytes(proto.SerializeToString())
    (x,) = load_model(tmp_path / "net.onnx").inputs
    assert x.shape == (1, 2)
    assert x.batched


def test_open_output_dimensions_are_inferred(tmp_path: Path) -> None:
    text = "main (float[N,2,3] x) => (float[N,M] y) { y = Flatten(x) }"
    assert load_text(tmp_path / "net.onnx", text).outputs[0].shape == (1, 6)


def test_external_data(tmp_path: Path) -> None:
    inside = load_model(relu_net(tmp_path / "net.onnx"))
    proto = onnx.load(str(tmp_path / "net.onnx"))
    outside = tmp_path / "outside.onnx"
    onnx.save(proto, str(outside), save_as_external_data=True, location="outside.data", size_threshold=0)
    model = load_model(outside)
    assert model.sha256 != hashlib.sha256(outside.read_bytes()).hexdigest()
    weights = [onnx.numpy_helper.to_array(tensor).tolist() for tensor in model.proto.graph.initializer]
    assert weights == [onnx.numpy_helper.to_array(tensor).tolist() for tensor in inside.proto.graph.initializer]
    (tmp_path / "outside.data").unlink()
    with pytest.raises(InputError) as error:
        load_model(outside)
    assert_one_line(error, outside)
    assert "outside.data" in str(error.value)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "LFS"),
        (gzip.compress(b"version https://git-lfs.github.com/spec/v1\n", mtime=0), "LFS"),
        (b"hello world, this is no model", "not an ONNX model"),
        (b"\x1f\x8b\x08\x00broken", "cannot be read"),
        (b"PK\x03\x04" + bytes(100), "not an ONNX model"),
    ],
)
def test_what_is_no_model(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match=what) as error:
        load_model(path)
    assert_one_line(error, path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(InputError) as error:
            load_model(path)
        assert_one_line(error, path)


def test_no_input_besides_weights(tmp_path: Path) -> None:
    path = save_text(
        tmp_path / "net.onnx", "main (float[2] x) => (float[2] y) { y = Relu(x) }", x=np.zeros(2, np.float32)
    )
    with pytest.raises(InputError, match="no input"):
        load_model(path)


def test_sequences_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    node = onnx.helper.make_node("SequenceAt", ["s", "i"], ["y"])
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [
            onnx.helper.make_tensor_sequence_value_info("s", onnx.TensorProto.FLOAT, None),
            onnx.helper.make_tensor_value_info("i", onnx.TensorProto.INT64, []),
        ],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2])],
    )
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    with pytest.raises(ToolkitError, match="not a tensor"):
        load_model(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_files_raise_only_toolkit_errors(tmp_path: Path, data: st.DataObject) -> None:
    """Truncated or altered bytes load or fail with one line; nothing else escapes, here and when they are run."""
    from toolkit.formats.onnx.runtime import Session

    content = bytearray(relu_net(tmp_path / "net.onnx").read_bytes())
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(1, len(content))) :]
    path = tmp_path / "mutant.onnx"
    path.write_bytes(content)
    try:
        model = load_model(path)
        Session(model).run([np.zeros(info.size) for info in model.inputs])
    except ToolkitError as error:
        assert "\n" not in str(error)
        assert str(path) in str(error)
