"""The results of a study: tables, plots, the page, and what in them cannot be true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console

from toolkit.bench import answer_table
from toolkit.bench.answer_table import write_answers
from toolkit.bench.atomic_files import write_text_atomically
from toolkit.bench.journal import JournalRecord
from toolkit.bench.stored_run import NAME as RUN
from toolkit.bench.stored_run import read_run
from toolkit.experiments.campaign import cards
from toolkit.models.architecture_options import OnnxNet
from toolkit.recipe import Recipe
from toolkit.report.changes import changes, effects, gains
from toolkit.report.layer_stability import LayerRow, layer_rows, unstable_csv, unstable_table, width_table
from toolkit.report.page import Page, facts, instance_links, write_page
from toolkit.report.paper_comparison import paper_table
from toolkit.report.plots import (
    accuracy_and_work,
    cactus,
    certified_versus_density,
    every_network,
    instability_versus_density,
    proofs_versus_density,
    save_png,
    training_curves,
    unstable_by_layer,
)
from toolkit.report.same_class import ClassAgreement, agreement_csv, agreement_table, class_agreements
from toolkit.report.seeds import averages
from toolkit.report.summary import (
    ModelRecord,
    SummaryRow,
    chain_names,
    stability_csv,
    summarise,
    summary_csv,
    ticket_findings,
)
from toolkit.report.tables import Table, print_whole, proof_table, summary_table, to_rich
from toolkit.result import Verdict
from toolkit.settings import Settings


@dataclass(frozen=True)
class StudyFindings:
    """Sentences about the results of a study."""

    impossible: tuple[str, ...]
    """What in them cannot be true."""
    findings: tuple[str, ...]


def conclude(
    recipe: Recipe, out: Path, models: Sequence[ModelRecord], records: Sequence[JournalRecord], console: Console
) -> bool:
    """Print and write the results; whether something in them cannot be true."""
    rows = summarise(models, records)
    means = averages(models, rows)
    found = [str(finding) for finding in (*gains(models, rows), *changes(models, rows, records))]
    found += ticket_findings(means)
    if any(isinstance(options, OnnxNet) for options in recipe.models.values()):
        found += effects(means)
        found += map(str, class_agreements(models, records))
    found += late(recipe.verification, records)
    wrong = impossible(rows)
    write_report(recipe, out, models, records, StudyFindings(tuple(wrong), tuple(found)))
    console.print(*found[:1], highlight=False, soft_wrap=True)
    print_whole(console, to_rich(summary_table(means)))
    beside = paper_table(means, paper_keys(recipe))
    if beside.rows:
        print_whole(console, to_rich(beside, "beside the paper's networks, whose training may be another"))
    for line in found[1:]:
        console.print(line, highlight=False, soft_wrap=True)
    for line in wrong:
        console.print(line, style="bold red", highlight=False, soft_wrap=True)
    console.print(f"report: {out / 'report.html'}", highlight=False, soft_wrap=True)
    return bool(wrong)


def impossible(rows: Sequence[SummaryRow]) -> list[str]:
    """Rows that cannot be true: more images proved robust than survive the attack."""
    return [
        f"CONTRADICTION: {row.model}: certified accuracy {row.certified_accuracy:.1%} above PGD accuracy "
        f"{row.pgd_accuracy:.1%} on the same images"
        for row in rows
        if row.certified_accuracy > row.pgd_accuracy + 1e-9
    ]


def late(settings: Settings, records: Sequence[JournalRecord]) -> list[str]:
    """A warning, if any, that the time limit ended queries although their passes are counted."""
    count = sum(record.verdict == Verdict.TIMEOUT for record in records) if settings.passes else 0
    what = f"{count} instances met the time limit before their limit of passes: they depend on this machine"
    return [f"{what}; a longer timeout runs them again"] if count else []


def budget(settings: Settings) -> str:
    """The limit of one query."""
    return f"{settings.passes:,} bounding passes" if settings.passes else f"{settings.timeout:g} s"


def paper_keys(recipe: Recipe) -> dict[str, tuple[str, ...]]:
    """Names of the paper's rows that a recipe compares each of its chains with, by the chain."""
    return {chain.name: chain.paper for chain in recipe.all_chains if chain.paper}


def extra_tables(
    recipe: Recipe,
    models: Sequence[ModelRecord],
    means: Sequence[SummaryRow],
    rows: Sequence[SummaryRow],
    layers: Sequence[LayerRow],
    agreements: Sequence[ClassAgreement],
) -> dict[str, Table]:
    """What the page shows besides the summary: the paper's figures, every seed on its own, agreement with the dense
    network, certificates, and layer by layer."""
    tables = {"Beside the paper": paper_table(means, paper_keys(recipe))}
    if len(means) < len(rows):
        tables["Every seed"] = summary_table(rows)
    tables["The same class as the dense network on whole boxes"] = agreement_table(agreements)
    tables["Certificates of the proofs"] = proof_table(rows)
    tables["Unstable ReLUs by layer and bound method"] = unstable_table(layers)
    tables["Interval bounds by layer"] = width_table(models)
    return {heading: table for heading, table in tables.items() if table.rows}


