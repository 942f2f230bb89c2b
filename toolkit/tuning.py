"""The tuning table: every number of this package that is a choice.

A *choice* may have any value of its range without an answer becoming wrong: sizes, shares of the time, patience,
thresholds. Another value makes a query faster or slower, a limit wider or narrower, a check of agreement cheaper or
sharper. Each is a field of a group below: its value, its unit, its range, what it does, and the record under
``benchmarks/perf`` that it was chosen by, as ``file:key`` or ``file:key:key``, or "no" where no measurement is known.
A *guard* is a choice that no measurement makes: it ends what would take all memory or all time, waits for what is not
ours, or says how strict a check is, and what is as it should be stays far from it. Its docstring tells the reason.

What is no choice stays a constant beside the code that needs it, with its reason: how many roundings a formula has and
by how many units in the last place a result is moved outward (a proof relies on them), bits of a floating-point format,
limits of a file format or an operating system, figures of a published rule, guards of an arithmetic operation, codes.
So do the defaults of what a user sets: `toolkit.settings` and the records of recipes.

Code reads a number where it uses it, ``tuned().crown.coefficients``. Other values hold inside of a ``with`` block::

    with using(tuned().changed(evolution={"parents": 8})):
        ...

for the code that runs in it and in processes forked from it; threads and processes started anew have the defaults.
Nothing in the package changes a value. Needs no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar, NamedTuple, NoReturn


class PerDevice(NamedTuple):
    """A number for processors, and one for the other devices."""

    cpu: float
    elsewhere: float

    def on(self, device: str) -> int:
        """The number for a type of device, ``"cpu"`` or another."""
        return int(self.cpu if device == "cpu" else self.elsewhere)


class Choice(NamedTuple):
    """What is known of one number: its default, its unit, its range (ends included), and the record that chose it, or
    "guard", or "no"."""

    default: float | PerDevice
    unit: str
    least: float
    most: float
    measured: str

    def allows(self, value: float | PerDevice) -> bool:
        """Whether a value is in the range, on every device; NaN is not."""
        return all(self.least <= number <= self.most for number in (value if isinstance(value, PerDevice) else [value]))


def choice(default: Any, unit: str, *, least: float, most: float = math.inf, measured: str) -> Any:
    """A field of a group."""
    return Choice(default, unit, least, most, measured)


def guard(default: Any, unit: str, *, least: float, most: float = math.inf) -> Any:
    """A field of a group that no measurement chooses: a limit for what should not be, or the strictness of a check."""
    return Choice(default, unit, least, most, "guard")


class TuningGroup:
    """The choices about one subject: a frozen record of what its class declares.

    Such a class costs nothing to make; twenty data classes take some hundredths of the time of an easy query.
    """

    choices: ClassVar[Mapping[str, Choice]]

    def __init_subclass__(cls) -> None:
        cls.choices = {name: entry for name, entry in vars(cls).items() if isinstance(entry, Choice)}

    def __init__(self, **values: float | PerDevice) -> None:
        """Defaults, but for the values that are given.

        Raises:
            ValueError: a value is outside of its range.
            TypeError: there is no such choice.
        """
        if unknown := values.keys() - self.choices.keys():
            raise TypeError(f"{type(self).__name__} has no {', '.join(sorted(unknown))}")
        for name, entry in self.choices.items():
            value = values.get(name, entry.default)
            if not entry.allows(value):
                raise ValueError(f"{type(self).__name__}.{name}: {value} is not in [{entry.least}, {entry.most}]")
            vars(self)[name] = value

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is frozen")


class AgreementTuning(TuningGroup):
    """What was bounded, compared with onnxruntime before any ``unsat``: how many points, and what counts as a
    difference."""

    most_points: int = choice(12, "points", least=1, measured="choices_2026_11_29.json:agreement:most_points")
    """Most samples of one thing that was bounded."""
    fewest_points: int = choice(2, "points", least=1, measured="choices_2026_11_29.json:agreement:fewest_points")
    """Fewest samples of one thing that was bounded, however much they cost."""
    most_multiplications: int = choice(
        1 << 26, "multiplications", least=0, measured="choices_2026_11_29.json:agreement:most_multiplications"
    )
    """Multiplications that the samples may take, as long as they are no fewer than the fewest."""
    large_tolerance: float = guard(1e-3, "share", least=0, most=1e-3)
    """Tolerance, relative to a value or 1, beyond which it must be small beside the tensors of the network too."""
    points_of_fused: int = guard(64, "points", least=1)
    """Samples at which a quantised network is run as onnxruntime runs it by itself."""
    most_tolerance_of_tensors: float = guard(2.0**-10, "share", least=0, most=2.0**-10)
    """Largest tolerance relative to the largest number of any tensor: rounding alone is much less."""
    most_cases: int = choice(256, "cases", least=1, measured="choices_2026_11_29.json:agreement:most_cases")
    """Cases whose atoms are looked at."""
    tried_points: int = guard(64, "points", least=1)
    """Points at which room is looked for between a proof's bound and what rounding inside the network changes: ends a
    query that no bound can prove, before bounds take all its time."""
    most_elements: int = choice(
        1 << 16, "elements", least=0, measured="choices_2026_11_29.json:agreement:most_elements"
    )
    """Most elements of all tensors of a network that are compared one by one."""
    layerwise_samples: int = choice(
        4, "points", least=1, measured="choices_2026_11_29.json:agreement:layerwise_samples"
    )
    """Samples at which the tensors inside a network are compared."""
    kept_candidates: int = choice(8, "points", least=0, measured="choices_2026_11_29.json:agreement:kept_candidates")
    """Points that an attack liked best, of which so many are among the samples."""
    most_regions: int = choice(16, "regions", least=1, measured="choices_2026_11_29.json:agreement:most_regions")
    """Most regions of which samples are taken, evenly over all."""
    disturbed_copies: int = choice(4, "copies", least=1, measured="choices_2026_11_29.json:agreement:disturbed_copies")
    """Disturbed copies of each point, whose spread tells how far rounding reaches."""
    spread_factor: float = guard(4.0, "spreads", least=0, most=4.0)
    """Spreads of the disturbed copies that an error may be away from a value."""
    compared_boxes: int = choice(3, "boxes", least=1, measured="choices_2026_11_29.json:agreement:compared_boxes")
    """Boxes in which a reduced program is compared with the one it was made of, evenly over all."""
    reduced_tolerances: float = guard(4.0, "tolerances", least=0, most=4.0)
    """Tolerances that the values of a reduced program may be apart: its sums are rounded in another order, and
    stored."""


class PointTuning(TuningGroup):
    """Random points of the boxes, the first look for a witness."""

    seconds_between_clock_checks: float = choice(
        0.02, "seconds", least=0, measured="choices_2026_11_29.json:points:seconds_between_clock_checks"
    )
    """Seconds of runs between two looks at the clock."""
    most_numbers: int = choice(1 << 22, "numbers", least=1, measured="choices_2026_11_29.json:points:most_numbers")
    """Numbers of points and atoms that are held at once."""
    per_region: int = choice(64, "points", least=1, measured="choices_2026_11_29.json:points:per_region")
    """Points tried for each region, as long as time and the number of regions allow."""
    seconds: float = choice(0.3, "seconds", least=0, measured="choices_2026_11_29.json:points:seconds")
    """Time after which sampling gives way to stronger means."""
    last_resort_time_share: float = choice(
        0.25, "share", least=0, most=1, measured="choices_2026_11_29.json:points:last_resort_time_share"
    )
    """Share of the time left that sampling gets where no stronger means exist."""


class SecantTuning(TuningGroup):
    """Walks along secants, the second look for a witness."""

    followed_cases: int = choice(16, "cases", least=1, measured="choices_2026_11_29.json:secants:followed_cases")
    """Cases of a box that are followed: those whose loss is least where the walk starts."""
    steps_per_walk: int = choice(8, "steps", least=1, measured="choices_2026_11_29.json:secants:steps_per_walk")
    """Steps of one walk along secants."""
    most_walks_per_box: int = choice(
        16, "walks", least=1, measured="choices_2026_11_29.json:secants:most_walks_per_box"
    )
    """Most walks through each box."""
    seconds: float = choice(0.2, "seconds", least=0, measured="start_2026_11_26.json:secants")
    """Time after which walking gives way to stronger means."""


class EvolutionTuning(TuningGroup):
    """Populations of points that evolve, where few inputs vary."""

    least_population: int = choice(64, "points", least=1, measured="choices_2026_11_29.json:evolution:least_population")
    """Points below which a population is not worth having: of so many cases there are too many."""
    parents: int = choice(32, "points", least=1, measured="choices_2026_11_29.json:evolution:parents")
    """Points of a population that survive."""
    generations: int = choice(12, "generations", least=1, measured="choices_2026_11_29.json:evolution:generations")
    """Generations of a population."""
    most_multiplications: int = choice(
        1 << 33,
        "multiplications",
        least=0,
        measured="witnesses_2026_11_25.json:evolution:cost where there is no witness",
    )
    """Multiplications that all points of all generations may take together: some tenths of a second of one core."""
    first_deviation: float = choice(
        0.25, "box widths", least=0, measured="choices_2026_11_29.json:evolution:first_deviation"
    )
    """Deviation of the first children from their parents."""
    deviation_decay: float = choice(
        0.8, "factor", least=0, most=1, measured="choices_2026_11_29.json:evolution:deviation_decay"
    )
    """Factor by which the deviation decreases from one generation to the next."""
    mutated_share: float = choice(
        0.7, "share", least=0, most=1, measured="choices_2026_11_29.json:evolution:mutated_share"
    )
    """Share of the coordinates in which a child differs from its parent."""


class GradientTuning(TuningGroup):
    """Points that follow gradients."""

    most_points: int = choice(4096, "points", least=1, measured="choices_2026_11_29.json:gradients:most_points")
    """Most points moved at once."""
    least_points: int = choice(16, "points", least=1, measured="choices_2026_11_29.json:gradients:least_points")
    """Fewest points moved at once."""
    most_multiplications: int = choice(
        1 << 31, "multiplications", least=0, measured="choices_2026_11_29.json:gradients:most_multiplications"
    )
    """Multiplications of one pass for all points that are moved at once, beyond the fewest."""
    diversifying_steps: int = choice(5, "steps", least=0, measured="clipping_2026_11_25.json:attack")
    """Steps that spread starts over the outputs."""


class BenchTuning(TuningGroup):
    """Runs over many instances: surveys of several queries together, workers, frozen benchmarks."""

    reading_time_share: float = guard(0.5, "share", least=0, most=1)
    """Share of the time that reading specifications may take, so that slow files do not take all of it; those that are
    not reached are read when their turn comes."""
    workers_per_gpu: int = choice(4, "processes", least=1, measured="no")
    """Worker processes for each GPU."""
    compressed_from_bytes: int = choice(
        1 << 16, "bytes", least=0, measured="choices_2026_11_30.json:bench:compressed_from_bytes"
    )
    """Bytes from which a specification is compressed."""
    most_kept_images: int = choice(200, "images", least=1, measured="choices_2026_11_30.json:bench:most_kept_images")
    """Most test images that are kept in a frozen benchmark, where no more are verified."""
    survey_time_share: float = guard(0.5, "share", least=0, most=1)
    """Share of the shortest time limit among its jobs that a survey may take, so that none of them is late for it."""
    survey_cost_share: float = guard(0.1, "share", least=0, most=1)
    """Share of its own time limit that a survey may cost a job which it does not answer."""
    most_surveyed_jobs: int = choice(64, "jobs", least=1, measured="choices_2026_11_30.json:bench:most_surveyed_jobs")
    """Most jobs of one survey: they wait for each other."""
    seconds_to_finish: float = guard(1.0, "seconds", least=0)
    """Seconds kept for writing the answer and for the end of the process."""
    late_share: float = guard(0.2, "share", least=0)
    """Share of its time limit that a worker may be late, beside the seconds, before it is stopped."""
    late_seconds: float = guard(1.0, "seconds", least=0)
    """Seconds that a worker may be late, beside the share, before it is stopped."""
    most_retries: int = guard(2, "times", least=0)
    """Times that a job is given to another worker after one was lost with its node."""
    preparing_seconds: float = guard(600.0, "seconds", least=0)
    """Seconds that another verifier's preparation of an instance may take, as in VNN-COMP."""
    replaying_seconds: float = guard(120.0, "seconds", least=0)
    """Seconds that ending another verifier and replaying its counterexample may take."""
    shown_output_bytes: int = guard(4096, "bytes", least=1)
    """Bytes at the end of what another verifier printed among which its last line is looked for."""
    node_seconds: float = guard(5.0, "seconds", least=0)
    """Seconds that a cluster gets to be reached, and its workers to remove their files at the end."""


