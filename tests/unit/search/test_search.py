"""The small pieces of branch and bound: domains, choices, leaves, the clock and the attack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from distance import TEXT, Distance, problem_below, unbounded_space
from programs import mlp, program_of
from searches import phases
from torch import Tensor, nn

from toolkit.attack.gradient_attack import (
    accept_best,
    activation,
    attack,
    case_loss,
    descend,
    diversify,
    forward,
    points_at_once,
)
from toolkit.bounds.dual_ascent import evaluate, lower_bound, relax
from toolkit.bounds.interval import Bounds, interval_bounds, unstable_neurons
from toolkit.errors import InputError
from toolkit.formats.vnnlib.read import parse_query
from toolkit.ops import RELAXATIONS
from toolkit.problem.affine import GraphAffine
from toolkit.problem.compile import Binding, Problem, compile_problem
from toolkit.problem.program import split_layers
from toolkit.run.budget import Budget
from toolkit.run.clock import Clock, OutOfTime
from toolkit.search.branching import RULES, babsr, branch, candidates, chord
from toolkit.search.lp_leaf import close_leaves, implied_phases
from toolkit.search.phase_domains import PhaseDomains, PhaseSpace, expand, proved, split
from toolkit.search.root import optimised_root, refined_root, root_bounds, with_unstable_counts
from toolkit.settings import Settings
from toolkit.tuning import tuned
from toolkit.verify import check_settings


def test_only_positive_finite_bounds_are_proofs() -> None:
    lower = torch.tensor([1.0, 0.0, -1.0, torch.inf, -torch.inf, torch.nan, 1e-290, 1e-300], dtype=torch.float64)
    assert proved(lower).tolist() == [True, False, False, False, False, False, True, False]
    assert proved(torch.tensor([1e-25, 1e-30])).tolist() == [True, False]


def test_children_partition_their_parent() -> None:
    _, domains = unbounded_space(-0.1, -0.1)
    neuron = torch.tensor([1, 0])
    children = split(domains, neuron)
    assert len(children) == 4
    for row, parent in enumerate([0, 1, 0, 1]):
        sign = 1 if row < 2 else -1
        assert children.phase[row].nonzero().tolist() == [[int(neuron[parent])]]
        assert int(children.phase[row, neuron[parent]]) == sign
        low, high = children.neuron_lower[row, neuron[parent]], children.neuron_upper[row, neuron[parent]]
        assert low >= 0 if sign > 0 else high <= 0
    assert children.case.tolist() == [0, 1, 0, 1]
    assert children.deepest == 1


def test_expansion_puts_splits_in_their_place() -> None:
    space, domains = unbounded_space(-0.1, -0.1)
    child = split(domains.select(torch.tensor([0])), torch.tensor([1]))
    domain, multipliers = expand(space, child)
    neuron = int(space.unstable[1])
    assert domain.phase.shape == multipliers.alpha.shape == (2, 5)
    assert domain.phase[:, neuron].tolist() == [1, -1]
    assert domain.bounds.lower[0, neuron] == 0
    assert domain.bounds.upper[1, neuron] == 0


def test_records_join_and_select() -> None:
    _, domains = unbounded_space(-0.1, -0.1)
    joined = PhaseDomains.concat([domains, domains.select(torch.tensor([1]))])
    assert joined.case.tolist() == [0, 1, 1]
    assert len(joined.select(torch.tensor([True, False, False]))) == 1


@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_the_weakest_domains_are_picked_and_none_is_lost(count: int) -> None:
    space, domains = unbounded_space(-0.1, -0.1)
    three = PhaseDomains.concat([domains, domains.select(torch.tensor([0]))])
    lower = torch.tensor([-1.0, -3.0, -2.0], dtype=torch.float64)
    picked = phases(space, splittable(three, lower), 0, 2, most=100).pick(count)
    assert picked is not None
    chosen, rest = picked.domains, picked.rest
    assert len(chosen) == min(count, 3)
    assert sorted([*chosen.lower.tolist(), *rest.lower.tolist()]) == [-3.0, -2.0, -1.0]
    assert max(chosen.lower.tolist()) <= min([*rest.lower.tolist(), 0.0])


def test_the_strongest_domains_are_picked_where_memory_is_short() -> None:
    space, domains = unbounded_space(-0.1, -0.1)
    two = splittable(domains, torch.tensor([-1.0, -3.0], dtype=torch.float64))
    for most, lower in ((3, -3.0), (2, -1.0)):
        picked = phases(space, two, 0, 2, most=most).pick(1)
        assert picked is not None
        assert picked.domains.lower.tolist() == [lower]
        assert len(picked.rest) == 1


def splittable(domains: PhaseDomains, lower: Tensor) -> PhaseDomains:
    """The domains with these bounds and a neuron to split."""
    return replace(domains, lower=lower, candidates=torch.zeros_like(domains.candidates))


def test_leaves_are_picked_by_themselves() -> None:
    space, domains = unbounded_space(-0.1, -0.1)
    mixed = replace(domains, candidates=torch.tensor([[-1, -1], [-1, 2]]))
    picked = phases(space, mixed, 0, 2).pick(2)
    assert picked is not None
    assert picked.leaves
    assert (picked.domains.case.tolist(), picked.rest.case.tolist()) == ([0], [1])


def test_only_splittable_neurons_are_candidates() -> None:
    score = torch.tensor([[5.0, 1.0, torch.nan], [2.0, 3.0, torch.inf], [1.0, 1.0, 1.0]])
    splittable = torch.tensor([[False, True, True], [True, True, False], [False, False, False]])
    found = candidates(score, splittable, 2)
    assert sorted(found[0].tolist()) == [1, 2]
    assert found[1].tolist() == [1, 0]
    assert found[2].tolist() == [-1, -1]
    assert (candidates(score[:, :0], splittable[:, :0], 2) == -1).all()


@pytest.mark.parametrize(("first", "second"), [(-0.01, 0.99), (0.01, 0.99), (-0.01, 1.01)])
def test_linear_programs_decide_leaves(first: float, second: float) -> None:
    """All leaves of both cases, infeasible ones too, are proved, or the leaf with the minimum gives a witness."""
    space, domains = unbounded_space(first, second)
    accepted: list[Tensor] = []

    def accept(point: Tensor, region: int) -> bool:
        value = float(Distance()(point.unsqueeze(0)))
        if value <= first or (value <= second and float(point[0]) >= 0.5):
            accepted.append(point)
        return bool(accepted)

    satisfiable = first > 0 or second > 1
    leaves = domains
    for neuron in range(len(space.unstable)):
        leaves = split(leaves, torch.full((len(leaves),), neuron))
    found = close_leaves(space, leaves, Budget(Clock.started(60), accept))
    assert found.witness == bool(accepted) == satisfiable
    assert found.undecided == 0 or satisfiable


def test_narrower_bounds_of_a_leaf_are_constraints() -> None:
    space, domains = unbounded_space(-0.1, -0.1)
    domain, _ = expand(space, split(domains, torch.tensor([0, 1])))
    lower, upper = domain.bounds.lower.clone(), domain.bounds.upper.clone()
    lower[0, space.unstable[2]], upper[1, space.unstable[2]] = 0.1, -0.1
    phase = implied_phases(space, replace(domain, bounds=Bounds(lower, upper)))
    assert phase[:2, space.unstable[2]].tolist() == [1, -1]
    assert torch.equal(phase[domain.phase != 0], domain.phase[domain.phase != 0])


def test_nan_leaves_stay_undecided() -> None:
    space, domains = unbounded_space(-0.01, -0.01)
    broken = PhaseSpace(
        Problem(**{**space.problem.__dict__, "offsets": space.problem.offsets * torch.nan}), space.root, space.unstable
    )
    found = close_leaves(broken, domains, Budget(Clock.started(60), lambda point, region: False))
    assert found.undecided == len(domains)


def test_scores_have_one_number_for_each_neuron() -> None:
    space, domains = unbounded_space(-0.1, -0.1)
    domain, multipliers = expand(space, domains)
    bound = evaluate(space.problem.program, relax(space.problem.program, domain), multipliers).bound
    for score in (babsr, chord):
        found = score(space.problem.program, domain.bounds, bound)
        assert found.shape == (2, 5)
        assert bool(torch.isfinite(found).all() and (found >= 0).all())


def test_rules_have_names() -> None:
    assert RULES.named("chord").score is chord
    assert RULES.named(Settings().branching) is RULES.named("chord")
    with pytest.raises(InputError, match="babsr, chord"):
        check_settings(Settings(branching="best"))


def test_neurons_on_a_chord_come_before_all_others() -> None:
    space, domains = unbounded_space(-0.1, -0.1)
    domain, multipliers = expand(space, domains)
    bound = evaluate(space.problem.program, relax(space.problem.program, domain), multipliers).bound
    negative = replace(bound, post=torch.tensor([[1.0, -0.01, 0.5, 1.0, 1.0]] * 2, dtype=torch.float64))
    assert chord(space.problem.program, domain.bounds, negative).argmax(1).tolist() == [1, 1]
    positive = replace(bound, post=negative.post.abs())
    assert chord(space.problem.program, domain.bounds, positive).argmax(1).tolist() != [1, 1]


def test_domains_are_split_at_the_candidate_whose_stronger_child_is_nearest_to_a_proof() -> None:
    space, domains = unbounded_space(-0.1, -0.1)
    chosen = replace(domains, candidates=torch.tensor([[-1, 3, 1], [2, -1, -1]]))
    children = branch(space, chosen, Clock.started(60))
    promise = {}
    for neuron in (3, 1):
        pair = split(chosen.select(torch.tensor([0])), torch.tensor([neuron]))
        bounds = lower_bound(space.problem.program, *expand(space, pair)).clamp(max=0).sort().values
        promise[neuron] = float(bounds[1] + tuned().phases.weaker_child_weight * bounds[0])
    assert children.phase[0].nonzero().tolist() == [[max(promise, key=promise.__getitem__)]]
    assert children.phase[1].nonzero().tolist() == [[2]]  # the only one that it has


def test_root_bounds_hold() -> None:
    problem = problem_below(-0.1, 0.4)
    root = root_bounds(problem, Clock.started(60), lambda event: None)
    assert bool(torch.isfinite(root.lower).all())
    assert float(root.lower[0]) <= 0.1 + 1e-9
    assert float(root.lower[1]) <= 0.6 + 1e-9
    assert root.unstable <= root.unstable_interval <= problem.program.num_neurons


def two_layers() -> Problem:
    """A small random network with two hidden layers over two inputs, one case in one region."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 1)).eval()
    bounds = "(assert (>= X_0 -1.0))(assert (<= X_0 1.0))(assert (>= X_1 -1.0))(assert (<= X_1 1.0))"
    names = "(declare-const X_0 Real)(declare-const X_1 Real)(declare-const Y_0 Real)"
    query = parse_query(f"{names}{bounds}(assert (<= Y_0 -0.5))")
    return compile_problem(query, {query.networks[0].name: Binding(network, ((1, 2),), (torch.float32,))})


