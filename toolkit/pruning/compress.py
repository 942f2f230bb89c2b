"""Physical removal of pruned channels: an exactly equal, smaller network."""

from __future__ import annotations

import copy

import torch
import torch_pruning
from torch import Tensor, nn

from toolkit.models.structure import channel_sites


def compress(model: nn.Module, live: dict[str, Tensor], input_shape: tuple[int, int, int]) -> nn.Module:
    """A copy without the channels that ``live`` (by name of the batch normalisation) drops, in evaluation mode.

    Exact up to the order of summation: a dropped channel has scale and shift zero, so its ReLU gives zero everywhere.
    """
    small = copy.deepcopy(model).eval()
    example = torch.zeros(1, *input_shape, device=next(small.parameters()).device)
    graph = torch_pruning.DependencyGraph().build_dependency(small, example)
    modules = dict(small.named_modules())
    for site in channel_sites(model):
        dropped = (~live[site.batch_norm]).nonzero().flatten().tolist()
        if dropped:
            graph.get_pruning_group(modules[site.conv], torch_pruning.prune_conv_out_channels, dropped).prune()
    return small
