"""Every registered technique bounds all neurons, never looser than what is known; the cheapest that suits is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from programs_to_bound import random_boxes, random_points, random_program, run

from toolkit.bounds.bounder import BOUNDERS, NeuronQuestion, Stage, bounder, cheapest
from toolkit.bounds.interval import Bounds, interval_bounds
from toolkit.run.clock import Clock
from toolkit.search import neuron_branching  # noqa: F401 - importing it registers what bounds neurons by a search

NAMES = sorted(BOUNDERS.loaded())

SECONDS = 2.0
"""What a technique may take that could go on for ever."""


def question(seed: int, operator: str = "relu", count: int = 4) -> NeuronQuestion:
    """The neurons of a random program in some boxes, from intervals."""
    program, box = random_program(seed, operator), random_boxes(seed, count)
    known = interval_bounds(program, box)[0]
    return NeuronQuestion(program, box, known, iterations=20, turn=Clock.started(SECONDS), batch=64)


@pytest.fixture
def three_techniques() -> Iterator[None]:
    """The registry with these alone; afterwards it is as it was."""
    before = dict(BOUNDERS)
    for name in set(before) - {"crown", "forward", "alpha-crown"}:
        del BOUNDERS[name]
    yield
    BOUNDERS.clear()
    BOUNDERS.update(before)


def test_the_techniques_are_found_without_being_named_anywhere() -> None:
    assert {"crown", "forward", "alpha-crown", "neuron-branching"} <= set(NAMES)
    assert {one.name for one in BOUNDERS.values()} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("operator", ["relu", "sigmoid", "tanh"])
@pytest.mark.parametrize("alike", [False, True])
def test_bounds_hold_at_points_and_are_no_looser_than_known(name: str, operator: str, alike: bool) -> None:
    technique = BOUNDERS[name]
    for seed in range(4):
        for count in (1, 4):
            asked = replace(question(seed, operator, count), alike=alike)
            if technique.stage is not Stage.FIRST and not technique.suits(asked):
                continue
            found = technique.bound(asked)
            assert found is not None
            assert bool((found.lower >= asked.known.lower).all())
            assert bool((found.upper <= asked.known.upper).all())
            for points in random_points(asked.box, 50, seed):
                values, _ = run(asked.program, points)
                assert bool(((values >= found.lower - 1e-9) & (values <= found.upper + 1e-9)).all())


@pytest.mark.parametrize("name", NAMES)
def test_bounds_in_single_precision_hold_or_are_left_to_double(name: str) -> None:
    technique = BOUNDERS[name]
    for seed in range(4):
        asked = question(seed, count=1)
        single = asked.program.to(torch.device("cpu"), torch.float32)
        box = Bounds(asked.box.lower.float(), asked.box.upper.float())
        known = interval_bounds(single, box)[0]
        found = technique.bound(replace(asked, program=single, box=box, known=known, exact=asked.program))
        if found is None:
            continue
        for points in random_points(box.to(torch.float64), 50, seed):
            values, _ = run(asked.program, points)
            assert bool(((values >= found.lower.double()) & (values <= found.upper.double())).all())


@pytest.mark.usefixtures("three_techniques")
def test_crown_is_taken_where_no_layer_is_wide_and_zonotopes_where_they_are_cheaper(
    tune: Callable[..., None],
) -> None:
    asked = question(0)
    chosen = cheapest(Stage.FIRST, asked)
    assert chosen is not None
    assert chosen.name == "crown"
    tune(zonotopes={"least_width": 1}, roots={"forward_neurons_per_input": 0})
    chosen = cheapest(Stage.FIRST, asked)
    assert chosen is not None
    assert chosen.name == "forward"


@pytest.mark.usefixtures("three_techniques")
def test_slopes_are_optimised_for_one_box_alone() -> None:
    one = cheapest(Stage.REFINING, question(0, count=1))
    assert one is not None
    assert one.name == "alpha-crown"
    assert cheapest(Stage.REFINING, question(0, count=2)) is None


def test_neurons_of_several_layers_are_branched_on_in_one_box_alone() -> None:
    one = cheapest(Stage.BRANCHING, question(0, count=1))
    assert one is not None
    assert one.name == "neuron-branching"
    assert cheapest(Stage.BRANCHING, question(0, count=2)) is None
    shallow = question(0, count=1).program.ending_at(1)
    assert shallow.is_shallow
    known = interval_bounds(shallow, random_boxes(0, 1))[0]
    assert cheapest(Stage.BRANCHING, NeuronQuestion(shallow, random_boxes(0, 1), known)) is None


@pytest.mark.usefixtures("three_techniques")
def test_a_technique_that_suits_and_costs_nothing_is_taken() -> None:
    bounder("known", Stage.FIRST, lambda asked: len(asked.box.lower) == 2, lambda asked: -1)(lambda asked: asked.known)
    for count, name in ((2, "known"), (3, "crown")):
        chosen = cheapest(Stage.FIRST, question(0, count=count))
        assert chosen is not None
        assert chosen.name == name
