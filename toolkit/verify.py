"""Deciding one query: the strategy, readable from top to bottom.

Light attempts come before heavy ones: random points, secants and a first proof by onnxruntime and numpy (no torch),
root bounds, a gradient attack, then branch and bound. Everything is read from the ONNX and VNN-LIB files, so
what is verified is what others get. `sat` is only ever answered with a witness that onnxruntime replayed, `unsat` only
when every case is refuted by a positive finite bound.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from toolkit.agreement.against_onnxruntime import Bounded, check_agreement
from toolkit.agreement.query_samples import Candidate, OnnxReference
from toolkit.agreement.real_semantics import holds_over_reals
from toolkit.attack.case_losses import CaseLosses
from toolkit.attack.point_sampling import sample, sample_longer
from toolkit.attack.secant_attack import follow_secants
from toolkit.devices import full_precision
from toolkit.errors import DisagreementError, InputError, UnsupportedError, one_line
from toolkit.explanation import CaseTracker, explain
from toolkit.formats.onnx.batching import batch_session
from toolkit.formats.onnx.model_file import OnnxModel, load_model
from toolkit.formats.onnx.operators import check_inputs, check_operators
from toolkit.formats.onnx.runtime import Session
from toolkit.formats.onnx.scores import without_softmax
from toolkit.formats.vnncomp.model_binding import bind, check_binding
from toolkit.formats.vnncomp.witness import Witness, hidden_names, replay
from toolkit.formats.vnnlib.query import Network, Query
from toolkit.formats.vnnlib.read import read_query
from toolkit.problem.cases import Cases, compile_cases
from toolkit.result import Result, Statistics, Verdict
from toolkit.run.alarm import Overdue
from toolkit.run.clock import Clock, OutOfTime
from toolkit.run.events import NoBounds, Observer, ObserverGroup, PhaseBegun, ProblemBegun, silent
from toolkit.run.memory_limits import refused
from toolkit.settings import Settings
from toolkit.tuning import tuned

if TYPE_CHECKING:
    import torch

    from toolkit.agreement.bounded_networks import BoundedNetworks
    from toolkit.agreement.bounded_programs import BoundedModule, BoundedProgram
    from toolkit.agreement.bounded_steps import BoundedSteps
    from toolkit.backends.auto_lirpa import LirpaRootBounds
    from toolkit.problem.compile import Binding, Problem
    from toolkit.problem.specialise_cases import ProblemPart
    from toolkit.search.root import RootBounds
    from toolkit.search.search_task import SearchResult


OTHERWISE_FUSED = (
    "refuted for the network that the standard defines, but onnxruntime runs this quantised network with operators of "
    "integers in place of some of its operators, and results at samples are up to {:.3g} away: nothing is concluded"
)
"""Why there is no answer about a network that is not run as it is written."""
WITHOUT_CERTIFICATE = "proved, but no certificate was asked for that a checker could accept"
"""Why a proof alone is no answer where only checked ones are."""


@dataclass(frozen=True)
class LoadedNetwork:
    """A model with everything that several queries on it can share."""

    model: OnnxModel
    sessions: dict[tuple[str, ...], Session] = field(init=False, default_factory=dict, repr=False, compare=False)
    batch_sessions: dict[tuple[str, ...], Session] = field(init=False, default_factory=dict, repr=False, compare=False)

    @cached_property
    def binding(self) -> Binding:
        """The torch module, imported on first use."""
        from toolkit.problem.compile import bind_module

        return bind_module(self.model)

    def session(self, hidden: tuple[str, ...]) -> Session:
        """onnxruntime's session that returns these tensors inside the graph too, opened on first use."""
        if hidden not in self.sessions:
            self.sessions[hidden] = Session(self.model, hidden=hidden)
        return self.sessions[hidden]

    def batch_session(self, hidden: tuple[str, ...]) -> Session:
        """One that takes many samples in one call, where the graph allows it."""
        if hidden not in self.batch_sessions:
            self.batch_sessions[hidden] = batch_session(self.session(hidden))
        return self.batch_sessions[hidden]

    @cached_property
    def scores(self) -> LoadedNetwork:
        """The network without the softmax that it ends in, if it does."""
        model = without_softmax(self.model)
        return self if model is None else LoadedNetwork(model)


