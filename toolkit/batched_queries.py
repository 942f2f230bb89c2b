"""Many queries about the same networks: their root bounds first, as rows of one batch.

Whatever these prove is answered without a look for a witness. What they leave open is decided one by one, from the
bounds that are known then (`toolkit.verify.decide`). A query that cannot be read, loaded or bounded here costs the
others nothing, and nothing is concluded from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from toolkit.agreement.bounded_programs import BoundedProgram
from toolkit.devices import full_precision
from toolkit.errors import ToolkitError
from toolkit.formats.vnnlib.read import read_query
from toolkit.problem.compile import compile_problem
from toolkit.problem.program import Program
from toolkit.problem.specialise_cases import ProblemPart, specialised
from toolkit.result import Result, Statistics
from toolkit.run.clock import Clock, OutOfTime
from toolkit.search.batch_size import refusals
from toolkit.search.root import RootBounds, boxes_at_once, joint_roots, open_cases, root_statistics
from toolkit.settings import Settings
from toolkit.tuning import tuned
from toolkit.verify import (
    LoadedNetwork,
    LoadedQuery,
    ProblemWithRoot,
    load_query,
    pick_device,
    precision,
    speaks_of_floats,
)


@dataclass(frozen=True)
class BatchedQuery:
    """One query of a batch, and the whole of it as a problem."""

    number: int
    loaded: LoadedQuery
    part: ProblemPart
    """On its device, in the precision that it is bounded in, once it is moved there."""
    original: ProblemPart
    """In double precision, as it was compiled."""
    relus: int
    """Neurons of the network before any were merged."""


def bound_together(
    networks: Mapping[str, LoadedNetwork], specs: Sequence[Path], settings: Settings, clock: Clock
) -> list[Result | LoadedQuery | None]:
    """What root bounds say about each specification: a proof, or the query with what is known of it.

    None stands for a query that was not looked at: it does not fit, or the time was up. Bounding takes no longer than
    looking for witnesses would.
    """
    reading = clock.part(tuned().bench.reading_time_share)
    found: list[Result | LoadedQuery | None] = [_posed(networks, spec, reading) for spec in specs]
    clock = clock.soon(tuned().points.seconds * len(specs))
    try:
        with refusals(), torch.no_grad(), full_precision():
            for rows in _batches(found, settings):
                for row, root in zip(rows, joint_roots([row.part.problem for row in rows], clock), strict=True):
                    found[row.number] = _concluded(row, root)
    except (OutOfTime, torch.OutOfMemoryError):
        pass  # what is not bounded yet is decided one by one
    return [_timed(answer, clock.elapsed / len(specs)) for answer in found]


def _posed(networks: Mapping[str, LoadedNetwork], spec: Path, clock: Clock) -> LoadedQuery | None:
    try:
        clock.check()
        return load_query(networks, read_query(spec))
    except Exception:  # whatever it is, it is met again, and told, where the query is decided on its own
        return None


def _batches(found: Sequence[Result | LoadedQuery | None], settings: Settings) -> Iterator[list[BatchedQuery]]:
    """The queries that can be rows of one batch, on their device, in parts that fit."""
    groups: dict[tuple[int, int, torch.dtype], list[BatchedQuery]] = {}
    for number, loaded in enumerate(found):
        row = _row(number, loaded, settings) if isinstance(loaded, LoadedQuery) else None
        if row is not None:
            problem = row.part.problem
            groups.setdefault((id(problem.program), problem.rows.shape[1], precision(problem)), []).append(row)
    for (_, _, dtype), rows in groups.items():
        program = rows[0].part.problem.program.to(pick_device(settings.device), dtype)
        size = boxes_at_once(program)
        for start in range(0, len(rows), size):
            yield [_moved(row, program) for row in rows[start : start + size]]


def _row(number: int, loaded: LoadedQuery, settings: Settings) -> BatchedQuery | None:
    """A query as a problem of one box; None where it is more, or where there is something to try first."""
    floats = speaks_of_floats(loaded.query, settings)
    if floats or settings.bounds != "native" or len(loaded.cases.lower) != 1 or loaded.by_scores:
        return None
    try:
        whole = compile_problem(loaded.query, {n: net.binding for n, net in loaded.networks.items()}, loaded.cases)
        (part,) = specialised(whole)
    except ToolkitError:
        return None
    return BatchedQuery(number, loaded, part, part, whole.program.num_neurons)


def _moved(row: BatchedQuery, program: Program) -> BatchedQuery:
    """The row's problem with a program that is moved already, on its device and in its precision."""
    problem = replace(row.part.problem, program=program).to(program.device, program.dtype)
    return replace(row, part=replace(row.part, problem=problem))


def _concluded(row: BatchedQuery, root: RootBounds) -> Result | LoadedQuery:
    """A proof where the bounds refute all cases, else the query with the bounds."""
    if len(open_cases(root)) or len(root.lower) != len(row.loaded.cases):
        return replace(row.loaded, known_root=ProblemWithRoot(row.original, root, row.relus))
    bounded = BoundedProgram(row.loaded.imported(), row.part.problem, row.part.regions.numpy())
    return row.loaded.refuted([bounded], Statistics(relus=row.relus, decided_by=root.method, **root_statistics(root)))


def _timed(answer: Result | LoadedQuery | None, seconds: float) -> Result | LoadedQuery | None:
    """Proofs of one batch share the time that it took."""
    if not isinstance(answer, Result):
        return answer
    return replace(answer, statistics=replace(answer.statistics, seconds=seconds))
