"""Which elements of a file's tensors are multiples of others, to be stated before the first case.

With random numbers in place of the input and of what nonlinear operators give, two elements have values in one
proportion if they are multiples by their affine operators alone. The checker's own test decides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.certificates.neuron_elements import affine_value, directions
from toolkit.proof.identities import Multiples, are_multiples, merged, reader_of
from toolkit.proof.network import AffineStep, ProofNetwork
from toolkit.tuning import tuned

Array = NDArray[np.float64]
DIGITS = 7
"""To which values are compared."""


@dataclass(frozen=True)
class StatedTensor:
    """Elements of one tensor that are multiples of others, and the network before and after that is stated."""

    name: str
    multiples: Multiples
    before: ProofNetwork
    after: ProofNetwork

    @property
    def accepted(self) -> bool:
        """Whether the checker accepts all of them."""
        return bool(are_multiples(self.before, self.before.names[self.name], self.multiples).all())


def stated_tensors(network: ProofNetwork, without: Collection[str] = (), sure: bool = True) -> Iterator[StatedTensor]:
    """The multiples in all tensors of a network but some, one tensor after the other.

    Unless they are to be ``sure``, which takes the most time, they are what values at points make likely.
    """
    random = RandomValues()
    for name in network.names:
        value = network.names[name]
        candidates = proportional(random.of(network, value))
        if name in without or not len(candidates.elements) or reader_of(network, value, candidates) is None:
            continue
        if (multiples := verified(network, value, candidates) if sure else candidates) is not None:
            found = StatedTensor(name, multiples, network, merged(network, value, multiples))
            yield found
            network = found.after


def verified(network: ProofNetwork, value: int, candidates: Multiples) -> Multiples | None:
    """The candidates that the checker accepts as multiples; None where it accepts none."""
    sure = are_multiples(network, value, candidates)
    stated = Multiples(*(part[sure] for part in (candidates.elements, candidates.models, candidates.factors)))
    return stated if sure.any() else None


class RandomValues:
    """Values of tensors, ``(B, n)``, for random numbers at the input and behind nonlinear operators."""

    def __init__(self) -> None:
        self._random, self._known = np.random.default_rng(0), dict[int, Array]()

    def of(self, network: ProofNetwork, value: int) -> Array:
        """The values of one tensor; what lies before those that were asked for stays as it was."""
        count, known = tuned().certificates.points, self._known
        known.setdefault(0, self._random.normal(size=(count, network.sizes[0])))
        for step in network.steps:
            if value in known:
                break
            if step.value in known:
                continue
            if isinstance(step, AffineStep):
                known[step.value] = affine_value(step, known)
            else:
                known[step.value] = self._random.normal(size=(count, network.sizes[step.value]))
        return known[value]


def proportional(values: Array) -> Multiples:
    """Columns ``(B, n)`` that are powers of two, or their negatives, times the first one of their kind."""
    first: dict[bytes, int] = {}
    stated = defaultdict[str, list[float]](list)
    size = np.linalg.norm(values, axis=0)
    found = directions(values)
    mantissa, exponent = np.frexp(size)
    keys = np.round(np.concatenate([found, mantissa[None]]), DIGITS) + 0.0
    factor = np.where((found * values).sum(0) < 0, -1.0, 1.0) * np.ldexp(1.0, exponent)
    for element, key in enumerate(np.ascontiguousarray(keys.T)):
        model = first.setdefault(key.tobytes(), element)
        if model != element:
            stated["elements"].append(element)
            stated["models"].append(model)
            stated["factors"].append(factor[element] / factor[model])
    elements, models = (np.array(stated[part], np.int64) for part in ("elements", "models"))
    return Multiples(elements, models, np.array(stated["factors"], float))