class FileTuning(TuningGroup):
    """Reading files and pipes piece by piece, and the sizes at which reading ends."""

    decompressed_block: int = choice(
        1 << 22, "bytes", least=1, measured="choices_2026_11_29_rest.json:files:decompressed_block"
    )
    """Bytes that are decompressed at a time, to be read or to be hashed."""
    unchecked_bytes: int = guard(1 << 28, "bytes", least=0)
    """Bytes up to which it does not matter how much smaller a file is than its content."""
    most_compression: int = guard(200, "factor", least=1)
    """Times as large as itself what was read of a file may be: networks and specifications stay far below, zeros
    reach 1000."""
    split_characters: int = guard(1 << 24, "characters", least=1)
    """Characters of a specification that are split at a time, which bounds the memory that pieces take."""
    most_text_bytes: int = guard(1 << 31, "bytes", least=1)
    """Largest decompressed specification that is read; VNN-COMP's largest has 124 MB."""
    most_model_bytes: int = guard(1 << 31, "bytes", least=1, most=1 << 31)
    """Largest model that is read, once decompressed: the limit of its file format."""


class ProcessTuning(TuningGroup):
    """Forked processes, and the one that a command runs in."""

    grace_seconds: float = guard(0.5, "seconds", least=0)
    """Seconds after the time limit in which a forked query may still end by itself."""
    most: int = choice(
        16, "processes", least=1, measured="gpu_2026_11_26.json:16 cores without the GPU (whole seconds)"
    )
    """Processes that share a search, unless more are asked for: on 16 cores, 16 gained little over fewer."""
    seconds_to_fork: float = choice(0.03, "seconds", least=0, measured="choices.json:processes:seconds_to_fork")
    """Seconds that it takes to start a process; they start one after the other."""
    forking_time_share: float = choice(
        0.2, "share", least=0, most=1, measured="gpu_2026_11_26.json:16 cores without the GPU (whole seconds):remark"
    )
    """Share of its time that work may spend on starting processes."""
    seconds_late: float = guard(20.0, "seconds", least=0)
    """Seconds that a process may be late: the rounds of large networks take some."""
    seconds_late_after_limit: float = guard(2.0, "seconds", least=0)
    """Seconds that a process may be late once the clock's limit, which all of them know, has passed."""
    seconds_between_parent_checks: float = guard(1.0, "seconds", least=0)
    """Seconds between two looks at the parent where the system has no such option."""
    collector_objects: int = choice(50_000, "objects", least=1, measured="search_2026_11_25.json:start")
    """Objects between two runs of the collector of cycles, which finds next to nothing in the imports that it slows
    down."""
    spin_loops: int = choice(10_000, "loops", least=0, measured="spinning_2026_11_30.json:rows")
    """Loops that a waiting thread of OpenMP spins before it sleeps: beside busy processes a query takes half of the
    time that libgomp's own number costs it, and alone 3 % more."""
    single_thread_cost: int = choice(
        1_000_000, "multiplications", least=0, measured="search_2026_11_26.json:two_threads_or_batches"
    )
    """Multiplications of one pass of one row below which one thread is the fastest."""


