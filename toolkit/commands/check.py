"""``prunecert check``: check a certificate."""

from __future__ import annotations

from pathlib import Path

from toolkit.errors import InputError


def check(net: Path, spec: Path, certificate: Path, /, *, jobs: int = 1, exact: bool = False) -> int:
    """Check the certificate of an answer ``unsat`` with numpy and onnx alone, in arithmetic that rounds outward.

    The first line on stdout is checked, refuted (the file states something false, or is damaged, or is about other
    files) or incomplete (some case has no proof); the second one says where. The exit code is 0, 1 or 2.
    ``python -m toolkit.proof.check`` does it without the rest of the package.

    Parameters
    ----------
    net
        The network, .onnx or .onnx.gz.
    spec
        The specification, plain or .gz.
    certificate
        The certificate.
    jobs
        Processes that share the leaves.
    exact
        Compute in rational numbers, for tiny networks.
    """
    from toolkit.proof.check import EXIT_CODES
    from toolkit.proof.check import check as checked
    from toolkit.proof.network import UnreadableError

    if jobs < 1:
        raise InputError("--jobs has to be at least 1")
    try:
        outcome = checked(net, spec, certificate, exact, jobs)
    except UnreadableError as error:
        raise InputError(str(error)) from None
    print(outcome.status)
    print(outcome.message)
    return EXIT_CODES[outcome.status]