def load_networks(paths: Mapping[str, Path]) -> dict[str, LoadedNetwork]:
    """Load the models of a query, by the name the query gives them (or ``""`` for its only one)."""
    return {name: LoadedNetwork(load_model(path)) for name, path in paths.items()}


def verify_files(networks: Mapping[str, Path], spec: Path, settings: Settings, observer: Observer = silent) -> Result:
    """Decide the query in a specification file about networks in ONNX files.

    Raises ToolkitError for files that cannot be read; what can be read but not decided is a verdict with a reason.
    """
    clock = Clock.started(settings.timeout, passes=settings.passes)
    query = read_query(spec)
    return verify(load_networks(networks), query, settings, observer, clock)


def verify(
    networks: Mapping[str, LoadedNetwork],
    query: Query,
    settings: Settings,
    observer: Observer = silent,
    clock: Clock | None = None,
) -> Result:
    """Decide a query about loaded networks. Raises InputError for settings that name what is not there."""
    check_settings(settings)
    clock = Clock.started(settings.timeout, passes=settings.passes) if clock is None else clock
    return decide(load_query(networks, query), settings, clock, observer)


@dataclass(frozen=True)
class ProblemWithRoot:
    """All cases of a query as one problem on its device, with root bounds."""

    part: ProblemPart
    root: RootBounds
    relus: int
    """Neurons of the network before any were merged."""


@dataclass(frozen=True)
class LoadedQuery:
    """A query with the networks that it is about."""

    query: Query
    networks: Mapping[str, LoadedNetwork]
    """Every network of the query, by its name there."""
    cases: Cases
    known_root: ProblemWithRoot | None = None
    """Root bounds that were found together with those of other queries; None where there are none yet."""
    floats: bool = False
    """Whether a proof has to hold for every evaluation of the networks in floating point, not only over the reals."""

    @cached_property
    def needed(self) -> Mapping[str, LoadedNetwork]:
        """The networks as far as the query needs them: of a last softmax whose outputs it only compares, the scores."""
        return {network.name: self._needed(network) for network in self.query.networks}

    @property
    def by_scores(self) -> bool:
        """Whether proofs are about the scores that some network's last softmax reads, in place of its outputs."""
        return any(self.needed[name] is not self.networks[name] for name in self.needed)

    @cached_property
    def original(self) -> OnnxReference:
        """The networks as their files say, with the scores where proofs are about them."""
        scores = frozenset(name for name in self.needed if self.needed[name] is not self.networks[name])
        hidden = {
            network.name: tuple(info.name for info in self.needed[network.name].model.outputs)
            if network.name in scores
            else hidden_names(network)
            for network in self.query.networks
        }
        sessions = {name: self.networks[name].session(names) for name, names in hidden.items()}
        return OnnxReference(self.query, self.cases, sessions, scores)

    def imported(self) -> BoundedNetworks:
        """The networks that are bounded, without a last softmax where scores do; imports torch."""
        return self._imported(self.needed)

    def imported_whole(self) -> BoundedNetworks:
        """The networks as they are in their files, with a last softmax; imports torch."""
        return self._imported(self.networks)

    def _imported(self, networks: Mapping[str, LoadedNetwork]) -> BoundedNetworks:
        from toolkit.agreement.bounded_networks import BoundedNetworks

        models = {name: network.model for name, network in networks.items()}
        bindings = {name: network.binding for name, network in networks.items()}
        return BoundedNetworks(self.query, self.cases, models, bindings)

    def refuted(
        self, bounded: Sequence[Bounded], statistics: Statistics, candidates: Sequence[Candidate] = ()
    ) -> Result:
        """The answer where bounds of ``bounded`` refuted all cases: no other code says `unsat`.

        An error where one of these programs or modules differs from the networks in their files at points of its boxes.
        """
        try:
            for one in bounded:
                check_agreement(one, self.original, candidates)
        except DisagreementError as error:
            return Result(Verdict.ERROR, str(error), None, statistics)
        if (apart := self.original.fused_difference()) > 0:
            return Result(Verdict.UNKNOWN, OTHERWISE_FUSED.format(apart), None, statistics)
        return Result(Verdict.UNSAT, "", None, statistics)

    def check_operators(self) -> None:
        """Raise UnsupportedError for what is known, before anything is run, to have no bounds."""
        for network in self.query.networks:
            model = self.needed[network.name].model
            outputs = zip(network.outputs, model.outputs, strict=False)
            check_inputs(model)
            check_operators(model, [info.name for tensor, info in outputs if self.cases.mentions(tensor)])

    def _needed(self, network: Network) -> LoadedNetwork:
        loaded = self.networks[network.name]
        compared = (
            not self.floats
            and not network.hidden
            and all(self.cases.only_compares(output) for output in network.outputs)
        )
        return loaded.scores if compared else loaded


