"""Deciding a query with a certificate of its answer, where that is `unsat`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path

from toolkit.certificates.quick_certificate import certificate
from toolkit.certificates.repair import repaired
from toolkit.errors import InputError
from toolkit.formats.vnnlib.read import read_query
from toolkit.proof.check import CHECKED, INCOMPLETE, REFUTED, CertificateChecker, CheckOutcome, check
from toolkit.proof.formula import load_formula
from toolkit.proof.network import UnreadableError, load_network
from toolkit.proof.stream import records
from toolkit.result import Result, Verdict
from toolkit.run.alarm import Overdue, out_of_time_after
from toolkit.run.clock import Clock, OutOfTime
from toolkit.run.events import Observer, ObserverGroup
from toolkit.settings import Settings
from toolkit.tuning import tuned
from toolkit.verify import LoadedNetwork, speaks_of_floats, verify


@dataclass(frozen=True)
class ProofFiles:
    """A query's files, and where its certificate goes."""

    networks: Mapping[str, Path]
    specification: Path
    certificate: Path

    @property
    def network(self) -> Path:
        """The first network, which is the only one of a query that has a certificate."""
        return next(iter(self.networks.values()))

    @property
    def paths(self) -> tuple[Path, Path, Path]:
        """Network, specification and certificate, as the checker takes them."""
        return self.network, self.specification, self.certificate


def verify_with_certificate(
    files: ProofFiles,
    networks: Mapping[str, LoadedNetwork],
    settings: Settings,
    observer: Observer,
    clock: Clock,
) -> Result:
    """Decide a query, and write why it is `unsat`, if it is; if ``settings.certified``, only what the checker accepts.

    The statistics have what is known of the certificate; the reason of an answer `unsat` says why there is none, or
    what it leaves open. There is no file after `sat`, and a readable beginning where nothing decides. Raises InputError
    where the file cannot be written, and what `toolkit.verify.verify` raises.
    """
    query = read_query(files.specification)
    floats, unchecked = speaks_of_floats(query, settings), settings.changed({"certified": False})

    def decide(settings: Settings, *listeners: Observer) -> Result:
        return verify(networks, query, settings, ObserverGroup((observer, *listeners)), clock)

    if (found := _quick_certificate(files, settings, clock, floats)) is not None:
        result = _with_quick_certificate(files, decide(unchecked), found)
    else:
        result = _by_search(files, decide, unchecked.changed({"certifiable": True, "bounds": "native"}), floats)
    if not settings.certified or result.verdict is not Verdict.UNSAT:
        return result
    return checked(files, result, clock, floats, settings.processes)


def _by_search(files: ProofFiles, decide: Callable[..., Result], settings: Settings, floats: bool) -> Result:
    """The answer of a search that is written down; ``decide`` takes the settings and who else listens."""
    from toolkit.certificates.recorder import CertificateRecorder  # which takes torch

    try:
        if len(files.networks) > 1:
            raise UnreadableError("the checker reads specifications of one network")
        recorder = CertificateRecorder(files.network, files.specification, files.certificate, floats)
    except UnreadableError as error:
        result = decide(settings)
        return _unsat_because(result, f"no certificate: {error}")
    except OSError as error:
        raise InputError(f"{files.certificate}: {error.strerror}") from None
    result = decide(settings, recorder)
    recorder.close(result.verdict is Verdict.UNSAT)
    if result.verdict is Verdict.SAT:
        files.certificate.unlink()
    if result.verdict is not Verdict.UNSAT:
        return result
    gaps = "; ".join(f"{count} {gap}" for gap, count in recorder.gaps.items())
    result = _unsat_because(result, f"the certificate is not complete: {gaps}" if gaps else "")
    return _with_facts(result, files, INCOMPLETE if gaps else "complete")


