"""Chains trained by two processes are those of one, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from toolkit.data.dataset import Dataset
from toolkit.data.load import load_dataset
from toolkit.errors import InputError
from toolkit.experiments import study_networks
from toolkit.experiments.study_networks import default_trainers
from toolkit.pruning import build_chains
from toolkit.pruning.parallel import TrainingProcesses, pieces, train_ahead, train_piece
from toolkit.recipe import Data, Recipe, parse_recipe

TRAINING = {"loss": "standard", "epochs": 2, "batch": 50, "optimizer": "adam", "learning_rate": 0.01}


def recipe(**changes: Any) -> Recipe:
    values = {
        "name": "test",
        "data": {"name": "digits", "train": 150},
        "models": {"net": {"architecture": "conv", "blocks": [{"channels": 4, "stride": 2}], "hidden": [8]}},
        "training": TRAINING,
        "chains": [
            {"name": "weights", "model": "net", "method": "snip", "densities": [0.6, 0.3], "seeds": [1, 2]},
            {"name": "channels", "model": "net", "method": "slim", "densities": [0.5], "seeds": [1]},
        ],
        "specification": {"epsilon": 0.05, "images": 5},
    }
    return parse_recipe(values | changes, "test.toml", Path())


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset(Data(name="digits", train=150))


def test_dense_networks_come_first_and_once(digits: Dataset) -> None:
    dense, whole = pieces(recipe(), digits)
    assert [(piece.recipe.seed, piece.chain) for piece in dense] == [(1, "weights"), (2, "weights")]
    assert [(piece.recipe.seed, piece.chain) for piece in whole] == [(1, "weights"), (1, "channels"), (2, "weights")]
    assert all(piece.dense_only for piece in dense)


def test_controls_that_chains_share_are_trained_by_one_of_them(digits: Dataset) -> None:
    rounds = {"model": "net", "controls": ["retrained", "random_masks"]}
    chains = [
        {"name": "short", "method": "snip", "densities": [0.5]} | rounds,
        {"name": "alike", "method": "magnitude", "densities": [0.4]} | rounds,
        {"name": "longer", "method": "magnitude", "densities": [0.6, 0.3]} | rounds,
    ]
    _, whole = pieces(recipe(chains=chains), digits)
    both = ("retrained", "random_masks")
    assert [(piece.chain, piece.controls) for piece in whole] == [
        ("short", both), ("alike", ("random_masks",)), ("longer", both)]  # fmt: skip


def test_two_processes_make_the_same_networks(digits: Dataset, tmp_path: Path) -> None:
    train_ahead(recipe(), digits, TrainingProcesses(2, "cpu", torch.get_num_threads(), tmp_path))
    trained: list[str] = []
    for seed in (1, 2):
        part = recipe().with_seed(seed)
        made = build_chains(part, digits, cache=tmp_path, progress=lambda name, *_: trained.append(name))
        for found, wanted in zip(made, build_chains(part, digits), strict=True):
            pairs = zip(found.module.state_dict().values(), wanted.module.state_dict().values(), strict=True)
            assert all(torch.equal(first, second) for first, second in pairs), found.name
    assert trained == []


def test_what_goes_wrong_in_a_process_is_said(digits: Dataset, tmp_path: Path) -> None:
    wrong = recipe(models={"net": {"architecture": "mlp", "hidden": [8]}})
    # Neither chain suits the network, and either may be the first to say so.
    with pytest.raises(InputError, match=r"no layer of these kinds|channels need a convolution"):
        train_ahead(wrong, digits, TrainingProcesses(2, "cpu", 1, tmp_path))


def test_a_dense_piece_trains_nothing_else(digits: Dataset, tmp_path: Path) -> None:
    [piece, _], _ = pieces(recipe(), digits)
    train_piece(piece, TrainingProcesses(1, "cpu", torch.get_num_threads(), tmp_path))
    assert len(list(tmp_path.iterdir())) == 1


def test_small_recipes_are_trained_by_one_process_and_large_ones_by_as_many_as_fit(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_networks, "available_cores", lambda: 3)
    many = recipe(training=dict(TRAINING, epochs=200))  # 150 images, three dense networks with their seeds
    for memory, small, large in ((1 << 40, 1, 3), (9 << 30, 1, 2), (0, 1, 1)):
        monkeypatch.setattr(study_networks, "available", lambda memory=memory: memory)
        assert default_trainers(recipe(), digits, "cpu") == small
        assert default_trainers(many, digits, "cpu") == large
