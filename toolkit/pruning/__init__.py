"""Pruning: scores, masks, chains of ever sparser networks, physical removal of channels.

``build_chains`` and ``ChainModel`` are offered here, but loaded on first use: reading a recipe needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.pruning.recipe_networks import ChainModel, build_chains

__all__ = ["ChainModel", "build_chains"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from toolkit.pruning import recipe_networks

    return getattr(recipe_networks, name)
