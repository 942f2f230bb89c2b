"""Physical removal of pruned channels: an exactly equal, smaller network."""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
import torch_pruning
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from toolkit.errors import UnsupportedError
from toolkit.models.structure import channel_sites, sequences
from toolkit.tuning import tuned


def compress(model: nn.Module, live: dict[str, Tensor], input_shape: tuple[int, ...]) -> nn.Module:
    """A copy without the channels that ``live`` (by name of the batch normalisation) drops, in evaluation mode.

    Exact up to the order of summation: a dropped channel has scale and shift zero, so its ReLU gives zero everywhere,
    and what reads it adds channels up (`toolkit.models.structure.channel_sites`). Raises UnsupportedError where the
    smaller network is another function all the same.
    """
    small = copy.deepcopy(model).eval()
    some = next(small.parameters())
    example = torch.zeros(1, *input_shape, device=some.device, dtype=some.dtype)
    graph = torch_pruning.DependencyGraph().build_dependency(small, example)
    modules = dict(small.named_modules())
    for site in channel_sites(model):
        dropped = (~live[site.batch_norm]).nonzero().flatten().tolist()
        if dropped:
            layer = modules[site.layer]
            prune = (
                torch_pruning.prune_linear_out_channels
                if isinstance(layer, nn.Linear)
                else torch_pruning.prune_conv_out_channels
            )
            graph.get_pruning_group(layer, prune, dropped).prune()
    _check_equal(model, small, example)
    return small


def without_norms(model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> nn.Module:
    """A copy in evaluation mode whose convolutions and linear layers, of these kinds, have taken in the batch
    normalisation that follows them."""
    folded: nn.Module = copy.deepcopy(model).eval()
    for _, row in list(sequences(folded)):
        for index, (layer, following) in enumerate(pairwise(list(row))):
            if not isinstance(layer, kinds):
                continue
            if isinstance(layer, nn.Linear) and isinstance(following, nn.BatchNorm1d):
                row[index], row[index + 1] = fuse_linear_bn_eval(layer, following), nn.Identity()
            elif isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
                row[index], row[index + 1] = fuse_conv_bn_eval(layer, following), nn.Identity()
    return folded


def _check_equal(model: nn.Module, small: nn.Module, example: Tensor) -> None:
    """Raise UnsupportedError unless both networks say the same of some random inputs."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(tuned().training.compared_inputs, *example.shape[1:], generator=generator).to(example)
    training = model.training
    with torch.no_grad():
        expected, found = model.eval()(inputs), small(inputs)
    model.train(training)
    allowed = tuned().training.most_difference * expected.abs().max().clamp(min=torch.finfo(expected.dtype).tiny)
    if not bool(((found - expected).abs() <= allowed).all()):
        raise UnsupportedError(
            "the network without its dropped channels computes something else; prune weights instead (method magnitude)"
        )
