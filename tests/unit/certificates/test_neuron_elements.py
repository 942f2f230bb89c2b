"""Neurons are found among the elements of a file's tensors, however they were moved, scaled and turned."""

from __future__ import annotations

import numpy as np

from toolkit.certificates.neuron_elements import TensorValues, layer_elements, single_elements


def tensors(seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.normal(size=(8, size)) for size in (3, 5, 4)]


def known(values: list[np.ndarray]) -> list[TensorValues]:
    return [TensorValues(part) for part in values]


def test_a_whole_tensor_keeps_its_order() -> None:
    values = tensors()
    found = layer_elements(values[1] * (1 + 1e-13), known(values))
    assert (found.tensor == 1).all() and found.index.tolist() == [0, 1, 2, 3, 4]
    assert (found.scale == 1).all() and (found.offset == 0).all()


def test_single_neurons_are_scaled_elements_of_any_tensor() -> None:
    values = tensors()
    places, factors = [(2, 3), (0, 1), (1, 4), (1, 0)], [(2.0, 0.5), (-1.0, 0.0), (-0.3, -1.0), (1.0, 0.0)]
    neurons = np.stack([a * values[t][:, i] + b for (t, i), (a, b) in zip(places, factors, strict=True)], 1)
    found = layer_elements(neurons, known(values))
    assert list(zip(found.tensor.tolist(), found.index.tolist(), strict=True)) == places
    assert np.allclose(np.stack([found.scale, found.offset], 1), factors, rtol=1e-9, atol=1e-9)


def test_each_of_thousands_is_found() -> None:
    """Among them elements that are equal, and many that differ in a few points alone."""
    generator = np.random.default_rng(1)
    values = generator.normal(size=(32, 1))[:, np.zeros(4000, int)]
    values[:, :3000] = generator.normal(size=(32, 3000))
    values[generator.integers(32, size=1000), np.arange(3000, 4000)] += generator.normal(size=1000)
    order = generator.permutation(4000)
    neurons = values[:, order] * generator.choice([-2.0, 0.7, 1.0], 4000)
    found = single_elements(neurons, known([values, values[:, :1] + 0 * values[:, :9]]))
    assert (found.tensor == 0).all() and (values[:, found.index] == values[:, order]).all()


def test_what_is_no_element_is_none() -> None:
    values = tensors()
    neurons = np.stack([values[0][:, 0] - values[0][:, 1], np.full(8, 0.5), values[0][:, 0]], 1)
    assert single_elements(neurons, known(values)).tensor.tolist() == [-1, -1, 0]
    assert single_elements(neurons, []).tensor.tolist() == [-1, -1, -1]
