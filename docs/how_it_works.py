"""How a complete verifier of ReLU networks works, built from nothing: ``python docs/how_it_works.py``.

Read it from top to bottom. Five ideas, each a few lines of torch, are all there is to it:

1. intervals               Gowal et al., On the effectiveness of interval bound propagation, 2018
2. linear bounds           Zhang et al., Efficient neural network robustness certification (CROWN), NeurIPS 2018
3. optimised slopes        Xu et al., Fast and complete (alpha-CROWN), ICLR 2021
4. split constraints       Wang et al., Beta-CROWN, NeurIPS 2021
5. branch and bound        Bunel et al., Branch and bound for piecewise linear neural network verification, JMLR 2020

The question is always the same. A fully connected ReLU network ends in one number g(x). Is g(x) > 0 for every x in a
box? Whether an image keeps its class is such a question: g is the score of the class less that of another one. An x
with g(x) <= 0 is a *witness* against it. In the language of VNN-LIB, which asks for witnesses, a proof is `unsat`.

One warning. This file computes in floating point as if that were exact, so strictly it proves nothing: a lower bound of
1e-17 may be a rounding error. The package counts what every sum can lose (`toolkit/problem/sum_rounding.py`,
`toolkit/bounds/backward_rounding.py`) and takes it off each bound. Nor does this file bound anything in batches, and it
knows neither convolutions nor other activations. It is here to be read, and to be an independent opinion in the tests.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from scipy.optimize import linprog
from torch import Tensor

Network = list[tuple[Tensor, Tensor]]
"""Affine maps, each a weight ``(rows, columns)`` and a bias ``(rows,)``, with a ReLU between one and the next."""


@dataclass(frozen=True)
class Intervals:
    """A lower and an upper bound of every element of a vector."""

    lower: Tensor
    upper: Tensor

    @property
    def unstable(self) -> Tensor:
        """Which elements may be of either sign: the neurons on which a ReLU is not linear."""
        return (self.lower < 0) & (self.upper > 0)


def run(network: Network, x: Tensor) -> list[Tensor]:
    """The pre-activations z of every layer at points ``(..., n)``; the last are the outputs."""
    values: list[Tensor] = []
    for weight, bias in network:
        values.append((values[-1].relu() if values else x) @ weight.T + bias)
    return values


# --- 1. Intervals -----------------------------------------------------------------------------------------------------
#
# A sum is least when every term is: take the lower end of what is multiplied by a positive weight and the upper end of
# what is multiplied by a negative one. A ReLU is monotone, so it maps ends to ends. Each step is exact, yet the bounds
# are loose: each neuron is allowed to pick its own worst input, and they hardly ever can all have theirs at once.


def image(weight: Tensor, bias: Tensor, source: Intervals) -> Intervals:
    """What an affine map makes of an interval."""
    positive, negative = weight.clamp(min=0), weight.clamp(max=0)
    return Intervals(
        positive @ source.lower + negative @ source.upper + bias,
        positive @ source.upper + negative @ source.lower + bias,
    )


def relu_image(z: Intervals) -> Intervals:
    """What a ReLU makes of an interval."""
    return Intervals(z.lower.relu(), z.upper.relu())


def interval_bounds(network: Network, box: Intervals) -> list[Intervals]:
    """Bounds of the pre-activations of every layer; the last are those of the outputs."""
    found: list[Intervals] = []
    for weight, bias in network:
        found.append(image(weight, bias, relu_image(found[-1]) if found else box))
    return found


# --- 2. Linear bounds: CROWN ------------------------------------------------------------------------------------------
#
# Remember how neurons depend on the input, and they can no longer choose for themselves. That needs bounds that are
# linear functions of x. The only obstacle is the ReLU of an unstable neuron, z in [l, u] with l < 0 < u, so put it
# between two lines:
#
#               relu(z) <= u / (u - l) * (z - l)        the chord: no line above is better
#     alpha z <= relu(z)                                any alpha in [0, 1]: which one is best depends
#
# Now read the network backwards. Start with the output as a sum of activations of the last layer. For a lower bound, an
# activation with a positive coefficient is replaced by its lower line, one with a negative coefficient by its upper
# line. What is left is a sum of pre-activations, each of which is a sum of activations one layer further down; and so
# on, until a linear function of x remains. Over a box, its minimum is at a corner and can be read off.


@dataclass(frozen=True)
class ReluLines:
    """``lower_slope z <= relu(z) <= upper_slope z + upper_offset`` for all z of an interval."""

    lower_slope: Tensor
    upper_slope: Tensor
    upper_offset: Tensor


def lines(z: Intervals, alpha: Tensor) -> ReluLines:
    """The two lines of every neuron. A stable neuron is its own line: the identity or zero."""
    active = (z.lower >= 0).to(alpha.dtype)
    chord = torch.where(z.unstable, z.upper / (z.upper - z.lower), active)
    offset = torch.where(z.unstable, -chord * z.lower, torch.zeros_like(chord))
    return ReluLines(torch.where(z.unstable, alpha, active), chord, offset)


def adaptive(z: Intervals) -> Tensor:
    """CROWN's choice of alpha: of zero and one, that which leaves the smaller triangle."""
    return (z.upper > -z.lower).double()


