"""The programming interface: networks and questions in every form, errors that say what to do, and no torch before."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from small_models import relu_net, save_text
from torch import nn

import prunecert
from prunecert import Robustness, Settings, Verdict
from toolkit import cli
from toolkit.catalogue import find_target, recipe_names
from toolkit.formats.onnx.model_file import load_model
from toolkit.formats.onnx.runtime import Session
from toolkit.formats.vnnlib.read import parse_query
from toolkit.formats.vnnlib.specs import agreement, linf_box
from toolkit.formats.vnnlib.write import write_query

ROOT = Path(__file__).parents[2]
DECLARED = "".join(f"(declare-const {name}_{i} Real)" for name in "XY" for i in (0, 1))
BOX = DECLARED + "".join(f"(assert (>= X_{i} 0.0))(assert (<= X_{i} 1.0))" for i in (0, 1))
INSIDE = "(>= X_0 0.0) (<= X_0 1.0) (>= X_1 0.0) (<= X_1 1.0)"
REACHED = BOX + "(assert (>= Y_1 0.5))"
UNREACHED = BOX + "(assert (>= Y_1 1.5))"
QUICK = {"timeout": 30, "device": "cpu"}


class SumAndDistance(nn.Module):
    """(x0 + x1, |x0 - x1|), as four ReLUs, with dropout that would change it in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 4, bias=False), nn.Linear(4, 2, bias=False)
        self.dropout = nn.Dropout(0.9)
        with torch.no_grad():
            self.first.weight.copy_(torch.tensor([[1.0, 1], [1, 1], [1, -1], [-1, 1]]))
            self.second.weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 0, 1, 1]]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.dropout(torch.relu(self.first(x)))
        return self.second(hidden)  # type: ignore[no-any-return]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The ONNX file of a network that computes the function of `SumAndDistance`."""
    return relu_net(tmp_path / "net.onnx")


@pytest.fixture
def forms(path: Path) -> dict[str, tuple[object, dict[str, object]]]:
    """The network in every form, with the arguments that the form needs."""
    return {
        "path": (path, {}),
        "name": (str(path), {}),
        "proto": (onnx.load(path), {}),
        "module": (SumAndDistance(), {"input_shape": (2,)}),
        "mapping": ({"": path}, {}),
    }


@pytest.mark.parametrize("form", ["path", "name", "proto", "module", "mapping"])
def test_a_network_in_every_form(forms: dict, path: Path, form: str) -> None:
    network, arguments = forms[form]
    found = prunecert.verify(network, REACHED, **arguments, **QUICK)
    assert found.verdict is Verdict.SAT
    assert isinstance(found.witness, prunecert.Witness)
    [output] = Session(load_model(path)).run([found.witness.inputs.astype(np.float32)])
    assert output.reshape(-1)[1] >= 0.5
    proved = prunecert.verify(network, UNREACHED, **arguments, **QUICK)
    assert (proved.verdict, proved.witness) == (Verdict.UNSAT, None)


def test_a_module_is_verified_in_evaluation_mode_and_left_as_it_is() -> None:
    module = SumAndDistance().train()
    assert prunecert.verify(module, UNREACHED, input_shape=[2], **QUICK).verdict is Verdict.UNSAT
    assert module.training


