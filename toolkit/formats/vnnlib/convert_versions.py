"""Between the generations: what version 2 needs to know of the network, and what version 1.0 cannot say."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from toolkit.errors import InputError, UnsupportedError
from toolkit.formats.vnnlib.query import Network, Query, Tensor
from toolkit.formats.vnnlib.vnnlib1 import flat_network

Shape = tuple[int, ...]


def upgrade(
    query: Query,
    input_shapes: Sequence[Shape],
    output_shapes: Sequence[Shape],
    dtype: str = "float32",
    output_dtype: str | None = None,
) -> Query:
    """A 1.0 query as version 2.0, given the shapes of its network's tensors and their element type (or ``real``).

    A query that has shapes is returned as it is. Raises InputError when a shape has another number of elements.
    """
    if query.version != "1.0":
        return query
    (network,) = query.networks
    inputs = tuple(_shaped(network.inputs, input_shapes, dtype))
    outputs = tuple(_shaped(network.outputs, output_shapes, output_dtype or dtype))
    return replace(query, version="2.0", networks=(Network(network.name, inputs, outputs),))


def beside_others(query: Query, outputs: Sequence[tuple[Shape, str]], position: int) -> Query:
    """A 2.0 query about the only output of its network, as one about the output at a position among several.

    ``outputs`` are the shapes and types of all of them; that at ``position`` is the query's own. No assertion mentions
    the others.
    """
    (network,) = query.networks
    (asked,) = network.outputs
    declared, offset = list[Tensor](), asked.offset
    for number, (shape, dtype) in enumerate(outputs):
        name = asked.name if number == position else f"{asked.name}_beside_{number}"
        declared.append(replace(asked, name=name, shape=shape, dtype=dtype, offset=offset, size=math.prod(shape)))
        offset += math.prod(shape)
    shift = declared[position].offset - asked.offset
    monomial = query.atoms.monomial + np.where(query.atoms.monomial >= asked.offset, shift, 0)
    atoms = replace(query.atoms, monomial=monomial)
    return replace(query, networks=(replace(network, outputs=tuple(declared)),), atoms=atoms)


def _shaped(tensors: Sequence[Tensor], shapes: Sequence[Shape], dtype: str) -> Iterator[Tensor]:
    if len(shapes) != len(tensors):
        kind = tensors[0].kind
        raise InputError(f"the network has {len(shapes)} {kind}s, but a 1.0 specification speaks of {len(tensors)}")
    for tensor, shape in zip(tensors, shapes, strict=True):
        if math.prod(shape) != tensor.size:
            raise InputError(f"{tensor.name} has {tensor.size} elements, but the network's shape is {list(shape)}")
        yield replace(tensor, shape=tuple(shape), dtype=dtype)


def downgrade(query: Query) -> Query:
    """A query as version 1.0: flat vectors ``X`` and ``Y``. Raises UnsupportedError saying why it cannot be one."""
    if query.version == "1.0":
        return query
    if len(query.networks) != 1:
        names = ", ".join(network.name for network in query.networks)
        raise UnsupportedError(f"version 1.0 knows one network, the query has {len(query.networks)}: {names}")
    (network,) = query.networks
    for tensors, kind in ((network.inputs, "input"), (network.outputs, "output")):
        if len(tensors) != 1:
            raise UnsupportedError(f"version 1.0 knows one {kind}, network {network.name} has {len(tensors)}")
    if network.hidden:
        raise UnsupportedError(f"version 1.0 has no hidden nodes, the query uses {network.hidden[0].name}")
    sizes = network.inputs[0].size, network.outputs[0].size
    return replace(query, version="1.0", networks=(flat_network(*sizes),))
