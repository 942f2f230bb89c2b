"""The elementwise operators of `toolkit.ops` as torch's: aten's, and those that torch spells in several ways or not at
all, which are defined here."""

from __future__ import annotations

from typing import Any

import torch

from toolkit.ops import ELEMENTWISE
from toolkit.ops.float_casts import CASTS

_LIBRARY = torch.library.Library("prunecert", "DEF")


def _define() -> None:
    """Our own operators, by their records; a cast gives the narrower type, and its record numbers of the old one."""
    casts = {cast.primitive: getattr(torch, cast.name) for cast in CASTS}
    for operator in ELEMENTWISE.values():
        domain, name, _ = operator.primitive.split(".")
        if domain == "prunecert":
            dtype = casts.get(operator.primitive)
            function = operator.relaxation.function if dtype is None else lambda x, dtype=dtype: x.to(dtype)
            _LIBRARY.define(f"{name}(Tensor x) -> Tensor")
            _LIBRARY.impl(name, function, "CompositeExplicitAutograd")


_define()


def primitive(name: str) -> Any:
    """The operator of torch of a name with domain and overload, ``aten.tanh.default`` for instance."""
    found: Any = torch.ops
    for part in name.split("."):
        found = getattr(found, part)
    return found


PRIMITIVES: dict[str, Any] = {name: primitive(operator.primitive) for name, operator in ELEMENTWISE.items()}
"""Traced operators by the name of their record."""
square, cube, softplus = PRIMITIVES["square"], PRIMITIVES["cube"], PRIMITIVES["softplus"]
exp_below_cap, share, rsqrt_from_one = PRIMITIVES["exp_below_cap"], PRIMITIVES["share"], PRIMITIVES["rsqrt_from_one"]

ROUNDING = {getattr(torch, cast.name): PRIMITIVES[cast.name] for cast in CASTS}
"""Rounding to the nearest number of a type, by the type."""


def loses(source: torch.dtype, target: torch.dtype) -> bool:
    """Whether some number of one floating type is none of another."""
    old, new = torch.finfo(source), torch.finfo(target)
    return new.eps > old.eps or new.max < old.max
