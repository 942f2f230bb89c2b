"""Faults that once made wrong verdicts, planted again one by one: each must make a test fail.

A test is worth what it notices. Every record of `FAULTS` brings one old fault back into a copy of the checkout by a
small edit of the present sources, and names the tests that must fail there. The same tests are run without any fault
first, as a test that fails anyway notices nothing. The exit code is 0 where every fault is caught, else 1.

    python tests/fuzz/planted_faults.py --list
    python tests/fuzz/planted_faults.py --only clip-crossed-limits
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import cache_from_source, find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 900.0
"""Seconds that the tests of one fault may take; after that it counts as not caught."""
LIBRARIES = ("torch", "onnx", "onnxruntime", "scipy.optimize", "hypothesis", "onnx2torch", "torch.fx")
"""What takes most of the time of a short test, imported once for all: nothing of the checkout itself."""
TESTS_FAILED = 1
"""Exit code of pytest where tests ran and some failed: other codes say that it could not run them."""


@dataclass(frozen=True)
class PlantedFault:
    """An edit of one file that brings an old fault back: ``old`` stands there exactly once."""

    name: str
    about: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    """Tests of which some must fail, as pytest names them."""


@dataclass(frozen=True)
class PytestOutcome:
    """What pytest said about some tests: the first that failed, with its reason; empty where all passed."""

    failed: str
    seconds: float


FORWARD, INTERVAL = "toolkit/bounds/forward.py", "toolkit/bounds/interval.py"
BACKWARD, ERRORS = "toolkit/bounds/backward.py", "toolkit/bounds/backward_rounding.py"
ROUNDING = "tests/unit/bounds/test_backward_rounding.py"
CANCELLING = "tests/unit/bounds/test_cancelling_sums.py"
COUNTED = f"{CANCELLING}::test_the_sums_of_offsets_and_the_slopes_that_multipliers_take_off_are_counted"
ROUNDED_MAPS = "tests/unit/problem/test_rounded_maps.py"
COMPILED = "tests/unit/problem/test_compiled_operators.py"
MOVES = "tests/unit/formats/test_onnx_moves.py"
STRICT = "tests/soundness/test_strict_atoms.py"

GRAPH_FAULTS = (
    PlantedFault(
        "terms-share-numbers",
        "error terms of layers side by side have one number in the zonotope, so that independent errors cancel",
        FORWARD,
        "RELAXATIONS[op], bounds, room, self._count)",
        "RELAXATIONS[op], bounds, room, self._layer.terms.shape[1])",
        ("tests/unit/bounds/test_forward.py::test_errors_of_parallel_layers_are_not_one_error",),
    ),
    PlantedFault(
        "buffer-overwritten",
        "a new constant of the compiler takes a name that an earlier rewriting gave to another",
        "toolkit/problem/linear_part.py",
        'name = next(name for number in count(len(self.buffers)) if (name := f"linear{number}") not in self.buffers)',
        'name = f"linear{next(count(len(self.buffers)))}"',
        ("tests/unit/problem/test_names.py::test_a_new_constant_overwrites_none_that_an_earlier_rewriting_left",),
    ),
    PlantedFault(
        "constant-changed-in-place",
        "a constant that was changed in place after it was recorded is taken for the one that was recorded",
        "toolkit/problem/trace.py",
        "if node is not None and self.versions[id(tensor)] == version:",
        "if node is not None:",
        ("tests/unit/problem/test_names.py::test_a_constant_that_is_changed_in_place_is_another_constant",),
    ),
    PlantedFault(
        "clip-crossed-limits",
        "Clip with a lower limit above the upper one: the standard's max comes last and wins",
        "toolkit/problem/rewrites/piecewise.py",
        "low = _least(low, high)",
        "pass",
        (f"{COMPILED}::test_clip_with_limits_of_any_size",),
    ),
    PlantedFault(
        "clip-largest-float",
        "Clip from the lowest finite float on is written as low + relu(x - low), where x is lost",
        "toolkit/problem/rewrites/piecewise.py",
        "if low is not None and _is_moderate(low):",
        "if low is not None:",
        (f"{COMPILED}::test_clip_with_limits_of_any_size",),
    ),
    PlantedFault(
        "steep-slope",
        "a leaky ReLU of any slope is written as s x + (1 - s) relu(x), where a large s hides x",
        "toolkit/problem/rewrites/piecewise.py",
        "if _is_moderate(slope):",
        "if True:",
        (f"{COMPILED}::test_pieces_with_slopes_and_limits_of_any_size",),
    ),
    PlantedFault(
        "defaults-of-the-standard",
        "MeanVarianceNormalization and its kind lose the defaults of their attributes when bodies are put in",
        "toolkit/formats/onnx/functions.py",
        "        _complete_operators(proto, model.opset)\n",
        "",
        (f"{COMPILED}::test_operators_with_a_body_keep_their_defaults",),
    ),
    PlantedFault(
        "defaults-of-functions",
        "functions of the model lose the defaults of their attributes when they are expanded",
        "toolkit/formats/onnx/functions.py",
        "        _complete_calls(proto)\n",
        "",
        (f"{COMPILED}::test_functions_of_the_model_keep_their_defaults",),
    ),
    PlantedFault(
        "reduction-of-no-axis",
        "a reduction with noop_with_empty_axes and no axes reduces all of them",
        "toolkit/formats/onnx/node_rewrites/arithmetic.py",
        'if not axes and attribute(node, "noop_with_empty_axes", 0):',
        "if False:",
        (f"{COMPILED}::test_reductions_with_axes_missing_or_empty",),
    ),
    PlantedFault(
        "reduction-of-each-element",
        "a reduction of no axis is the identity, though ReduceL1 and others still act on each element",
        "toolkit/formats/onnx/node_rewrites/arithmetic.py",
        'if node.op_type in ("ReduceL1", "ReduceL2"):',
        "if False:",
        (f"{COMPILED}::test_reductions_with_axes_missing_or_empty",),
    ),
    PlantedFault(
        "cast-is-the-identity",
        "a conversion to a narrower floating type is taken for the identity",
        "toolkit/formats/onnx/node_rewrites/shape_operators.py",
        'op_type = "Narrow" if _loses(source, target) else "Widen"',
        'op_type = "Widen"',
        (f"{COMPILED}::test_conversions_round_and_bounds_know_it",),
    ),
    PlantedFault(
        "cast-to-fewer-exponents",
        "a conversion loses only digits: bfloat16, of few digits and many exponents, to float16 is taken for exact",
        "toolkit/formats/onnx/node_rewrites/shape_operators.py",
        "return any(old > new for old, new in zip(PRECISION[source], PRECISION[target], strict=True))",
        "return PRECISION[source][0] > PRECISION[target][0]",
        (f"{COMPILED}::test_conversions_round_and_bounds_know_it",),
    ),
    PlantedFault(
        "cast-without-overflow",
        "a conversion beyond the largest number of the narrower type keeps finite bounds",
        "toolkit/ops/float_casts.py",
        "known = (lower >= -kind.max) & (upper <= kind.max)",
        "known = (lower >= -inf) & (upper <= inf)",
        (f"{COMPILED}::test_a_lossy_conversion_is_not_the_identity",),
    ),
    PlantedFault(
        "arithmetic-in-half-precision",
        "what computes in half precision, where every operation rounds, is bounded as real arithmetic",
        "toolkit/formats/onnx/refused_types.py",
        "if halves and not record(node).exact:",
        "if False:",
        (f"{COMPILED}::test_arithmetic_in_half_precision_is_refused",),
    ),
    PlantedFault(
        "resize-axes",
        "Resize of some axes is read as one of all",
        "toolkit/formats/onnx/resize_matrix.py",
        '    copy.input[0], copy.output[0] = "x", "y"\n',
        '    copy.input[0], copy.output[0] = "x", "y"\n'
        '    kept = [entry for entry in copy.attribute if entry.name != "axes"]\n'
        "    del copy.attribute[:]\n"
        "    copy.attribute.extend(kept)\n",
        (f"{MOVES}::test_resizing_is_imported_and_bounded_or_refused",),
    ),
    PlantedFault(
        "padding-mode",
        "all modes of Pad that repeat elements repeat the edge",
        "toolkit/formats/onnx/node_rewrites/moves.py",
        'alone = onnx.helper.make_node("Pad", ["x", "pads"], ["y"], mode=mode)',
        'alone = onnx.helper.make_node("Pad", ["x", "pads"], ["y"], mode="edge")',
        (f"{MOVES}::test_moves_are_imported_and_bounded",),
    ),
    PlantedFault(
        "padding-value",
        "Pad with a constant pads with zeros whatever its value",
        "toolkit/formats/onnx/node_rewrites/moves.py",
        "pads=pads, value=double(float(value)))",
        "pads=pads, value=double(0.0))",
        (f"{MOVES}::test_moves_are_imported_and_bounded",),
    ),
    PlantedFault(
        "far-scores",
        "exponentials of a softmax are not cut off: scores far apart overflow, and nothing is known of the shares",
        "toolkit/problem/rewrites/softmax_rewrite.py",
        "powers = exp_below_cap(differences.index_select(-1, others))",
        "powers = torch.exp(differences.index_select(-1, others))",
        ("tests/unit/problem/test_softmax.py::test_bounds_of_far_scores_are_finite_and_enclose_the_shares",),
    ),
    PlantedFault(
        "far-scores-cut-for-nothing",
        "the shares do not make up for exponentials that were cut off: their lower line is too high",
        "toolkit/ops/softmax_parts.py",
        "below = (found.lower_slope, found.lower_offset - (allowance(found.lower_offset) + 1 / CAP))",
        "below = (found.lower_slope, found.lower_offset)",
        ("tests/unit/problem/test_softmax.py::test_a_score_far_below_another_has_no_share",),
    ),
)
"""In what is read and compiled."""

ROUNDING_FAULTS = (
    PlantedFault(
        "relative-to-cancelled-centres",
        "allowances of intervals are relative to the values at the centre, whose terms have cancelled",
        INTERVAL,
        "radius = affine.radius(radii) + lost",
        "radius = affine.radius([source.radius for source in sources]) + allowance * centre.abs()",
        (f"{CANCELLING}::test_bounds_of_a_sum_that_is_zero_contain_zero",),
    ),
    PlantedFault(
        "relative-to-cancelled-offset",
        "the allowance of a backward pass is relative to its offset, whose terms have cancelled",
        BACKWARD,
        "return self.offset - self.error * (1 + ROUNDINGS_BESIDE_SUM * torch.finfo(self.offset.dtype).eps)",
        "return self.offset - 1000 * torch.finfo(self.offset.dtype).eps * self.offset.abs()",
        (
            f"{CANCELLING}::test_bounds_of_a_sum_that_is_zero_contain_zero",
            "tests/fuzz/test_fuzz.py::test_what_once_went_wrong_does_not_any_more",
        ),
    ),
    PlantedFault(
        "relative-to-cancelled-terms",
        "allowances of forward bounds are relative to the centre, whose terms have cancelled",
        FORWARD,
        "lost = allowance * (magnitude + affine.bias.abs())",
        "lost = allowance * centre.abs()",
        (f"{CANCELLING}::test_bounds_of_a_sum_that_is_zero_contain_zero",),
    ),
    PlantedFault(
        "relative-to-cancelled-atoms",
        "the error of a weighted sum of atoms is relative to their sum, which has cancelled",
        BACKWARD,
        "of_atoms = _dot(weight.unsqueeze(1) @ atoms.abs(), errors)",
        "of_atoms = _dot((weight.unsqueeze(1) @ atoms).abs(), errors)",
        (f"{CANCELLING}::test_atoms_that_are_zero_have_no_positive_bound_together",),
    ),
    PlantedFault(
        "long-sums",
        "the allowance for a sum stops growing at 64 terms",
        "toolkit/problem/sum_rounding.py",
        "lost = terms * torch.finfo(dtype).eps / 2",
        "lost = min(terms, 64) * torch.finfo(dtype).eps / 2",
        (f"{ROUNDING}::test_long_sums_of_equal_terms",),
    ),
    PlantedFault(
        "root-of-the-terms",
        "the allowance for a sum grows with the root of its terms, as if errors had random signs",
        "toolkit/problem/sum_rounding.py",
        "lost = terms * torch.finfo(dtype).eps / 2",
        "lost = math.sqrt(terms) * torch.finfo(dtype).eps / 2",
        (f"{ROUNDING}::test_long_sums_of_equal_terms",),
    ),
    PlantedFault(
        "one-way-sums",
        "a map counts the terms of its values, not those of the coefficients that are pushed back through it",
        "toolkit/problem/affine.py",
        "return self.steps + max(self.size, sum(matrix.shape[1] for matrix in self.matrices))",
        "return self.steps + sum(matrix.shape[1] for matrix in self.matrices)",
        ("tests/unit/problem/test_affine.py::test_as_many_terms_are_counted_as_meet_in_a_value_or_in_a_coefficient",),
    ),
    PlantedFault(
        "interval-without-rounding",
        "intervals have no allowance for rounding",
        INTERVAL,
        "allowance = 2 * gamma(affine.terms + ROUNDINGS_BESIDE_SUM, centre.dtype)",
        "allowance = 0.0",
        (f"{ROUNDING}::test_neurons_bounds_contain_exact_values",),
    ),
    PlantedFault(
        "underflow",
        "what products lose that underflow is left out of intervals",
        INTERVAL,
        "allowance * affine.bias.abs() + _underflow(reach, affine.terms)",
        "allowance * affine.bias.abs()",
        ("tests/fuzz/test_fuzz.py::test_what_once_went_wrong_does_not_any_more",),
    ),
    PlantedFault(
        "backward-without-rounding",
        "the error of a backward pass is never taken off its bound",
        BACKWARD,
        "return self.offset - self.error * (1 + ROUNDINGS_BESIDE_SUM * torch.finfo(self.offset.dtype).eps)",
        "return self.offset",
        (f"{ROUNDING}::test_neurons_bounds_contain_exact_values",),
    ),
    PlantedFault(
        "lines-without-rounding",
        "the sums of the lines' offsets in a backward pass are taken for exact",
        BACKWARD,
        "error = self.error + _dot(rows.abs(), of_layer, self.owner) + unit * line.reach",
        "error = self.error + _dot(rows.abs(), of_layer, self.owner)",
        (COUNTED,),
    ),
    PlantedFault(
        "multipliers-without-rounding",
        "slopes that a multiplier takes off again are taken for exact",
        BACKWARD,
        "if multipliers is not None:  # a slope that a multiplier takes off was rounded all the same",
        "if False:",
        (COUNTED,),
    ),
    PlantedFault(
        "box-without-rounding",
        "the minimum of a linear bound over its box has no allowance for rounding",
        BACKWARD,
        "allowance = 2 * gamma(box.lower.shape[1] + ROUNDINGS_BESIDE_SUM, self.offset.dtype)  # for both of the sums",
        "allowance = 0.0",
        (f"{CANCELLING}::test_a_linear_function_that_is_zero_at_a_point_has_no_minimum_above",),
    ),
    PlantedFault(
        "half-spaces-without-rounding",
        "the minimum over a box and half-spaces has no allowance for rounding",
        "toolkit/bounds/clip_boxes.py",
        "return without_overflow(self.value - self.spread.abs().sum(1) - self.allowance)",
        "return without_overflow(self.value - self.spread.abs().sum(1))",
        (f"{CANCELLING}::test_a_linear_function_that_is_zero_at_a_point_has_no_minimum_above",),
    ),
    PlantedFault(
        "forward-without-rounding",
        "forward bounds have no allowance for rounding",
        FORWARD,
        "allowance = 2 * gamma(affine.terms + len(sources) + ROUNDINGS_BESIDE_SUM, centre.dtype)",
        "allowance = 0.0",
        (f"{ROUNDING}::test_long_sums_of_equal_terms",),
    ),
    PlantedFault(
        "composed-maps",
        "the matrix of composed operators, the result of sums, is taken for exact",
        "toolkit/problem/affine.py",
        "return _counted(affine, dense) if is_composed(affine.linear) else dense",
        "return dense",
        (f"{ROUNDED_MAPS}::test_what_composing_rounds_is_counted",),
    ),
    PlantedFault(
        "composed-biases",
        "the bias of composed operators, whose terms may have cancelled, is taken for exact",
        "toolkit/problem/program.py",
        "slack = gamma(terms, dtype) * magnitude",
        "slack = torch.zeros_like(bias)",
        (f"{ROUNDED_MAPS}::test_what_composing_rounds_is_counted",),
    ),
    PlantedFault(
        "merged-maps",
        "sums that merging neurons makes are taken for exact",
        "toolkit/problem/matrix_errors.py",
        "return gamma(terms + 2, reach.dtype) * reach",
        "return None",
        (f"{ROUNDED_MAPS}::test_what_merging_rounds_is_counted",),
    ),
    PlantedFault(
        "merged-though-rounded",
        "rows that carry rounding are merged where they are stored as equal",
        "toolkit/problem/merge_neurons.py",
        "rows &= (error == 0).all(1)",
        "pass",
        (f"{ROUNDED_MAPS}::test_rows_that_carry_rounding_are_not_taken_for_one_another",),
    ),
    PlantedFault(
        "reduced-maps",
        "the maps of a reduced network, themselves results of backward passes, are taken for exact",
        "toolkit/bounds/network_reduction.py",
        "return found, bias, 2 * error + unit * (coefficients.abs() @ self.base.abs() + bias.abs())",
        "return found, bias, 0 * error",
        (f"{ROUNDED_MAPS}::test_what_reducing_rounds_is_counted",),
    ),
    PlantedFault(
        "stored-rounded",
        "how far a map may be from the exact one is left out of the errors of a backward pass",
        ERRORS,
        "        + affine.uncertainty(reach)\n",
        "",
        (f"{ROUNDING}::test_bounds_leave_room_for_what_maps_were_stored_with",),
    ),
    PlantedFault(
        "recentred-values",
        "values at the centre of a box, in double precision, are taken for exact",
        "toolkit/bounds/recentred_crown.py",
        "errors.append(unit * (affine.radius(reach) + affine.bias.abs()) + affine.uncertainty(reach))",
        "errors.append(0 * values[-1])",
        (f"{CANCELLING}::test_bounds_of_a_sum_that_is_zero_contain_zero",),
    ),
    PlantedFault(
        "double-model-in-single",
        "a model of double precision is bounded in single as if its weights and sums were not rounded there",
        BACKWARD,
        "return self.offset - self.error * (1 + ROUNDINGS_BESIDE_SUM * torch.finfo(self.offset.dtype).eps)",
        "return self.offset - self.error * (self.offset.dtype == torch.float64)",
        (
            "tests/fuzz/test_fuzz.py::test_what_once_went_wrong_does_not_any_more",
            f"{ROUNDING}::test_neurons_bounds_contain_exact_values",
        ),
    ),
    PlantedFault(
        "windows-repeat-evenly",
        "windows that overlap are taken to read every element equally often, so that sums of coefficients are longer",
        "toolkit/problem/sum_lengths.py",
        "AffineForm.WINDOWS: (_none, _of_overlaps),",
        "AffineForm.WINDOWS: (_none, _repeats_if_any),",
        ("tests/unit/problem/test_affine.py::test_as_many_terms_are_counted_as_meet_in_a_value_or_in_a_coefficient",),
    ),
    PlantedFault(
        "boxes-to-nearest",
        "boxes are rounded to the nearest number of single precision, not outward",
        "toolkit/problem/compile.py",
        "lower, upper = outward(self.lower, self.upper, dtype)",
        "lower, upper = self.lower.to(dtype), self.upper.to(dtype)",
        ("tests/unit/problem/test_program.py::test_a_problem_in_single_precision_has_no_smaller_boxes",),
    ),
)
"""In what rounding may lose."""

SEARCH_FAULTS = (
    PlantedFault(
        "touching-is-refuted",
        "what only touches zero is refuted without a strict atom",
        "toolkit/search/farkas.py",
        "return least > 0 or (least == 0 and any(y > 0 and s for y, s in zip(multipliers, self.strict, strict=True)))",
        "return least >= 0",
        (f"{STRICT}::test_systems_with_a_planted_combination",),
    ),
    PlantedFault(
        "touching-stays-open",
        "a strict atom whose bound comes down to zero exactly is not refuted",
        "toolkit/search/farkas.py",
        "return least > 0 or (least == 0 and any(y > 0 and s for y, s in zip(multipliers, self.strict, strict=True)))",
        "return least > 0",
        (f"{STRICT}::test_a_maximum_is_reached_and_not_exceeded",),
    ),
    PlantedFault(
        "every-atom-is-strict",
        "atoms that hold at zero are refuted by a least value of zero, as strict ones are",
        "toolkit/search/strict_atoms.py",
        "at, column = problem.strict_atoms[rows].nonzero(as_tuple=True)",
        "at, column = torch.ones_like(rows).nonzero(as_tuple=True)",
        (f"{STRICT}::test_images_refute_what_is_strict_and_nothing_that_holds_at_zero",),
    ),
    PlantedFault(
        "solver-is-trusted",
        "a leaf is closed by the linear program's own word, without a bound of its multipliers",
        "toolkit/search/lp_leaf.py",
        "if bool(proved(in_double(space, case, domain, bound).lower)):",
        "if solution.point is None or bool(proved(in_double(space, case, domain, bound).lower)):",
        ("tests/unit/search/test_lp_leaf.py::test_a_solver_that_errs_closes_no_leaf_that_has_a_witness",),
    ),
    PlantedFault(
        "price-of-a-leaf",
        "phases of a leaf have the price that the solver says, not one that outweighs the atom's bound",
        "toolkit/search/lp_leaf.py",
        "return LpSolution(beta * (1 + 2 * atoms.scale[0]) / result.fun, weight, None)",
        "return LpSolution(beta, weight, None)",
        ("tests/unit/search/test_lp_leaf.py::test_phases_that_no_input_has_are_refuted_whatever_the_atom_is_worth",),
    ),
    PlantedFault(
        "infinite-bounds-prove",
        "a bound that overflowed counts as a proof",
        "toolkit/search/phase_domains.py",
        "return torch.isfinite(lower) & (lower > LEAST_NORMAL_NUMBERS * torch.finfo(lower.dtype).tiny)",
        "return lower > LEAST_NORMAL_NUMBERS * torch.finfo(lower.dtype).tiny",
        ("tests/unit/search/test_search.py::test_only_positive_finite_bounds_are_proofs",),
    ),
    PlantedFault(
        "unsat-without-comparison",
        "unsat is said without a comparison of what was bounded with onnxruntime",
        "toolkit/verify.py",
        "                check_agreement(one, self.original, candidates)\n",
        "                pass\n",
        ("tests/unit/agreement/test_agreement.py::test_a_fault_of_compilation_is_an_error",),
    ),
    PlantedFault(
        "stale-weights",
        "the key of an answer leaves out the files in which a network keeps its weights",
        "toolkit/bench/fingerprint.py",
        "parts = [content, *(_beside_hash(path, location) for location in locations)]",
        "parts = [content]",
        ("tests/unit/bench/test_bench_resume.py::test_a_change_of_a_file_asks_again_for_all_that_read_it",),
    ),
    PlantedFault(
        "weights-of-the-working-directory",
        "files of weights are looked up in the working directory, not beside the model",
        "toolkit/formats/onnx/external_data.py",
        "    folder = path.parent.resolve()\n",
        "    folder = Path.cwd()\n",
        ("tests/unit/formats/test_onnx_external.py::test_content_in_other_files_counts_as_content_inside",),
    ),
    PlantedFault(
        "certified-without-certificate",
        "a caller from Python who asks for checked answers gets unsat without any certificate",
        "prunecert/_verify.py",
        "    if chosen.certified:\n",
        "    chosen = chosen.changed({'certified': False})\n    if chosen.certified:\n",
        ("tests/unit/test_prunecert.py::test_nothing_is_certified_that_the_checker_does_not_read",),
    ),
)
"""In what is searched, concluded and kept."""

FAULTS = (*GRAPH_FAULTS, *ROUNDING_FAULTS, *SEARCH_FAULTS)


def copy_of(checkout: Path, target: Path) -> None:
    """Copy the files of a checkout that git knows, as they are in the working tree."""
    listed = subprocess.run(["git", "-C", str(checkout), "ls-files", "-z"], capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (checkout / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(checkout / name, target / name)


@contextmanager
def planted(root: Path, fault: PlantedFault) -> Iterator[None]:
    """Plant a fault in a copy for the time of the block. Raises ValueError where its place is not there just once."""
    path = root / fault.file
    text = path.read_text(encoding="utf-8")
    if text.count(fault.old) != 1:
        raise ValueError(f"{fault.name}: its place is {text.count(fault.old)} times in {fault.file}, must be once")
    _rewritten(path, text.replace(fault.old, fault.new))
    try:
        yield
    finally:
        _rewritten(path, text)


def _rewritten(path: Path, text: str) -> None:
    """Change a module. Compiled ones are told apart by size and second: two edits within one might be taken for one."""
    path.write_text(text, encoding="utf-8")
    Path(cache_from_source(str(path))).unlink(missing_ok=True)


def run_tests(root: Path, tests: Sequence[str], patience: float = PATIENCE) -> PytestOutcome:
    """Run tests in a copy until the first fails, in a process that has the libraries already.

    Raises RuntimeError where they cannot be run.
    """
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([name for name in LIBRARIES if find_spec(name)])
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="told-") as folder:
        log = Path(folder) / "pytest.txt"
        process = server.Process(target=_pytest, args=(root, tuple(tests), log))
        process.start()
        process.join(patience)
        if process.exitcode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.join()
            return PytestOutcome("", patience)
        text = log.read_text(errors="replace") if log.exists() else ""
    failed = re.search(r"^FAILED (.+)$", text, re.MULTILINE)
    if process.exitcode not in (0, TESTS_FAILED) or (process.exitcode == TESTS_FAILED and failed is None):
        raise RuntimeError(f"pytest cannot run {' '.join(tests)}:\n{text[-2000:]}")
    return PytestOutcome("" if failed is None else failed[1], time.monotonic() - started)


def _pytest(root: Path, tests: Sequence[str], log: Path) -> None:
    """Run pytest in a copy of the checkout, in this process, which leads a group and says all in a file."""
    os.setsid()
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(root)
    os.environ.update(PYTHONPATH=str(root), COLUMNS="240")
    sys.path[:] = [str(root), *(place for place in sys.path if not Path(place).is_relative_to(ROOT))]
    package = find_spec("toolkit")
    assert package is not None and Path(str(package.origin)).is_relative_to(root), "another toolkit would be tested"
    options = ["-x", "-q", "-rf", "--tb=no", "-p", "no:cacheprovider", f"--rootdir={root}"]
    sys.exit(int(pytest.main([*options, *tests])))


def tried(checkout: Path, faults: Sequence[PlantedFault]) -> Iterator[tuple[PlantedFault, PytestOutcome]]:
    """Plant one fault after the other in a copy of a checkout, and run its tests there.

    Raises RuntimeError where tests fail without any fault.
    """
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        root = Path(folder)
        copy_of(checkout, root)
        plain = run_tests(root, list(dict.fromkeys(test for fault in faults for test in fault.tests)))
        if plain.failed:
            raise RuntimeError(f"a test fails without any fault: {plain.failed}")
        for fault in faults:
            with planted(root, fault):
                yield fault, run_tests(root, fault.tests)


def main(arguments: Sequence[str] | None = None, checkout: Path = ROOT, table: Sequence[PlantedFault] = FAULTS) -> int:
    """Plant all faults or some; the number of those that no test noticed decides the exit code, 0 or 1."""
    parser = argparse.ArgumentParser(description="Plant old faults one by one; each must make a test fail.")
    parser.add_argument("--only", metavar="NAME", action="append", help="this fault alone; may be repeated")
    parser.add_argument("--list", action="store_true", help="list the faults and plant none")
    options = parser.parse_args(arguments)
    known = {fault.name: fault for fault in table}
    unknown = [name for name in options.only or () if name not in known]
    if unknown:
        parser.error(f"no fault is named {', '.join(unknown)}; --list has the names")
    chosen = [known[name] for name in options.only or known]
    if options.list:
        print("\n".join(f"{fault.name}: {fault.about}" for fault in chosen))
        return 0
    missed = 0
    for fault, run in tried(checkout, chosen):
        missed += not run.failed
        print(f"{fault.name}: {f'caught by {run.failed}' if run.failed else 'NOT caught'} ({run.seconds:.0f} s)",
              flush=True)  # fmt: skip
    print(f"{len(chosen) - missed} of {len(chosen)} faults caught")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
