"""The page for readers, `docs/how_it_works.py`, as an independent opinion: the package agrees with it bound by bound.

The page shares no code with the package. What both say is also held against sampled values, and verdicts against a
mixed-integer program that HiGHS solves.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
import torch
from programs import program_of
from random_networks import NetworkBuilder, save
from random_queries import QueryCase, query_text
from torch import Tensor, nn

from toolkit.bounds.crown import bound_features, crown_bounds
from toolkit.bounds.dual_ascent import evaluate, relax
from toolkit.bounds.interval import Bounds, interval_bounds
from toolkit.bounds.optimised_bound import Domain, Multipliers
from toolkit.formats.vnnlib.read import parse_query
from toolkit.problem.program import Program
from toolkit.result import Verdict
from toolkit.settings import Settings
from toolkit.verify import load_networks, verify

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how_it_works.py"
SEEDS = range(5)
WIDTHS, SMALL = [3, 6, 5, 1], [2, 4, 4, 1]
"""Of the layers, the inputs first; small ones where whole trees are searched."""
TOLERANCE = 1e-9
"""Far above the rounding that the package takes off its bounds of these networks, far below what a wrong term does."""


def load(path: Path) -> ModuleType:
    """A file that is no part of a package, as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # where dataclasses look their annotations up
    spec.loader.exec_module(module)
    return module


page = load(PAGE)
optimum = load(ROOT / "tests" / "soundness" / "oracle.py").optimum


@dataclass(frozen=True)
class RandomNetworkOnBox:
    """A random network and box, as the page has them and as the package does."""

    network: list[tuple[Tensor, Tensor]]
    box: page.Intervals  # type: ignore[name-defined]

    @classmethod
    def random(cls, seed: int, widths: list[int] = WIDTHS) -> RandomNetworkOnBox:
        """Weights that are numbers in single precision, as files have them."""
        network = [(w.float().double(), b.float().double()) for w, b in page.random_network(seed, widths)]
        generator = torch.Generator().manual_seed(seed)
        centre = torch.randn(widths[0], generator=generator, dtype=torch.float64)
        radius = 0.3 + torch.rand(widths[0], generator=generator, dtype=torch.float64)
        return cls(network, page.Intervals(centre - radius, centre + radius))

    @property
    def program(self) -> Program:
        """The network, compiled by the package."""
        layers: list[nn.Module] = []
        for weight, bias in self.network:
            linear = nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64)
            linear.weight.data, linear.bias.data = weight.clone(), bias.clone()
            layers += [linear, nn.ReLU()]
        module = nn.Sequential(nn.Identity(), *layers[:-1]).double()
        return program_of(_InDouble(module), len(self.box.lower))

    @property
    def bounds(self) -> Bounds:
        """The box, as the package has boxes."""
        return Bounds(self.box.lower[None], self.box.upper[None])

    def model(self) -> onnx.ModelProto:
        """The network as a file has it."""
        builder, x = NetworkBuilder(np.random.default_rng(0), (1, len(self.box.lower))), "x"
        for number, (weight, bias) in enumerate(self.network):
            x = builder.op("Relu", x) if number else x
            x = builder.op("Gemm", x, builder.constant(weight.numpy()), builder.constant(bias.numpy()), transB=1)
        return builder.model(x, 1)

    def case(self, amount: float) -> QueryCase:
        """The query whether the output plus an amount is at most zero somewhere in the box."""
        lower, upper = self.box.lower.numpy(), self.box.upper.numpy()
        return QueryCase(lower, upper, np.zeros((1, len(lower))), np.ones((1, 1)), np.array([amount]))


class _InDouble(nn.Module):
    """A module in double precision that also takes single precision."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x.double())


def hidden(intervals: list) -> Bounds:
    """The page's bounds of hidden layers as the package has those of all neurons."""
    return Bounds(torch.cat([z.lower for z in intervals])[None], torch.cat([z.upper for z in intervals])[None])


