"""Kinds about bounding techniques: whatever they say of neurons and features is true at points of the boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from choices import Choices
from kinds import Wrong, kind
from scenes import (
    EIGHTHS,
    EXTREME,
    PIECEWISE_LINEAR,
    PLAIN,
    SIGNS,
    SINGLE,
    TOTAL,
    Numbers,
    Scene,
    random_program,
    scene_of,
)

from toolkit.bounds.bounder import NeuronQuestion
from toolkit.bounds.clip_boxes import HalfSpaces, clip_box
from toolkit.bounds.crown import bound_features, crown_bounds, tighten
from toolkit.bounds.dual_ascent import Adam, Polyak, Schedule, evaluate, optimise, relax
from toolkit.bounds.forward import forward_bounds
from toolkit.bounds.intermediate_bounds import by_optimised_slopes
from toolkit.bounds.interval import Bounds, interval_bounds
from toolkit.bounds.network_reduction import reduce_program
from toolkit.bounds.optimised_bound import Domain, Multipliers, onto_simplex
from toolkit.ops import RELAXATIONS
from toolkit.problem.affine import Affine, DenseAffine
from toolkit.problem.merge_neurons import merge_neurons
from toolkit.problem.program import Layer, Program
from toolkit.search.clip_domains import clip_neurons
from toolkit.tuning import PerDevice, tuned, using

Technique = Callable[[Choices, Scene], int]
TECHNIQUES: list[Technique] = []


def technique(share: int = 1) -> Callable[[Technique], Technique]:
    """Register a technique, which is tried so many times as often as others."""

    def register(function: Technique) -> Technique:
        TECHNIQUES.extend([function] * share)
        return function

    return register


def features_of(scene: Scene, program: Program, bounds: Bounds, label: str, box: Bounds | None = None) -> int:
    """Judge CROWN bounds of the features and of their negatives, for bounds of the neurons."""
    count = program.features.size
    rows = torch.cat([torch.eye(count), -torch.eye(count)]).to(program.dtype).unsqueeze(0)
    _, lower = bound_features(program, rows, scene.box if box is None else box, bounds)
    values = [np.concatenate([truth.features, -truth.features], 1) for truth in scene.truth]
    return scene.least(f"{label}: features", lower, values)


@technique()
def intervals(choices: Choices, scene: Scene) -> int:
    neurons, features = interval_bounds(scene.program, scene.box)
    both = torch.cat([features.lower, -features.upper], 1)
    values = [np.concatenate([truth.features, -truth.features], 1) for truth in scene.truth]
    return scene.neurons("interval", neurons) + scene.least("interval: features", both, values)


@technique()
def crown(choices: Choices, scene: Scene) -> int:
    bounds = crown_bounds(scene.program, scene.box)
    return scene.neurons("crown", bounds) + features_of(scene, scene.program, bounds, "crown")


@contextmanager
def small_zonotopes(choices: Choices) -> Iterator[None]:
    """Forward bounds for small layers too, with few terms, in small blocks."""
    limits = {
        "least_width": choices.of((0, 1, 2)),
        "most_coefficients_per_box": choices.of((1 << 25, 1 << 25, 64, 32, 8, 0)),
        "most_coefficients": choices.of((1 << 26, 1, 16)),
        "block_coefficients": PerDevice(choices.of((1 << 20, 1, 8)), 1 << 26),
    }
    with using(tuned().changed(zonotopes=limits)):
        yield


@technique(share=3)
def zonotopes(choices: Choices, scene: Scene) -> int:
    whole = ending_in_neurons(scene.program)
    with small_zonotopes(choices):
        bounds = forward_bounds(whole, scene.box, interval_bounds(whole, scene.box)[0])
    count = scene.program.num_neurons
    neurons = Bounds(bounds.lower[:, :count], bounds.upper[:, :count])
    ends = torch.cat([bounds.lower[:, count:], -bounds.upper[:, count:]], 1)
    values = [np.concatenate([truth.features, -truth.features], 1) for truth in scene.truth]
    judged = scene.neurons("forward", neurons) + scene.least("forward: features", ends, values)
    return judged + features_of(scene, scene.program, neurons, "forward")


def ending_in_neurons(program: Program) -> Program:
    """The program with a layer of neurons for its features, so that these have bounds as neurons do."""
    last = Layer("features", "relu", program.features, program.num_neurons)
    return replace(program, layers=(*program.layers, last))


@technique()
def refined(choices: Choices, scene: Scene) -> int:
    iterations = choices.between(1, 4) * tuned().roots.steps_of_cases_divisor
    judged = 0
    for number in range(len(scene.truth)):
        box = scene.box.select(torch.tensor([number]))
        known = interval_bounds(scene.program, box)[0]
        bounds = by_optimised_slopes(NeuronQuestion(scene.program, box, known, iterations=iterations))
        judged += scene.neurons("refine", bounds, [number])
    return judged


def random_domain(choices: Choices, scene: Scene) -> tuple[Domain, list[Any], list[Any]]:
    """Domains with the phases of some neurons as at one of their points, the atoms' values, and the points inside."""
    program, bounds = scene.program, crown_bounds(scene.program, scene.box)
    linear = np.concatenate(
        [np.full(layer.affine.size, RELAXATIONS[layer.op].piecewise_linear) for layer in program.layers]
    )
    generator = np.random.default_rng(choices.seed())
    phases, inside = [], []
    for truth in scene.truth:
        chosen = linear & (generator.random(len(linear)) < 0.4)
        phase = np.where(chosen, np.where(truth.pre[0] >= 0, 1, -1), 0)
        phases.append(phase)
        inside.append((truth.pre * phase >= 0).all(1))
    phase = torch.as_tensor(np.stack(phases), dtype=torch.int8)
    bounds = Bounds(
        torch.where(phase > 0, bounds.lower.clamp(min=0), bounds.lower),
        torch.where(phase < 0, bounds.upper.clamp(max=0), bounds.upper),
    )
    atoms = generator.integers(-4, 5, (len(phases), choices.between(1, 2), program.features.size)) / 2
    constants = generator.integers(-4, 5, atoms.shape[:2]) / 2
    values = [
        (t.features @ a.T + c).max(1, keepdims=True) for t, a, c in zip(scene.truth, atoms, constants, strict=True)
    ]
    domain = Domain(scene.box, bounds, phase, scene.tensor(atoms), scene.tensor(constants))
    return domain, values, inside