def checked(files: ProofFiles, result: Result, clock: Clock, floats: bool = False, processes: int = 1) -> Result:
    """An answer `unsat`, or another one where the checker does not accept its certificate before the time is over, nor
    one in which the leaves that it refuses are split further; with ``floats``, as one about evaluations in the
    network's floating-point type. ``processes`` as in `Settings`."""
    if result.statistics.certificate != "complete":
        return replace(result, verdict=Verdict.UNKNOWN)
    began = clock.seconds
    try:
        with out_of_time_after(clock.seconds_left):
            outcome = check_or_repair(files, clock, _checkers(processes, began))
    except Overdue:
        return replace(result, verdict=Verdict.TIMEOUT, reason="time limit, while the certificate was checked")
    except UnreadableError as error:
        return replace(result, verdict=Verdict.UNKNOWN, reason=f"the certificate cannot be checked: {error}")
    size, seconds = files.certificate.stat().st_size, clock.seconds - began
    statistics = replace(
        result.statistics, certificate=outcome.status, certificate_bytes=size, checking_seconds=seconds
    )
    result = replace(result, statistics=statistics)
    if outcome.status == CHECKED and outcome.floats >= floats:
        return result
    return replace(result, verdict=Verdict.UNKNOWN, reason=f"the certificate is {outcome.status}: {outcome.message}")


def _checkers(processes: int, seconds: float) -> int:
    """How many processes share the leaves of a certificate: as many as are worth their start after a search of so many
    seconds, one after a short one."""
    if seconds < tuned().sharing.seconds_before or "torch" not in sys.modules:
        return 1
    import torch

    from toolkit.run.forked_processes import cores, worth_starting

    return min(cores(torch.device("cpu"), processes), worth_starting(seconds))


def check_in_shares(files: ProofFiles, clock: Clock, count: int) -> CheckOutcome:
    """What the checker says of a certificate whose leaves are dealt among ``count`` processes; where one of these is
    lost, this process checks all leaves. Raises UnreadableError."""
    if count > 1:
        from toolkit.run.forked_processes import side_by_side

        network, formula, data = (
            load_network(files.network),
            load_formula(files.specification),
            files.certificate.read_bytes(),
        )

        def share(number: int) -> CheckOutcome:
            return CertificateChecker(network, formula, share=(number, count)).run(records(BytesIO(data)))

        found = side_by_side([partial(share, number) for number in range(count)], clock)
        outcomes = [outcome for outcome in found if outcome is not None]
        if len(outcomes) == count:
            return min(outcomes, key=lambda found: (found.status != REFUTED, found.status == CHECKED))
    return check(*files.paths)


def check_or_repair(files: ProofFiles, clock: Clock, count: int = 1) -> CheckOutcome:
    """What the checker says of a certificate, in ``count`` processes. Where it refuses leaves that can be split,
    they are split, and what it says of the new certificate counts. Raises UnreadableError."""
    outcome = check_in_shares(files, clock, count)
    if outcome.status != REFUTED:
        return outcome
    try:
        # by the machine's clock: what is done for a certificate are no bounding passes, of which few may be left
        better = repaired(*files.paths, Clock.started(tuned().certificates.repair_time_share * clock.seconds_left))
    except OutOfTime:
        return outcome
    if better is None:
        return outcome
    files.certificate.write_bytes(better)
    return check_in_shares(files, clock, count)


def _unsat_because(result: Result, reason: str) -> Result:
    """An answer with a remark, where it is `unsat`."""
    return replace(result, reason=reason) if result.verdict is Verdict.UNSAT else result


def _with_facts(result: Result, files: ProofFiles, status: str) -> Result:
    """An answer `unsat` with what is known of its certificate."""
    size = files.certificate.stat().st_size
    return replace(result, statistics=replace(result.statistics, certificate=status, certificate_bytes=size))


def _quick_certificate(files: ProofFiles, settings: Settings, clock: Clock, floats: bool) -> bytes | None:
    """A certificate by the bounds that the checker computes itself, where these prove it before torch is imported."""
    if len(files.networks) > 1 or "torch" in sys.modules or (settings.strategy, settings.bounds) != ("auto", "native"):
        return None
    return certificate(files.network, files.specification, clock.soon(tuned().quick_proof.seconds).left, floats)


def _with_quick_certificate(files: ProofFiles, result: Result, found: bytes) -> Result:
    """An answer with a certificate that was found beforehand, where it is `unsat`."""
    if result.verdict is not Verdict.UNSAT:
        return result
    try:
        files.certificate.write_bytes(found)
    except OSError as error:
        raise InputError(f"{files.certificate}: {error.strerror}") from None
    return _with_facts(result, files, "complete")