class RuntimeTuning(TuningGroup):
    """Running a network on several samples at once by onnxruntime."""

    most_copied_bytes: int = choice(
        1 << 26, "bytes", least=0, measured="choices_2026_11_29_rest.json:runtime:most_copied_bytes"
    )
    """Bytes of a model up to which a copy that takes several samples is made."""
    slow_run_seconds: float = choice(
        0.05, "seconds", least=0, measured="choices_2026_11_29_rest.json:runtime:slow_run_seconds"
    )
    """Seconds of a run from which on running several samples at once gains little."""
    compared_samples: int = guard(3, "samples", least=1)
    """Samples that must come out of one call as they come out of calls of their own: a graph that mixes samples mixes
    any two."""


class NetworkTuning(TuningGroup):
    """Networks that are read or written: how large they may be, and on how many samples they are compared."""

    most_branch_nodes: int = guard(1_000_000, "nodes", least=1)
    """Nodes that branches may have in all, nested ones included; far more than any network has."""
    most_function_nodes: int = guard(1_000_000, "nodes", least=1)
    """Nodes that functions may expand to."""
    deepest_functions: int = guard(100, "levels", least=1)
    """Functions that may be nested in each other."""
    most_tensor_bytes: int = guard(2 << 30, "bytes", least=1)
    """Bytes that one tensor may take, for one sample."""
    most_bytes_together: int = guard(8 << 30, "bytes", least=1)
    """Bytes that all tensors of a graph may take, without its weights."""
    most_followed_integers: int = choice(
        1 << 16, "elements", least=0, measured="choices_2026_11_29_rest.json:networks:most_followed_integers"
    )
    """Elements of a list of integers beyond which their values are not followed."""
    most_followed_constant: int = choice(
        1 << 12, "elements", least=0, measured="choices_2026_11_29_rest.json:networks:most_followed_constant"
    )
    """Elements of a constant up to which its value is looked at: shapes, counts and axes are that small."""
    most_resize_elements: int = guard(1 << 32, "elements", least=0)
    """Elements of all images together up to which onnxruntime is asked what a Resize does: some seconds' work."""
    most_exact_products: int = guard(3_000_000, "multiplications", least=0)
    """Multiplications of one evaluation in exact arithmetic: a second or less."""
    most_exact_elements: int = guard(1 << 21, "elements", least=0)
    """Elements of all weights together up to which a network is evaluated in exact arithmetic."""
    import_samples: int = guard(5, "samples", least=1)
    """Inputs tried before an imported network with discontinuous operators is said to differ from its file: rounding
    makes some differ where a jump is near, a wrong import makes all."""
    most_tried_bytes: int = choice(
        1 << 25, "bytes", least=0, measured="choices_2026_11_29_rest.json:networks:most_tried_bytes"
    )
    """Bytes of a model up to which it is compared at several magnitudes of its inputs."""
    moderate_constant: float = choice(
        16.0, "magnitude", least=0, measured="choices_2026_11_30.json:networks:moderate_constant"
    )
    """Magnitude of a constant up to which adding it and taking it away again costs little of a term beside it."""
    export_samples: int = guard(4, "samples", least=1)
    """Samples on which an exported network and its module are compared: a wrong export differs on any."""
    trainable_samples: int = guard(3, "samples", least=1)
    """Samples that a trainable network and the file that it was read from are compared on: a wrong reading differs on
    any."""