def judge_atoms(scene: Scene, label: str, lower: Any, values: list[Any], inside: list[Any]) -> int:
    """Judge lower bounds ``(B,)`` of the largest atom, whose values are rounded."""
    room = [v + 1e-12 * (1 + np.abs(t.features).max()) for v, t in zip(values, scene.truth, strict=True)]
    return scene.least(label, lower.unsqueeze(1), room, inside)


@technique()
def ascent(choices: Choices, scene: Scene) -> int:
    domain, values, inside = random_domain(choices, scene)
    generator = torch.Generator().manual_seed(choices.seed())
    draw = lambda shape: torch.rand(shape, generator=generator, dtype=torch.float64).to(scene.dtype)  # noqa: E731
    start = Multipliers(
        draw(domain.phase.shape), draw(domain.phase.shape) ** 4 * 10, onto_simplex(draw(domain.constants.shape))
    )
    first = evaluate(scene.program, relax(scene.program, domain), start).bound
    judged = judge_atoms(scene, "any multipliers", first.lower, values, inside)
    schedule = Schedule(choices.between(1, 6), choices.of((Adam(), Polyak())), choices.chance(0.5))
    best = optimise(scene.program, domain, start, schedule)
    return judged + judge_atoms(scene, "ascent", best.lower, values, inside)


def random_spaces(choices: Choices, scene: Scene, count: int) -> tuple[HalfSpaces, list[Any]]:
    """Half-spaces through or near points of the boxes, and which points are in all of them for certain."""
    generator = np.random.default_rng(choices.seed())
    boxes, inputs = len(scene.truth), scene.program.num_inputs
    normal = generator.integers(-4, 5, (boxes, count, inputs)) / 4
    through = scene.points[np.arange(boxes), generator.integers(scene.points.shape[1], size=boxes)]
    offset = -np.einsum("bkn,bn->bk", normal, through) - generator.choice([0.0, 0.25], (boxes, count))
    inside = [
        (points @ n.T + o <= 0).all(1) for points, n, o in zip(scene.points, normal, offset, strict=True)
    ]  # multiples of small powers of two: exact
    return HalfSpaces(scene.tensor(normal), scene.tensor(offset)), inside


@technique()
def clipped_boxes(choices: Choices, scene: Scene) -> int:
    spaces, inside = random_spaces(choices, scene, choices.between(1, 3))
    found = clip_box(scene.box, spaces)
    lower, upper = found.lower.double().numpy(), found.upper.double().numpy()
    for number, kept in enumerate(inside):
        lost = kept & ~((scene.points[number] >= lower[number]) & (scene.points[number] <= upper[number])).all(1)
        if lost.any():
            point = scene.points[number][lost.argmax()]
            raise Wrong("clip", f"box {number} loses {point.tolist()}: {lower[number]}, {upper[number]}")
    return len(inside)


@technique()
def tightened(choices: Choices, scene: Scene) -> int:
    spaces, inside = random_spaces(choices, scene, choices.between(0, 2))
    larger = Bounds(scene.box.lower - choices.of((0, 1)), scene.box.upper + choices.of((0, 1)))
    known, _ = interval_bounds(scene.program, larger)
    limits = {
        "most_neurons_per_box": choices.of((256, 0, 1)),
        "least_rows": choices.of((128, 1)),
        "owned_coefficients": PerDevice(choices.of((1 << 18, 1)), 1 << 24),
    }
    with small_zonotopes(choices), using(tuned().changed(crown=limits)):
        found = tighten(scene.program, scene.box, known, spaces)
    for number, kept in enumerate(inside):
        if kept.any() and float(found.contradiction[number]) > 0:
            raise Wrong("tighten: contradiction", f"box {number} has {scene.points[number][kept.argmax()].tolist()}")
    return scene.neurons("tighten", found.bounds, kept=inside)


