"""The reader of VNN-LIB 2.x: what the language has, what is refused, and agreement with the official package's tree."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import vnnlib
from hypothesis import given, settings
from hypothesis import strategies as st
from vnnlib_formulas import ARITHMETIC, COMPARE, assertions, points, text, truth

from toolkit.errors import InputError, ToolkitError, UnsupportedError
from toolkit.formats.vnnlib import vnnlib2
from toolkit.formats.vnnlib.query import Query, Relation, TensorKind
from toolkit.formats.vnnlib.read import parse_query
from toolkit.formats.vnnlib.text import checked_source

NAMES = ["X[0,0]", "X[0,1]", "Z", "Y[0]", "Y[1]"]
HEAD = """(vnnlib-version <2.0>)
(declare-network N
 (declare-input X real [1,2])
 (declare-input Z real [])
 (declare-output Y real [2])
)
"""


def test_declarations() -> None:
    query = parse_query(
        "(vnnlib-version <2.0>) ; (assert here\n"
        '(declare-network f (declare-input X_f float32 [2, 3]) (declare-hidden H float32 [4] "a;b (assert")'
        "(declare-output Y_f int64 [1]))\n"
        "(declare-network g (isomorphic-to f) (declare-input X_g float32 [2,3])"
        '(declare-hidden G float32 [4] "a;b (assert") (declare-output Y_g int64 [1]))\n'
        "(declare-network h (equal-to f) (declare-input X_h float32 [2,3]) (declare-output Y_h int64 [1]))\n"
        "(assert (and (<= X_g[1,2] 0.5) (== Y_h[0] 3) (!= H[3] -1.25)))\n"
    )
    f, g, h = query.networks
    assert [network.name for network in query.networks] == ["f", "g", "h"]
    assert (f.isomorphic_to, f.equal_to, g.isomorphic_to, h.equal_to) == (None, None, "f", "f")
    assert [tensor.offset for tensor in query.tensors] == [0, 6, 10, 11, 17, 21, 22, 28]
    assert (f.hidden[0].kind, f.hidden[0].onnx_name, f.outputs[0].dtype) == (TensorKind.HIDDEN, "a;b (assert", "int64")
    assert query.atoms.monomial.tolist() == [16, 28, 9]
    assert query.atoms.relation.tolist() == [Relation.LE, Relation.EQ, Relation.NE]
    assert query.atoms.constant.tolist() == [-0.5, -3.0, 1.25]
    assert query.inputs.tolist() == [*range(6), *range(11, 17), *range(22, 28)]


@pytest.mark.parametrize(
    ("body", "inside", "outside"),
    [
        ("(assert (<= X[0,0] 1.5))", (1.5,), (1.6,)),
        ("(assert (<= 1.5 X[0,0]))", (1.5,), (1.4,)),
        ("(assert (< Y[0] Y[1]))", (0, 0, 0, 1, 2), (0, 0, 0, 1, 1)),
        ("(assert (!= Z 1.0))", (0, 0, 2), (0, 0, 1)),
        ("(assert (== X[0,0] Z))", (2, 0, 2), (2, 0, 1)),
        ("(assert (<= X [ 0 , 1 ] 1.0))", (0, 1), (0, 2)),
        ("(assert (or (and (<= Z 1.0)) (or (> Y[0] (+ Y[1] 0.5)))))", (0, 0, 2, 2, 1), (0, 0, 2, 1.5, 1)),
        ("(assert (>= (* X[0,0] 200.0) (* X[0,1] X[0,1])))", (1, 14), (1, 15)),
        ("(assert (<= (- X[0,0]) (- Z 1.0 1.0)))", (1, 0, 1), (1, 0, 0)),
        ("(assert (and (<= X[0,0] 1.0)))\n(assert (and (<= X[0,1] 1.0)))", (1, 1), (1, 2)),
        ("(assert (or (<= X[0,0] 1.0) (<= X[0,1] 1.0)))(assert (or (<= Y[0] 1.0)))", (2, 1, 0, 1), (2, 2, 0, 1)),
        ("(assert (<= 1.0 2.0))", (0,), None),
        ("(assert (<= X[00,01] 1.0))", (0, 1), (0, 2)),
        ("(assert (<= X[0,0] -0.0))\r\n", (0,), (1e-300,)),
    ],
)
def test_forms(body: str, inside: tuple[float, ...], outside: tuple[float, ...] | None) -> None:
    query = parse_query(HEAD + body)
    assert query.holds(padded(inside))
    assert outside is None or not query.holds(padded(outside))


def padded(values: tuple[float, ...]) -> np.ndarray:
    return np.array([*values, 0.0, 0.0, 0.0, 0.0, 0.0][:5])


def test_version_2_1_is_read_silently(capfd) -> None:
    assert parse_query(HEAD.replace("2.0", "2.1") + "(assert (<= Z 1.0))").version == "2.1"
    assert capfd.readouterr() == ("", "")


OK = "(assert (<= Z 1.0))"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (HEAD, 6, "syntax error"),
        (HEAD.replace("<2.0>", "<1.0>") + OK, 1, "the header is"),
        (HEAD.replace("<2.0>", "<3.0>") + OK, 1, "the header is"),
        (HEAD.replace("(vnn", "( vnn") + OK, 1, "syntax error"),
        (HEAD + "\n(assert (<= X[0,0] 1e-05))", 8, "syntax error"),
        (HEAD + "(assert (<= X[0,0] .5))", 7, "syntax error"),
        (HEAD + "(assert (<= X[0,0] +1.0))", 7, "syntax error"),
        (HEAD + "(assert (<= X[0,0] 1.))", 7, "syntax error"),
        (HEAD + "(assert (<= X[-1,0] 1.0))", 7, "not natural numbers"),
        (HEAD + "(assert (<= X[0.5,0] 1.0))", 7, "not natural numbers"),
        (HEAD + "(assert (<= X[0,1.9] 1.0))", 7, "not natural numbers"),
        (HEAD + "(assert (<= X[0,2] 1.0))", 7, "bounds"),
        (HEAD + "(assert (<= X[0] 1.0))", 7, "indices"),
        (HEAD + "(assert (<= X[0,0,0] 1.0))", 7, "indices"),
        (HEAD + "(assert (<= X 1.0))", 7, "indices"),
        (HEAD + "(assert (<= Q[0] 1.0))", 7, "Undeclared"),
        (HEAD + "(assert (= Z 1.0))", 7, "syntax error"),
        (HEAD + "(assert (not (<= Z 1.0)))", 7, "syntax error"),
        (HEAD + "(assert (=> (<= Z 1.0) (<= Z 1.0)))", 7, "syntax error"),
        (HEAD + "(assert (<= (/ Z 2.0) 1.0))", 7, "syntax error"),
        (HEAD + "(assert (Z < 1.0))", 7, "syntax error"),
        (HEAD + "( assert (<= Z 1.0))", 7, "syntax error"),
        (HEAD + "(assert (and))", 7, "syntax error"),
        (HEAD + OK + ")", 7, "syntax error"),
        (HEAD + OK + " trailing", 7, "syntax error"),
        (HEAD + OK + "\0" + OK, 7, "NUL"),
        (HEAD.replace("[1,2]", "[1 2]") + OK, 3, "shape"),
        (HEAD.replace("[1,2]", "[-1,2]") + OK, 3, "shape"),
        (HEAD.replace("[1,2]", "[1,2.5]") + OK, 3, "shape"),
        (HEAD.replace("[1,2]", "[1,99999999999999999999]") + OK, 3, "shape"),
        (HEAD.replace("[1,2]", "[0]") + OK, 3, "dimension"),
        (HEAD.replace("X real", "X float32").replace("Z real", "Z float32") + "(assert (<= X[0,0] 1))", 7, "mismatch"),
    ],
)
def test_refused_with_the_line(text: str, line: int, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_query(text, "a.vnnlib")
    assert str(caught.value).startswith(f"a.vnnlib:{line}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "(assert (<= X[99999999999999999999999,0] 1.0))", "out of range"),
        (HEAD.replace("real", "Real") + OK, "unknown type"),
        (HEAD.replace("real", "foo") + OK, "unknown type"),
        (HEAD.replace("X real", "X string") + OK, "unknown type"),
        (HEAD.replace("Y real", "Y float32") + OK, "`real` cannot be mixed with float32"),
        (HEAD.replace("[1,2]", "[1,99999999999999]") + OK, "more than"),
        (HEAD + "(assert " + "(and " * 300_000 + "(<= Z 1.0)" + ")" * 300_001, "nested more than"),
        (HEAD + "(assert (<= Z " + "9" * 400 + ".0))", "out of range"),
        (HEAD.replace("(declare-output", '(declare-hidden H real [2] "h")\n (declare-input') + OK, "syntax error"),
        (HEAD + HEAD.split("\n", 1)[1] + OK, "N|declared|name"),
        (HEAD.replace("network N", "network f-copy") + OK, "syntax error"),
    ],
)
def test_refused_as_a_whole(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_query(text, "a.vnnlib")


def test_initialized_inputs_are_not_supported() -> None:
    with pytest.raises(UnsupportedError, match=r"a:3: .*initialized"):
        parse_query(HEAD.replace("<2.0>", "<2.1>").replace("[1,2]", "[1,2] initialized") + OK, "a")


@pytest.mark.parametrize("bad", ["isometric-to f", "equal-to q"])
def test_equivalences_that_do_not_exist(bad: str) -> None:
    with pytest.raises(InputError):
        parse_query(HEAD.replace("network N", f"network N ({bad})") + OK)


MONOTONIC = """(vnnlib-version <2.0>)
(declare-network f (declare-input X_f real [1,1,1,5]) (declare-output Y_f real [1,5]))
(declare-network g (equal-to f) (declare-input X_g real [1,1,1,5]) (declare-output Y_g real [1,5]))
(assert (and (>= X_f[0,0,0,0] X_g[0,0,0,0]) (== X_f[0,0,0,3] 0.227272727)))
(assert (< Y_f[0,3] Y_g[0,3]))
"""
ISOMORPHIC = """(vnnlib-version <2.0>)
(declare-network f (declare-input X_f real [1,1,1,5]) (declare-output Y_f real [1,5]))
(declare-network g (isomorphic-to f) (declare-input X_g real [1,1,1,5]) (declare-output Y_g real [1,5]))
(assert (and (<= X_f[0,0,0,0] 0.679857769) (>= X_f[0,0,0,0] 0.6)))
(assert (== X_f[0,0,0,0] X_g[0,0,0,0]))
(assert (or (or (> Y_g[0,0] (+ Y_f[0,0] 0.0005)) (< Y_g[0,0] (- Y_f[0,0] 0.0005)))
            (or (> Y_g[0,1] (+ Y_f[0,1] 0.0005)) (< Y_g[0,1] (- Y_f[0,1] 0.0005)))))