def test_unstable_neurons_are_counted_by_layer_and_method() -> None:
    problem, clock = two_layers(), Clock.started(60)
    root = root_bounds(problem, clock, lambda event: None)
    root = refined_root(problem, root, 16, clock, lambda event: None)
    counts = list(root.layers.values())
    assert [layer["neurons"] for layer in counts] == [6, 5]
    intervals, _ = interval_bounds(problem.program, Bounds(problem.lower, problem.upper))
    wanted = [int(mask.sum()) for mask in split_layers(problem.program, unstable_neurons(problem.program, intervals))]
    assert [layer["interval"] for layer in counts] == wanted
    for layer in counts:
        assert layer["alpha-crown"] <= layer["crown"] <= layer["interval"] <= layer["neurons"]
    assert sum(layer["interval"] for layer in counts) == root.unstable_interval > 0
    assert sum(layer["alpha-crown"] for layer in counts) == root.unstable


def test_counts_of_a_layer_that_was_reduced_away_are_zero() -> None:
    problem = two_layers()
    root = root_bounds(problem, Clock.started(60), lambda event: None)
    first = replace(problem.program, layers=problem.program.layers[:1])
    stable = Bounds(root.bounds.lower[:, :6].abs(), root.bounds.upper[:, :6].abs() + 1)
    found = with_unstable_counts(root.layers, replace(problem, program=first), stable, "later")
    assert [layer["later"] for layer in found.values()] == [0, 0]


