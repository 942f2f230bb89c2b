"""What learning HYDRA's scores does to the loss of the masked network, with the right gradient and without its sign.

    python benchmarks/perf/hydra_scores.py CIFAR10.npz > OUT.json

The network and training of `specs/cifar10_methods.toml`, three seeds, weights of convolutions at density 0.2. Before
learning, scores are the sizes of weights, so that the masks are those of magnitude pruning in each layer. The loss is
that of training, over one epoch of its images, with the statistics of each batch. A mask is a choice of magnitudes, so
its gradient has the sign of the score (Sehwag et al., NeurIPS 2020).
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any
from unittest.mock import patch

import torch
from host import machine, taken
from torch import Tensor

from toolkit.data.load import load_dataset
from toolkit.models.build import build_model
from toolkit.pruning import learned_scores
from toolkit.pruning.chain import ChainContext, chain_job
from toolkit.pruning.criteria.weights import Magnitude
from toolkit.pruning.criterion import CriterionOptions
from toolkit.pruning.learned_scores import Gate, StraightThrough
from toolkit.pruning.masks import Masks
from toolkit.pruning.round import PruningRound, prune
from toolkit.recipe import Recipe, load_recipe
from toolkit.training.training_loop import apply_masks, derive_seed, train

RECIPE = Path(__file__).resolve().parents[2] / "specs" / "cifar10_methods.toml"
CHAIN, SEEDS, DENSITY = "weights-hydra", range(3), 0.2


class MagnitudeWithoutSign(torch.autograd.Function):
    """The magnitude going forward, and going backward the identity, as if no score were negative."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor) -> Tensor:
        """Magnitudes of scores of any shape."""
        return scores.abs()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """The gradient as it comes."""
        return gradients[0]


class GateWithoutSign(Gate):
    """The gate whose scores have gradients without the sign."""

    def forward(self, parameter: Tensor) -> Tensor:
        """The parameter with unchosen entries zero."""
        magnitudes = MagnitudeWithoutSign.apply(self.scores)
        return parameter * StraightThrough.apply(magnitudes, self.live, self.target)


def main() -> None:
    """Measure all seeds, and print one JSON object."""
    recipe = load_recipe(RECIPE)
    command = "python benchmarks/perf/hydra_scores.py CIFAR10.npz"
    rows = [row for seed in SEEDS for row in losses(recipe, sys.argv[1], seed)]
    print(json.dumps({**taken(command), "machine": machine(), "density": DENSITY, "rows": rows}, indent=1))


def losses(recipe: Recipe, file: str, seed: int) -> Iterator[dict[str, Any]]:
    """The loss of the dense network of a seed, and of what masks leave of it before and after scores are learned."""
    dataset = load_dataset(recipe.data.model_copy(update={"name": f"npz:{file}"}))
    chain = next(chain for chain in recipe.all_chains if chain.name == CHAIN)
    job = chain_job(ChainContext(dataset, seed=seed), recipe.training_of(chain))
    dense = train(build_model(recipe.models[chain.model], dataset, seed), job)
    start = PruningRound(dense, {}, DENSITY, job, dataset.validation, derive_seed(seed, "prune", 1))
    yield {"seed": seed, "network": "dense", "loss": mean_loss(start, {})}
    sizes = Magnitude(layers=("conv",), layerwise=True)
    yield {"seed": seed, "network": "before learning", "loss": mean_loss(start, masks(sizes, start))}
    yield {"seed": seed, "network": "learned", "loss": mean_loss(start, masks(chain.method, start))}
    with patch.object(learned_scores, "Gate", GateWithoutSign):
        yield {
            "seed": seed,
            "network": "learned without the sign",
            "loss": mean_loss(start, masks(chain.method, start)),
        }


def masks(options: CriterionOptions, start: PruningRound) -> Masks:
    """The masks of a criterion, made on a copy of the network."""
    return prune(options, replace(start, model=copy.deepcopy(start.model)))


def mean_loss(start: PruningRound, masks: Masks) -> float:
    """Training loss at the full radius of the masked network, a mean over one epoch."""
    model = copy.deepcopy(start.model)
    apply_masks(model, masks)
    return fmean(loss.item() for loss in start.epoch_losses(model, "measure", 0))


if __name__ == "__main__":
    main()
