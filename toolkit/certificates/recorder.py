"""Writes the certificate of a search while it goes on, from what the search tells its observers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatchmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from toolkit.bounds.bounder import NeuronTrees
from toolkit.certificates.box_record import BoxRecord
from toolkit.certificates.certificate_file import CertificateFile, FileMark
from toolkit.certificates.equal_elements import stated_tensors
from toolkit.certificates.formula_cases import common_case, formula_cases, impossible_cases
from toolkit.certificates.leaf_rows import RefutedDomains, SearchedNeurons
from toolkit.certificates.neuron_bounds import stated_rows
from toolkit.certificates.neuron_elements import NeuronElements, NeuronValues, neuron_elements
from toolkit.certificates.neuron_trees import StatedTrees
from toolkit.certificates.phase_record import PhaseRecord
from toolkit.certificates.recorded_problem import RecordedProblem, SearchRecord
from toolkit.certificates.share_record import ShareRecorder
from toolkit.certificates.writer import CertificateWriter, no_references, references
from toolkit.problem.affine import in_numpy
from toolkit.problem.compile import Problem
from toolkit.problem.program import Program
from toolkit.proof.bounds import Model
from toolkit.proof.floats import unsuited
from toolkit.proof.formula import load_formula
from toolkit.proof.network import UnreadableError, load_network
from toolkit.proof.stream import LinearRows
from toolkit.run.events import (
    DomainsBounded,
    LeafClosed,
    NeuronsBounded,
    ProblemBegun,
    RootBounded,
    SearchBegun,
    ShareObserver,
    ShareObserverGroup,
)
from toolkit.search.box_frontier import BoxFrontier
from toolkit.search.phase_domains import proved
from toolkit.search.phase_frontier import PhaseFrontier

RECORDS: dict[type, Callable[[RecordedProblem, Any], SearchRecord]] = {
    PhaseFrontier: PhaseRecord,
    BoxFrontier: BoxRecord,
}
"""How a search is written, by what its frontier is."""


@dataclass(frozen=True)
class BeforeSearch:
    """What was written when a search began."""

    mark: FileMark
    gaps: Counter[str]
    unstated: bool
    """Whether nothing was stated of the problem, so that what is stated first is the search's."""
    model: Model | None
    common_begun: bool


