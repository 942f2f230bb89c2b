"""Counterexamples that tools left in files, judged as VNN-COMP's scorer judges them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from toolkit.bench.answer_sources import AnswerSource, ToolAnswer
from toolkit.bench.competition_rules import WitnessState
from toolkit.bench.folder import find_benchmarks, present
from toolkit.bench.match_instances import MatchedInstance, inner_path, plain_category
from toolkit.errors import ToolkitError
from toolkit.formats.onnx.model_file import OnnxModel, load_model
from toolkit.formats.vnncomp.instances import Instance, witness_name
from toolkit.formats.vnncomp.model_binding import bind, check_binding
from toolkit.formats.vnncomp.witness import open_sessions
from toolkit.formats.vnncomp.witness_check import Classification, classify
from toolkit.formats.vnnlib.read import read_query
from toolkit.result import Verdict

STATES = {
    Classification.CORRECT: WitnessState.VALID,
    Classification.CORRECT_UP_TO_TOLERANCE: WitnessState.TOLERATED,
}
"""What the classes that count mean; all others are wrong."""


@dataclass(frozen=True)
class BenchmarkRows:
    """The instances of benchmark folders, as rows that answers are matched with."""

    rows: tuple[ToolAnswer, ...]
    """Instances with their time limits, as answers without a verdict."""
    instances: Mapping[tuple[str, str, str], Instance]
    """Instances by category and the names of network and specification in ``instances.csv``."""

    @classmethod
    def read(cls, folders: Sequence[Path], version: str | None = None) -> BenchmarkRows:
        """The instances of all benchmarks in the folders. Raises InputError."""
        found = [benchmark for folder in folders for benchmark in find_benchmarks(folder, version)]
        instances = {
            (benchmark.category, instance.onnx_field, instance.spec_field): instance
            for benchmark in found
            for instance in benchmark.instances
        }
        rows = [ToolAnswer(*key, Verdict.UNKNOWN, timeout=one.timeout) for key, one in instances.items()]
        return cls(tuple(rows), instances)

    def limit_of(self, matched: MatchedInstance) -> float:
        """The time limit of an instance in seconds; NaN of one that no benchmark has."""
        return math.nan if matched.listed is None else matched.listed.timeout

    def instance_of(self, matched: MatchedInstance) -> Instance | None:
        """The files of an instance, where a benchmark has it."""
        row = matched.listed
        return None if row is None else self.instances[row.category, row.onnx, row.vnnlib]


@dataclass(frozen=True)
class WitnessFiles:
    """Judges the counterexamples of several sources, by the files of their benchmark where these are at hand."""

    sources: Sequence[AnswerSource]
    benchmark: BenchmarkRows
    notes: dict[str, str] = field(default_factory=dict)
    """What is to be said about each file that does not count, by its path, or its name where it is missing."""

    def judge(self, matched: MatchedInstance, number: int) -> WitnessState:
        """What the counterexample is that the source of this number has for an instance."""
        answer, source, instance = matched.answers[number], self.sources[number], self.benchmark.instance_of(matched)
        assert answer is not None
        published = answer.witness is not None or bool(source.counterexamples)
        if instance is None or not published:
            return WitnessState.VALID if answer.replayed else WitnessState.UNCHECKED
        path = answer.witness or find_counterexample(source.counterexamples, answer, instance)
        if path is None:
            self.notes[f"{source.label}: {witness_name(instance.networks, instance.spec)}"] = "no such file"
            return WitnessState.WRONG
        state, explanation = judge_file(instance, path)
        if state != WitnessState.VALID:
            self.notes[str(path)] = explanation
        return state


def find_counterexample(files: Mapping[str, Sequence[Path]], answer: ToolAnswer, instance: Instance) -> Path | None:
    """The file of a counterexample by its name in VNN-COMP, in the folder of its category if there are several.

    Where specifications lie in folders of their own, the folder's name may stand before the file's.
    """
    name = witness_name(instance.networks, instance.spec)
    folders = inner_path(instance.spec_field)[:-1]
    named = [path for prefix in ("_".join([*folders, ""]), "") for path in files.get(prefix + name, ())]
    category = plain_category(answer.category)
    own = [path for path in named if plain_category(path.parent.name) == category]
    return next(iter([*own, *named]), None)


def judge_file(instance: Instance, path: Path) -> tuple[WitnessState, str]:
    """What a counterexample file is, and why."""
    try:
        query = read_query(present(instance.spec))
        models = _models(tuple((name, present(file)) for name, file in instance.networks.items()))
        check_binding(query, bind(query, models))
        found, explanation = classify(open_sessions(models, query), query, path)
    except ToolkitError as error:
        return WitnessState.UNSUPPORTED, str(error)
    return STATES.get(found, WitnessState.WRONG), f"{found}: {explanation}"


@lru_cache(maxsize=1)
def _models(networks: tuple[tuple[str, Path], ...]) -> dict[str, OnnxModel]:
    """The networks, kept until other ones are asked for: instances of one network mostly follow each other."""
    return {name: load_model(path) for name, path in networks}