class SpecificationTuning(TuningGroup):
    """Specifications: how large one may become once it is written out."""

    most_terms: int = guard(10_000, "terms", least=1)
    """Terms of the expanded product of two sums."""
    most_degree: int = guard(16, "degree", least=1)
    """Largest degree of an expanded polynomial."""
    most_bits: int = guard(1 << 16, "bits", least=1)
    """Bits of a numerator or denominator after which a specification counts as malformed: guards against blow-up."""
    most_subsets: int = guard(100_000, "disjuncts", least=1)
    """Most disjuncts of a top-k specification."""
    most_checked: int = guard(1 << 24, "characters", least=0)
    """Longest text whose assertions the package vnnlib checks too: it needs forty times their size in memory. Of a
    longer text it sees the declarations only."""
    most_variables: int = guard(1 << 27, "elements", least=1)
    """Most elements of all declared tensors together."""
    most_flattened: int = guard(10_000, "disjuncts", least=1)
    """Disjuncts that a nested ``or`` may be multiplied out to in version 1.0; beyond, it is written nested."""


class ProblemTuning(TuningGroup):
    """From a network and a query to bounded programs and their cases."""

    most_bounds: int = guard(1 << 24, "bounds", least=1)
    """Box bounds in memory: 128 MiB for each side, and several times that on the way."""
    most_blocks: int = guard(1 << 23, "runs", least=1)
    """Runs of atoms in all cases together, each a few objects."""
    most_exponent: int = guard(1 << 10, "exponent", least=3)
    """Largest power that is written as a chain of squares and products; larger ones leave double precision."""
    most_monomials: int = guard(1 << 24, "monomials", least=0)
    """Most monomials bounded to find empty cases, over all boxes."""
    most_exact_atoms: int = guard(1 << 12, "atoms", least=0)
    """Most atoms that are bounded in rational arithmetic."""
    most_passes: int = guard(100, "passes", least=0)
    """Passes over the atoms; a longer chain of them, listed in reverse, leaves bounds missing."""
    small_output: int = choice(256, "elements", least=0, measured="choices_2026_11_29.json:problem:small_output")
    """Elements of an output up to which it is looked at as a whole."""
    most_programs: int = choice(4, "programs", least=1, measured="choices_2026_11_29.json:problem:most_programs")
    """Programs kept of one network. Most specifications of a network mention the same outputs, and share one."""
    most_dense_elements: int = choice(
        1 << 26, "elements", least=0, measured="choices_2026_11_29.json:problem:most_dense_elements"
    )
    """Largest number of matrix elements of a map without convolutions that is written out."""
    most_dense_convolution_elements: int = choice(
        1 << 19, "elements", least=0, measured="choices_2026_11_29.json:problem:most_dense_convolution_elements"
    )
    """Largest number of matrix elements of a map with convolutions that is written out: operators are cheaper
    beyond."""
    least_dividend_share: float = choice(
        1 / 16, "share", least=0, most=1, measured="choices_2026_11_29.json:problem:least_dividend_share"
    )
    """Share of the divisor's magnitude below which a dividend is not scaled up: it may be small by chance."""
    most_filled_map: float = choice(0.12, "share", least=0, most=1, measured="choices.json:problem:most_filled_map")
    """Share of a map's elements that are not zero below which compressed rows are the faster ones."""
    most_filled_product: float = choice(
        0.02, "share", least=0, most=1, measured="choices.json:problem:most_filled_product"
    )
    """Share of a matrix's elements that are not zero below which a sparse product is the faster one."""
    least_counted_elements: int = choice(
        1 << 16, "elements", least=0, measured="choices_2026_11_29.json:problem:least_counted_elements"
    )
    """Elements of a matrix from which on it is worth counting the zeros."""
    most_parts: int = choice(64, "parts", least=1, measured="few_inputs.json:queries")
    """Parts beyond which a problem stays whole: each is a program of its own."""
    least_input_readers: int = choice(
        3, "layers", least=0, measured="choices_2026_11_29_rest.json:problem:least_input_readers"
    )
    """Layers that read the input from which on stacks pay."""
    most_counted_elements: int = choice(
        1 << 20, "elements", least=0, measured="choices_2026_11_29_rest.json:problem:most_counted_elements"
    )
    """Elements of a matrix up to which those that are not zero are counted."""


class QuickProofTuning(TuningGroup):
    """Proofs in numpy, before torch is imported."""

    seconds: float = choice(1.5, "seconds", least=0, measured="quick_proof.json:seconds")
    """Time after which the proof in numpy is left to stronger means."""
    halving_seconds: float = choice(0.5, "seconds", least=0, measured="quick_proof.json:halving")
    """Time for parts of the boxes, once the whole ones are bounded."""
    most_multiplications: int = choice(1 << 29, "multiplications", least=0, measured="quick_proof.json:layers")
    """Multiplications of the backward passes for one layer of one box up to which a proof in numpy is tried."""
    window_factor: float = choice(8.0, "multiplications", least=1, measured="quick_proof.json:layers")
    """Multiplications in a product of matrices that take as long as one of a convolution."""
    most_bisected_inputs: int = choice(24, "inputs", least=0, measured="quick_proof.json:digits")
    """Most varying inputs of boxes that are halved."""
    most_values: int = choice(
        1 << 19, "values", least=1, measured="choices_2026_11_29_rest.json:quick_proof:most_values"
    )
    """Values of the network in all boxes that are bounded at once."""
    most_numbers: int = guard(1 << 22, "numbers", least=1)
    """Most coefficients of all atoms."""
    most_bytes: int = guard(1 << 26, "bytes", least=0)
    """Size of a network's file up to which a proof in numpy is tried."""


