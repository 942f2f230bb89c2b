"""One VNN-COMP instance: ``python -m toolkit.bench.vnncomp CATEGORY ONNX VNNLIB RESULTS_FILE TIMEOUT``.

``unknown`` is written first and the verdict replaces it atomically, so the file is right whenever the harness looks.
The harness kills at the time limit without grace: the verifier gets what is left of it after start-up, in a process of
its own, which ends with this one, as this one ends with the script that started it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from toolkit.bench.atomic_files import write_text_atomically
from toolkit.bench.executors import guarded
from toolkit.bench.job import Answer, InstanceJob
from toolkit.bench.verify_job import VERIFY
from toolkit.errors import InputError, ToolkitError
from toolkit.formats.vnncomp.instances import parse_networks
from toolkit.result import Verdict
from toolkit.run.forked_query import ProcessCrashed, ProcessLimits, ProcessOverdue, run_forked, seconds_passed
from toolkit.run.lifetime import die_with
from toolkit.settings import Settings
from toolkit.tuning import tuned


def main(arguments: Sequence[str]) -> int:
    """Answer one instance; the exit code is 0 whenever the results file has a verdict."""
    try:
        category, onnx, vnnlib, results, timeout = arguments
        job = make_job(category, onnx, vnnlib, float(timeout))
    except ValueError:
        print(f"expected CATEGORY ONNX VNNLIB RESULTS_FILE TIMEOUT, got {' '.join(arguments)}", file=sys.stderr)
        return 2
    except ToolkitError as error:
        print(error, file=sys.stderr)
        return 2
    path = Path(results)
    write_text_atomically(path, "unknown\n")
    answer = answered(job)
    if answer.reason:
        print(f"{answer.verdict}: {answer.reason}", file=sys.stderr)
    write_text_atomically(path, to_text(answer))
    return 0


def make_job(category: str, onnx: str, vnnlib: str, timeout: float) -> InstanceJob:
    """The instance as a job, its time limit shortened by what has passed and a margin."""
    passed = seconds_passed()
    left = timeout - passed - tuned().bench.seconds_to_finish
    if left <= 0:
        raise InputError(f"no time is left: {passed:.1f} of {timeout:g} s have passed")
    networks = tuple((name, Path(path)) for name, path in parse_networks(onnx).items())
    return InstanceJob("", category, onnx, vnnlib, networks, Path(vnnlib), Settings(timeout=left, real_semantics=True))


def answered(job: InstanceJob) -> Answer:
    """The answer, whatever the network does to the process that looks for it."""
    try:
        return run_forked(partial(guarded, VERIFY, job), ProcessLimits(job.timeout))
    except ProcessOverdue:
        return Answer(Verdict.TIMEOUT, f"time limit of {job.timeout:g} s")
    except ProcessCrashed as error:
        return Answer(Verdict.ERROR, str(error))


def to_text(answer: Answer) -> str:
    """The results file: the verdict, then the counterexample."""
    return f"{answer.verdict}\n{answer.witness if answer.verdict == Verdict.SAT else ''}"


if __name__ == "__main__":
    die_with(os.getppid())
    sys.exit(main(sys.argv[1:]))
