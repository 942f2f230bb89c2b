"""The executor whose workers are actors on the nodes of a ray cluster, an existing one or one of this machine's own.

An actor holds its CPUs and GPUs and watches one verifier process beside it, the same that
`toolkit.bench.worker_processes` starts on this machine: times, limits, kills and deaths mean what they mean there. What
an actor adds is that it may be lost, with its node: its jobs go to another, and become an ``error`` when that happens
again and again. Files travel by content, a network once to each node; nothing is looked for on a shared disk.

An actor answers only for what this machine would have kept the answer for: one with another version of a library or
another kind of device is left out, and an answer about other content than the job's is an ``error``.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from toolkit.bench.executors import ExecutorLimits, available_cores, begin, conclude, line_up
from toolkit.bench.fingerprint import device_kind, files_beside, is_about, versions
from toolkit.bench.job import Answer, Event, Finished, InstanceJob, WorkerTask, settle, survey_limit
from toolkit.bench.job_queue import JobQueue, Networks, put_back, take
from toolkit.bench.worker_processes import Message, Worker, WorkerPool, assign, must_be_replaced, receive, wait_for
from toolkit.devices import uses_gpu, visible_gpus
from toolkit.errors import InputError, MachineError, ToolkitError
from toolkit.formats.onnx.external_data import open_beside
from toolkit.result import Verdict
from toolkit.tuning import tuned

LOCAL = "local"
"""The address of a cluster that is started on this machine for the run, and stopped with it."""
ADDRESS = "RAY_ADDRESS"
"""The variable of the environment that names a cluster where no option does."""


@dataclass(frozen=True)
class PackedJob:
    """A job with the content of its specification, None where that cannot be read."""

    job: InstanceJob
    spec: bytes | None


@dataclass(frozen=True)
class PackedNetwork:
    """The content of a network's file, and of those beside it that it keeps tensors in, by their relative names."""

    content: bytes | None
    """None where it cannot be read; the worker finds that out again, and says so."""
    beside: Mapping[str, bytes]


@dataclass(frozen=True)
class Reply:
    """What an actor says of its jobs."""

    message: Message
    """The answer to the one job, or those of a survey."""
    seconds: float
    """Wall time between handing the jobs to the verifier process and its answer."""
    certificate: bytes | None = None
    """The certificate that was written."""


# --- on a node of the cluster -----------------------------------------------------------------------------------------


class NodeWorker:
    """An actor: a verifier process on a node, and a folder with the files that it works on."""

    def __init__(self, task: WorkerTask, limits: ExecutorLimits) -> None:
        self._folder: Path | None = None
        self._networks: list[Path] = []
        self._pool = WorkerPool(task, limits)
        self._limits = limits

    def get_ready(self, device: str) -> dict[str, str]:
        """Start the verifier process, and say what it answers with. Raises MachineError where it cannot start."""
        self._verifier()
        return answers_with(device)

    def work(self, packed: Sequence[PackedJob], *networks: PackedNetwork) -> Reply:
        """Answer a job, or survey several, about the networks given, or, without any, about the last ones."""
        verifier = self._verifier()
        folder = self._new_folder()
        try:
            if networks:
                self._unpack(packed[0].job.networks, networks)
            jobs = [self._here(one, folder / str(number)) for number, one in enumerate(packed)]
            assign(verifier, jobs, self._limits)
            while (message := receive(verifier)) is None:
                wait_for([verifier])
            seconds = time.monotonic() - verifier.started
            if must_be_replaced(verifier):
                self._pool.dismiss(0)
            draft = jobs[0].draft
            certificate = draft.read_bytes() if draft is not None and draft.is_file() else None
            return Reply(_told(message, jobs, [one.job for one in packed]), seconds, certificate)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """End the verifier process, and leave no file."""
        for number in list(self._pool.workers):
            self._pool.dismiss(number)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _new_folder(self) -> Path:
        """An empty folder. What holds them all is made for the first job: an actor that has none leaves nothing."""
        self._folder = self._folder or Path(tempfile.mkdtemp(prefix="prunecert-"))
        return Path(tempfile.mkdtemp(dir=self._folder))

    def _verifier(self) -> Worker:
        """The verifier process when it is ready; a new one where the last was stopped or died."""
        crew = self._pool
        if not crew.workers:
            crew.hire(0)
        while crew.workers and not crew.workers[0].ready:
            wait_for([crew.workers[0]])
            if (message := receive(crew.workers[0])) is not None:
                crew.welcome(0, message)
        crew.check()
        return crew.workers[0]

    def _unpack(self, names: Networks, networks: Sequence[PackedNetwork]) -> None:
        """Write networks into folders of their own, which no other network had, and remove those of the last ones."""
        for path in self._networks:
            shutil.rmtree(path.parent, ignore_errors=True)
        self._networks = [self._new_folder() / path.name for _, path in names]
        for path, network in zip(self._networks, networks, strict=True):
            for name, content in {path.name: network.content, **network.beside}.items():
                if content is not None:
                    (path.parent / name).parent.mkdir(parents=True, exist_ok=True)
                    (path.parent / name).write_bytes(content)

    def _here(self, packed: PackedJob, folder: Path) -> InstanceJob:
        """The job with its files on this node."""
        job = packed.job
        folder.mkdir()
        spec = folder / job.spec.name
        if packed.spec is not None:
            spec.write_bytes(packed.spec)
        networks = tuple((name, path) for (name, _), path in zip(job.networks, self._networks, strict=True))
        return replace(job, networks=networks, spec=spec, draft=job.draft and folder / "certificate")


