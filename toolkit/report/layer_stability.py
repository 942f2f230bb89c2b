"""Stability layer by layer: unstable ReLUs by each bound method, and what interval bounds say of widths.

Counts by CROWN and alpha-CROWN are the verifier's own, taken from the exported network when it bounds an image.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from toolkit.bench.journal import JournalRecord
from toolkit.report.summary import ModelRecord
from toolkit.report.tables import Table, make_table, number, percent, short, word

FIRST = ("crown", "forward")
"""What the verifier bounds neurons with before it optimises slopes: one of these, on every image it bounds."""


@dataclass(frozen=True)
class LayerRow:
    """Unstable ReLUs of one layer of one network: means over images and seeds, as parts of its neurons."""

    model: str
    chains: tuple[str, ...]
    density: float
    layer: int
    neurons: float
    images: int
    """Images with interval and CROWN bounds: those that the verifier bounded for all networks, once for each seed."""
    interval: float
    crown: float
    optimised_images: int
    """Images that CROWN left open, which have optimised bounds."""
    optimised: float
    """By alpha-CROWN, on these images."""


def layer_rows(models: Sequence[ModelRecord], records: Sequence[JournalRecord]) -> list[LayerRow]:
    """One row for each layer of each network, seeds together; none for networks that were never bounded."""
    bounded = {model.network: _bounded(model, records) for model in models}
    known = [set(images) for images in bounded.values() if images]
    common = set.intersection(*known) if known else set()
    groups: dict[str, list[ModelRecord]] = {}
    for model in models:
        groups.setdefault(model.group or model.name, []).append(model)
    return [row for name, own in groups.items() for row in _rows(name, own, bounded, common)]


def _bounded(model: ModelRecord, records: Sequence[JournalRecord]) -> dict[str, JournalRecord]:
    """The network's records that have root bounds, by specification."""
    return {r.vnnlib: r for r in records if r.onnx == model.network and r.statistics.layers}


def _rows(
    name: str, models: Sequence[ModelRecord], bounded: Mapping[str, Mapping[str, JournalRecord]], common: set[str]
) -> list[LayerRow]:
    own = [record for model in models for image, record in bounded[model.network].items() if image in common]
    every = [record for model in models for record in bounded[model.network].values()]
    depth = max((len(record.statistics.layers) for record in every), default=0)
    return [_row(name, models[0], layer, _counts(own, layer), _counts(every, layer)) for layer in range(depth)]


def _counts(records: Sequence[JournalRecord], layer: int) -> list[dict[str, int]]:
    """The counts of one layer, of the records that have it."""
    layers = [list(record.statistics.layers.values()) for record in records]
    return [found[layer] for found in layers if layer < len(found)]


def _row(
    name: str, model: ModelRecord, layer: int, own: Sequence[Mapping[str, int]], every: Sequence[Mapping[str, int]]
) -> LayerRow:
    optimised = [counts for counts in every if "alpha-crown" in counts]
    return LayerRow(
        model=name,
        chains=model.chains,
        density=model.density,
        layer=layer,
        neurons=fmean(counts["neurons"] for counts in every),
        images=len(own),
        interval=_ratio(own, ("interval",)),
        crown=_ratio(own, FIRST),
        optimised_images=len(optimised),
        optimised=_ratio(optimised, ("alpha-crown",)),
    )


def _ratio(counts: Sequence[Mapping[str, int]], methods: Sequence[str]) -> float:
    """Mean part of the neurons that are unstable by the one of the methods that was used; NaN without images."""
    parts = [next(found[m] for m in methods if m in found) / max(1, found["neurons"]) for found in counts]
    return fmean(parts) if parts else math.nan


UNSTABLE_COLUMNS = (
    word("model", "name of the network; seeds together", lambda row: row.model),
    number("layer", "ReLU layer, from 1", lambda row: row.layer + 1),
    number("ReLUs", "neurons of the layer", lambda row: row.neurons, short),
    number("images", "those that the verifier bounded for all networks, of each seed", lambda row: row.images),
    number("interval", "part of the neurons that interval bounds leave unstable", lambda row: row.interval, percent),
    number("CROWN", "part that CROWN leaves unstable, on the same images", lambda row: row.crown, percent),
    number("images left open", "images that CROWN did not decide, of all seeds", lambda row: row.optimised_images),
    number("alpha-CROWN", "part that optimised slopes leave unstable, on these", lambda row: row.optimised, percent),
)


def unstable_table(rows: Sequence[LayerRow]) -> Table:
    """Unstable ReLUs by layer and bound method."""
    return make_table(UNSTABLE_COLUMNS, rows)


@dataclass(frozen=True)
class WidthRow:
    """What interval bounds say of one layer of one network."""

    model: str
    layer: int
    values: Mapping[str, float]


WIDTH_COLUMNS = (
    word("model", "name of the network", lambda row: row.model),
    number("layer", "ReLU layer, from 1", lambda row: row.layer + 1),
    *(
        number(title, meaning, lambda row, key=key: row.values.get(key, math.nan), write)  # type: ignore[misc]
        for title, meaning, key, write in (
            ("unstable", "part of the neurons with l < 0 < u", "unstable_ratio", percent),
            ("before BN", "the same before batch normalisation", "unstable_ratio_before_norm", percent),
            ("width", "u - l", "width", short),
            ("before BN", "u - l before batch normalisation", "width_before_norm", short),
            ("instability", "-l u: negative for stable neurons", "instability", short),
            ("before BN", "-l u before batch normalisation", "instability_before_norm", short),
            ("sensitivity", "deviation of the interval's centre over images", "sensitivity", short),
        )
    ),
)


def width_table(models: Sequence[ModelRecord]) -> Table:
    """Stability by interval bounds over all verified images, layer by layer, before and after batch normalisation."""
    rows = [WidthRow(model.name, layer, values) for model in models for layer, values in enumerate(model.layers)]
    return make_table(WIDTH_COLUMNS, rows)


def unstable_csv(models: Sequence[ModelRecord], records: Sequence[JournalRecord]) -> str:
    """One line for each network, layer and bound method: images, and the mean part of unstable neurons on them.

    Every network stands on all images that it was bounded on.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["model", "layer", "neurons", "method", "images", "unstable_ratio"])
    for model in models:
        own = list(_bounded(model, records).values())
        for layer in range(max((len(record.statistics.layers) for record in own), default=0)):
            counts = _counts(own, layer)
            for method in ("interval", *FIRST, "alpha-crown"):
                found = [count for count in counts if method in count]
                if found:
                    ratio = round(_ratio(found, (method,)), 6)
                    writer.writerow([model.name, layer, found[0]["neurons"], method, len(found), ratio])
    return text.getvalue()
