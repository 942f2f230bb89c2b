"""What the command line can say about a run; the options and their help are made from this record."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from toolkit.bench.columns import OURS, check_labels, parse_variants
from toolkit.bench.executor_table import find_executor
from toolkit.bench.executors import Executor, ExecutorLimits
from toolkit.bench.other_tools import parse_tools
from toolkit.bench.ray_cluster import RayCluster
from toolkit.bench.shards import Shard, parse_shard
from toolkit.errors import InputError
from toolkit.options import told_as_options
from toolkit.run.memory_limits import in_bytes
from toolkit.settings import Settings

Flag = Annotated[bool, Parameter(negative=())]


@Parameter(name="*")
@dataclass(frozen=True)
class Options:
    """Options of a run; None leaves the recipe's or the default value."""

    out: Path | None = None
    """Folder for the results; results/NAME by default."""
    device: Literal["auto", "cpu", "cuda"] | None = None
    """Where to train and to bound."""
    timeout: float | None = None
    """Time limit of each instance in seconds, in place of those in the recipe or in instances.csv."""
    data: str | None = None
    """Where a recipe's images are, npz:FILE or folder:DIRECTORY, in place of a download; normalisation stays."""
    seed: int | None = None
    """Seed of training, pruning and attack."""
    workers: int | None = None
    """Processes that verify at the same time; by default one per core, at most four per GPU."""
    trainers: int | None = None
    """Processes that train networks of a recipe at the same time; by default one per GPU, or per core without."""
    memory_limit: float | None = None
    """Memory of the run in GiB, divided among its workers; where a worker's is short, batches become smaller, and then
    the answer is unknown."""
    executor: str = "processes"
    """How instances are run: processes, ray (on a cluster), or in-process for debugging (no time limit from outside).
    """
    ray_address: str | None = None
    """The ray cluster, as HOST:PORT; by default that of RAY_ADDRESS, and without one, one that is started here."""
    ray_cpus: int | None = None
    """CPUs that each worker takes of the ray cluster; 1 by default."""
    ray_gpus: float | None = None
    """GPUs that each worker takes of the ray cluster, as in 1 or 0.25; a quarter by default where GPUs are used."""
    category: Annotated[tuple[str, ...], Parameter(negative=())] = ()
    """Only this benchmark of a folder of benchmarks; may be repeated."""
    limit: int | None = None
    """Only the first N instances of each benchmark; of a recipe, the first N images."""
    shard: str | None = None
    """Only part I of N equal parts of the instances, as in 2/4; `prunecert merge` makes one run of the parts. For
    benchmark folders."""
    spec_version: Literal["1.0", "2.0"] | None = None
    """Version of the specifications to run where a benchmark has both."""
    tool: Annotated[tuple[str, ...], Parameter(negative=())] = ()
    """Another verifier to run instead, into a folder of its own in --out: a folder with VNN-COMP's scripts, or a
    command line with {network}, {specification}, {results}; `prunecert` is this one. NAME=... names it; may be
    repeated. Each is a column of the comparison in --out."""
    variant: Annotated[tuple[str, ...], Parameter(negative=())] = ()
    """Settings of this verifier as a column of their own, as NAME:SETTING=VALUE,SETTING=VALUE, or NAME alone for those
    that all columns have (--setting); into a folder of that name in --out; may be repeated, beside --tool, too."""
    setting: Annotated[tuple[str, ...], Parameter(negative=())] = ()
    """Any setting of the verifier as NAME=VALUE (strategy=input, batch=4096); may be repeated."""
    certificates: Flag = False
    """Write a certificate of each unsat to certificates/, for `prunecert check`: the setting certifiable."""
    certified: Flag = False
    """Answer unsat only where the checker accepts the certificate, within the time limit: the setting certified."""
    retry_errors: Flag = False
    """Run instances again whose answer was error."""
    retry_undecided: Flag = False
    """Run instances that stay undecided once more, with --retry-factor times the time and passes; what is decided
    stands."""
    retry_factor: float = 10.0
    """How many times the limits that --retry-undecided gives."""
    fresh: Flag = False
    """Forget the answers of an earlier run."""
    freeze: Path | None = None
    """Copy the benchmark that a recipe makes, with its verdicts, to this folder."""

    @property
    def columns(self) -> bool:
        """Whether the run has columns, each in a folder of its own."""
        return bool(self.tool or self.variant)

    def settings(self, base: Settings) -> Settings:
        """The settings with what the command line says; :class:`InputError` for a value out of range."""
        named = {_pair(text)[0] for text in self.setting}
        with told_as_options({name: f"--{name}" for name in ("device", "timeout", "seed") if name not in named}):
            return base.changed(self.given_settings())

    def given_settings(self) -> dict[str, Any]:
        """What the command line says of settings, by their names; nothing about the others."""
        options = {"device": self.device, "timeout": self.timeout, "seed": self.seed}
        given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        asked = {"certifiable": self.certificates, "certified": self.certified}
        given |= {name: True for name, flag in asked.items() if flag}
        return given | dict(_pair(text) for text in self.setting)

    def folder(self, name: str) -> Path:
        """Where the results of a run go: the folder that is asked for, or one of the run's name."""
        return self.out or Path("results") / name

    def part(self) -> Shard | None:
        """Which part of the instances is asked for, None for all; :class:`InputError` for what is no part."""
        return None if self.shard is None else parse_shard(self.shard)

    def execute(self) -> Executor:
        """How instances are run; :class:`InputError` for an executor that there is not, or options of another."""
        found = find_executor(self.executor)
        if isinstance(found, RayCluster):
            found = RayCluster(self.ray_address or "", self.workers, self.ray_cpus, self.ray_gpus)
            found.check()
            return found
        for name, value in (("address", self.ray_address), ("cpus", self.ray_cpus), ("gpus", self.ray_gpus)):
            if value is not None:
                raise InputError(f"--ray-{name}: only with --executor ray")
        return found

    def described_workers(self, limits: ExecutorLimits) -> str:
        """How many workers run the instances, for a page."""
        if self.executor == "ray":
            return f"{self.workers or 'as many as there is room for'}, on a ray cluster"
        if self.executor == "in-process":
            return "none: in one process"
        return f"{limits.workers} of {limits.threads} thread{'s' * (limits.threads > 1)} each"

    def check(self) -> None:
        """Raise :class:`InputError` for an option out of range, before any work starts."""
        self.execute()
        tools = parse_tools([text for text in self.tool if text != OURS])
        labels = [variant.label for variant in parse_variants(self.variant)]
        check_labels("--tool and --variant", [*labels, *(tool.label for tool in tools)], "NAME=COMMAND")
        if self.tool and self.executor != "processes":
            raise InputError("--tool: other verifiers run on this machine; leave --executor out")
        self.part()
        for name, value in (("workers", self.workers), ("trainers", self.trainers), ("limit", self.limit)):
            if value is not None and value < 1:
                raise InputError(f"--{name}: at least 1, not {value}")
        if not 1 < self.retry_factor < math.inf:
            raise InputError(f"--retry-factor: more than 1, not {self.retry_factor}")
        if self.memory_limit is not None and not 0 < self.memory_limit < math.inf:
            raise InputError(f"--memory-limit: more than 0 GiB, not {self.memory_limit}")
        in_bytes(self.memory_limit)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"--setting {text}: expected NAME=VALUE; names are {', '.join(Settings.model_fields)}")
    return name, value