@technique()
def clipped_neurons(choices: Choices, scene: Scene) -> int:
    spaces, inside = random_spaces(choices, scene, 1)
    domain, _, phases = random_domain(choices, scene)
    generator = torch.Generator().manual_seed(choices.seed())
    chosen = torch.rand(domain.phase.shape, generator=generator) < 0.6
    found = clip_neurons(scene.program, domain, spaces, chosen)
    kept = [one & other for one, other in zip(inside, phases, strict=True)]
    for number, inside_ in enumerate(kept):
        if inside_.any() and float(found.contradiction[number]) > 0:
            point = scene.points[number][inside_.argmax()]
            raise Wrong("clip neurons: contradiction", f"box {number} has {point.tolist()}")
    return scene.neurons("clip neurons", found.bounds, kept=kept)


@technique()
def reduced(choices: Choices, scene: Scene) -> int:
    judged = 0
    for number, truth in enumerate(scene.truth):
        box = scene.box.select(torch.tensor([number]))
        bounds = crown_bounds(scene.program, box)
        reduction = reduce_program(scene.program, box, bounds)
        smaller, inner = reduction.program, reduction.restrict_box(box)
        again = crown_bounds(smaller, inner, bounds.of(reduction.neurons))
        alone = Scene(scene.program, box, scene.points[number : number + 1], (truth,))
        whole = Bounds(bounds.lower.clone(), bounds.upper.clone())
        whole.lower[:, reduction.neurons], whole.upper[:, reduction.neurons] = again.lower, again.upper
        judged += alone.neurons("reduce", whole) + features_of(alone, smaller, again, "reduce", inner)
    return judged


@technique()
def merged(choices: Choices, scene: Scene) -> int:
    program = merge_neurons(scene.program)
    return features_of(scene, program, crown_bounds(program, scene.box), "merge")


def with_twins(choices: Choices, program: Program) -> Program:
    """The program with rows of its layers in pairs, copies or negatives of each other, in some cases.

    What reads them may read both alike, too: pairs are absolute values then, whose relaxation is nothing but errors.
    """
    style = choices.of(("none", "rows", "absolute"))
    for number, layer in enumerate(program.layers) if style != "none" else ():
        sign = -1.0 if style == "absolute" else choices.of((1.0, -1.0))
        shift = choices.of((0, 1)) if layer.op == "square" else 0
        for tensor in (*_matrices(layer.affine), layer.affine.bias):
            pairs = len(tensor) // 2
            tensor[1 : 2 * pairs : 2] = sign * tensor[0 : 2 * pairs : 2]
        layer.affine.bias[1::2] += shift
        for reader in program.maps() if style == "absolute" else ():
            if number in reader.sources:
                columns = _matrices(reader)[reader.sources.index(number)]
                columns[:, 1 : 2 * pairs : 2] = columns[:, 0 : 2 * pairs : 2]
    return program


def _matrices(affine: Affine) -> tuple[Any, ...]:
    assert isinstance(affine, DenseAffine)
    return affine.matrices


def try_techniques(choices: Choices, numbers: Numbers, ops: tuple[str, ...], dtype: torch.dtype) -> int:
    """Two or three techniques on one random program."""
    first = choices.of(TECHNIQUES)
    program = with_twins(choices, random_program(choices, numbers, ops))
    scene = scene_of(choices, program, dtype)
    return first(choices, scene) + sum(
        other(choices, scene) for other in dict.fromkeys(TECHNIQUES) if choices.chance(0.1)
    )


@kind(share=12)
def techniques(choices: Choices) -> int:
    """Every bounding technique on ReLU networks with branches and residuals, against exact values."""
    return try_techniques(choices, choices.of((SIGNS, EIGHTHS, SIGNS, PLAIN)), PIECEWISE_LINEAR, torch.float64)


@kind(share=4)
def smooth_techniques(choices: Choices) -> int:
    """Every bounding technique on networks of all operators, against values with hundreds of bits."""
    return try_techniques(choices, choices.of((EIGHTHS, PLAIN)), TOTAL, torch.float64)


@kind(share=4)
def single_precision(choices: Choices) -> int:
    """Every bounding technique in single precision, on weights of double precision."""
    ops = choices.of((PIECEWISE_LINEAR, TOTAL))
    return try_techniques(choices, choices.of((PLAIN, SINGLE)), ops, torch.float32)


@kind(share=4)
def extreme_weights(choices: Choices) -> int:
    """Every bounding technique on weights from 1e-30 to 1e30, in both precisions."""
    return try_techniques(choices, EXTREME, PIECEWISE_LINEAR, choices.of((torch.float64, torch.float32)))