def load_query(networks: Mapping[str, LoadedNetwork], query: Query) -> LoadedQuery:
    """Put a query to loaded networks. Raises ToolkitError where they do not fit each other."""
    bound = bind(query, networks)
    check_binding(query, {name: network.model for name, network in bound.items()})
    return LoadedQuery(query, bound, compile_cases(query))


def decide(loaded: LoadedQuery, settings: Settings, clock: Clock, observer: Observer = silent) -> Result:
    """Decide a loaded query. With ``settings.certified`` never as `unsat`: no certificate is checked here
    (`toolkit.certificates.verify_with_certificate`)."""
    if speaks_of_floats(loaded.query, settings):
        loaded = replace(loaded, known_root=None, floats=True)
    sessions = {network.name: loaded.networks[network.name].session(hidden_names(network))
                for network in loaded.query.networks}  # fmt: skip
    tracker = CaseTracker(loaded.cases, clock)
    result = QueryAttempt(loaded, sessions, settings, clock, ObserverGroup((tracker, observer)), tracker).decide()
    spent = replace(result.statistics, seconds=clock.seconds, passes=clock.passes.done)
    if settings.certified and result.verdict is Verdict.UNSAT:
        return replace(result, verdict=Verdict.UNKNOWN, reason=WITHOUT_CERTIFICATE, statistics=spent)
    return replace(result, statistics=spent)


def speaks_of_floats(query: Query, settings: Settings) -> bool:
    """Whether proofs have to be about what networks compute, rounding included."""
    return settings.float_execution or (query.over_floats and not settings.real_semantics)


def check_settings(settings: Settings) -> None:
    """Raise InputError for settings that exclude each other, and where bounds or rules that are asked for are not
    there, whatever the query would come to."""
    if settings.float_execution and settings.real_semantics:
        raise InputError("--float-execution asks for proofs about evaluations, --real-semantics for others: give one")
    if settings.bounds == "auto-lirpa":
        from toolkit.backends.auto_lirpa import library

        library()
    if settings.branching != Settings().branching:  # which needs no torch to be known
        from toolkit.search.branching import RULES

        RULES.named(settings.branching)


