"""The reader of VNN-LIB 1.0: every form that real files contain, what it refuses, and its two ways of reading."""

from __future__ import annotations

import gzip
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from vnnlib_formulas import assertions, points, text, truth

from toolkit.errors import InputError, ToolkitError
from toolkit.formats.vnnlib.query import Query, Relation, TensorKind
from toolkit.formats.vnnlib.read import parse_query, read_query
from toolkit.formats.vnnlib.text import checked_source
from toolkit.formats.vnnlib.vnnlib1 import parse_vnnlib1

NAMES = ["X_0", "X_1", "X_2", "Y_0", "Y_1"]
DECLARED = "".join(f"(declare-const {name} Real)\n" for name in NAMES)


def holds(body: str, *values: float) -> bool:
    return parse_query(DECLARED + body).holds(np.array([*values, 0.0, 0.0, 0.0, 0.0, 0.0][:5]))


def same(a: Query, b: Query) -> bool:
    arrays = ("relation", "constant", "starts", "coefficient", "monomial")
    equal = all(np.array_equal(getattr(a.atoms, name), getattr(b.atoms, name)) for name in arrays)
    return equal and (a.networks, a.formula, a.products) == (b.networks, b.formula, b.products)


def test_declares_one_network_with_flat_real_vectors() -> None:
    query = parse_query(DECLARED + "(assert (<= X_0 1))")
    (network,) = query.networks
    x, y = network.tensors
    assert (query.version, network.name) == ("1.0", "N")
    assert (x.name, x.kind, x.dtype, x.shape, x.offset, x.size) == ("X", TensorKind.INPUT, "real", None, 0, 3)
    assert (y.name, y.kind, y.dtype, y.shape, y.offset, y.size) == ("Y", TensorKind.OUTPUT, "real", None, 3, 2)


@pytest.mark.parametrize(
    ("body", "inside", "outside"),
    [
        ("(assert (<= X_0 0.679857769))(assert (>= X_0 0.6))", (0.65,), (0.7,)),
        ("(assert (>= X_0 0.151)) (assert (<= X_0 0.207))", (0.151,), (0.15,)),
        ("(assert (>= X_0 0.5))(assert (<= X_0 0.5))", (0.5,), (0.5000001,)),
        ("(assert (<= Y_1 Y_0))", (0, 0, 0, 1, 1), (0, 0, 0, 1, 1.5)),
        ("(assert (>= Y_0 -2))", (0, 0, 0, -2), (0, 0, 0, -2.1)),
        ("(assert (<= Y_0 -0.0))", (0, 0, 0, 0), (0, 0, 0, 1e-300)),
        ("(assert (or (and (>= Y_0 Y_1)) (and (>= X_0 1))))", (0, 0, 0, 2, 1), (0, 0, 0, 1, 2)),
        ("(assert (or (and (<= Y_0 Y_1)(<= Y_0 X_0))))", (3, 0, 0, 1, 2), (0, 0, 0, 1, 2)),
        ("(assert (or (and (>= Y_0 0.5593)) (and (<= Y_0 0.5093))))", (0, 0, 0, 0.6), (0, 0, 0, 0.52)),
        ("(assert (or (and (>= Y_0 41) (<= Y_0 236))))", (0, 0, 0, 41), (0, 0, 0, 40)),
        ("(assert (or (and (<= X_0 1)) (and (>= X_0 2))))\n(assert (or (and (<= Y_0 0))))", (1,), (1.5,)),
        ("(assert (or (and (<= X_0 1) (<= Y_0 0)) (and (>= X_0 2) (>= Y_0 1))))", (2, 0, 0, 1), (1, 0, 0, 1)),
        ("(assert (or (and (<= Y_0 1)) (and (<= Y_1 1))))(assert (<= X_0 0.045))", (0, 0, 0, 2), (1,)),
        ("(assert (<= X_0 1.19362e6))(assert (>= X_0 -1e-5))", (1193620,), (-1e-4,)),
        ("\t(assert\t(<=\tX_0\t1))", (1,), (2,)),
        ("(assert ((<= Y_0 30291)))", (0, 0, 0, 30291), (0, 0, 0, 30292)),
        ("(assert (or ((<= Y_0 1)) (<= Y_1 1)))", (0, 0, 0, 9, 1), (0, 0, 0, 2, 2)),
        ("(assert (> Y_0 1))", (0, 0, 0, 1.1), (0, 0, 0, 1)),
        ("(assert (< Y_0 1))", (0, 0, 0, 0.9), (0, 0, 0, 1)),
        ("(assert (= X_0 1))", (1,), (1.5,)),
        ("(assert (== X_0 1))", (1,), (1.5,)),
        ("(assert (!= X_0 1))", (1.5,), (1,)),
        ("(assert (<= 0.5 X_0))", (0.5,), (0.4,)),
        ("(assert (>= .5 X_0))", (0.5,), (0.6,)),
        ("(assert (<= (+ X_0 (* 2. X_1) (- X_2)) (- 3 1 1)))", (1, 1, 2), (1, 1, 1)),
        ("(assert (<= (* X_0 X_1 -1) (* 2 3)))", (-2, 3), (-2, 4)),
        ("(assert (<= (* (+ X_0 1) (- X_0 1)) 3))", (2,), (2.1,)),
        ("(assert (and (<= X_0 1) (or (<= X_1 1) (and (<= X_2 1) (<= Y_0 1)))))", (1, 2, 1, 1), (1, 2, 1, 2)),
        ("(assert (<= X_0 X_0))(assert (<= X_0 0))", (0,), (1,)),
        ("; comment (assert (<= X_0 -1))\n(assert (<= X_0 1)) ; (((", (1,), (2,)),
        ("(assert\n(<= X_0\n\n1)\n)\n", (1,), (2,)),
        ("(set-logic QF_LRA)(assert (<= X_0 1))(check-sat)", (1,), (2,)),
        ("(set-info :status unsat)(set-option :produce-models true)(assert (<= X_0 1))(exit)", (1,), (2,)),
        ('(set-info :source "a (b; c")(assert (<= X_0 1))(echo ")")(get-info :name)', (1,), (2,)),
        ("(assert (<= X_0 1))(check-sat)(get-model)(get-value (X_0 (+ X_1 Y_0) Y_1))", (1,), (2,)),
    ],
)
def test_forms(body: str, inside: tuple[float, ...], outside: tuple[float, ...]) -> None:
    assert holds(body, *inside)
    assert not holds(body, *outside)