class RecordingTuning(TuningGroup):
    """Functions of a batch that a device records and plays back."""

    least_padded_rows: int = choice(64, "rows", least=1, measured="gpu_2026_11_26.json:milliseconds of one batch")
    """Rows that a batch is filled up to at least: fewer take as long."""
    calls_before: int = choice(2, "calls", least=0, measured="gpu_2026_11_26.json:milliseconds of one batch:to record")
    """Calls before a function is recorded, which takes as long as two more and only pays where others follow."""


class MemoryTuning(TuningGroup):
    """Memory that processes may take."""

    assumed_free_bytes: int = guard(4 << 30, "bytes", least=0)
    """Bytes assumed to be free where the system does not say."""
    least_process_bytes: int = guard(2 << 30, "bytes", least=0)
    """Bytes that a process may take at least, where nothing is said: libraries alone take one GiB."""


class TrainingTuning(TuningGroup):
    """Training and pruning: how many images go through a network at once, and how states are compared."""

    statistics_images: int = choice(
        512, "images", least=1, measured="choices_2026_11_30.json:training:statistics_images"
    )
    """Images whose statistics inserted batch normalisation starts with."""
    evaluated_images: int = choice(
        1024, "images", least=1, measured="choices_2026_11_29_rest.json:training:evaluated_images"
    )
    """Images whose accuracy is evaluated at once."""
    bounded_images: int = choice(
        256, "images", least=1, measured="choices_2026_11_29_rest.json:training:bounded_images"
    )
    """Images whose intervals or gradients are computed at once: for statistics of stability, and scores of channels and
    neurons."""
    images_worth_processes: int = choice(50_000, "images", least=0, measured="trainers_2026_11_30.json:digits")
    """Images of all epochs of all dense networks from which a recipe's networks are trained by several processes on a
    processor: these take seconds to start."""
    bytes_of_trainer: int = guard(4 << 30, "bytes", least=1)
    """Memory kept for each process that trains: one for CIFAR-10 at a quarter of the paper's width takes 1.5 GiB."""
    most_difference: float = guard(1e-3, "share", least=0, most=1e-3)
    """Difference of outputs, as a share of the largest, beyond which it is not the order of sums: a channel lost by
    mistake changes the tenth of an output."""
    compared_inputs: int = guard(4, "inputs", least=1)
    """Random inputs on which a compressed network is compared with the masked one: a channel that is missing changes
    the result of any."""


class PrecisionTuning(TuningGroup):
    """Which programs are bounded in double precision."""

    widest_double: int = choice(128, "neurons", least=0, measured="choices_2026_11_29.json:precision:widest_double")
    """Widest layer of networks that are bounded in double precision: below it, arithmetic is not what takes the
    time."""
    most_double_cost: int = choice(
        2_000_000, "multiplications", least=0, measured="choices_2026_11_29.json:precision:most_double_cost"
    )
    """Multiplications of a pass up to which wider networks are, where few inputs vary: splitting these comes so
    close to the answer that the rounding of single precision would hide it."""


class AttackTuning(TuningGroup):
    """How hard, and for how long, witnesses are looked for by gradients and populations."""

    time_share: float = choice(0.1, "share", least=0, most=1, measured="choices_2026_11_29.json:attack:time_share")
    """Share of the time left that the attack may take: the searches look for witnesses too."""
    first_cost: int = choice(1e11, "multiplications", least=0, measured="choices_2026_11_29.json:attack:first_cost")
    """Multiplications, of a pass for every neuron, from which on the first attack comes before root bounds."""
    first_restarts_share: float = choice(
        0.2, "share", least=0, most=1, measured="choices_2026_11_29.json:attack:first_restarts_share"
    )
    """Share of the attack's restarts that come before bounds are improved, which may leave fewer cases to attack."""
    population: int = choice(2048, "points", least=0, measured="choices_2026_11_29.json:attack:population")
    """Points of each case that evolve before all restarts have been made."""
    most_full_cases: int = choice(64, "cases", least=1, measured="choices_2026_11_29.json:attack:most_full_cases")
    """Open cases up to which each is attacked with all restarts and steps."""
    most_restart_multiples: int = choice(32, "restarts", least=1, measured="search_2026_11_25.json:attack_again")
    """Most restarts of one attack, in units of those that the settings ask for."""
    most_evolving_inputs: int = choice(
        64, "inputs", least=0, measured="choices_2026_11_29.json:attack:most_evolving_inputs"
    )
    """Most varying inputs for which populations evolve."""


class BatchTuning(TuningGroup):
    """How many domains are bounded at once, and how many may wait."""

    vectors_per_domain: int = choice(
        40, "vectors", least=1, measured="choices_2026_11_29.json:batches:vectors_per_domain"
    )
    """Vectors over all neurons and inputs that bounding one domain holds at once, with a margin."""
    memory_share: float = choice(0.5, "share", least=0, most=1, measured="choices_2026_11_29.json:batches:memory_share")
    """Share of the free memory that one batch may take."""
    frontier_memory_share: float = choice(
        0.15, "share", least=0, most=1, measured="choices_2026_11_29_rest.json:batches:frontier_memory_share"
    )
    """Share of the free memory that domains may take while they wait: a round holds them twice."""
    most_domains: PerDevice = choice(
        PerDevice(cpu=1024, elsewhere=8192),
        "domains",
        least=1,
        measured="search_2026_11_26.json:two_threads_or_batches",
    )
    """Most domains bounded at once where nothing else is asked for: more keep a processor no busier, and fewer take
    other devices almost as long."""


class RootTuning(TuningGroup):
    """Bounds of the whole input set, before anything is split."""

    batch_cost: int = choice(1 << 20, "multiplications", least=0, measured="choices_2026_11_30.json:roots:batch_cost")
    """Multiplications of a pass through all boxes that keep a processor busy; more boxes at once gain nothing
    there, and all of them pay for each other's unstable neurons."""
    cases_per_pass: int = choice(1024, "cases", least=1, measured="choices_2026_11_29.json:roots:cases_per_pass")
    """Cases bounded at once."""
    steps_of_cases_divisor: int = choice(
        20, "steps", least=1, measured="choices_2026_11_29.json:roots:steps_of_cases_divisor"
    )
    """Steps for the slopes of the neurons for each one of the cases': these are many rows, and few steps gain most."""
    forward_neurons_per_input: int = choice(
        32, "neurons", least=0, measured="choices_2026_11_29.json:roots:forward_neurons_per_input"
    )
    """Unstable neurons for each varying input beyond which their bounds come from a forward pass."""