def assert_same(found: Bounds, expected: Bounds) -> None:
    torch.testing.assert_close(found.lower, expected.lower, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(found.upper, expected.upper, atol=TOLERANCE, rtol=0)


def test_the_page_shares_no_code_with_the_package() -> None:
    nodes = list(ast.walk(ast.parse(PAGE.read_text())))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} == {
        "__future__",
        "collections",
        "dataclasses",
        "heapq",
        "scipy",
        "torch",
    }


def test_the_demonstration_tightens_bounds_and_closes_the_tree(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(PAGE), run_name="__main__")
    text = capsys.readouterr().out
    bounds = [float(value) for value in re.findall(r"^lower bound by .* (-?\d+\.\d+)$", text, re.MULTILINE)]
    [least] = re.findall(r"^least g .* (\d+\.\d+)$", text, re.MULTILINE)
    assert len(bounds) == 5
    assert bounds == sorted(set(bounds)) and bounds[-1] < float(least)
    leaves = re.findall(r"^ +([-+. ]+)   g >= +(-?\d+\.\d+)$", text, re.MULTILINE)
    assert f"unsat: all of {len(leaves)} domains" in text and len(leaves) > 3
    assert float(leaves[-1][1]) > 0
    assert ": sat, after" in text and "None of this accounts for rounding" in text


@pytest.mark.parametrize("seed", SEEDS)
def test_bounds_of_the_page_contain_sampled_values(seed: int) -> None:
    example = RandomNetworkOnBox.random(seed)
    values = page.run(example.network, page.samples(example.box, 2000))
    intervals = page.interval_bounds(example.network, example.box)
    crown = page.crown_bounds(example.network, example.box)
    for found in (intervals, crown):
        for z, value in zip(found, values, strict=False):
            assert bool((z.lower - TOLERANCE <= value).all() and (value <= z.upper + TOLERANCE).all())
    assert page.root(example.network, example.box, 10).lower <= float(values[-1].min())


@pytest.mark.parametrize("seed", SEEDS)
def test_interval_bounds_agree(seed: int) -> None:
    example = RandomNetworkOnBox.random(seed)
    neurons, features = interval_bounds(example.program, example.bounds)
    *before, last = page.interval_bounds(example.network, example.box)
    assert_same(neurons, hidden(before))
    assert_same(features, hidden([last]))


@pytest.mark.parametrize("seed", SEEDS)
def test_crown_bounds_agree(seed: int) -> None:
    example = RandomNetworkOnBox.random(seed)
    program = example.program
    neurons = crown_bounds(program, example.bounds)
    assert_same(neurons, hidden(page.crown_bounds(example.network, example.box)))
    _, lower = bound_features(program, torch.ones(1, 1, 1, dtype=torch.float64), example.bounds, neurons)
    whole = page.root(example.network, example.box, steps=0)
    assert float(lower) == pytest.approx(whole.lower, abs=TOLERANCE)
    assert float(lower) <= whole.lower  # rounding is taken off