def test_declare_fun_crlf_byte_order_mark() -> None:
    lines = ["\ufeff; title", "(declare-fun X_0 () Real)", "(declare-fun Y_0 () Real)", "(assert (<= X_0 1))", ""]
    assert parse_query("\r\n".join(lines)).holds(np.array([1.0, 5.0]))


def test_sums_of_constants_are_exact() -> None:
    assert holds("(assert (= X_0 (+ 0.1 0.2)))", 0.3)
    assert not holds("(assert (= X_0 (+ 0.1 0.2)))", 0.1 + 0.2)


JUST_BELOW_ONE, JUST_ABOVE_ONE = "0.99999999999999999999", "1.00000000000000000001"
ZEROS = "0" * 400


@pytest.mark.parametrize("write", ["(assert ({} Y_0 {}))", "(assert ({} (+ Y_0 0) {}))"])
@pytest.mark.parametrize(
    ("sign", "constant", "inside", "outside"),
    [
        ("<=", JUST_BELOW_ONE, np.nextafter(1, 0), 1.0),
        ("<", JUST_ABOVE_ONE, 1.0, np.nextafter(1, 2)),
        ("<", JUST_BELOW_ONE, np.nextafter(1, 0), 1.0),
        (">=", JUST_ABOVE_ONE, np.nextafter(1, 2), 1.0),
        (">", JUST_BELOW_ONE, 1.0, np.nextafter(1, 0)),
        (">", "-1e-400", 0.0, -5e-324),
        (">=", "1e-400", 5e-324, 0.0),
        ("<=", f"-0.{ZEROS}1", -5e-324, 0.0),
        ("<", f"0.{ZEROS}1", 0.0, 5e-324),
        (">=", "0e-99999", 0.0, -5e-324),
        ("<=", "0.1", 0.1, np.nextafter(0.1, 1)),
        (">=", "0.7448671968471809", 0.7448671968471809, 0.7448671968471808),
        (">=", "-0.329411774873733521", -0.3294117748737335, np.nextafter(-0.3294117748737335, -1)),
    ],
)
def test_outputs_are_compared_with_constants_between_doubles(
    write: str, sign: str, constant: str, inside: float, outside: float
) -> None:
    assert holds(write.format(sign, constant), 0, 0, 0, inside)
    assert not holds(write.format(sign, constant), 0, 0, 0, outside)


def test_inputs_are_compared_with_the_nearest_double() -> None:
    """A box's corner that was printed with a few digits too many is a point of the box."""
    corner = float(np.float32(0.32941177))
    assert holds("(assert (>= X_0 0.329411774873733521)) (assert (<= X_0 0.329411774873733521))", corner)


