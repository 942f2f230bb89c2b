"""Root bounds by the second backend (`toolkit.bounds.lirpa`): the cases it refutes need no further work.

What goes wrong in the library refutes nothing: it becomes a reason, and the cases stay open.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from toolkit.bounds.lirpa import lower_bounds
from toolkit.errors import InputError
from toolkit.problem.compile import FeatureQuestion
from toolkit.run.clock import Clock, OutOfTime
from toolkit.run.events import Observer, RootBounded
from toolkit.search.phase_domains import proved

CROWN, ALPHA_CROWN = "auto-lirpa-crown", "auto-lirpa-alpha-crown"
"""Names of the methods in statistics and events."""


@dataclass(frozen=True)
class LirpaRootBounds:
    """What the second backend made of the cases."""

    lower: Tensor
    """Best lower bound of each case, ``(C,)``; minus infinity where there is none."""
    method: str
    failure: str = ""
    """What went wrong in the library, in one line."""

    @property
    def open(self) -> Tensor:
        """Cases that are not refuted, by position."""
        return (~proved(self.lower)).nonzero().squeeze(1)

    @property
    def reason(self) -> str:
        """Why cases are open."""
        return self.failure or f"{self.method} leaves {len(self.open)} of {len(self.lower)} cases open"


def lirpa_root_bounds(
    features: nn.Module, question: FeatureQuestion, iterations: int, clock: Clock, observer: Observer
) -> LirpaRootBounds:
    """Bound all cases by CROWN, then those still open by alpha-CROWN. Raises OutOfTime, and InputError without it."""
    found = LirpaRootBounds(torch.full(question.region.shape, -torch.inf, dtype=torch.float64), CROWN)
    for method, steps in ((CROWN, 0), (ALPHA_CROWN, iterations)):
        if (method == ALPHA_CROWN and not steps) or not len(found.open):
            continue
        clock.check()
        found = _bounded(found, features, question, method, steps, clock)
        if found.failure:
            break
        observer(RootBounded(method, 0, float(found.lower.min()), len(found.open)))
    clock.check()
    return found


def _bounded(
    found: LirpaRootBounds, features: nn.Module, question: FeatureQuestion, method: str, iterations: int, clock: Clock
) -> LirpaRootBounds:
    """Bound the open cases by one more method. Whatever the library raises is a failure, not an end."""
    lower = found.lower.clone()
    try:
        part = question.with_cases(found.open.to(question.region.device))
        bounds = lower_bounds(features, part, iterations, lambda: max(clock.left, 0.0), clock.check)
        lower[found.open] = torch.fmax(lower[found.open], bounds.cpu())
    except (OutOfTime, InputError):
        raise
    except (Exception, SystemExit) as error:  # the library leaves the process where it finds no compiler
        text = " ".join(str(error).split())[:200]
        return LirpaRootBounds(found.lower, found.method, f"auto_LiRPA fails ({type(error).__name__}: {text})")
    return LirpaRootBounds(lower, method)
