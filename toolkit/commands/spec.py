"""``prunecert spec``: make a specification, one command for each kind; loads no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from cyclopts import App, Parameter
from numpy.typing import NDArray

from toolkit.commands.arguments import Flag, print_json
from toolkit.commands.row_options import READING, Reading, RowBalls
from toolkit.errors import InputError, UnsupportedError
from toolkit.experiments.row_questions import ask, write_folder
from toolkit.formats.onnx.model_file import OnnxModel, TensorInfo, load_model
from toolkit.formats.onnx.runtime import Session
from toolkit.formats.points import read_numbers
from toolkit.formats.vnnlib import specs
from toolkit.formats.vnnlib.convert_versions import beside_others, upgrade
from toolkit.formats.vnnlib.query import Query
from toolkit.formats.vnnlib.write import write_query

spec = App(name="spec")


@Parameter(name="*")
@dataclass(frozen=True)
class Region:
    """The inputs that are asked about: a ball around a point, or a box."""

    input: str | None = None
    """The centre: FILE.npy, FILE.npz:KEY, or a text file of numbers (.csv, .txt)."""
    epsilon: float | None = None
    """L-infinity radius around the centre, in the units of the network's input."""
    clip: Annotated[tuple[float, float] | None, Parameter(negative=())] = None
    """Least and largest value of every input (0 1 for images); without it the ball is not cut."""
    lower: str | None = None
    """File of the lower bounds of all inputs, in place of a ball."""
    upper: str | None = None
    """File of the upper bounds of all inputs."""


@Parameter(name="*")
@dataclass(frozen=True)
class File:
    """The file to write."""

    output: Annotated[Path, Parameter(alias="-o")]
    """The file to write, plain or .gz."""
    vnnlib: Literal["1.0", "2.0"] | None = None
    """Version of VNN-LIB: 1.0 unless the specification is about two networks, which needs 2.0."""
    real: Flag = False
    """In version 2.0, declare the tensors real instead of the network's element type."""
    json: Flag = False
    """Print one JSON object instead."""


NOWHERE = Region()


@spec.command
def robustness(
    *,
    network: Path,
    file: File,
    region: Region = NOWHERE,
    output_name: str | None = None,
    label: int | None = None,
    target: int | None = None,
    top_k: int | None = None,
    lowest: Flag = False,
) -> int:
    """The network's answer stays the same.

    Parameters
    ----------
    network
        The network, .onnx or .onnx.gz.
    output_name
        The output that is asked about, where the network has several; by default its only one of floats.
    label
        The output that is to stay largest; by default the one that is largest at --input.
    target
        The only output that must not reach the label's; by default none may.
    top_k
        The label need only stay among the K largest outputs.
    lowest
        The network's answer is its least output, not its largest.
    """
    if top_k is not None and (target is not None or lowest):
        raise InputError("--top-k does not go with --target or --lowest")
    asked = _asked(network, output_name)
    if label is None:
        label = _answer(asked, region, lowest)
    box, size = _box(region, asked.model), asked.output.size
    if top_k is not None:
        query, property_ = specs.top_k(box, label, size, top_k), f"is among the {top_k} largest"
    else:
        others = "all others" if target is None else f"output {target}"
        query = specs.robustness(box, label, size, target, lowest)
        property_ = f"is {'below' if lowest else 'above'} {others}"
    return _write_about(asked, query, file, region, f"output {label} {property_}")


@spec.command
def output_range(
    *,
    network: Path,
    file: File,
    region: Region = NOWHERE,
    output_name: str | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    output_index: int | None = None,
) -> int:
    """Outputs stay strictly between two numbers.

    Parameters
    ----------
    network
        The network, .onnx or .onnx.gz.
    output_name
        The output that is asked about, where the network has several; by default its only one of floats.
    minimum
        Outputs stay above it.
    maximum
        Outputs stay below it.
    output_index
        The only output that is asked about; by default all.
    """
    asked = _asked(network, output_name)
    outputs = None if output_index is None else [output_index]
    query = specs.output_range(_box(region, asked.model), asked.output.size, minimum, maximum, outputs)
    which = "every output" if output_index is None else f"output {output_index}"
    bounds = [f"{word} {bound}" for word, bound in (("above", minimum), ("below", maximum)) if bound is not None]
    return _write_about(asked, query, file, region, f"{which} is {' and '.join(bounds)}")


@spec.command
def agreement(
    *,
    network: Annotated[list[Path], Parameter(negative=())],
    file: File,
    tolerance: float,
    region: Region = NOWHERE,
) -> int:
    """Two networks agree, for example before and after pruning. The specification calls them f and g.

    Parameters
    ----------
    network
        One of the two networks, .onnx or .onnx.gz; the option is given twice, first for f.
    tolerance
        Largest difference of any output that counts as agreement.
    """
    _check_tolerance(tolerance)
    if len(network) != 2:
        raise InputError(f"agreement is between two networks: give --network twice, not {len(network)} times")
    f, g = map(_load, network)
    if _interface(f) != _interface(g):
        raise InputError(f"{f.path} and {g.path}: they differ in the shapes or types of input and output")
    box = _box(region, f)
    query = specs.agreement(box, f.inputs[0].shape, f.outputs[0].shape, tolerance, _two_network_type(f, file))
    return _write(query, file, [f, g], region, f"no output of f and g differs by more than {tolerance}")


