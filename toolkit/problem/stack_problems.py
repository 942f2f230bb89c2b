"""Problems about one program made one problem: their boxes, cases and atoms one below the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from toolkit.problem.compile import Problem


def stacked(problems: Sequence[Problem]) -> Problem:
    """All the problems as one. They share the program, and the number K of atoms of a case."""
    first = problems[0]
    assert all(problem.program is first.program for problem in problems)
    return Problem(
        lower=torch.cat([problem.lower for problem in problems]),
        upper=torch.cat([problem.upper for problem in problems]),
        region=_numbered([problem.region for problem in problems], [len(problem.lower) for problem in problems]),
        rows=_numbered([problem.rows for problem in problems], [len(problem.offsets) for problem in problems]),
        weights=torch.cat([problem.weights for problem in problems]),
        offsets=torch.cat([problem.offsets for problem in problems]),
        strict=torch.cat([problem.strict_atoms for problem in problems]),
        program=first.program,
    )


def places(problems: Sequence[Problem]) -> Iterator[tuple[Tensor, Tensor]]:
    """Numbers that the regions and the cases of each problem have in the stack."""
    regions = _split([len(problem.lower) for problem in problems], problems[0].region.device)
    cases = _split([problem.num_cases for problem in problems], problems[0].region.device)
    return zip(regions, cases, strict=True)


def _numbered(parts: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    """Numbers that count within each problem as numbers that count in the stack."""
    before = accumulate(sizes, initial=0)
    return torch.cat([part + start for part, start in zip(parts, before, strict=False)])


def _split(sizes: list[int], device: torch.device) -> tuple[Tensor, ...]:
    return torch.arange(sum(sizes), device=device).split(sizes)
