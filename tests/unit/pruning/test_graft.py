"""Linearity grafting: which neurons, what they compute, bounds, export, and the network of a chain."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from toolkit.data.dataset import Dataset
from toolkit.data.load import load_dataset
from toolkit.formats.onnx.export import export_model
from toolkit.formats.vnnlib.specs import linf_box, robustness
from toolkit.models.architecture_options import PresetNet
from toolkit.models.build import build_model
from toolkit.models.layers import GraftedReLU
from toolkit.models.structure import count_relus
from toolkit.pruning import build_chains
from toolkit.pruning.graft import choose, graft, rank
from toolkit.pruning.pruning_options import Graft
from toolkit.recipe import Data, parse_recipe
from toolkit.result import Verdict
from toolkit.settings import Settings
from toolkit.training.differentiable_intervals import image_box, propagate
from toolkit.training.shaping import shape_biases
from toolkit.training.stats import measure_stability
from toolkit.training.training_attack import uniform_start
from toolkit.training.training_options import BiasShaping
from toolkit.verify import load_networks, verify

EPSILON = 0.03


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset(Data(name="digits"))


def test_grafted_neurons_are_affine_and_the_others_relus() -> None:
    layer = GraftedReLU(torch.tensor([[[True, False]], [[False, True]]]), slope=-0.5)
    with torch.no_grad():
        layer.shift.copy_(torch.tensor([1.0, 2.0]))
    x = torch.tensor([[[[-2.0, -3.0]], [[4.0, 6.0]]]])
    assert layer(x).tolist() == [[[[2.0, 0.0]], [[4.0, -1.0]]]]


def test_ties_share_a_rank() -> None:
    assert rank(torch.tensor([3, 1, 3, 2])).tolist() == [1.0, 0.0, 1.0, 0.5]
    assert rank(torch.tensor([2.0, 2.0])).tolist() == [0.0, 0.0]


def test_unstable_and_insignificant_neurons_go_first() -> None:
    instability, significance = torch.tensor([9, 9, 0, 0]), torch.tensor([0.1, 5.0, 0.1, 5.0])
    assert choose(instability, significance, 0.25).tolist() == [True, False, False, False]
    assert int(choose(torch.arange(40), torch.rand(40), 0.6).sum()) == 24


def test_bounds_of_a_grafted_network_contain_samples(digits: Dataset) -> None:
    model = build_model(PresetNet(architecture="digits_conv"), digits, 0).eval()
    new = graft(model, Graft(share=0.5), digits.train.first(200), EPSILON).eval()
    images = digits.test.images[:20]
    assert count_relus(new, (1, 8, 8)) == count_relus(model, (1, 8, 8)) // 2
    for module in new.modules():
        if isinstance(module, GraftedReLU):
            nn.init.normal_(module.slope)
            nn.init.normal_(module.shift)
    bounds, _ = propagate(new, image_box(images, EPSILON))
    for seed in range(10):
        values = new(uniform_start(images, EPSILON, torch.Generator().manual_seed(seed)))
        assert bool(((bounds.lower - 1e-5 <= values) & (values <= bounds.upper + 1e-5)).all())


def test_a_layer_may_be_grafted_as_a_whole(digits: Dataset, tmp_path: Path) -> None:
    model = wholly_grafted(digits)
    images = digits.test.images[:8]
    found = measure_stability(model, images, EPSILON)
    assert [layer.neurons for layer in found.layers] == [count_relus(model, (1, 8, 8)), 0]
    assert found.unstable_ratio == found.layers[0].unstable_ratio > 0
    export_model(model, images[:1], tmp_path / "new.onnx")
    assert all(min(value.dims, default=1) > 0 for value in onnx.load(tmp_path / "new.onnx").graph.initializer)
    query = robustness(linf_box(images[0].numpy(), 0.001), int(model(images[:1]).argmax()), 10)
    result = verify(load_networks({"": tmp_path / "new.onnx"}), query, Settings(timeout=30, device="cpu"))
    assert result.verdict == Verdict.UNSAT
    assert result.statistics.relus == found.layers[0].neurons


def wholly_grafted(digits: Dataset) -> nn.Sequential:
    """A network whose second ReLU is affine in all of its neurons, with slopes and shifts of their own."""
    torch.manual_seed(0)
    affine = GraftedReLU(torch.ones(12, dtype=torch.bool))
    nn.init.normal_(affine.slope)
    nn.init.normal_(affine.shift)
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 12), affine, nn.Linear(12, 10)
    ).eval()  # fmt: skip


def test_biases_before_grafted_units_are_not_shaped(digits: Dataset) -> None:
    model = graft(build_model(PresetNet(architecture="digits_conv"), digits, 0).eval(), Graft(), digits.train, EPSILON)
    assert any(isinstance(module, GraftedReLU) for module in model.modules())
    assert shape_biases(model, BiasShaping(fraction=1.0), digits.test.images[:8], EPSILON, {}) == 0


def test_the_grafted_network_of_a_chain_is_exported_and_verified(digits: Dataset, tmp_path: Path) -> None:
    recipe = {
        "name": "grafts",
        "data": {"name": "digits"},
        "models": {"net": {"architecture": "digits_conv", "channels": [4, 6], "hidden": [12]}},
        "training": {"loss": "pgd", "epochs": 4, "batch": 100, "optimizer": "adam", "learning_rate": 0.01},
        "chains": [{"name": "c", "model": "net", "method": "magnitude", "densities": [0.5],
                    "graft": {"share": 0.4, "epochs": 2}}],
        "specification": {"epsilon": EPSILON},
    }  # fmt: skip
    first, second = (list(build_chains(parse_recipe(recipe, "test", Path()), digits, cache=tmp_path)) for _ in range(2))
    dense, pruned, new = first
    assert [(model.method, model.grafted) for model in first] == [
        ("dense", False), ("magnitude", False), ("magnitude+graft", True),
    ]  # fmt: skip
    assert (new.density, new.retrained) == (pruned.density, False)
    assert new.relus == pruned.relus - round(0.4 * pruned.relus)
    for before, after in zip(pruned.module.modules(), new.module.modules(), strict=False):
        if isinstance(before, nn.Conv2d) and isinstance(after, nn.Conv2d):
            assert bool((after.weight[before.weight == 0] == 0).all())
    assert dense.standard_accuracy > 0.5
    assert new.standard_accuracy > 0.5
    images = digits.test.images[:40]
    assert torch.equal(new.module(images), second[2].module(images))
    export_model(new.module, images[:1], tmp_path / "new.onnx")
    label = int(new.module(images[:1]).argmax())
    query = robustness(linf_box(images[0].numpy(), 0.001), label, 10)
    result = verify(load_networks({"": tmp_path / "new.onnx"}), query, Settings(timeout=30, device="cpu"))
    assert result.verdict == Verdict.UNSAT
    assert result.statistics.relus == new.relus