def test_what_is_verified_is_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a module is exported nothing runs it any more."""
    module, exported = SumAndDistance(), []
    export = torch.onnx.export

    def export_and_break(*arguments: object, **options: object) -> None:
        export(*arguments, **options)
        exported.append(arguments)
        monkeypatch.setattr("toolkit.formats.onnx.export._compare", lambda *_: None)
        monkeypatch.setattr(SumAndDistance, "forward", lambda *_: pytest.fail("the live module was run"))

    monkeypatch.setattr(torch.onnx, "export", export_and_break)
    assert prunecert.verify(module, UNREACHED, input_shape=(2,), **QUICK).verdict is Verdict.UNSAT
    assert len(exported) == 1


def test_nothing_is_left_in_the_temporary_folder(forms: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    for form in ("proto", "module"):
        network, arguments = forms[form]
        prunecert.verify(network, UNREACHED, **arguments, **QUICK)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_reasons_name_a_network_in_memory_by_its_class(tmp_path: Path) -> None:
    network = onnx.load(save_text(tmp_path / "odd.onnx", "main (float[1,2] x) => (float[1,2] y) { y = Hardmax(x) }"))
    result = prunecert.verify(network, BOX + "(assert (>= Y_0 2.0))", timeout=2, device="cpu")
    assert result.verdict is Verdict.UNKNOWN
    assert result.reason.startswith("unsupported: ModelProto.onnx: operator Hardmax")


@pytest.mark.parametrize(("bias", "verdict"), [(0.0, Verdict.UNSAT), (0.25, Verdict.SAT)])
def test_two_networks_by_their_names(tmp_path: Path, bias: float, verdict: Verdict) -> None:
    """Whether the outputs of both differ by more than 0.1 somewhere."""
    offset = nn.Linear(2, 2)
    with torch.no_grad():
        offset.weight.copy_(torch.eye(2))
        offset.bias.fill_(bias)
    query = agreement(linf_box([0.5, 0.5], 0.25), (1, 2), (1, 2), tolerance=0.1, dtype="real")
    write_query(query, tmp_path / "agree.vnnlib")
    prunecert.export(offset, tmp_path / "g.onnx", (2,))
    same = save_text(tmp_path / "f.onnx", "main (float[1,2] x) => (float[1,2] y) { y = Relu(x) }")
    result = prunecert.verify({"f": onnx.load(same), "g": tmp_path / "g.onnx"}, tmp_path / "agree.vnnlib", **QUICK)
    assert result.verdict is verdict


@pytest.mark.parametrize("suffix", [".vnnlib", ".vnnlib.gz"])
def test_a_specification_in_a_file(path: Path, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"property{suffix}"
    write_query(parse_query(UNREACHED), file)
    assert prunecert.verify(path, file, **QUICK).verdict is Verdict.UNSAT
    assert prunecert.verify(path, str(file), **QUICK).verdict is Verdict.UNSAT


def test_text_may_begin_with_a_comment_and_blanks(path: Path) -> None:
    assert prunecert.verify(path, f"  \n; a comment\n{UNREACHED}", **QUICK).verdict is Verdict.UNSAT


# At (0.5, 0.25) the outputs are 0.75 and 0.25. In a ball of radius r they come as near as 0.5 - 2 r.


@pytest.mark.parametrize(("epsilon", "verdict"), [(0.12, Verdict.UNSAT), (0.26, Verdict.SAT)])
@pytest.mark.parametrize("shape", [(2,), (1, 2)])
def test_robustness(path: Path, epsilon: float, verdict: Verdict, shape: tuple[int, ...]) -> None:
    center = np.array([0.5, 0.25]).reshape(shape)
    result = prunecert.verify(path, Robustness(center, epsilon, label=0), **QUICK)
    assert result.verdict is verdict
    if result.witness is not None:
        assert np.abs(result.witness.inputs - [0.5, 0.25]).max() <= epsilon


def test_the_label_is_what_has_to_stay_largest(path: Path) -> None:
    question = Robustness([0.5, 0.25], 0.0, label=1)
    assert prunecert.verify(path, question, **QUICK).verdict is Verdict.SAT


def test_clip_cuts_the_ball(path: Path) -> None:
    """The outputs tie only where an element is 0, or below."""
    ball = Robustness(torch.tensor([0.5, 0.25]), [0.1, 0.3], label=0)
    assert prunecert.verify(path, ball, **QUICK).verdict is Verdict.SAT
    cut = Robustness(ball.center, ball.epsilon, label=0, clip=(0.01, 1.0))
    assert prunecert.verify(path, cut, **QUICK).verdict is Verdict.UNSAT


def test_settings_and_what_is_given_besides(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(
        "toolkit.verify.verify", lambda _models, _query, settings, clock: seen.append((settings, clock))
    )
    prunecert.verify(path, REACHED)
    prunecert.verify(path, REACHED, settings=Settings(timeout=7, seed=3, batch=5), timeout=2, device="cpu")
    assert seen[0][0] == Settings()
    assert seen[1][0] == Settings(timeout=2, seed=3, batch=5, device="cpu")
    assert [clock.limit for _, clock in seen] == [60, 2]


def test_passes_are_a_limit(path: Path) -> None:
    found = prunecert.verify(path, UNREACHED, settings=Settings(passes=1), **QUICK)
    assert (found.verdict, found.reason) == (Verdict.UNKNOWN, "limit of 1 bounding passes")


MODES = {
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "device": lambda: torch.device("meta"),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("form", ["path", "module"])
def test_modes_that_torch_is_in_change_nothing(forms: dict, form: str, mode: str) -> None:
    network, arguments = forms[form]
    with MODES[mode]():
        assert prunecert.verify(network, UNREACHED, **arguments, **QUICK).verdict is Verdict.UNSAT
        assert prunecert.verify(network, REACHED, **arguments, **QUICK).verdict is Verdict.SAT
        assert torch.is_inference_mode_enabled() == (mode == "inference")
        assert torch.is_autocast_enabled("cpu") == (mode == "autocast")
        assert torch.get_default_device().type == ("meta" if mode == "device" else "cpu")


def test_threads_may_verify_modules_at_the_same_time() -> None:
    def asked(text: str) -> Verdict:
        return prunecert.verify(SumAndDistance(), text, input_shape=(2,), **QUICK).verdict

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(asked, [UNREACHED, REACHED] * 3))
    assert found == [Verdict.UNSAT, Verdict.SAT] * 3


CERTIFIED = Settings(timeout=30, device="cpu", certified=True)


@pytest.mark.parametrize("form", ["path", "proto", "module"])
def test_certified_answers_have_a_checked_certificate(forms: dict, path: Path, form: str, tmp_path: Path) -> None:
    network, arguments = forms[form]
    file, ball = tmp_path / "query.vnnlib", Robustness([0.75, 0.25], 0.1, label=0)
    file.write_text(UNREACHED)
    for question in (UNREACHED, file, ball):
        found = prunecert.verify(network, question, **arguments, settings=CERTIFIED)
        assert (found.verdict, found.statistics.certificate) == (Verdict.UNSAT, "checked")
    assert prunecert.verify(network, REACHED, **arguments, settings=CERTIFIED).verdict is Verdict.SAT


TIED = """(vnnlib-version <2.0>) (declare-network f (declare-input X real [1,2]) (declare-output Y real [1,2]))
(assert (>= X[0,0] 0.0)) (assert (<= X[0,0] 1.0)) (assert (== X[0,0] X[0,1]))"""


@pytest.mark.parametrize(
    ("text", "certificate"),
    [
        (DECLARED + "(assert (>= X_0 2.0))(assert (<= X_0 1.0))(assert (>= Y_1 0.0))", "checked"),
        (
            DECLARED + f"(assert (or (and (>= X_0 2.0) (<= X_0 1.0) (>= Y_1 0.0)) (and {INSIDE} (>= Y_1 1.5))))",
            "checked",
        ),
        (TIED + "(assert (or (and (>= X[0,1] 2.0) (>= Y[0,1] 0.0)) (>= Y[0,1] 1.5)))", ""),
        (TIED + "(assert (>= X[0,1] 2.0))", ""),
    ],
)
def test_inputs_without_bounds_of_their_own(path: Path, text: str, certificate: str) -> None:
    """In a case without points none is needed; one that follows from a sum is no part of a certificate."""
    assert prunecert.verify(path, text, **QUICK).verdict is Verdict.UNSAT
    found = prunecert.verify(path, text, settings=CERTIFIED)
    assert (found.verdict is Verdict.UNSAT, found.statistics.certificate) == (bool(certificate), certificate)
    assert certificate or "has no bound" in found.reason


def test_nothing_is_certified_that_the_checker_does_not_read(path: Path) -> None:
    """The sine has bounds, and no rule in the checker."""
    nodes = [onnx.helper.make_node("Sin", ["x"], ["y"])]
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 2]) for name in "xy"]
    graph = onnx.helper.make_graph(nodes, "sine", values[:1], values[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    assert prunecert.verify(model, UNREACHED, **QUICK).verdict is Verdict.UNSAT
    found = prunecert.verify(model, UNREACHED, settings=CERTIFIED)
    assert (found.verdict, found.statistics.certificate) == (Verdict.UNKNOWN, "")
    assert found.reason.startswith("no certificate: node")
    product = prunecert.verify(path, BOX + "(assert (>= (* X_0 X_1) 1.5))", settings=CERTIFIED)
    assert product.reason == "no certificate: query.vnnlib:1: products of variables are not read"


class Breaks(nn.Module):
    """Fails on every input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise KeyError("no such layer")


