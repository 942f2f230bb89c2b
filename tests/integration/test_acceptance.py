"""What the parts promise together, on one trained and pruned network: bounds in order, proofs against attacks.

The promises of single parts are tested beside them: counts of the paper's network, densities, schedules, NRSLoss,
nesting masks, rewinding, compression, intervals around samples and attacks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from toolkit.data.dataset import Dataset
from toolkit.data.load import load_dataset
from toolkit.experiments.study_networks import measured_accuracy
from toolkit.formats.onnx.export import export_model
from toolkit.formats.vnnlib.specs import linf_box, robustness
from toolkit.pruning import ChainModel, build_chains
from toolkit.recipe import Data, parse_recipe
from toolkit.result import Verdict
from toolkit.run.events import Event, RootBounded
from toolkit.settings import Settings
from toolkit.training.accuracy import accuracy
from toolkit.training.differentiable_crown import upper_bound
from toolkit.training.differentiable_intervals import image_box, propagate
from toolkit.training.training_attack import pgd
from toolkit.verify import load_networks, verify

EPSILON = 0.05
IMAGES = 24
RECIPE = {
    "name": "acceptance",
    "data": {"name": "digits"},
    "models": {"net": {"architecture": "digits_conv", "channels": [6, 8], "hidden": [16]}},
    "training": {"loss": "pgd", "epochs": 6, "batch": 100, "optimizer": "adam", "learning_rate": 0.01},
    "chains": [
        {"name": "weights", "model": "net", "method": "magnitude", "densities": [0.5]},
        {"name": "channels", "model": "net", "method": "slim", "densities": [0.6]},
    ],
    "specification": {"epsilon": EPSILON, "images": IMAGES},
}


@dataclass(frozen=True)
class Verified:
    """Lower bounds of the smallest margin of each image by method, rising in cost, and what search decided."""

    bounds: dict[str, Tensor]
    verdicts: list[Verdict]


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset(Data(name="digits"))


@pytest.fixture(scope="module")
def models(digits: Dataset) -> list[ChainModel]:
    return list(build_chains(parse_recipe(RECIPE, "acceptance", Path()), digits))


@pytest.fixture(scope="module")
def files(models: list[ChainModel], digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("onnx")
    for model in models:
        export_model(model.module, digits.test.images[:1], folder / f"{model.name}.onnx")
    return {model.name: folder / f"{model.name}.onnx" for model in models}


@pytest.fixture(scope="module")
def verified(models: list[ChainModel], files: dict[str, Path], digits: Dataset) -> dict[str, Verified]:
    return {model.name: bound_all(model.module, files[model.name], digits) for model in models}


def bound_all(network: nn.Module, path: Path, digits: Dataset) -> Verified:
    images, labels = digits.test.images[:IMAGES], digits.test.labels[:IMAGES]
    searched = [search(path, image, int(label)) for image, label in zip(images, labels, strict=True)]
    interval = interval_margins(network, images, labels)
    crown_ibp = crown_ibp_margins(network, images, labels)
    crown, alpha = (torch.tensor([found[i] for found in searched]) for i in (0, 1))
    return Verified({"ibp": interval, "crown-ibp": crown_ibp, "crown": crown, "alpha-crown": alpha},
                    [verdict for _, _, verdict in searched])  # fmt: skip


def search(path: Path, image: Tensor, label: int) -> tuple[float, float, Verdict]:
    """CROWN's bound, alpha-CROWN's and the verdict; bounds are NaN where an attack came first."""
    heard: list[RootBounded] = []

    def listen(event: Event) -> None:
        if isinstance(event, RootBounded):
            heard.append(event)

    query = robustness(linf_box(image.numpy(), EPSILON), label, 10)
    verdict = verify(load_networks({"": path}), query, Settings(timeout=30, device="cpu"), listen).verdict
    bounds = {"crown": float("nan")} | {event.method: event.lower for event in heard}
    return bounds["crown"], max(bounds.values()), verdict


def margins(logits: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """For each shift, rows of coefficients of ``z_other - z_label`` over the logits."""
    count = logits.shape[1]
    for shift in range(1, count):
        rows = torch.zeros_like(logits)
        other = (labels + shift) % count
        rows.scatter_(1, other[:, None], 1.0).scatter_(1, labels[:, None], -1.0)
        yield rows, other


@torch.no_grad()
def interval_margins(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    logits, _ = propagate(network, image_box(images, EPSILON))
    own = logits.lower.gather(1, labels[:, None])[:, 0]
    others = logits.upper.scatter(1, labels[:, None], -torch.inf).amax(1)
    return own - others


def crown_ibp_margins(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    logits, trace = propagate(network, image_box(images, EPSILON))
    found = [-upper_bound(network, rows, trace) for rows, _ in margins(logits.lower, labels)]
    return torch.stack(found).amin(0).detach()


def test_costlier_bounds_are_tighter_on_average(verified: dict[str, Verified]) -> None:
    for name, result in verified.items():
        usable = ~torch.stack(list(result.bounds.values())).isnan().any(0)
        assert int(usable.sum()) >= 5, name
        means = [float(bound[usable].mean()) for bound in result.bounds.values()]
        assert means == sorted(means), (name, means)
        proofs = [int((bound[usable] > 0).sum()) for bound in result.bounds.values()]
        proved = [verdict == Verdict.UNSAT for verdict in result.verdicts]
        assert [*proofs, sum(proved)] == sorted([*proofs, sum(proved)]), (name, proofs)
        assert all(proved[i] for i in (result.bounds["alpha-crown"] > 0).nonzero().flatten().tolist())


def test_crown_is_never_looser_than_intervals_at_the_output(verified: dict[str, Verified]) -> None:
    """Its neurons' bounds are the better of both methods; on these networks that holds for every single image."""
    for name, result in verified.items():
        crown, interval = result.bounds["crown"], result.bounds["ibp"]
        usable = ~crown.isnan()
        assert int(usable.sum()) >= 5, name
        assert bool((crown >= interval - 1e-4)[usable].all()), name
        assert bool((crown > interval + 1e-4)[usable].any()), name


