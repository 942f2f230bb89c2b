"""Writing and converting: nothing changes but the language, and the official readers accept what is written."""

from __future__ import annotations

import itertools
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import vnnlib
from hypothesis import given, settings
from hypothesis import strategies as st
from vnnlib_formulas import assertions, points, text, truth

from toolkit.errors import InputError, UnsupportedError
from toolkit.formats.vnnlib.atom_text import decimal
from toolkit.formats.vnnlib.convert_versions import downgrade, upgrade
from toolkit.formats.vnnlib.query import Query
from toolkit.formats.vnnlib.read import parse_query, read_query
from toolkit.formats.vnnlib.write import format_query, write_query

NAMES = ["X_0", "X_1", "X_2", "Y_0", "Y_1"]
DECLARED = "".join(f"(declare-const {name} Real)\n" for name in NAMES)
TWO = """(vnnlib-version <2.0>)
(declare-network f (declare-input X_f float32 [2]) (declare-output Y_f float32 []))
(declare-network g (equal-to f) (declare-input X_g float32 [2]) (declare-hidden H float32 [3] "relu;1")
 (declare-output Y_g float32 []))
(declare-network h (isomorphic-to f) (declare-input X_h float32 [2]) (declare-output Y_h float32 []))
(assert (== X_f[0] X_g[0]))
(assert (or (> Y_f (+ Y_g 0.0005)) (and (!= H[2] 1.0) (or (< (* 2.5 X_f[0] X_f[1]) 1.0) (<= (- Y_h) -3.0)))))
"""
ONE = "(vnnlib-version <2.0>)(declare-network N (declare-input X real [1]) OUT)(assert (<= X[0] 1.0))"


def same(a: Query, b: Query) -> bool:
    arrays = ("relation", "constant", "starts", "coefficient", "monomial")
    equal = all(np.array_equal(getattr(a.atoms, name), getattr(b.atoms, name)) for name in arrays)
    return equal and (a.networks, a.formula, a.products) == (b.networks, b.formula, b.products)


def written(query: Query, version: str | None = None) -> str:
    return "\n".join(format_query(query, version))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_decimals_read_back_to_the_same_double(value: float) -> None:
    assert float(decimal(value)) == value
    assert re.fullmatch(r"-?[0-9]+\.[0-9]+", decimal(value))


@given(assertions, points)
@settings(deadline=None, max_examples=150)
def test_text_of_both_versions_means_the_same(formulas, point) -> None:
    query = parse_query(DECLARED + "\n".join(f"(assert {text(f, NAMES)})" for f in formulas))
    expected = all(truth(formula, point) for formula in formulas)
    assert parse_query(written(query)).holds(point) == expected
    newer = parse_query(written(upgrade(query, [(1, 3)], [(2,)], "real")))
    assert newer.holds(point) == expected
    assert parse_query(written(newer, "1.0")).holds(point) == expected


def test_two_networks_round_trip() -> None:
    query = parse_query(TWO)
    assert same(parse_query(written(query)), query)
    assert written(query).startswith("(vnnlib-version <2.0>)\n(declare-network f\n")
    assert parse_query(written(query, "2.1")).version == "2.1"


def test_official_form_of_1_0() -> None:
    body = (
        "(assert (and (<= 0.5 X_0) (>= 1 X_0)))(assert (or (and (>= Y_0 Y_1) (or (<= Y_0 2) (<= Y_1 1e-7))) (= Y_0 3)))"
    )
    lines = written(parse_query(DECLARED + body)).splitlines()[6:]
    assert lines == [
        "(assert (>= X_0 0.5))",
        "(assert (<= X_0 1.0))",
        "(assert (or",
        "  (and (<= Y_1 Y_0) (<= Y_0 2.0))",
        "  (and (<= Y_1 Y_0) (<= Y_1 0.0000001))",
        "  (and (<= Y_0 3.0) (>= Y_0 3.0))",
        "))",
    ]


