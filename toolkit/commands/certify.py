"""``prunecert certify``: certified accuracy of a network as it is, on rows of one's own data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from toolkit.bench.run_options import Options
from toolkit.commands.arguments import Flag, on_stderr, print_json
from toolkit.commands.row_options import READING, Reading, RowBalls
from toolkit.errors import ExitCode, InputError


@Parameter(name="*")
@dataclass(frozen=True)
class Verification:
    """How the rows are verified."""

    timeout: float = 30.0
    """Seconds for each row."""
    device: Literal["auto", "cpu", "cuda"] | None = None
    """Where to bound."""
    workers: int | None = None
    """Processes that verify at the same time; by default one per core, at most four per GPU."""
    memory_limit: float | None = None
    """Memory of the run in GiB, divided among its workers."""
    executor: str = "processes"
    """How rows are run: processes, ray (on the cluster of RAY_ADDRESS, or one that is started here), or in-process for
    debugging (no time limit from outside)."""
    seed: int | None = None
    """Seed of attacks."""
    setting: Annotated[tuple[str, ...], Parameter(negative=())] = ()
    """Any setting of the verifier as NAME=VALUE; may be repeated."""
    certificates: Flag = False
    """Write a certificate of each unsat to certificates/, for `prunecert check`: the setting certifiable."""
    certified: Flag = False
    """Answer unsat only where the checker accepts the certificate, within the time limit: the setting certified."""
    retry_errors: Flag = False
    """Run rows again whose answer was error."""
    retry_undecided: Flag = False
    """Run rows that stay undecided once more, with ten times the time; what is decided stands."""
    fresh: Flag = False
    """Forget the answers of an earlier run."""

    def options(self) -> Options:
        """The options of a run. Raises InputError."""
        if not self.timeout > 0:
            raise InputError(f"--timeout {self.timeout:g}: a number above 0 is needed")
        options = Options(**{name: value for name, value in vars(self).items() if name != "timeout"})
        options.check()
        return options


VERIFICATION = Verification()


def certify(
    network: Path,
    /,
    *,
    balls: RowBalls,
    output: Annotated[Path | None, Parameter(alias="-o")] = None,
    reading: Reading = READING,
    verification: Verification = VERIFICATION,
    json: Flag = False,
) -> int:
    """Certified accuracy of an ONNX classifier on rows of data: no point within --epsilon has another class.

    The folder gets benchmark/ (network and specifications in VNN-COMP layout), certified.csv, certified.json,
    results.csv, witnesses/ and report.html. The same command continues a run that was interrupted.

    Parameters
    ----------
    network
        The network, .onnx or .onnx.gz: a classifier whose largest output is its answer, or one with a single score.
    output
        Folder for everything; results/NAME by default.
    json
        Print one JSON object on stdout at the end, as in certified.json, and all else on stderr.
    """
    from toolkit.experiments.certification import certify_rows

    question = reading.question(network, balls.data, balls.labels, balls.epsilon)
    with on_stderr(json):
        certified = certify_rows(question, verification.timeout, verification.options(), output)
    if json:
        print_json(certified.to_json() | {"folder": str(certified.folder)})
    return ExitCode.DONE if certified.consistent else ExitCode.CONTRADICTION
