"""A criterion that looks at what weights are multiplied with: Wanda."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from toolkit.pruning.criterion import Unstructured, criterion

if TYPE_CHECKING:
    from torch import Tensor

    from toolkit.pruning.masks import Masks
    from toolkit.pruning.round import PruningRound


class Wanda(Unstructured):
    """Smallest ``|w|`` times the norm of the weight's input, over one training batch (Sun et al., ICLR 2024)."""

    name: Literal["wanda"] = "wanda"


@criterion(Wanda)
def by_magnitude_and_input(options: Wanda, round_: PruningRound) -> Masks:
    """Masks of the weights with the largest products of magnitude and norm of the input.

    Inputs are what the network, as it stands, makes of the images: no attack and no bounds of the training are in them.
    """
    import torch

    from toolkit.pruning.weight_scores import keep_best, weights_of
    from toolkit.training.training_attack import evaluation_mode
    from toolkit.training.training_loop import batches

    modules = dict(round_.model.named_modules())
    weights = dict(weights_of(options, round_))
    seen: dict[str, Tensor] = {}
    hooks = [
        modules[name.removesuffix(".weight")].register_forward_pre_hook(
            lambda _, given, name=name: seen.update({name: given[0].detach()})
        )
        for name in weights
    ]
    images, _ = next(batches(round_.job, round_.generator("wanda")))
    try:
        with torch.no_grad(), evaluation_mode(round_.model):
            round_.model(images)
    finally:
        for hook in hooks:
            hook.remove()
    scores = {
        name: weight.detach().abs()
        * input_norms(seen[name], weight, getattr(modules[name.removesuffix(".weight")], "groups", 1))
        for name, weight in weights.items()
    }
    return keep_best(options, round_, scores)


def input_norms(x: Tensor, weight: Tensor, groups: int) -> Tensor:
    """Norms over images and positions of the inputs ``(B, C, ...)`` that weights ``(O, C / groups, ...)`` are
    multiplied with, to be multiplied with these."""
    norms = x.transpose(0, 1).flatten(1).norm(dim=1)
    rows = norms.reshape(groups, 1, -1).expand(groups, len(weight) // groups, -1).reshape(len(weight), -1)
    return rows.reshape(*rows.shape, *[1] * (weight.ndim - 2))
