"""``prunecert explain``: what is open of the undecided instances of a run, and what to try; nothing is verified."""

from __future__ import annotations

import csv
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from toolkit.bench.columns import runs_in
from toolkit.bench.journal import JournalRecord
from toolkit.bench.run_options import Options
from toolkit.bench.stored_run import StoredRun, read_run, stored_records
from toolkit.commands.arguments import Flag, print_json
from toolkit.errors import ExitCode, InputError
from toolkit.experiments.row_questions import ROWS
from toolkit.explanation import advice_of_points
from toolkit.result import DECIDED, Statistics, Verdict


def explain(run: Path, instance: str | None = None, /, *, json: Flag = False) -> ExitCode:
    """Say what is open of the undecided instances of a run, and what to try, from the answers in its folder.

    Parameters
    ----------
    run
        The folder of a run of prunecert bench, certify or prune, finished or not; of several columns, that of all.
    instance
        A row of the data, counted from 0, of a run about rows, else the place in the order of the instances, counted
        from 0; or a part of the names of network or specification. Without it all that is undecided.
    json
        Print one JSON object for each instance instead, in a list.
    """
    folders = runs_in(run)
    runs = {folder: _explained_run(folder, instance) for folder in folders}
    if json:
        print_json([asdict(one) for answers in runs.values() for one in answers.found])
        return ExitCode.DONE
    for folder, answers in runs.items():
        print("\n".join([*([f"{folder}:"] if len(folders) > 1 else []), *answers.lines()]))
    return ExitCode.DONE


def _unanswered(missing: int) -> str:
    return f"{missing} are not answered yet: the command of the run, called again, continues it" if missing else ""


@dataclass(frozen=True)
class ExplainedRun:
    """The answers of a run that are explained, and how many there are besides."""

    found: Sequence[ExplainedAnswer]
    chosen: bool
    """Whether instances were named; else these are all that are undecided."""
    asked: int
    answered: int

    def lines(self) -> list[str]:
        """The explanation for people."""
        rest = "" if self.chosen else f"{len(self.found)} of {self.asked} instances are undecided"
        return [*(line for one in self.found for line in one.lines()),
                *filter(None, [rest, _unanswered(self.asked - self.answered)])]  # fmt: skip


def _explained_run(folder: Path, instance: str | None) -> ExplainedRun:
    """What is known of the undecided instances of one run, or of those that are named."""
    stored = read_run(folder)
    records = stored_records(folder, stored)
    chosen = undecided(records) if instance is None else named(folder, stored, records, instance)
    found = [explained(stored, record) for record in chosen]
    return ExplainedRun(found, instance is not None, len(stored.instances), len(records))


def undecided(records: Sequence[JournalRecord]) -> list[JournalRecord]:
    """The answers that are neither sat nor unsat."""
    return [record for record in records if record.verdict not in DECIDED]


def named(run: Path, stored: StoredRun, records: Sequence[JournalRecord], name: str) -> list[JournalRecord]:
    """The answers to the instances that a number or a part of a name means. Raises InputError where there is none."""
    if name.isdecimal():
        rows = _rows(run)
        if rows:
            found = [record for record in records if rows.get(Path(record.vnnlib).name) == int(name)]
        else:
            keys = [one.key for one in stored.instances][int(name) : int(name) + 1]
            found = [record for record in records if record.key in keys]
    else:
        found = [record for record in records if name in record.onnx or name in record.vnnlib]
    if not found:
        raise InputError(
            f"{run}: no answer to an instance {name!r}; {len(records)} of {len(stored.instances)} are answered, and "
            "answers.csv has their networks and specifications"
        )
    return found


def _rows(run: Path) -> dict[str, int]:
    """Row of the data by the name of its specification, of a run of ``prunecert certify``; else empty."""
    path = run / "benchmark" / ROWS
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {Path(line["specification"]).name: int(line["row"]) for line in csv.DictReader(file)}


@dataclass(frozen=True)
class ExplainedAnswer:
    """One instance of a run: its answer, what is known where that is none, and what may decide it."""

    category: str
    network: str
    specification: str
    verdict: Verdict
    reason: str
    seconds: float
    timeout: float
    """Time limit in seconds."""
    statistics: Statistics
    suggestions: tuple[str, ...]

    def lines(self) -> list[str]:
        """The explanation for people."""
        ended = f"{self.verdict} after {self.seconds:.1f} of {self.timeout:g} s"
        how = f", by {self.statistics.decided_by}" if self.verdict in DECIDED and self.statistics.decided_by else ""
        reason = f": {self.reason}" if self.reason else ""
        lines = [f"{self.network} {self.specification}: {ended}{how}{reason}"]
        known = [] if self.verdict in DECIDED else [_of_cases(self.statistics), _of_search(self.statistics)]
        return [*lines, *(f"  {text}" for text in known if text), *(f"  try: {text}" for text in self.suggestions)]


def explained(stored: StoredRun, record: JournalRecord) -> ExplainedAnswer:
    """What is known of an answer."""
    return ExplainedAnswer(
        record.category, record.onnx, record.vnnlib, record.verdict, record.reason, record.seconds, record.timeout,
        record.statistics, () if record.verdict in DECIDED else tuple(_suggestions(stored, record)),
    )  # fmt: skip


def _of_cases(known: Statistics) -> str:
    if not known.cases:
        return ""
    bound = "no bound" if known.weakest_bound is None else f"weakest bound {known.weakest_bound:.4g}"
    point = "no point tried" if known.nearest_point is None else f"nearest point misses by {known.nearest_point:.4g}"
    return f"{known.open_cases:,} of {known.cases:,} cases are open: {bound}, {point}"


def _of_search(known: Statistics) -> str:
    searched = f"{known.domains:,} domains bounded, at most {known.depth} splits deep" if known.domains else ""
    neurons = f"{known.unstable:,} of {known.relus:,} ReLUs unstable by {known.bounds}" if known.bounds else ""
    return "; ".join(filter(None, [searched, neurons]))


def _suggestions(stored: StoredRun, record: JournalRecord) -> list[str]:
    """What may decide an undecided instance, by what the journal has of it."""
    if record.verdict == Verdict.ERROR:
        return ["put right what the reason names; the command of the run with --retry-errors asks again then"]
    known = record.statistics
    limit = record.timeout * Options().retry_factor
    return [
        *filter(None, [advice_of_points(known.nearest_point, known.weakest_bound)]),
        f"the command of the run with --retry-undecided: {limit:g} s for each undecided instance",
        *filter(None, [_command(stored, record, limit)]),
    ]


def _command(stored: StoredRun, record: JournalRecord, limit: float) -> str:
    """The command that asks this instance alone, and tells more; empty for several networks."""
    network, specification = stored.files_of(record)
    if not (network.is_file() and specification.is_file()):
        return ""
    words = ["prunecert", "verify", str(specification), "--network", str(network), "--timeout", f"{limit:g}"]
    return f"{shlex.join(words)}, which tells each open case"