class BoxTuning(TuningGroup):
    """Branch and bound over the input box."""

    attacked: int = choice(32, "boxes", least=0, measured="choices_2026_11_29_rest.json:boxes:attacked")
    """Boxes of a batch from which a witness is looked for: the best ones by their centres, and the weakest bounds."""
    attack_steps: int = choice(6, "steps", least=0, measured="choices_2026_11_29_rest.json:boxes:attack_steps")
    """Steps of gradient descent inside each of the boxes that are attacked."""
    atom_variation_weight: float = choice(
        0.1, "weight", least=0, measured="choices_2026_11_29.json:boxes:atom_variation_weight"
    )
    """Weight of the atoms' own variation when a dimension is chosen, against that of the relaxations' gaps."""
    least_side_ulps: int = choice(16, "ulps", least=2, measured="choices_2026_11_29.json:boxes:least_side_ulps")
    """Width of a side, in units in the last place, that is not cut any more."""
    shared_cost: int = choice(1 << 22, "multiplications", least=0, measured="start_2026_11_26.json:shared_boxes")
    """Multiplications of a pass from which on a box's neurons are bounded once for all of its cases."""
    filling: PerDevice = choice(
        PerDevice(cpu=16, elsewhere=0), "boxes", least=0, measured="choices_2026_11_29.json:boxes:filling"
    )
    """Boxes in a batch that keep a device busy, at most; 0 stands for as many as a batch holds."""
    batch_cost: PerDevice = choice(
        PerDevice(cpu=1 << 24, elsewhere=1 << 30),
        "multiplications",
        least=1,
        measured="choices_2026_11_29.json:boxes:batch_cost",
    )
    """Multiplications of a pass for all boxes of a batch that keep a device busy: boxes that cost more are cut
    once, then bounded."""


class PhaseTuning(TuningGroup):
    """Branch and bound over the phases of ReLUs."""

    weaker_child_weight: float = choice(
        0.3, "weight", least=0, measured="choices_2026_11_29_rest.json:phases:weaker_child_weight"
    )
    """What the weaker child of a split counts, next to the stronger: many small trees were smallest about here."""
    babsr_weight: float = choice(1e-4, "weight", least=0, measured="choices_2026_11_29_rest.json:phases:babsr_weight")
    """What BaBSR counts, next to the chords' offsets."""
    most_depth_to_clip: float = choice(0.3, "share", least=0, measured="search_2026_11_25.json:cut")
    """How deep the least point of a bound may lie below zero, as a share of the bound's range over the box, for its
    half-space to be worth anything: from one half on it cuts so little off that neurons gain nothing, from one on
    nothing at all."""
    rounds_without_rise: int = choice(
        6, "rounds", least=1, measured="choices_2026_11_29.json:phases:rounds_without_rise"
    )
    """Rounds without a rise of the weakest bound after which domains are bounded more thoroughly."""
    most_ascent_steps: int = choice(
        40, "steps", least=0, measured="choices_2026_11_30_stalls.json:phases:most_ascent_steps"
    )
    """Steps of the ascent in every domain beyond which more are not tried."""


class NeuronTreeTuning(TuningGroup):
    """Trees of splits that improve the bounds of single neurons."""

    leaves_per_split: int = choice(4, "leaves", least=1, measured="search_2026_11_26.json:trees_of_neurons")
    """Leaves of a tree for each one that is split in a round."""
    least_width_gain: float = choice(
        0.01, "share", least=0, most=1, measured="processes_2026_11_26.json:trees_end_where_a_doubling_gains_less_than"
    )
    """Share of their width that a layer's neurons must lose while its trees double, or they grow no further."""


class SharingTuning(TuningGroup):
    """One search in several processes."""

    seconds_before: float = choice(0.3, "seconds", least=0, measured="processes_2026_11_26.json:shares")
    """Seconds that a search takes in one process before others are worth their start, and each time it is too
    narrow."""
    least_turn_seconds: float = choice(
        0.3, "seconds", least=0, measured="choices_2026_11_30.json:sharing:least_turn_seconds"
    )
    """Seconds that a turn takes at least before a flag ends it."""
    least_domains: int = choice(16, "domains", least=1, measured="choices_2026_11_30.json:sharing:least_domains")
    """Fewest open domains, or neurons with trees, of a share."""


class ExactTuning(TuningGroup):
    """What is decided in rational arithmetic."""

    most_products: int = choice(
        1 << 17, "multiplications", least=0, measured="choices_2026_11_29.json:exact:most_products"
    )
    """Most products of integers for the linear functions of a leaf: a tenth of a second."""
    most_atoms: int = choice(1 << 10, "pairs", least=0, measured="choices_2026_11_29_rest.json:exact:most_atoms")
    """Most pairs of an open case and a strict atom that are looked at."""
    most_unstable: int = choice(48, "neurons", least=0, measured="choices_2026_11_30.json:exact:most_unstable")
    """Most unstable neurons of a network whose leaves are all decided exactly."""
    time_share: float = choice(0.5, "share", least=0, most=1, measured="choices_2026_11_30.json:exact:time_share")
    """Share of the time left that deciding strict atoms exactly may take."""
    zero_tolerance: float = choice(1e-9, "magnitude", least=0, measured="choices_2026_11_30.json:exact:zero_tolerance")
    """Magnitude below which a solver's multiplier, or a combined column of normalised rows, is taken for zero; what
    follows is checked exactly."""
    most_denominator: int = guard(1 << 40, "integers", least=1)
    """Largest denominator of multipliers that the equations leave free."""


class MixedIntegerTuning(TuningGroup):
    """Mixed-integer programs of shallow networks."""

    most_elements: int = choice(
        1 << 20, "coefficients", least=0, measured="choices_2026_11_30.json:mixed_integer:most_elements"
    )
    """Coefficients of all maps beyond which setting up a mixed-integer program, which no limit of time ends, takes more
    than a second."""
    most_cases: int = choice(8, "cases", least=0, measured="choices_2026_11_30.json:mixed_integer:seconds")
    """Cases for which a mixed-integer program is solved, those with the weakest bounds first: each gets its share of
    the time, in which formulas of 30 variables are solved."""
    seconds: float = choice(5.0, "seconds", least=0, measured="choices_2026_11_30.json:mixed_integer:seconds")
    """Time for all mixed-integer programs: what has a solution that is found at all is mostly found within seconds."""