@dataclass
class QueryAttempt:
    """One query on its way to a verdict."""

    loaded: LoadedQuery
    sessions: Mapping[str, Session]
    settings: Settings
    clock: Clock
    observer: Observer
    tracker: CaseTracker
    """One of the observers: keeps the bounds of the cases, to explain what is open where nothing decides."""
    statistics: Statistics = field(default_factory=Statistics)
    witness: Witness | None = None
    candidates: list[Candidate] = field(default_factory=list)
    """The latest points, with their boxes, that were replayed as candidates for a witness."""
    remarks: list[str] = field(default_factory=list)
    """What the second backend left open, and why, and what the declared types ask for beyond: parts of the reason where
    nothing decides."""

    @property
    def query(self) -> Query:
        return self.loaded.query

    @property
    def cases(self) -> Cases:
        return self.loaded.cases

    @cached_property
    def losses(self) -> CaseLosses:
        """How far points are from being witnesses, by the networks as they are: where a softmax says 0 of two outputs,
        their comparison is a tie, whatever the scores."""
        return self._losses_by(self.loaded.networks)

    @cached_property
    def score_losses(self) -> CaseLosses:
        """How far points are from being witnesses, by the scores: they lead somewhere where a softmax is flat."""
        return self._losses_by(self.loaded.needed)

    def _losses_by(self, networks: Mapping[str, LoadedNetwork]) -> CaseLosses:
        sessions = {net.name: networks[net.name].batch_session(hidden_names(net)) for net in self.query.networks}
        return CaseLosses(self.query, self.cases, sessions)

    def decide(self) -> Result:
        """The answer of the first phase that decides, or why none does."""
        try:
            return self._phases()
        except DisagreementError as error:
            return self._undecided(Verdict.ERROR, str(error))
        except (OutOfTime, Overdue):
            if self.settings.passes and not self.clock.overdue:
                return self._undecided(Verdict.UNKNOWN, f"limit of {self.settings.passes} bounding passes")
            return self._undecided(Verdict.TIMEOUT, f"time limit of {self.settings.timeout:g} s")
        except UnsupportedError as error:
            return self._without_bounds(error)
        except (MemoryError, RuntimeError) as error:  # the second is torch's, where the processor's memory is short
            if not refused(error):
                raise
            return self._undecided(Verdict.UNKNOWN, f"out of memory: {one_line(error)}")

    def _phases(self) -> Result:
        """Run the phases in order until one decides. Raises OutOfTime, UnsupportedError, DisagreementError and
        MemoryError."""
        if not len(self.cases.region):
            return self._unsat("specification")
        obstacle = self._obstacle()
        self.observer(PhaseBegun("random points"))
        if sample(self.losses, self.settings.seed, self.clock.soon(tuned().points.seconds), self._accept_array):
            return self._sat("sampling")
        if self._follow_secants():
            return self._sat("secants")
        if obstacle is not None:
            raise obstacle
        if (bounded := self._prove_lightly()) is not None:
            return self._unsat("light-crown", bounded)
        self.observer(PhaseBegun("import of the networks"))
        return self._prove()

    def _follow_secants(self) -> bool:
        """Whether a witness was found along secants, in a moment."""
        clock, seed = self.clock.soon(tuned().secants.seconds), self.settings.seed
        return bool(self.settings.attack_restarts) and follow_secants(
            self.score_losses, clock, seed, self._accept_array
        )

    def _prove_lightly(self) -> BoundedSteps | None:
        """The network that a proof in less time than importing torch takes is about; None without a proof.

        It is not tried where torch was imported already.
        """
        settings = self.settings
        floats, plain = self.loaded.floats, (settings.strategy, settings.bounds) == ("auto", "native")
        constants_rounded = floats and self.query.over_floats  # of which a quick proof knows nothing
        if constants_rounded or "torch" in sys.modules or not plain:
            return None
        if settings.certifiable or settings.device == "cuda" or len(self.loaded.needed) > 1:
            return None
        from toolkit.agreement.bounded_steps import BoundedSteps
        from toolkit.quick_proof import quick_proof

        [network] = self.loaded.needed.values()
        clock = self.clock.soon(tuned().quick_proof.seconds)
        question = quick_proof(self.query, self.cases, network.model, clock, floats)
        return None if question is None else BoundedSteps(question, self.cases, self.loaded.imported)

    def _obstacle(self) -> UnsupportedError | None:
        """The error about the first operator without a bounding rule, by the graph alone; observers are told at once.

        None where there is none, or where another backend bounds.
        """
        if self.settings.bounds != "native":
            return None
        try:
            self.loaded.check_operators()
        except UnsupportedError as error:
            self.observer(NoBounds(str(error)))
            return error
        return None

    def _without_bounds(self, error: UnsupportedError) -> Result:
        """What can still be said about a network that cannot be bounded: that a witness was found."""
        self.observer(NoBounds(str(error)))
        with suppress(Overdue):
            if sample_longer(self.losses, self.settings.seed, self.clock, self._accept_array):
                return self._sat("sampling")
        return self._undecided(Verdict.UNKNOWN, f"unsupported: {error}")

    def _prove(self) -> Result:
        import torch

        from toolkit.problem.compile import compile_problem
        from toolkit.problem.specialise_cases import merged_whole, specialised

        device = pick_device(self.settings.device)
        with torch.no_grad(), full_precision():
            if (known_root := self.loaded.known_root) is not None:
                self._note(relus=known_root.relus)
                return self._prove_parts([known_root.part], len(self.cases), device, known_root.root)
            bindings = {name: network.binding for name, network in self.loaded.needed.items()}
            second, beside = None, list[Bounded]()
            if self.settings.bounds == "auto-lirpa" and not self.loaded.floats:
                second, module = self._lirpa_bounds(bindings, device)
                beside.append(module)
                if not len(second.open):
                    return self._unsat(second.method, *beside)
            whole = compile_problem(self.query, bindings, self.cases)
            whole = whole if second is None else whole.with_cases(second.open.cpu())
            if self.loaded.floats:
                whole = self._with_room(whole)
            self._note(relus=whole.program.num_neurons)
            parts = [merged_whole(whole)] if self.settings.certifiable else specialised(whole)
            return self._prove_parts(parts, whole.num_cases, device, beside=beside)

    def _prove_parts(
        self,
        parts: Iterable[ProblemPart],
        num_cases: int,
        device: torch.device,
        root: RootBounds | None = None,
        beside: Sequence[Bounded] = (),
    ) -> Result:
        """Decide one part after the other; only when all cases are in parts that are proved is it a proof.

        ``beside`` is what other cases were refuted with.
        """
        import torch

        proved, by, reasons, bounded = 0, "", [], list(beside)
        for whole in parts:
            exact, dtype = whole.problem.to(device, torch.float64), precision(whole.problem)
            double = None if dtype == torch.float64 else exact
            part = replace(whole, problem=exact if double is None else exact.to(device, dtype))
            found = self._prove_part(part, root, double)
            if found.witness:
                return self._sat(found.by)
            if found.proved:
                proved, by = proved + part.problem.num_cases, found.by
                bounded.append(self._bounded(part))
                bounded += [] if double is None else [self._bounded(replace(part, problem=double))]
            else:
                reasons.append(found.reason)
        if proved == num_cases:
            return self._unsat(by, *bounded)
        return self._undecided(Verdict.UNKNOWN, reasons[0] if reasons else "not all cases were looked at")

    def _with_room(self, problem: Problem) -> Problem:
        """The problem with atoms that leave room for the rounding of the networks. Raises UnsupportedError."""
        from toolkit.agreement.float_semantics import with_room

        room_stated = self._room_stated()
        problem, room = with_room(self.loaded.imported(), self.loaded.original, problem, room_stated)
        types = ", ".join(sorted({tensor.dtype for tensor in self.query.tensors}))
        asked = self.settings.float_execution
        why = "--float-execution is given" if asked else f"the specification declares {types}"
        more = "" if asked else " (--real-semantics leaves none)"
        self._remark(
            f"{why}, so that proofs leave room for what the network's own rounding can change, up to {room:.3g}{more}"
        )
        return problem

    def _room_stated(self) -> torch.Tensor | None:
        """The room of atoms that a certificate states; None where there is none, and nobody asked for float execution.
        Raises UnsupportedError where somebody did."""
        from toolkit.agreement.float_semantics import proved_room

        try:
            wanted = self.settings.float_execution or self.settings.certifiable
            return proved_room(self.loaded.imported(), self.clock) if wanted else None
        except UnsupportedError:
            if self.settings.float_execution:
                raise
            return None

    def _bounded(self, part: ProblemPart) -> BoundedProgram:
        from toolkit.agreement.bounded_programs import BoundedProgram

        return BoundedProgram(self.loaded.imported(), part.problem, part.regions.numpy())

    def _prove_part(self, part: ProblemPart, root: RootBounds | None, double: Problem | None) -> SearchResult:
        """Decide some of the cases, on their device; what it took is added to the statistics.

        ``double`` is the problem in double precision, where the part's is in single.
        """
        import torch

        from toolkit.search.search_task import SearchTask, UnmergedProblem
        from toolkit.search.strategy import prove

        problem = part.problem
        self.observer(ProblemBegun(problem if double is None else double, part.regions, self.cases))
        before, self.statistics = self.statistics, Statistics()
        try:
            accept = self._accept_in(part)
            share = problem.num_cases / len(self.cases)
            task = SearchTask(problem, self.settings, self.clock, accept, self.observer, self._note, self._spent, share)
            task = replace(task, original=UnmergedProblem(part.unmerged, accept), double=double)
            return prove(task, root)
        except torch.OutOfMemoryError as error:  # where a smaller batch does not help
            raise MemoryError(f"the device's memory ({one_line(error)})") from None
        finally:
            self.statistics = before.plus(self.statistics)

    def _lirpa_bounds(
        self, bindings: Mapping[str, Binding], device: torch.device
    ) -> tuple[LirpaRootBounds, BoundedModule]:
        """Root bounds by auto_LiRPA, for which no operator needs a rule of ours, and what it bounded."""
        import torch

        from toolkit.agreement.bounded_programs import BoundedModule
        from toolkit.backends.auto_lirpa import lirpa_root_bounds
        from toolkit.problem.compile import FeatureNetwork, compile_question, in_double

        features = FeatureNetwork(self.query, in_double(bindings, device), self.cases).to(device)
        question = compile_question(self.cases).to(device, torch.float64)
        found = lirpa_root_bounds(features, question, self.settings.alpha_iterations, self.clock, self.observer)
        self._note(bounds=found.method)
        self._remark(found.reason)
        return found, BoundedModule(self.loaded.imported(), features, np.arange(len(self.cases.lower)))

    def _remark(self, text: str) -> None:
        """Keep a remark, once."""
        if text and text not in self.remarks:
            self.remarks.append(text)

    def _note(self, **facts: object) -> None:
        self.statistics = replace(self.statistics, **facts)  # type: ignore[arg-type]

    def _spent(self, domains: int, depth: int) -> None:
        """Add the domains of one search; of depths, keep the largest."""
        now = self.statistics
        self.statistics = replace(now, domains=now.domains + domains, depth=max(now.depth, depth))

    def _accept_array(self, inputs: np.ndarray, region: int | None = None) -> bool:
        """Replay a candidate; for a known region it is rounded into its box."""
        box = (None, None) if region is None else (self.cases.lower[region], self.cases.upper[region])
        found = replay(self.sessions, self.query, inputs, *box)
        self.witness = found if found is not None and self._holds_as_declared(found) else None
        if region is not None:
            self.candidates = [*self.candidates[1 - tuned().agreement.kept_candidates :], (inputs, region)]
        return self.witness is not None

    def _holds_as_declared(self, witness: Witness) -> bool:
        """Whether what onnxruntime confirms holds in the arithmetic that the specification asks for."""
        if not self.query.over_reals:
            return True
        models = {name: network.model for name, network in self.loaded.networks.items()}
        if holds_over_reals(self.query, models, witness, self.loaded.imported_whole):
            return True
        self._remark("a counterexample of onnxruntime does not hold in real arithmetic, or not certainly")
        return False

    def _accept_in(self, part: ProblemPart) -> Callable[[torch.Tensor, int], bool]:
        """A function that replays a point of one of the part's regions, by the region's number in the part."""

        def accept(point: torch.Tensor, region: int) -> bool:
            return self._accept_array(point.detach().double().cpu().numpy(), int(part.regions[region]))

        return accept

    def _sat(self, by: str) -> Result:
        return Result(Verdict.SAT, "", self.witness, replace(self.statistics, decided_by=by))

    def _undecided(self, verdict: Verdict, reason: str) -> Result:
        reason = "; ".join(filter(None, [reason, *self.remarks]))
        if verdict == Verdict.ERROR:
            return Result(verdict, reason, None, self.statistics)
        for name in ("score_losses",) if self.loaded.by_scores else ("score_losses", "losses"):
            if name in vars(self):  # what was never asked of a network is not asked now
                self.tracker.come_near(getattr(self, name).least)
        found = explain(self.query, self.tracker)
        self._note(cases=found.cases, open_cases=found.open_cases, weakest_bound=found.weakest,
                   nearest_point=found.nearest)  # fmt: skip
        return Result(verdict, reason, None, self.statistics, found)

    def _unsat(self, by: str, *bounded: Bounded) -> Result:
        return self.loaded.refuted(bounded, replace(self.statistics, decided_by=by), self.candidates)


def pick_device(name: str) -> torch.device:
    """The device a setting names; ``auto`` is CUDA where there is one."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UnsupportedError("device cuda was asked for, but torch sees no CUDA device; use --device cpu")
    return torch.device(name)


def precision(problem: Problem) -> torch.dtype:
    """Double precision for points, which take one pass, and for small networks of plain matrices; single otherwise."""
    import torch

    from toolkit.problem.affine import DenseAffine

    maps = problem.program.maps()
    if not problem.varying_inputs:
        return torch.float64
    if not all(isinstance(affine, DenseAffine) for affine in maps):
        return torch.float32
    narrow = all(affine.size <= tuned().precision.widest_double for affine in maps)
    affordable = problem.program.cost <= tuned().precision.most_double_cost
    few = affordable and problem.varying_inputs <= tuned().strategy.most_inputs_boxes_first
    return torch.float64 if narrow or few else torch.float32
