"""Affine maps: every registered operator against its own Jacobian, in all forms and with both ways to transpose."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from operator_examples import EXAMPLES, OperatorExample, evaluator, graph_of
from torch import Tensor

from toolkit.problem import transpose
from toolkit.problem.affine import Affine, DenseAffine, GraphAffine
from toolkit.problem.operator_table import AFFINE
from toolkit.problem.program import build_program


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def truth(example: OperatorExample) -> tuple[Tensor, Tensor]:
    """Jacobian ``(size, n)`` and offset ``(size,)`` of an example column by column."""
    size = sum(torch.Size(variable.shape).numel() for variable in example.variables)
    function, offset = evaluator(example), evaluator(example)(torch.zeros(size, dtype=torch.float64))
    columns = [function(unit) - offset for unit in torch.eye(size, dtype=torch.float64)]
    return torch.stack(columns, 1), offset


def compiled(example: OperatorExample, monkeypatch: pytest.MonkeyPatch, tune: Callable[..., None], form: str) -> Affine:
    """The example as the affine map of a program."""
    if form != "dense":
        tune(problem={"most_dense_elements": 0, "most_dense_convolution_elements": 0})
    if form == "graph, transposed by gradients":
        monkeypatch.setattr(transpose, "RULES", {})
    features = build_program(graph_of(example)).features
    assert isinstance(features, DenseAffine if form == "dense" else GraphAffine)
    return features


def test_every_affine_operator_has_an_example() -> None:
    missing = set(AFFINE) - {example.operator for example in EXAMPLES}
    assert not missing, f"add examples to tests/support/operator_examples.py: {sorted(map(str, missing))}"


def test_every_fast_rule_is_of_an_affine_operator() -> None:
    assert set(transpose.RULES) - set(AFFINE) == {torch.reshape}


FORMS = ["dense", "graph", "graph, transposed by gradients"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_map_is_the_operator(
    example: OperatorExample, form: str, monkeypatch: pytest.MonkeyPatch, tune: Callable[..., None]
) -> None:
    if example.operator is torch.ops.aten.detach.default and form.endswith("gradients"):
        pytest.skip("detach stops gradients, hence its rule")
    jacobian, offset = truth(example)
    size, n = jacobian.shape
    found = compiled(example, monkeypatch, tune, form)
    x, radius, rows = random(3, n), random(3, n, seed=1).abs(), random(2, 4, size, seed=2)
    torch.testing.assert_close(found.bias, offset)
    torch.testing.assert_close(found.apply([x]), x @ jacobian.T + offset)
    torch.testing.assert_close(found.radius([radius]), radius @ jacobian.abs().T)
    (transposed,) = found.transpose(rows)
    torch.testing.assert_close(transposed, rows @ jacobian)
    index = torch.arange(0, size, 2)
    torch.testing.assert_close(found.select(index)[0], jacobian[index].unsqueeze(0))


@pytest.mark.parametrize("form", FORMS[:2])
@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_as_many_terms_are_counted_as_meet_in_a_value_or_in_a_coefficient(
    example: OperatorExample, form: str, monkeypatch: pytest.MonkeyPatch, tune: Callable[..., None]
) -> None:
    """Of what is added up: a value that is moved is none."""
    jacobian, _ = truth(example)
    most = max(int((jacobian != 0).sum(dim).max()) for dim in (0, 1))
    assert compiled(example, monkeypatch, tune, form).terms >= (most if most > 1 else 0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("example", EXAMPLES[::3], ids=str)
def test_single_precision_is_the_same_map(
    example: OperatorExample, form: str, monkeypatch: pytest.MonkeyPatch, tune: Callable[..., None]
) -> None:
    double = compiled(example, monkeypatch, tune, form)
    single = double.to(torch.device("cpu"), torch.float32)
    x = random(2, sum(torch.Size(variable.shape).numel() for variable in example.variables))
    r, rows = x.abs(), random(1, 2, double.size, seed=1)
    assert single.bias.dtype == single.apply([x.float()]).dtype == torch.float32
    torch.testing.assert_close(single.apply([x.float()]).double(), double.apply([x]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(single.radius([r.float()]).double(), double.radius([r]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        single.transpose(rows.float())[0].double(), double.transpose(rows)[0], rtol=1e-4, atol=1e-4
    )