class ReductionTuning(TuningGroup):
    """Which networks are reduced to what is left of them on their boxes."""

    most_cost_factor: float = choice(
        8.0, "factor", least=0, measured="choices_2026_11_29.json:reduction:most_cost_factor"
    )
    """Multiplications that matrices may cost for each one that the original operators need: convolutions run at a
    fraction of a matrix product's rate."""
    most_multiplications: int = choice(
        1 << 37, "multiplications", least=0, measured="choices_2026_11_29.json:reduction:most_multiplications"
    )
    """Most multiplications that making a reduced program may take: ten seconds of a processor."""


class ClippingTuning(TuningGroup):
    """Boxes clipped by half-spaces."""

    most_breakpoints: int = choice(
        8, "dimensions", least=0, measured="choices_2026_11_29.json:clipping:most_breakpoints"
    )
    """Dimensions up to which all breakpoints are tried as a half-space's multiplier."""
    tried_multipliers: int = choice(
        5,
        "multipliers",
        least=1,
        measured="search_2026_11_25.json:measured_and_dropped:fewer tangents of a half-space's multiplier",
    )
    """Multipliers tried one after the other where there are more dimensions."""


class ZonotopeTuning(TuningGroup):
    """Forward bounds by zonotopes."""

    least_width: int = choice(512, "neurons", least=0, measured="choices_2026_11_29.json:zonotopes:least_width")
    """Neurons of a layer from which on forward bounds are worth their price."""
    most_coefficients_per_box: int = choice(
        1 << 25, "coefficients", least=0, measured="cgan_2026_11_25.json:coefficients_at_the_root"
    )
    """Coefficients of one box's terms on the widest layer that they meet, at most."""
    most_coefficients: int = choice(
        1 << 26, "coefficients", least=1, measured="choices_2026_11_30.json:zonotopes:most_coefficients"
    )
    """Coefficients of the terms of all boxes that are bounded at once on the widest layer that they meet, at most."""
    block_coefficients: PerDevice = choice(
        PerDevice(cpu=1 << 20, elsewhere=1 << 26),
        "coefficients",
        least=1,
        measured="choices_2026_11_30.json:zonotopes:block_coefficients",
    )
    """Coefficients that a map takes at once: few enough to stay in a processor's cache, and enough to keep other
    devices busy."""


class NeuronBoundTuning(TuningGroup):
    """Optimised bounds of intermediate layers."""

    tried_rows: int = choice(48, "rows", least=1, measured="choices_2026_11_29.json:neuron_bounds:tried_rows")
    """Rows of a layer whose bounds are improved first, to see whether it pays."""
    least_width_gain: float = choice(
        0.005, "share", least=0, most=1, measured="choices_2026_11_29.json:neuron_bounds:least_width_gain"
    )
    """Share of their width that the rows tried first must lose for the other rows to follow."""
    least_stated_gain: float = choice(
        0.005, "share of the width", least=0, most=1, measured="certificates_2026_11_29.json:least_stated_gain"
    )
    """What a certified search asks of an end of a neuron's range that proves no phase: less is not worth a row in each
    case."""
    stated_margin: float = guard(1e-4, "share of the width", least=0, most=1)
    """By how much trees of a certified search prove more than is stated: the checker's ranges differ in rounding."""


class LirpaTuning(TuningGroup):
    """Root bounds by the library auto_LiRPA."""

    regions_per_pass: int = choice(64, "regions", least=1, measured="choices_2026_11_30.json:lirpa:regions_per_pass")
    """Regions bounded at once, where the networks take several samples."""
    feature_tolerance: float = guard(1e-6, "share", least=0, most=1e-6)
    """Largest relative difference between the features by torch and by the library, both in float64: rounding alone is
    far below, another network far above."""
    slope_margin: float = choice(
        1e-3, "slope", least=0, most=0.5, measured="choices_2026_11_30.json:lirpa:slope_margin"
    )
    """Distance that optimised slopes of ReLUs keep from 0 and 1."""


class CrownTuning(TuningGroup):
    """Linear bounds by a backward pass."""

    coefficients: PerDevice = choice(
        PerDevice(cpu=1 << 22, elsewhere=1 << 25),
        "coefficients",
        least=1,
        measured="cgan_2026_11_25.json:backward_elements",
    )
    """Coefficients of one backward pass of rows for all boxes: few enough to stay near a processor's cache."""
    owned_coefficients: PerDevice = choice(
        PerDevice(cpu=1 << 18, elsewhere=1 << 24),
        "coefficients",
        least=1,
        measured="choices_2026_11_29.json:crown:owned_coefficients",
    )
    """Coefficients over the widest layer of one pass of rows with owners: few enough to stay in a processor's
    cache, and enough to keep other devices busy."""
    least_rows: int = choice(128, "rows", least=1, measured="choices_2026_11_29.json:crown:least_rows")
    """Fewest rows with owners of one pass, however wide the layers are."""
    most_neurons_per_box: int = choice(
        256, "neurons", least=0, measured="choices_2026_11_30.json:crown:most_neurons_per_box"
    )
    """Neurons of a layer, for each box, beyond which forward bounds have to do where there are any."""


