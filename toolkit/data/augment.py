"""Random crops and flips of whole batches at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from toolkit.registry import Registry

Augmentation = Callable[[Tensor, torch.Generator], Tensor]
AUGMENTATIONS: Registry[str, Augmentation] = Registry("augmentation")


@AUGMENTATIONS.register("none")
def keep(images: Tensor, generator: torch.Generator) -> Tensor:
    """The images as they are."""
    return images


@AUGMENTATIONS.register("crop")
def crop(images: Tensor, generator: torch.Generator, margin: int = 4, mode: str = "constant") -> Tensor:
    """Each image ``(B, C, H, W)`` padded by ``margin`` and cut out again at a random place; ``mode`` is that of
    `torch.nn.functional.pad`."""
    count, channels, height, width = images.shape
    padded = pad(images, (margin,) * 4, mode)
    top, left = torch.randint(2 * margin + 1, (2, count), generator=generator, device=images.device)
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = left[:, None] + torch.arange(width, device=images.device)
    rows = rows[:, None, :, None].expand(-1, channels, -1, padded.shape[3])
    return padded.gather(2, rows).gather(3, columns[:, None, None, :].expand(-1, channels, height, -1))


@AUGMENTATIONS.register("crop_flip")
def crop_flip(images: Tensor, generator: torch.Generator, margin: int = 4, mode: str = "constant") -> Tensor:
    """A random crop of images ``(B, C, H, W)`` (`crop`), then a mirror image of every other one at random."""
    mirrored = torch.rand(len(images), generator=generator, device=images.device) < 0.5
    cropped = crop(images, generator, margin, mode)
    return torch.where(mirrored[:, None, None, None], cropped.flip(3), cropped)


@AUGMENTATIONS.register("edge_crop_flip")
def edge_crop_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """A random crop of images ``(B, C, H, W)`` out of a margin of two pixels that repeat the edge, then a mirror image
    of every other one at random: what certified training on CIFAR-10 uses."""
    return crop_flip(images, generator, 2, "replicate")
