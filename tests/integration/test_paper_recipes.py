"""The paper's recipes run: every chain of each, on noise, in miniature."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from toolkit.data.load import load_dataset
from toolkit.pruning import build_chains
from toolkit.recipe import Recipe, load_recipe

SPECS = Path(__file__).parents[2] / "specs"
SHAPES = {"cifar10": (32, 32, 3), "svhn": (32, 32, 3), "fashion_mnist": (28, 28)}


def shortened(values: Any) -> Any:
    """Small counts in place of the paper's, wherever they stand in a chain."""
    return values.model_copy(update={"epochs": 1}) if hasattr(values, "epochs") else values


def miniature(name: str, folder: Path) -> Recipe:
    """The recipe with a tiny network of the same kind, two states, two epochs at the full radius, and noise as data."""
    recipe = load_recipe(SPECS / f"{name}.toml")
    shape, rng = SHAPES[recipe.data.name], np.random.default_rng(0)
    images = {f"x_{part}": rng.integers(0, 256, (20, *shape), dtype=np.uint8) for part in ("train", "test")}
    np.savez(folder / "noise.npz", **images, **{f"y_{part}": np.arange(20) % 10 for part in ("train", "test")})
    net = recipe.models["paper7"].model_copy(update={"channels": (3, 4, 4, 5, 5), "hidden": (6,)})
    chains = [
        chain.model_copy(update={"states": 2, "seeds": (100,), "method": shortened(chain.method)})
        for chain in recipe.all_chains
    ]
    small = {"epochs": 2, "batch": 10, "ramp": None, "milestones": ()}
    return recipe.model_copy(
        update={
            "models": {"paper7": net},
            "chains": tuple(chains),
            "training": recipe.training.model_copy(update=small),
            "data": recipe.data.model_copy(update={"source": "npz:noise.npz", "base": folder}),
            "specification": recipe.specification.model_copy(update={"images": 2}),
        }
    )


@pytest.mark.parametrize("name", ["cifar10_paper", "svhn_paper", "fashion_paper", "cifar10_paper_8_255"])
def test_every_chain_runs(name: str, tmp_path: Path) -> None:
    recipe = miniature(name, tmp_path)
    dataset = load_dataset(recipe.data)
    models = list(build_chains(recipe, dataset))
    targets = {chain.name: chain.targets[0] for chain in recipe.all_chains}
    pruned = {model.name.removesuffix("-01"): model for model in models if model.state == 1 and not model.control}
    assert {name: model.density for name, model in pruned.items()} == pytest.approx(targets, abs=0.03)
    controls = [model for model in models if model.control == "retrained"]
    assert sorted(chain for model in controls for chain in model.chains) == sorted(targets)
    for model in models:
        assert bool(torch.isfinite(model.module(dataset.test.images)).all()), model.name
        assert model.state in (0, 1)
