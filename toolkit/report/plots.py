"""The plots of a run; each function returns a figure, drawn without a display."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, Protocol

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from toolkit.bench.atomic_files import write_bytes_atomically
from toolkit.report.layer_stability import LayerRow
from toolkit.report.summary import ModelRecord, SummaryRow, chain_names
from toolkit.result import DECIDED, Verdict

# Okabe and Ito's colours, which colour-blind readers tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vP*"
DASHES = ("-", "--", ":")
WORK = (attrgetter("mean_domains"), attrgetter("mean_seconds"))
"""What a proof costs: domains and seconds, mean per image."""
CONTROL_MARKERS = {"retrained": "o", "stretched": "^", "random_masks": "s", "narrow": "D"}
STYLE = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9aa4b2",
    "axes.labelcolor": "#334155",
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.grid": True,
    "grid.color": "#e5e9f0",
    "grid.linewidth": 0.8,
    "xtick.color": "#64748b",
    "ytick.color": "#64748b",
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "prunecert",
}


@contextmanager
def _style() -> Iterator[None]:
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]
        yield


Draw = Callable[[Axes, Sequence[SummaryRow], str, dict[str, str]], None]
"""Draws one chain: axes, its rows by falling density, its name, and its colour and marker."""


def certified_versus_density(rows: Sequence[SummaryRow]) -> Figure:
    """Certified accuracy against the part of all parameters that is left, a panel per architecture and a line per
    chain; bars are 95 % intervals."""
    return _panels(rows, _draw_certified, "certified accuracy (%)")


def instability_versus_density(rows: Sequence[SummaryRow]) -> Figure:
    """Mean number of unstable ReLUs against the part of all parameters that is left: by the root bounds (solid) and by
    intervals (dotted). On the right, percent of the dense network's ReLUs."""
    return _panels(rows, _draw_instability, "unstable ReLUs (mean per bounded image)")


def proofs_versus_density(rows: Sequence[SummaryRow]) -> Figure:
    """Mean size of a certificate against the part of all parameters that is left; rows without certificates are left
    out."""
    return _panels([row for row in rows if row.has_certificates], _draw_proofs, "KiB per proof")


