"""Answer the instances of a benchmark folder and write everything about them; also the common part of experiments.

What a run leaves in its folder::

    journal.jsonl    every answer, as it came; a run started again continues from it
    results.csv      VNN-COMP: category, network, specification, prepare time, verdict, run time
    answers.csv      all that is known of each answer, with a header
    run.json         what was asked, by which command and on which machine
    witnesses/       counterexamples, one file each
    certificates/    proofs, one file each, where they were asked for
    plots/           PNG
    report.html      everything on one page
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from toolkit.bench import answer_table, journal
from toolkit.bench.answer_table import write_answers
from toolkit.bench.columns import check_free
from toolkit.bench.executors import Executor, default_limits
from toolkit.bench.expected import VerdictComparison, compare
from toolkit.bench.folder import Benchmark, find_benchmarks, list_jobs, with_key
from toolkit.bench.job import InstanceJob, WorkerTask
from toolkit.bench.journal import JournalRecord
from toolkit.bench.other_tools import Tool
from toolkit.bench.results import CERTIFICATE_SUFFIX, CERTIFICATES, SUFFIX, UNFINISHED, WITNESSES, write_results
from toolkit.bench.run_options import Options
from toolkit.bench.run_progress import make_observer
from toolkit.bench.runner import RunPlan, answered, claimed, run_jobs
from toolkit.bench.scoring import CategoryScore, score
from toolkit.bench.shards import Shard
from toolkit.bench.stored_run import NAME as RUN
from toolkit.bench.stored_run import (
    InstanceList,
    StoredRun,
    as_part,
    describe_run,
    note_limits,
    note_workers,
    read_run,
    store_run,
)
from toolkit.bench.verify_job import VERIFY
from toolkit.devices import check_device
from toolkit.errors import InputError
from toolkit.report.page import Page, facts, instance_links, write_page
from toolkit.report.plots import cactus, save_png
from toolkit.report.tables import print_whole, score_table, short, to_rich
from toolkit.result import DECIDED, Verdict
from toolkit.run.memory_limits import in_bytes
from toolkit.settings import Settings
from toolkit.verify import check_settings


def run_folder(path: Path, options: Options, task: WorkerTask = VERIFY, tool: Tool | None = None) -> int:
    """Run the benchmark folder; the exit code is 1 when an answer contradicts ``expected.csv``, else 0.

    The task is the tool's where there is one.
    """
    if options.freeze is not None:
        raise InputError("--freeze: only the benchmark of a recipe can be frozen")
    benchmarks = find_benchmarks(path, options.spec_version, options.category)
    settings = options.settings(Settings())
    check_runnable(settings, options)
    timeout = settings.timeout if "timeout" in options.given_settings() else None
    limits = (timeout, options.limit, options.memory_limit)
    listed = [job for benchmark in benchmarks for job in list_jobs(benchmark, settings, *limits)]
    name, shard = run_name(path, benchmarks), options.part()
    out = results_folder(name, options)
    check_free(out, name, [benchmark.category for benchmark in benchmarks], recipe=False, fresh=options.fresh)
    with claimed(out):
        keyed = tool.keyed if tool else with_key
        jobs = [keyed(job) for job in (listed if shard is None else part_of(listed, shard, out))]
        where, known = folders(benchmarks), expected_verdicts(benchmarks, jobs)
        store_run(out, as_part(describe_run(name, jobs, where, known), shard, InstanceList.of(listed)))
        if not jobs:
            print(f"part {shard} has none of the {len(listed)} instances", file=sys.stderr)
            return 0
        records = execute(jobs, out, options, where, task, listed, tool.execute if tool else None)
        return int(conclude(name, out, records, known, make_console()))


def run_name(path: Path, benchmarks: Sequence[Benchmark]) -> str:
    """What a run of the benchmarks in a folder is called."""
    return benchmarks[0].category if len(benchmarks) == 1 else path.resolve().name


def results_folder(name: str, options: Options) -> Path:
    """Where the results of a run of a benchmark folder go: as the options say, named as the run and its part."""
    shard = options.part()
    return options.folder(name if shard is None else f"{name}-{shard.index}-of-{shard.count}")


def part_of(listed: Sequence[InstanceJob], shard: Shard, out: Path) -> list[InstanceJob]:
    """The jobs of a part, to be run in a folder; :class:`InputError` where the folder has another part."""
    before = read_run(out).shard if (out / RUN).is_file() else ""
    if before not in ("", str(shard)):
        raise InputError(f"{out}: part {before} of a run is there; choose another --out for part {shard}")
    return [listed[position] for position in shard.positions(len(listed))]


def conclude(
    name: str, out: Path, records: Sequence[JournalRecord], expected: Mapping[str, Verdict], console: Console
) -> bool:
    """Print and write the results; whether an answer contradicts what is known."""
    scores = category_scores(records, expected)
    write_folder_report(out, name, scores, records, expected)
    print_whole(console, to_rich(score_table(scores)))
    comparison = compared(records, expected)
    print_comparison(comparison, bool(expected), console)
    console.print(f"report: {out / 'report.html'}", highlight=False, soft_wrap=True)
    return bool(comparison.contradictions)


def compared(records: Sequence[JournalRecord], expected: Mapping[str, Verdict]) -> VerdictComparison:
    """How the answers compare with the known verdicts, by the records' keys."""
    return compare((record, expected.get(record.key)) for record in records)


