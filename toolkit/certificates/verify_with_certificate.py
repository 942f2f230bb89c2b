"""Deciding a query with a certificate of its answer, where that is `unsat`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from toolkit.certificates.quick_certificate import certificate
from toolkit.errors import InputError
from toolkit.formats.vnnlib.query import Query
from toolkit.formats.vnnlib.read import read_query
from toolkit.result import Result, Verdict
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
    say: Callable[[str], None],
    certified: bool = False,
) -> Result:
    """Decide a query, and write why it is `unsat`, if it is; if ``certified``, only what the checker accepts is.

    There is no file after `sat`. ``say`` is told why there is no certificate, or what it leaves open. Raises InputError
    where the file cannot be written, and what `toolkit.verify.verify` raises.
    """
    from toolkit.certificates.recorder import CertificateRecorder  # which takes torch
    from toolkit.proof.network import UnreadableError

    query = read_query(files.specification)
    if (result := _quickly(files, networks, query, settings, observer, clock)) is not None:
        return checked(files, result) if certified else result
    settings = settings.changed({"certifiable": True, "bounds": "native"})
    try:
        if len(files.networks) > 1:
            raise UnreadableError("the checker reads specifications of one network")
        recorder = CertificateRecorder(next(iter(files.networks.values())), files.specification, files.certificate)
    except UnreadableError as error:
        say(f"no certificate: {error}")
        result = verify(networks, query, settings, observer, clock)
        return without_proof(result, f"no certificate: {error}") if certified else result
    except OSError as error:
        raise InputError(f"{files.certificate}: {error.strerror}") from None

    result = verify(networks, query, settings, ObserverGroup((observer, recorder)), clock)
    recorder.close(result.verdict is Verdict.UNSAT)
    if result.verdict is Verdict.SAT:
        files.certificate.unlink()
    if result.verdict is Verdict.UNSAT:
        for gap, count in recorder.gaps.items():
            say(f"the certificate is not complete: {count} {gap}")
    return checked(files, result) if certified else result


def checked(files: ProofFiles, result: Result) -> Result:
    """An answer that is `unsat` only where the checker accepts its certificate."""
    from toolkit.proof.check import CHECKED, check

    if result.verdict is not Verdict.UNSAT:
        return result
    outcome = check(next(iter(files.networks.values())), files.specification, files.certificate)
    if outcome.status == CHECKED:
        return result
    return without_proof(result, f"the certificate is {outcome.status}: {outcome.message}")


def without_proof(result: Result, reason: str) -> Result:
    """An answer that is not `unsat`, for this reason, where it was."""
    return replace(result, verdict=Verdict.UNKNOWN, reason=reason) if result.verdict is Verdict.UNSAT else result


def _quickly(
    files: ProofFiles,
    networks: Mapping[str, LoadedNetwork],
    query: Query,
    settings: Settings,
    observer: Observer,
    clock: Clock,
) -> Result | None:
    """The answer, and its certificate where it is `unsat`, if the bounds that the checker computes itself prove it."""
    if len(files.networks) > 1 or (settings.strategy, settings.bounds) != ("auto", "native"):
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
    return result
