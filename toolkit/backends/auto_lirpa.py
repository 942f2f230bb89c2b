"""A second bounding backend: the auto_LiRPA library (Xu et al., NeurIPS 2020; alpha-CROWN, ICLR 2021), if installed.

It bounds the imported torch modules themselves, not our program, with its own parser, relaxations and arithmetic: a
cross-check of our bounds, and a fallback for operators that we lack. Everything is in float64, and an allowance for
rounding is taken off (`_Bounded._allowance` says how far that goes).

Cases that it refutes need no further work. What goes wrong in the library refutes nothing: it becomes a reason, and the
cases stay open.

The library keeps state, prints, and takes constants in torch's default element type; all of that stays in here.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.errors import InputError, UnsupportedError, one_line
from toolkit.formats.onnx.converters.conversion import rounds
from toolkit.problem.compile import FeatureQuestion
from toolkit.problem.sum_rounding import gamma
from toolkit.run.clock import Clock, OutOfTime
from toolkit.run.events import Observer, RootBounded
from toolkit.search.phase_domains import proved
from toolkit.tuning import tuned

ALLOWED_SUM_TERMS = 1 << 16
"""Terms of the sums that the allowance for rounding is for."""


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
        found = _bound_open_cases(found, features, question, method, steps, clock)
        if found.failure:
            break
        observer(RootBounded(method, 0, float(found.lower.min()), len(found.open)))
    clock.check()
    return found


def _bound_open_cases(
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
        text = one_line(error)
        return LirpaRootBounds(found.lower, found.method, f"auto_LiRPA fails ({type(error).__name__}: {text})")
    return LirpaRootBounds(lower, method)


def library() -> Any:
    """The module auto_LiRPA. Raises InputError, telling how to get it, where it cannot be imported."""
    try:
        with _contained():
            import auto_LiRPA
    except ImportError as error:
        raise InputError(
            f"bounds 'auto-lirpa' need the library auto_LiRPA, which cannot be imported ({error}): install it from its "
            "GitHub repository, Verified-Intelligence/auto_LiRPA (the extra `lirpa`; docs/backends.md tells how), or "
            "leave --bounds at 'native'"
        ) from None
    return auto_LiRPA


@dataclass(frozen=True)
class AtomSlots:
    """Where the atoms of the cases are bounded: each region has a list of atoms, of which none is bounded twice."""

    atoms: Tensor
    """Atoms of each region, ``(R, S)``; those of a region with fewer than S are filled up with atom 0."""
    of_case: Tensor
    """Position of each case's atoms in its region's list, ``(C, K)``."""


def slots(question: FeatureQuestion) -> AtomSlots:
    """The distinct atoms of each region, and where the cases find theirs."""
    total = len(question.offsets)
    distinct, of_case = (question.region.unsqueeze(1) * total + question.rows).unique(return_inverse=True)
    owner = distinct // total
    position = torch.arange(len(distinct), device=owner.device) - torch.searchsorted(owner, owner)
    atoms = owner.new_zeros(len(question.lower), int(position.max()) + 1)
    atoms[owner, position] = distinct % total
    return AtomSlots(atoms, position[of_case])


def lower_bounds(
    features: nn.Module,
    question: FeatureQuestion,
    iterations: int = 0,
    seconds: Callable[[], float] = lambda: float("inf"),
    check: Callable[[], None] = lambda: None,
) -> Tensor:
    """Lower bounds ``(C,)`` of the cases by CROWN, or by alpha-CROWN with so many iterations.

    A conjunction is bounded by its best single atom; NaN counts as no bound. ``features`` maps ``(B, n)`` to
    ``(B, F)`` in float64, like the question. ``seconds`` tells how much time is left for an optimisation, ``check``
    is called between passes and may raise. Raises UnsupportedError for conversions to a narrower type and where the
    library converts the network to something else, InputError without the library, and whatever the library raises.
    """
    if rounds(features):
        raise UnsupportedError("auto_LiRPA takes conversions to a narrower type for the identity")
    found = slots(question)
    bounds = torch.full(found.atoms.shape, -torch.inf, dtype=question.lower.dtype, device=question.lower.device)
    used = question.region.unique()
    centres = (question.lower[used[:2]] + question.upper[used[:2]]) / 2
    for part in used.split(tuned().lirpa.regions_per_pass if takes_batches(features, centres) else 1):
        check()
        rows = found.atoms[part]
        atoms, offsets = question.weights[rows], question.offsets[rows]
        optimise = {
            "iteration": iterations,
            "init_alpha": False,  # `_Bounded` does it
            "fix_interm_bounds": False,  # the library's default optimises the slopes of the atoms alone
            "max_time": seconds(),
            "stop_criterion_func": _all_above(-offsets),
        }
        with _contained():
            bounded = _Bounded(features, question.lower[part], question.upper[part], optimise)
            bounds[part] = bounded.lower(atoms, offsets, iterations > 0)
    return bounds[question.region.unsqueeze(1), found.of_case].nan_to_num(nan=-torch.inf, posinf=-torch.inf).amax(1)


def takes_batches(features: nn.Module, points: Tensor) -> bool:
    """Whether several points ``(B, n)`` at once give what each gives alone."""
    if len(points) < 2:
        return False
    alone = torch.cat([features(point.unsqueeze(0)) for point in points])
    try:
        together = features(points)
    except (RuntimeError, IndexError, ValueError):
        return False
    return _same(together, alone)


def _same(first: Tensor, second: Tensor) -> bool:
    tolerance = tuned().lirpa.feature_tolerance
    return first.shape == second.shape and torch.allclose(first, second, rtol=tolerance, atol=tolerance)


def _all_above(threshold: Tensor) -> Callable[[Tensor], Tensor]:
    """The optimisation may stop where all bounds ``(B, S)`` of a region exceed their thresholds: ``(B, 1)``."""
    return lambda bounds: (bounds > threshold).all(1, keepdim=True)


def _clip_inside(node: Any) -> None:
    """The library's ``clip_alpha`` of a ReLU, with an open interval."""
    margin = tuned().lirpa.slope_margin
    for alpha in node.alpha.values():
        alpha.data.clamp_(margin, 1 - margin)


