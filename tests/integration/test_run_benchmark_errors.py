"""What a user can get wrong: one line, exit code 2, no traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.cli import run

ROOT = Path(__file__).parents[2]
GOOD = """
name = "tiny"
[data]
name = "digits"
[models.mlp]
architecture = "mlp"
[[chains]]
name = "chain"
model = "mlp"
method = { name = "magnitude", layers = ["linear"] }
densities = [0.5]
[specification]
epsilon = 0.1
"""


@pytest.fixture
def bench(tmp_path, capsys):
    """Call the command in this process; gives the exit code and what it wrote to stderr."""

    def call(*arguments: object) -> tuple[int, str]:
        code = run(["bench", *map(str, arguments), "--out", str(tmp_path / "out")])
        return code, capsys.readouterr().err

    return call


def test_data_from_elsewhere(tmp_path, bench):
    (tmp_path / "tiny.toml").write_text(GOOD)
    assert_one_line(bench(tmp_path / "tiny.toml", "--data", "images.npz"), "--data images.npz", "npz:FILE")
    assert_one_line(bench(tmp_path / "tiny.toml", "--data", "npz:no.npz"), "prunecert: --data: ", "no.npz")


def assert_one_line(answer: tuple[int, str], *words: str) -> None:
    code, message = answer
    assert code == 2, message
    assert len(message.strip().splitlines()) == 1, message
    for word in words:
        assert word in message


def test_the_script_itself(tmp_path):
    command = [sys.executable, str(ROOT / "run_benchmark.py"), str(tmp_path / "nothing.toml")]
    script = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert_one_line((script.returncode, script.stderr), "nothing.toml")
    assert script.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = ", ["recipe.toml", "TOML"]),
        (GOOD.replace("epsilon = 0.1", "epsilon = -1"), ["recipe.toml", "specification.epsilon"]),
        (GOOD.replace("epsilon = 0.1", "epsilon = 0.1\nradius = 2"), ["specification.radius"]),
        (GOOD.replace('model = "mlp"', 'model = "cnn"'), ["no model 'cnn'"]),
        (GOOD.replace('name = "digits"', 'name = "numbers"'), ["numbers"]),
        (GOOD.replace('"magnitude"', '"magic"'), ["magic"]),
    ],
)
def test_bad_recipes(tmp_path, bench, text, words):
    (tmp_path / "recipe.toml").write_text(text)
    assert_one_line(bench(tmp_path / "recipe.toml"), *words)


def test_missing_recipe_and_missing_folder(tmp_path, bench):
    assert_one_line(bench(tmp_path / "nothing.toml"), "nothing.toml")
    assert_one_line(bench(tmp_path / "nothing"), "nothing", "no such folder")
    assert_one_line(bench(tmp_path), "instances.csv")


@pytest.mark.parametrize(
    "arguments",
    [["--timeout", "0"], ["--timeout", "soon"], ["--workers", "0"], ["--trainers", "0"], ["--limit", "-3"],
     ["--executor", "abacus"], ["--device", "tpu"], ["--colour", "red"], ["--category", "x"]],
)  # fmt: skip
def test_bad_options(tmp_path, bench, arguments):
    (tmp_path / "recipe.toml").write_text(GOOD)
    assert_one_line(bench(tmp_path / "recipe.toml", *arguments))


@pytest.mark.parametrize(
    ("option", "value"), [("--timeout", "-1"), ("--timeout", "1e9"), ("--seed", "-1"), ("--data", "npz:none.npz")]
)
def test_values_out_of_range_are_told_by_their_option(tmp_path, bench, option, value):
    (tmp_path / "recipe.toml").write_text(GOOD)
    assert_one_line(bench(tmp_path / "recipe.toml", option, value), f"prunecert: {option}: ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("onnx/a.onnx,vnnlib/b.vnnlib\n", ["instances.csv:1"]),
        ("onnx/a.onnx,vnnlib/b.vnnlib,soon\n", ["instances.csv:1", "soon"]),
        ("", ["instances.csv"]),
    ],
)
def test_bad_instance_lists(tmp_path, bench, text, words):
    (tmp_path / "instances.csv").write_text(text)
    assert_one_line(bench(tmp_path), *words)


def test_files_that_cannot_be_read_are_errors_of_their_instances_only(tmp_path, bench):
    (tmp_path / "broken.onnx").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    (tmp_path / "a.vnnlib").write_text("(declare-const X_0 Real)")
    (tmp_path / "instances.csv").write_text("broken.onnx,a.vnnlib,5\nmissing.onnx,a.vnnlib,5\n")
    code, message = bench(tmp_path, "--executor", "in-process")
    assert code == 0, message
    rows = (tmp_path / "out" / "results.csv").read_text().splitlines()
    assert [row.split(",")[4] for row in rows] == ["error", "error"]
    assert "missing.onnx" in message
    assert "Traceback" not in message
