"""Stability layer by layer: counts of the verifier on common images, per method, and tables that show them."""

from __future__ import annotations

import csv
import io
import math

import pytest

from toolkit.bench.journal import JournalRecord
from toolkit.report.layer_stability import layer_rows, unstable_csv, unstable_table, width_table
from toolkit.report.plots import to_svg, unstable_by_layer
from toolkit.report.summary import ModelRecord
from toolkit.result import Statistics, Verdict


def model(name: str, density: float, **more: object) -> ModelRecord:
    return ModelRecord(name, ("c",), "conv", "slim", 0, density, 9, f"{name}.onnx", 0.9, 0.9, **more)  # type: ignore[arg-type]


def record(network: str, image: int, *layers: dict[str, int]) -> JournalRecord:
    found = Statistics(layers={f"relu_{number}": counts for number, counts in enumerate(layers)})
    return JournalRecord(
        f"{network}-{image}", "toy", f"{network}.onnx", f"{image}.vnnlib", 1.0, Verdict.UNSAT, "", 0.1, found
    )


def counts(neurons: int, interval: int, crown: int, alpha: int | None = None) -> dict[str, int]:
    found = {"neurons": neurons, "interval": interval, "crown": crown}
    return found if alpha is None else found | {"alpha-crown": alpha}


RECORDS = [
    record("dense", 0, counts(10, 8, 4, 2), counts(4, 4, 3, 3)),
    record("dense", 1, counts(10, 6, 2), counts(4, 4, 4)),
    record("dense", 2, counts(10, 0, 0), counts(4, 0, 0)),
    record("pruned", 0, counts(10, 4, 2), counts(4, 2, 1)),
    record("pruned", 1, counts(10, 2, 0), counts(4, 2, 1)),
    record("pruned", 3),
]
MODELS = [model("dense", 1.0), model("pruned", 0.5)]


def test_interval_and_crown_speak_of_the_same_images_for_all_networks() -> None:
    dense, _, pruned, last = layer_rows(MODELS, RECORDS)
    assert (dense.images, dense.interval, dense.crown) == (2, pytest.approx(0.7), pytest.approx(0.3))
    assert (pruned.images, pruned.interval, pruned.crown) == (2, pytest.approx(0.3), pytest.approx(0.1))
    assert (last.layer, last.neurons, last.interval) == (1, 4, pytest.approx(0.5))


def test_optimised_bounds_have_images_of_their_own() -> None:
    dense, _, pruned, _ = layer_rows(MODELS, RECORDS)
    assert (dense.optimised_images, dense.optimised) == (1, pytest.approx(0.2))
    assert pruned.optimised_images == 0
    assert math.isnan(pruned.optimised)
    assert unstable_table([pruned]).rows[0][-1].text == "–"


def test_seeds_are_put_together() -> None:
    models = [model(f"m-seed{seed}", 0.5, group="m", seed=seed) for seed in (1, 2)]
    records = [record("m-seed1", 0, counts(10, 8, 4)), record("m-seed2", 0, counts(20, 8, 4))]
    [row] = layer_rows(models, records)
    assert (row.model, row.images, row.neurons, row.interval) == ("m", 2, 15, pytest.approx(0.6))


def test_networks_without_bounds_have_no_rows() -> None:
    assert layer_rows([*MODELS, model("never", 0.1)], RECORDS)[-1].model == "pruned"
    assert layer_rows(MODELS, []) == []
    assert to_svg(unstable_by_layer([])).startswith("<svg")


def test_the_csv_has_every_method_on_all_of_its_images() -> None:
    lines = list(csv.DictReader(io.StringIO(unstable_csv(MODELS, RECORDS))))
    first = [(line["method"], line["images"], float(line["unstable_ratio"])) for line in lines if line["layer"] == "0"]
    assert first[:3] == [
        ("interval", "3", pytest.approx(14 / 30, abs=1e-6)),
        ("crown", "3", 0.2),
        ("alpha-crown", "1", 0.2),
    ]
    assert [line["model"] for line in lines].count("pruned") == 4


def test_every_chain_has_a_panel_with_a_line_for_each_network_and_method() -> None:
    figure = unstable_by_layer(layer_rows(MODELS, RECORDS))
    [panel] = [axes for axes in figure.axes if axes.get_title(loc="left") == "c"]
    drawn = [line.get_ydata().tolist() for line in panel.lines]
    assert drawn[0] == pytest.approx([30, 87.5])
    assert drawn[3] == pytest.approx([30, 50])


def test_widths_stand_before_and_after_batch_normalisation() -> None:
    values = {"neurons": 10.0, "unstable_ratio": 0.25, "width": 2.0, "width_before_norm": 0.5, "instability": -1.0}
    [row] = width_table([model("m", 1.0, layers=(values,))]).rows
    assert [cell.text for cell in row] == ["m", "1", "25.0 %", "–", "2", "0.5", "-1", "–", "–"]
