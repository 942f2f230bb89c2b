"""Models that ask for more than any machine has are refused before anything of them is run; others are not."""

from __future__ import annotations

import gzip
import itertools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from toolkit.errors import InputError, ToolkitError, UnsupportedError
from toolkit.formats import compressed
from toolkit.formats.onnx.model_file import load_model
from toolkit.formats.onnx.runtime import Session
from toolkit.formats.vnnlib.read import read_query
from toolkit.tuning import tuned

HEAD = '<ir_version: 8, opset_import: ["" : 17{more}]>'
LARGE = tuned().networks.most_tensor_bytes // 4
"""Elements of a float32 tensor that is just not too large."""


def model(body: str, functions: str = "", more: str = "", **constants: object) -> onnx.ModelProto:
    """``y`` from ``x``, one row of two numbers, with integers or floats as initializers."""
    proto = onnx.parser.parse_model(
        f"{HEAD.format(more=more)}\nmain (float[1,2] x) => (float[?,?] y) {{ {body} }}\n{functions}"
    )
    for name, value in constants.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    return proto


def saved(folder: Path, proto: onnx.ModelProto) -> Path:
    path = folder / "net.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def size(elements: int) -> tuple[int, ...]:
    """A random shape of about so many elements."""
    rng = np.random.default_rng(elements)
    rank = int(rng.integers(1, 5))
    side = round(elements ** (1 / rank))
    return (*[side] * (rank - 1), elements // side ** (rank - 1))


def doubled(operator: str, start: str, elements: int) -> str:
    """A chain from two elements, each of whose levels reads the one before twice; its end is z."""
    levels = int(np.log2(elements / 2))
    steps = [f"h{k + 1} = {operator}(h{k}, h{k})" for k in range(levels)]
    return f"h0 = Identity({start}) {' '.join(steps)} z = Cast<to=1>(h{levels})"


def made_of(shape: Callable[[int], dict[str, object]], body: str) -> Callable[[int], onnx.ModelProto]:
    """Models of one body, whose constants follow from the number of elements that it makes."""
    return lambda elements: model(f"{body} y = ReduceSum(z)", **shape(elements))


KINDS: dict[str, Callable[[int], onnx.ModelProto]] = {
    "ConstantOfShape": made_of(lambda n: {"s": np.array(size(n))}, "z = ConstantOfShape(s)"),
    "product": made_of(
        lambda n: {"s": np.array(size(n)) // 2, "u": np.full(len(size(n)), 2)}, "t = Mul(s, u) z = ConstantOfShape(t)"
    ),
    "Expand": made_of(lambda n: {"s": np.array(size(n)), "c": np.float32(1)}, "z = Expand(c, s)"),
    "Expand of the input": made_of(lambda n: {"s": np.array([n // 2, 2])}, "z = Expand(x, s)"),
    "Tile": made_of(lambda n: {"s": np.array([1, n // 2])}, "z = Tile(x, s)"),
    "Pad": made_of(lambda n: {"s": np.array([0, n // 2, 0, n // 2])}, "z = Pad(x, s)"),
    "MatMul": made_of(
        lambda n: {"s": np.array([int(n**0.5), 1]), "t": np.array([1, int(n**0.5)])},
        "a = ConstantOfShape(s) b = ConstantOfShape(t) z = MatMul(a, b)",
    ),
    "Concat": lambda n: model(f"{doubled('Concat<axis=1>', 'x', n)} y = ReduceSum(z)"),
    "Concat of lists": lambda n: model(f"{doubled('Concat<axis=0>', 'c', n)} y = ReduceSum(z)", c=np.array([1, 2])),
}
"""Models that have a tensor of about so many elements, and only small ones in their files."""


@pytest.mark.parametrize("factor", [3, 1000, 10**6])
@pytest.mark.parametrize("kind", KINDS)
def test_tensors_that_are_too_large_are_refused(tmp_path: Path, kind: str, factor: int) -> None:
    began = time.process_time()
    with pytest.raises(UnsupportedError, match="too large") as raised:
        load_model(saved(tmp_path, KINDS[kind](factor * LARGE)))
    assert "node" in str(raised.value)
    assert time.process_time() - began < 2


@pytest.mark.parametrize("kind", KINDS)
def test_others_are_not(tmp_path: Path, kind: str) -> None:
    path = saved(tmp_path, KINDS[kind](1 << 16))
    loaded = load_model(path)
    assert np.isfinite(Session(loaded).run([np.ones((1, 2), np.float32)])[0]).all()


def test_many_large_tensors_are_too_much_together(tmp_path: Path) -> None:
    for count, fits in ((3, True), (9, False)):
        names = [f"z{k}" for k in range(count)]
        body = (
            " ".join(f"{name} = ConstantOfShape(s)" for name in names)
            + f" t = Sum({', '.join(names)}) y = ReduceSum(t)"
        )
        path = saved(tmp_path, model(body, s=np.array([LARGE // 2])))
        if fits:
            load_model(path)
        else:
            with pytest.raises(UnsupportedError, match="its tensors take"):
                load_model(path)


def test_a_sparse_tensor_counts_as_what_it_is_when_dense(tmp_path: Path) -> None:
    proto = model("z = Add(x, w) y = Identity(z)")
    values = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [1], [1.0])
    place = onnx.helper.make_tensor("i", onnx.TensorProto.INT64, [1], [0])
    proto.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, place, [1 << 20, 1 << 20]))
    with pytest.raises(UnsupportedError, match="sparse tensor 'w'"):
        load_model(saved(tmp_path, proto))


@pytest.mark.parametrize("shape", [(1, 1 << 40), (1 << 15, 1 << 15, 3), (1, 1 << 62)])
@pytest.mark.parametrize("what", ["input", "output"])
def test_inputs_and_outputs_that_are_declared_too_large(tmp_path: Path, shape: tuple[int, ...], what: str) -> None:
    ends = {"input": (1, 2), "output": (1, 2)} | {what: shape}
    x, y = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ends[end])
        for name, end in (("x", "input"), ("y", "output"))
    )
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(InputError, match="declared too large"):
        load_model(saved(tmp_path, proto))


def laughs(depth: int, width: int) -> onnx.ModelProto:
    """Functions each of which calls the next so many times."""
    functions = []
    for level in range(depth):
        callee = f"f.F{level + 1}" if level + 1 < depth else "Relu"
        names = ["a", *[f"m{k}" for k in range(width - 1)], "b"]
        calls = " ".join(f"{new} = {callee}({old})" for old, new in itertools.pairwise(names))
        functions.append(f'<domain: "f", opset_import: ["f" : 1, "" : 17]> F{level} (a) => (b) {{ {calls} }}')
    return model("y = f.F0(x)", "\n".join(functions), more=', "f" : 1')


@pytest.mark.parametrize(("depth", "width"), [(31, 2), (14, 3), (4, 40), (90, 2)])
def test_functions_are_counted_before_they_are_expanded(tmp_path: Path, depth: int, width: int) -> None:
    began = time.process_time()
    with pytest.raises(UnsupportedError, match="expands to more than 1000000 nodes"):
        load_model(saved(tmp_path, laughs(depth, width)))
    assert time.process_time() - began < 2


@pytest.mark.parametrize(("depth", "width"), [(3, 3), (8, 2), (50, 1)])
def test_few_functions_are_expanded(tmp_path: Path, depth: int, width: int) -> None:
    load_model(saved(tmp_path, laughs(depth, width)))


def test_the_count_of_nodes_is_exact(tmp_path: Path, tune: Callable[..., None]) -> None:
    proto = laughs(5, 3)
    count = sum(3**level for level in range(6))
    tune(networks={"most_function_nodes": count})
    load_model(saved(tmp_path, proto))
    tune(networks={"most_function_nodes": count - 1})
    with pytest.raises(UnsupportedError, match="expands"):
        load_model(saved(tmp_path, proto))


def test_functions_that_call_each_other_or_too_deep(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="deep"):
        load_model(saved(tmp_path, laughs(500, 1)))
    proto = laughs(4, 1)
    proto.functions[3].node[0].CopyFrom(onnx.helper.make_node("F1", ["a"], ["b"], domain="f"))
    with pytest.raises(InputError, match="calls itself"):
        load_model(saved(tmp_path, proto))


LEAST = {np.int32: -(2**31), np.int64: -(2**63), np.int8: -128, np.int16: -(2**15)}


@pytest.mark.parametrize("kind", LEAST)
@pytest.mark.parametrize("operator", ["Div", "Mod"])
@pytest.mark.parametrize("as_nodes", [False, True])
def test_integer_divisions_without_a_result_are_refused(
    tmp_path: Path, kind: type[np.signedinteger], operator: str, as_nodes: bool
) -> None:
    rng = np.random.default_rng(0)
    plain = rng.integers(1, 100, (2, 2)).astype(kind)
    least, minus, zero = plain.copy(), plain.copy(), plain.copy()
    least[0, 1], minus[0, 1], zero[1, 0] = LEAST[kind], -1, 0
    for dividend, divisor, refused in (
        (least, minus, "by -1" if operator == "Div" else ""),
        (plain, zero, "by zero"),
        (plain, minus, ""),
        (least, plain, ""),
    ):
        proto = model(f"q = {operator}(a, b) f = Cast<to=1>(q) z = Add(x, f) y = ReduceSum(z)", a=dividend, b=divisor)
        if as_nodes:
            nodes = [
                onnx.helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in proto.graph.initializer
            ]
            nodes += proto.graph.node
            del proto.graph.node[:], proto.graph.initializer[:]
            proto.graph.node.extend(nodes)
        if refused:
            with pytest.raises(UnsupportedError, match=refused):
                load_model(saved(tmp_path, proto))
        else:
            load_model(saved(tmp_path, proto))


def bomb(path: Path, head: bytes, size: int) -> Path:
    member = gzip.compress(b"\0" * (1 << 22), 9)
    path.write_bytes(gzip.compress(head) + member * (size >> 22))
    return path


@pytest.mark.parametrize("packed", [True, False])
def test_files_are_read_up_to_a_limit(tmp_path: Path, tune: Callable[..., None], packed: bool) -> None:
    tune(files={"most_model_bytes": 1 << 23, "most_text_bytes": 1 << 23})
    path = bomb(tmp_path / "a.gz", b"x", 1 << 25) if packed else Path("/dev/zero")
    for read in (load_model, read_query):
        with pytest.raises(InputError, match="larger than 8 MiB"):
            read(path)


def test_content_out_of_proportion_to_its_file_is_not_read(tmp_path: Path, tune: Callable[..., None]) -> None:
    tune(files={"unchecked_bytes": 1 << 23})
    path = bomb(tmp_path / "a.gz", b"x", 1 << 25)
    for read in (load_model, read_query):
        with pytest.raises(InputError, match="KiB of it expand to 12 MiB"):
            read(path)
    assert len(compressed.read_decompressed(bomb(path, b"x", 1 << 22), 1 << 30)) == (1 << 22) + 1
    noise = np.random.default_rng(0).bytes(1 << 24)
    path.write_bytes(gzip.compress(noise))
    assert compressed.read_decompressed(path, 1 << 30) == noise


def test_a_file_cut_short_is_no_internal_error(tmp_path: Path) -> None:
    path = bomb(tmp_path / "a.gz", b"x", 1 << 23)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ToolkitError, match="cannot be read"):
        load_model(path)


@pytest.mark.parametrize("declared", ["?,2", "1,2", "N,1"])
def test_outputs_of_other_shapes_than_declared_are_told(tmp_path: Path, declared: str) -> None:
    proto = onnx.parser.parse_model(
        f"{HEAD.format(more='')}\nmain (float[?,3] x) => (float[{declared}] y) <float[4] w = {{1, 2, 3, 4}}> {{"
        " t = Transpose(x) y = Add(t, w) }"
    )
    loaded = load_model(saved(tmp_path, proto))
    for run in (lambda: Session(loaded).run([np.ones(3)]), lambda: Session(loaded).run_batch([np.ones((5, 3))])):
        with pytest.raises(InputError, match=r"output 'y' has the shape \[3, 4\], and is declared as"):
            run()
