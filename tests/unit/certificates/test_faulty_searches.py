"""Searches with a fault in them: what they prove is wrong, and the checker, which shares nothing with them, refuses.

Every query here has a counterexample, found by onnxruntime, so that each answer `unsat` is wrong. A fault is put into
the running program; what would notice it there, witnesses and comparisons with onnxruntime, is out of action.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from random_networks import NetworkBuilder, random_network, save
from random_queries import QueryCase, query_text, random_cases

from toolkit import quick_proof, verify
from toolkit.bounds import backward, interval
from toolkit.certificates.quick_certificate import certificate
from toolkit.certificates.verify_with_certificate import ProofFiles, verify_with_certificate
from toolkit.ops import RELAXATIONS
from toolkit.ops.relaxation import RelaxationLines
from toolkit.problem import compile
from toolkit.problem.compile import FeatureQuestion
from toolkit.proof.check import CHECKED, INCOMPLETE, REFUTED, CheckOutcome, check
from toolkit.result import Result, Verdict
from toolkit.run.clock import Clock
from toolkit.search import box_frontier, clip_domains, phase_domains, phase_frontier
from toolkit.settings import Settings
from toolkit.verify import load_networks, silent

Patch = pytest.MonkeyPatch
Plant = Callable[[Patch], None]
NETWORKS = (("tiny", 2), ("residual", 0), ("mlp", 1), ("mlp", 2))
"""Families with seeds."""
ENOUGH = 2
"""Wrong answers of each fault."""


@dataclass(frozen=True)
class Fault:
    """A fault of searches by one strategy, and what the checker says of certificates that these take for complete."""

    plant: Plant
    strategy: str
    status: str


FAULTS: dict[str, Fault] = {}


def fault(strategy: str, status: str = REFUTED) -> Callable[[Plant], Plant]:
    """Register a function that plants a fault."""

    def register(plant: Plant) -> Plant:
        FAULTS[plant.__name__] = Fault(plant, strategy, status)
        return plant

    return register


def around(patch: Patch, owner: Any, name: str, change: Callable[..., Any]) -> None:
    """Have a function's result changed: ``change`` is given the result, and then the arguments."""
    function = getattr(owner, name)
    patch.setattr(owner, name, lambda *given, **named: change(function(*given, **named), *given, **named))


def with_lines(patch: Patch, change: Callable[[RelaxationLines, torch.Tensor, torch.Tensor], RelaxationLines]) -> None:
    """Have the lines of ReLUs changed."""
    relu = RELAXATIONS["relu"]
    lines = lambda lower, upper: change(relu.lines(lower, upper), lower, upper)  # noqa: E731
    patch.setitem(RELAXATIONS, "relu", replace(relu, lines=lines))


@fault("relu")
def chords_without_offset(patch: Patch) -> None:
    """The line above a ReLU begins at the origin."""
    with_lines(patch, lambda lines, lower, upper: replace(lines, upper_offset=0 * lines.upper_offset))


@fault("input")
def chords_that_are_flat(patch: Patch) -> None:
    """The line above a ReLU rises half as much."""
    with_lines(patch, lambda lines, lower, upper: replace(lines, upper_slope=lines.upper_slope / 2))


@fault("relu")
def lines_exchanged(patch: Patch) -> None:
    """The line below a ReLU is taken for the one above, and the other way round."""
    with_lines(
        patch,
        lambda lines, lower, upper: RelaxationLines(
            lines.upper_slope, lines.upper_offset, lines.lower_slope, lines.lower_offset
        ),
    )


@fault("input")
def biases_left_out(patch: Patch) -> None:
    """A backward pass leaves the bias of a layer out."""

    def change(found: Any, total: Any, program: Any, number: int, rows: torch.Tensor, *rest: Any) -> Any:
        return replace(found, offset=found.offset - rows @ program.layers[number].affine.bias)

    around(patch, backward.OffsetTotal, "plus", change)


@fault("relu")
def intervals_too_narrow(patch: Patch) -> None:
    """Ranges of neurons move inward by an eighth of their width at each end."""

    def change(found: interval.Bounds, *given: Any) -> interval.Bounds:
        room = (found.upper - found.lower) / 8
        return interval.Bounds(found.lower + room, found.upper - room)

    around(patch, interval, "affine_interval", change)


@fault("input")
def boxes_too_small(patch: Patch) -> None:
    """The boxes of the specification end at three quarters of their width."""

    def change(found: Any, *given: Any) -> Any:
        return replace(found, upper=found.lower + 0.75 * (found.upper - found.lower))

    around(patch, FeatureQuestion, "to", change)


