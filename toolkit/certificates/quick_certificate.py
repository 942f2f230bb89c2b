"""Certificates of quick proofs (`toolkit.quick_proof`): a tree of halved boxes with one atom at each leaf. No torch.

The checker computes the same bounds with the same engine: of a proof nothing is stored but where boxes were halved.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from toolkit.certificates.writer import CertificateWriter
from toolkit.formats.vnnlib.query import offsets
from toolkit.proof.check import CertificateChecker
from toolkit.proof.formula import load_formula
from toolkit.proof.network import UnreadableError, load_network
from toolkit.proof.stream import Damaged, LinearRows, References
from toolkit.quick_proof import BoxedCases, RoundOfBoxes, TooLarge, question_of, refute
from toolkit.run.clock import Clock, OutOfTime
from toolkit.tuning import tuned


def formula_cases(checker: CertificateChecker) -> tuple[BoxedCases, list[int]]:
    """The cases of a specification as the checker reads it, but for those without a point, with their numbers."""
    numbers = sorted(checker.open_cases)
    arrays = [checker.case_arrays(number) for number in numbers]
    boxes: dict[bytes, int] = {}
    region = [boxes.setdefault(case.lower.tobytes() + case.upper.tobytes(), len(boxes)) for case in arrays]
    first = [region.index(number) for number in range(len(boxes))]
    starts = offsets(np.array([len(case.constant) for case in arrays], np.int64))
    cases = BoxedCases(
        np.concatenate([arrays[case].lower for case in first]),
        np.concatenate([arrays[case].upper for case in first]),
        np.array(region),
        starts,
        np.arange(starts[-1]),
        np.concatenate([np.concatenate([case.input_part, case.output_part], 1) for case in arrays]),
        np.concatenate([case.constant for case in arrays]),
    )
    return cases, numbers


def certificate(network: Path, specification: Path, seconds: float, floats: bool = False) -> bytes | None:
    """The certificate of a proof by `refute` of what two files say, made in so many seconds; None where there is none.
    With ``floats`` it is about evaluations in the network's floating-point type.

    The specification is read by the checker's reader: what is stated is about the cases as it numbers them.
    """
    clock = Clock.started(seconds)
    try:
        if network.stat().st_size > tuned().quick_proof.most_bytes:
            return None
        checker = CertificateChecker(load_network(network), load_formula(specification))
        clock.check()
        writer = CertificateWriter(checker.model.network.digest, checker.formula.digest, [])
        beginning = writer.header()
        if floats:
            checker.mean_floats()
            beginning += writer.floats(checker.model.network.types)
        if not checker.open_cases:
            return beginning + writer.end()
        cases, numbers = formula_cases(checker)
        rounds = refute(question_of(checker.model.network, cases), clock)
    except (TooLarge, OutOfTime, UnreadableError, Damaged, OSError):
        return None
    return beginning + b"".join(records_of(rounds, cases, numbers, writer)) + writer.end()


def records_of(
    rounds: Sequence[RoundOfBoxes], cases: BoxedCases, numbers: Sequence[int], writer: CertificateWriter
) -> Iterator[bytes]:
    """The records of a proof, a round after the other."""
    contexts: dict[tuple[int, int], int] = {}
    for case, number in enumerate(numbers):
        contexts[int(cases.region[case]), case], record = writer.case(number)
        yield record
    for number, found in enumerate(rounds):
        leaves = [(contexts.pop((box, case)), case, atom) for box, case, atom in found.refuted.tolist()]
        if leaves:
            context, case, atom = np.array(leaves, np.int64).T
            counts = (atom >= 0).astype(np.int64)
            place = (atom - cases.starts[case])[atom >= 0]
            atoms = References(counts, place, np.ones(len(place)))
            none = References(np.zeros_like(counts), place[:0], np.zeros(0))
            yield writer.refute(LinearRows(number > 0, context, np.zeros_like(context), atoms, none, none))
        halved = {box: place for place, (box, _) in enumerate(found.halved.tolist())}
        split = [(key, context, halved[key[0]]) for key, context in contexts.items()]
        if split:
            places = np.array([place for *_, place in split])
            parents = np.array([context for _, context, _ in split])
            across, middle = found.halved[places, 1], found.middle[places]
            children, record = writer.split(parents, np.zeros_like(parents), across, middle)
            yield record
            contexts = {
                (2 * place + side, case): int(child)
                for ((_, case), _, place), pair in zip(split, children, strict=True)
                for side, child in enumerate(pair)
            }
