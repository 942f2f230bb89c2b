"""Operators that are written with others before anything is bounded, exactly: one entry per operator.

So few operators need a relaxation: ReLU for all that is piecewise linear, the square for all products, exponential and
reciprocal for softmax.
"""

from __future__ import annotations

from toolkit.problem.rewrites import elementwise, piecewise, products, smooth, softmax_rewrite
from toolkit.problem.rewrites.registry import REWRITES, rewrite

__all__ = ["REWRITES", "elementwise", "piecewise", "products", "rewrite", "smooth", "softmax_rewrite"]
