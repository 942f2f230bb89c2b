"""Augmentation: every result is a shifted or mirrored input, and the same for the same generator."""

from __future__ import annotations

import torch

from toolkit.data.augment import AUGMENTATIONS, crop


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_a_crop_is_a_window_of_the_padded_image() -> None:
    images = torch.rand(6, 2, 5, 7)
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2))
    for image, source in zip(crop(images, _generator(), margin=2), padded, strict=True):
        windows = [source[:, top : top + 5, left : left + 7] for top in range(5) for left in range(5)]
        assert any(torch.equal(image, window) for window in windows)


def test_a_crop_with_edges_repeats_them() -> None:
    images = torch.rand(6, 2, 5, 7)
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2), "replicate")
    for image, source in zip(AUGMENTATIONS["edge_crop_flip"](images, _generator()), padded, strict=True):
        windows = [source[:, top : top + 5, left : left + 7] for top in range(5) for left in range(5)]
        assert any(torch.equal(image, window) or torch.equal(image, window.flip(2)) for window in windows)


def test_augmentations_are_deterministic_and_vary_between_images() -> None:
    images = torch.rand(1, 3, 8, 8).expand(16, -1, -1, -1)
    for name, augment in AUGMENTATIONS.items():
        first = augment(images, _generator())
        assert torch.equal(first, augment(images, _generator()))
        distinct = len({tuple(image.flatten().tolist()) for image in first})
        assert (distinct == 1) == (name == "none")
