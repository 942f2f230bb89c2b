"""One question about one network: `verify`, and what may be asked."""

from __future__ import annotations

import operator
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeGuard

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prunecert._models import Model, load
from toolkit.devices import without_modes_of_the_caller
from toolkit.errors import InputError, one_line
from toolkit.result import Result
from toolkit.settings import Settings

if TYPE_CHECKING:
    from toolkit.formats.onnx.model_file import OnnxModel
    from toolkit.formats.vnnlib.query import Query
    from toolkit.run.clock import Clock
    from toolkit.verify import LoadedNetwork

DEFAULTS = Settings()


@dataclass(frozen=True, eq=False)
class Robustness:
    """Whether a network's answer stays the same in a ball of the maximum norm around one input.

    ``sat`` is a point of the ball where another output is at least as large as the label's; ``unsat`` says that there
    is none. A tie counts as another answer. Bounds of the ball are rounded inwards to the element type of the network's
    input.
    """

    center: ArrayLike
    """The input, in the shape of the network's or flat; without the batch dimension, or with one of size 1."""
    epsilon: ArrayLike
    """Radius in the units of the network's input: a number, or one for each element, in the shape of the centre."""
    label: int
    """Index of the output that is to stay the largest, counted from 0."""
    clip: tuple[float, float] | None = None
    """Least and largest value of every element of an input, (0, 1) for images; without it the ball is not cut."""


@without_modes_of_the_caller()
def verify(
    model: Model | Mapping[str, Model],
    spec: str | os.PathLike[str] | Robustness,
    *,
    input_shape: Sequence[int] | None = None,
    settings: Settings = DEFAULTS,
    timeout: float | None = None,
    device: Literal["auto", "cpu", "cuda"] | None = None,
    seed: int | None = None,
) -> Result:
    """Decide a question about a network: is there a point in the *unsafe* set?

    ``unsat`` says that there is none, so that the property holds. ``sat`` comes with a witness, which onnxruntime
    replayed. ``unknown``, ``timeout`` and ``error`` come with a reason. What is verified is always the ONNX file: a
    module is exported to a temporary one, in evaluation mode, and read back from it.

    Everything happens in this process, so that nothing holds a time limit from outside: a library that crashes takes
    the caller along. The command ``prunecert verify`` guards against that.

    Args:
        model: Path of an ``.onnx`` or ``.onnx.gz`` file, an ``onnx.ModelProto``, or a ``torch.nn.Module``; for a
            specification of several networks a mapping from their names there.
        spec: Path of a ``.vnnlib`` or ``.vnnlib.gz`` file, its text (a string that begins with a parenthesis or a
            semicolon), or a `Robustness` question.
        input_shape: Shape of one input of a torch module, without the batch dimension; for a module only.
        settings: All settings of the verifier.
        timeout: Time limit in seconds, in place of the settings' (60 by default); exporting and reading count.
        device: Where bounds are computed, in place of the settings'.
        seed: Seed of the attack, in place of the settings'.

    Raises:
        InputError: a file is missing or malformed, the network and the question do not fit each other, or a setting is
            out of range.
        UnsupportedError: the input is legal, but cannot be handled: a module that torch cannot export, say.
    """
    from toolkit.run.clock import Clock
    from toolkit.verify import LoadedNetwork
    from toolkit.verify import verify as decide

    given = {"timeout": timeout, "device": device, "seed": seed}
    chosen = settings.changed({name: value for name, value in given.items() if value is not None})
    clock = Clock.started(chosen.timeout, passes=chosen.passes)
    models = dict(model) if isinstance(model, Mapping) else {"": model}
    loaded = {name: load(one, input_shape) for name, one in models.items()}
    query = _query(spec, loaded)
    networks = {name: LoadedNetwork(one) for name, one in loaded.items()}
    if chosen.certified:
        return _verify_certified(models, networks, spec, query, chosen, clock)
    return decide(networks, query, chosen, clock=clock)


def _verify_certified(
    models: Mapping[str, Model],
    networks: Mapping[str, LoadedNetwork],
    spec: str | os.PathLike[str] | Robustness,
    query: Query,
    settings: Settings,
    clock: Clock,
) -> Result:
    """The answer where `unsat` needs a certificate: the checker reads files, so what is in memory is written to some,
    and the certificate goes with them."""
    from toolkit.certificates.verify_with_certificate import ProofFiles, verify_with_certificate
    from toolkit.formats.vnnlib.write import write_query
    from toolkit.run.events import silent

    with tempfile.TemporaryDirectory(prefix="prunecert-") as name:
        folder, paths = Path(name), dict[str, Path]()
        for number, (key, model) in enumerate(models.items()):
            if isinstance(model, str | os.PathLike):
                paths[key] = Path(model)
            else:
                paths[key] = folder / f"network_{number}.onnx"
                paths[key].write_bytes(networks[key].model.data)
        specification = folder / "query.vnnlib"
        if isinstance(spec, Robustness):
            write_query(query, specification)
        elif _is_text(spec):
            specification.write_text(spec, encoding="utf-8")
        else:
            specification = Path(spec)
        files = ProofFiles(paths, specification, folder / "certificate")
        found = verify_with_certificate(files, networks, settings, silent, clock)
        return replace(found, reason=found.reason.replace(f"{name}{os.sep}", ""))  # the folder is gone when it is read


def _query(spec: str | os.PathLike[str] | Robustness, models: Mapping[str, OnnxModel]) -> Query:
    """The question as the verifier reads it."""
    from toolkit.formats.vnnlib.read import parse_query, read_query

    if isinstance(spec, Robustness):
        if len(models) != 1:
            raise InputError(f"a Robustness question is about one network, not {len(models)}")
        return _robustness(spec, *models.values())
    if _is_text(spec):
        return parse_query(spec, "the specification")
    if isinstance(spec, str | os.PathLike):
        return read_query(Path(spec))
    raise InputError(f"a specification is a path, VNN-LIB text or a Robustness question, not a {type(spec).__name__}")


def _is_text(spec: object) -> TypeGuard[str]:
    """Whether this is the text of a specification, and no path."""
    return isinstance(spec, str) and spec.lstrip().startswith(("(", ";"))


def _robustness(question: Robustness, model: OnnxModel) -> Query:
    """The specification of the question, of version 1.0."""
    from toolkit.commands.spec import single
    from toolkit.formats.vnnlib import specs

    (x,), (y,) = single(model).inputs, model.outputs
    center, epsilon = _numbers(question.center, "center"), _numbers(question.epsilon, "epsilon")
    if center.size != x.size:
        raise InputError(f"center: {center.size} numbers, but the input of {model.path} has {x.size}")
    if epsilon.size not in (1, x.size):
        raise InputError(f"epsilon: {epsilon.size} numbers, but the input of {model.path} has {x.size}")
    limits = np.finfo(x.dtype)
    low, high = question.clip or (float(limits.min), float(limits.max))
    if not low < high:
        raise InputError(f"clip: the first number must be below the second, not {low} and {high}")
    ball = specs.linf_box(center, epsilon, low, high, x.dtype)
    return specs.robustness(ball, _whole(question.label, "label"), y.size)


def _whole(value: int, name: str) -> int:
    """A whole number, of whatever library."""
    try:
        return operator.index(value)
    except TypeError as error:
        raise InputError(f"{name}: not a whole number: {value!r}") from error


def _numbers(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """An array of numbers, flat."""
    try:
        return np.asarray(values, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError, RuntimeError) as error:  # the last is torch's, of tensors with a gradient
        raise InputError(f"{name}: not an array of numbers ({one_line(error)})") from error
