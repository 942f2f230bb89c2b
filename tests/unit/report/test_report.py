import csv
import dataclasses
import io
import math
import random
import re
from html.parser import HTMLParser

import pytest
from rich.console import Console

from toolkit.bench.journal import JournalRecord
from toolkit.bench.scoring import score
from toolkit.report.changes import changes, gains
from toolkit.report.page import Page, facts, render, write_page
from toolkit.report.paper_comparison import paper_table
from toolkit.report.plots import (
    cactus,
    certified_versus_density,
    every_network,
    instability_versus_density,
    save_png,
    to_svg,
    training_curves,
)
from toolkit.report.seeds import averages, student
from toolkit.report.summary import ModelRecord, stability_csv, summarise, summary_csv, ticket_findings
from toolkit.report.tables import (
    make_table,
    number,
    print_whole,
    score_table,
    short,
    summary_table,
    to_csv,
    to_latex,
    to_rich,
    word,
)
from toolkit.result import Statistics, Verdict

CHAINS = [("conv-magnitude", "conv", "magnitude"), ("conv-slim", "conv", "slim"), ("mlp-magnitude", "mlp", "magnitude")]
DENSITIES = (1.0, 0.6, 0.36, 0.2)


def make_models() -> list[ModelRecord]:
    dense = {"conv": ("conv-magnitude", "conv-slim"), "mlp": ("mlp-magnitude",)}
    models = [
        ModelRecord(f"{name}-dense", chains, name, "dense", 0, 1.0, 9000, f"onnx/{name}-dense.onnx", 0.95, 0.8)
        for name, chains in dense.items()
    ]
    for chain, name, method in CHAINS:
        for state, density in enumerate(DENSITIES[1:], 1):
            facts = (state, density, round(9000 * density), f"onnx/{chain}-{state}.onnx", 0.94, 0.81)
            models.append(ModelRecord(f"{chain}-{state}", (chain,), name, method, *facts))
    return models


def make_record(network: str, image: int, verdict: str, unstable: int = 40, seconds: float = 0.2) -> JournalRecord:
    spec = f"vnnlib/image_{image}.vnnlib"
    statistics = Statistics(seconds, 12, 3, 200, unstable + 30, unstable, "alpha-crown", "branch-and-bound")
    return JournalRecord(f"{network} {spec}", "toy", network, spec, 10.0, Verdict(verdict), "", seconds, statistics)