@dataclass(frozen=True)
class Linear:
    """Functions ``coefficients x + offset`` of the input, one a row."""

    coefficients: Tensor
    offset: Tensor
    post: list[Tensor]
    """The coefficients that each hidden layer's activations had on the way."""

    def minimum(self, box: Intervals) -> Tensor:
        """The least values over a box."""
        positive, negative = self.coefficients.clamp(min=0), self.coefficients.clamp(max=0)
        return positive @ box.lower + negative @ box.upper + self.offset

    def minimiser(self, box: Intervals) -> Tensor:
        """The corners where they are attained."""
        return torch.where(self.coefficients > 0, box.lower, box.upper)


Splits = list[tuple[Tensor, Tensor]]
"""Of every hidden layer the phases (+1 active, -1 inactive, 0 open) and the multipliers beta: see part 4."""


def push_back(
    network: Network, rows: Tensor, bounds: list[Intervals], alphas: list[Tensor], splits: Splits | None = None
) -> Linear:
    """Linear functions of the input that are nowhere above ``rows @ outputs``, ``(R, outputs)``.

    ``bounds`` and ``alphas`` are those of the hidden layers, one entry less than the network has maps.
    """
    weight, bias = network[-1]
    coefficients, offset, post = rows @ weight, rows @ bias, []
    for number in reversed(range(len(network) - 1)):
        post.append(coefficients)
        line = lines(bounds[number], alphas[number])
        positive, negative = coefficients.clamp(min=0), coefficients.clamp(max=0)
        offset = offset + negative @ line.upper_offset
        coefficients = positive * line.lower_slope + negative * line.upper_slope
        if splits is not None:
            phase, beta = splits[number]
            coefficients = coefficients - phase * beta
        weight, bias = network[number]
        coefficients, offset = coefficients @ weight, offset + coefficients @ bias
    return Linear(coefficients, offset, post[::-1])


# The lines need bounds of every hidden neuron first. They come from the same backward pass: each layer in turn plays
# the output, with the identity as rows for the lower bounds and its negative for the upper ones. Neurons that intervals
# already show to be stable are left alone: their lines are exact anyhow, and these passes are what takes the time.


def crown_bounds(
    network: Network, box: Intervals, phases: list[Tensor] | None = None, known: list[Intervals] | None = None
) -> list[Intervals] | None:
    """Bounds of the hidden layers' pre-activations, where the neurons are in these phases.

    ``known`` are valid bounds to start from. None means that no input has all the phases.
    """
    found: list[Intervals] = []
    for number, (weight, bias) in enumerate(network[:-1]):
        z = image(weight, bias, relu_image(found[-1]) if found else box)
        if known is not None:
            z = Intervals(z.lower.maximum(known[number].lower), z.upper.minimum(known[number].upper))
        if number > 0:
            identity = torch.eye(len(bias), dtype=torch.float64)
            rows, alphas = torch.cat([identity, -identity]), [adaptive(earlier) for earlier in found]
            low, negated = push_back(network[: number + 1], rows, found, alphas).minimum(box).chunk(2)
            lower = torch.where(z.unstable, low.maximum(z.lower), z.lower)
            z = Intervals(lower, torch.where(z.unstable, z.upper.minimum(-negated), z.upper))
        if phases is not None:
            active, inactive = phases[number] > 0, phases[number] < 0
            if bool((active & (z.upper < 0)).any() or (inactive & (z.lower > 0)).any()):
                return None
            z = Intervals(
                torch.where(active, z.lower.relu(), z.lower), torch.where(inactive, -(-z.upper).relu(), z.upper)
            )
        found.append(z)
    return found


