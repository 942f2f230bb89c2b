"""Choosing survivors: exact counts, nesting, ties, and layers."""

from __future__ import annotations

from math import floor

import torch
from hypothesis import given
from hypothesis import strategies as st

from toolkit.pruning.masks import density, select
from toolkit.pruning.pruning_options import Chain


@st.composite
def _entries(draw: st.DrawFn) -> dict[str, torch.Tensor]:
    sizes = draw(st.lists(st.integers(1, 30), min_size=1, max_size=3))
    values = st.sampled_from([0.0, 0.5, 1.0, 2.0, float("nan")])
    return {str(i): torch.tensor(draw(st.lists(values, min_size=n, max_size=n))) for i, n in enumerate(sizes)}


@given(_entries(), st.floats(0.05, 0.95), st.floats(0.05, 0.95), st.booleans())
def test_counts_are_exact_and_masks_nest(
    scores: dict[str, torch.Tensor], first: float, second: float, layerwise: bool
) -> None:
    first, second = max(first, second), min(first, second)
    full = {name: torch.ones_like(values, dtype=torch.bool) for name, values in scores.items()}
    outer = select(scores, full, first, layerwise=layerwise)
    inner = select({name: -values for name, values in scores.items()}, outer, second, layerwise=layerwise)
    for name in scores:
        assert not bool((inner[name] & ~outer[name]).any())
    groups = list(scores) if layerwise else [None]
    for group in groups:
        names = list(scores) if group is None else [group]
        total = sum(scores[name].numel() for name in names)
        for masks, target in ((outer, first), (inner, second)):
            kept = sum(int(masks[name].sum()) for name in names)
            assert kept == total - floor((1 - target) * total + 1e-9)


def test_the_largest_scores_survive() -> None:
    scores = {"a": torch.tensor([[1.0, 5.0]]), "b": torch.tensor([4.0, 2.0])}
    full = {name: torch.ones_like(values, dtype=torch.bool) for name, values in scores.items()}
    masks = select(scores, full, 0.5, layerwise=False)
    assert masks["a"].tolist() == [[False, True]]
    assert masks["b"].tolist() == [True, False]
    assert density(masks) == 0.5


def test_the_densities_of_the_paper() -> None:
    weights = Chain(name="c", model="m", method="magnitude", rate=0.2, states=16).targets
    wanted = [0.8, 0.64, 0.512, 0.41, 0.328, 0.262, 0.21, 0.168, 0.134, 0.107, 0.086, 0.069, 0.055, 0.044, 0.035]
    assert [round(value, 3) for value in weights] == wanted
    channels = Chain(name="c", model="m", method="slim", rate=0.11, states=12).targets
    wanted = [0.89, 0.792, 0.705, 0.627, 0.558, 0.497, 0.442, 0.394, 0.350, 0.312, 0.278]
    assert [round(value, 3) for value in channels] == wanted
