"""Techniques that bound all neurons of a program: one contract, a registry, and the one place that chooses.

A technique takes a `NeuronQuestion` and returns bounds that are no looser than those known, but for what rounding can
lose, which is taken off. It says where it suits and what it costs, and of those that suit the cheapest is taken, in
each of three stages: from intervals first, then from the bounds of the stage before. A module of this folder that
registers a technique needs to be named nowhere else; those that search (`toolkit.search.neuron_branching`) do so once
they are imported.

Clipping (`toolkit.bounds.crown.tighten`, `toolkit.search.clip_domains`) is none of them: what it gives holds where a
violation may be, and nowhere else. Nor is auto_LiRPA (`toolkit.backends.auto_lirpa`), which bounds the atoms of cases,
by the network as it was imported: it knows no program.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

from torch import Tensor

from toolkit.bounds.interval import Bounds, interval_bounds, unstable_neurons
from toolkit.problem.compile import Problem
from toolkit.problem.program import Program
from toolkit.registry import Registry
from toolkit.run.clock import Clock


class Stage(Enum):
    """What a technique starts from."""

    FIRST = "intervals"
    REFINING = "linear bounds"
    BRANCHING = "optimised bounds, for as long as is granted"


@dataclass(frozen=True)
class TightenedRows:
    """Neurons of one layer that were bounded with slopes of their own: from below, then from above, ``(2 m,)`` rows."""

    layer: int
    index: Tensor
    """Position of each neuron in the layer, ``(m,)``."""
    alpha: Tensor
    """Lower slopes of all neurons of the layers before, ``(2 m, neurons before)``."""
    better: Tensor
    """Rows whose bounds are better than those known, ``(2 m,)`` bool."""


@dataclass(frozen=True)
class NeuronTrees:
    """Neurons of one layer that were bounded by trees of splits of neurons before it: n trees for the lower ends, then
    n for the upper ones."""

    layer: int
    index: Tensor
    """Position of each neuron in the layer, ``(n,)``."""
    unstable: Tensor
    """Numbers of the neurons that are split, ``(U,)``."""
    tree: Tensor
    """The tree of each leaf, ``(L,)``."""
    phase: Tensor
    """Phases of the split neurons: 1 active, -1 inactive, 0 both, ``(L, U)``."""
    alpha: Tensor
    """Lower slopes, ``(L, U)``, as a byte can state them."""
    beta: Tensor
    """Split multipliers, ``(L, U)``."""
    ends: Tensor
    """What every leaf of a tree is above: the neuron, or its negative, ``(2 n,)``."""
    better: Tensor
    """Trees whose ends are better than those known, ``(2 n,)`` bool."""


@dataclass(frozen=True)
class NeuronQuestion:
    """The question to a technique: pre-activation bounds of all neurons of a program, ``(B, num_neurons)``, in boxes
    ``(B, n)``."""

    program: Program
    box: Bounds
    known: Bounds
    """Sound bounds to start from."""
    check: Callable[[], None] = lambda: None
    """Called between passes; it may raise to stop the work, without any bounds."""
    iterations: int = 0
    """Steps of an ascent, where a technique takes any."""
    alike: bool = False
    """Whether boxes are to share all passes: for a few, or on a GPU, more calls cost more than rows that one needs."""
    exact: Program | None = None
    """The program in double precision, where this one is in single."""
    turn: Clock | None = None
    """When a technique that could search for ever ends and returns what it has; None for others."""
    batch: int = 2
    """Most subproblems that a technique with a `turn` bounds at once."""
    processes: int = 1
    """How many processes may share the work of a technique with a `turn`."""
    stated: bool = False
    """Whether a certificate is to state how bounds come about: by backward passes, and slopes that a byte can state."""
    tell: Callable[[TightenedRows | NeuronTrees], None] = lambda rows: None
    """Called, layer by layer, with rows that got slopes of their own and trees whose bounds a certificate states."""

    @classmethod
    def of_problem(cls, problem: Problem, check: Callable[[], None]) -> NeuronQuestion:
        """The bounds of the neurons in all regions of a problem, from intervals."""
        box = Bounds(problem.lower, problem.upper)
        return cls(problem.program, box, interval_bounds(problem.program, box)[0], check)

    @cached_property
    def unstable(self) -> int:
        """Largest number of unstable neurons over the boxes, by the bounds known."""
        return most_unstable(self.program, self.known)

    @cached_property
    def varying(self) -> int:
        """Number of inputs that vary in some box."""
        return int((self.box.lower < self.box.upper).any(0).sum())


def most_unstable(program: Program, bounds: Bounds) -> int:
    """Largest number of neurons over the boxes that a split would make linear."""
    return int(unstable_neurons(program, bounds).sum(1).max()) if len(bounds.lower) else 0


@dataclass(frozen=True)
class Bounder:
    """A technique, under the name that statistics give it."""

    name: str
    stage: Stage
    suits: Callable[[NeuronQuestion], bool]
    cost: Callable[[NeuronQuestion], float]
    """In backward passes of one row, estimated."""
    bound: Callable[[NeuronQuestion], Bounds | None]
    """The bounds; None where rounding would cost too much of them, and they are better had in double precision."""


BOUNDERS: Registry[str, Bounder] = Registry("bounding technique", folder="toolkit.bounds")
"""Techniques by name: those of modules that are imported, and after `Registry.loaded` those of all of this folder."""


def bounder(
    name: str, stage: Stage, suits: Callable[[NeuronQuestion], bool], cost: Callable[[NeuronQuestion], float]
) -> Callable[[Callable[[NeuronQuestion], Bounds | None]], Callable[[NeuronQuestion], Bounds | None]]:
    """Register a function as the technique of this name."""
    return BOUNDERS.register(name, entry=lambda function: Bounder(name, stage, suits, cost, function))


def cheapest(stage: Stage, question: NeuronQuestion) -> Bounder | None:
    """The technique of a stage that answers a question, or None where none suits."""
    suitable = [one for one in BOUNDERS.loaded().values() if one.stage is stage and one.suits(question)]
    return min(suitable, key=lambda one: (one.cost(question), one.name), default=None)