def every_network(rows: Sequence[SummaryRow]) -> Figure:
    """A line for each network: its accuracies, certified with its 95 % interval, and its unstable ReLUs."""
    with _style():
        figure = Figure(figsize=(9.5, 1.0 + 0.21 * len(rows)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        places = range(len(rows))
        blue, red, green = COLOURS[:3]
        left.hlines(
            places,
            [100 * row.certified_low for row in rows],
            [100 * row.certified_high for row in rows],
            color=blue,
            alpha=0.35,
        )
        left.plot([100 * row.certified_accuracy for row in rows], places, "o", color=blue, label="certified")
        left.plot([100 * row.pgd_accuracy for row in rows], places, "|", color=red, markersize=9, label="PGD")
        left.plot([100 * row.standard_accuracy for row in rows], places, "d", color=green, label="standard")
        left.set(xlabel="accuracy (%)", xlim=(0, None))
        left.set_yticks(places, [f"{row.model} ({row.density:.2g})" for row in rows])
        right.plot([row.mean_unstable_interval for row in rows], places, "o", color=blue, mfc="none", label="intervals")
        right.plot([row.mean_unstable for row in rows], places, "o", color=blue, label="root bounds")
        right.set(xlabel="unstable ReLUs (mean per bounded image)", xlim=(0, None))
        left.invert_yaxis()
        for axes in (left, right):
            axes.legend(fontsize=8.5, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)
    return figure


def _draw_certified(axes: Axes, rows: Sequence[SummaryRow], chain: str, look: dict[str, str]) -> None:
    # Chains stand a little apart, or their intervals would hide each other.
    left = [part_left(row) * (1 + 0.02 * len(axes.lines)) for row in rows]
    value = [100 * row.certified_accuracy for row in rows]
    axes.vlines(
        left,
        [100 * row.certified_low for row in rows],
        [100 * row.certified_high for row in rows],
        color=look["color"],
        alpha=0.35,
        linewidth=1.4,
    )
    axes.plot(left, value, markersize=5, label=chain, **look)  # type: ignore[arg-type]


def _draw_instability(axes: Axes, rows: Sequence[SummaryRow], chain: str, look: dict[str, str]) -> None:
    left = [part_left(row) for row in rows]
    axes.plot(left, [row.mean_unstable for row in rows], markersize=5, label=chain, **look)  # type: ignore[arg-type]
    axes.plot(left, [row.mean_unstable_interval for row in rows], color=look["color"], linestyle=":", linewidth=1.2)


def accuracy_and_work(rows: Sequence[SummaryRow]) -> Figure:
    """Certified accuracy with its 95 % interval, and below it the work of a proof in domains and in seconds, mean per
    image, against the part of all parameters that is left: a column per architecture, a line per chain.

    Controls are hollow: unpruned networks that trained on, networks with masks at random, small dense ones.
    """
    names = list(dict.fromkeys(row.architecture for row in rows))
    with _style():
        figure = Figure(figsize=(1.2 + 4.4 * len(names), 6.6), layout="constrained")
        panels = figure.subplots(3, len(names), squeeze=False, sharex="col", sharey="row", height_ratios=(3, 2, 2))
        for column, name in zip(panels.T, names, strict=True):
            own = [row for row in rows if row.architecture == name]
            for index, chain in enumerate(chain_names(own)):
                _draw_chain_work(column, [row for row in own if chain in row.chains], chain, _look(index))
            _finish_work(column, name, own)
        for axes, label in zip(panels[:, 0], ("certified accuracy (%)", "domains", "seconds"), strict=True):
            axes.set_ylabel(label)
        # One axis for the columns of a row, whichever of them was drawn last.
        panels[1, 0].set_ylim(0, 2 * max([1.0, *(row.mean_domains for row in rows if row.mean_domains > 0)]))
        figure.supxlabel("part of all parameters left (sparser to the right)", fontsize=9.5, color="#334155")
    return figure


def _draw_chain_work(column: NDArray[Any], rows: Sequence[SummaryRow], chain: str, look: dict[str, str]) -> None:
    """The line of a chain in all panels of a column, with its controls as points."""
    line = sorted((row for row in rows if not row.control), key=lambda row: -part_left(row))
    _draw_certified(column[0], line, chain, look)
    for axes, work in zip(column[1:], WORK, strict=True):
        axes.plot([part_left(row) for row in line], [work(row) for row in line], markersize=5, **look)
    for control in dict.fromkeys(row.control for row in rows if row.control):
        beside = [row for row in rows if row.control == control]
        hollow = {**look, "linestyle": "", "markerfacecolor": "none", "marker": CONTROL_MARKERS.get(control, "h")}
        left = [part_left(row) for row in beside]
        column[0].plot(
            left,
            [100 * row.certified_accuracy for row in beside],
            label=f"{chain}: {control.replace('_', ' ')}",
            **hollow,
        )
        for axes, work in zip(column[1:], WORK, strict=True):
            axes.plot(left, [work(row) for row in beside], **hollow)


def _finish_work(column: NDArray[Any], name: str, rows: Sequence[SummaryRow]) -> None:
    column[0].set(title=name, xscale="log")
    column[0].set_ylim(bottom=0)
    column[0].legend(fontsize=7.5, loc="lower left")
    column[1].set_yscale("symlog", linthresh=0.1)
    column[2].set_ylim(bottom=0)
    for axes in column:
        _density_ticks(axes, rows)
    for axes in column[1:]:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    column[0].invert_xaxis()


def _draw_proofs(axes: Axes, rows: Sequence[SummaryRow], chain: str, look: dict[str, str]) -> None:
    left = [part_left(row) for row in rows]
    axes.plot(left, [row.mean_certificate_bytes / 1024 for row in rows], markersize=5, label=chain, **look)  # type: ignore[arg-type]


def part_left(row: SummaryRow) -> float:
    """The part of all parameters that is left; where there is no dense network to compare with, the density."""
    return row.density if math.isnan(row.parameters_left) else row.parameters_left


def _percent_of_dense(axes: Axes, rows: Sequence[SummaryRow]) -> None:
    """A second scale on the right of a panel: percent of the dense network's ReLUs."""
    dense = max((row.relus for row in rows if row.state == 0), default=0)
    if dense:
        functions = (lambda count: 100 * count / dense, lambda percent: percent * dense / 100)
        axes.secondary_yaxis("right", functions=functions).set_ylabel(f"% of the dense network's {dense:,} ReLUs")


def _panels(rows: Sequence[SummaryRow], draw: Draw, label: str) -> Figure:
    names = list(dict.fromkeys(row.architecture for row in rows))
    with _style():
        figure = Figure(figsize=(1.2 + 4.4 * len(names), 3.5), layout="constrained")
        panels = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
        for axes, name in zip(panels, names, strict=True):
            own = [row for row in rows if row.architecture == name]
            _panel(axes, name, own, draw)
            if draw is _draw_instability:
                _percent_of_dense(axes, own)
        figure.axes[0].set_ylabel(label)
    return figure


def _panel(axes: Axes, name: str, rows: Sequence[SummaryRow], draw: Draw) -> None:
    for index, chain in enumerate(chain_names(rows)):
        line = sorted((row for row in rows if chain in row.chains), key=lambda row: -part_left(row))
        draw(axes, line, chain, _look(index))
    axes.set(title=name, xlabel="part of all parameters left (sparser to the right)", xscale="log")
    _density_ticks(axes, rows)
    axes.invert_xaxis()
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8.5, loc="best")


def _density_ticks(axes: Axes, rows: Sequence[SummaryRow]) -> None:
    """Ticks where networks are, as far as their labels have room."""
    ticks = _spread(sorted({round(part_left(row), 2) or part_left(row) for row in rows}))
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
    axes.minorticks_off()


def _look(index: int) -> dict[str, str]:
    """Colour and marker of the chain of that number; they go round at different times, so 49 pairs differ."""
    turn, colour = divmod(index, len(COLOURS))
    return {"color": COLOURS[colour], "marker": MARKERS[(colour + turn) % len(MARKERS)]}


def _spread(values: Sequence[float], ratio: float = 1.25) -> list[float]:
    """The values from the largest down, leaving out those whose labels would touch on a logarithmic axis."""
    kept: list[float] = []
    for value in sorted(values, reverse=True):
        if not kept or kept[-1] / value >= ratio:
            kept.append(value)
    return kept


COLUMNS = 4
"""Panels side by side at most."""


def unstable_by_layer(rows: Sequence[LayerRow]) -> Figure:
    """Part of unstable ReLUs in each layer, a panel for each chain and a colour for each density.

    CROWN bounds are solid lines, intervals dotted.
    """
    chains = list(dict.fromkeys(chain for row in rows for chain in row.chains))
    wide = max(1, min(COLUMNS, len(chains)))
    high = max(1, -(-len(chains) // wide))
    with _style():
        figure = Figure(figsize=(1.2 + 3.2 * wide, 0.6 + 2.7 * high), layout="constrained")
        panels = figure.subplots(high, wide, squeeze=False, sharey=True)
        for axes, chain in itertools.zip_longest(panels.flat, chains):
            if chain is None:
                axes.set_axis_off()
            else:
                _draw_layers(axes, chain, [row for row in rows if chain in row.chains])
        for axes in panels[:, 0]:
            axes.set_ylabel("unstable ReLUs (%)")
    return figure


def _draw_layers(axes: Axes, chain: str, rows: Sequence[LayerRow]) -> None:
    networks = {name: [row for row in rows if row.model == name] for name in dict.fromkeys(row.model for row in rows)}
    shades = mpl.colormaps["viridis"]
    for index, layers in enumerate(networks.values()):
        colour = shades(0.9 * index / max(1, len(networks) - 1))
        number = [row.layer + 1 for row in layers]
        axes.plot(number, [100 * row.crown for row in layers], color=colour, marker="o", markersize=4,
                  label=f"{layers[0].density:.2g}")  # fmt: skip
        axes.plot(number, [100 * row.interval for row in layers], color=colour, linestyle=":", linewidth=1.2)
    axes.set(title=chain, xlabel="ReLU layer")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0)
    axes.legend(title="density", fontsize=7.5, title_fontsize=7.5, loc="best")


class TimedVerdict(Protocol):
    """An answer with the time that it took."""

    @property
    def verdict(self) -> Verdict: ...

    @property
    def seconds(self) -> float: ...


def training_curves(models: Sequence[ModelRecord]) -> Figure:
    """Loss of each network after each epoch, and the accuracy of images held out of training: certified by cheap bounds
    (solid) and standard (dotted). A grey line is where the radius of training is the full one."""
    with _style():
        figure = Figure(figsize=(9.5, 3.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        for index, model in enumerate(models):
            colour = COLOURS[index % len(COLOURS)]
            look: dict[str, Any] = {"color": colour, "linewidth": 1.2}
            epochs = [row["epoch"] for row in model.curve]
            dash = DASHES[index // len(COLOURS) % len(DASHES)]
            left.plot(epochs, [row["loss"] for row in model.curve], dash, label=in_a_plot(model.name), **look)
            for quantity, style in (("certified", "-"), ("standard", ":")):
                right.plot(epochs, _percents([row[quantity] for row in model.curve]), style, **look)
        for epoch in sorted({full_radius(model) for model in models if model.curve}):
            for axes in (left, right):
                axes.axvline(epoch, color="#64748b", linewidth=0.8, zorder=0)
        left.set(xlabel="epoch", ylabel="loss")
        right.set(xlabel="epoch", ylabel="accuracy of images held out (%)", ylim=(0, 100))
        for axes in (left, right):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if models:
            figure.legend(loc="outside right upper", fontsize=7.5)
    return figure


def full_radius(model: ModelRecord) -> float:
    """The first epoch at whose end the radius of training is the largest of the curve."""
    most = max(row["epsilon"] or 0.0 for row in model.curve)
    return min(row["epoch"] or 0.0 for row in model.curve if row["epsilon"] == most)


def _percents(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else 100 * value for value in values]


def cactus(groups: Mapping[str, Sequence[TimedVerdict]], reference: str = "") -> Figure:
    """Instances decided within a time limit: for each group, the k-th fastest answer against k.

    The group called ``reference`` is dotted: where it coincides with another, both are seen.
    """
    with _style():
        figure = Figure(figsize=(9.5, 3.8), layout="constrained")
        axes = figure.subplots()
        for index, (name, records) in enumerate(groups.items()):
            seconds = _decision_times(records)
            label = f"{in_a_plot(name)} ({len(seconds)}/{len(records)})"
            dashes, colour = DASHES[index // len(COLOURS) % len(DASHES)], COLOURS[index % len(COLOURS)]
            style, colour = (":", "black") if name == reference else (dashes, colour)
            axes.plot(range(1, len(seconds) + 1), seconds, style, color=colour, label=label)
        axes.set(xlabel="instances decided", ylabel="seconds each", xlim=(0, None))
        if any(_decision_times(records) for records in groups.values()):
            axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if groups:
            axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _decision_times(records: Sequence[TimedVerdict]) -> list[float]:
    """Seconds of the decided instances, rising; at least a millisecond, for the logarithmic axis."""
    times = [max(record.seconds, 1e-3) for record in records if record.verdict in DECIDED]
    return sorted(seconds for seconds in times if not math.isnan(seconds))


def in_a_plot(name: str) -> str:
    """A name as matplotlib draws it: a folder's name need not be text, and a dollar sign begins no formula."""
    return name.encode("utf-8", errors="replace").decode().replace("$", r"\$")


@dataclass(frozen=True)
class TimePair:
    """The times of one instance in two runs, in seconds; infinity where it was not decided rightly."""

    first: float
    second: float
    kind: str
    """What the answers are: one of the keys of `PAIR_COLOURS`."""


PAIR_COLOURS = {"unsat": COLOURS[2], "sat": COLOURS[1], "differ": COLOURS[3]}
"""Colour of each kind of pair."""


def time_scatter(pairs: Sequence[TimePair], first: str, second: str, limit: float) -> Figure:
    """Seconds of each instance in one run against another, on logarithmic axes of one length.

    Below the diagonal the second is faster. What one of them did not decide stands on a line of its own, beyond the
    limit in seconds.
    """
    times = [time for pair in pairs for time in (pair.first, pair.second) if math.isfinite(time)]
    low = max(1e-3, min(times, default=1e-2)) / 1.5
    high = max([*times, limit if math.isfinite(limit) else 0.0, 1.0])
    beyond, ends = 1.8 * high, (low, 2.2 * high)
    with _style():
        figure = Figure(figsize=(5.2, 5.0), layout="constrained")
        axes = figure.subplots()
        for kind, colour in PAIR_COLOURS.items():
            own = [pair for pair in pairs if pair.kind == kind]
            x = [min(max(pair.first, low), beyond) for pair in own]
            y = [min(max(pair.second, low), beyond) for pair in own]
            axes.scatter(x, y, s=14, color=colour, alpha=0.6, linewidths=0, label=f"{kind} ({len(own)})")
        axes.plot([low, high], [low, high], color="#9aa4b2", linewidth=1, zorder=0)
        for draw in (axes.axhline, axes.axvline):
            draw(beyond, color="#9aa4b2", linewidth=0.8, linestyle=":", zorder=0)
        axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends, aspect="equal")
        axes.set(xlabel=f"{in_a_plot(first)} (seconds)", ylabel=f"{in_a_plot(second)} (seconds)")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        beside = axes.get_yaxis_transform()  # outside of the axes, where no point can lie under it
        axes.text(1.02, beyond, "not\ndecided", fontsize=7.5, color="#64748b", va="center", transform=beside)
        axes.legend(fontsize=8, loc="lower right")
    return figure


def to_svg(figure: Figure) -> str:
    """The figure as an ``<svg>`` element for a page."""
    with _style():
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def save_png(figure: Figure, path: Path) -> None:
    """Write the figure as PNG, atomically."""
    with _style():
        data = io.BytesIO()
        figure.savefig(data, format="png", dpi=160, facecolor="white")
    write_bytes_atomically(path, data.getvalue())
