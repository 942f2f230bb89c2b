"""Data that needs no download: the 8x8 digits of scikit-learn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from toolkit.data.dataset import Dataset, Split, channel_statistics, register

if TYPE_CHECKING:
    from toolkit.recipe import Data

SPLIT_SEED = 0
"""Seed of the split: every run tests on the same images, whatever the seed of the experiment."""


@register("digits")
def load_digits(data: Data) -> Dataset:
    """1,797 grey 8x8 images in ten classes: 1,200 to train, 197 to validate, 400 to test, stratified."""
    from sklearn.datasets import load_digits as load
    from sklearn.model_selection import train_test_split

    pixels, labels = load(return_X_y=True)
    rest, test, rest_labels, test_labels = train_test_split(
        pixels, labels, test_size=400, random_state=SPLIT_SEED, stratify=labels
    )
    train, held, train_labels, held_labels = train_test_split(
        rest, rest_labels, test_size=197, random_state=SPLIT_SEED, stratify=rest_labels
    )
    images = torch.as_tensor(train, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    mean, std = channel_statistics(images)
    return Dataset(
        data.name,
        Split(images, torch.as_tensor(train_labels, dtype=torch.int64)),
        _split(held, held_labels),
        _split(test, test_labels),
        classes=10,
        mean=mean,
        std=std,
    )


def _split(pixels: object, labels: object) -> Split:
    images = torch.as_tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    return Split(images, torch.as_tensor(labels, dtype=torch.int64))