@spec.command
def monotonicity(
    *,
    network: Path,
    file: File,
    feature: int,
    output_index: int = 0,
    decreasing: Flag = False,
    tolerance: float = 0.0,
    region: Region = NOWHERE,
) -> int:
    """Raising one input never lowers an output. The specification calls the network f and, a second time, g.

    Parameters
    ----------
    network
        The network, .onnx or .onnx.gz.
    feature
        Number of the input that is raised, counted from 0 through the flattened input.
    output_index
        Number of the output.
    decreasing
        Raising the input never raises the output.
    tolerance
        Largest change in the wrong direction that is allowed. Proofs need one: at two equal inputs nothing changes.
    """
    _check_tolerance(tolerance)
    model = _load(network)
    box, dtype = _box(region, model), _two_network_type(model, file)
    shapes = model.inputs[0].shape, model.outputs[0].shape
    query = specs.monotonicity(box, *shapes, feature, output_index, not decreasing, dtype, tolerance)
    wrong = f"{'rise' if decreasing else 'fall'}{f' by more than {tolerance}' if tolerance else ''}"
    property_ = f"output {output_index} does not {wrong} when input {feature} rises"
    return _write(query, file, [model], region, property_)


@spec.command
def benchmark(
    network: Path,
    /,
    *,
    balls: RowBalls,
    output: Annotated[Path, Parameter(alias="-o")],
    reading: Reading = READING,
    timeout: float = 30.0,
    vnnlib: Literal["1.0", "2.0"] = "1.0",
    json: Flag = False,
) -> int:
    """A whole folder: the network's answer stays the same around each row of a file or a data set.

    It has the network, one specification for each row, instances.csv, and rows.csv, which says which row is which.

    Parameters
    ----------
    network
        The network, .onnx or .onnx.gz.
    output
        The folder to write; one that was written so before is written again.
    timeout
        Seconds for each row, in instances.csv.
    vnnlib
        Version of VNN-LIB.
    json
        Print one JSON object instead.
    """
    questions = ask(reading.question(network, balls.data, balls.labels, balls.epsilon))
    write_folder(questions, output, timeout, vnnlib)
    if json:
        count, total = len(questions.labels), questions.points.rows.total
        remarks = list(questions.classifier.remarks)
        print_json({"folder": str(output), "specifications": count, "rows": total, "remarks": remarks})
        return 0
    for remark in questions.classifier.remarks:
        print(f"{network}: {remark}")
    print(f"{output}: {len(questions.labels)} specifications of {questions.points.rows.total} rows")
    return 0


def _load(path: Path) -> OnnxModel:
    """A network with one floating-point input and output: the only ones that these kinds speak of."""
    return single(load_model(path))


def single(model: OnnxModel) -> OnnxModel:
    """The model itself, which has one input and one output, of floats. Raises UnsupportedError for any other."""
    _check_floats(model.path, "input", model.inputs)
    _check_floats(model.path, "output", model.outputs)
    return model


FLOATS = {"float32", "float64"}


def _check_floats(path: Path, kind: str, infos: Sequence[TensorInfo]) -> None:
    """Raise UnsupportedError unless there is one tensor, of floating-point numbers."""
    if len(infos) != 1:
        raise UnsupportedError(f"{path}: has {len(infos)} {kind}s; specifications are made for networks of one")
    if infos[0].dtype not in FLOATS:
        raise UnsupportedError(f"{path}: its {kind} {infos[0].name!r} is of type {infos[0].dtype}, not of floats")


@dataclass(frozen=True)
class SpecTarget:
    """A network of one floating-point input, and which of its outputs is asked about."""

    model: OnnxModel
    position: int

    @property
    def output(self) -> TensorInfo:
        return self.model.outputs[self.position]


def _asked(path: Path, name: str | None) -> SpecTarget:
    """The network with the output of this name, or with its only output of floating-point numbers."""
    model = load_model(path)
    _check_floats(path, "input", model.inputs)
    names = [info.name for info in model.outputs]
    if name is not None and name not in names:
        raise InputError(f"{path}: no output {name!r}; it has {', '.join(names)}")
    chosen = [info for info in model.outputs if (info.name == name if name is not None else info.dtype in FLOATS)]
    if len(names) > 1 and len(chosen) != 1:
        raise UnsupportedError(f"{path}: has the outputs {', '.join(names)}; say which is meant with --output-name")
    chosen = chosen or list(model.outputs)
    _check_floats(path, "output", chosen)
    return SpecTarget(model, names.index(chosen[0].name))


