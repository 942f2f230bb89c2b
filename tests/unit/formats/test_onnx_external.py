"""Tensors in other files: the same network as with everything inside, from anywhere, or a refusal before reading."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.numpy_helper import from_array

from toolkit.errors import InputError, ToolkitError
from toolkit.formats.onnx.external_data import tensors_of
from toolkit.formats.onnx.model_file import load_model
from toolkit.formats.onnx.runtime import Session

SIZE = 3
Rng = np.random.Generator
Made = tuple[list[onnx.NodeProto], list[onnx.TensorProto]]
"""Nodes that compute ``w`` and tensors of a graph."""


def matrix(rng: Rng, name: str = "w") -> onnx.TensorProto:
    return from_array(rng.integers(-4, 5, (SIZE, SIZE)).astype(np.float32), name)


def constant(rng: Rng, output: str = "w") -> onnx.NodeProto:
    return helper.make_node("Constant", [], [output], value=matrix(rng))


def sparse(rng: Rng) -> onnx.SparseTensorProto:
    cells = np.sort(rng.choice(SIZE * SIZE, 4, replace=False)).astype(np.int64)
    values = from_array(rng.integers(1, 5, 4).astype(np.float32), "s")
    return helper.make_sparse_tensor(values, from_array(cells, "i"), [SIZE, SIZE])


def branch(rng: Rng, inner: bool) -> onnx.GraphProto:
    """A branch that gives a matrix: a Constant, or an initializer."""
    output = helper.make_tensor_value_info("b", TensorProto.FLOAT, [SIZE, SIZE])
    if inner:
        return helper.make_graph([constant(rng, "b")], "branch", [], [output])
    same = helper.make_node("Identity", ["c"], ["b"])
    return helper.make_graph([same], "branch", [], [output], [matrix(rng, "c")])


def in_initializer(rng: Rng) -> Made:
    return [], [matrix(rng)]


def in_constant(rng: Rng) -> Made:
    return [constant(rng)], []


def in_sparse_constant(rng: Rng) -> Made:
    return [helper.make_node("Constant", [], ["w"], sparse_value=sparse(rng))], []


def in_branches(rng: Rng) -> Made:
    choice = from_array(np.array(bool(rng.integers(2))), "choice")
    branches = {"then_branch": branch(rng, True), "else_branch": branch(rng, False)}
    return [helper.make_node("If", ["choice"], ["w"], **branches)], [choice]


def in_shape(rng: Rng) -> Made:
    """A tensor as an attribute of an operator other than Constant, and integers for its shape."""
    value = from_array(rng.integers(1, 5, 1).astype(np.float32), "v")
    node = helper.make_node("ConstantOfShape", ["shape"], ["w"], value=value)
    return [node], [from_array(np.array([SIZE, SIZE]), "shape")]


def in_function(rng: Rng) -> Made:
    return [helper.make_node("Weights", [], ["w"], domain="own")], []


PLACES = [in_initializer, in_constant, in_sparse_constant, in_branches, in_shape, in_function]


def build(place: Callable[[Rng], Made], rng: Rng) -> onnx.ModelProto:
    """``y = x w`` for a matrix whose content stands at the given place."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, SIZE]) for name in "xy"]
    nodes, tensors = place(rng)
    graph = helper.make_graph([*nodes, helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], tensors)
    if rng.integers(2):
        graph.sparse_initializer.append(sparse(rng))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    function = helper.make_function("own", "Weights", [], ["w"], [constant(rng)], opsets[:1])
    functions = [function] if place is in_function else []
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=functions)


