"""Certified lottery tickets: sparse networks that lose nothing (Li et al., TMLR 2023)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Quality:
    """Correct and certified images of one network, counted over the same test images for all networks."""

    correct: int
    certified: int


def is_certified_ticket(dense: Quality, pruned: Quality) -> bool:
    """Whether a network pruned and retrained from its initial weights is as good as the dense one in both respects."""
    return pruned.correct >= dense.correct and pruned.certified >= dense.certified
