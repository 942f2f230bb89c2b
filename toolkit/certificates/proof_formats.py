"""Certificates as proofs in other formats, whose checkers know nothing of ours. No torch.

A format says less than a certificate: what it cannot say is left out where the tree that is left is still a proof, and
refused elsewhere. A file is about one case of the specification, which is one claim in every format here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from toolkit.certificates.proof_tree import ProofTree, read_proof_tree
from toolkit.errors import InputError
from toolkit.registry import Registry

CaseWriter = Callable[[ProofTree, int], str]
"""The text of the proof of one case, by its number. Raises InputError for what the format cannot say."""


@dataclass(frozen=True)
class ProofFormat:
    """A format of proofs."""

    write: CaseWriter
    suffix: str = ""
    """How the name of a file has to end, for the format's checker to read it."""


PROOF_FORMATS: Registry[str, ProofFormat] = Registry("proof format", folder="toolkit.certificates.exports")


def proof_format(*names: str, suffix: str = "") -> Callable[[CaseWriter], CaseWriter]:
    """Register the function that writes a case in a format."""
    return PROOF_FORMATS.register(*names, entry=lambda write: ProofFormat(write, suffix))


def case_path(output: Path, case: int, several: bool) -> Path:
    """The file of a case: the output itself, or where there are several cases, with the case's number in its name."""
    return output.with_name(f"{output.stem}.{case}{output.suffix}") if several else output


def exported_proof(
    network: Path, specification: Path, certificate: Path, chosen: ProofFormat, output: Path
) -> dict[Path, str]:
    """Texts of the proofs of all cases whose boxes are not empty, by the files that they go to.

    Raises InputError for a certificate that the checker does not accept, and for what the format cannot say.
    """
    if not output.name.endswith(chosen.suffix):
        raise InputError(f"{output}: the checker of this format reads files whose names end in {chosen.suffix} alone")
    tree = read_proof_tree(network, specification, certificate)
    if not tree.roots:
        raise InputError(f"{specification}: no case has a point in its box, so that there is nothing to prove")
    several = len(tree.roots) > 1
    return {case_path(output, case, several): chosen.write(tree, case) for case in sorted(tree.roots)}
