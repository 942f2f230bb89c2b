"""Light proofs never contradict an exact mixed-integer oracle, and most queries of small networks have one."""

from pathlib import Path

import numpy as np
import pytest
from random_networks import random_network, save
from test_verdicts import random_example

from toolkit.formats.onnx_file import load_model
from toolkit.formats.read import parse_query
from toolkit.formats.runtime import Session
from toolkit.light.proving import proved
from toolkit.problem.cases import compile_cases
from toolkit.search.clock import Clock
from toolkit.search.losses import Losses

NETWORKS, QUERIES = 6, 8


@pytest.mark.parametrize("name", ["mlp", "tiny", "residual"])
def test_light_proofs_agree_with_the_oracle(name: str, tmp_path: Path) -> None:
    proofs = unsatisfiable = 0
    for seed in range(NETWORKS):
        onnx_model = random_network(name, seed)
        model = load_model(save(onnx_model, tmp_path, f"{seed}.onnx"))
        session, generator = Session(model), np.random.default_rng(500 + seed)
        for number in range(QUERIES):
            example = random_example(onnx_model, generator, least=1e-3)
            query = parse_query(example.text)
            models = {network.name: model for network in query.networks}
            losses = Losses(query, compile_cases(query), dict.fromkeys(models, session))
            found = proved(losses, models, Clock.started(0.5))
            assert not (found and example.satisfiable), f"{name} {seed}, query {number}"
            proofs, unsatisfiable = proofs + found, unsatisfiable + (not example.satisfiable)
    assert proofs >= 0.5 * unsatisfiable > 0, f"{proofs} of {unsatisfiable}"
