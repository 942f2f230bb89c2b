"""``prunecert supports``: the capability queries of the VNN-LIB standard, one value a line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from cyclopts import Parameter

from toolkit.commands.arguments import Flag, print_json
from toolkit.errors import InputError, did_you_mean


def _operators() -> list[str]:
    from toolkit.formats.onnx.operators import onnx_operators

    return onnx_operators()


CAPABILITIES: dict[str, Callable[[], list[str]]] = {
    "onnx-opset-versions": lambda: ["7", "23"],
    "onnx-element-types": lambda: ["float32", "float64"],
    "onnx-operators": _operators,
    "vnnlib-versions": lambda: ["1.0", "2.1"],
    "hidden-node-theories": lambda: ["NH"],
    "multiple-input-output-theories": lambda: ["MIO"],
    "multiple-network-theories": lambda: ["MNET"],
    "multiple-node-comparison-theories": lambda: ["MNC"],
    "arithmetic-complexity-theories": lambda: ["LIN"],
    "optimised-disjunctive-reasoning": lambda: ["true"],
    "serialise-assignments": lambda: ["true"],
}


def supports(capability: Annotated[str, Parameter(allow_leading_hyphen=True)], /, *, json: Flag = False) -> int:
    """Say what the verifier supports.

    Parameters
    ----------
    capability
        One of --onnx-opset-versions, --onnx-element-types, --onnx-operators, --vnnlib-versions,
        --hidden-node-theories, --multiple-input-output-theories, --multiple-network-theories,
        --multiple-node-comparison-theories, --arithmetic-complexity-theories, --optimised-disjunctive-reasoning and
        --serialise-assignments.
    json
        Print one JSON object instead.
    """
    name = capability.removeprefix("--")
    if name not in CAPABILITIES:
        known = [f"--{key}" for key in CAPABILITIES]
        raise InputError(
            f"'{capability}' is no capability; there are {', '.join(known)}{did_you_mean(f'--{name}', known)}"
        )
    if json:
        print_json({name: CAPABILITIES[name]()})
    else:
        print("\n".join(CAPABILITIES[name]()))
    return 0