def test_nothing_is_optimised_where_bounds_decide_all(tune: Callable[..., None]) -> None:
    tune(problem={"most_dense_elements": 0})
    problem = problem_below(-10.0, -10.0)
    clock = Clock.started(60)
    assert isinstance(problem.program.features, GraphAffine)
    root = root_bounds(problem, clock, lambda event: None)
    assert proved(root.lower).all()
    assert torch.equal(optimised_root(problem, root, root.bounds, 4, clock, lambda event: None).lower, root.lower)


def test_the_clock_runs_out() -> None:
    clock = Clock.started(1e-9)
    with pytest.raises(OutOfTime):
        clock.check()
    assert clock.left < 0 < clock.elapsed
    Clock.started(100).check()
    assert Clock.started(100).soon(10).left <= 10
    assert Clock.started(100).soon(1000).limit == 100


@pytest.mark.parametrize("op", ["sign", "floor", "round", "exp", "exp_below_cap", "share"])
def test_the_attack_has_the_values_of_an_operator_and_a_gradient(op: str) -> None:
    z = torch.tensor([[1.5, 2.0, 80.0, 900.0], [1.0, 3.5, 5.0, 2000.0]], requires_grad=True)
    value = activation(op, z)
    (gradient,) = torch.autograd.grad(value.sum(), z)
    assert bool(torch.isfinite(value.sum()))
    assert bool(torch.isfinite(gradient).all())
    exact = RELAXATIONS[op].function(z.detach())
    small = exact < 1e30
    torch.testing.assert_close(value.detach()[small], exact[small], rtol=0, atol=0)
    assert bool((gradient[:, :2] < 0 if op == "share" else gradient[:, :2] > 0).all())