def make_records(models: list[ModelRecord], images: int = 20) -> list[JournalRecord]:
    rng = random.Random(0)
    networks = {model.network: model for model in models}
    return [
        make_record(network, image, rng.choices(["unsat", "sat", "timeout"], [8 - 2 * model.density, 2, 0.5])[0],
                    round(60 * model.density + rng.random() * 9), rng.expovariate(3))
        for network, model in networks.items()
        for image in range(images)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def experiment():
    models = make_models()
    records = make_records(models)
    return models, records, summarise(models, records)


def test_a_row_counts_its_own_instances_only(experiment):
    models, _, _ = experiment
    records = [
        make_record(models[2].network, n, word) for n, word in enumerate(["unsat"] * 6 + ["sat"] * 3 + ["error"])
    ]
    rows = summarise(models, [*records, make_record("onnx/other.onnx", 0, "unsat")])
    row = rows[2]
    assert (row.images, row.certified, row.falsified, row.undecided) == (10, 6, 3, 1)
    assert row.certified_accuracy == pytest.approx(0.6)
    assert row.certified_low < 0.6 < row.certified_high
    assert (row.mean_unstable, row.mean_unstable_interval, row.bounds, row.relus) == (40, 70, "alpha-crown", 200)
    assert rows[3].images == 0
    assert math.isnan(rows[3].certified_accuracy)


def test_chains_share_their_dense_network(experiment):
    models, records, rows = experiment
    found = changes(models, rows, records)
    assert [change.subject for change in found] == [chain for chain, _, _ in CHAINS]
    assert found[0].before == found[1].before == rows[0]


def test_changes_are_paired_and_corrected_for_choosing(experiment):
    models, _, _ = experiment
    chain = [model for model in models if "mlp-magnitude" in model.chains]
    before = [make_record(chain[0].network, n, "unsat" if n < 2 else "sat") for n in range(12)]
    after = [make_record(chain[1].network, n, "unsat" if n > 0 else "sat") for n in range(12)]
    [change] = changes(chain, summarise(chain, before + after), before + after)
    assert (change.images.gained, change.images.lost) == (10, 1)
    assert change.points == pytest.approx((75, 75))
    # Eleven changed images, one against: 2 (1 + 11) / 2^11, times the three pruned models.
    assert change.p_value == pytest.approx(3 * 2 * 12 / 2048)
    assert "rises" in str(change)
    assert "significant" in str(change)


def test_the_first_line_is_about_the_control_of_equal_epochs():
    dense = ModelRecord("d", ("c",), "conv", "dense", 0, 1.0, 9, "d.onnx", 0.9, 1.0)
    kinds = [("", "magnitude", 0.5), ("retrained", "retrained", 1.0), ("random_masks", "random_masks", 0.5)]
    models = [dense] + [
        changed(dense, name=f"{kind or 'p'}{state}", network=f"{kind or 'p'}{state}.onnx", method=method, state=state,
                density=density, control=kind)
        for state in (1, 2) for kind, method, density in kinds
    ]  # fmt: skip
    certified = {"d.onnx": 3, "p1.onnx": 5, "p2.onnx": 8, "retrained2.onnx": 6, "random_masks2.onnx": 1}
    records = [
        make_record(model.network, n, "unsat" if n < certified.get(model.network, 0) else "sat")
        for model in models for n in range(10)
    ]  # fmt: skip
    first, alone, *others = changes(models, summarise(models, records), records)
    assert [first.before.model, first.after.model] == ["retrained2", "p2"]
    assert "from 60.0 % [31, 83] (as many epochs without pruning) to 80.0 %" in str(first)
    assert "the best of 2" in str(first)
    assert [alone.before.model, alone.after.model] == ["d", "retrained2"]
    assert str(alone).startswith("c, training alone: certified accuracy rises from 30.0 %")
    assert {change.before.model for change in others} == {"random_masks2", "d"}
    assert all(change.after.model == "p2" for change in others)
    assert ticket_findings(summarise(models, records)) == []  # fine-tuned networks cannot be tickets
    rewound = [changed(model, retrained=model.is_pruned) for model in models]
    [tickets] = ticket_findings(summarise(rewound, records))
    assert "of 2 networks" in tickets


def compared(before: list[str], after: list[str]) -> str:
    """What is said of two networks with these verdicts on the same images."""
    chain = [model for model in make_models() if "mlp-magnitude" in model.chains][:2]
    words = zip(chain, (before, after), strict=True)
    records = [make_record(model.network, n, word) for model, own in words for n, word in enumerate(own)]
    [change] = changes(chain, summarise(chain, records), records)
    return str(change)


def test_undecided_images_count_on_both_ends_of_a_difference():
    said = compared(["unsat"] * 2 + ["sat"] * 7 + ["timeout"], ["unsat"] * 8 + ["unknown"] + ["sat"])
    assert "rises from 20.0-30.0 %" in said
    assert "to 80.0-90.0 %" in said
    assert "+50.0 to +70.0 points, 6 gained and 0 lost" in said
    # Held against the rise: the tenth image is robust before, the ninth is not after; 6 gained and 1 lost.
    assert "significant" not in said
    assert f"p = {2 * 8 / 128:.2g}" in said


def test_a_difference_that_undecided_images_can_turn_is_within_the_limit():
    said = compared(["unsat"] * 4 + ["timeout"] * 3 + ["sat"] * 3, ["unsat"] * 6 + ["sat"] * 4)
    assert "within the limit (the sign depends on 3 undecided images)" in said
    assert "-10.0 to +20.0 points" in said
    assert "rises" not in said


def test_a_ticket_is_one_whatever_undecided_images_come_to():
    dense = ModelRecord("d", ("c",), "conv", "dense", 0, 1.0, 9, "d.onnx", 0.9, 0.9)
    pruned = changed(dense, name="p", network="p.onnx", state=1, density=0.5, retrained=True)
    for open_image, ticket in (("sat", True), ("timeout", False)):
        records = [make_record("d.onnx", n, word) for n, word in enumerate(["unsat", "unsat", open_image])]
        records += [make_record("p.onnx", n, word) for n, word in enumerate(["unsat", "unsat", "sat"])]
        assert summarise([dense, pruned], records)[1].ticket == ticket


def test_accuracy_over_seeds_reaches_from_what_is_proved_to_what_is_not_refuted():
    models, records = seeded({(0, 1): 4, (0, 2): 5, (1, 1): 6, (1, 2): 8})
    undecided = [make_record(model.network, 10, "timeout") for model in models if model.state]
    rows = summarise(models, [*records, *undecided])
    pruned = averages(models, rows)[1]
    assert (pruned.certified_accuracy, pruned.certified_most) == pytest.approx((14 / 22, 16 / 22))
    [gain] = gains(models, rows)
    assert gain.least == pytest.approx(14 / 22 - 0.45)
    assert gain.most == pytest.approx(16 / 22 - 0.45)
    assert gain.low < gain.least < gain.most < gain.high
    assert "the interval is about other seeds on these images" in str(gain)


def changed(model: ModelRecord, **values) -> ModelRecord:
    return dataclasses.replace(model, **values)


def test_a_ticket_loses_neither_accuracy():
    dense = ModelRecord("d", ("c",), "conv", "dense", 0, 1.0, 9, "d.onnx", 0.9, 0.9)
    pruned = {
        "ticket": changed(dense, standard_accuracy=0.9, retrained=True),
        "less-accurate": changed(dense, standard_accuracy=0.89, retrained=True),
        "less-robust": changed(dense, standard_accuracy=0.99, retrained=True),
        "fine-tuned": changed(dense, standard_accuracy=0.9),
        "other-chain": changed(dense, chains=("e",), retrained=True),
        "other-seed": changed(dense, seed=5, retrained=True),
    }
    models = [dense, *(changed(m, name=n, network=n, method="slim", state=1, density=0.5) for n, m in pruned.items())]
    certified = {model.network: 3 if model.name == "less-robust" else 4 for model in models}
    records = [
        make_record(net, i, "unsat" if i < count else "sat") for net, count in certified.items() for i in range(9)
    ]
    rows = summarise(models, records)
    assert [row.model for row in rows if row.ticket] == ["ticket"]
    [chain, _] = ticket_findings(rows)
    assert "at density 0.5 (1 of 4" in chain
    other = ticket_findings(rows)[1]
    assert other.startswith("e: no certified lottery ticket")


def seeded(certified: dict[tuple[int, int], int]) -> tuple[list[ModelRecord], list[JournalRecord]]:
    """Models by (state, seed), and records of ten images, of which some are certified."""
    models = [
        ModelRecord(f"m{state}-seed{seed}", ("c",), "conv", "slim" if state else "dense", state, 0.5**state, 9,
              f"{state}-{seed}.onnx", 0.9, 1.0, group=f"m{state}", seed=seed, retrained=state > 0)
        for state, seed in certified
    ]  # fmt: skip
    counts = zip(models, certified.values(), strict=True)
    return models, [make_record(m.network, i, "unsat" if i < n else "sat") for m, n in counts for i in range(10)]


def test_seeds_are_averaged_with_students_interval():
    models, records = seeded({(0, 1): 4, (0, 2): 5, (0, 3): 6, (1, 1): 6, (1, 2): 7, (1, 3): 9})
    rows = summarise(models, records)
    dense, pruned = averages(models, rows)
    assert (dense.model, dense.seeds, dense.images, dense.certified) == ("m0", 3, 30, 15)
    assert dense.certified_accuracy == pytest.approx(0.5)
    # Standard deviation 0.1 over three seeds; the 97.5 % point of Student's t with two degrees is 4.3027.
    assert dense.certified_low == pytest.approx(0.5 - 4.302653 * 0.1 / math.sqrt(3), abs=1e-6)
    assert pruned.ticket
    assert not dense.ticket
    [gain] = gains(models, rows)
    assert (gain.seeds, gain.tried, gain.least, gain.most) == (3, 1, pytest.approx(7 / 30), pytest.approx(7 / 30))
    assert gain.low < gain.least < gain.high
    assert "+23.3 points" in str(gain)
    assert [change.subject for change in changes(models, rows, records)] == [f"c (seed {n})" for n in (1, 2, 3)]


def test_each_gain_names_what_its_networks_are_compared_with():
    """A grafted network has no unpruned one of as many epochs beside it: it is not said to be better than that."""
    kinds = [("d", 0, "", 3), ("p", 1, "", 4), ("r", 1, "retrained", 8), ("g", 2, "", 9)]
    dense = ModelRecord("d", ("c",), "conv", "dense", 0, 1.0, 9, "d.onnx", 0.9, 0.9)
    facts = [(f"{name}{seed}", state, control, seed, n) for seed in (1, 2) for name, state, control, n in kinds]
    models = [changed(dense, name=f, network=f, state=s, control=c, seed=seed) for f, s, c, seed, _ in facts]
    records = [make_record(f, i, "unsat" if i < n else "sat") for f, *_, n in facts for i in range(10)]
    first, second = gains(models, summarise(models, records))
    assert (first.against, first.least, first.tried) == ("as many epochs without pruning", pytest.approx(-0.4), 1)
    assert (second.against, second.least, second.tried) == ("dense", pytest.approx(0.6), 1)


def test_a_ticket_over_seeds_is_compared_with_dense_networks_of_its_own_seeds():
    """The dense network of a chain of one seed may have more seeds, by a chain that shares it."""
    for second, pruned, ticket in ((10, 5, True), (0, 3, False)):
        models, records = seeded({(0, 1): 4, (0, 2): second, (1, 1): pruned})
        _, mean = averages(models, summarise(models, records))
        assert mean.ticket == ticket


def test_a_chain_of_one_seed_has_no_gain_over_seeds():
    """Not when its dense network is shared with a chain of several seeds, either."""
    models, records = seeded({(0, 1): 4, (0, 2): 5, (1, 1): 6})
    assert gains(models, summarise(models, records)) == []


def test_one_seed_keeps_its_row():
    models, records = seeded({(0, 1): 4, (1, 1): 6})
    rows = summarise(models, records)
    assert [(row.model, row.certified_low) for row in averages(models, rows)] == [
        (f"m{row.state}", row.certified_low) for row in rows
    ]
    assert gains(models, rows) == []
    assert student([0.3]) == (-math.inf, math.inf)


def test_no_grafted_network_stands_beside_the_papers():
    models, records = seeded({(0, 1): 4, (1, 1): 6, (2, 1): 9})
    models = [*models[:2], changed(models[2], grafted=True)]
    table = paper_table(summarise(models, records), {"c": ("cifar10-2/certified/Slim",)})
    assert [row[0].text for row in table.rows] == ["m0-seed1", "m1-seed1"]


def test_our_networks_stand_beside_the_papers():
    models, records = seeded({(0, 1): 4, (1, 1): 7, (2, 1): 6})
    table = paper_table(summarise(models, records), {"c": ("cifar10-2/certified/SNIP", "cifar10-2/certified/TP")})
    texts = [[cell.text for cell in row] for row in table.rows]
    assert [(row[0], row[6]) for row in texts] == [
        ("m0-seed1", "cifar10-2/certified/Dense"),
        ("m1-seed1", "cifar10-2/certified/SNIP"),
        ("m1-seed1", "cifar10-2/certified/TP"),
    ]
    assert texts[0][7:] == ["1", "54.1 %", "–", "43.0 %", "6.68"]
    adversarial = paper_table(summarise(models, records), {"c": ("cifar10-2/adversarial/IMP",)})
    assert [row[9].text for row in adversarial.rows] == ["68.6 %", "55.4 %"]
    ranged = paper_table(summarise(models, records), {"c": ("cifar10-2/ctbench/Dense",)})
    assert [[cell.text for cell in row][7:] for row in ranged.rows] == [["1", "–", "–", "63-66 %", "–"]] * 2
    rounded = paper_table(summarise(models, records), {"c": ("cifar10-8/ctbench/Dense",)})
    assert [row[10].text for row in rounded.rows] == ["35 %", "35 %"]
    assert paper_table(summarise(models, records), {}).rows == ()


def test_stability_has_one_line_for_each_layer():
    models, _ = seeded({(0, 1): 4})
    models = [changed(models[0], layers=({"neurons": 5, "width": 0.25}, {"neurons": 3, "width": 0.5}))]
    lines = list(csv.DictReader(io.StringIO(stability_csv(models))))
    assert [(line["model"], line["layer"], line["width"]) for line in lines] == [
        ("m0-seed1", "0", "0.25"),
        ("m0-seed1", "1", "0.5"),
    ]


def test_the_csv_has_one_line_per_model(experiment):
    models, _, rows = experiment
    read = list(csv.DictReader(io.StringIO(summary_csv(rows))))
    assert [line["model"] for line in read] == [model.name for model in models]
    assert float(read[0]["certified_accuracy"]) == pytest.approx(rows[0].certified_accuracy)


def test_plots_are_drawn(experiment, tmp_path):
    _, records, rows = experiment
    for figure in (
        certified_versus_density(rows),
        instability_versus_density(rows),
        every_network(rows),
        cactus({"all": records, "no": []}),
        cactus({"nothing decided": []}),
        cactus({}),
        training_curves([]),
    ):
        assert to_svg(figure).startswith("<svg")
        save_png(figure, tmp_path / "plot.png")
        assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_curves_of_training_have_a_line_for_each_quantity_and_network():
    facts = {"epsilon": 0.05, "learning_rate": 0.1, "loss": 0.5, "standard": 0.75, "certified": 0.25}
    curve = tuple(facts | {"epoch": epoch, "epsilon": 0.05 * min(1.0, epoch / 3)} for epoch in range(1, 6))
    unmeasured = tuple(row | {"standard": None, "certified": None} for row in curve)
    models = [changed(model, curve=curve) for model in make_models()[:2]]
    left, right = training_curves([*models, changed(models[0], name="third", curve=unmeasured)]).axes
    assert [line.get_label() for line in left.lines[:3]] == ["conv-dense", "mlp-dense", "third"]
    assert list(left.lines[0].get_ydata()) == [0.5] * 5
    assert [list(line.get_ydata()) for line in right.lines[:2]] == [[25.0] * 5, [75.0] * 5]
    assert all(math.isnan(value) for value in right.lines[4].get_ydata())
    assert [list(line.get_xdata()) for line in (left.lines[3], right.lines[6])] == [[3, 3], [3, 3]]


def test_every_network_has_a_line_of_its_own(experiment):
    _, _, rows = experiment
    left, right = every_network(rows).axes
    assert [label.get_text().split(" ")[0] for label in left.get_yticklabels()] == [row.model for row in rows]
    assert list(left.get_lines()[0].get_xdata()) == [100 * row.certified_accuracy for row in rows]
    assert list(right.get_lines()[1].get_xdata()) == [row.mean_unstable for row in rows]


def test_many_chains_look_different(experiment):
    _, _, rows = experiment
    many = [dataclasses.replace(rows[0], model=f"m{index}", chains=(f"c{index}",)) for index in range(16)]
    [axes] = certified_versus_density(many).axes
    looks = {(line.get_color(), line.get_marker()) for line in axes.get_lines()}
    assert len(looks) == len(many)


def test_plots_are_the_same_bytes_every_time(experiment):
    _, _, rows = experiment
    assert to_svg(certified_versus_density(rows)) == to_svg(certified_versus_density(rows))


class Tags(HTMLParser):
    """Collects what a page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.rows = 0

    def handle_starttag(self, tag, attrs):
        self.rows += tag == "tr"
        self.links += [
            value for name, value in attrs if name in ("src", "href") and value and not value.startswith(("#", "data:"))
        ]


def make_page(experiment, **more) -> Page:
    models, records, rows = experiment
    values = {
        "title": "digits",
        "subtitle": "12 models, 20 images each",
        "cards": (("models", "12"), ("certified", "120")),
        "findings": tuple(str(change) for change in changes(models, rows, records)),
        "table": summary_table(rows),
        "figures": {"certified accuracy": certified_versus_density(rows)},
        "records": records,
        "facts": facts(records),
    }
    return Page(**(values | more))


def test_the_page_needs_no_other_file(experiment, tmp_path):
    write_page(make_page(experiment), tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    tags = Tags()
    tags.feed(text)
    assert tags.links == []
    networks = {record.onnx for record in experiment[1]}
    assert tags.rows == 3 + len(experiment[2]) + len(experiment[1]) + len(networks)  # many instances: by network, too
    assert not re.search(r"url\(\s*['\"]?http", text)


def test_text_on_the_page_is_escaped_and_contradictions_stand_out(experiment):
    records = [make_record("<script>alert(1)</script>", 0, "unsat"), make_record("onnx/b.onnx", 1, "unsat")]
    text = render(make_page(experiment, records=records, expected={records[1].key: Verdict.SAT}))
    assert "<script>alert" not in text
    assert text.count('class="wrong"') == 1


def test_tables_fit_terminal_and_page(experiment):
    table = summary_table(experiment[2])
    assert len(to_rich(table).rows) == len(experiment[2])
    empty = summarise(experiment[0], [])
    assert "–" in [cell.text for cell in summary_table(empty).rows[0]]
    scores = score_table([score("toy", experiment[1], [None] * len(experiment[1]))])
    assert scores.rows[0][0].text == "toy"
    assert [short(value) for value in (0.01234, 7.0, 12345.6)] == ["0.0123", "7", "12,346"]


def test_latex_reads_no_text_as_a_command():
    columns = (word("a_b", "", lambda item: item), number("n", "", len, "{:.1f}".format))
    table = make_table(columns, ["50 %", r"\x{1}", "a–b"])
    assert to_latex(table).splitlines() == [
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"a\_b & n \\",
        r"\midrule",
        r"50 \% & 4.0 \\",
        r"\textbackslash{}x\{1\} & 5.0 \\",
        r"a--b & 3.0 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
    assert to_csv(table) == "a_b,n\n50 %,4\n\\x{1},5\na–b,3\n"


def test_a_table_wider_than_the_console_is_printed_whole():
    text = io.StringIO()
    console = Console(file=text, width=30)
    rows = [("a name of some length", 5408), ("another one", 12)]
    columns = (word("network", "", lambda row: row[0]), number("ReLU neurons", "", lambda row: row[1], "{:,}".format))
    print_whole(console, to_rich(make_table(columns, rows)))
    assert "ReLU neurons" in text.getvalue()
    assert "5,408" in text.getvalue()
    assert len(text.getvalue().splitlines()) == 4
