"""The network that is left on a box: stable neurons removed exactly.

On a box, an inactive ReLU is zero and an active one is the identity, so both vanish into the affine maps between the
unstable ones (Serra et al. 2021; REDNet, Zhong et al. 2023). Input elements that the box fixes vanish into the biases.
What remains is as large as the part that verification is about, which is how a pruned network becomes cheap to verify:
zero rows and columns are simply not there.

The new maps come from the backward pass itself: rows are pushed back through active neurons and cut at the kept ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from toolkit.bounds.backward import backward, of_rows
from toolkit.bounds.backward_rounding import computed_errors
from toolkit.bounds.crown import rows_per_pass
from toolkit.bounds.interval import Bounds
from toolkit.ops import RELAXATIONS, RelaxationLines
from toolkit.problem.affine import Affine, DenseAffine
from toolkit.problem.program import INPUT, Layer, Program, ProgramOrigin
from toolkit.problem.sum_rounding import ROUNDINGS_BESIDE_SUM, MapErrors, gamma
from toolkit.tuning import tuned


@dataclass(frozen=True)
class Reduction:
    """A smaller program that equals the original on a set of boxes, and how to translate between them."""

    program: Program
    inputs: Tensor
    """Input elements that vary in some box: the inputs of the smaller program, ``(n',)``."""
    neurons: Tensor
    """Neurons that are not stable in all boxes: the neurons of the smaller program, ``(num_neurons',)``."""
    base: Tensor
    """A point, ``(n,)``: the values of the input elements that do not vary, and the origin of those that do."""

    def restrict_box(self, box: Bounds) -> Bounds:
        """Input boxes of the original as boxes of the smaller program."""
        origin = self.base[self.inputs]
        inner = box.of(self.inputs)
        if not bool(origin.any()):
            return inner
        infinity = torch.full_like(inner.lower, torch.inf)
        return Bounds(torch.nextafter(inner.lower - origin, -infinity), torch.nextafter(inner.upper - origin, infinity))

    def restore(self, point: Tensor) -> Tensor:
        """A point of the smaller program, ``(n',)``, as a point of the original, ``(n,)``."""
        full = self.base.clone()
        full[self.inputs] += point.to(full.dtype)
        return full


def reduce_program(
    program: Program,
    box: Bounds,
    bounds: Bounds,
    check: Callable[[], None] = lambda: None,
    recentred: bool = False,
) -> Reduction:
    """Remove what is stable on all boxes ``(R, n)`` with neuron bounds ``(R, num_neurons)``.

    ``recentred`` makes the centre of the boxes the origin of the inputs, so that their magnitudes, by which rounding
    is counted, are no larger than the boxes. ``check`` is called between passes and may raise to stop the work.
    """
    varying = _varying(box)
    whole = box.around()
    middle = whole.centre[0] if recentred else torch.zeros_like(box.lower[0])
    base = torch.where(varying, middle, box.lower[0])
    kept = [_kept(layer, bounds) for layer in program.layers]
    lines = [_through_active(layer, bounds, keep) for layer, keep in zip(program.layers, kept, strict=True)]
    errors = computed_errors(program, whole, bounds.around())
    cut = _Cut(program, kept, lines, varying, base, errors, check)
    numbers = {old: new for new, old in enumerate(number for number, keep in enumerate(kept) if len(keep))}
    layers: list[Layer] = []
    for layer, keep, own in zip(program.layers, kept, errors.layers, strict=True):
        if not len(keep):
            continue
        start = layers[-1].stop if layers else 0
        layers.append(replace(layer, affine=cut.reduced(layer.affine, keep, own, numbers), start=start))
    every = torch.arange(program.features.size, device=program.device)
    features = cut.reduced(program.features, every, errors.features, numbers)
    neurons = torch.cat(
        [layer.start + keep for layer, keep in zip(program.layers, kept, strict=True)] or [base[:0].long()]
    )
    inputs = varying.nonzero().squeeze(1)
    origin = origin_of(program, inputs, base[inputs], neurons)
    smaller = Program(len(inputs), tuple(layers), features, program.device, program.dtype, origin=origin)
    return Reduction(smaller, inputs, neurons, base)


def origin_of(program: Program, inputs: Tensor, base: Tensor, neurons: Tensor) -> ProgramOrigin:
    """What these inputs and neurons of a program, and what is added to the inputs, are in the compiled one."""
    before = program.origin
    if before is None:
        return ProgramOrigin(inputs, base, neurons)
    return ProgramOrigin(before.inputs[inputs], before.base[inputs] + base, before.neurons[neurons])


def _varying(box: Bounds) -> Tensor:
    """Input elements that are not one fixed number, ``(n,)``."""
    return (box.lower < box.upper).any(0) | (box.lower != box.lower[0]).any(0)


def _kept(layer: Layer, bounds: Bounds) -> Tensor:
    """Neurons of a layer that its operator does not make affine in every box."""
    lower, upper = bounds.lower[:, layer.neurons], bounds.upper[:, layer.neurons]
    relaxation = RELAXATIONS[layer.op]
    if not relaxation.piecewise_linear:
        return torch.arange(layer.affine.size, device=lower.device)
    stable = (lower >= 0).all(0) | (upper <= 0).all(0)
    return (~stable).nonzero().squeeze(1)


def _through_active(layer: Layer, bounds: Bounds, kept: Tensor) -> RelaxationLines:
    """Identity for active neurons, zero for inactive and for kept ones: kept ones end the backward pass."""
    slope = (bounds.lower[:, layer.neurons] >= 0).all(0).to(bounds.lower.dtype)
    slope[kept] = 0.0
    slope, zero = slope.unsqueeze(0), torch.zeros_like(slope).unsqueeze(0)
    return RelaxationLines(slope, zero, slope, zero)


@dataclass(frozen=True)
class _Cut:
    program: Program
    kept: list[Tensor]
    lines: list[RelaxationLines]
    varying: Tensor
    base: Tensor
    errors: MapErrors
    check: Callable[[], None]

    def reduced(self, affine: Affine, rows: Tensor, own: Tensor, numbers: dict[int, int]) -> DenseAffine:
        """Some rows of a map, whose errors are its ``own``, as one dense map of the varying inputs and kept neurons.

        ``numbers`` are the new numbers of the layers of which something is left.
        """
        parts = [self._rows(affine, part, own) for part in rows.split(rows_per_pass(self.program, 1))]
        old = sorted({source for part in parts for source in part[0]})
        matrices = [
            torch.cat(
                [
                    found[source] if source in found else bias.new_zeros(len(bias), len(self.kept[source]))
                    for found, bias, _ in parts
                ]
            )
            for source in old
        ]
        bias, slack = torch.cat([part[1] for part in parts]), torch.cat([part[2] for part in parts])
        sources = tuple(INPUT if source == INPUT else numbers[source] for source in old)
        return DenseAffine(sources, tuple(m.contiguous() for m in matrices), bias, slack=slack)

    def _rows(self, affine: Affine, rows: Tensor, own: Tensor) -> tuple[dict[int, Tensor], Tensor, Tensor]:
        """Coefficients by source, ``(len(rows), size of source)``, the bias, and what rounding may have changed of the
        values on the boxes, ``(len(rows),)`` each."""
        self.check()
        linear = backward(self.program, of_rows(affine, rows, own), self.lines, self.errors)
        assert linear.error is not None and linear.summed is not None
        coefficients, error = linear.coefficients[0], linear.error[0]
        found = {INPUT: coefficients[:, self.varying]}
        for number, keep in enumerate(self.kept):
            post = linear.post[number]
            if post is not None and len(keep):
                found[number] = post[0][:, keep]
        bias = linear.summed[0] + coefficients @ self.base
        unit = gamma(len(self.base) + ROUNDINGS_BESIDE_SUM, bias.dtype)
        return found, bias, 2 * error + unit * (coefficients.abs() @ self.base.abs() + bias.abs())


def worth_reducing(program: Program, box: Bounds, bounds: Bounds) -> bool:
    """Whether the reduced program is quickly made, a pass for each of its neurons, and the cheaper one.

    It costs at most what dense rows over all earlier kept neurons do.
    """
    kept = [len(_kept(layer, bounds)) for layer in program.layers]
    width, cost = int(_varying(box).sum()), 0
    for rows in [*kept, program.features.size]:
        cost += rows * width
        width += rows
    limits = tuned().reduction
    affordable = sum(kept) * program.cost <= limits.most_multiplications
    return affordable and cost <= limits.most_cost_factor * program.cost
