"""The certificate that docs/certificate.md writes by hand."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import pytest

from toolkit.cli import run
from toolkit.proof.check import main
from toolkit.proof.stream import HEAD, MAGIC, RecordKind

PAGE = (Path(__file__).parents[3] / "docs" / "certificate.md").read_text()
FILES = ["two.onnx", "two.vnnlib", "two.certificate"]


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with the three files, made by the page's code."""
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    return tmp_path / FILES[2]


@pytest.mark.parametrize("more", [[], ["--exact"], ["--jobs", "2"]])
def test_it_checks_as_the_page_says(written: Path, more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    [said] = re.findall(r"```bash\nprunecert check two.*?```text\n(.*?)```", PAGE, re.DOTALL)
    assert main([*FILES, *more]) == 0
    assert capsys.readouterr().out == said
    assert run(["check", *FILES, *more]) == 0
    assert capsys.readouterr().out == said


@pytest.mark.parametrize(("dropped", "code"), [(3, 2), (5, 2), (6, 2), (2, 1), (4, 1), (1, 1), (0, 1), (7, 0)])
def test_nothing_in_it_is_idle(written: Path, dropped: int, code: int) -> None:
    """Without a leaf it is incomplete; without a split, later records speak of contexts that are not there."""
    data, records = zlib.decompress(written.read_bytes()[len(MAGIC) :]), []
    while data:
        end = HEAD.size + HEAD.unpack_from(data)[1]
        records.append(data[:end])
        data = data[end:]
    del records[dropped]
    written.write_bytes(MAGIC + zlib.compress(b"".join(records)))
    assert main(FILES) == code


def test_the_page_names_all_kinds() -> None:
    rows = dict(re.findall(r"^\| (\d+) \| ([A-Z_]+)", PAGE, re.MULTILINE))
    assert {int(number): name for number, name in rows.items()} == {kind.value: kind.name for kind in RecordKind}


def test_it_is_exported_as_the_page_says(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All commands of the page about these files; the leaves that it shows stand in what they write."""
    commands = re.findall(r"^prunecert (export-proof two.*)$", PAGE, re.MULTILINE)
    for command in commands:
        assert run(command.split()) == 0
        assert capsys.readouterr().out.strip() == command.split()[-1]
    [leaves] = re.findall(r"```\n(; Hidden constraints\n.*?)```", PAGE, re.DOTALL)
    assert leaves in written.with_suffix(".aptp").read_text() and written.with_suffix(".json").exists()
    assert len(commands) == 2
