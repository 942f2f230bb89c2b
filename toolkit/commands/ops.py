"""``prunecert ops``: the verifier's table of operators."""

from __future__ import annotations


def ops() -> int:
    """Print the operators that the verifier can bound, and how: as torch names them, then as ONNX does."""
    from toolkit.formats.onnx.operators import onnx_operators
    from toolkit.problem.operator_table import table

    rows = table()
    width = max(len(name) for name, _ in rows)
    for name, handling in rows:
        print(f"{name:<{width}}  {handling}")
    print(f"\nONNX: {', '.join(onnx_operators())}")
    return 0
