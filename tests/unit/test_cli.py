"""The command line: outputs of the standard, one line and exit code 2 for bad input, light commands without torch."""

import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from quantised_networks import dequantise, pair, qdq_model

from toolkit import __version__, cli
from toolkit.commands.arguments import network_paths
from toolkit.errors import ExitCode, InputError
from toolkit.settings import Settings

NETWORK = """<ir_version: 8, opset_import: ["" : 13]>
main (float[N,2] x) => (float[N,2] y) { h = MatMul(x, a) r = Relu(h) y = MatMul(r, b) }"""
DECLARED = "(declare-const X_0 Real) (declare-const X_1 Real) (declare-const Y_0 Real) (declare-const Y_1 Real)\n"
BOX = "(assert (>= X_0 0.0)) (assert (<= X_0 1.0)) (assert (>= X_1 0.0)) (assert (<= X_1 1.0))\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A network computing (x0 + x1, |x0 - x1|) on [0, 1]^2, with one specification of each verdict."""
    model = onnx.parser.parse_model(NETWORK)
    weights = {"a": [[1, 1, 1, -1], [1, 1, -1, 1]], "b": [[1, 0], [0, 0], [0, 1], [0, 1]]}
    for name, value in weights.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value, dtype=np.float32), name))
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "sat.vnnlib").write_text(DECLARED + BOX + "(assert (>= Y_1 0.5))")
    (tmp_path / "unsat.vnnlib").write_text(DECLARED + BOX + "(assert (>= Y_1 1.5))")
    (tmp_path / "witness").write_text("((X_0 1.0)\n(X_1 0.25))")
    return tmp_path


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    code = cli.run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_name_version_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--name") == (0, "prunecert\n", "")
    assert run(capsys, "--version") == (0, f"prunecert {__version__}\n", "")
    for arguments in ([], ["--help"]):
        code, out, _ = run(capsys, *arguments)
        assert code == 0
        assert all(name in out for name in cli.COMMANDS)


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_of_commands(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert f"prunecert {command}" in out


def test_verify_sat(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    code, out, _ = run(capsys, "verify", folder / "sat.vnnlib", "--network", folder / "net.onnx", "--timeout", 30)
    verdict, witness = out.split("\n", 1)
    assert (code, verdict) == (0, "sat")
    (folder / "found").write_text(witness)
    code, out, _ = run(capsys, "check-witness", folder / "net.onnx", folder / "sat.vnnlib", folder / "found")
    assert (code, out.splitlines()[0]) == (0, "correct")


def test_the_network_may_come_before_the_specification(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    code, out, _ = run(capsys, "verify", folder / "net.onnx", folder / "unsat.vnnlib", "--timeout", "30")
    assert (code, out) == (0, "unsat\n")


def test_verify_unsat(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    network = f"N={folder / 'net.onnx'}"
    code, out, _ = run(capsys, "verify", folder / "unsat.vnnlib", "--network", network, "--timeout", "30")
    assert (code, out) == (0, "unsat\n")


def test_what_has_no_bounds_is_said_on_stderr(
    capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.run.forked_query.can_fork", lambda: False)  # what a fork says at once is not captured
    text = '<ir_version: 8, opset_import: ["" : 13]> main (float[1,2] x) => (float[1,2] y) { y = Hardmax(x) }'
    (folder / "odd.onnx").write_bytes(onnx.parser.parse_model(text).SerializeToString())
    (folder / "never.vnnlib").write_text((folder / "sat.vnnlib").read_text() + "(assert (>= Y_0 2.0))")
    code, out, err = run(capsys, "verify", folder / "never.vnnlib", "--network", folder / "odd.onnx", "--timeout", 3)
    assert (code, out) == (0, "unknown\n")
    first, last, *explanation = err.splitlines()
    assert "cases are open" in explanation[0]
    assert explanation[-1].startswith("try: no bounds exist")
    reason = f"{folder}/odd.onnx: operator Hardmax (opset 13, node 'y'): not supported: no bounding rule"
    assert (first, last) == (f"cannot be proved, only refuted by points: {reason}", f"unsupported: {reason}")


def test_an_answer_as_json_and_what_happened_on_the_way(
    capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.run.forked_query.can_fork", lambda: False)
    net, log = folder / "net.onnx", folder / "events.jsonl"
    code, out, err = run(
        capsys, "verify", folder / "sat.vnnlib", "--network", net, "--json", "--events", log, "--timeout", 20
    )
    assert (code, err) == (0, "")
    values = json.loads(out)
    assert (values["verdict"], values["explanation"]) == ("sat", None)
    assert values["statistics"]["decided_by"]
    assert len(values["witness"]["X"]) == 2
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert events[0]["event"] == "PhaseBegun"
    assert run(capsys, "verify", folder / "sat.vnnlib", "--network", net, "--events", folder / "no" / "log")[0] == 2


def test_serialised_assignments(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    spec = folder / "v2.vnnlib"
    run(capsys, "convert", folder / "sat.vnnlib", "--to", "2.0", "--network", folder / "net.onnx", "-o", spec)
    common = ["verify", spec, "--network", folder / "net.onnx", "--serialise-assignments", folder / "tensors"]
    code, out, _ = run(capsys, *common)
    assert (code, out) == (0, "sat\n")
    protos = {path.stem: onnx.TensorProto.FromString(path.read_bytes()) for path in (folder / "tensors").iterdir()}
    x, y = (onnx.numpy_helper.to_array(protos[name]) for name in ("X", "Y"))
    assert x.shape == y.shape == (1, 2)
    assert abs(x[0, 0] - x[0, 1]) == pytest.approx(y[0, 1], abs=1e-6)


def test_network_arguments(tmp_path: Path) -> None:
    assert network_paths(["f=a.onnx", "g=b=c.onnx"]) == {"f": Path("a.onnx"), "g": Path("b=c.onnx")}
    assert network_paths(["runs/n=2.onnx"]) == {"": Path("runs/n=2.onnx")}
    (tmp_path / "n=2.onnx").touch()
    assert network_paths([str(tmp_path / "n=2.onnx")]) == {"": tmp_path / "n=2.onnx"}
    for values in ([], ["a.onnx", "f=b.onnx"], ["f=a.onnx", "f=b.onnx"]):
        with pytest.raises(InputError):
            network_paths(values)


def test_check_witness(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    net, sat, unsat = folder / "net.onnx", folder / "sat.vnnlib", folder / "unsat.vnnlib"
    assert run(capsys, "check-witness", net, sat, folder / "witness")[:2] == (
        0,
        "correct\nthe specification holds for the replayed outputs\n",
    )
    code, out, _ = run(capsys, "check-witness", net, unsat, folder / "witness")
    assert (code, out.splitlines()[0]) == (1, "spec_not_violated")
    code, out, _ = run(capsys, "check-witness", net, unsat, folder / "none")
    assert (code, out.splitlines()[0]) == (1, "missing")


def test_convert_there_and_back(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    there, back = folder / "two.vnnlib", folder / "one.vnnlib"
    arguments = ["--network", folder / "net.onnx", "--real", "-o", there]
    assert run(capsys, "convert", folder / "sat.vnnlib", "--to", "2.0", *arguments)[0] == 0
    assert "(declare-input X real [1,2])" in there.read_text()
    assert run(capsys, "convert", there, "--to", "1.0", "--output", back)[0] == 0
    assert "(assert (>= Y_1 0.5))" in back.read_text()


def test_inspect(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    code, out, _ = run(capsys, "inspect", folder / "net.onnx", folder / "sat.vnnlib")
    assert code == 0
    lines = [" ".join(line.split()) for line in out.splitlines()]
    for expected in (
        "parameters 16",
        "ReLU neurons 4",
        "MatMul 2 affine",
        "cases 1, over 1 atoms",
        "boxes 1 of 2 inputs",
    ):
        assert expected in lines
    assert "branch and bound" in lines[-1]


def test_inspect_counts_quantised_weights_and_not_their_scales(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    matrix, scale, zero = np.ones((2, 3), dtype=np.int8), np.full(3, 0.1, dtype=np.float32), np.zeros(3, dtype=np.int8)
    weights = dequantise("w", "t", "z", to="d", axis=1)
    nodes = [*pair("s", to="c"), weights, onnx.helper.make_node("MatMul", ["c", "d"], ["y"])]
    net = qdq_model(folder / "quantised.onnx", nodes, (1, 2), s=scale[0], w=matrix, t=scale, z=zero)
    code, out, _ = run(capsys, "inspect", net)
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert code == 0
    assert {"parameters 6", "QuantizeLinear 1 relaxation", "DequantizeLinear 1 affine", "MatMul 1 affine"} <= set(lines)


def test_inspect_names_what_is_not_supported(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    text = '<ir_version: 8, opset_import: ["" : 13]> main (float[1,2] x) => (float[1,2] y) { y = Hardmax(x) }'
    (folder / "odd.onnx").write_bytes(onnx.parser.parse_model(text).SerializeToString())
    code, out, _ = run(capsys, "inspect", folder / "odd.onnx")
    assert code == 0
    assert f"! {folder}/odd.onnx: operator Hardmax" in " ".join(out.split())
    assert "random points only" in out


@pytest.mark.parametrize(
    ("capability", "lines"),
    [
        ("--onnx-opset-versions", ["7", "23"]),
        ("--vnnlib-versions", ["1.0", "2.1"]),
        ("--multiple-network-theories", ["MNET"]),
        ("--serialise-assignments", ["true"]),
    ],
)
def test_supports(capsys: pytest.CaptureFixture[str], capability: str, lines: list[str]) -> None:
    code, out, _ = run(capsys, "supports", capability)
    assert code == 0
    assert out.splitlines() == lines


def test_ops(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "ops")
    assert code == 0
    kinds = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert (kinds["Gemm"], kinds["Tanh"], kinds["Softmax"]) == ("affine", "relaxation", "rewritten")
    assert "ArgMax" not in kinds and "aten" not in out
    code, out, _ = run(capsys, "ops", "--primitives")
    assert code == 0
    assert "aten.relu.default" in out


def test_every_command_answers_as_json_where_that_is_asked_for() -> None:
    page = cli.build_app().generate_docs(output_format="markdown")
    sections = dict(re.findall(r"^##+ prunecert ([\w -]+)\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL))
    assert {name for name in sections if " " not in name} == set(cli.COMMANDS)
    without = [name for name, text in sections.items() if not re.search(r"^\* `--json`", text, re.MULTILINE)]
    assert without == ["spec"], "its kinds have it"


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        (["inspect", "net.onnx", "sat.vnnlib"], {"networks", "specification", "bounded", "plan"}),
        (["supports", "--vnnlib-versions"], {"vnnlib-versions"}),
        (["convert", "sat.vnnlib", "--to", "2.0", "--network", "net.onnx", "-o", "o.vnnlib"],
         {"file", "version", "from"}),
        (["spec", "output-range", "--network", "net.onnx", "--lower", "x.csv", "--upper", "x.csv", "--maximum", "9",
          "-o", "range.vnnlib"],
         {"file", "property", "version"}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)  # fmt: skip
def test_json_is_all_there_is_on_stdout(
    capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], keys: set
) -> None:
    monkeypatch.chdir(folder)
    size = onnx.load("net.onnx").graph.input[0].type.tensor_type.shape.dim[-1].dim_value
    Path("x.csv").write_text(",".join(["0.5"] * size))
    code, out, _ = run(capsys, *arguments, "--json")
    assert code == 0
    assert set(json.loads(out)) == keys


BAD = {
    "unknown command": (["frobnicate"], "'frobnicate' is no command"),
    "misspelt command": (["certfy"], "did you mean certify?"),
    "misspelt setting": (["verify", "sat.vnnlib", "--network", "net.onnx", "--stratgy", "relu"], "--strategy"),
    "misspelt executor": (["bench", ".", "--executor", "process"], "did you mean processes?"),
    "misspelt option of a run": (["bench", ".", "--worker", "2"], "--workers"),
    "misspelt capability": (["supports", "--onnx-opset-version"], "did you mean --onnx-opset-versions?"),
    "unknown option": (["verify", "sat.vnnlib", "--network", "net.onnx", "--bogus", "1"], "--bogus"),
    "no network": (["verify", "sat.vnnlib"], "give the network, then the specification"),
    "nothing to verify": (["verify"], "give the network, then the specification"),
    "three files": (["verify", "net.onnx", "sat.vnnlib", "sat.vnnlib"], "give the network, then the specification"),
    "a network twice": (["verify", "net.onnx", "sat.vnnlib", "--network", "net.onnx"], "only the specification"),
    "specification first": (["verify", "sat.vnnlib", "net.onnx"], "not an ONNX model"),
    "two bare networks": (["verify", "sat.vnnlib", "--network", "net.onnx", "--network", "net.onnx"], "given twice"),
    "missing specification": (["verify", "none.vnnlib", "--network", "net.onnx"], "none.vnnlib"),
    "missing model": (["verify", "sat.vnnlib", "--network", "none.onnx"], "none.onnx: no such file"),
    "other name": (["verify", "sat.vnnlib", "--network", "f=net.onnx"], "no network 'f'"),
    "negative timeout": (["verify", "sat.vnnlib", "--network", "net.onnx", "--timeout", "-1"], "--timeout"),
    "no number": (["verify", "sat.vnnlib", "--network", "net.onnx", "--timeout", "soon"], "--timeout"),
    "no model": (["verify", "sat.vnnlib", "--network", "sat.vnnlib"], "not an ONNX model"),
    "no specification": (["verify", "net.onnx", "--network", "net.onnx"], "net.onnx"),
    "no capability": (["supports", "--colour"], "'--colour' is no capability"),
    "conversion without shapes": (["convert", "sat.vnnlib", "--to", "2.0", "-o", "out.vnnlib"], "--network"),
    "unknown version": (["convert", "sat.vnnlib", "--to", "3.0", "-o", "out.vnnlib"], "3.0"),
    "inspect no model": (["inspect", "sat.vnnlib"], "not an ONNX model"),
    "nothing to bench": (["bench", "nowhere"], "nowhere"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_exit_2(
    capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(folder)
    arguments, what = BAD[name]
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("prunecert: ")
    assert what in err
    assert err.count("\n") == 1


def test_a_misspelt_setting_of_a_run_is_answered_with_the_one_that_was_meant() -> None:
    with pytest.raises(InputError, match=r"^stratgy: no such setting; there are timeout, .*; did you mean strategy\?"):
        Settings().changed({"stratgy": "relu"})


def test_internal_errors(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> int:
        raise RuntimeError("a\nb")

    monkeypatch.setattr("toolkit.commands.supports.CAPABILITIES", {"x": fail})
    assert run(capsys, "supports", "--x") == (
        ExitCode.INTERNAL_ERROR,
        "",
        "prunecert: internal error: RuntimeError: a b (run again with --debug for the traceback)\n",
    )
    with pytest.raises(RuntimeError):
        cli.run(["supports", "--x"], debug=True)


def _interrupted_in_a_library() -> int:
    raise ValueError("wrapped") from KeyboardInterrupt()


def _interrupted() -> int:
    raise KeyboardInterrupt


@pytest.mark.parametrize("fail", [_interrupted, _interrupted_in_a_library])
def test_an_interruption_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, fail: Callable[[], int]
) -> None:
    monkeypatch.setattr("toolkit.commands.supports.CAPABILITIES", {"x": lambda *_, **__: fail()})
    assert run(capsys, "supports", "--x") == (ExitCode.INTERRUPTED, "", "prunecert: interrupted\n")


@pytest.mark.parametrize("module", ["toolkit.cli", "prunecert"])
def test_main_exits_with_the_code(module: str) -> None:
    command = [sys.executable, "-m", module, "frobnicate", "--debug"]
    assert subprocess.run(command, check=False, capture_output=True, env=ENVIRONMENT).returncode == 2


def test_nothing_put_off_to_the_end_is_lost() -> None:
    """Not what is written to a pipe, however much, nor what is registered to run at exit."""
    code = "import atexit, sys; from toolkit import cli; atexit.register(print, 'last'); print('x' * 10**6, end='');"
    code += "sys.stderr.write('e' * 10**5); cli.leave(3)"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, env=ENVIRONMENT)
    assert (done.returncode, len(done.stderr)) == (3, 10**5)
    assert done.stdout == b"x" * 10**6 + b"last\n"


def test_light_commands_do_not_load_torch(folder: Path) -> None:
    for arguments in (["spec", "--help"], ["check-witness", "net.onnx", "sat.vnnlib", "witness"]):
        code = f"import sys; from toolkit import cli; cli.run({arguments}); sys.exit('torch' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], cwd=folder, check=False, env=ENVIRONMENT).returncode == 0


def test_light_commands_are_quick(folder: Path) -> None:
    """Under a second of processor time from start to finish; the machine may be busy, so not of wall time."""
    before = _children_seconds()
    start = time.monotonic()
    command = [sys.executable, "-m", "toolkit.cli", "check-witness", "net.onnx", "sat.vnnlib", "witness"]
    subprocess.run(command, cwd=folder, check=True, env=ENVIRONMENT)
    assert min(_children_seconds() - before, time.monotonic() - start) < 1.5


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
