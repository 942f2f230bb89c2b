"""``prunecert spec``: every kind is written, reads back, and is unsafe where it should be and nowhere else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from toolkit import cli
from toolkit.formats.points import read_numbers
from toolkit.formats.vnnlib.query import Query
from toolkit.formats.vnnlib.read import read_query

CENTRE = [0.5, 0.25]
BALL = ["--network", "net.onnx", "--input", "point.npy", "--epsilon", "0.25"]
BOX = ["--lower", "lower.csv", "--upper", "upper.txt"]


def _save(path: Path, body: str, outputs: int, inputs: int = 2, **weights: object) -> None:
    text = f"main (float[N,{inputs}] x) => (float[N,{outputs}] y) {{ {body} }}"
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 13]>\n{text}')
    arrays = {name: np.array(value, dtype=np.float32) for name, value in weights.items()}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in arrays.items())
    path.write_bytes(model.SerializeToString())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Networks and points; the main network computes (x0 + x1, |x0 - x1|, 2 x1)."""
    monkeypatch.chdir(tmp_path)
    first, second = [[1, 1, -1, 0], [1, -1, 1, 1]], [[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 2]]
    _save(tmp_path / "net.onnx", "h = MatMul(x, a) r = Relu(h) y = MatMul(r, b)", 3, a=first, b=second)
    _save(tmp_path / "wide.onnx", "y = Identity(x)", 3, 3)
    _save(tmp_path / "nan.onnx", "z = Sub(x, x) y = Div(z, z)", 2)
    two = '<ir_version: 8, opset_import: ["" : 13]>\nmain (float[2] a, float[2] b) => (float[2] y) { y = Add(a, b) }'
    (tmp_path / "two.onnx").write_bytes(onnx.parser.parse_model(two).SerializeToString())
    beside = """<ir_version: 8, opset_import: ["" : 13]>
        main (float[N,2] x) => (int64[N] label, float[N,3] y, float[N,2] z) {
        h = MatMul(x, a) r = Relu(h) y = MatMul(r, b) label = ArgMax<axis = 1, keepdims = 0>(y) z = Neg(x) }"""
    model = onnx.parser.parse_model(beside)
    for name, value in (("a", first), ("b", second)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value, dtype=np.float32), name))
    (tmp_path / "beside.onnx").write_bytes(model.SerializeToString())
    del model.graph.output[2]
    (tmp_path / "label.onnx").write_bytes(model.SerializeToString())
    whole = '<ir_version: 8, opset_import: ["" : 13]>\nmain (int64[2] x) => (int64[2] y) { y = Neg(x) }'
    (tmp_path / "whole.onnx").write_bytes(onnx.parser.parse_model(whole).SerializeToString())
    np.save("point.npy", np.array([CENTRE], dtype=np.float32))
    np.savez("points.npz", first=np.array(CENTRE), second=np.array([0.25, 0.5]))
    np.savez("one.npz", only=np.array(CENTRE))
    np.save("words.npy", np.array(["a", "b"]))
    np.save("objects.npy", np.array([{}, {}]))
    (tmp_path / "lower.csv").write_text("0.25,0.0\n")
    (tmp_path / "upper.txt").write_text("0.75\n  0.5\n")
    (tmp_path / "bad.csv").write_text("0.5,\nhalf")
    (tmp_path / "three.csv").write_text("1 2 3")
    return tmp_path


def outputs(x: list[float]) -> list[float]:
    return [x[0] + x[1], abs(x[0] - x[1]), 2 * x[1]]


def unsafe(query: Query, x: list[float]) -> bool:
    return query.holds(np.array([*x, *outputs(x)]))


def make(capsys: pytest.CaptureFixture[str], kind: str, *arguments: str, output: str = "out.vnnlib") -> Query:
    """The specification that a command writes; it says on one line what it wrote."""
    code = cli.run(["spec", kind, *arguments, "-o", output])
    captured = capsys.readouterr()
    assert (code, captured.err) == (0, "")
    assert captured.out.startswith(f"{output}: ")
    assert captured.out.count("\n") == 1
    return read_query(output)


