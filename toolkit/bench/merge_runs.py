"""One run of several that are parts of it (``--shard I/N``): their answers, and the files that these name, together.

A part may be missing, unfinished or still running: its open instances stay open. What cannot be parts of one run, and
parts that contradict each other, are an error that names both.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from toolkit.bench import journal
from toolkit.bench.atomic_files import copy_to_disk, file_digest
from toolkit.bench.columns import NAME as COLUMNS
from toolkit.bench.journal import JournalRecord, answer_to
from toolkit.bench.shards import missing_shards, parse_shard
from toolkit.bench.stored_run import NAME as RUN
from toolkit.bench.stored_run import AskedInstance, InstanceList, StoredRun, read_run, records_that_count, store_run
from toolkit.errors import InputError
from toolkit.result import DECIDED, Verdict


@dataclass(frozen=True)
class RunPart:
    """One part of an undivided run, as it was stored."""

    folder: Path
    run: StoredRun
    undivided: InstanceList
    asked: Mapping[int, AskedInstance]
    """Instances of the part, by their places in the undivided run."""
    records: Mapping[str, Sequence[JournalRecord]]
    """Records of the part's journal that count, by the question that they answer."""

    def answer(self, position: int) -> JournalRecord | None:
        """The part's answer to the instance at a place of the undivided run; None where it has none."""
        one = self.asked.get(position)
        return None if one is None else answer_to(one, self.records.get(one.about, ()))


@dataclass(frozen=True)
class MergedRun:
    """The run that was made of its parts, and what is to be told of it."""

    run: StoredRun
    gaps: tuple[str, ...]
    """What is open, a sentence each."""
    differences: tuple[str, ...]
    """Differences between the machines or programs that answered, a sentence each."""


def merge_runs(folders: Sequence[Path], out: Path, whole: Path | None = None) -> MergedRun:
    """Write the answers of the runs in ``folders`` into ``out`` as one run: journal, description, and the files that
    answers name. Answers of the same run that are in ``out`` already stay. ``whole`` is the folder that a command which
    continues the run has to name, where the run is one of its columns.

    Nothing is changed elsewhere. Raises InputError for what cannot be one run, and OSError where a file cannot be
    written.
    """
    given = [path for path in dict.fromkeys(folders) if path.resolve() != out.resolve()]
    started = [path for path in given if not is_unused(path)]
    parts = [read_part(path) for path in started]
    if (out / RUN).is_file():
        parts.append(read_part(out))
    if not parts:
        raise InputError(f"nothing to merge: no run was started in {', '.join(map(str, folders))}")
    _check_list(parts)
    _check_contents(parts)
    _check_answers(parts)
    chosen = _choose(parts)
    _write(chosen, out)
    run = _merged(parts, chosen)
    store_run(out, run)
    unused = [f"{path}: no run was started there" for path in given if path not in started]
    return MergedRun(run, (*unused, *_gaps(parts, chosen, out, whole or out)), tuple(_differences(parts)))


def is_unused(folder: Path) -> bool:
    """Whether a folder is there, and nothing of a run, nor of several, is in it yet."""
    return folder.is_dir() and not any((folder / name).exists() for name in (RUN, journal.NAME, COLUMNS))


def read_part(folder: Path) -> RunPart:
    """The run in a folder. Raises InputError where there is none, or none that can be a part of another."""
    run = read_run(folder)
    if run.recipe is not None:
        raise InputError(f"{folder}: the run of a recipe is no part of another; only those of benchmark folders are")
    if run.undivided is None:
        raise InputError(
            f"{folder}/{RUN}: it does not say which part of a run this is; `prunecert bench` on the benchmark's folder "
            "writes that, and keeps the answers"
        )
    asked = {one.position: one for one in run.instances}
    return RunPart(folder, run, run.undivided, asked, records_that_count(folder, run))


def _check_list(parts: Sequence[RunPart]) -> None:
    """Raise InputError unless all are parts of one run."""
    first = parts[0]
    for part in parts:
        if part.undivided != first.undivided:
            raise InputError(
                f"{first.folder} and {part.folder} are not parts of one run: their instances, settings or limits "
                f"differ ({first.run.command}; {part.run.command})"
            )


def _counting(parts: Sequence[RunPart]) -> Iterator[tuple[RunPart, JournalRecord]]:
    return ((part, record) for part in parts for records in part.records.values() for record in records)


def _check_contents(parts: Sequence[RunPart]) -> None:
    """Raise InputError where answers are about other contents of one file."""
    seen: dict[tuple[str, str], tuple[object, Path]] = {}
    for part, record in _counting(parts):
        origin = record.provenance
        for name, content in ((record.onnx, origin.get("networks")), (record.vnnlib, origin.get("spec"))):
            before, folder = seen.setdefault((record.category, name), (content, part.folder))
            if before != content:
                raise InputError(
                    f"{record.category} {name}: {folder} and {part.folder} are about other contents of it; run again "
                    "what is out of date"
                )


