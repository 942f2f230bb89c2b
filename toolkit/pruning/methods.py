"""All pruning methods: ``prune(options, round)`` dispatches on the type of the options."""

from __future__ import annotations

from toolkit.pruning import channels, hydra, weights  # noqa: F401 - importing them registers their methods
from toolkit.pruning.round import PruningRound, prune

__all__ = ["PruningRound", "prune"]
