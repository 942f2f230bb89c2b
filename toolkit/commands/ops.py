"""``prunecert ops``: the operators that the verifier can bound."""

from __future__ import annotations

from toolkit.commands.arguments import Flag, print_json
from toolkit.formats.onnx.operators import BOUNDED
from toolkit.ops import ONNX


def ops(*, primitives: Flag = False, json: Flag = False) -> int:
    """Print the operators of ONNX that the verifier can bound, and how.

    Parameters
    ----------
    primitives
        Print the operators of torch that networks are traced to instead.
    json
        Print one JSON object instead: how each operator is bounded, by name.
    """
    rows = [(name, str(ONNX[name].kind)) for name in sorted(BOUNDED)]
    if primitives:
        from toolkit.problem.operator_table import table

        rows = table()
    if json:
        print_json(dict(rows))
        return 0
    width = max(len(name) for name, _ in rows)
    for name, handling in rows:
        print(f"{name:<{width}}  {handling}")
    return 0