def test_an_or_too_large_to_multiply_out_stays_nested() -> None:
    choice = "(or (<= X_0 1) (<= X_1 1) (<= X_2 1) (<= Y_0 1))"
    query = parse_query(DECLARED + f"(assert (or (<= Y_1 0) (and {choice * 10})))")
    assert same(parse_query(written(query)), query)
    assert len(written(query)) < 2000


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (TWO, "knows one network, the query has 3: f, g, h"),
        (ONE.replace("OUT", "(declare-output Y real [1])(declare-output Z real [1])"), "knows one output"),
        (ONE.replace("OUT", '(declare-hidden H real [2] "h")(declare-output Y real [1])'), "hidden"),
    ],
)
def test_what_1_0_cannot_say(body: str, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        downgrade(parse_query(body))


def test_upgrade_checks_shapes() -> None:
    query = parse_query(DECLARED + "(assert (<= X_0 1))")
    with pytest.raises(InputError, match="X has 3 elements"):
        upgrade(query, [(1, 4)], [(2,)])
    with pytest.raises(InputError, match="the network has 2 inputs"):
        upgrade(query, [(1,), (2,)], [(2,)])
    with pytest.raises(UnsupportedError, match="needs the shape of X"):
        format_query(query, "2.0")
    with pytest.raises(InputError, match="unknown VNN-LIB version"):
        format_query(query, "3.0")
    newer = upgrade(query, [(3,)], [(1, 2)], output_dtype="int64")
    assert [tensor.dtype for tensor in newer.tensors] == ["float32", "int64"]
    assert upgrade(newer, [], []) is newer


def test_constants_of_integer_outputs() -> None:
    query = parse_query(DECLARED + "(assert (<= Y_0 3))(assert (<= X_0 1))")
    newer = upgrade(query, [(3,)], [(2,)], output_dtype="int64")
    assert "(assert (<= Y[0] 3))\n(assert (<= X[0] 1.0))" in written(newer)
    assert same(parse_query(written(newer)), newer)
    with pytest.raises(UnsupportedError, match=r"0\.5 .*integer"):
        written(replace(newer, atoms=parse_query(DECLARED + "(assert (<= Y_0 0.5))(assert (<= X_0 1))").atoms))


def test_subnormal_constants_are_for_1_0_only() -> None:
    query = parse_query(DECLARED + "(assert (<= X_0 5e-324))")
    assert same(parse_query(written(query)), query)
    with pytest.raises(UnsupportedError, match="too close to zero"):
        written(upgrade(query, [(3,)], [(2,)]))


def test_files_are_deterministic_and_complete(tmp_path) -> None:
    query = parse_query(TWO)
    for name in ("a.vnnlib", "b.vnnlib.gz"):
        path = tmp_path / name
        write_query(query, path, comments=["label 3\nepsilon 0.1"])
        first = path.read_bytes()
        write_query(query, path, comments=["label 3\nepsilon 0.1"])
        assert path.read_bytes() == first
        assert same(read_query(path), query)
    assert (tmp_path / "a.vnnlib").read_text().startswith("; label 3\n; epsilon 0.1\n(vnnlib-version")
    assert (tmp_path / "b.vnnlib.gz").read_bytes()[:2] == b"\x1f\x8b"


def test_a_refused_query_leaves_the_old_file(tmp_path) -> None:
    path = tmp_path / "a.vnnlib"
    path.write_text("old")
    query = upgrade(parse_query(DECLARED + "(assert (<= X_0 5e-324))"), [(3,)], [(2,)])
    with pytest.raises(UnsupportedError):
        write_query(query, path)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.vnnlib", "old")]
    with pytest.raises(InputError, match="cannot be written"):
        write_query(query, tmp_path / "absent" / "a.vnnlib")


def real_files() -> list[Path]:
    root = os.environ.get("VNNCOMP_DIR")
    return sorted(Path(root).glob("*/vnnlib/*.vnnlib*")) if root else []


@pytest.mark.skipif(not real_files(), reason="needs VNNCOMP_DIR")
@pytest.mark.parametrize("most", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_real_files_keep_their_meaning_in_both_versions(most: int) -> None:
    rng = np.random.default_rng(0)
    truths = []
    for path in sampled(real_files(), most):
        query = read_query(path)
        assert same(parse_query(written(query)), query), path
        sizes = [tensor.size for tensor in query.tensors]
        lines = written(upgrade(query, [(1, sizes[0])], [(1, sizes[1])]))
        assert len(vnnlib.parse_query_string(lines).assertions) > 0
        newer = parse_query(lines)
        for point in near(query, rng):
            truths.append(query.holds(point))
            assert newer.holds(point) == truths[-1], path
    assert {True, False} == set(truths)


def sampled(files: list[Path], most: int) -> list[Path]:
    """Some of the smaller files of each benchmark."""
    small = [file for file in files if file.stat().st_size < 130_000]
    families = itertools.groupby(small, lambda file: file.parent)
    return [file for _, family in families for file in itertools.islice(family, most)]


def near(query: Query, rng: np.random.Generator) -> list[np.ndarray]:
    """Points on, inside and outside of the constants that variables are compared with."""
    single = np.flatnonzero(np.diff(query.atoms.starts) == 1)
    variable = query.atoms.monomial[query.atoms.starts[single]]
    base = rng.normal(size=query.num_variables)
    base[variable] = -query.atoms.constant[single] / query.atoms.coefficient[query.atoms.starts[single]]
    found = [base.copy() for _ in range(6)]
    for point in found[1:]:
        point[rng.integers(len(point), size=2)] += rng.normal(size=2)
    return found