@fault("input")
def weights_rounded(patch: Patch) -> None:
    """The weights of the network have two binary digits."""

    def change(found: Any, *given: Any) -> Any:
        for binding in found.values():
            for weight in (*binding.module.parameters(), *binding.module.buffers()):
                if weight.is_floating_point():
                    mantissa, exponent = torch.frexp(weight.data)
                    weight.data = torch.ldexp((4 * mantissa).round() / 4, exponent)
        return found

    around(patch, compile, "in_double", change)


@fault("relu", INCOMPLETE)
def cases_forgotten(patch: Patch) -> None:
    """Of several cases of the specification the last one is forgotten."""

    def change(found: Any, *given: Any) -> Any:
        kept = max(1, len(found) - 1)
        starts = found.starts[: kept + 1]
        return replace(found, region=found.region[:kept], starts=starts, rows=found.rows[: starts[-1]])

    around(patch, verify, "compile_cases", change)


@fault("relu")
def nearly_proved_is_proved(patch: Patch) -> None:
    """A bound of -0.3 is a proof."""
    patch.setattr(phase_domains, "LEAST_NORMAL_NUMBERS", -0.3 / torch.finfo(torch.float64).tiny)


@fault("relu", INCOMPLETE)
def halves_dropped(patch: Patch) -> None:
    """The inactive halves of splits are forgotten."""

    def change(found: Any, *given: Any) -> Any:
        active = found.children.select(torch.arange(len(found.children) // 2))
        return replace(found, still_open=active.select(~phase_domains.proved(active.lower)))

    around(patch, phase_frontier.PhaseFrontier, "bound", change)


@fault("relu")
def domains_closed(patch: Patch) -> None:
    """Domains with two splits are closed without a reason."""

    def change(found: phase_domains.PhaseDomains, *given: Any) -> phase_domains.PhaseDomains:
        deep = (found.phase != 0).sum(1) >= 2
        return replace(found, lower=torch.where(deep, found.lower.abs() + 1, found.lower))

    around(patch, phase_frontier, "bounded", change)


@fault("relu")
def bounds_of_other_domains(patch: Patch) -> None:
    """Ranges of neurons are those of the next domain."""

    def change(found: phase_domains.PhaseDomains, *given: Any) -> phase_domains.PhaseDomains:
        ends = {name: getattr(found, name).roll(1, 0) for name in ("neuron_lower", "neuron_upper")}
        return replace(found, **ends)

    around(patch, phase_frontier, "bounded", change)


@fault("relu")
def clipped_too_much(patch: Patch) -> None:
    """Ends of clipped neurons move on by a half."""
    around(patch, clip_domains, "_least", lambda found, *given: (found[0] + 0.5, found[1]))


@fault("input")
def bounds_of_other_boxes(patch: Patch) -> None:
    """All boxes of a batch have the bound of the best one."""
    around(
        patch,
        box_frontier,
        "bound_boxes",
        lambda found, *given: replace(found, bound=torch.full_like(found.bound, float(found.bound.max()) + 0.2)),
    )


def with_counterexample(folder: Path, family: str, seed: int, margin: float = 0.03) -> tuple[Path, Path]:
    """A random network, and a query that a point meets by a margin."""
    generator = np.random.default_rng(seed)
    network = save(random_network(family, seed), folder, f"{family}{seed}.onnx")
    session = onnxruntime.InferenceSession(network)
    [given], [made] = session.get_inputs(), session.get_outputs()
    inputs, outputs = int(np.prod(given.shape)), int(np.prod(made.shape))
    cases = []
    for number, drawn in enumerate(reversed(random_cases(generator, inputs, outputs))):
        case = replace(drawn, lower=np.floor(8 * drawn.lower) / 8, upper=np.ceil(8 * drawn.upper) / 8)
        x = np.float64(np.float32(case.points(generator, 300)))  # whose ends are numbers of single precision
        y = np.stack([session.run(None, {"x": np.float32(row).reshape(given.shape)})[0].ravel() for row in x])
        cases.append(case.shifted((0.05 if number else -margin) - case.worst(x, y).min()))
    specification = network.with_suffix(".vnnlib")
    specification.write_text(query_text(cases[::-1]))
    return network, specification


def blinded(patch: Patch) -> None:
    """No witness is accepted, and what was bounded is compared with nothing."""
    patch.setattr("toolkit.verify.QueryAttempt._accept_array", lambda *given: False)
    patch.setattr("toolkit.verify.check_agreement", lambda *given: None)
    for module in ("search_task.check_same", "root.check_consistent"):
        patch.setattr(f"toolkit.search.{module}", lambda *given, **named: None)


def answered(network: Path, specification: Path, strategy: str) -> tuple[Result, CheckOutcome | None]:
    """The answer of a short search, and what the checker says of its certificate, if there is one."""
    files = ProofFiles({"": network}, specification, specification.with_suffix(".certificate"))
    settings = Settings(timeout=20.0, device="cpu", max_domains=30, attack_restarts=0).changed({"strategy": strategy})
    clock = Clock.started(settings.timeout)
    result = verify_with_certificate(files, load_networks(files.networks), settings, silent, clock)
    return result, check(network, specification, files.certificate) if files.certificate.exists() else None


def wrong_answers(folder: Path, strategy: str, most: int) -> Iterator[tuple[Result, CheckOutcome | None]]:
    """Wrong answers `unsat` with what the checker says of each, up to so many."""
    for family, seed in NETWORKS:
        result, outcome = answered(*with_counterexample(folder, family, seed), strategy)
        if most and result.verdict is Verdict.UNSAT:
            most -= 1
            yield result, outcome
        if not most:
            return


@pytest.mark.parametrize("name", FAULTS)
def test_what_a_faulty_search_proves_is_refused(name: str, tmp_path: Path, monkeypatch: Patch) -> None:
    blinded(monkeypatch)
    FAULTS[name].plant(monkeypatch)
    found = list(wrong_answers(tmp_path, FAULTS[name].strategy, ENOUGH))
    assert all(outcome is None or outcome.status != CHECKED for _, outcome in found)
    said = {outcome.status for result, outcome in found if outcome is not None and not result.reason}
    assert said == {FAULTS[name].status}  # of none where the fault makes no wrong answer


@pytest.mark.parametrize("strategy", ["relu", "input"])
def test_without_a_fault_there_is_no_wrong_answer(strategy: str, tmp_path: Path, monkeypatch: Patch) -> None:
    blinded(monkeypatch)
    assert not list(wrong_answers(tmp_path, strategy, ENOUGH))


@pytest.mark.parametrize("strategy", ["relu", "input"])
def test_what_only_touches_is_refused_without_a_strict_atom(strategy: str, tmp_path: Path, monkeypatch: Patch) -> None:
    """For a search that takes a bound of zero for a proof: the maximum, 2, is reached."""
    builder = NetworkBuilder(np.random.default_rng(0), (1, 2))
    model = builder.model(builder.op("MatMul", builder.op("Relu", "x"), builder.constant(np.ones((2, 1)))), 1)
    box = QueryCase(-np.ones(2), np.ones(2), np.zeros((1, 2)), -np.ones((1, 1)), 2 * np.ones(1))
    network, specification = save(model, tmp_path), tmp_path / "touching.vnnlib"
    specification.write_text(query_text([box]))
    blinded(monkeypatch)
    assert answered(network, specification, strategy)[0].verdict is not Verdict.UNSAT
    monkeypatch.setattr(phase_domains, "LEAST_NORMAL_NUMBERS", -1e-9 / torch.finfo(torch.float64).tiny)
    result, outcome = answered(network, specification, strategy)
    assert result.verdict is Verdict.UNSAT and outcome is not None and outcome.status == REFUTED


def dropped(found: tuple[quick_proof.RoundOfBoxes, quick_proof.OpenBoxes], *given: Any) -> Any:
    """Lower halves twice in place of both halves."""
    rounds, halves = found
    lower, upper = (np.repeat(ends[::2], 2, 0) for ends in (halves.lower, halves.upper))
    return rounds, replace(halves, lower=lower, upper=upper)


@pytest.mark.parametrize(
    ("place", "change"),
    [("atom_bounds", lambda found, *given: (found[0] + 1.0, found[1])), ("halves_of", dropped)],
)
def test_quick_proofs_with_a_fault_are_refused(
    place: str, change: Callable[..., Any], tmp_path: Path, monkeypatch: Patch
) -> None:
    queries = [with_counterexample(tmp_path, "tiny", seed) for seed in range(8)]
    assert not any(certificate(*query, seconds=5.0) for query in queries[:2])
    around(monkeypatch, quick_proof, place, change)
    said = set()
    for network, specification in queries:
        if (found := certificate(network, specification, seconds=5.0)) is not None:
            file = specification.with_suffix(".certificate")
            file.write_bytes(found)
            said.add(check(network, specification, file).status)
    assert said == {REFUTED}