def category_scores(records: Sequence[JournalRecord], expected: Mapping[str, Verdict]) -> list[CategoryScore]:
    """The score of each category; of several, last that of all together."""
    groups = by_category(records)
    if len(groups) > 1:
        groups["all"] = list(records)
    return [score(name, own, [expected.get(record.key) for record in own]) for name, own in groups.items()]


def by_category(records: Sequence[JournalRecord]) -> dict[str, list[JournalRecord]]:
    """The records of each category, in order."""
    groups: dict[str, list[JournalRecord]] = {}
    for record in records:
        groups.setdefault(record.category, []).append(record)
    return groups


class RunConsole(Console):
    """Where a run prints its results. A reader that leaves, as ``head`` does, does not end the run."""

    def on_broken_pipe(self) -> None:
        """Print nothing from now on."""
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())  # what is still in the buffer goes there
        os.close(nowhere)


def make_console() -> RunConsole:
    """Where a run prints its results: with long lines when that is no terminal."""
    console = RunConsole()
    return console if console.is_terminal else RunConsole(width=200)


def folders(benchmarks: Sequence[Benchmark]) -> dict[str, Path]:
    """Where the networks and specifications of each category lie."""
    return {benchmark.category: benchmark.folder for benchmark in benchmarks}


def expected_verdicts(benchmarks: Sequence[Benchmark], jobs: Iterable[InstanceJob]) -> dict[str, Verdict]:
    """Known verdicts by the jobs' keys."""
    known = {benchmark.category: benchmark.expected for benchmark in benchmarks}
    return {
        job.key: known[job.category][job.onnx, job.vnnlib]
        for job in jobs
        if (job.onnx, job.vnnlib) in known[job.category]
    }


def execute(
    jobs: Sequence[InstanceJob],
    out: Path,
    options: Options,
    where: Mapping[str, Path],
    task: WorkerTask,
    undivided: Sequence[InstanceJob] = (),
    executor: Executor | None = None,
) -> list[JournalRecord]:
    """Answer the jobs and write ``results.csv``, also for what is done when the run is interrupted.

    The records have the keys of the jobs, whatever limits these were answered under in the end. The jobs may be a part
    of those of an ``undivided`` run. Without an executor, the one of the options runs them.
    """
    for settings in {job.settings for job in jobs}:
        check_runnable(settings, options)
    path = out / journal.NAME
    if options.fresh:
        forget(out)
    jobs = with_drafts(jobs, out)
    done = len(answered(jobs, out))
    if done:
        text = f"{done} of {len(jobs)} instances are answered in {path} (--fresh starts over)"
        make_console().print(text, highlight=False, soft_wrap=True)
    plan = RunPlan(
        out=out,
        task=task,
        execute=executor or options.execute(),
        limits=default_limits(options.workers, jobs[0].settings.device, in_bytes(options.memory_limit)),
        observer=make_observer(),
        retry_errors=options.retry_errors,
        undivided=undivided,
    )
    note_workers(out, options.described_workers(plan.limits))
    try:
        records = run_jobs(jobs, plan)
        if options.retry_undecided:
            keys, jobs = [job.key for job in jobs], with_more(jobs, records, options.retry_factor)
            note_limits(out, jobs)
            records = run_jobs(jobs, replace(plan, observer=make_observer()))
            records = [replace(record, key=key) for key, record in zip(keys, records, strict=True)]
        return records
    finally:
        write_results(out / "results.csv", answered(jobs, out), where)


def check_runnable(settings: Settings, options: Options) -> None:
    """Raise InputError for settings that no verifier can have, and for a device that is not here; the workers of a
    cluster may have one all the same."""
    check_settings(settings)
    if options.executor != "ray":
        check_device(settings.device)


