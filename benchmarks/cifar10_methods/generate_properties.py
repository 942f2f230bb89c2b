"""Draw the images of this benchmark: ``python generate_properties.py SEED`` writes vnnlib/ and instances.csv here.

Seed 0 takes the first images of the test set, which are the ones in this folder; any other seed draws as many at
random. Needs numpy only, and reads images.npz, properties.json and the names in onnx/.
"""

import json
import random
import shutil
import sys
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np


def inward(value: Fraction, sign: int) -> float:
    """The nearest float32 at or above the value (sign 1), or at or below it (sign -1)."""
    number = np.float32(float(value))
    if sign * Fraction(float(number)) < sign * value:
        number = np.nextafter(number, np.float32(sign * np.inf))
    return float(number)


def decimal(value: float) -> str:
    """The shortest decimal without exponent that reads back as the same number."""
    text = format(Decimal(repr(value + 0.0)), "f")
    return text if "." in text else text + ".0"


def bounds(pixel: float, radius: float, low: float, high: float) -> tuple[float, float]:
    """The interval around a pixel, or a feature, inside of [low, high]."""
    lower = inward(max(Fraction(low), Fraction(pixel) - Fraction(radius)), 1)
    upper = inward(min(Fraction(high), Fraction(pixel) + Fraction(radius)), -1)
    return (lower, upper) if lower <= upper else (pixel, pixel)


def specification(index: int, pixels: list[float], label: int, properties: dict[str, Any]) -> str:
    """Unsafe: a point near the image where another class scores at least as high as the label."""
    epsilon, radii, classes = properties["epsilon"], properties.get("radii") or [], properties["classes"]
    low, high = properties.get("low", 0.0), properties.get("high", 1.0)
    least = f"{min(radii) * epsilon!r} to " if radii else ""
    lines = [f"; test image {index}, label {label}: L-infinity radius {least}{epsilon!r} in [{low:g}, {high:g}]"]
    lines += [f"(declare-const X_{i} Real)" for i in range(len(pixels))]
    lines += [f"(declare-const Y_{k} Real)" for k in range(classes)]
    lines.append("")
    for i, pixel in enumerate(pixels):
        lower, upper = bounds(pixel, radii[i] * epsilon if radii else epsilon, low, high)
        lines += [f"(assert (<= X_{i} {decimal(upper)}))", f"(assert (>= X_{i} {decimal(lower)}))"]
    lines.append("(assert (or")
    lines += [f"  (and (<= Y_{label} Y_{k}))" for k in range(classes) if k != label]
    lines.append("))")
    return "\n".join(lines) + "\n"


def main(seed: int) -> None:
    """Write the specifications and the instance list."""
    properties = json.loads(Path("properties.json").read_text(encoding="utf-8"))
    pool = np.load("images.npz")
    images, labels = pool["images"], pool["labels"]
    count = properties["images"]
    chosen = range(count) if seed == 0 else sorted(random.Random(seed).sample(range(len(labels)), count))
    shutil.rmtree("vnnlib", ignore_errors=True)
    Path("vnnlib").mkdir()
    specs = []
    for index in chosen:
        pixels = [float(value) for value in images[index].reshape(-1)]
        specs.append(f"vnnlib/{properties['name']}_{index:05d}.vnnlib")
        text = specification(index, pixels, int(labels[index]), properties)
        Path(specs[-1]).write_text(text, encoding="utf-8")
    seconds = repr(properties["timeout"]).removesuffix(".0")
    rows = [f"{network},{spec},{seconds}\n" for network in properties["networks"] for spec in specs]
    Path("instances.csv").write_text("".join(rows), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1].isdecimal():
        sys.exit("usage: python generate_properties.py SEED")
    main(int(sys.argv[1]))
