"""Functions that are bounded as one operator but that torch spells in several ways, or not at all."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_LIBRARY = torch.library.Library("prunecert", "DEF")


def _define(name: str, function: Callable[[Tensor], Tensor]) -> None:
    _LIBRARY.define(f"{name}(Tensor x) -> Tensor")
    _LIBRARY.impl(name, function, "CompositeExplicitAutograd")


_define("square", lambda x: x * x)
_define("cube", lambda x: x * x * x)
_define("reciprocal_from_one", torch.reciprocal)
_define("rsqrt_from_one", torch.rsqrt)
_define("softplus", torch.nn.functional.softplus)

square = torch.ops.prunecert.square.default
"""x^2."""
cube = torch.ops.prunecert.cube.default
"""x^3."""
reciprocal_from_one = torch.ops.prunecert.reciprocal_from_one.default
"""1 / x of an argument that cannot be below one."""
rsqrt_from_one = torch.ops.prunecert.rsqrt_from_one.default
"""1 / sqrt(x) of an argument that cannot be below one."""
softplus = torch.ops.prunecert.softplus.default
"""log(1 + exp x)."""