def with_more(jobs: Sequence[InstanceJob], records: Sequence[JournalRecord], factor: float) -> list[InstanceJob]:
    """The jobs, with limits so many times as large where their records, in the same order, decide nothing."""
    pairs = list(zip(jobs, records, strict=True))
    undecided = sum(record.verdict not in DECIDED for _, record in pairs)
    make_console().print(f"{undecided} undecided instances once more, with {factor:g} times the limits")
    return [job if record.verdict in DECIDED else job.times(factor) for job, record in pairs]


def with_drafts(jobs: Sequence[InstanceJob], out: Path) -> list[InstanceJob]:
    """The jobs, each with a place for its certificate where the settings ask for one; what a killed run left there
    goes."""
    for path in (out / CERTIFICATES).glob(f"*{UNFINISHED}"):
        path.unlink()
    if any(job.settings.certifiable for job in jobs):
        (out / CERTIFICATES).mkdir(parents=True, exist_ok=True)
    drafts = (out / CERTIFICATES / f"{job.key}{UNFINISHED}" if job.settings.certifiable else None for job in jobs)
    return [replace(job, draft=draft) for job, draft in zip(jobs, drafts, strict=True)]


def forget(out: Path) -> None:
    """Remove the answers of an earlier run, and no file that a run does not make."""
    (out / journal.NAME).unlink(missing_ok=True)
    for kind, suffix in ((WITNESSES, f"{SUFFIX}.gz"), (CERTIFICATES, CERTIFICATE_SUFFIX)):
        for path in (out / kind).glob(f"*/*{suffix}"):
            path.unlink()
        for folder in (*(out / kind).glob("*"), out / kind):
            with suppress(OSError):  # it holds something else, or is not there
                folder.rmdir()


def print_comparison(comparison: VerdictComparison, known: bool, console: Console) -> None:
    """Say how the answers compare with the known verdicts."""
    if not known:
        return
    console.print(
        f"expected.csv: {comparison.agreements} agree, {comparison.undecided} undecided, "
        f"{len(comparison.contradictions)} contradict",
        highlight=False,
    )
    for record, truth in comparison.contradictions:
        text = describe_contradiction(record, truth)
        console.print(text, style="bold red", markup=False, highlight=False, soft_wrap=True)


def describe_contradiction(record: JournalRecord, truth: Verdict) -> str:
    """One line about an answer that is the opposite of the known one."""
    return f"CONTRADICTION: {record.category} {record.onnx} {record.vnnlib}: {record.verdict}, expected {truth}"


def write_folder_report(
    out: Path,
    name: str,
    scores: Sequence[CategoryScore],
    records: Sequence[JournalRecord],
    expected: Mapping[str, Verdict],
) -> None:
    """Write the table of all answers, the page and the plots of a folder run."""
    write_answers(out / answer_table.NAME, records, expected)
    groups = by_category(records)
    plot = cactus(groups)
    save_png(plot, out / "plots" / "cactus.png")
    run = read_run(out) if (out / RUN).is_file() else None
    page = Page(
        title=name,
        subtitle=subtitle(len(records), len(groups), run),
        cards=cards(records, contradictions=scores[-1].contradictions if expected else None),
        alarms=tuple(describe_contradiction(*pair) for pair in compared(records, expected).contradictions),
        findings=(),
        table=score_table(scores),
        figures={"Time of the k-th fastest decided instance (lower and further right is better).": plot},
        records=records,
        expected=expected,
        facts=facts(records, run),
        links=instance_links(records, run, out),
    )
    write_page(page, out / "report.html")


def subtitle(count: int, categories: int, run: StoredRun | None) -> str:
    """How many instances of how many benchmarks a page is about, and of how many where some are not answered."""
    total = run.undivided.total if run and run.undivided else count
    answered_ones = f"{count} of {total}" if count < total else str(count)
    part = f" (part {run.shard})" if run and run.shard else ""
    return f"{answered_ones} instances{part} of {categories} benchmark{'s' * (categories > 1)}"


def cards(records: Sequence[JournalRecord], contradictions: int | None = None) -> tuple[tuple[str, str], ...]:
    """The headline numbers of a run."""
    count = {verdict: sum(record.verdict == verdict for record in records) for verdict in Verdict}
    open_ones = len(records) - count[Verdict.UNSAT] - count[Verdict.SAT]
    shown = [
        ("proved (unsat)", f"{count[Verdict.UNSAT]:,}"),
        ("refuted (sat)", f"{count[Verdict.SAT]:,}"),
        ("undecided", f"{open_ones:,}"),
        ("seconds in total", short(sum(record.seconds for record in records))),
    ]
    if any(record.statistics.certificate for record in records):
        checked = sum(record.proof_checked for record in records)
        shown.insert(1, ("proofs checked", f"{checked:,} of {count[Verdict.UNSAT]:,}"))
    return (*shown, ("contradictions", str(contradictions))) if contradictions is not None else tuple(shown)
