"""Kinds about single operators of the ONNX standard, against onnxruntime on the file."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from choices import Choices
from kinds import Wrong, kind
from operator_checks import fault_of
from random_operators import random_operator_case


@kind(share=3)
def operators(choices: Choices) -> int:
    """Any operator, version, attribute and operand of the standard: refused, or compiled and bounded rightly."""
    generator = np.random.default_rng((choices.seed(), choices.seed()))
    model, description = random_operator_case(generator)
    with tempfile.TemporaryDirectory() as folder:
        fault = fault_of(model, Path(folder), generator)
    if fault:
        raise Wrong(description.split("-")[0], f"{description}: {fault}")
    return int(fault is not None)
