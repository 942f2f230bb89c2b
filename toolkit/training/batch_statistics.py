"""Which statistics batch normalisation takes: those of another batch, or of all training images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from toolkit.models.structure import BatchNorm
from toolkit.training.differentiable_intervals import Trace


@contextmanager
def statistics_of(trace: Trace) -> Iterator[None]:
    """Inside, batch normalisation in training mode takes the statistics of the clean batch that a trace carried along.

    They are differentiated through, and running statistics stay as they are. Layers in evaluation mode are left alone.
    """
    affines = {
        module: trace.batch_norm(module) for module in trace if isinstance(module, BatchNorm) and module.training
    }

    def normalise(norm: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        scale, shift = affines[norm]  # type: ignore[index]
        return inputs[0] * scale + shift

    hooks = [norm.register_forward_hook(normalise) for norm in affines]
    for norm in affines:
        norm.training = False
    try:
        yield
    finally:
        for norm, hook in zip(affines, hooks, strict=True):
            hook.remove()
            norm.training = True


def estimate_statistics(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Give batch normalisation the means over batches of images ``(B, C, H, W)`` in place of running averages.

    Precise BN (Wu & Johnson, 2021, section 3): of what one set of weights makes of all training images.
    """
    update_bn(batches, model)