def test_what_is_verified_withstands_every_attack(
    models: list[ChainModel], verified: dict[str, Verified], digits: Dataset
) -> None:
    for model in models:
        proved = torch.tensor([verdict == Verdict.UNSAT for verdict in verified[model.name].verdicts])
        assert proved.any()
        images, labels = digits.test.images[:IMAGES][proved], digits.test.labels[:IMAGES][proved]
        for seed in range(5):
            generator = torch.Generator().manual_seed(seed)
            attacked = pgd(model.module, images, labels, EPSILON * 0.999, generator, steps=40, step_size=0.1)
            assert bool((model.module(attacked).argmax(1) == labels).all())


def test_verdicts_agree_with_attacks_that_succeed(
    models: list[ChainModel], verified: dict[str, Verified], digits: Dataset
) -> None:
    """The converse: images that an attack or a misclassification breaks are never proved."""
    broken = 0
    for model in models:
        images, labels = digits.test.images[:IMAGES], digits.test.labels[:IMAGES]
        attacked = pgd(model.module, images, labels, EPSILON * 0.999, torch.Generator().manual_seed(9), steps=40,
                       step_size=0.1)  # fmt: skip
        wrong = model.module(attacked).argmax(1) != labels
        verdicts = verified[model.name].verdicts
        assert all(verdicts[i] != Verdict.UNSAT for i in wrong.nonzero().flatten().tolist())
        broken += int(wrong.sum())
    assert broken > 0


def test_exported_files_have_the_accuracy_of_the_trained_networks(
    models: list[ChainModel], files: dict[str, Path], digits: Dataset
) -> None:
    for model in models:
        assert measured_accuracy(files[model.name], digits.test) == pytest.approx(accuracy(model.module, digits.test))


def test_pruned_weights_are_zero_in_the_exported_file(models: list[ChainModel], files: dict[str, Path]) -> None:
    pruned = next(model for model in models if model.name == "weights-01")
    kernels = [m.weight for m in pruned.module.modules() if isinstance(m, nn.Conv2d)]
    arrays = [numpy_helper.to_array(tensor) for tensor in onnx.load(files["weights-01"]).graph.initializer]
    exported = sum(int((array != 0).sum()) for array in arrays if array.ndim == 4 and array.shape[2] == 3)
    assert exported == sum(int(kernel.count_nonzero()) for kernel in kernels)
    assert exported == sum(kernel.numel() for kernel in kernels) // 2