def answers_with(device: str) -> dict[str, str]:
    """What answers depend on besides files and settings: the kind of device, versions."""
    return {"device": device_kind(device), **versions()}


def _told(message: Message, here: Sequence[InstanceJob], asked: Sequence[InstanceJob]) -> Message:
    """What the verifier said about jobs as they lie here, in the terms of those that were asked."""
    if isinstance(message, Answer):
        return _translated(message, here[0], asked[0])
    assert isinstance(message, list)
    triples = zip(message, here, asked, strict=False)
    return [answer and _translated(answer, job, original) for answer, job, original in triples]


def _translated(answer: Answer, here: InstanceJob, asked: InstanceJob) -> Answer:
    """The answer with the files' names where they were asked for; ``error`` where their content was another."""
    reason = answer.reason
    pairs = [(here.spec, asked.spec), *zip(dict(here.networks).values(), dict(asked.networks).values(), strict=True)]
    for local, original in pairs:
        reason = reason.replace(str(local), str(original))
    answer = replace(answer, reason=reason)
    if answer.verdict is Verdict.ERROR or is_about(asked.origin, here.networks, here.spec, here.settings):
        return answer
    reason = f"its files, or the verifier, are others on the worker's node: it said {answer.verdict}; start again"
    return replace(answer, verdict=Verdict.ERROR, reason=reason, witness=None)


# --- where the run is -------------------------------------------------------------------------------------------------


@dataclass
class RemoteWorker:
    """An actor as the run sees it. ``call`` is what it is asked for at the moment, None while it has nothing to do."""

    actor: Any
    call: Any
    deadline: float
    ready: bool = False
    jobs: Sequence[InstanceJob] = ()
    """The one it answers, or those it surveys."""
    started: float = 0.0
    loaded: Networks | None = None


