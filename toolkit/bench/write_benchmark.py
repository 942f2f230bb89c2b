"""Write robustness benchmarks in VNN-COMP layout.

::

    onnx/  vnnlib/  instances.csv          VNN-LIB 1.0; what the tools of all years read
    2.0/{onnx/ vnnlib/ instances.csv}      the same instances in VNN-LIB 2.0, in the same order (layout of 2026)
    images.npz  properties.json            what generate_properties.py needs to draw other images

Specifications belong to images and are shared by all networks. Same input, same bytes.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolkit.bench.atomic_files import write_bytes_atomically, write_text_atomically
from toolkit.formats.onnx.model_file import OnnxModel, load_model
from toolkit.formats.vnncomp.instances import write_instances
from toolkit.formats.vnncomp.model_binding import BARE
from toolkit.formats.vnnlib.convert_versions import upgrade
from toolkit.formats.vnnlib.specs import InputBox, linf_box, robustness
from toolkit.formats.vnnlib.write import write_query


@dataclass(frozen=True)
class RobustnessBenchmark:
    """Local robustness: no point within ``epsilon`` of an image has another class; time limit in seconds."""

    name: str
    epsilon: float
    timeout: float
    images: int
    """Number of images, the first of the test set."""
    low: float = 0.0
    """Least value of an input; greatest value."""
    high: float = 1.0
    radii: tuple[float, ...] = ()
    """Radius of each element in multiples of ``epsilon``; empty where all have that one."""

    @property
    def told_radius(self) -> str:
        """Radius and range of the inputs as a comment says them."""
        least = f"{min(self.radii) * self.epsilon!r} to " if self.radii else ""
        return f"L-infinity radius {least}{self.epsilon!r} in [{self.low:g}, {self.high:g}]"

    def box(self, image: NDArray[np.float32]) -> InputBox:
        """The ball around an image."""
        radius = np.array(self.radii or 1.0) * self.epsilon
        return linf_box(image, radius, self.low, self.high)


def write_benchmark(
    folder: Path,
    networks: Sequence[str],
    pool: tuple[NDArray[np.float32], NDArray[np.int64]],
    properties: RobustnessBenchmark,
) -> None:
    """Write the specifications and instance lists for networks (paths in the folder) that are there already.

    ``pool`` are the test images ``(N, ...)`` in the range of the properties, and their labels ``(N,)``. What an earlier
    run left behind is removed.
    """
    model = load_model(folder / networks[0])
    for leftover in (folder / "vnnlib", folder / "2.0"):
        shutil.rmtree(leftover, ignore_errors=True)
        leftover.mkdir(parents=True)
    (folder / "2.0" / "vnnlib").mkdir()
    images, labels = pool
    specs = [
        write_specification(folder, model, properties, index, images[index], int(labels[index]))
        for index in range(properties.images)
    ]
    _remove_others(folder / "onnx", networks)
    _link_networks(folder, networks)
    rows = [({BARE: network}, spec, properties.timeout) for network in networks for spec in specs]
    for place in (folder, folder / "2.0"):
        write_instances(place / "instances.csv", rows)
    write_pool(folder, images, labels)
    facts = vars(properties) | {"classes": model.outputs[0].size, "networks": list(networks)}
    write_text_atomically(folder / "properties.json", json.dumps(facts, indent=1) + "\n")


def write_specification(
    folder: Path, model: OnnxModel, properties: RobustnessBenchmark, index: int, image: NDArray[np.float32], label: int
) -> str:
    """Write one image's specification in both versions; its path in the folder."""
    inputs, outputs = model.inputs[0], model.outputs[0]
    spec = f"vnnlib/{properties.name}_{index:05d}.vnnlib"
    query = robustness(properties.box(image), label, outputs.size)
    comments = (f"test image {index}, label {label}: {properties.told_radius}",)
    write_query(query, folder / spec, "1.0", comments)
    lifted = upgrade(query, [inputs.shape], [outputs.shape], inputs.dtype, outputs.dtype)
    write_query(lifted, folder / "2.0" / spec, "2.0", comments)
    return spec


def _remove_others(folder: Path, networks: Iterable[str]) -> None:
    keep = {Path(network).name for network in networks}
    for path in folder.iterdir():
        if path.name not in keep:
            path.unlink()


def _link_networks(folder: Path, networks: Iterable[str]) -> None:
    """The networks once more for 2.0: as hard links, or copies where the file system has none."""
    (folder / "2.0" / "onnx").mkdir()
    for network in networks:
        try:
            os.link(folder / network, folder / "2.0" / network)
        except OSError:
            shutil.copyfile(folder / network, folder / "2.0" / network)


def write_pool(folder: Path, images: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
    """Write the images that the generator draws from, with their labels."""
    data = io.BytesIO()
    np.savez_compressed(data, images=images, labels=labels)
    write_bytes_atomically(folder / "images.npz", data.getvalue())
