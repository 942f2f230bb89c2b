"""Differentiable interval propagation through a live torch module, for training losses and statistics.

Interval arithmetic of Gowal et al. (ICCV 2019): an affine layer maps centre c and radius r to W c + b and |W| r, a
monotone layer maps both ends. Verification does not use this file: it reads the exported network.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch

import torch
from torch import Tensor, nn
from torch.nn import functional

from toolkit.errors import UnsupportedError
from toolkit.models.imported import LayerGraph
from toolkit.models.layers import UNIT_DOMAIN, BatchReshape, GraftedReLU, InputDomain, Normalise, Residual, input_domain
from toolkit.models.structure import BatchNorm
from toolkit.training.precision import single


@dataclass(frozen=True)
class Interval:
    """Bounds ``lower <= upper`` of a layer's values, shape ``(B, ...)``.

    ``point`` is the value at the clean image, carried along when batch normalisation uses the statistics of the batch.
    """

    lower: Tensor
    upper: Tensor
    point: Tensor | None = None

    @property
    def centre(self) -> Tensor:
        """The middle of the interval."""
        return (self.lower + self.upper) / 2

    @property
    def radius(self) -> Tensor:
        """Half the width of the interval."""
        return (self.upper - self.lower) / 2


class Trace(dict[nn.Module, Interval]):
    """The interval at the input of each layer, as bounds have it.

    ``share`` is what is left of the upper end of each unstable neuron, whose output is that of the smaller interval:
    less than 1 gives no bounds, but what training with small boxes follows (Mueller et al., ICLR 2023, section 5).
    """

    def __init__(self, share: float = 1.0) -> None:
        super().__init__()
        self.share = share
        self._affine: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def batch_norm(self, module: BatchNorm) -> tuple[Tensor, Tensor]:
        """Scale and shift of a batch normalisation on the interval at its input, computed once."""
        if module not in self._affine:
            self._affine[module] = batch_norm_affine(module, self[module])
        return self._affine[module]


def image_box(
    images: Tensor, epsilon: float, point: Tensor | None = None, domain: InputDomain = UNIT_DOMAIN
) -> Interval:
    """The L-infinity ball around images, clipped to the domain, which is [0, 1] unless said otherwise."""
    radius = domain.radius(epsilon)
    return Interval(domain.clip(images - radius), domain.clip(images + radius), point)


def ball(network: nn.Module, inputs: Tensor, epsilon: float, point: Tensor | None = None) -> Interval:
    """The L-infinity ball around inputs, clipped to those that the network has."""
    return image_box(inputs, epsilon, point, input_domain(network))


def propagate(module: nn.Module, box: Interval, share: float = 1.0) -> tuple[Interval, Trace]:
    """Bounds of a module's output over a box, and the intervals before each of its layers.

    Batch normalisation uses its running statistics, or those of ``box.point`` when that is given and the layer is in
    training mode; its running statistics are then updated, as by a forward pass on the point. Mixed precision does not
    reach in here. A ``share`` below 1 shrinks intervals of unstable neurons, and gives no bounds (:class:`Trace`).

    Raises:
        UnsupportedError: a layer has no rule here.
    """
    trace = Trace(share)
    with single(box.lower.device):
        return _step(module, box, trace), trace


def _step(module: nn.Module, x: Interval, trace: Trace) -> Interval:
    trace[module] = x
    if isinstance(module, nn.ReLU) and trace.share < 1:
        unstable = (x.lower < 0) & (x.upper > 0)
        x = Interval(x.lower, torch.where(unstable, trace.share * x.upper, x.upper), x.point)
    return transfer(module, x, trace)


@singledispatch
def transfer(module: nn.Module, x: Interval, trace: Trace) -> Interval:
    """Interval image of one layer; compound layers record their parts in the trace."""
    raise UnsupportedError(f"interval propagation has no rule for layer {type(module).__name__}")


@transfer.register
def _(module: LayerGraph, x: Interval, trace: Trace) -> Interval:
    raise UnsupportedError(
        f"the imported network ({', '.join(module.strange_layers)}) is no straight line of known layers, which all "
        "bounds in training need: use the loss standard, pgd or fgsm_gradalign, without regularisers or channel scores "
        "by bounds"
    )


@transfer.register(nn.ReLU)
@transfer.register(nn.Flatten)
@transfer.register(nn.Identity)
@transfer.register(nn.MaxPool2d)
@transfer.register(nn.AvgPool2d)
@transfer.register(nn.AdaptiveAvgPool2d)
@transfer.register(Normalise)
@transfer.register(BatchReshape)
def _monotone(module: nn.Module, x: Interval, trace: Trace) -> Interval:
    return Interval(module(x.lower), module(x.upper), None if x.point is None else module(x.point))


@transfer.register
def _(module: nn.Linear, x: Interval, trace: Trace) -> Interval:
    centre, radius = module(x.centre), functional.linear(x.radius, module.weight.abs())
    return Interval(centre - radius, centre + radius, None if x.point is None else module(x.point))


@transfer.register
def _(module: nn.Conv2d, x: Interval, trace: Trace) -> Interval:
    centre = module(x.centre)
    radius = functional.conv2d(
        x.radius, module.weight.abs(), None, module.stride, module.padding, module.dilation, module.groups
    )
    return Interval(centre - radius, centre + radius, None if x.point is None else module(x.point))


@transfer.register(nn.BatchNorm1d)
@transfer.register(nn.BatchNorm2d)
def _batch_norm(module: BatchNorm, x: Interval, trace: Trace) -> Interval:
    scale, shift = trace.batch_norm(module)
    centre, radius = x.centre * scale + shift, x.radius * scale.abs()
    return Interval(centre - radius, centre + radius, None if x.point is None else module(x.point))


@transfer.register
def _(module: nn.Sequential, x: Interval, trace: Trace) -> Interval:
    for layer in module:
        x = _step(layer, x, trace)
    return x


@transfer.register
def _(module: GraftedReLU, x: Interval, trace: Trace) -> Interval:
    lower, upper = x.lower.flatten(1), x.upper.flatten(1)
    kept = Interval(lower[:, module.kept], upper[:, module.kept])
    trace[module.relu] = kept
    ends = [module.slope * bound[:, module.grafted] + module.shift for bound in (lower, upper)]
    return Interval(
        module.join(module.relu(kept.lower), torch.minimum(*ends)),
        module.join(module.relu(kept.upper), torch.maximum(*ends)),
        None if x.point is None else module(x.point),
    )


@transfer.register
def _(module: Residual, x: Interval, trace: Trace) -> Interval:
    main, shortcut = _step(module.main, x, trace), _step(module.shortcut, x, trace)
    point = None if main.point is None or shortcut.point is None else main.point + shortcut.point
    return Interval(main.lower + shortcut.lower, main.upper + shortcut.upper, point)


def batch_norm_affine(module: BatchNorm, x: Interval) -> tuple[Tensor, Tensor]:
    """Scale and shift ``(1, C, 1, 1)``, or ``(1, n)``, that the layer applies to the interval at its input."""
    if module.training and x.point is not None:
        # On a CPU torch.var_mean takes ten times as long, and it has no advantage for values of about unit size.
        over = (0, *range(2, x.point.ndim))
        mean = x.point.mean(over)
        variance = (x.point - per_channel(mean, x.point)).square().mean(over)
    else:
        assert module.running_var is not None
        assert module.running_mean is not None
        variance, mean = module.running_var, module.running_mean
    scale = module.weight / (variance + module.eps).sqrt()
    return per_channel(scale, x.lower), per_channel(module.bias - mean * scale, x.lower)


def per_channel(values: Tensor, like: Tensor) -> Tensor:
    """Values ``(C,)`` as they are multiplied with values ``(B, C, ...)``."""
    return values.reshape(1, -1, *[1] * (like.ndim - 2))