@dataclass
class ActorPool:
    """The actors of a run by their numbers; those that could not start are missing."""

    task: WorkerTask
    limits: ExecutorLimits
    gpus: float
    """GPUs of each actor; its CPUs are the threads of the limits."""
    device: str
    workers: dict[int, RemoteWorker] = field(default_factory=dict)
    failure: str = ""
    """Why the last one that could not start could not."""
    lost: Counter[str] = field(default_factory=Counter)
    """How many actors were lost over each job, by its key."""
    sent: dict[tuple[str, str], Any] = field(default_factory=dict)
    """References to networks in the cluster's store, by the hash of their content and the name of the file."""

    def hire(self, number: int) -> None:
        """Ask the cluster for the actor of a number, on whatever node has room."""
        import ray

        kind = ray.remote(NodeWorker).options(
            num_cpus=self.limits.threads,
            num_gpus=self.gpus,
            max_restarts=0,
            max_concurrency=2,  # so that close() is heard while work() goes on
            scheduling_strategy="SPREAD",
        )
        actor = kind.remote(self.task, self.limits)
        deadline = time.monotonic() + self.limits.startup
        self.workers[number] = RemoteWorker(actor, actor.get_ready.remote(self.device), deadline)

    def dismiss(self, number: int) -> None:
        """End the actor of a number, whatever it does."""
        end([self.workers.pop(number)])

    def check(self) -> None:
        """Raise MachineError where no actor is left."""
        if not self.workers:
            raise MachineError(f"no worker of the ray cluster can start: {self.failure}")

    def assign(self, worker: RemoteWorker, jobs: Sequence[InstanceJob]) -> list[Event]:
        """Give an idle actor a job, or several to survey; what is told of that."""
        known = worker.loaded == jobs[0].networks
        networks = [] if known else [self._network(jobs[0], *pair) for pair in jobs[0].networks]
        packed = [PackedJob(replace(job, origin=dict(job.origin)), _content(job.spec)) for job in jobs]
        worker.jobs, worker.loaded, worker.started = jobs, jobs[0].networks, time.monotonic()
        limit = survey_limit(jobs) if len(jobs) > 1 else jobs[0].timeout - jobs[0].spent
        # The actor itself stops a verifier that is late. This is for one that is not heard of any more, and leaves time
        # for files to arrive and for a verifier process to start again.
        worker.deadline = worker.started + limit + self.limits.grace + self.limits.startup
        worker.call = worker.actor.work.remote(packed, *networks)
        return [event for event in begin(jobs) if not self.lost[event.job.key]]

    def _network(self, job: InstanceJob, name: str, path: Path) -> Any:
        """The reference to a network's content, which is sent where it was not yet."""
        import ray

        hashes = job.origin.get("networks")
        key = (str(hashes[name]) if isinstance(hashes, Mapping) else str(path), path.name)
        if key not in self.sent:
            self.sent[key] = ray.put(PackedNetwork(_content(path), _beside(path)))
        return self.sent[key]

    def heard(self, waiting: JobQueue) -> Iterator[Event]:
        """Wait until an actor speaks, is lost or passes its deadline; what that means, with those replaced that are
        lost or late."""
        import ray

        busy = {worker.call: number for number, worker in self.workers.items() if worker.call is not None}
        patience = min(self.workers[number].deadline for number in busy.values()) - time.monotonic()
        spoken, _ = ray.wait(list(busy), num_returns=1, timeout=max(0.0, patience) + 0.01)
        for call, number in busy.items():
            worker = self.workers[number]
            if call in spoken:
                yield from self._take(waiting, number, call)
            elif time.monotonic() > worker.deadline:
                reason = f"stopped from outside after {time.monotonic() - worker.started:.1f} s"
                yield from self._leave(waiting, number, Answer(Verdict.TIMEOUT, reason))

    def _take(self, waiting: JobQueue, number: int, call: Any) -> Iterator[Event]:
        """What an actor said, or what became of it."""
        import ray

        worker = self.workers[number]
        try:
            said = ray.get(call)
        except ray.exceptions.RayError as error:
            yield from self._leave(waiting, number, Answer(Verdict.ERROR, _in_short(error)))
            return
        worker.call = None
        if isinstance(said, Reply):
            yield from _finish(waiting, number, worker, said)
        elif other := differences(answers_with(self.device), said):
            self.failure = f"what is installed on its node differs: {other}; install the same on all nodes"
            self.dismiss(number)
        else:
            worker.ready = True

    def _leave(self, waiting: JobQueue, number: int, message: Answer) -> Iterator[Event]:
        """Part with an actor that was lost or is late; one that had been ready gets a successor, and its job another
        try where the actor was lost."""
        worker = self.workers[number]
        jobs, seconds = worker.jobs, time.monotonic() - worker.started
        self.dismiss(number)
        if not worker.ready:
            late = f"none got ready within {self.limits.startup:g} s; is there room for it in the cluster?"
            self.failure = message.reason if message.verdict is Verdict.ERROR else late
            return
        self.hire(number)
        if len(jobs) > 1:
            yield from conclude(waiting, number, jobs, [], seconds)
            return
        self.lost[jobs[0].key] += message.verdict is Verdict.ERROR
        times = self.lost[jobs[0].key]
        if message.verdict is Verdict.ERROR and times <= tuned().bench.most_retries:
            put_back(waiting, number, jobs)
            return
        if message.verdict is Verdict.ERROR:
            message = replace(message, reason=f"its worker was lost {times} times: {message.reason}")
        yield Finished(jobs[0], settle(jobs[0], message, seconds))