def test_large_networks_move_few_points_at_once() -> None:
    small, large = problem_below(0.05, 0.6).program, program_of(mlp(2, 2000, 2000, 2000, 2000, 1), 2)
    assert points_at_once(small) == tuned().gradients.most_points
    assert tuned().gradients.least_points <= points_at_once(large) < tuned().gradients.most_points


def test_descent_stays_in_the_boxes_and_goes_down() -> None:
    problem = problem_below(0.05, 0.6)
    case = torch.tensor([0, 1]).repeat(8)
    region = problem.region[case]
    start = problem.lower[region] + torch.rand(16, 2, dtype=torch.float64) * (problem.upper - problem.lower)[region]
    path = list(descend(problem, case, start, 30, Clock.started(60)))
    for points, loss in path:
        assert bool((points >= problem.lower[region]).all() and (points <= problem.upper[region]).all())
        torch.testing.assert_close(loss, case_loss(problem, points, case))
    assert float(path[-1][1].mean()) < float(path[0][1].mean())


def test_starts_are_spread_over_the_outputs_inside_their_boxes() -> None:
    problem = problem_below(0.05, 0.6)
    case = torch.tensor([0, 1]).repeat(8)
    region = problem.region[case]
    start = problem.lower[region] + torch.rand(16, 2, dtype=torch.float64) * (problem.upper - problem.lower)[region]
    up, down = (diversify(problem, case, start, sign * torch.ones(16, 1), Clock.started(60)) for sign in (1.0, -1.0))
    for points in (up, down):
        assert bool((points >= problem.lower[region]).all() and (points <= problem.upper[region]).all())
    assert float((forward(problem.program, up) - forward(problem.program, down)).mean()) > 1
    still = diversify(problem, case, start, torch.zeros(16, 1), Clock.started(60))
    assert torch.equal(still, start)


class Traps(nn.Module):
    """At most -1 only near x0 = -1: everywhere else the slope leads to x0 = 1, where it is 0."""

    def forward(self, x: Tensor) -> Tensor:
        first = x[:, :1]
        return torch.cat([(1 - first) - 30 * torch.relu(-0.9 - first), -first], 1)


def test_diversified_starts_find_what_random_ones_miss(tune: Callable[..., None]) -> None:
    text = TEXT.replace("(declare-const Y_0 Real)", "(declare-const Y_0 Real)(declare-const Y_1 Real)")
    query = parse_query(text.format(-0.5, -0.5).replace("(>= X_0 0.5)", "(>= Y_1 -9.0)"))
    problem = compile_problem(query, {query.networks[0].name: Binding(Traps(), ((1, 2),), (torch.float32,))})
    spread = [
        attack(problem, torch.arange(1), 2, 20, Budget(Clock.started(60), lambda p, r: True, seed=seed))
        for seed in range(20)
    ]
    tune(gradients={"diversifying_steps": 0})
    plain = [
        attack(problem, torch.arange(1), 2, 20, Budget(Clock.started(60), lambda p, r: True, seed=seed))
        for seed in range(20)
    ]
    assert sum(spread) > sum(plain) + 4


def test_the_attack_reports_only_accepted_points() -> None:
    problem = problem_below(0.2, 0.6)
    cases, clock = torch.arange(2), Clock.started(60)
    tried: list[Tensor] = []
    assert not attack(problem, cases, 3, 20, Budget(clock, lambda p, r: bool(tried.append(p))))
    assert tried
    assert attack(problem, cases, 3, 20, Budget(clock, lambda p, r: True))
    assert not attack(problem, cases, 0, 20, Budget(clock, lambda p, r: True))
    assert not attack(problem_below(-1.0, -1.0), cases, 3, 20, Budget(clock, lambda p, r: True))


def test_nan_losses_are_no_candidates() -> None:
    points, loss = torch.zeros(3, 2), torch.tensor([torch.nan, 1.0, torch.inf])
    assert not accept_best(points, loss, torch.zeros(3, dtype=torch.int64), lambda p, r: True)