def pruned_and_dense(models: Sequence[ModelRecord]) -> dict[str, set[str]]:
    """The exported files of each chain's pruned networks, and by architecture of the dense ones, which chains share."""
    groups = {chain: {m.network for m in models if chain in m.chains and m.is_pruned} for chain in chain_names(models)}
    for model in models:
        if model.state == 0:
            groups.setdefault(f"{model.architecture}, dense", set()).add(model.network)
    return {name: networks for name, networks in groups.items() if networks}


@dataclass(frozen=True)
class Plot:
    """A figure with its file name and caption."""

    name: str
    caption: str
    figure: Figure


def study_plots(
    models: Sequence[ModelRecord],
    records: Sequence[JournalRecord],
    means: Sequence[SummaryRow],
    layers: Sequence[LayerRow],
) -> tuple[Plot, ...]:
    """The figures of a study; lines over densities leave controls out, which stand among all networks."""
    networks = pruned_and_dense(models)
    uncontrolled = [row for row in means if not row.control]
    plots: tuple[Plot, ...] = (
        Plot(
            "work",
            "Certified accuracy, and the work of a proof, against the part of all parameters that is left; controls "
            "are hollow.",
            accuracy_and_work(means),
        ),
        Plot(
            "certified",
            "Certified accuracy against the part of all parameters that is left, with 95 % intervals.",
            certified_versus_density(uncontrolled),
        ),
        Plot(
            "instability",
            "Unstable ReLUs: root bounds solid, intervals dotted, of images that have root bounds.",
            instability_versus_density(uncontrolled),
        ),
        Plot("layers", "Unstable ReLUs by layer: CROWN bounds solid, intervals dotted.", unstable_by_layer(layers)),
        Plot(
            "training",
            "Each epoch of training: loss, and the accuracy of images held out, certified by intervals or CROWN-IBP "
            "(solid) and standard (dotted); grey is where the radius is full.",
            training_curves([model for model in models if model.curve]),
        ),
        Plot("networks", "Every network, with its density: accuracies and unstable ReLUs.", every_network(means)),
        Plot(
            "cactus",
            "Time of the k-th fastest decided instance of each chain's pruned networks, and of the dense ones (lower "
            "and further right is better). Instances whose root bounds were computed together share that time equally.",
            cactus({name: [r for r in records if r.onnx in group] for name, group in networks.items()}),
        ),
    )
    empty = {"layers": not layers, "training": not any(model.curve for model in models)}
    plots = tuple(plot for plot in plots if not empty.get(plot.name))
    if not any(row.has_certificates for row in uncontrolled):
        return plots
    proofs = proofs_versus_density(uncontrolled)
    return (*plots, Plot("proofs", "Mean size of a certificate of a proof (see the table for checking times).", proofs))


def write_report(
    recipe: Recipe, out: Path, models: Sequence[ModelRecord], records: Sequence[JournalRecord], said: StudyFindings
) -> None:
    """Write the tables, the plots and the page."""
    rows = summarise(models, records)
    means = averages(models, rows)
    write_answers(out / answer_table.NAME, records, {})
    write_text_atomically(out / "summary.csv", summary_csv(rows))
    if len(means) < len(rows):
        write_text_atomically(out / "seeds.csv", summary_csv(means))
    write_text_atomically(out / "stability.csv", stability_csv(models))
    write_text_atomically(out / "unstable.csv", unstable_csv(models, records))
    agreements = class_agreements(models, records)
    write_text_atomically(out / "agreement.csv", agreement_csv(agreements))
    layers = layer_rows(models, records)
    plots = study_plots(models, records, means, layers)
    for plot in plots:
        save_png(plot.figure, out / "plots" / f"{plot.name}.png")
    run = read_run(out) if (out / RUN).is_file() else None
    page = Page(
        title=recipe.name,
        subtitle=f"{len(rows)} networks, {recipe.specification.images} images each, "
        f"radius {recipe.specification.epsilon:g} in the maximum norm, {budget(recipe.verification)} each",
        cards=(("networks", str(len(rows))), ("instances", f"{len(records):,}"), *cards(records)),
        alarms=said.impossible,
        findings=said.findings,
        table=summary_table(means),
        more_tables=extra_tables(recipe, models, means, rows, layers, agreements),
        figures={plot.caption: plot.figure for plot in plots},
        records=records,
        facts=(("recipe", recipe.digest), *facts(records, run)),
        links=instance_links(records, run, out),
    )
    write_page(page, out / "report.html")