def end(workers: Sequence[RemoteWorker]) -> None:
    """End actors, whatever they do: those that can be reached remove their files before."""
    import ray

    with suppress(ray.exceptions.RayError):
        closing = [worker.actor.close.remote() for worker in workers if worker.ready]
        if closing:
            ray.wait(closing, num_returns=len(closing), timeout=tuned().bench.node_seconds)
    for worker in workers:
        with suppress(ray.exceptions.RayError, ValueError):
            ray.kill(worker.actor)


def _finish(waiting: JobQueue, number: int, worker: RemoteWorker, reply: Reply) -> Sequence[Event]:
    """Take its jobs off the actor of that number and make their events; what is left open waits again."""
    jobs, worker.jobs = worker.jobs, ()
    message = reply.message
    if len(jobs) > 1:  # anything but a list of answers says that the survey failed
        return conclude(waiting, number, jobs, message if isinstance(message, list) else [], reply.seconds)
    assert isinstance(message, Answer)
    if jobs[0].draft is not None and reply.certificate is not None:
        jobs[0].draft.write_bytes(reply.certificate)
    return [Finished(jobs[0], settle(jobs[0], message, reply.seconds))]


def _content(path: Path) -> bytes | None:
    """The bytes of a regular file; None where there is none that can be read."""
    try:
        return path.read_bytes() if path.is_file() else None
    except OSError:
        return None


def _beside(path: Path) -> dict[str, bytes]:
    """The files in which a network keeps tensors, by their names relative to it, as far as they can be read."""
    found = {}
    for location in files_beside(path):
        with suppress(ToolkitError, OSError), os.fdopen(open_beside(path, location), "rb") as file:
            found[location] = file.read()
    return found


def _in_short(error: BaseException) -> str:
    """What an error of ray says in one line; of one that was raised in an actor, what that was."""
    cause = getattr(error, "cause", None) or error
    lines = str(cause).strip().splitlines() or [""]
    if "creation task" in lines[0]:  # then a traceback follows
        return lines[-1]
    return f"{type(cause).__name__}: {lines[0]}"


def differences(here: Mapping[str, str], there: Mapping[str, str]) -> str:
    """In what a node differs from this machine, in words; empty where it does not."""
    names = sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
    return ", ".join(f"{name} {there.get(name, 'missing')} there, {here.get(name, 'missing')} here" for name in names)


