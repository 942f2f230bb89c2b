"""How hard, and for how long, witnesses are looked for: by gradients, and by populations where few inputs vary."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from toolkit.attack.evolution_attack import evolve
from toolkit.attack.gradient_attack import attack
from toolkit.run.clock import Clock, OutOfTime
from toolkit.search.search_task import SearchTask

ATTACK_TIME_SHARE = 0.1
"""Share of the time left that the attack may take: the searches look for witnesses too."""
ATTACK_FIRST_COST = 1e11
"""Multiplications, of a pass for every neuron, from which on the first attack comes before root bounds."""
FIRST_RESTARTS_SHARE = 0.2
"""Share of the attack's restarts that come before bounds are improved, which may leave fewer cases to attack."""
POPULATION_SIZE = 2048
"""Points of each case that evolve before all restarts have been made."""
MOST_FULLY_ATTACKED_CASES = 64
"""Open cases up to which each is attacked with all restarts and steps."""
MOST_RESTART_MULTIPLES = 32
"""Most restarts at once, in units of the settings'."""
SEED_STRIDE = 1_000_003
"""Distance of the seeds of one attack from those of another."""
MOST_EVOLVING_INPUTS = 64
"""Most varying inputs for which populations evolve."""


def attack_first(task: SearchTask) -> bool | None:
    """The first part of the attack, on all cases of a network whose root bounds will take long; None of others."""
    if task.problem.program.cost * task.problem.program.num_neurons < ATTACK_FIRST_COST:
        return None
    cases = torch.arange(task.problem.num_cases, device=task.problem.region.device)
    return attack_part(task, cases, FIRST_RESTARTS_SHARE)


def attack_part(task: SearchTask, cases: Tensor, part: float) -> bool:
    """Part of the settings' restarts, for a share of the time that is left; parts of a query share it."""
    return _restart(task, cases, part, task.clock.part(ATTACK_TIME_SHARE * task.share), round(10 * part))


def attack_on(task: SearchTask, cases: Tensor, number: int) -> bool:
    """Ever more restarts, for a share of the time that was spent so far: of small networks these are many.

    Attacks with different numbers, and those before, have starts of their own.
    """
    clock = task.clock.soon(ATTACK_TIME_SHARE * task.clock.elapsed)
    again = 0
    while task.settings.attack_restarts and clock.left > 0:
        if _restart(
            task, cases, min(2 ** (again + 1), MOST_RESTART_MULTIPLES), clock, SEED_STRIDE * (number + 1) + again
        ):
            return True
        again += 1
    return False


def _restart(task: SearchTask, cases: Tensor, part: float, clock: Clock, seed: int) -> bool:
    """Part of the settings' restarts for each of up to so many cases, less where there are more, in all too."""
    settings = task.settings
    share = min(1.0, MOST_FULLY_ATTACKED_CASES / max(1, len(cases)))
    restarts = math.ceil(part * share**2 * settings.attack_restarts)
    steps = math.ceil(share * settings.attack_steps)
    try:
        if attack(task.problem, cases, restarts, steps, settings.seed + seed, clock, task.accept):
            return True
        if not restarts or not 0 < task.problem.varying_inputs <= MOST_EVOLVING_INPUTS:
            return False
        return evolve(task.problem, cases, round(part * POPULATION_SIZE), settings.seed + seed, clock, task.accept)
    except OutOfTime:
        return False