"""
CRUISE = """(vnnlib-version <2.0>)
(declare-network N (declare-input X real [1,2]) (declare-output Y real [1,1]))
(assert (and (>= (* X[0,0] 200.0) (* X[0,1] X[0,1])) (or (!= Y[0,0] 0.5) (and (<= X[0,0] 1.0) (> X[0,1] 2.0)))))
"""
MULTIMODAL = """(vnnlib-version <2.0>)
(declare-network N (declare-input X1 float32 [1,80,800]) (declare-input X2 float32 [1,3,32,112,112])
 (declare-output Y float32 [1,1]))
(assert (<= X1[0,79,799] 1.0))(assert (>= X2[0,2,31,111,111] 0.0))(assert (> Y[0,0] 0.5))
"""


def test_queries_of_two_networks_products_and_two_inputs() -> None:
    point = np.zeros(20)
    point[[3, 13, 9]] = 0.227272727, 0.1, -1.0
    assert not parse_query(MONOTONIC).holds(point)
    point[8] = -1.0
    assert parse_query(MONOTONIC).holds(point)
    point = np.zeros(20)
    point[[0, 10, 5, 15]] = 0.65, 0.65, 1.0, 1.00051
    assert parse_query(ISOMORPHIC).holds(point)
    assert not parse_query(ISOMORPHIC).holds(np.where(np.arange(20) == 15, 1.0005, point))
    assert parse_query(CRUISE).holds(np.array([0.08, 4.0, 0.5]))
    assert not parse_query(CRUISE).holds(np.array([2.0, 4.0, 0.5]))
    query = parse_query(MULTIMODAL)
    assert query.atoms.monomial.tolist() == [63_999, 64_000 + 3 * 32 * 112 * 112 - 1, 64_000 + 3 * 32 * 112 * 112]


@given(assertions, points)
@settings(deadline=None, max_examples=150)
def test_agrees_with_exact_evaluation_and_with_the_official_tree(formulas, point) -> None:
    body = HEAD + "\n".join(f"(assert {text(f, NAMES)})" for f in formulas)
    source = checked_source("a", body)
    query, slow = vnnlib2.parse_vnnlib2(source), vnnlib2.parse_vnnlib2(source, shortcut=False)
    assert str(query) == str(slow)
    expected = all(truth(formula, point) for formula in formulas)
    assert query.holds(point) == expected
    tree = vnnlib.parse_query_string(body)
    assert all(tree_truth(assertion.expr, point) for assertion in tree.assertions) == expected


SIGNS = dict(
    zip(["LessEqual", "LessThan", "GreaterEqual", "GreaterThan", "Equal", "NotEqual"], COMPARE.values(), strict=True)
)


def tree_truth(node, point: np.ndarray) -> bool:
    if isinstance(node, vnnlib.And | vnnlib.Or):
        return (all if isinstance(node, vnnlib.And) else any)([tree_truth(part, point) for part in node.args])
    return SIGNS[type(node).__name__](tree_value(node.lhs, point), tree_value(node.rhs, point))


def tree_value(node, point: np.ndarray) -> Fraction:
    match type(node).__name__:
        case "Var":
            start = {"X": 0, "Z": 2, "Y": 3}[node.name]
            return Fraction(
                float(point[start + (int(np.ravel_multi_index(node.indices, node.shape)) if node.shape else 0)])
            )
        case "Float" | "Int":
            return Fraction(node.lexeme)
        case "Negate":
            return -tree_value(node.expr, point)
        case "Plus" | "Multiply" as kind:
            return ARITHMETIC["+" if kind == "Plus" else "*"]([tree_value(part, point) for part in node.args])
        case _:
            return tree_value(node.head, point) - sum(tree_value(part, point) for part in node.rest)


def test_long_texts_are_read_without_the_tree(tune: Callable[..., None]) -> None:
    body = HEAD + "(assert (or (and (<= X[0,0] 1.5) (> Y[0] (+ Y[1] 0.5))) (!= Z 1.0)))"
    expected = str(parse_query(body))
    tune(specifications={"most_checked": 10})
    assert str(parse_query(body)) == expected
    with pytest.raises(InputError, match=r"a:7: .*not declared"):
        parse_query(HEAD + "(assert (<= Q[0] 1.0))", "a")
    with pytest.raises(InputError, match=r"a:7: .*out of bounds"):
        parse_query(HEAD + "(assert (<= X[0,2] 1.0))", "a")


WORDS = "( ) <= != and or assert X[0,1] Z Y[ ] , 1.5 -1 + * - real float32 [1,2] <2.1> é [-1] [9] equal-to"
TOKENS = [*WORDS.split(), "declare-hidden", " ", "\n", '"', ";", "\0"]
VALID = HEAD + "(assert (<= X[0,0] 0.5))\n(assert (or (and (<= X[0,1] 1.0) (>= Y[0] Y[1])) (> (* Z 2.0) Y[0])))\n"


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_mutations_never_raise_anything_else(data) -> None:
    body = VALID
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(body)))
        stop = data.draw(st.integers(start, min(len(body), start + 12)))
        body = body[:start] + data.draw(st.one_of(st.sampled_from(TOKENS), st.text(max_size=4))) + body[stop:]
    try:
        assert isinstance(parse_query(body), Query)
    except ToolkitError as error:
        assert "\n" not in str(error)