def test_robustness_of_the_networks_own_answer(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    query = make(capsys, "robustness", *BALL)
    assert query.version == "1.0"
    assert not unsafe(query, CENTRE)
    assert unsafe(query, [0.5, 0.5])  # a tie of outputs 0 and 2
    assert unsafe(query, [0.25, 0.5])
    assert not unsafe(query, [0.1, 0.5])  # outside of the ball
    text = (folder / "out.vnnlib").read_text()
    assert "; property: output 0 is above all others" in text
    assert "; inputs: L-infinity radius 0.25 around point.npy" in text


@pytest.mark.parametrize(("network", "more"), [("label.onnx", []), ("beside.onnx", ["--output-name", "y"])])
def test_scores_beside_a_label(capsys: pytest.CaptureFixture[str], folder: Path, network: str, more: list[str]) -> None:
    """All outputs are declared, which takes version 2.0; what is asked is what is asked of the scores alone."""
    for epsilon, verdict in (("0.1", "unsat"), ("0.25", "sat")):
        ball = ["--network", network, *BALL[2:4], "--epsilon", epsilon, "--real", *more]
        query = make(capsys, "robustness", *ball)
        plain = ["--network", "net.onnx", *ball[2:6]]
        alone = make(capsys, "robustness", *plain, output="one.vnnlib")
        assert query.version == "2.0"
        rest = [9.0, 9.0] if network == "beside.onnx" else []
        for x in (CENTRE, [0.45, 0.3], [0.5, 0.5], [0.3, 0.45]):
            assert query.holds(np.array([*x, 7, *outputs(x), *rest])) == unsafe(alone, x)
        assert cli.run(["verify", "out.vnnlib", "--network", network, "--timeout", "30"]) == 0
        assert capsys.readouterr().out.splitlines()[0] == verdict
    bounded = make(capsys, "output-range", *ball, "--maximum", "1", "--output-index", "0")
    assert not bounded.holds(np.array([*CENTRE, 7, 0.5, 9, 9, *rest]))
    assert bounded.holds(np.array([*CENTRE, 7, 1, 0, 0, *rest]))


def test_robustness_with_label_and_target(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    query = make(capsys, "robustness", *BALL, "--target", "1")
    assert not unsafe(query, [0.25, 0.5])  # output 2 does not count
    assert unsafe(query, [0.5, 0.0])
    assert unsafe(make(capsys, "robustness", *BALL, "--label", "2"), CENTRE)


def test_robustness_of_the_least_output(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    query = make(capsys, "robustness", *BALL, "--lowest")
    assert "output 1 is below all others" in (folder / "out.vnnlib").read_text()
    assert not unsafe(query, CENTRE)
    assert unsafe(query, [0.75, 0.0])


def test_top_k(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    query = make(capsys, "robustness", *BALL, "--label", "2", "--top-k", "2")
    assert not unsafe(query, CENTRE)  # 0.75, 0.25, 0.5: second
    assert unsafe(query, [0.75, 0.125])  # 0.875, 0.625, 0.25: third


def test_output_range(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    query = make(capsys, "output-range", *BALL, "--minimum", "-1", "--maximum", "1")
    assert not unsafe(query, CENTRE)
    assert unsafe(query, [0.75, 0.25])
    assert unsafe(query, [0.25, 0.5])  # output 2 is 1
    one = make(capsys, "output-range", *BALL, "--maximum", "1", "--output-index", "0")
    assert not unsafe(one, [0.25, 0.5])
    assert unsafe(one, [0.75, 0.5])
    negative = make(capsys, "output-range", *BALL, "--minimum=-1e-3", "--maximum", "9")
    assert not unsafe(negative, [0.25, 0.25])


def test_agreement(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    query = make(capsys, "agreement", *BALL, "--network", "net.onnx", "--tolerance", "0.5")
    assert [network.name for network in query.networks] == ["f", "g"]
    assert {tensor.dtype for tensor in query.tensors} == {"float32"}
    same = [*CENTRE, *outputs(CENTRE)]
    other = [*CENTRE, *np.add(outputs(CENTRE), [0, 0, 0.625])]
    assert query.holds(np.array([*same, *other]))
    assert query.holds(np.array([*other, *same]))
    assert not query.holds(np.array([*same, *same]))
    assert not query.holds(np.array([*same, *CENTRE, *np.add(outputs(CENTRE), 0.5)]))
    assert not query.holds(np.array([*same, 0.5, 0.5, *other[2:]]))  # other inputs


def test_monotonicity(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    up = make(capsys, "monotonicity", *BALL, "--feature", "1", "--output-index", "1", "--real")
    assert {tensor.dtype for tensor in up.tensors} == {"real"}
    assert up.networks[1].equal_to == "f"
    low, high = ([*x, *outputs(x)] for x in (CENTRE, [0.5, 0.375]))
    assert up.holds(np.array([*low, *high]))  # |x0 - x1| falls from 0.25 to 0.125
    assert not up.holds(np.array([*low, *low]))
    assert not up.holds(np.array([*high, *low]))
    down = make(capsys, "monotonicity", *BALL, "--feature", "1", "--output-index", "1", "--decreasing")
    assert not down.holds(np.array([*low, *high]))
    rising = make(capsys, "monotonicity", *BALL, "--feature", "1", "--decreasing")
    assert rising.holds(np.array([*low, *high]))  # x0 + x1 rises
    slack = make(capsys, "monotonicity", *BALL, "--feature", "1", "--decreasing", "--tolerance", "0.125")
    assert not slack.holds(np.array([*low, *high]))  # by no more than that


def test_monotonicity_with_a_margin_is_proved(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    make(capsys, "monotonicity", *BALL, "--feature", "1", "--tolerance", "1e-3", "--real")
    networks = [argument for name in "fg" for argument in ("--network", f"{name}=net.onnx")]
    assert cli.run(["verify", "out.vnnlib", *networks, "--timeout", "30"]) == 0
    assert capsys.readouterr().out == "unsat\n"


def test_boxes_of_two_files(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    query = make(capsys, "robustness", "--network", "net.onnx", *BOX, "--label", "0")
    assert unsafe(query, [0.5, 0.0])
    assert not unsafe(query, [0.8, 0.0])
    again = make(capsys, "robustness", "--network", "net.onnx", *BOX, "--input", "point.npy")
    assert unsafe(again, [0.5, 0.0]) and not unsafe(again, CENTRE)


def test_clipping(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    arguments = ["--network", "net.onnx", "--input", "point.npy", "--epsilon", "1"]
    assert unsafe(make(capsys, "robustness", *arguments), [0.5, -0.5])
    query = make(capsys, "robustness", *arguments, "--clip", "0", "1")
    assert not unsafe(query, [0.5, -0.5])
    assert unsafe(query, [1.0, 0.0])
    assert not unsafe(make(capsys, "robustness", *arguments, "--clip", "-0.25", "1"), [0.5, -0.5])


def test_versions_and_compression(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    query = make(capsys, "robustness", *BALL, "--vnnlib", "2.0", output="out.vnnlib.gz")
    assert (folder / "out.vnnlib.gz").read_bytes()[:2] == b"\x1f\x8b"
    assert query.version == "2.0"
    assert [(tensor.shape, tensor.dtype) for tensor in query.tensors] == [((1, 2), "float32"), ((1, 3), "float32")]
    assert unsafe(query, [0.25, 0.5]) and not unsafe(query, CENTRE)
    real = make(capsys, "robustness", *BALL, "--vnnlib", "2.0", "--real")
    assert {tensor.dtype for tensor in real.tensors} == {"real"}


def test_what_is_written_can_be_verified(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    for epsilon, verdict in (("0.1", "unsat"), ("0.25", "sat")):
        make(capsys, "robustness", "--network", "net.onnx", "--input", "point.npy", "--epsilon", epsilon)
        assert cli.run(["verify", "out.vnnlib", "--network", "net.onnx", "--timeout", "30"]) == 0
        assert capsys.readouterr().out.splitlines()[0] == verdict


@pytest.mark.parametrize(
    ("place", "numbers"),
    [
        ("point.npy", CENTRE),
        ("points.npz:second", [0.25, 0.5]),
        ("one.npz", CENTRE),
        ("lower.csv", [0.25, 0]),
        ("upper.txt", [0.75, 0.5]),
    ],
)
def test_files_of_numbers(folder: Path, place: str, numbers: list[float]) -> None:
    assert read_numbers(place).tolist() == numbers


POINT = ["robustness", "--network", "net.onnx", "--epsilon", "0.1", "--input"]
BAD = {
    "unknown kind": (["roundness"], "roundness"),
    "no file": (["robustness", "--network", "net.onnx"], "--output"),
    "no network": (["robustness", *BALL[:1], "none.onnx"], "none.onnx: no such file"),
    "no model": (["robustness", "--network", "lower.csv"], "lower.csv: not an ONNX model"),
    "two inputs": (["robustness", "--network", "two.onnx"], "has 2 inputs"),
    "several outputs": (["robustness", "--network", "beside.onnx", *BALL[2:]], "--output-name"),
    "no such name": (
        ["robustness", "--network", "beside.onnx", *BALL[2:], "--output-name", "q"],
        "label, y, z",
    ),
    "an output of integers": (["robustness", "--network", "label.onnx", *BALL[2:], "--output-name", "label"], "int64"),
    "several outputs in 1.0": (["robustness", "--network", "label.onnx", *BALL[2:], "--vnnlib", "1.0"], "--vnnlib 2.0"),
    "integers": (["robustness", "--network", "whole.onnx"], "int64"),
    "no region": (["robustness", "--network", "net.onnx", "--label", "0"], "--lower FILE"),
    "no radius": (["robustness", *BALL[:4]], "--epsilon"),
    "no label": (["robustness", "--network", "net.onnx", *BOX], "--label"),
    "half a box": (["robustness", "--network", "net.onnx", *BOX[:2], "--label", "0"], "--upper"),
    "ball and box": (["robustness", *BALL, *BOX], "leave them out"),
    "crossed box": (
        ["robustness", "--network", "net.onnx", "--lower", "upper.txt", "--upper", "lower.csv", "--label", "0"],
        "input 0",
    ),
    "negative radius": (["robustness", *BALL[:4], "--epsilon", "-1"], "epsilon"),
    "crossed clip": (["robustness", *BALL, "--clip", "1", "0"], "--clip"),
    "centre outside": (["robustness", *BALL, "--clip", "0.5", "1"], "[0.5, 1]"),
    "no such label": (["robustness", *BALL, "--label", "3"], "output 3 is not one of 3"),
    "label as target": (["robustness", *BALL, "--target", "0"], "nothing competes"),
    "large k": (["robustness", *BALL, "--top-k", "3"], "k = 3"),
    "k and target": (["robustness", *BALL, "--top-k", "1", "--target", "1"], "--top-k"),
    "no answer": (["robustness", "--network", "nan.onnx", *BALL[2:]], "not finite"),
    "real in 1.0": (["robustness", *BALL, "--real"], "--vnnlib 2.0"),
    "no range": (["output-range", *BALL], "lower or an upper bound"),
    "endless range": (["output-range", *BALL, "--maximum", "inf"], "finite"),
    "no such output": (["output-range", *BALL, "--maximum", "1", "--output-index", "7"], "output 7"),
    "one network": (["agreement", *BALL, "--tolerance", "0.1"], "--network twice"),
    "other shapes": (["agreement", *BALL, "--network", "wide.onnx", "--tolerance", "0.1"], "shapes"),
    "negative tolerance": (["agreement", *BALL, "--network", "net.onnx", "--tolerance", "-1"], "--tolerance"),
    "two networks in 1.0": (
        ["agreement", *BALL, "--network", "net.onnx", "--tolerance", "0", "--vnnlib", "1.0"],
        "version 1.0 knows one network",
    ),
    "no feature": (["monotonicity", *BALL], "--feature"),
    "negative margin": (["monotonicity", *BALL, "--feature", "0", "--tolerance", "-0.1"], "--tolerance"),
    "no such feature": (["monotonicity", *BALL, "--feature", "2"], "input 2 is not one of 2"),
    "no point": ([*POINT, "none.npy"], "none.npy: no such file"),
    "folder": ([*POINT, "."], "cannot be read"),
    "no key": ([*POINT, "points.npz"], "points.npz:KEY; there are first, second"),
    "other key": ([*POINT, "points.npz:third"], "first, second"),
    "no number": ([*POINT, "bad.csv"], "bad.csv:2: 'half' is no number"),
    "words": ([*POINT, "words.npy"], "not of numbers"),
    "objects": ([*POINT, "objects.npy"], "objects.npy: cannot be read"),
    "binary": ([*POINT, "net.onnx"], "net.onnx"),
    "other size": ([*POINT, "three.csv"], "3 numbers, but the input of net.onnx has 2"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_exit_2(capsys: pytest.CaptureFixture[str], folder: Path, name: str) -> None:
    arguments, what = BAD[name]
    output = [] if name == "no file" else ["-o", "out.vnnlib"]
    code = cli.run(["spec", *arguments, *output])
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "")
    assert captured.err.startswith("prunecert: ")
    assert what in captured.err
    assert captured.err.count("\n") == 1
    assert not (folder / "out.vnnlib").exists()


def test_a_folder_that_does_not_exist(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert cli.run(["spec", "robustness", *BALL, "-o", "none/out.vnnlib"]) == 2
    assert "none/out.vnnlib: cannot be written" in capsys.readouterr().err


def test_torch_is_not_loaded(folder: Path) -> None:
    arguments = ["spec", "robustness", *BALL, "-o", "out.vnnlib"]
    code = (
        f"import sys; sys.path.insert(0, {str(Path(cli.__file__).parents[1])!r}); from toolkit import cli;"
        f"code = cli.run({arguments}); sys.exit(code or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0