def _check_answers(parts: Sequence[RunPart]) -> None:
    """Raise InputError where one answer is sat and another, to the same instance, unsat."""
    seen: dict[tuple[str, str, str], tuple[Verdict, Path]] = {}
    for part, record in _counting(parts):
        if record.verdict not in DECIDED:
            continue
        before, folder = seen.setdefault(record.row, (record.verdict, part.folder))
        if before != record.verdict:
            raise InputError(
                f"CONTRADICTION: {' '.join(record.row)}: {before} in {folder}, {record.verdict} in {part.folder}; one "
                "of them is wrong, and nothing is merged"
            )


def _choose(parts: Sequence[RunPart]) -> dict[int, RunPart]:
    """Which part's answer counts, by place in the undivided run: the first that decides, else the first that is."""

    def worth(part: RunPart, position: int) -> int:
        answer = part.answer(position)
        return 0 if answer is None else 2 if answer.verdict in DECIDED else 1

    held = sorted({position for part in parts for position in part.asked})
    return {
        position: max((part for part in parts if position in part.asked), key=lambda part: worth(part, position))
        for position in held
    }


def _write(chosen: Mapping[int, RunPart], out: Path) -> None:
    """Copy files and journal lines of the chosen answers; lines that are there already stay, and are there once."""
    kept = journal.history(out / journal.NAME)
    known = {journal.line_of(record) for record in kept}
    added: dict[bytes, JournalRecord] = {}
    for position, part in chosen.items():
        if part.folder == out:
            continue
        for record in part.records.get(part.asked[position].about, ()):
            for name, digest in record.files:
                _copy(part.folder, out, name, digest)
            added[journal.line_of(record)] = record
    records = [*kept, *(record for line, record in added.items() if line not in known)]
    journal.write(out / journal.NAME, sorted(records, key=lambda record: record.finished))


def _copy(folder: Path, out: Path, name: str, digest: str) -> None:
    if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
        raise InputError(f"{folder / journal.NAME}: it names a file that is not in this folder: {name}")
    if file_digest(out / name) != digest:
        copy_to_disk(folder / name, out / name)


def _merged(parts: Sequence[RunPart], chosen: Mapping[int, RunPart]) -> StoredRun:
    """The description of all parts together."""
    machines = [part.run.machine for part in parts]
    names = dict.fromkeys(name for machine in machines for name in machine)
    return replace(
        parts[0].run,
        instances=tuple(chosen[position].asked[position] for position in sorted(chosen)),
        folders={category: folder for part in reversed(parts) for category, folder in part.run.folders.items()},
        command=shlex.join(["prunecert", *sys.argv[1:]]),
        started=min(part.run.started for part in parts),
        machine={name: "; ".join(dict.fromkeys(one[name] for one in machines if name in one)) for name in names},
        shard="",
    )


def _gaps(parts: Sequence[RunPart], chosen: Mapping[int, RunPart], out: Path, whole: Path) -> Iterator[str]:
    """What is open: parts that are missing, parts that are not finished, and how to go on."""
    total = parts[0].undivided.total
    absent = [position for position in range(total) if position not in chosen]
    unanswered = {position for position, part in chosen.items() if part.answer(position) is None}
    counts = {parse_shard(part.run.shard).count for part in parts if part.run.shard}
    missing = missing_shards(absent, total, *counts) if len(counts) == 1 else []
    for shard in missing:
        yield f"part {shard} is missing: {_instances(len(shard.positions(total)))} open"
    rest = len(absent) - sum(len(shard.positions(total)) for shard in missing)
    if rest:
        yield f"{_instances(rest)} in none of these runs, and open"
    for part in parts:
        count = len(unanswered & part.asked.keys())
        if count and part.folder != out:
            label = f" (part {part.run.shard})" if part.run.shard else ""
            yield f"{part.folder}{label} is not finished: {_instances(count)} open, of {len(part.asked)}"
    if absent or unanswered:
        yield f"{len(absent) + len(unanswered)} of {total} are open; to run them: {_command_for(parts, whole)}"


def _instances(count: int) -> str:
    return f"{count} instance{'s are' if count > 1 else ' is'}"


def _command_for(parts: Sequence[RunPart], out: Path) -> str:
    """The command that runs all that is open in the merged folder."""
    for part in parts:
        words = shlex.split(part.run.command)
        if words[1:2] == ["bench"]:
            here = Path(part.run.working_folder) == Path.cwd()
            text = shlex.join([*_without(words, "--shard", "--out"), "--out", str(out if here else out.resolve())])
            return text if here else f"{text} (in {part.run.working_folder})"
    return f"prunecert bench FOLDER --out {out}, with the options of the parts"


def _without(words: Sequence[str], *options: str) -> Iterator[str]:
    """The words of a command without some options and their values."""
    left = iter(words)
    for word in left:
        if word in options:
            next(left, None)
        elif word.partition("=")[0] not in options:
            yield word


def _differences(parts: Sequence[RunPart]) -> Iterator[str]:
    """In what those that answered differ, which a run that continues would answer again."""
    for name in ("versions", "device"):
        found = {str(record.provenance.get(name)): part.folder for part, record in _counting(parts)}
        if len(found) > 1:
            yield (
                f"{name} differ, as between {' and '.join(map(str, list(found.values())[:2]))}: the same command on "
                "the merged folder would answer again what others than this machine's have answered"
            )