def _check_tolerance(tolerance: float) -> None:
    if not (np.isfinite(tolerance) and tolerance >= 0):
        raise InputError(f"--tolerance {tolerance}: a number that is not negative is needed")


def _interface(model: OnnxModel) -> list[tuple[tuple[int, ...], str]]:
    return [(info.shape, info.dtype) for info in (*model.inputs, *model.outputs)]


def _two_network_type(model: OnnxModel, file: File) -> str:
    """The type that a specification of two networks declares: it has one for inputs and outputs alike."""
    types = {info.dtype for info in (*model.inputs, *model.outputs)}
    if len(types) > 1 and not file.real:
        raise UnsupportedError(f"{model.path}: input and output differ in type; declare them real with --real")
    return "real" if file.real else types.pop()


def _box(region: Region, model: OnnxModel) -> specs.InputBox:
    """The region as bounds in the type of the network's input."""
    dtype = model.inputs[0].dtype
    if region.lower is not None or region.upper is not None:
        if region.lower is None or region.upper is None:
            raise InputError("--lower and --upper are needed together")
        if region.epsilon is not None or region.clip is not None:
            raise InputError("--epsilon and --clip make a ball around --input; leave them out with --lower and --upper")
        return specs.interval_box(_numbers(region.lower, model), _numbers(region.upper, model), dtype)
    if region.input is None or region.epsilon is None:
        raise InputError("no region: add --input POINT --epsilon RADIUS, or --lower FILE --upper FILE")
    limits = np.finfo(dtype)
    low, high = region.clip or (float(limits.min), float(limits.max))
    if not low < high:
        raise InputError(f"--clip {low} {high}: the first number must be below the second")
    return specs.linf_box(_numbers(region.input, model), region.epsilon, low, high, dtype)


def _numbers(place: str, model: OnnxModel) -> NDArray[np.float64]:
    values, size = read_numbers(place), model.inputs[0].size
    if len(values) != size:
        raise InputError(f"{place}: {len(values)} numbers, but the input of {model.path} has {size}")
    return values


def _answer(asked: SpecTarget, region: Region, lowest: bool) -> int:
    """What onnxruntime says at the centre."""
    if region.input is None:
        raise InputError("--label is missing, and there is no --input to ask the network about")
    output = Session(asked.model).run([_numbers(region.input, asked.model)])[asked.position]
    if not np.isfinite(output).all():
        raise InputError(f"{asked.model.path}: its output at {region.input} is not finite; add --label")
    return int(output.argmin() if lowest else output.argmax())


def _write_about(asked: SpecTarget, query: Query, file: File, region: Region, property_: str) -> int:
    """Write the file and print the property; several outputs of a network are all declared, in version 2.0 only."""
    model = asked.model
    if len(model.outputs) == 1:
        return _write(query, file, [model], region, property_)
    if file.vnnlib == "1.0":
        raise InputError(f"{model.path}: has {len(model.outputs)} outputs, and version 1.0 knows one; use --vnnlib 2.0")
    x, y = model.inputs[0], asked.output
    types = ("real", "real") if file.real else (x.dtype, y.dtype)
    query = upgrade(query, [x.shape], [y.shape], *types)
    declared = [(info.shape, "real" if file.real else info.dtype) for info in model.outputs]
    query = beside_others(query, declared, asked.position)
    return _write(query, replace(file, vnnlib="2.0"), [model], region, f"of {y.name}: {property_}")


def _write(query: Query, file: File, models: list[OnnxModel], region: Region, property_: str) -> int:
    """Write the file, with comments that say what it is, and print the property."""
    if file.vnnlib == "2.0":
        query = _upgraded(query, models[0], file.real)
    elif file.real and query.version == "1.0":
        raise InputError("--real is for version 2.0; in 1.0 everything is real; add --vnnlib 2.0")
    comments = [*_network_lines(models), f"inputs: {_described(region)}", f"property: {property_}"]
    write_query(query, file.output, file.vnnlib, comments)
    if file.json:
        print_json({"file": str(file.output), "property": property_, "version": file.vnnlib or query.version})
    else:
        print(f"{file.output}: {property_}")
    return 0


def _upgraded(query: Query, model: OnnxModel, real: bool) -> Query:
    x, y = model.inputs[0], model.outputs[0]
    types = ("real", "real") if real else (x.dtype, y.dtype)
    return upgrade(query, [x.shape], [y.shape], *types)


def _network_lines(models: Iterable[OnnxModel]) -> list[str]:
    return [f"network: {model.path.name}, sha256 {model.sha256}" for model in models]


def _described(region: Region) -> str:
    if region.lower is not None and region.upper is not None:
        return f"between {Path(region.lower).name} and {Path(region.upper).name}"
    cut = "" if region.clip is None else ", cut to [{}, {}]".format(*region.clip)
    return f"L-infinity radius {region.epsilon} around {Path(region.input or '').name}{cut}"
