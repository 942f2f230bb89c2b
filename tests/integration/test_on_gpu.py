"""What only a GPU can show; on machines without one, `test_pretend_device` looks at the same code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from random_networks import FAMILIES, random_network, save
from random_queries import hard_query

from toolkit.formats.vnnlib.read import parse_query
from toolkit.result import Verdict
from toolkit.run.cuda_graphs import Recordings
from toolkit.settings import Settings
from toolkit.tuning import tuned
from toolkit.verify import load_networks, verify

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]


@pytest.mark.parametrize("name", FAMILIES)
def test_verdicts_are_those_of_the_processor(name: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(11)
    for seed in range(4):
        path = save(random_network(name, seed), tmp_path)
        query = parse_query(hard_query(path, generator, 0.01))
        settings = {"timeout": 10.0, "attack_restarts": 2}
        here, there = (
            verify(load_networks({"": path}), query, Settings(device=d, **settings)) for d in ("cpu", "cuda")
        )
        assert here.verdict == there.verdict or Verdict.TIMEOUT in {here.verdict, there.verdict}


def test_a_graph_computes_what_was_recorded() -> None:
    known, weight = Recordings(), torch.randn(5, 5, device="cuda")
    for count in [3, 3, 3, 64, 1]:
        rows = torch.randn(count, 5, device="cuda")
        found = known.run("product", lambda batch: torch.relu(batch @ weight), rows)
        assert torch.allclose(found, torch.relu(rows @ weight), atol=1e-4)
    assert list(known._known.values()) != [None]


def test_what_waits_for_the_device_is_not_recorded() -> None:
    known, rows = Recordings(), torch.randn(4, 5, device="cuda")
    for _ in range(tuned().recordings.calls_before + 2):
        assert torch.equal(known.run("waits", lambda batch: batch * float(batch.sum()), rows), rows * float(rows.sum()))
    assert list(known._known.values()) == [None]