def test_strictness_is_kept() -> None:
    query = parse_query(DECLARED + "(assert (or (< X_0 1) (>= X_0 1) (= X_0 1) (!= X_0 1)))")
    assert query.atoms.relation.tolist() == [Relation.LT, Relation.LE, Relation.EQ, Relation.NE]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (DECLARED, 6, "no assertion"),
        (DECLARED + "\n(assert (<= X_3 1))", 7, "X_3 is not declared"),
        (DECLARED + "(assert (<= X_01 1))", 6, "'X_01' is neither"),
        (DECLARED + "(assert (<= X_-1 1))", 6, "'X_-1' is neither"),
        (DECLARED + "(assert (<= Z_0 1))", 6, "'Z_0' is neither"),
        (DECLARED + "(assert (<= X_0 nan))", 6, "'nan' is neither"),
        (DECLARED + "(assert (<= X_0 inf))", 6, "'inf' is neither"),
        (DECLARED + "(assert (<= X_0 1e999))", 6, "out of the range"),
        (DECLARED + "(assert (<= X_0 1_0))", 6, "'1_0' is neither"),
        (DECLARED + "(assert (<= X_0 ٣))", 6, "is neither"),
        (DECLARED + "(assert (<= X_0))", 6, "compares two operands, not 1"),
        (DECLARED + "(assert (<= X_0 X_1 X_2))", 6, "compares two operands, not 3"),
        (DECLARED + "(assert (<= (0.7 (- Y_0 1))))", 6, "unknown operator '0.7'"),
        (DECLARED + "(assert (=> (<= X_0 1) (<= X_1 1)))", 6, "unknown operator '=>'"),
        (DECLARED + "(assert (not (<= X_0 1)))", 6, "unknown operator 'not'"),
        (DECLARED + "(assert (<= X_0 (/ 1 3)))", 6, "unknown operator '/'"),
        (DECLARED + "\n(assert (let ((t (+ X_0 X_1))) (<= t 0.2)))", 7, "let is not in the language"),
        (DECLARED + "(assert\n(and (<= X_0 1) (let ((t X_0)) (<= t 0.2))))", 7, "let is not in the language"),
        (DECLARED + "(assert\n(forall ((z Real)) (<= z X_0)))", 7, "forall is not in the language"),
        (DECLARED + '(assert (and "(" (<= X_0 1)))', 6, "not a formula"),
        (DECLARED + "(assert (<= X_0 1))\n(set-info :a (assert (<= X_0 2)))", 7, "assert inside"),
        (DECLARED + "(assert (and))", 6, "and without operands"),
        (DECLARED + "(assert)", 6, "assert without operands"),
        (DECLARED + "(assert (<= X_0 1) (<= X_1 1))", 6, "one formula, not 2"),
        (DECLARED + "(assert X_0)", 6, "not a formula"),
        (DECLARED + "(assert (or X_0 (<= X_0 1)))", 6, "not a formula"),
        (DECLARED + "(assert (<= X_0 (<= X_1 1)))", 6, "a formula as operand"),
        (DECLARED + "(assert (<= (and (<= X_1 1)) 1))", 6, "a formula as operand"),
        (DECLARED + "(assert (+ (<= X_1 1) 2))", 6, "a formula as operand"),
        (DECLARED + "(assert (<= X_0 1))\n(assert (<= X_0 1)", 7, "not closed"),
        (DECLARED + "(assert (<= X_0 1)))", 6, "unmatched )"),
        (DECLARED + "(assert (<= X_0 1)) foo", 6, "'foo' outside of parentheses"),
        (DECLARED + "(assert (<= X_0 1))\n)\n\n\n(assert (<= X_0 1))", 7, "unmatched )"),
        ("foo " + DECLARED, 1, "'foo' outside of parentheses"),
        (DECLARED + "(<= X_0 1)\n(assert (<= X_0 1))", 7, "outside of an assertion"),
        (DECLARED + "(assert (assert (<= X_0 1)))", 6, "assert inside"),
        (DECLARED + "(assert ((<= X_0 1) and))", 6, "unexpected 'and'"),
        (DECLARED + "(foo (<= X_0 1))", 6, "unknown operator 'foo'"),
        (DECLARED + "(foo X_0)", 6, "unknown statement 'foo'"),
        (DECLARED + "(declare-const X_0 Real)", 6, "X_0 is declared twice"),
        (DECLARED + "(declare-const X_5 Int)", 6, "a declaration is"),
        (DECLARED + "(declare-const Q Real)", 6, "cannot declare 'Q'"),
        (DECLARED + "(assert (<= X_0 1)) \0 (assert (<= X_0 0))", 6, "NUL"),
        (DECLARED + "(assert " + "(and " * 200 + "(<= X_0 1)" + ")" * 201, 6, "nested more than"),
        (DECLARED + "(assert (<= (* " + "(+ X_0 X_1 Y_0 Y_1 1) " * 100 + ") 1))", 6, "too large"),
        (DECLARED + "(assert (<= (* " + "1e300 " * 500 + ") X_0))", 6, "too large"),
        (DECLARED + "(assert (<= (* 1e200 1e200 X_0) 1))", 6, "exceeds the largest double"),
    ],
)
@pytest.mark.parametrize("shortcut", [True, False])
def test_refused_with_the_line(text: str, line: int, message: str, shortcut: bool) -> None:
    with pytest.raises(InputError) as caught:
        parse_vnnlib1(checked_source("a.vnnlib", text), shortcut)
    assert str(caught.value).startswith(f"a.vnnlib:{line}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("; only a comment\n", "empty"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git-LFS pointer"),
        ("(declare-const X_0 Real)(declare-const X_2 Real)(declare-const Y_0 Real)(assert (<= X_0 1))", "X_1 is not"),
        ("(declare-const X_0 Real)(assert (<= X_0 1))", "Y_0 is not declared"),
    ],
)
def test_refused_as_a_whole(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_query(text, "a.vnnlib")


def test_files_plain_and_compressed(tmp_path) -> None:
    body = (DECLARED + "(assert (<= X_0 1))").encode()
    (tmp_path / "a.vnnlib").write_bytes(body)
    (tmp_path / "b.vnnlib.gz").write_bytes(gzip.compress(body))
    (tmp_path / "c.vnnlib").write_bytes(gzip.compress(body))
    (tmp_path / "d.vnnlib").write_bytes(b"; caf\xe9\n" + body)
    assert all(same(read_query(path), parse_query(body.decode())) for path in sorted(tmp_path.iterdir()))


def test_unreadable_files(tmp_path) -> None:
    whole = gzip.compress((DECLARED + "(assert (<= X_0 1))").encode())
    (tmp_path / "truncated.gz").write_bytes(whole[:-12])
    (tmp_path / "corrupt.gz").write_bytes(whole[:20] + bytes(20) + whole[40:])
    for path in (tmp_path / "absent", tmp_path, tmp_path / "truncated.gz", tmp_path / "corrupt.gz"):
        with pytest.raises(InputError, match=f"{path}.*"):
            read_query(path)


def test_a_chunk_boundary_changes_nothing(tune: Callable[..., None]) -> None:
    body = DECLARED + "(assert (or (and (<= X_0 1) (>= Y_0 2)) (and (<= X_1 (+ X_0 1)))))"
    expected = parse_query(body)
    for size in range(1, 80):
        tune(files={"split_characters": size})
        assert same(parse_query(body), expected)
        with pytest.raises(InputError, match="not closed"):
            parse_query(body + "(")


@given(assertions, points, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=150)
def test_agrees_with_exact_evaluation_in_both_ways(formulas, point, random) -> None:
    pieces = [" ", "\t", "\n", "\r\n", "  ", " ; note (\n"]
    body = "\n".join(f"(assert {text(f, NAMES, lambda: random.choice(pieces))})" for f in formulas)
    source = checked_source("a", DECLARED + body)
    fast, slow = parse_vnnlib1(source), parse_vnnlib1(source, shortcut=False)
    assert same(fast, slow)
    assert fast.holds(point) == all(truth(formula, point) for formula in formulas)


WORDS = "( ) ( ) <= >= < = and or assert X_0 Y_1 X_9 1.5 -1e3 + * - 1e999 nan ; declare-const Real [ ] é"
TOKENS = [*WORDS.split(), " ", "\n", '"', "\0", "X_0 [0]", "(assert (<= X_0 1))"]


@given(st.lists(st.sampled_from(TOKENS), max_size=30).map(" ".join))
@example("(assert (<= X_0 1)) (<= X_0 1")
@settings(deadline=None, max_examples=300)
def test_both_ways_agree_on_any_tokens(tail: str) -> None:
    assert outcome(DECLARED + tail, True) == outcome(DECLARED + tail, False)


def outcome(text: str, shortcut: bool) -> str:
    try:
        query = parse_vnnlib1(checked_source("a", text), shortcut)
        return f"{query.formula} {query.atoms} {query.products}"
    except ToolkitError:
        return "refused"


VALID = DECLARED + "(assert (<= X_0 0.5))\n(assert (or (and (<= X_1 1e-3) (>= Y_0 Y_1)) (and (> (* X_0 2) Y_0))))\n"


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_mutations_never_raise_anything_else(data) -> None:
    outcome(mutated(data, VALID), True)


def mutated(data, text: str) -> str:
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        stop = data.draw(st.integers(start, min(len(text), start + 12)))
        text = text[:start] + data.draw(st.one_of(st.sampled_from(TOKENS), st.text(max_size=4))) + text[stop:]
    return text
