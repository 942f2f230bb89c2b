"""The table of rewrites: operator -> a function of its arguments that computes the same with other operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.registry import Registry

Condition = Callable[[Sequence[bool]], bool]
"""Whether an operator is rewritten, by which of its positional arguments depend on the inputs."""


def always(varies: Sequence[bool]) -> bool:
    """The condition of operators that are rewritten whatever varies."""
    return True


def several(varies: Sequence[bool]) -> bool:
    """Rewritten where two arguments vary; otherwise the operator is affine and stays."""
    return sum(varies) > 1


def divisor(varies: Sequence[bool]) -> bool:
    """Rewritten where the second argument varies."""
    return any(varies[1:])


@dataclass(frozen=True)
class Rewrite:
    """How an operator is written with others, and when."""

    function: Callable[..., Any]
    when: Condition
    masked: bool = False
    """Whether the function is told, as ``masked``, which elements of its first argument are minus infinity always."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the operator computes for these arguments."""
        return self.function(*args, **kwargs)


REWRITES: Registry[Any, Rewrite] = Registry("rewrite", folder="toolkit.problem.rewrites")
"""Rewrites by the ATen operator that they replace."""


def rewrite(
    *operators: Any, when: Condition = always, masked: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function of the operator's own arguments that computes the same with other operators."""
    return REWRITES.register(*operators, entry=lambda function: Rewrite(function, when, masked))
