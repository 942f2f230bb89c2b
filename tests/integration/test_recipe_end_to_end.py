"""A tiny recipe through the whole chain: train, prune, export, verify, report, continue, freeze, verify again."""

import csv
import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from toolkit.bench import journal
from toolkit.cli import run
from toolkit.formats.onnx.model_file import load_model
from toolkit.formats.onnx.runtime import Session
from toolkit.formats.vnnlib.read import read_query

ROOT = Path(__file__).parents[2]
RECIPE = """
name = "tiny"
[data]
name = "digits"
[models.mlp]
architecture = "mlp"
hidden = [12]
[training]
loss = "standard"
epochs = 2
batch = 100
optimizer = "adam"
learning_rate = 0.01
[[chains]]
name = "mlp-magnitude"
model = "mlp"
method = { name = "magnitude", layers = ["linear"] }
densities = [0.5]
[specification]
epsilon = 0.03
images = 5
[verification]
timeout = 20
"""


def run_script(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The real thing: a process that spawns workers."""
    command = [sys.executable, str(ROOT / "run_benchmark.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def bench(capsys):
    """A run of the command ``bench`` in this process, which has torch loaded: the exit code and what it printed."""

    def call(*arguments: object) -> tuple[int, str]:
        code = run(["bench", *map(str, arguments), "--executor", "in-process"])
        return code, capsys.readouterr().out

    return call


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.toml").write_text(RECIPE)
    command = (folder / "tiny.toml", "--out", folder / "out", "--workers", 1)
    first = run_script(*command, "--freeze", folder / "frozen")
    assert first.returncode == 0, first.stderr
    return folder, command, first


def test_everything_is_there(finished):
    folder, _, first = finished
    out = folder / "out"
    rows = list(csv.reader((out / "results.csv").read_text().splitlines()))
    assert len(rows) == 2 * 5
    assert {row[4] for row in rows} <= {"sat", "unsat"}
    summary = list(csv.DictReader((out / "summary.csv").read_text().splitlines()))
    assert [(line["model"], line["method"]) for line in summary] == [
        ("mlp-dense", "dense"),
        ("mlp-magnitude-01", "magnitude"),
    ]
    assert int(summary[1]["parameters"]) < int(summary[0]["parameters"])
    for line in summary:
        assert 0.5 < float(line["standard_accuracy"]) <= 1
        assert float(line["certified_accuracy"]) <= float(line["pgd_accuracy"])
    assert {path.name for path in (out / "plots").iterdir()} == {
        f"{name}.png" for name in ("work", "certified", "instability", "layers", "networks", "cactus", "training")
    }
    unstable = list(csv.DictReader((out / "unstable.csv").read_text().splitlines()))
    assert {(line["model"], line["method"]) for line in unstable} >= {
        (model, method) for model in ("mlp-dense", "mlp-magnitude-01") for method in ("interval", "crown")
    }
    assert {line["neurons"] for line in unstable} == {"12"}
    assert "mlp-magnitude-01" in (out / "report.html").read_text()
    assert "certified accuracy" in first.stdout


def test_the_report_is_made_again_from_what_is_stored(finished, capsys):
    folder, _, first = finished
    out = folder / "out"
    before = {name: (out / name).read_bytes() for name in ("report.html", "summary.csv", "answers.csv")}
    (out / "report.html").unlink()
    assert run(["report", str(out), "--csv"]) == 0
    printed = capsys.readouterr()
    assert {name: (out / name).read_bytes() for name in before} == before
    assert printed.out == (out / "summary.csv").read_text()
    assert f"report: {out / 'report.html'}" in first.stdout


def test_verdicts_are_true_of_the_exported_files(finished):
    folder, _, _ = finished
    benchmark = folder / "out" / "benchmark"
    rng = np.random.default_rng(0)
    for record in journal.read(folder / "out" / journal.NAME):
        query = read_query(benchmark / record.vnnlib)
        session = Session(load_model(benchmark / record.onnx))
        if record.verdict == "sat":
            text = gzip.decompress((folder / "out" / record.witness).read_bytes()).decode()
            values = np.array([float(pair.split()[1]) for pair in text.replace("(", "").split(")") if pair.strip()])
            point = values[:64].astype(np.float32)
            assert query.holds(np.concatenate([point, session.run([point])[0].reshape(-1)]))
        else:
            points = box_points(query, rng)
            for point, scores in zip(points, session.run_batch([points])[0], strict=True):
                assert not query.holds(np.concatenate([point, scores]))


def box_points(query, rng) -> np.ndarray:
    """Random points and corners of the box, float32; the first 128 atoms are its bounds, upper and lower in turn."""
    limit = -query.atoms.constant[:128] / query.atoms.coefficient[:128]
    upper, lower = limit[0::2], limit[1::2]
    mix = np.concatenate([rng.random((200, 64)), rng.integers(0, 2, (200, 64))])
    return np.clip(lower + mix * (upper - lower), lower, upper).astype(np.float32)


def test_the_same_command_continues(finished, bench):
    folder, command, _ = finished
    before = {path: path.read_bytes() for path in (folder / "out").glob("*.csv")}
    code, text = bench(*command)
    assert code == 0
    assert "10 of 10 instances are answered" in text
    assert {path: path.read_bytes() for path in before} == before


def test_more_images_and_a_longer_limit_run_what_is_new_only(finished, bench, tmp_path):
    import shutil

    folder, _, _ = finished
    out = tmp_path / "out"
    shutil.copytree(folder / "out", out)
    networks = {path.name: path.read_bytes() for path in (out / "benchmark" / "onnx").iterdir()}
    recipe = RECIPE.replace("images = 5", "images = 7").replace("timeout = 20", "timeout = 25")
    (tmp_path / "tiny.toml").write_text(recipe)
    code, text = bench(tmp_path / "tiny.toml", "--out", out)
    assert code == 0
    assert "10 of 14 instances are answered" in text
    assert {path.name: path.read_bytes() for path in (out / "benchmark" / "onnx").iterdir()} == networks
    assert len((out / "results.csv").read_text().splitlines()) == 14
    # A network that is not as it was exported is exported again.
    (out / "benchmark" / "onnx" / "mlp-dense.onnx").write_bytes(networks["mlp-magnitude-01.onnx"])
    code, text = bench(tmp_path / "tiny.toml", "--out", out)
    assert "14 of 14 instances are answered" in text
    assert {path.name: path.read_bytes() for path in (out / "benchmark" / "onnx").iterdir()} == networks


def test_folders_of_somebody_else_are_refused_before_work_starts(tmp_path, capsys):
    (tmp_path / "tiny.toml").write_text(RECIPE)
    for mine in (tmp_path / "frozen" / "mine", tmp_path / "out" / "benchmark" / "vnnlib" / "mine"):
        mine.parent.mkdir(parents=True)
        mine.write_text("mine")
    command = ["bench", str(tmp_path / "tiny.toml"), "--out"]
    assert run([*command, str(tmp_path / "other"), "--freeze", str(tmp_path / "frozen")]) == 2
    assert "did not write" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
    assert run([*command, str(tmp_path / "out")]) == 2
    assert "no earlier run wrote" in capsys.readouterr().err
    assert not (tmp_path / "out" / "cache").exists()
    assert mine.read_text() == "mine"


def test_the_frozen_benchmark_gives_the_same_verdicts_in_both_languages(finished, bench):
    folder, _, _ = finished
    for version in ("1.0", "2.0"):
        code, text = bench(folder / "frozen", "--spec-version", version, "--out", folder / version)
        assert code == 0, text
        assert "10 agree, 0 undecided, 0 contradict" in text


def test_a_wrong_expected_verdict_is_loud(finished, bench):
    folder, _, _ = finished
    path = folder / "frozen" / "expected.csv"
    swapped = path.read_text().replace(",unsat\n", ",x\n").replace(",sat\n", ",unsat\n").replace(",x\n", ",sat\n")
    path.write_text(swapped)
    code, text = bench(folder / "frozen", "--out", folder / "1.0")
    assert code == 1
    assert text.count("CONTRADICTION") == 10


def test_several_seeds_are_averaged(tmp_path, bench):
    text = RECIPE.replace('name = "tiny"', 'name = "seeds"\nseeds = [1, 2]').replace("images = 5", "images = 2")
    (tmp_path / "seeds.toml").write_text(text)
    code, printed = bench(tmp_path / "seeds.toml", "--out", tmp_path / "out")
    assert code == 0
    every, means = (
        list(csv.DictReader((tmp_path / "out" / name).read_text().splitlines()))
        for name in ("summary.csv", "seeds.csv")
    )
    assert [line["model"] for line in every] == [
        f"{name}-seed{seed}" for seed in (1, 2) for name in ("mlp-dense", "mlp-magnitude-01")
    ]
    assert [(line["model"], line["seeds"]) for line in means] == [("mlp-dense", "2"), ("mlp-magnitude-01", "2")]
    dense = [float(line["standard_accuracy"]) for line in every if line["method"] == "dense"]
    assert dense[0] != dense[1]
    assert float(means[0]["standard_accuracy"]) == pytest.approx(sum(dense) / 2, abs=1e-5)
    assert "over 2 seeds" in printed
    assert len((tmp_path / "out" / "results.csv").read_text().splitlines()) == 2 * 2 * 2
    assert {line["neurons"] for line in csv.DictReader((tmp_path / "out/stability.csv").read_text().splitlines())} == {
        "12"
    }


def test_the_generator_repeats_and_redraws_the_specifications(finished, tmp_path):
    import shutil

    folder, _, _ = finished
    copy = tmp_path / "copy"
    shutil.copytree(folder / "frozen", copy)
    before = {path.name: path.read_bytes() for path in (copy / "vnnlib").iterdir()}
    lists = {}
    for seed in ("0", "7", "7"):
        subprocess.run([sys.executable, "generate_properties.py", seed], cwd=copy, check=True)
        made = {path.name: path.read_bytes() for path in (copy / "vnnlib").iterdir()}
        assert lists.setdefault(seed, made) == made
    assert lists["0"] == before
    assert lists["7"].keys() != before.keys()
    assert len(lists["7"]) == json.loads((copy / "properties.json").read_text())["images"]
