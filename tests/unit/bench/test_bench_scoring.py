import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from toolkit.bench.journal import JournalRecord
from toolkit.bench.scoring import mcnemar, par2, points, score, wilson
from toolkit.result import Statistics, Verdict


def record(verdict: str, seconds: float = 1.0, timeout: float = 10.0) -> JournalRecord:
    return JournalRecord("key", "toy", "a.onnx", "b.vnnlib", timeout, Verdict(verdict), "", seconds, Statistics())


@pytest.mark.parametrize(
    ("verdict", "truth", "expected"),
    [
        ("unsat", "unsat", 10),
        ("sat", "sat", 10),
        ("sat", None, 10),
        ("unsat", "sat", -150),
        ("sat", "unsat", -150),
        ("unknown", "sat", 0),
        ("timeout", "unsat", 0),
        ("error", None, 0),
    ],
)
def test_points_are_those_of_the_competition(verdict, truth, expected):
    assert points(record(verdict), truth and Verdict(truth)) == expected


def test_a_score_counts_every_instance_once():
    records = [record("unsat", 2.0), record("sat", 1.0), record("timeout", 10.0), record("error", 0.0)]
    result = score("toy", records, [Verdict.UNSAT, Verdict.UNSAT, None, Verdict.SAT])
    assert (result.instances, result.sat, result.unsat, result.timeout, result.error) == (4, 1, 1, 1, 1)
    assert (result.decided, result.contradictions, result.points) == (2, 1, -140)
    assert result.par2 == pytest.approx((2 + 1 + 20 + 20) / 4)
    assert math.isnan(par2([]))


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_the_textbook_interval(counts):
    successes, trials = counts
    lower, upper = wilson(successes, trials)
    reference = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert (lower, upper) == pytest.approx((reference.low, reference.high), abs=1e-12)
    assert 0 <= lower <= successes / trials <= upper <= 1


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 5))
def test_mcnemar_is_the_binomial_test_on_changed_pairs(gained, lost, same):
    pairs = [(False, True)] * gained + [(True, False)] * lost + [(True, True)] * same
    reference = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert mcnemar(pairs) == pytest.approx(reference)


def test_no_trials_say_nothing():
    assert wilson(0, 0) == (0.0, 1.0)