# --- 3. Optimised slopes: alpha-CROWN ---------------------------------------------------------------------------------
#
# Every alpha in [0, 1] gives a valid bound, so the bound may be maximised over them, by any method and for as long as
# one likes: to stop early costs tightness, never soundness. Automatic differentiation of `push_back` has the gradient.
# (The package uses its closed form, in `toolkit/bounds/dual_ascent.py`, and Xu et al. optimise the slopes of the hidden
# neurons' own bounds as well.)
#
# --- 4. Split constraints: beta-CROWN ---------------------------------------------------------------------------------
#
# Suppose that only inputs matter for which some neuron is active, z >= 0. Its ReLU is the identity then, and that alone
# tightens the bound. But the minimum over the box may well be where z < 0. Lagrange forbids it: for any beta >= 0,
#
#     min { g(x) : x in the box, z(x) >= 0 }  >=  min { g(x) - beta z(x) : x in the box }
#
# because beta z is not negative where it counts. A neuron that is to be inactive, z <= 0, has the other sign. In the
# backward pass that is one subtraction, `coefficients - phase * beta`, and beta is optimised along with alpha.

RATE, DECAY = 0.3, 0.9
"""How far a slope or multiplier moves in the first step, whatever the size of its gradient, and the share of that which
is left in each step after."""


@dataclass(frozen=True)
class DualVariables:
    """Of every hidden layer the slopes alpha, in [0, 1], and the multipliers beta, not negative."""

    alphas: list[Tensor]
    betas: list[Tensor]

    def copy(self) -> DualVariables:
        """Variables of the same values that no gradient goes through."""
        return DualVariables([part.detach().clone() for part in self.alphas], [b.detach().clone() for b in self.betas])


@dataclass(frozen=True)
class Optimised:
    """The best lower bound of g that was met, the linear function whose minimum it is, and what gave it."""

    value: float
    linear: Linear
    multipliers: DualVariables


def optimise(
    network: Network, box: Intervals, bounds: list[Intervals], phases: list[Tensor], start: DualVariables, steps: int
) -> Optimised:
    """A lower bound of g for inputs with these phases, improved for so many steps."""
    current, best = start.copy(), None
    parameters = [part.requires_grad_() for part in (*current.alphas, *current.betas)]
    for step in range(steps + 1):
        splits = list(zip(phases, current.betas, strict=True))
        linear = push_back(network, torch.ones(1, 1, dtype=torch.float64), bounds, current.alphas, splits)
        value = linear.minimum(box)[0]
        if best is None or value.item() > best.value:
            best = Optimised(value.item(), linear, current.copy())
        gradients = torch.autograd.grad(value, parameters, retain_graph=True)
        with torch.no_grad():
            for part, gradient in zip(parameters, gradients, strict=True):
                part.add_(RATE * DECAY**step * gradient.sign())
            for alpha, beta in zip(current.alphas, current.betas, strict=True):
                alpha.clamp_(0, 1)
                beta.clamp_(min=0)
    assert best is not None
    return best


# --- 5. Branch and bound ----------------------------------------------------------------------------------------------
#
# No bound with one pair of lines a neuron is tight enough for every question. But where no neuron is unstable, the
# network is one affine map and everything is exact. So divide: pick an unstable neuron, and treat the inputs for which
# it is active apart from those for which it is inactive. A domain whose lower bound is positive is closed. The others
# are divided further, the worst first. There are finitely many phases, so this ends, mostly long before all of them are
# set.
#
# Each half starts from the slopes and multipliers of the whole. Its bound is mostly better at once, but need not be: a
# chord of a narrower interval is lower inside of it but steeper outside, where a relaxation may have its minimum. What
# bounds the whole bounds its halves, though, so the better of the two counts.
#
# Each bound also names a corner of the box where it thinks g is least. That is a guess at a witness; to try it costs
# one run of the network.


