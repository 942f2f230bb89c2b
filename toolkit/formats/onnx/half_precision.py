"""Arithmetic in half precision, which is not verified: every operation rounds, by up to 0.05 % or 0.4 % of its result.

In single and double precision the verifier takes a network for what it computes with real numbers, and its conversions
to a narrower type for roundings. Values in half precision may be moved, compared and converted.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from toolkit.errors import UnsupportedError
from toolkit.formats.onnx.dependence import record
from toolkit.formats.onnx.probe import TensorFacts

HALF = {"float16", "bfloat16"}


def check_precision(facts: TensorFacts) -> None:
    """Raise UnsupportedError, naming the node, where values that depend on the input are computed in half precision."""
    for node in facts.nodes:
        results = [name for name in node.output if name and name not in facts.constants]
        halves = [kind for name in results if (kind := _type(facts.values[name])) in HALF]
        if halves and not record(node).exact:
            raise UnsupportedError(f"{facts.where(node)}: computes in {halves[0]}, where every operation rounds; "
                                   "verify the network in float32")  # fmt: skip


def _type(value: Any) -> str:
    """Element type of a tensor, or of the first of a sequence of them."""
    first = value if isinstance(value, np.ndarray) else next(iter(value or ()), None)
    return "" if first is None else str(first.dtype.name)
