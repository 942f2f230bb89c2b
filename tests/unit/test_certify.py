"""Certified accuracy on rows of data: the figures, the folder that can be run again, and how it is asked for."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from small_models import relu_net, save_text

import prunecert
from toolkit import cli
from toolkit.commands.row_options import Reading
from toolkit.experiments.certification import Certified, CertifiedRow, told
from toolkit.experiments.row_questions import ask, write_folder
from toolkit.formats.onnx.model_file import load_model
from toolkit.formats.onnx.runtime import Session
from toolkit.formats.vnnlib.read import read_query
from toolkit.result import Verdict

TABLE = "a,b,label\n1,1,yes\n0.5,0.6,yes\n0,1,yes\n1,0.01,no\n0.01,1,no\n"
"""Rows of a network of the outputs a + b and |a - b|, of classes yes and no: the last three are wrong or near a tie."""
QUICK = ["--workers", "1", "--executor", "in-process", "--device", "cpu"]


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("rows.csv").write_text(TABLE)
    return relu_net(Path("net.onnx"))


def asked(*arguments: str) -> list[str]:
    return ["certify", "net.onnx", "--data", "rows.csv", "--classes", "yes,no", "-o", "out", *QUICK, *arguments]


def test_the_whole_way(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Figures are right, the folder is a benchmark, and a second run takes the answers of the first."""
    assert cli.run(asked("--epsilon", "0.1")) == 0
    printed = capsys.readouterr().out
    assert "standard accuracy   40.0% (2 of 5 rows)" in printed
    assert "certified accuracy  40.0% (95 % interval over rows: 11.8% to 76.9%)" in printed
    assert "proved 2, falsified 3 (3 of them wrong as they are), undecided 0" in printed
    with Path("out/certified.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["verdict"] for row in rows] == ["unsat", "unsat", "sat", "sat", "sat"]
    assert [row["label"] for row in rows] == ["yes", "yes", "yes", "no", "no"]
    assert [row["answer"] for row in rows] == ["yes", "yes", "-1", "yes", "yes"], "a tie is no answer"
    assert all(Path("out", row["witness"]).is_file() for row in rows if row["verdict"] == "sat")
    told_again = json.loads(Path("out/certified.json").read_text())
    assert (told_again["proved"], told_again["certified_accuracy"]) == (2, [0.4, 0.4])
    answers = Path("out/journal.jsonl").read_text()
    assert cli.run(asked("--epsilon", "0.1")) == 0
    assert "5 of 5 instances are answered" in capsys.readouterr().out
    assert Path("out/journal.jsonl").read_text() == answers
    assert cli.run(["bench", "out/benchmark", "--out", "again", *QUICK]) == 0
    verdicts = [line.split(",")[4] for line in Path("again/results.csv").read_text().splitlines()]
    assert verdicts == [row["verdict"] for row in rows]


def test_proofs_of_rows_are_checked_where_that_is_asked(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(asked("--epsilon", "0.1", "--certified")) == 0
    assert len(list(Path("out/certificates").glob("*/*.certificate"))) == 2
    assert cli.run(["check", "out"]) == 0
    assert "2 of 2 answers unsat have a certificate that is accepted" in capsys.readouterr().out


RADII = [("0.3,0", Verdict.UNSAT), ("0,1.2", Verdict.SAT), ("0.3", Verdict.SAT)]


@pytest.mark.parametrize(("epsilon", "verdict"), RADII)
def test_one_radius_for_each_feature(net: Path, epsilon: str, verdict: Verdict) -> None:
    Path("two.csv").write_text("a,b,label\n1,0.25,0\n")
    found = prunecert.certify(
        net, "two.csv", epsilon=[float(part) for part in epsilon.split(",")], out="out",
        verification=prunecert.Verification(workers=1, executor="in-process", device="cpu"),
    )  # fmt: skip
    assert [row.verdict for row in found.rows] == [verdict]


def test_arrays_and_modules_from_python(net: Path) -> None:
    """Rows of whole numbers of eight bits, standardised; labels that the network gives itself."""
    pixels = np.array([[255, 255], [255, 51]], dtype=np.uint8)
    verification = prunecert.Verification(workers=1, executor="in-process", device="cpu")
    reading = prunecert.Reading(mean=(0.5,), std=(0.5, 0.25), clip=(0.0, 2.0))
    found = prunecert.certify(net, pixels, epsilon=0.01, out="out", reading=reading, verification=verification)
    assert not found.labelled
    assert [row.label for row in found.rows] == ["0", "1"], "by |a - b| at (1, -1.2)"
    assert (found.proved, found.accuracy, found.standard_accuracy) == (2, (1.0, 1.0), 1.0)
    assert found.to_json()["each"][0]["verdict"] == "unsat"
    given = prunecert.certify(
        net, pixels, labels=[0, 0], epsilon=0.01, out="given", reading=reading, verification=verification
    )
    assert (given.labelled, given.proved, given.falsified) == (True, 1, 1)


def single_score(path: Path, body: str) -> Path:
    weights = np.array([[1.0], [-1.0]], dtype=np.float32)
    save_text(path, f"main (float[N,2] x) => (float[N,1] y) {{ {body} }}", w=weights)
    return path


def test_a_network_without_finite_scores_is_told(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = np.array([[np.nan, 1.0], [0.0, 1.0]], dtype=np.float32)
    save_text(Path("nan.onnx"), "main (float[N,2] x) => (float[N,2] y) { y = MatMul(x, w) }", w=weights)
    assert cli.run(["certify", "nan.onnx", "--data", "rows.csv", "--epsilon", "0.1", "--classes", "yes,no"]) == 2
    assert "nan.onnx: its scores are not finite at any of the rows" in capsys.readouterr().err


@pytest.mark.parametrize(("body", "threshold"), [("y = MatMul(x, w)", 0.0), ("h = MatMul(x, w) y = Sigmoid(h)", 0.5)])
def test_a_single_score_is_compared_with_its_threshold(net: Path, body: str, threshold: float) -> None:
    path = single_score(Path("single.onnx"), body)
    Path("two.csv").write_text("a,b,label\n1,0.5,1\n0.5,1,0\n1,0.5,0\n")
    questions = ask(Reading().question(path, "two.csv", None, 0.2))
    assert questions.threshold == threshold
    assert questions.answers.tolist() == [1, 0, 1]
    session = Session(load_model(path))
    rng = np.random.default_rng(0)
    for query, point, label in zip(questions.queries(), questions.points.points, questions.labels, strict=True):
        for x in point + rng.uniform(-0.4, 0.4, (200, 2)):
            [y] = session.run([x])
            inside = bool((abs(x - point) <= 0.2).all())
            wrong = float(y[0, 0]) <= threshold if label else float(y[0, 0]) >= threshold
            assert query.holds(np.array([*np.float64(x), float(y[0, 0])])) == (inside and wrong)


def test_spec_writes_the_same_folder(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["net.onnx", "--data", "rows.csv", "--classes", "yes,no", "--epsilon", "0.1", "--rows", "1::2"]
    assert cli.run(["spec", "benchmark", *arguments, "-o", "family", "--timeout", "7"]) == 0
    assert "2 specifications of 5 rows" in capsys.readouterr().out
    assert Path("family/instances.csv").read_text().splitlines() == [
        "onnx/net.onnx,vnnlib/net_00001.vnnlib,7", "onnx/net.onnx,vnnlib/net_00003.vnnlib,7"
    ]  # fmt: skip
    assert Path("family/rows.csv").read_text().splitlines()[2] == "3,no,yes,vnnlib/net_00003.vnnlib"
    query = read_query(Path("family/vnnlib/net_00001.vnnlib"))
    assert query.holds(np.array([0.5, 0.6, 1.0, 1.0]))
    assert not query.holds(np.array([0.5, 0.6, 1.1, 1.0]))
    assert not query.holds(np.array([0.5, 0.8, 1.0, 1.0]))
    assert cli.run(["spec", "benchmark", *arguments, "-o", "family", "--vnnlib", "2.0"]) == 0
    assert read_query(Path("family/vnnlib/net_00001.vnnlib")).version == "2.0"
    Path("mine").mkdir()
    Path("mine/net.onnx").write_bytes(b"")
    assert cli.run(["spec", "benchmark", *arguments, "-o", "mine"]) == 2
    assert Path("mine/net.onnx").exists()


MISTAKES = {
    "no network": (["--data", "rows.csv", "--epsilon", "0.1"], "none.onnx: no such file"),
    "no data": (["--data", "none.csv", "--epsilon", "0.1"], "none.csv: no such file"),
    "an epsilon of words": (["--data", "rows.csv", "--epsilon", "much"], "--epsilon much: neither a number"),
    "a class too many": (["--data", "rows.csv", "--epsilon", "0.1", "--classes", "a,b,c"], "3 names of classes"),
    "no such class": (["--data", "rows.csv", "--epsilon", "0.1", "--classes", "a,b"], "the label 'yes' is none"),
    "no such output": (["--data", "rows.csv", "--epsilon", "0.1", "--output-name", "z"], "no output 'z'"),
    "a wide table": (["--data", "wide.csv", "--epsilon", "0.1"], "3 columns of features (a, b, c), but"),
    "beyond the range": (["--data", "rows.csv", "--epsilon", "0.1", "--clip", "0", "0.7"], "row 0: the centre leaves"),
    "no time": (["--data", "rows.csv", "--epsilon", "0.1", "--timeout", "0"], "--timeout 0"),
    "no executor": (["--data", "rows.csv", "--epsilon", "0.1", "--executor", "magic"], "magic"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_one_line_and_exit_with_2(net: Path, case: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("wide.csv").write_text("a,b,c,label\n1,2,3,0\n")
    arguments, message = MISTAKES[case]
    network = "none.onnx" if case == "no network" else str(net)
    assert cli.run(["certify", network, *arguments, "-o", "out"]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("data", "options", "line"),
    [
        ("named.npz", [], "classes in alphabetical order, as outputs 0 to 1: no, yes"),
        ("named.npz", ["--classes", "yes,maybe"], "the data has a class 'no', which is none of yes, maybe"),
        ("large.npz", [], "WARNING: values up to 200 are taken as they are"),
        ("words.csv", [], "labels are the column answer, the only one of words (else --label-column)"),
    ],
)
def test_what_was_assumed_is_told(
    net: Path, data: str, options: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez("named.npz", x=[[1.0, 1.0], [0.5, 0.6]], y=["yes", "no"])
    np.savez("large.npz", x=[[[200.0, 100.0]]], y=[0])
    Path("words.csv").write_text("a,b,answer\n1,1,no\n0.5,0.6,yes\n")
    arguments = [
        "certify",
        "net.onnx",
        "--data",
        data,
        "--rows",
        "0",
        "--epsilon",
        "0.1",
        "-o",
        "out",
        *QUICK,
        *options,
    ]
    assert cli.run(arguments) == 0
    assert line in capsys.readouterr().out


def test_numbers_that_belong_to_no_option_are_told(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(asked("--epsilon", "0.1", "--mean", "0.1", "0.2")) == 2
    assert "'0.2' belongs to no option; several numbers" in capsys.readouterr().err


def row(number: int, verdict: Verdict, answer: str = "0", reason: str = "") -> CertifiedRow:
    return CertifiedRow(number, "0", answer, verdict, 1.0, reason, f"vnnlib/{number}.vnnlib", "")


def test_undecided_rows_count_at_both_ends() -> None:
    late = row(1, Verdict.TIMEOUT, reason="late")
    rows = (row(0, Verdict.UNSAT), late, row(2, Verdict.SAT, "1"), row(3, Verdict.SAT))
    found = Certified("net.onnx", Path("out"), True, rows)
    assert (found.proved, found.falsified, found.undecided, found.accuracy) == (1, 2, 1, (0.25, 0.5))
    assert found.standard_accuracy == 0.75
    assert found.interval[0] < found.accuracy[0]
    assert found.interval[1] > found.accuracy[1]
    lines = "\n".join(told(found))
    assert "certified accuracy  25.0% to 50.0%" in lines
    assert "undecided: row 1: timeout: late" in lines
    assert found.consistent


def test_a_proof_of_what_is_wrong_is_a_contradiction() -> None:
    found = Certified("net.onnx", Path("out"), True, (row(0, Verdict.UNSAT, "1"),))
    assert not found.consistent
    assert "CONTRADICTION: row 0" in "\n".join(told(found))


def test_a_folder_is_replaced_only_where_it_was_written_here(net: Path) -> None:
    questions = ask(Reading(classes="yes,no").question(net, "rows.csv", None, 0.1))
    write_folder(questions, Path("family"), 1.0)
    Path("family/vnnlib/old.vnnlib").write_text("")
    write_folder(questions, Path("family"), 1.0)
    assert not Path("family/vnnlib/old.vnnlib").exists()
    Path("family/rows.csv").unlink()
    with pytest.raises(prunecert.InputError, match="not written here"):
        write_folder(questions, Path("family"), 1.0)