@dataclass(frozen=True)
class Subproblem:
    """The inputs of the box for which neurons are in some phases."""

    phases: list[Tensor]
    """Of every hidden layer, +1 active, -1 inactive, 0 open."""
    bounds: list[Intervals]
    best: Optimised
    lower: float
    """The lower bound of g: that of ``best``, or of the domain that this one is a part of."""

    def __str__(self) -> str:
        signs = ("".join(".+-"[int(phase)] for phase in layer) for layer in self.phases)
        return f"{' '.join(signs)}   g >= {self.lower:7.4f}"


@dataclass(frozen=True)
class SearchAnswer:
    """`unsat`: g is positive on the box. `sat`: the witness has g <= 0. `unknown`: neither was found."""

    verdict: str
    domains: int
    witness: Tensor | None = None


def root(network: Network, box: Intervals, steps: int) -> Subproblem:
    """The whole box."""
    phases = [torch.zeros_like(bias) for _, bias in network[:-1]]
    bounds = crown_bounds(network, box)
    assert bounds is not None
    start = DualVariables([adaptive(z) for z in bounds], [torch.zeros_like(phase) for phase in phases])
    best = optimise(network, box, bounds, phases, start, steps)
    return Subproblem(phases, bounds, best, best.value)


def children(network: Network, box: Intervals, parent: Subproblem, steps: int) -> Iterator[Subproblem]:
    """The two halves of a domain with an unstable neuron, less what is empty.

    Split is where the chord costs most: its height above zero times the coefficient that the activation had.
    """
    heights = [lines(z, adaptive(z)).upper_offset for z in parent.bounds]
    scores = [post[0].detach().abs() * height for post, height in zip(parent.best.linear.post, heights, strict=True)]
    scores = [torch.where(z.unstable, s, -torch.inf) for z, s in zip(parent.bounds, scores, strict=True)]
    layer = max(range(len(scores)), key=lambda number: float(scores[number].max()))
    for sign in (1.0, -1.0):
        phases = [phase.clone() for phase in parent.phases]
        phases[layer][scores[layer].argmax()] = sign
        bounds = crown_bounds(network, box, phases, parent.bounds)
        if bounds is not None:
            best = optimise(network, box, bounds, phases, parent.best.multipliers, steps)
            yield Subproblem(phases, bounds, best, max(best.value, parent.lower))


