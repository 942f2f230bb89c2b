"""How stable the ReLUs of a live network are under interval bounds (Li et al., TMLR 2023: Eq. 3, Figs. 4 and 8).

The counts of the verifier, from tighter bounds of the exported network, stand in its results; these are the paper's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from toolkit.models.structure import ReluSite, relu_sites
from toolkit.training.differentiable_intervals import Interval, Trace, ball, propagate
from toolkit.training.training_attack import evaluation_mode
from toolkit.tuning import tuned

TOLERANCE = 1e-5
"""A bound nearer to zero than this does not make a neuron unstable."""


@dataclass(frozen=True)
class LayerStability:
    """Means over images and neurons of one ReLU layer; 0 where all its neurons are grafted."""

    neurons: int
    unstable_ratio: float
    """Part of the neurons with ``l < 0 < u``."""
    unstable_ratio_before_norm: float
    """Part of the neurons with ``l < 0 < u`` before batch normalisation (where there is none, before the ReLU)."""
    width: float
    """``u - l``."""
    width_before_norm: float
    instability: float
    """``-l u``: negative for stable neurons."""
    instability_before_norm: float
    sensitivity: float
    """Standard deviation over images of the interval's centre: how much the neuron tells images apart."""


@dataclass(frozen=True)
class NetworkStability:
    """Stability of all ReLU layers at one radius."""

    epsilon: float
    layers: tuple[LayerStability, ...]

    def mean(self, quantity: str) -> float:
        """Mean over all neurons of the network of a quantity of :class:`LayerStability`."""
        total = sum(layer.neurons for layer in self.layers)
        return sum(layer.neurons * float(getattr(layer, quantity)) for layer in self.layers) / max(1, total)

    @property
    def unstable_ratio(self) -> float:
        """Part of all neurons that are unstable, mean over images."""
        return self.mean("unstable_ratio")

    @property
    def instability(self) -> float:
        """Mean of ``-l u`` over all neurons (Eq. 3 as a mean)."""
        return self.mean("instability")


def measure_stability(model: nn.Module, images: Tensor, epsilon: float) -> NetworkStability:
    """Stability on images ``(N, C, H, W)`` of the model's device, by interval bounds with running statistics.

    Raises:
        UnsupportedError: a layer has no interval rule.
    """
    sites = relu_sites(model)
    with torch.no_grad(), evaluation_mode(model):
        parts = images.split(tuned().training.bounded_images)
        chunks = [_moments(sites, propagate(model, ball(model, part, epsilon))[1]) for part in parts]
    sums = [torch.stack(parts).sum(0) for parts in zip(*chunks, strict=True)]
    return NetworkStability(epsilon, tuple(_layer(moments, len(images)) for moments in sums))


def _moments(sites: list[ReluSite], trace: Trace) -> list[Tensor]:
    """Sums over images of eight quantities of each neuron, one tensor ``(8, n)`` for each ReLU."""
    return [_site_moments(trace[site.relu], trace[site.batch_norm or site.relu]) for site in sites]


def _site_moments(bounds: Interval, before: Interval) -> Tensor:
    centre = bounds.centre.double()
    rows = (
        unstable(bounds),
        unstable(before),
        bounds.upper - bounds.lower,
        before.upper - before.lower,
        -bounds.lower * bounds.upper,
        -before.lower * before.upper,
        centre,
        centre.square(),
    )
    return torch.stack([row.double().flatten(1).sum(0) for row in rows])


def unstable(bounds: Interval) -> Tensor:
    """Which neurons can be on both sides of zero, boolean ``(B, ...)``."""
    return (bounds.lower < -TOLERANCE) & (bounds.upper > TOLERANCE)


def _layer(moments: Tensor, images: int) -> LayerStability:
    means = moments / images
    deviation = (means[7] - means[6].square()).clamp_min(0).sqrt()
    neurons = moments.shape[1]
    rows = torch.cat([means[:6], deviation.unsqueeze(0)])
    return LayerStability(neurons, *(rows.sum(1) / max(1, neurons)).tolist())
