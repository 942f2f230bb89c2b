"""instances.csv, results.csv and the names of witness files."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import InputError
from toolkit.formats.vnncomp.instances import (
    ResultRow,
    format_results,
    networks_field,
    parse_networks,
    parse_verdict,
    read_instances,
    read_results,
    witness_name,
    write_instances,
)
from toolkit.result import Verdict

VNNCOMP = Path(os.environ.get("VNNCOMP_DIR", "none"))
PAIR = "[('f', 'onnx/original/A.onnx'), ('g', 'onnx/perturbed/B.onnx')]"


def write(folder: Path, text: str) -> Path:
    path = folder / "instances.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_rows(tmp_path: Path) -> None:
    text = "\ufeffonnx/a.onnx,vnnlib/p.vnnlib,116\r\n\n ./onnx/b.onnx , ./vnnlib/q.vnnlib.gz , 30.5\n"
    text += f'"{PAIR}",./v.vnnlib,1e2\n'
    first, second, third = read_instances(write(tmp_path, text))
    assert first.networks == {"": tmp_path / "onnx/a.onnx"}
    assert first.spec == tmp_path / "vnnlib/p.vnnlib"
    assert (first.timeout, first.onnx_field, first.spec_field) == (116.0, "onnx/a.onnx", "vnnlib/p.vnnlib")
    assert second.networks == {"": tmp_path / "onnx/b.onnx"}
    assert second.timeout == 30.5
    assert third.networks == {"f": tmp_path / "onnx/original/A.onnx", "g": tmp_path / "onnx/perturbed/B.onnx"}
    assert third.onnx_field == PAIR
    assert third.timeout == 100.0


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("a.onnx,p.vnnlib", "2 columns"),
        ("a.onnx,p.vnnlib,10,sat", "4 columns"),
        ("a.onnx,p.vnnlib,soon", "'soon' is not a time"),
        ("a.onnx,p.vnnlib,0", "not a time"),
        ("a.onnx,p.vnnlib,-1", "not a time"),
        ("a.onnx,p.vnnlib,nan", "not a time"),
        ("a.onnx,p.vnnlib,inf", "not a time"),
        (",p.vnnlib,10", "network is missing"),
        ("a.onnx,,10", "specification is missing"),
        ("[],p.vnnlib,10", "list of"),
        ('"[(1, 2)]",p.vnnlib,10', "list of"),
        ("\"[('f', 'a'), ('f', 'b')]\",p.vnnlib,10", "list of"),
        ("\"[__import__('os')]\",p.vnnlib,10", "list of"),
        ('"unclosed,p.vnnlib,10', "cannot be read"),
    ],
)
def test_bad_rows_name_file_and_line(tmp_path: Path, row: str, what: str) -> None:
    path = write(tmp_path, "a.onnx,p.vnnlib,10\n" + row + "\n")
    with pytest.raises(InputError, match=what) as error:
        read_instances(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert what == "cannot be read" or ":2:" in str(error.value)


def test_files_without_instances(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", write(tmp_path, "\n \n")):
        with pytest.raises(InputError, match=path.name):
            read_instances(path)
    (tmp_path / "instances.csv").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(InputError, match="not a text file"):
        read_instances(tmp_path / "instances.csv")


def test_round_trip(tmp_path: Path) -> None:
    rows = [({"": "onnx/a, b.onnx"}, "vnnlib/p.vnnlib", 30.0), ({"f": "a.onnx", "g": "b.onnx"}, "q.vnnlib", 0.5)]
    write_instances(tmp_path / "instances.csv", rows)
    first, second = read_instances(tmp_path / "instances.csv")
    assert first.networks == {"": tmp_path / "onnx/a, b.onnx"}
    assert second.networks == {"f": tmp_path / "a.onnx", "g": tmp_path / "b.onnx"}
    assert (first.timeout, second.timeout) == (30.0, 0.5)


NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,5}", fullmatch=True)


@given(st.dictionaries(NAMES, st.text(min_size=1, max_size=12), min_size=1, max_size=4))
def test_any_names_and_paths_survive(networks: dict[str, str]) -> None:
    assert parse_networks(networks_field(networks)) == networks


def test_results(tmp_path: Path) -> None:
    rows = [
        ResultRow("acasxu", "onnx/a.onnx", "vnnlib/p.vnnlib", 0.0, Verdict.SAT, 1.25),
        ResultRow("pair", PAIR, "q.vnnlib", 0.5, Verdict.TIMEOUT, 100.0),
    ]
    text = format_results(rows)
    assert text.splitlines()[0] == "acasxu,onnx/a.onnx,vnnlib/p.vnnlib,0.000000,sat,1.250000"
    (tmp_path / "results.csv").write_text(text)
    assert read_results(tmp_path / "results.csv") == rows


@pytest.mark.parametrize(
    ("word", "verdict"),
    [
        ("unsat", Verdict.UNSAT), ("holds", Verdict.UNSAT), ("SAT", Verdict.SAT), ("violated", Verdict.SAT),
        ("timed-out", Verdict.TIMEOUT), ("run_instance_timeout", Verdict.TIMEOUT), ("", Verdict.UNKNOWN),
        ("prepare_instance_timeout", Verdict.TIMEOUT), ("prepare_instance_error_3", Verdict.UNKNOWN),
        ("no_result_in_file", Verdict.UNKNOWN), ("error_exit_code_1", Verdict.ERROR), ("error", Verdict.ERROR),
    ],
)  # fmt: skip
def test_words_of_verdicts(word: str, verdict: Verdict) -> None:
    assert parse_verdict(word) == verdict


def test_other_words_are_refused() -> None:
    with pytest.raises(InputError, match="'safe'"):
        parse_verdict("safe")


def test_witness_names() -> None:
    name = witness_name({"": "onnx/net_1.5.onnx.gz"}, "vnnlib/prop_0.03.vnnlib.gz")
    assert name == "net_1.5_prop_0.03.counterexample"
    assert witness_name({"f": "a.onnx", "g": "b.onnx"}, "instance_0.vnnlib") == "f_g_instance_0.counterexample"


@pytest.mark.skipif(not VNNCOMP.is_dir(), reason="VNNCOMP_DIR is not set")
def test_real_files() -> None:
    for path in VNNCOMP.glob("*/instances.csv"):
        for instance in read_instances(path):
            assert instance.spec.is_file()
            assert all(network.is_file() for network in instance.networks.values())
