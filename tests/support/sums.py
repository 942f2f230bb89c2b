"""Queries about the sum of thirty inputs, for whatever looks for witnesses without torch."""

from __future__ import annotations

from pathlib import Path

from small_models import load_text

from toolkit.attack.case_losses import CaseLosses
from toolkit.formats.onnx.batching import batch_session
from toolkit.formats.onnx.runtime import Session
from toolkit.formats.vnnlib.query import Query
from toolkit.formats.vnnlib.read import parse_query
from toolkit.problem.cases import Cases, compile_cases

INPUTS = 30
SUM = """main (float[1,30] x) => (float[1,2] y) {
    axes = Constant<value = int64[1] {1}>()  s = ReduceSum(x, axes)  r = Relu(s)  y = Concat<axis = 1>(s, r)
}"""
"""The sum of all inputs, and what of it is positive."""


def text_of(condition: str, low: float = -1.0, high: float = 1.0) -> str:
    names = [f"X_{i}" for i in range(INPUTS)]
    declared = "".join(f"(declare-const {name} Real)" for name in [*names, "Y_0", "Y_1"])
    box = "".join(f"(assert (>= {name} {low}))(assert (<= {name} {high}))" for name in names)
    return f"{declared}{box}(assert {condition})"


def posed(tmp_path: Path, condition: str) -> tuple[Query, Cases, CaseLosses]:
    query = parse_query(text_of(condition))
    session = batch_session(Session(load_text(tmp_path / "net.onnx", SUM)))
    cases = compile_cases(query)
    return query, cases, CaseLosses(query, cases, {query.networks[0].name: session})