def describe(tensor: TensorProto, **facts: object) -> None:
    """Say that the content of a tensor lies elsewhere."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in facts.items():
        tensor.external_data.add(key=key, value=str(value))


def move_out(proto: onnx.ModelProto, folder: Path, rng: Rng) -> list[Path]:
    """Keep the content of all tensors in one or several files, some of them in a folder of their own."""
    files: dict[str, bytearray] = {}
    (folder / "inner").mkdir()
    for tensor in tensors_of(proto):
        name = str(rng.choice(["w.bin", "inner/w.bin", "./other.bin"]))
        content = files.setdefault(name, bytearray())
        content.extend(bytes(int(rng.integers(0, 9))))
        facts: dict[str, object] = {"location": name, "offset": len(content), "length": len(tensor.raw_data)}
        content.extend(tensor.raw_data)
        describe(tensor, **facts)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in files]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("seed", range(3))
def test_content_in_other_files_counts_as_content_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Callable[[Rng], Made], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    proto = build(place, rng)
    (tmp_path / "inside.onnx").write_bytes(proto.SerializeToString())
    expected = Session(load_model(tmp_path / "inside.onnx")).run([np.arange(1.0, SIZE + 1)])
    model = tmp_path / "model"
    model.mkdir()
    files = move_out(proto, model, rng)
    (model / "net.onnx").write_bytes(proto.SerializeToString())
    # Files of these names in the working directory are other files.
    (tmp_path / "elsewhere" / "inner").mkdir(parents=True)
    for path in files:
        (tmp_path / "elsewhere" / path.relative_to(model)).write_bytes(bytes(path.stat().st_size))
    for place_started in (model, tmp_path / "elsewhere", tmp_path):
        monkeypatch.chdir(place_started)
        loaded = load_model(os.path.relpath(model / "net.onnx"))
        assert Session(loaded).run([np.arange(1.0, SIZE + 1)])[0].tolist() == expected[0].tolist()
        assert not any(tensor.external_data for tensor in tensors_of(onnx.ModelProto.FromString(loaded.data)))


@pytest.mark.parametrize("place", PLACES)
def test_the_digest_covers_other_files(tmp_path: Path, place: Callable[[Rng], Made]) -> None:
    rng = np.random.default_rng(5)
    proto = build(place, rng)
    describe_all = list(tensors_of(proto))
    for number, tensor in enumerate(describe_all):
        (tmp_path / f"{number}.bin").write_bytes(tensor.raw_data)
        describe(tensor, location=f"{number}.bin")
    path = tmp_path / "net.onnx"
    path.write_bytes(proto.SerializeToString())
    digests = {load_model(path).sha256}
    for number in range(len(describe_all)):
        content = bytearray((tmp_path / f"{number}.bin").read_bytes())
        content[0] ^= 1
        (tmp_path / f"{number}.bin").write_bytes(content)
        digests.add(load_model(path).sha256)
    assert len(digests) == len(describe_all) + 1


def linked(target: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder.parent / "secret.bin").write_bytes(bytes(4 * SIZE * SIZE))
        (folder / "link.bin").symlink_to(target)

    return make


def nothing(folder: Path) -> None:
    (folder.parent / "secret.bin").write_bytes(bytes(4 * SIZE * SIZE))


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


GOOD: list[tuple[str, object]] = [("location", "w.bin"), ("offset", 0), ("length", 4 * SIZE * SIZE)]
REFUSED: list[tuple[Callable[[Path], None], list[tuple[str, object]], str]] = [
    (nothing, [("location", "/dev/zero"), *GOOD], "given twice"),
    (nothing, [*GOOD, ("location", "/dev/zero")], "given twice"),
    (nothing, [*GOOD, ("offset", 0)], "given twice"),
    (nothing, [*GOOD, ("length", 4 * SIZE * SIZE)], "given twice"),
    (nothing, [("location", "/dev/zero")], "only files in the folder"),
    (nothing, [("location", "../secret.bin")], "only files in the folder"),
    (nothing, [("location", "inner/../../secret.bin")], "only files in the folder"),
    (nothing, [("location", "")], "no file"),
    (nothing, [("location", ".")], "no file"),
    (nothing, [("offset", 0)], "no file"),
    (nothing, [], "no file"),
    (nothing, [("location", "w.bin\0")], "only files in the folder"),
    (nothing, [("location", "none.bin")], "No such file"),
    (nothing, [("location", "inner")], "not a regular file"),
    (nothing, [("location", "*/_ORT_MEM_ADDR_/*"), ("offset", 4096), ("length", 36)], "No such file"),
    (linked("../secret.bin"), [("location", "link.bin")], "outside"),
    (linked("/dev/zero"), [("location", "link.bin")], "outside"),
    (linked("link.bin"), [("location", "link.bin")], "cannot be read"),
    (pipe, [("location", "pipe")], "not a regular file"),
    (nothing, [GOOD[0], ("offset", 1)], "the file has"),
    (nothing, [GOOD[0], ("offset", 10**18)], "the file has"),
    (nothing, [GOOD[0], ("offset", 10**30)], "not a number of bytes"),
    (nothing, [GOOD[0], ("offset", -4)], "not a number of bytes"),
    (nothing, [GOOD[0], ("offset", "1_0")], "not a number of bytes"),
    (nothing, [GOOD[0], ("offset", " 0")], "not a number of bytes"),
    (nothing, [GOOD[0], ("length", 4)], "its shape takes"),
    (nothing, [GOOD[0], ("length", "")], "not a number of bytes"),
]


@pytest.mark.parametrize("place", [in_initializer, in_constant])
@pytest.mark.parametrize(("prepare", "facts", "reason"), REFUSED)
def test_what_is_refused(
    tmp_path: Path,
    place: Callable[[Rng], Made],
    prepare: Callable[[Path], None],
    facts: list[tuple[str, object]],
    reason: str,
) -> None:
    folder = tmp_path / "model"
    (folder / "inner").mkdir(parents=True)
    (folder / "w.bin").write_bytes(bytes(4 * SIZE * SIZE))
    prepare(folder)
    with pytest.raises(InputError, match=reason) as error:
        load_model(written(folder, place, lambda tensor: describe_pairs(tensor, facts)))
    assert str(folder / "net.onnx") in str(error.value)
    assert "\n" not in str(error.value)


def describe_pairs(tensor: TensorProto, facts: list[tuple[str, object]]) -> None:
    describe(tensor)
    for key, value in facts:
        tensor.external_data.add(key=key, value=str(value))


def written(folder: Path, place: Callable[[Rng], Made], change: Callable[[TensorProto], None]) -> Path:
    """A model one of whose tensors, a matrix, was changed."""
    proto = build(place, np.random.default_rng(0))
    change(next(tensor for tensor in tensors_of(proto) if list(tensor.dims) == [SIZE, SIZE]))
    (folder / "net.onnx").write_bytes(proto.SerializeToString())
    return folder / "net.onnx"


@pytest.mark.parametrize(
    ("field", "value"),
    [("dims", [-1, 3]), ("dims", [1 << 40, 1 << 40]), ("dims", [1 << 33]), ("data_type", TensorProto.STRING),
     ("data_type", 99), ("float_data", [1.0] * SIZE * SIZE), ("raw_data", bytes(36))],
)  # fmt: skip
def test_sizes_are_believed_only_when_they_can_be_true(tmp_path: Path, field: str, value: object) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(36))

    def change(tensor: TensorProto) -> None:
        describe(tensor, location="w.bin")
        tensor.ClearField(field)
        if isinstance(value, list):
            getattr(tensor, field).extend(value)
        else:
            setattr(tensor, field, value)

    with pytest.raises(ToolkitError, match=r"net\.onnx"):
        load_model(written(tmp_path, in_initializer, change))


def test_many_tensors_of_one_file_are_counted_before_they_are_read(tmp_path: Path) -> None:
    """A file of a megabyte that thousands of tensors name would take gigabytes."""
    (tmp_path / "w.bin").write_bytes(bytes(1 << 20))
    proto = build(in_initializer, np.random.default_rng(0))
    for number in range(3000):
        tensor = proto.graph.initializer.add(name=f"t{number}", data_type=TensorProto.UINT8, dims=[1 << 20])
        describe(tensor, location="w.bin")
    (tmp_path / "net.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ToolkitError, match="2 GB"):
        load_model(tmp_path / "net.onnx")


def test_links_inside_of_the_folder_are_followed(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(np.ones((SIZE, SIZE), np.float32).tobytes())
    (tmp_path / "link.bin").symlink_to("w.bin")
    path = written(tmp_path, in_constant, lambda tensor: describe(tensor, location="link.bin"))
    assert Session(load_model(path)).run([np.ones(SIZE)])[0].tolist() == [[SIZE] * SIZE]