@dataclass(frozen=True)
class RayCluster:
    """The executor: where the cluster is, and what each worker takes of it."""

    address: str = ""
    """Empty for that of the environment (RAY_ADDRESS), and without one for a cluster of this machine."""
    workers: int | None = None
    """Workers; None for as many as the cluster has room for."""
    cpus: int | None = None
    """CPUs of each worker; None for one, or of this machine's own cluster an equal part."""
    gpus: float | None = None
    """GPUs of each worker, or a part of one; None for what the device setting needs."""

    def check(self) -> None:
        """Raise InputError where ray is not installed, or a number is out of range."""
        if find_spec("ray") is None:
            raise InputError("--executor ray: ray is not installed; install it (pip install ray), or choose another")
        if self.cpus is not None and self.cpus < 1:
            raise InputError(f"--ray-cpus: at least 1, not {self.cpus}")
        if self.gpus is not None and not (0 <= self.gpus < 1 or float(self.gpus).is_integer()):
            raise InputError(f"--ray-gpus: a whole number of GPUs, or a part of one, not {self.gpus:g}")

    def __call__(
        self, jobs: Sequence[InstanceJob], task: WorkerTask, limits: ExecutorLimits
    ) -> Generator[Event, None, None]:
        """Run the jobs on the cluster; events come as they happen.

        Raises InputError where there is no cluster or no node is large enough, MachineError where no worker can start
        or the cluster fails.
        """
        self.check()
        address = self.address or os.environ.get(ADDRESS) or LOCAL
        gpus = self._gpus(jobs[0].settings.device) if self.gpus is None else self.gpus
        cpus = self.cpus or (limits.threads if address == LOCAL else 1)
        own_cpus = max(available_cores(), cpus * limits.workers)
        with _connected(address, own_cpus):
            crew = ActorPool(task, self._shared(limits, cpus, gpus), gpus, jobs[0].settings.device)
            yield from _run(jobs, crew)

    @staticmethod
    def _gpus(device: str) -> float:
        """GPUs of a worker where nothing is said: several share one, as on this machine."""
        return 1 / tuned().bench.workers_per_gpu if uses_gpu(device) else 0.0

    def _shared(self, limits: ExecutorLimits, cpus: int, gpus: float) -> ExecutorLimits:
        """The limits with as many workers as there is room for, and the memory of all divided among them."""
        import ray

        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        room = sum(_fitting(node, cpus, gpus) for node in nodes)
        if not room:
            largest = max((node.get("CPU", 0) for node in nodes), default=0)
            most = max((node.get("GPU", 0) for node in nodes), default=0)
            raise InputError(
                f"no node of the ray cluster has {cpus} CPUs and {gpus:g} GPUs for a worker (at most {largest:g} CPUs, "
                f"{most:g} GPUs); see --ray-cpus and --ray-gpus"
            )
        workers = self.workers or room
        return replace(limits, workers=workers, threads=cpus, memory=limits.memory * limits.workers // workers)


def _fitting(node: Mapping[str, float], cpus: int, gpus: float) -> int:
    """Workers that a node of these resources has room for."""
    by_cpus = int(node.get("CPU", 0) // cpus)
    if not gpus:
        return by_cpus
    have = int(node.get("GPU", 0))
    return min(by_cpus, have * int(1 / gpus) if gpus < 1 else int(have // gpus))


def _run(jobs: Sequence[InstanceJob], crew: ActorPool) -> Generator[Event, None, None]:
    waiting = line_up(jobs, crew.task, crew.limits.workers)
    try:
        for number in range(min(crew.limits.workers, len(jobs))):
            crew.hire(number)
        while waiting or any(worker.jobs for worker in crew.workers.values()):
            crew.check()
            for number, worker in crew.workers.items():
                if worker.ready and not worker.jobs and (taken := take(waiting, number, worker.loaded)):
                    yield from crew.assign(worker, taken)
            yield from crew.heard(waiting)
    finally:
        end(list(crew.workers.values()))


@contextmanager
def _connected(address: str, cpus: int) -> Iterator[None]:
    """Be connected with a cluster: the one of this process, where it has one, or that of the address; one of this
    machine's own is started, with so many CPUs, and stopped."""
    import ray

    if ray.is_initialized():
        yield
        return
    # Only in this process: what it starts must tell nobody of it, and workers must not look for modules in the
    # folder where the command is called, to which an empty one is put.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    _reached(address)
    own = {"num_cpus": cpus, "num_gpus": len(visible_gpus()), "include_dashboard": False} if address == LOCAL else {}
    with tempfile.TemporaryDirectory() as empty, _handlers_kept():
        try:
            ray.init(address, runtime_env={"working_dir": empty}, log_to_driver=False, logging_level="error", **own)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise _unreachable(address, error) from None
    try:
        yield
    except ray.exceptions.RayError as error:
        raise MachineError(f"the ray cluster failed: {_in_short(error)}") from error
    finally:
        ray.shutdown()


def _reached(address: str) -> None:
    """Raise InputError where nothing answers at HOST:PORT, for which ray itself would wait for minutes, and for ray's
    remote client, which does not lead to all of it."""
    if address.startswith("ray://"):
        raise InputError(f"--ray-address {address}: call the command on a machine of the cluster, and give HOST:PORT")
    host, colon, port = address.rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host, int(port)), tuned().bench.node_seconds).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _unreachable(address, error) from None


def _unreachable(address: str, error: Exception) -> InputError:
    return InputError(
        f"--executor ray: no cluster at the address '{address}' lets this machine in: {' '.join(str(error).split())}; "
        "one that asks for a token needs RAY_AUTH_MODE=token"
    )


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Keep the handler of SIGTERM, which ray replaces when it starts."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)
