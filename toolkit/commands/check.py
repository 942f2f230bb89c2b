"""``prunecert check``: check a certificate, or all of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.commands.arguments import Flag, print_json
from toolkit.errors import ExitCode, InputError
from toolkit.result import Verdict

if TYPE_CHECKING:
    from toolkit.bench.journal import JournalRecord
    from toolkit.bench.stored_run import StoredRun
    from toolkit.proof.check import CheckOutcome

Files = tuple[Path, Path, Path]
"""Network, specification and certificate."""


def check(
    net: Path,
    spec: Path | None = None,
    certificate: Path | None = None,
    /,
    *,
    jobs: int = 1,
    exact: bool = False,
    json: Flag = False,
) -> int:
    """Check the certificate of an answer ``unsat`` with numpy and onnx alone, in arithmetic that rounds outward.

    The first line on stdout is checked, refuted (the file states something false, or is damaged, or is about other
    files) or incomplete (some case has no proof); the second one says where. The exit code is 0, 1 or 2.
    ``python -m toolkit.proof.check`` does it without the rest of the package.

    Of a run, all certificates in its folder are checked: a line for each that is not accepted, and how many are; the
    exit code is 1 where one is refuted, 2 where one is incomplete or an answer unsat has none, else 0.

    Parameters
    ----------
    net
        The network, .onnx or .onnx.gz; or the folder of a run, and nothing else.
    spec
        The specification, plain or .gz.
    certificate
        The certificate.
    jobs
        Processes that share the leaves, or the certificates of a run.
    exact
        Compute in rational numbers, for tiny networks.
    json
        Print one JSON object instead: status and message; of a run, how many are accepted, and those that are not.
    """
    from toolkit.proof.check import EXIT_CODES

    if jobs < 1:
        raise InputError("--jobs has to be at least 1")
    if net.is_dir() and spec is None:
        return check_run(net, jobs, exact, json)
    if spec is None or certificate is None:
        raise InputError("prunecert check takes NET SPEC CERTIFICATE, or the folder of a run")
    outcome = _checked((net, spec, certificate), exact, jobs)
    if isinstance(outcome, str):
        raise InputError(outcome)
    if json:
        print_json({"status": outcome.status, "message": outcome.message})
    else:
        print(f"{outcome.status}\n{outcome.message}")
    return EXIT_CODES[outcome.status]


def check_run(folder: Path, jobs: int, exact: bool, json: bool = False) -> int:
    """Check what the answers `unsat` of a run rest on. Raises InputError for what is no run, or has no such answer."""
    from toolkit.bench.stored_run import read_run, stored_records
    from toolkit.proof.check import CHECKED

    run = read_run(folder)
    proved = [record for record in stored_records(folder, run) if record.verdict is Verdict.UNSAT]
    if not proved:
        raise InputError(f"{folder}: no answer of this run is unsat")
    counts: dict[str, int] = {}
    floats, others = 0, []
    for record, outcome in zip(proved, _outcomes(folder, run, proved, jobs, exact), strict=True):
        status, message = ("unreadable", outcome) if isinstance(outcome, str) else (outcome.status, outcome.message)
        counts[status] = counts.get(status, 0) + 1
        floats += not isinstance(outcome, str) and outcome.floats
        if status != CHECKED:
            others.append({"instance": list(record.row), "status": status, "message": message})
    checked = counts.get(CHECKED, 0)
    if json:
        print_json({"unsat": len(proved), "checked": checked, "floats": floats, "others": others})
        return _code(counts, len(proved))
    for one in others:
        print(f"{one['status']}: {' '.join(one['instance'])}: {one['message']}")
    more = f", {floats} of them for every evaluation in floating point" if floats else ""
    print(f"{checked} of {len(proved)} answers unsat have a certificate that is accepted{more}")
    return _code(counts, len(proved))


def _code(counts: Mapping[str, int], proved: int) -> ExitCode:
    """The exit code about a run, of how many certificates have which status."""
    from toolkit.proof.check import CHECKED, REFUTED

    if counts.get(REFUTED):
        return ExitCode.CONTRADICTION
    return ExitCode.DONE if counts.get(CHECKED) == proved else ExitCode.BAD_INPUT


def _outcomes(
    folder: Path, run: StoredRun, records: Sequence[JournalRecord], jobs: int, exact: bool
) -> Iterator[CheckOutcome | str]:
    """What the checker says of each record's certificate, or why it cannot say anything."""
    questions = [_files(folder, run, record) for record in records]
    if jobs == 1:
        yield from (_checked(files, exact) for files in questions)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        yield from pool.map(_checked, questions, [exact] * len(questions))


def _files(folder: Path, run: StoredRun, record: JournalRecord) -> Files | None:
    """The files of a record; None where it has no certificate."""
    network, specification = run.files_of(record)
    return (network, specification, folder / record.certificate) if record.certificate else None


def _checked(files: Files | None, exact: bool, jobs: int = 1) -> CheckOutcome | str:
    """What the checker says of a certificate, or why it cannot read what it needs."""
    from toolkit.proof.check import check
    from toolkit.proof.network import UnreadableError

    if files is None:
        return "there is no certificate"
    try:
        return check(*files, exact, jobs)
    except UnreadableError as error:
        return str(error)
