"""The average of the weights over the last epochs, beside the weights that are trained."""

from __future__ import annotations

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from toolkit.training.training_options import Averaging


class WeightAverages:
    """A copy of a network with averaged weights; its batch statistics are to be estimated before it is used."""

    def __init__(self, model: nn.Module, options: Averaging) -> None:
        self.options = options
        ema = None if options.decay is None else get_ema_multi_avg_fn(options.decay)
        self.copy = AveragedModel(model, multi_avg_fn=ema)

    @property
    def network(self) -> nn.Module | None:
        """The averaged network, or None before any weights count."""
        network: nn.Module = self.copy.module
        return network if int(self.copy.n_averaged) else None

    def add(self, model: nn.Module, epoch: int, step: int) -> None:
        """Count the weights after a step (from 0, over all epochs) of an epoch, if it is their turn."""
        if epoch >= self.options.start and (step + 1) % self.options.every == 0:
            self.copy.update_parameters(model)
