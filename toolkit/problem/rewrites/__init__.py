"""Operators that are written with others before anything is bounded, exactly: one entry per operator.

So few operators need a relaxation: ReLU for all that is piecewise linear, the square for all products, exponential and
reciprocal for softmax. A module of this folder that registers a rewrite needs to be named nowhere else.
"""

from __future__ import annotations

from toolkit.problem.rewrites.rewrite_record import REWRITES, Rewrite, rewrite

__all__ = ["REWRITES", "Rewrite", "rewrite"]

REWRITES.loaded()
