"""Functions that are bounded as one operator but that torch spells in several ways, or not at all."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_LIBRARY = torch.library.Library("prunecert", "DEF")

CAP = 2.0**115
"""Where the exponentials of a softmax are cut off: thousands of them can be added up in single precision."""


def _define(name: str, function: Callable[[Tensor], Tensor]) -> None:
    _LIBRARY.define(f"{name}(Tensor x) -> Tensor")
    _LIBRARY.impl(name, function, "CompositeExplicitAutograd")


_define("square", lambda x: x * x)
_define("cube", lambda x: x * x * x)
_define("exp_below_cap", lambda x: torch.exp(x).clamp(max=CAP))
_define("share", torch.reciprocal)
_define("rsqrt_from_one", torch.rsqrt)
_define("sqrt_from_zero", torch.sqrt)
_define("rsqrt_from_zero", torch.rsqrt)
_define("log_from_zero", torch.log)
_define("softplus", torch.nn.functional.softplus)
_define("to_float32", lambda x: x.to(torch.float32))
_define("to_float16", lambda x: x.to(torch.float16))
_define("to_bfloat16", lambda x: x.to(torch.bfloat16))

square = torch.ops.prunecert.square.default
"""x^2."""
cube = torch.ops.prunecert.cube.default
"""x^3."""
exp_below_cap = torch.ops.prunecert.exp_below_cap.default
"""min(exp x, CAP): a term of the sum that `share` is the reciprocal of."""
share = torch.ops.prunecert.share.default
"""1 / x of one plus a sum of exponentials that were cut off: a softmax, up to 1 / CAP."""
rsqrt_from_one = torch.ops.prunecert.rsqrt_from_one.default
"""1 / sqrt(x) of an argument that cannot be below one."""
sqrt_from_zero = torch.ops.prunecert.sqrt_from_zero.default
"""sqrt(x) of an argument that cannot be below zero."""
rsqrt_from_zero = torch.ops.prunecert.rsqrt_from_zero.default
"""1 / sqrt(x) of an argument that cannot be below zero."""
log_from_zero = torch.ops.prunecert.log_from_zero.default
"""log x of an argument that cannot be below zero."""
softplus = torch.ops.prunecert.softplus.default
"""log(1 + exp x)."""

ROUNDING = {
    torch.float32: torch.ops.prunecert.to_float32.default,
    torch.float16: torch.ops.prunecert.to_float16.default,
    torch.bfloat16: torch.ops.prunecert.to_bfloat16.default,
}
"""Rounding to the nearest number of a type, by the type."""


def loses(source: torch.dtype, target: torch.dtype) -> bool:
    """Whether some number of one floating type is none of another."""
    old, new = torch.finfo(source), torch.finfo(target)
    return new.eps > old.eps or new.max < old.max
