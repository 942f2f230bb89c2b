"""Mixed precision: forward and backward passes of the network in half precision, everything else in single.

Weights, optimizer, loss and batch statistics stay in float32, as automatic mixed precision has it. So do *bounds*: the
radius of an interval is a small difference of large numbers (2/255 around pixels near 1), and rounding to the eight
bits of bfloat16 is as large as the radius itself. Bounds rounded like that would be no bounds of the network, and the
loss made of them would train against rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from toolkit.devices import full_precision
from toolkit.training.training_options import Precision

HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def mixed(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Inside, matrix products and convolutions run in the precision."""
    if precision == "float32":
        return nullcontext()
    # Without the cache of cast weights: second derivatives (GradAlign) would meet casts of a graph that is freed.
    return torch.autocast(device.type, HALVES[precision], cache_enabled=False)


@contextmanager
def single(device: torch.device) -> Iterator[None]:
    """Inside, everything is float32 again, with all of its bits on a GPU, too."""
    with torch.autocast(device.type, enabled=False), full_precision():
        yield


def make_scaler(device: torch.device, precision: Precision) -> torch.amp.GradScaler:
    """Scales losses so that gradients do not vanish in float16; does nothing in other precisions."""
    return torch.amp.GradScaler(device.type, enabled=precision == "float16")
