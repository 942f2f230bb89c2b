"""``prunecert export-proof``: a certificate as a proof in another format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from toolkit.commands.arguments import Flag, print_json
from toolkit.errors import InputError


def export_proof(
    net: Path,
    spec: Path,
    certificate: Path,
    /,
    *,
    to: str,
    output: Annotated[Path, Parameter(alias="-o")],
    json: Flag = False,
) -> int:
    """Write a certificate as a proof in a format that other tools check, or refuse to where the format cannot say it.

    The certificate is checked first. A file is written for each case of the specification whose box is not empty;
    their names are printed.

    Parameters
    ----------
    net
        The network, .onnx or .onnx.gz.
    spec
        The specification, plain or .gz.
    certificate
        The certificate.
    to
        The format: aptp (trees of activation patterns), torchlean (leaf boxes, abcrown_leaf_artifact_v0_1) or
        torchlean-cert (the same under its former name, abcrown_leaf_cert_v0_1).
    output
        The file to write; where there are several cases, each has its number before the end of the name.
    json
        Print the names as one JSON object.
    """
    from toolkit.certificates.proof_formats import PROOF_FORMATS, exported_proof

    texts = exported_proof(net, spec, certificate, PROOF_FORMATS.loaded().named(to), output)
    for path, text in texts.items():
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}; give a file that can be written") from None
    if json:
        print_json({"files": [str(path) for path in texts]})
    else:
        print("\n".join(map(str, texts)))
    return 0