class _Bounded:
    """The library's form of the features, on boxes ``(B, n)``."""

    def __init__(self, features: nn.Module, lower: Tensor, upper: Tensor, optimise: dict[str, Any]) -> None:
        lirpa = library()
        centre = (lower + upper) / 2
        # Slopes of max pooling are kept as they are: the library optimises them in single precision only.
        options = {"optimize_bound_args": optimise, "disable_optimization": ["MaxPool"]}
        self.module = lirpa.BoundedModule(features, torch.zeros_like(centre), options, device=centre.device)
        if not _same(self.module(centre), features(centre)):
            raise UnsupportedError("auto_LiRPA converts the network to one that computes something else")
        self.lower_corner, self.upper_corner = lower, upper
        self.box = lirpa.BoundedTensor(centre, lirpa.PerturbationLpNorm(x_L=lower, x_U=upper))

    def lower(self, atoms: Tensor, offsets: Tensor, optimised: bool) -> Tensor:
        """Lower bounds ``(B, S)`` of atoms ``(B, S, F)`` with constants ``(B, S)``, less the allowance."""
        out, box = self.module.output_name[0], self.module.input_name[0]
        with torch.no_grad():
            bound, _, linear = self.module.compute_bounds(
                x=(self.box,), C=atoms, method="CROWN", bound_upper=False, return_A=True, needed_A_dict={out: [box]}
            )
        allowance = self._allowance(linear[out][box], offsets)
        if optimised:
            self._free_slopes(atoms)
            with torch.enable_grad():
                better, _ = self.module.compute_bounds(x=(self.box,), C=atoms, method="alpha-CROWN", bound_upper=False)
            bound = torch.fmax(bound, better.detach())
        return bound.detach() + offsets - allowance

    def _free_slopes(self, atoms: Tensor) -> None:
        """Start the slopes of ReLUs, and keep them, off 0 and 1.

        The library clamps slopes to [0, 1] in the bound itself, and torch gives a clamp's edges no gradient (since
        2.14): from adaptive slopes, which are 0 or 1, nothing would ever move.
        """
        self.module.init_alpha((self.box,), c=atoms)
        for node in self.module.relus:
            node.clip_alpha = functools.partial(_clip_inside, node)
            node.clip_alpha()

    def _allowance(self, linear: dict[str, Tensor], offsets: Tensor) -> Tensor:
        """An allowance for sums of so many terms, by the magnitudes of the final coefficients.

        The library carries no magnitudes along, so that what cancels inside of it is not seen here: these bounds are
        as good as the library's own word in double precision.
        """
        size = torch.maximum(self.lower_corner.abs(), self.upper_corner.abs())
        spread = (linear["lA"].abs() @ size.unsqueeze(-1)).squeeze(-1)
        return gamma(ALLOWED_SUM_TERMS, offsets.dtype) * (spread + linear["lbias"].abs() + offsets.abs())


@contextlib.contextmanager
def _contained() -> Iterator[None]:
    """Within: float64 by default, prints to stderr, no warnings; after: everything as it was."""
    default, disabled = torch.get_default_dtype(), logging.root.manager.disable
    torch.set_default_dtype(torch.float64)
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        torch.set_default_dtype(default)
