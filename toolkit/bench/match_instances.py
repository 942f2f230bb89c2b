"""Which answers of several sources are about the same instance.

Tools name files by whole paths, by paths inside of the benchmark, or by bare names, with and without ``.gz``. Instances
are matched by the names of network and specification without folders; where these are not unique in some source, by
the folders inside of the benchmark too, and then by the category without its year. Answers that are known to be about
other content, by hashes, are never matched.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from toolkit.bench.answer_sources import AnswerSource, ToolAnswer
from toolkit.errors import InputError
from toolkit.formats.vnncomp.instances import parse_networks, stem


@dataclass(frozen=True)
class MatchedInstance:
    """One instance with the answer of each source, None of those that have none."""

    category: str
    network: str
    specification: str
    answers: tuple[ToolAnswer | None, ...]
    listed: ToolAnswer | None = None
    """The instance's row in the benchmark; None where no benchmark folder was given."""


@dataclass(frozen=True)
class Matching:
    """All instances of several sources."""

    instances: tuple[MatchedInstance, ...]
    repeated: int
    """Answers that are left out, since their source has an earlier one about the same names."""
    of_other_content: int
    """Answers whose names are those of another source's, while their files are known to be others."""


def inner_path(field: str) -> tuple[str, ...]:
    """Folders and name of a file inside of its benchmark, without endings: what follows ``onnx/`` or ``vnnlib/``."""
    path = PurePosixPath(field.replace("\\", "/"))
    folders = list(path.parent.parts)
    starts = [index for index, part in enumerate(folders) if part in ("onnx", "vnnlib")]
    inside = folders[starts[-1] + 1 :] if starts else []
    return (*inside, stem(path.name))


def network_names(field: str) -> tuple[tuple[str, ...], ...]:
    """The inner paths of the network, or of all networks of an instance. A list that cannot be read is one name."""
    try:
        return tuple(inner_path(path) for _, path in sorted(parse_networks(field).items()))
    except InputError:
        return ((field,),)


def plain_category(category: str) -> str:
    """A category without the year before or after it: ``acasxu`` for ``2025_acasxu_2023``."""
    return re.sub(r"^20\d\d_|_20\d\d$", "", re.sub(r"^20\d\d_", "", category.strip().lower()))


def _by_names(answer: ToolAnswer) -> Hashable:
    return tuple(path[-1] for path in network_names(answer.onnx)), inner_path(answer.vnnlib)[-1]


def _by_paths(answer: ToolAnswer) -> Hashable:
    return network_names(answer.onnx), inner_path(answer.vnnlib)


def _by_category(answer: ToolAnswer) -> Hashable:
    return _by_paths(answer), plain_category(answer.category)


LEVELS: tuple[Callable[[ToolAnswer], Hashable], ...] = (_by_names, _by_paths, _by_category)
"""Ever longer names of an instance."""
Numbered = tuple[int, ToolAnswer]
"""An answer with the number of its source."""


def match_instances(sources: Sequence[AnswerSource], benchmark: Sequence[ToolAnswer] = ()) -> Matching:
    """The instances of all sources, in the order in which they first occur, with their rows in a benchmark.

    A row of the benchmark is an answer without a verdict; rows that no source answers are left out.
    """
    lists = [*(source.answers for source in sources), benchmark]
    every = [(number, answer) for number, answers in enumerate(lists) for answer in answers]
    place = {id(answer): number for number, (_, answer) in reversed(list(enumerate(every)))}
    groups = _grouped(every, 0)
    instances: list[tuple[int, MatchedInstance]] = []
    repeated = other = 0
    for group in groups:
        parts = _by_content(group)
        other += sum(len(part) for part in parts[1:])
        for part in parts:
            first: dict[int, ToolAnswer] = {}
            for number, answer in part:
                first.setdefault(number, answer)
            repeated += len(part) - len(first)
            if first.keys() != {len(sources)}:
                start = min(place[id(answer)] for answer in first.values())
                instances.append((start, _instance(first, len(sources))))
    instances.sort(key=lambda pair: pair[0])
    return Matching(tuple(instance for _, instance in instances), repeated, other)


def _grouped(answers: list[Numbered], level: int) -> list[list[Numbered]]:
    """Groups of answers of equal names, by names so long that each source has one of them if it can."""
    groups: dict[Hashable, list[Numbered]] = {}
    for number, answer in answers:
        groups.setdefault(LEVELS[level](answer), []).append((number, answer))
    found: list[list[Numbered]] = []
    for group in groups.values():
        numbers = [number for number, _ in group]
        unique = len(set(numbers)) == len(numbers)
        found += [group] if unique or level + 1 == len(LEVELS) else _grouped(group, level + 1)
    return found


def _by_content(group: list[Numbered]) -> list[list[Numbered]]:
    """The group taken apart by what is known of the files' content; unknown content goes with the first."""
    contents = list(dict.fromkeys(answer.content for _, answer in group if answer.content))
    if len(contents) < 2:
        return [group]
    return [
        [(number, answer) for number, answer in group if (answer.content or contents[0]) == content]
        for content in contents
    ]


def _instance(answers: dict[int, ToolAnswer], count: int) -> MatchedInstance:
    any_answer = next(iter(answers.values()))
    category = next((answer.category for answer in answers.values() if answer.category), "")
    return MatchedInstance(
        category=plain_category(category),
        network=" ".join("/".join(path) for path in network_names(any_answer.onnx)),
        specification="/".join(inner_path(any_answer.vnnlib)),
        answers=tuple(answers.get(number) for number in range(count)),
        listed=answers.get(count),
    )