WRONG = {
    "a missing network": (["none.onnx", REACHED], {}, "none.onnx: no such file"),
    "a missing specification": (["net.onnx", "none.vnnlib"], {}, "none.vnnlib"),
    "no network": ([3, REACHED], {}, "a network is a path, an onnx.ModelProto or a torch.nn.Module, not a int"),
    "no specification": (["net.onnx", 3], {}, "not a int"),
    "malformed text": (["net.onnx", DECLARED + "(assert (>= X_0 many))"], {}, "the specification:1: "),
    "a module without a shape": ([SumAndDistance(), REACHED], {}, "add input_shape"),
    "a shape for a file": (["net.onnx", REACHED], {"input_shape": (2,)}, "leave out input_shape"),
    "a shape that does not fit": ([SumAndDistance(), REACHED], {"input_shape": (3,)}, "input of shape [1, 3]"),
    "a module that fails": ([Breaks(), REACHED], {"input_shape": (2,)}, "Breaks.onnx: the module cannot be run"),
    "an empty model": ([onnx.ModelProto(), REACHED], {}, "ModelProto.onnx: "),
    "a time limit of no time": (["net.onnx", REACHED], {"timeout": 0}, "timeout: "),
    "an unknown device": (["net.onnx", REACHED], {"device": "tpu"}, "device: "),
    "a centre of another size": (["net.onnx", Robustness([0.5], 0.1, 0)], {}, "center: 1 numbers, but the input"),
    "a centre of words": (["net.onnx", Robustness(["a", "b"], 0.1, 0)], {}, "center: not an array of numbers"),
    "radii of another size": (["net.onnx", Robustness([0.5, 0.5], [0.1] * 3, 0)], {}, "epsilon: 3 numbers"),
    "a negative radius": (["net.onnx", Robustness([0.5, 0.5], -0.1, 0)], {}, "epsilon not negative"),
    "a label that is no output": (["net.onnx", Robustness([0.5, 0.5], 0.1, 2)], {}, "output 2 is not one of 2"),
    "a label with decimals": (["net.onnx", Robustness([0.5, 0.5], 0.1, 1.5)], {}, "label: not a whole number: 1.5"),
    "a range upside down": (["net.onnx", Robustness([0.5, 0.5], 0.1, 0, (1, 0))], {}, "clip: the first number"),
    "a centre out of range": (["net.onnx", Robustness([0.5, 1.5], 0.1, 0, (0, 1))], {}, "leaves the range"),
    "a question about two": (
        [{"f": "net.onnx", "g": "net.onnx"}, Robustness([0.5, 0.5], 0.1, 0)], {}, "about one network, not 2",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_said(path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(path.parent)
    positional, named, words = WRONG[name]
    with pytest.raises(prunecert.InputError) as caught:
        prunecert.verify(*positional, **named)
    message = str(caught.value)
    assert words in message
    assert "\n" not in message
    assert "prunecert-" not in message, "the temporary folder is of no use to anyone"


def test_what_cannot_be_exported_is_unsupported() -> None:
    class Inverse(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.eigvals(torch.diag_embed(x)).real

    with pytest.raises(prunecert.UnsupportedError, match=r"^Inverse.onnx: torch cannot export the network"):
        prunecert.verify(Inverse(), REACHED, input_shape=(2,))


def test_a_robustness_question_needs_one_output(tmp_path: Path) -> None:
    text = "main (float[1,2] x) => (float[1,2] y, float[1,2] z) { y = Relu(x) z = Relu(x) }"
    network = save_text(tmp_path / "two.onnx", text)
    with pytest.raises(prunecert.UnsupportedError, match="has 2 outputs"):
        prunecert.verify(network, Robustness([0.5, 0.5], 0.1, 0))


def test_bench_runs_a_folder(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "family"
    folder.mkdir()
    (folder / "net.onnx").write_bytes(path.read_bytes())
    (folder / "reached.vnnlib").write_text(REACHED)
    (folder / "unreached.vnnlib").write_text(UNREACHED)
    (folder / "instances.csv").write_text("net.onnx,reached.vnnlib,30\nnet.onnx,unreached.vnnlib,30\n")
    options = prunecert.Options(executor="in-process", device="cpu")
    run = prunecert.bench(folder, out=tmp_path / "out", options=options)
    assert run == prunecert.Run(tmp_path / "out", consistent=True)
    assert [row.verdict for row in run.results()] == [Verdict.SAT, Verdict.UNSAT]
    assert (run.folder / "report.html").is_file()


def test_a_contradiction_is_told(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.experiments.campaign.run_folder", lambda *_: 1)
    assert not prunecert.bench(path.parent, out=tmp_path / "out").consistent


@pytest.mark.parametrize("options", [prunecert.Options(workers=0), prunecert.Options(setting=("batch=-1",))])
def test_bad_options_of_a_run(path: Path, tmp_path: Path, options: prunecert.Options) -> None:
    (tmp_path / "instances.csv").write_text("net.onnx,reached.vnnlib,30\n")
    with pytest.raises(prunecert.InputError, match=r"workers|batch"):
        prunecert.bench(tmp_path, out=tmp_path / "out", options=options)


def test_a_disk_that_fails_is_the_machines_fault(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device", "out/results.csv")

    monkeypatch.setattr("toolkit.experiments.campaign.run_folder", full)
    with pytest.raises(prunecert.MachineError, match=r"out/results.csv: No space left on device"):
        prunecert.bench(path.parent, out=tmp_path / "out")


def test_prune_does_what_the_command_does(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr("toolkit.experiments.study.run_parsed", lambda *arguments: calls.append(arguments) or 0)
    pruning, out = prunecert.Pruning(method="random", density=(0.5, 0.25)), tmp_path / "out"
    check = prunecert.Check(images=7, device="cpu")
    run = prunecert.prune(path, data="digits", epsilon=0.01, out=out, pruning=pruning, check=check)
    assert run == prunecert.Run(out, consistent=True)
    ours = ["--density", "0.5", "--density", "0.25", "--method", "random", "--images", "7", "--device", "cpu"]
    assert cli.run(["prune", str(path), "--data", "digits", "--epsilon", "0.01", "-o", str(out), *ours]) == 0
    assert calls[0] == calls[1]
    assert calls[0][0].models["original"].file == path


def test_prune_takes_units_and_classes_as_the_command_does(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr("toolkit.experiments.study.run_parsed", lambda *arguments: calls.append(arguments) or 0)
    (tmp_path / "pets").mkdir()
    units = prunecert.NetworkInput(mean="0.5", std=(0.25, 0.5, 1), classes="dog,cat")
    prunecert.prune(path, data=tmp_path / "pets", epsilon=0, out=tmp_path / "out", network_input=units)
    ours = ["--mean", "0.5", "--std", "1/4,0.5,1", "--classes", "dog,cat", "--epsilon", "0"]
    assert cli.run(["prune", str(path), "--data", str(tmp_path / "pets"), "-o", str(tmp_path / "out"), *ours]) == 0
    assert calls[0] == calls[1]
    recipe = calls[0][0]
    assert (recipe.data.mean, recipe.data.std, recipe.data.classes) == ((0.5,), (0.25, 0.5, 1.0), ("dog", "cat"))
    assert recipe.models["original"].normalise


def test_prune_refuses_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(prunecert.InputError, match=r"none.onnx: no such file"):
        prunecert.prune("none.onnx", data="digits", epsilon=0.01, out=tmp_path / "out")


def test_export_writes_what_other_tools_read(tmp_path: Path) -> None:
    module, point = SumAndDistance(), np.array([0.5, 0.25], dtype=np.float32)
    for name in ("inner/net.onnx", "net.onnx.gz"):
        written = prunecert.export(module, tmp_path / name, (2,))
        assert written == tmp_path / name
        assert Session(load_model(written)).run([point])[0].tolist() == [[0.75, 0.25]]
    with pytest.raises(prunecert.InputError, match=r"net.pt: the name"):
        prunecert.export(module, tmp_path / "net.pt", (2,))


def test_recipes_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert recipe_names() == sorted(path.stem for path in (ROOT / "specs").glob("*.toml"))
    for target in (None, Path("digits"), Path("digits.toml")):
        assert find_target(target).read_bytes() == (ROOT / "specs" / "digits.toml").read_bytes()
    (tmp_path / "digits").mkdir()
    assert find_target(Path("digits")) == Path("digits"), "what exists comes first"
    assert find_target(None).suffix == ".toml"


@pytest.mark.parametrize("name", ["digit", "nowhere/digits.toml", "../specs/digits"])
def test_an_unknown_recipe_is_told_with_the_known_ones(name: str, tmp_path: Path) -> None:
    with pytest.raises(prunecert.InputError) as caught:
        prunecert.bench(name, out=tmp_path / "out")
    assert str(caught.value).startswith(f"{name}: no such folder or file; ")
    assert all(known in str(caught.value) for known in recipe_names())
    assert not (tmp_path / "out").exists()


def test_an_installed_package_has_the_recipes(tmp_path: Path) -> None:
    """Of a wheel, which is built from a copy of what it is made of, since building leaves files behind."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("toolkit", "prunecert", "specs", "pyproject.toml", "setup.py", "README.md", "LICENSE", "MANIFEST.in"):
        (source / name).symlink_to(ROOT / name)
    build = f"from setuptools.build_meta import build_wheel; build_wheel({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True, timeout=120)
    [wheel] = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    names = {path.relative_to(installed).as_posix() for path in installed.rglob("*")}
    assert {"prunecert/py.typed", "toolkit/py.typed", "prunecert/_verify.py"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    code = "from toolkit.catalogue import find_target, recipe_names; from toolkit.recipe import load_recipe; "
    code += "print(load_recipe(find_target(None)).name, recipe_names())"
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-c", code]
    said = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    assert said.stdout == f"digits {recipe_names()}\n"


def test_importing_it_takes_no_torch() -> None:
    code = "import sys, prunecert; sys.exit(any(name in sys.modules for name in ('torch', 'onnxruntime', 'onnx')))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], check=False, env=environment).returncode == 0


@pytest.mark.parametrize("name", [name for name in prunecert.__all__ if name != "__version__"])
def test_everything_offered_is_documented_and_typed(name: str) -> None:
    """With docstrings of its own, typed arguments, and a place on the page for people."""
    offered = getattr(prunecert, name)
    assert offered.__doc__
    assert not offered.__doc__.startswith(f"{name}("), "made by dataclass, not written"
    if inspect.isfunction(offered):
        signature = inspect.signature(offered)
        assert signature.return_annotation is not inspect.Signature.empty
        assert all(entry.annotation is not entry.empty for entry in signature.parameters.values())
        assert all(f"{parameter}:" in offered.__doc__ for parameter in signature.parameters)
    assert f"`{name}`" in (ROOT / "docs" / "api.md").read_text()


def test_names() -> None:
    assert prunecert.__all__ == sorted(prunecert.__all__)
    assert set(prunecert.__all__) <= set(dir(prunecert))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        prunecert.nothing  # noqa: B018
