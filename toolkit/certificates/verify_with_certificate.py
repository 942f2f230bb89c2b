"""Deciding a query with a certificate of its answer, where that is `unsat`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from toolkit.certificates.quick_certificate import certificate
from toolkit.errors import InputError
from toolkit.formats.vnnlib.query import Query
from toolkit.formats.vnnlib.read import read_query
from toolkit.proof.check import CHECKED, INCOMPLETE, check
from toolkit.proof.network import UnreadableError
from toolkit.result import Result, Verdict
from toolkit.run.alarm import Overdue, out_of_time_after
from toolkit.run.clock import Clock
from toolkit.run.events import Observer, ObserverGroup
from toolkit.settings import Settings
from toolkit.tuning import tuned
from toolkit.verify import LoadedNetwork, verify


@dataclass(frozen=True)
class ProofFiles:
    """A query's files, and where its certificate goes."""

    networks: Mapping[str, Path]
    specification: Path
    certificate: Path


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
    if (result := _quickly(files, networks, query, settings, observer, clock)) is None:
        result = _by_search(files, networks, query, settings.changed({"certifiable": True, "bounds": "native"}),
                            observer, clock)  # fmt: skip
    return checked(files, result, clock) if settings.certified else result


def _by_search(
    files: ProofFiles,
    networks: Mapping[str, LoadedNetwork],
    query: Query,
    settings: Settings,
    observer: Observer,
    clock: Clock,
) -> Result:
    """The answer of a search that is written down."""
    from toolkit.certificates.recorder import CertificateRecorder  # which takes torch

    try:
        if len(files.networks) > 1:
            raise UnreadableError("the checker reads specifications of one network")
        recorder = CertificateRecorder(next(iter(files.networks.values())), files.specification, files.certificate)
    except UnreadableError as error:
        result = verify(networks, query, settings, observer, clock)
        return _unsat_because(result, f"no certificate: {error}")
    except OSError as error:
        raise InputError(f"{files.certificate}: {error.strerror}") from None
    result = verify(networks, query, settings, ObserverGroup((observer, recorder)), clock)
    recorder.close(result.verdict is Verdict.UNSAT)
    if result.verdict is Verdict.SAT:
        files.certificate.unlink()
    if result.verdict is not Verdict.UNSAT:
        return result
    gaps = "; ".join(f"{count} {gap}" for gap, count in recorder.gaps.items())
    result = _unsat_because(result, f"the certificate is not complete: {gaps}" if gaps else "")
    return _with_facts(result, files, INCOMPLETE if gaps else "complete")


def checked(files: ProofFiles, result: Result, clock: Clock) -> Result:
    """An answer that is `unsat` only where the checker accepts its certificate before the time is over."""
    if result.verdict is not Verdict.UNSAT:
        return result
    if result.statistics.certificate != "complete":
        return without_proof(result, result.reason)
    began = clock.seconds
    try:
        with out_of_time_after(clock.seconds_left):
            outcome = check(next(iter(files.networks.values())), files.specification, files.certificate)
    except Overdue:
        return replace(result, verdict=Verdict.TIMEOUT, reason="time limit, while the certificate was checked")
    statistics = replace(result.statistics, certificate=outcome.status, checking_seconds=clock.seconds - began)
    result = replace(result, statistics=statistics)
    if outcome.status == CHECKED:
        return result
    return without_proof(result, f"the certificate is {outcome.status}: {outcome.message}")


def without_proof(result: Result, reason: str) -> Result:
    """An answer that is not `unsat`, for this reason, where it was."""
    return replace(result, verdict=Verdict.UNKNOWN, reason=reason) if result.verdict is Verdict.UNSAT else result


def _unsat_because(result: Result, reason: str) -> Result:
    """An answer with a remark, where it is `unsat`."""
    return replace(result, reason=reason) if result.verdict is Verdict.UNSAT else result


def _with_facts(result: Result, files: ProofFiles, status: str) -> Result:
    """An answer `unsat` with what is known of its certificate."""
    size = files.certificate.stat().st_size
    return replace(result, statistics=replace(result.statistics, certificate=status, certificate_bytes=size))


def _quickly(
    files: ProofFiles,
    networks: Mapping[str, LoadedNetwork],
    query: Query,
    settings: Settings,
    observer: Observer,
    clock: Clock,
) -> Result | None:
    """The answer, and its certificate where it is `unsat`, if the bounds that the checker computes itself prove it."""
    if len(files.networks) > 1 or "torch" in sys.modules or (settings.strategy, settings.bounds) != ("auto", "native"):
        return None
    seconds = clock.soon(tuned().quick_proof.seconds).left
    found = certificate(next(iter(files.networks.values())), files.specification, seconds)
    if found is None:
        return None
    result = verify(networks, query, settings, observer, clock)
    if result.verdict is Verdict.UNSAT:
        try:
            files.certificate.write_bytes(found)
        except OSError as error:
            raise InputError(f"{files.certificate}: {error.strerror}") from None
        return _with_facts(result, files, "complete")
    return result