class StrategyTuning(TuningGroup):
    """Which search has its turn, and for how long."""

    most_inputs_boxes_first: int = choice(
        20, "inputs", least=0, measured="choices_2026_11_29.json:strategy:most_inputs_boxes_first"
    )
    """Most varying inputs for which splitting the input box comes first."""
    most_inputs_boxes: int = choice(
        64, "inputs", least=0, measured="choices_2026_11_29.json:strategy:most_inputs_boxes"
    )
    """Most varying inputs for which splitting the input box is tried at all where phases could be split instead."""
    most_inputs_boxes_shallow: int = choice(
        256, "inputs", least=0, measured="witnesses_2026_11_25.json:shallow_networks_of_more_inputs"
    )
    """Most varying inputs, for networks of one hidden layer, for which splitting the input box is tried at all."""
    most_neurons_phases_first: int = choice(
        16, "neurons", least=0, measured="choices_2026_11_29.json:strategy:most_neurons_phases_first"
    )
    """Most unstable neurons of which all phases are tried first, whatever the number of inputs: these trees are
    small."""
    most_neurons_boxes: int = choice(
        20_000, "neurons", least=0, measured="choices_2026_11_29.json:strategy:most_neurons_boxes"
    )
    """Most neurons for which a box of more inputs is split: every box bounds all of them again."""
    short_turn_share: float = choice(
        0.15, "share", least=0, most=1, measured="choices_2026_11_29.json:strategy:short_turn_share"
    )
    """Share of the time left that a strategy gets for a short turn, before another has its own."""
    half_turn_share: float = choice(
        0.5, "share", least=0, most=1, measured="choices_2026_11_29.json:strategy:half_turn_share"
    )
    """Share of the time left that a strategy gets where it is likely to decide, before another has its turn."""
    long_turn_share: float = choice(
        0.7, "share", least=0, most=1, measured="choices_2026_11_29.json:strategy:long_turn_share"
    )
    """Share of the time left that a strategy gets where it is the likelier one, before another has its turn."""
    first_turn_seconds: float = choice(
        1.0, "seconds", least=0, measured="choices_2026_11_30.json:strategy:first_turn_seconds"
    )
    """Seconds of the first search over phases, where better root bounds did not take half as long."""
    pass_seconds: float = choice(0.01, "seconds", least=1e-6, measured="passes_2026_11_29.json:seconds_a_pass")
    """Seconds that a bounding pass counts as where passes are limited in place of time."""
    gap_worth_waiting: float = choice(
        0.05, "share", least=0, measured="choices_2026_11_30.json:strategy:gap_worth_waiting"
    )
    """Share of the way to a proof that better bounds of the neurons must bring the root to be worth as long as a
    search."""
    gap_worth_restart: float = choice(0.2, "share", least=0, measured="search_2026_11_25.json:turns")
    """Share of the way to a proof that must be gained for a new search to be where the old one was before long."""
    restarted_turn_share: float = choice(
        0.25, "share", least=0, most=1, measured="choices_2026_11_30.json:strategy:restarted_turn_share"
    )
    """Share of its turn that a new search gets while better bounds of the neurons still bring so much."""


class RelaxationTuning(TuningGroup):
    """Linear bounds of single operators."""

    bisections: int = choice(12, "halvings", least=0, measured="choices_2026_11_29.json:relaxations:bisections")
    """Halvings of the range of a tangent point: enough for three digits, and any result is sound."""


class CertificateTuning(TuningGroup):
    """How certificates are written."""

    points: int = guard(32, "points", least=2)
    """Points at which neurons are compared with tensors of the file."""
    compared_values: int = guard(8, "values", least=2)
    """Combinations of the values at these points by which the nearest element is looked for."""
    compared_elements: int = guard(4, "elements", least=1)
    """Elements on either side of a neuron's first combination that are compared by all of these."""
    same_value: float = guard(1e-9, "share", least=0, most=1e-6)
    """Relative difference of values that are one and the same."""
    flushed_seconds: float = guard(2.0, "seconds", least=0)
    """Time after which what was written can be read."""
    repair_time_share: float = guard(0.5, "share", least=0, most=1)
    """Share of the time left that a repair may take: a leaf that is refused for a good reason has no end of parts."""
    most_repaired_leaves: int = guard(4096, "leaves", least=0)
    """Parts of refused leaves beyond which a certificate is not repaired: the checker bounds each of them alone."""
    trees_put_together: int = guard(32, "trees", least=1)
    """Trees of neurons after which the checker puts together what it knows: it walks over what came since for each
    leaf."""


class TuningTable(NamedTuple):
    """All groups."""

    agreement: AgreementTuning = AgreementTuning()
    points: PointTuning = PointTuning()
    secants: SecantTuning = SecantTuning()
    evolution: EvolutionTuning = EvolutionTuning()
    gradients: GradientTuning = GradientTuning()
    bench: BenchTuning = BenchTuning()
    files: FileTuning = FileTuning()
    processes: ProcessTuning = ProcessTuning()
    runtime: RuntimeTuning = RuntimeTuning()
    networks: NetworkTuning = NetworkTuning()
    specifications: SpecificationTuning = SpecificationTuning()
    problem: ProblemTuning = ProblemTuning()
    quick_proof: QuickProofTuning = QuickProofTuning()
    recordings: RecordingTuning = RecordingTuning()
    memory: MemoryTuning = MemoryTuning()
    training: TrainingTuning = TrainingTuning()
    precision: PrecisionTuning = PrecisionTuning()
    attack: AttackTuning = AttackTuning()
    batches: BatchTuning = BatchTuning()
    roots: RootTuning = RootTuning()
    boxes: BoxTuning = BoxTuning()
    phases: PhaseTuning = PhaseTuning()
    neuron_trees: NeuronTreeTuning = NeuronTreeTuning()
    sharing: SharingTuning = SharingTuning()
    exact: ExactTuning = ExactTuning()
    mixed_integer: MixedIntegerTuning = MixedIntegerTuning()
    reduction: ReductionTuning = ReductionTuning()
    clipping: ClippingTuning = ClippingTuning()
    zonotopes: ZonotopeTuning = ZonotopeTuning()
    neuron_bounds: NeuronBoundTuning = NeuronBoundTuning()
    lirpa: LirpaTuning = LirpaTuning()
    crown: CrownTuning = CrownTuning()
    strategy: StrategyTuning = StrategyTuning()
    relaxations: RelaxationTuning = RelaxationTuning()
    certificates: CertificateTuning = CertificateTuning()

    def changed(self, **groups: Mapping[str, Any]) -> TuningTable:
        """The table with other values, by group and name. Raises ValueError outside of a range."""
        found = {name: getattr(self, name) for name in groups}
        return self._replace(**{name: type(group)(**vars(group) | groups[name]) for name, group in found.items()})


DEFAULTS = TuningTable()
_IN_EFFECT: ContextVar[TuningTable] = ContextVar("tuning", default=DEFAULTS)


def tuned() -> TuningTable:
    """The table in effect."""
    return _IN_EFFECT.get()


@contextmanager
def using(table: TuningTable) -> Iterator[None]:
    """Have another table in effect inside of a ``with`` block."""
    before = _IN_EFFECT.set(table)
    try:
        yield
    finally:
        _IN_EFFECT.reset(before)