class CertificateRecorder:
    """An observer that writes what a search proves; what it cannot express is left open, and `gaps` has the reasons.

    A search that ends undecided is taken back when another one begins, which begins with all of its cases.
    """

    def __init__(self, network: Path, specification: Path, certificate: Path, floats: bool = False) -> None:
        """With ``floats``, state what is proved of evaluations in the network's floating-point type.

        Raises `toolkit.proof.network.UnreadableError` for what the checker does not read, OSError for files.
        """
        self.network, self.formula = load_network(network), load_formula(specification)
        for number in range(len(self.formula.cases)):
            self.formula.case(number)  # the checker reads all of them, too
        if floats and (reason := unsuited(self.network)):
            raise UnreadableError(reason)
        self.model: Model | None = None
        """The checker's model of the network, once equal elements have been stated."""
        writer = CertificateWriter(self.network.digest, self.formula.digest, list(self.network.names))
        self.file = CertificateFile(certificate.open("wb"), writer)
        if floats:
            self.file.add(writer.floats(self.network.types))
        self.gaps: Counter[str] = Counter()
        self.posed: ProblemBegun | None = None
        """The problem that is being decided, as its search began it."""
        self.problem: RecordedProblem | None = None
        """What cases and neurons of the problem are in the files; None until something is stated of it."""
        self.common_begun = False
        """Whether what all cases have in common may have a context already."""
        self.frontier: Any = None
        self.search: SearchRecord | None = None
        self.before_search: BeforeSearch | None = None

    def __call__(self, event: object) -> None:
        """Write what an event proves."""
        self.record(event)

    def of_share(self, share: Any) -> ShareObserver:
        """The observer that writes the proof of a share, a frontier of open domains dealt to another process."""
        return ShareObserverGroup() if self.search is None else ShareRecorder(self.search, share)

    def close(self, refuted: bool) -> None:
        """Close the file; with an END record only where all cases of the query are ``refuted``."""
        if refuted:
            self.refute_impossible()
            self.file.end()
        self.file.close()

    def refute_impossible(self) -> None:
        """Refute each case that never came to a search by the atom of inputs alone that is false in all of its box."""
        searched = [] if self.problem is None else self.problem.cases
        stated, none = {case.number for alike in searched for case in alike}, no_references(1)
        for number, atom in impossible_cases(self.formula, stated):
            context, record = self.file.writer.case(number)
            self.file.add(record)
            alone = LinearRows(False, np.array([context]), np.array([0]), references([{atom: 1.0}]), none, none)
            self.file.add(self.file.writer.refute(alone))

    @singledispatchmethod
    def record(self, event: object) -> None:
        """Ignore events that prove nothing; what an event of a type registered below proves is written."""

    @record.register
    def problem_begun(self, event: ProblemBegun) -> None:
        """Take the problem that the query goes on with; nothing of it is written before something is proved."""
        self.posed = self.problem = self.frontier = self.search = self.before_search = None
        if event.problem.num_cases != len(event.cases):
            self.gaps["problems are about some of the cases alone"] += 1
            return
        self.posed = event

    def stated(self, boxes: bool = False) -> RecordedProblem:
        """What cases and neurons are in the files, for the first statement about them, by a search over ``boxes`` or
        another one."""
        assert self.posed is not None
        if self.problem is None:
            problem: Problem = self.posed.problem
            lower, upper = (in_numpy(end[0]) for end in (problem.lower, problem.upper))
            neurons = NeuronValues.of(problem.program, lower, upper)
            if self.model is None:
                self.model, elements = self.with_equal_elements(problem.program, neurons, boxes)
            else:
                elements = neuron_elements(neurons, self.model)
            cases, rows = formula_cases(self.formula, self.posed.cases), problem.rows.cpu().numpy()
            sizes = [self.model.network.sizes[value] for value in self.model.network.names.values()]
            starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
            common, self.common_begun = None if self.common_begun else common_case(self.formula, lower, upper), True
            self.problem = RecordedProblem(self.file, starts, rows, cases, self.gaps, elements, common_case=common)
        return self.problem

    def with_equal_elements(self, program: Program, neurons: NeuronValues, boxes: bool) -> tuple[Model, NeuronElements]:
        """State equal elements of tensors, but where the search has a neuron for each of some that are equal: their
        slopes and splits are different ones. A search over ``boxes`` has none of these. What is likely to be equal is
        verified last."""
        without: set[str] = set()
        names = list(self.network.names)
        sure = False
        while True:
            stated = list(stated_tensors(self.network, without, sure))
            model = Model.of(stated[-1].after if stated else self.network)
            elements = neuron_elements(neurons, model)
            several = set[int]() if boxes else elements.shared(program)
            shared = {names[tensor] for tensor in several} & {found.name for found in stated}
            if not shared and (sure or all(found.accepted for found in stated)):
                break
            without |= shared
            sure = not shared
        for found in stated:
            self.file.add(self.file.writer.equal(self.file.writer.tensors[found.name], found.multiples))
        return model, elements

    @record.register
    def neurons_bounded(self, event: NeuronsBounded) -> None:
        """Keep ranges of neurons for the cases that begin from now on."""
        if self.posed is not None:
            self.forget_search()
            problem, program = self.stated(), event.problem.program
            if isinstance(event.rows, NeuronTrees):
                problem.state(StatedTrees.of(program, problem.elements, event.rows))
                return
            for rows in stated_rows(problem, program, event.rows):
                problem.state(rows)

    @record.register
    def root_bounded(self, event: RootBounded) -> None:
        """Write the cases that root bounds refute."""
        if self.posed is None or event.root is None or event.problem is None:
            return
        self.forget_search()
        found = proved(event.root.lower).nonzero().squeeze(1).tolist()
        known = set[int]() if self.problem is None else self.problem.proved
        if cases := [case for case in found if case not in known]:
            problem = self.stated()
            multipliers = event.root.multipliers.select(torch.tensor(cases, device=event.root.lower.device))
            nodes = [problem.case_node(case) for case in cases]
            rows = RefutedDomains(nodes, in_numpy(multipliers.alpha), None, in_numpy(multipliers.weight))
            problem.refute(SearchedNeurons.of(event.problem.program, problem.elements), rows)
            problem.proved.update(cases)

    @record.register
    def search_begun(self, event: SearchBegun) -> None:
        """Begin the proofs of the open cases, or go on with them."""
        if self.posed is None:
            return
        if event.frontier is not self.frontier:
            self.forget_search()
            mark = self.file.mark()
            before = BeforeSearch(mark, self.gaps.copy(), self.problem is None, self.model, self.common_begun)
            problem = self.stated(boxes=isinstance(event.frontier, BoxFrontier))
            self.before_search, self.frontier = before, event.frontier
            self.search = RECORDS[type(event.frontier)](problem, event.frontier)
        if self.search is not None:
            self.search.begun(event.bounded)

    @record.register
    def domains_bounded(self, event: DomainsBounded) -> None:
        """Split the parents, and refute the children that are."""
        if self.search is not None:
            self.search.bounded(event.parents, event.children, event.clipping)

    @record.register
    def leaf_closed(self, event: LeafClosed) -> None:
        """Write the row that refutes a domain with nothing left to split."""
        if self.search is not None:
            self.search.closed(event)

    def forget_search(self) -> None:
        """Take back what an undecided search wrote."""
        if self.before_search is not None:
            before, known = self.before_search, self.problem
            self.file.back_to(before.mark)
            self.gaps.clear()
            self.gaps.update(before.gaps)
            if before.unstated:
                self.problem, self.model, self.common_begun = None, before.model, before.common_begun
            elif known is not None:
                known.begun = {case: node for case, node in known.begun.items() if case in known.proved}
        self.frontier = self.search = self.before_search = None