def random_split(example: RandomNetworkOnBox, seed: int) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Phases of some neurons, which those of a point of the box are, slopes and multipliers, by layer."""
    generator = torch.Generator().manual_seed(seed)
    point = page.samples(example.box, seed + 1)[-1]
    signs = [torch.where(z >= 0, 1.0, -1.0).double() for z in page.run(example.network, point)[:-1]]
    draw = [torch.rand(3, len(sign), generator=generator, dtype=torch.float64) for sign in signs]
    phases = [sign * (chosen[0] < 0.5) for sign, chosen in zip(signs, draw, strict=True)]
    return phases, [part[1] for part in draw], [3 * part[2] for part in draw]


@pytest.mark.parametrize("seed", SEEDS)
def test_bounds_with_slopes_and_multipliers_agree_and_are_sound(seed: int) -> None:
    example = RandomNetworkOnBox.random(seed)
    phases, alphas, betas = random_split(example, seed)
    bounds = page.crown_bounds(example.network, example.box, phases)
    one = torch.ones(1, 1, dtype=torch.float64)
    linear = page.push_back(example.network, one, bounds, alphas, list(zip(phases, betas, strict=True)))
    bound = float(linear.minimum(example.box))

    *values, outputs = page.run(example.network, page.samples(example.box, 4000))
    inside = torch.stack([(phase * z >= 0).all(1) for phase, z in zip(phases, values, strict=True)]).all(0)
    assert int(inside.sum()) > 0
    assert bound <= float(outputs[inside].min()) + TOLERANCE

    multipliers = Multipliers(torch.cat(alphas)[None], torch.cat(betas)[None], one)
    phase = torch.cat(phases).to(torch.int8)[None]
    domain = Domain(example.bounds, hidden(bounds), phase, one[None], torch.zeros_like(one))
    program = example.program
    found = evaluate(program, relax(program, domain), multipliers).bound
    assert float(found.lower) == pytest.approx(bound, abs=TOLERANCE)


def test_optimised_bounds_are_between_crown_and_the_least_value() -> None:
    """Over several networks, slopes close a part of the gap, and multipliers a part of what is left."""
    gains = []
    for seed in range(1, 5):
        example = RandomNetworkOnBox.random(seed)
        crown, whole = (page.root(example.network, example.box, steps) for steps in (0, 15))
        exact = optimum(example.model(), example.case(0.0))[0]
        assert crown.lower <= whole.lower <= exact + TOLERANCE
        if not any(bool(z.unstable.any()) for z in whole.bounds):
            continue
        halves = [page.children(example.network, example.box, whole, steps) for steps in (0, 15)]
        alone, multiplied = (min(child.lower for child in half) for half in halves)
        assert whole.lower <= alone <= multiplied <= exact + TOLERANCE
        gains.append((whole.lower - crown.lower, multiplied - alone))
    assert all(sum(gain) > 0.1 for gain in zip(*gains, strict=True))


@pytest.mark.parametrize("seed", SEEDS)
def test_verdicts_agree_with_the_package_and_with_a_mixed_integer_program(seed: int, tmp_path: Path) -> None:
    example = RandomNetworkOnBox.random(seed, SMALL)
    model = example.model()
    networks = load_networks({"": save(model, tmp_path)})
    least = optimum(model, example.case(0.0))[0]
    settings = Settings(
        device="cpu", strategy="relu", attack_restarts=0, alpha_iterations=0, beta_iterations=2, timeout=20
    )
    for margin, verdict in ((0.03, Verdict.UNSAT), (0.1, Verdict.UNSAT), (-0.03, Verdict.SAT), (-0.1, Verdict.SAT)):
        answer = page.verify(page.raised(example.network, margin - least), example.box, steps=5)
        result = verify(networks, parse_query(query_text([example.case(margin - least)])), settings)
        assert (answer.verdict, result.verdict) == (verdict, verdict), margin
        if answer.witness is not None:
            inside = (answer.witness >= example.box.lower) & (answer.witness <= example.box.upper)
            assert bool(inside.all())
            assert float(page.run(example.network, answer.witness)[-1]) + margin - least <= 0


@pytest.mark.parametrize("seed", range(4))
def test_the_least_of_all_leaves_is_the_exact_minimum(seed: int) -> None:
    example = RandomNetworkOnBox.random(seed, [2, 3, 3, 1])
    pending, least = [page.root(example.network, example.box, 0)], []
    while pending:
        domain = pending.pop()
        if any(bool(z.unstable.any()) for z in domain.bounds):
            pending += page.children(example.network, example.box, domain, 0)
        elif (point := page.exact_minimum(example.network, example.box, domain)) is not None:
            least.append(float(page.run(example.network, point)[-1]))
    assert min(least) == pytest.approx(optimum(example.model(), example.case(0.0))[0], abs=1e-6)