def exact_minimum(network: Network, box: Intervals, leaf: Subproblem) -> Tensor | None:
    """Where g is least in a domain without unstable neurons, by linear programming; None where the domain is empty.

    The multipliers beta would come as close as one likes, as they are the dual variables of this very program.
    """
    size = len(box.lower)
    weight, bias = torch.eye(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    rows, limits = [torch.zeros(1, size, dtype=torch.float64)], [torch.zeros(1, dtype=torch.float64)]
    for (W, b), phase, z in zip(network[:-1], leaf.phases, leaf.bounds, strict=True):
        weight, bias = W @ weight, W @ bias + b
        rows.append(-phase[:, None] * weight)  # phase * (weight x + bias) >= 0
        limits.append(phase * bias)
        active = (z.lower >= 0).double()
        weight, bias = active[:, None] * weight, active * bias
    sides = list(zip(box.lower.tolist(), box.upper.tolist(), strict=True))
    goal, matrix, limit = (network[-1][0] @ weight)[0], torch.cat(rows), torch.cat(limits)
    found = linprog(goal.numpy(), matrix.numpy(), limit.numpy(), bounds=sides)
    if found.status not in (0, 2):  # neither solved nor infeasible
        raise RuntimeError(found.message)
    return torch.as_tensor(found.x) if found.status == 0 else None


def verify(
    network: Network,
    box: Intervals,
    steps: int = 10,
    most: int = 1000,
    tell: Callable[[Subproblem], None] = lambda domain: None,
) -> SearchAnswer:
    """Whether g is positive on a box. Gives up after so many domains; ``tell`` is called with each."""
    count, heap = 0, list[tuple[float, int, Subproblem]]()
    new: Iterator[Subproblem] = iter([root(network, box, steps)])
    while count < most:
        for domain in new:
            count += 1  # the number also keeps the heap from comparing two domains
            tell(domain)
            corner = domain.best.linear.minimiser(box)[0]
            if float(run(network, corner)[-1]) <= 0:
                return SearchAnswer("sat", count, corner)
            if domain.lower <= 0:
                heapq.heappush(heap, (domain.lower, count, domain))
        if not heap:
            return SearchAnswer("unsat", count)
        worst = heapq.heappop(heap)[-1]
        if any(bool(z.unstable.any()) for z in worst.bounds):
            new = children(network, box, worst, steps)
            continue
        new, least = iter(()), exact_minimum(network, box, worst)
        if least is not None and float(run(network, least)[-1]) <= 0:
            return SearchAnswer("sat", count, least)
    return SearchAnswer("unknown", count)


# --- A demonstration --------------------------------------------------------------------------------------------------


def random_network(seed: int, widths: list[int]) -> Network:
    """A network with layers of these widths, the inputs first, and normally distributed weights."""
    generator = torch.Generator().manual_seed(seed)
    shapes = list(zip(widths[1:], widths[:-1], strict=True))
    draw = [torch.randn(rows, columns + 1, generator=generator, dtype=torch.float64) for rows, columns in shapes]
    return [(1.5 * part[:, :-1] / part.shape[1] ** 0.5, 0.5 * part[:, -1]) for part in draw]


def raised(network: Network, amount: float) -> Network:
    """The network with g larger by an amount."""
    *hidden, (weight, bias) = network
    return [*hidden, (weight, bias + amount)]


def samples(box: Intervals, count: int) -> Tensor:
    """Random points of a box, ``(count, n)``."""
    share = torch.rand(count, len(box.lower), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return box.lower + share * (box.upper - box.lower)


SEED, MARGIN = 17, 0.1
"""Of the network, and by how much its least sampled g is positive."""


def demonstrate(seed: int = SEED) -> None:
    """Print how bounds of one network get tighter, and how a tree closes."""
    network, box = random_network(seed, [3, 6, 6, 1]), Intervals(-torch.ones(3).double(), torch.ones(3).double())
    network = raised(network, MARGIN - float(run(network, samples(box, 100_000))[-1].min()))
    print("A network of 3 inputs and two layers of 6 ReLUs. Is g(x) > 0 for all x in [-1, 1]^3?\n")
    print(f"least g of 100000 random inputs     {float(run(network, samples(box, 100_000))[-1].min()):9.4f}\n")
    for name, bound in lower_bounds(network, box):
        print(f"lower bound by {name:<20} {bound:9.4f}")
    print("\nBranch and bound. Phases of both layers: + active, - inactive, . open or stable:\n")
    answer = verify(network, box, tell=lambda domain: print(f"    {domain}"))
    print(f"\n{answer.verdict}: all of {answer.domains} domains are closed or were split. So g(x) > 0.\n")
    answer = verify(raised(network, -2 * MARGIN), box)
    assert answer.witness is not None
    point = ", ".join(f"{value:.4f}" for value in answer.witness)
    print(f"With g smaller by {2 * MARGIN}: {answer.verdict}, after {answer.domains} domains, by x = ({point}).\n")
    print("None of this accounts for rounding; the package does (toolkit/bounds/backward_rounding.py).")


def lower_bounds(network: Network, box: Intervals) -> Iterator[tuple[str, float]]:
    """Lower bounds of g by each technique, and after one split: the least of the two halves'."""
    yield "intervals", float(interval_bounds(network, box)[-1].lower)
    yield "CROWN", root(network, box, steps=0).lower
    whole = root(network, box, steps=50)
    yield "alpha-CROWN", whole.lower
    yield "one split, beta 0", min(child.lower for child in children(network, box, whole, steps=0))
    yield "one split, with beta", min(child.lower for child in children(network, box, whole, steps=50))


if __name__ == "__main__":
    demonstrate()
