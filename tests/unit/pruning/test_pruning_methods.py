"""Every pruning method: density, nesting, and what is particular to each."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from toolkit.data.dataset import Dataset, Split
from toolkit.data.load import load_dataset
from toolkit.errors import InputError
from toolkit.models.architecture_options import ConvNet, Mlp
from toolkit.models.build import build_model
from toolkit.models.structure import channel_sites
from toolkit.pruning import learned_scores as hydra
from toolkit.pruning.criteria.channels import NrsChannel, Refill, Slim, UpperBound
from toolkit.pruning.criteria.crown_margin import CrownMargin, certified_part
from toolkit.pruning.criteria.hydra import Hydra, HydraFilter
from toolkit.pruning.criteria.wanda import Wanda, input_norms
from toolkit.pruning.criteria.weights import Magnitude, Random, Sensitivity
from toolkit.pruning.criterion import Structured
from toolkit.pruning.masks import Masks, density, live_channels
from toolkit.pruning.pruning_options import MethodOptions
from toolkit.pruning.round import PruningRound, prune
from toolkit.recipe import Data
from toolkit.training import tensor_files
from toolkit.training.training_job import TrainingJob
from toolkit.training.training_loop import apply_masks, train
from toolkit.training.training_options import Ibp, LossOptions, Pgd, Stability, Standard, Training

METHODS: list[MethodOptions] = [
    Random(),
    Random(layerwise=True),
    Magnitude(layers=("conv", "linear")),
    Sensitivity(name="snip"),
    Sensitivity(name="taylor", batches=2),
    Hydra(epochs=1),
    Slim(),
    Slim(layerwise=True),
    Refill(),
    NrsChannel(),
    UpperBound(),
    HydraFilter(epochs=1),
    Wanda(),
    CrownMargin(),
    CrownMargin(change="size"),
]
NET = ConvNet(blocks=({"channels": 6}, {"channels": 8, "stride": 2}), hidden=(16,))
TRAINING = Training(loss=Standard(), epsilon=0.05, epochs=1, batch=100, optimizer="adam", learning_rate=0.01)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset(Data(name="digits"))


@pytest.fixture(scope="module")
def trained(digits: Dataset) -> nn.Module:
    return train(build_model(NET, digits, 0), TrainingJob(TRAINING, digits.train.first(300)))


@pytest.fixture
def first(digits: Dataset, trained: nn.Module) -> PruningRound:
    job = TrainingJob(TRAINING, digits.train.first(300))
    return PruningRound(copy.deepcopy(trained), {}, 0.6, job, digits.validation, 0)


def _second(first: PruningRound, trained: nn.Module, masks: Masks, target: float) -> PruningRound:
    model = copy.deepcopy(trained)
    apply_masks(model, masks)
    return replace(first, model=model, masks=masks, density=target)


def _entries(options: MethodOptions, model: nn.Module, masks: Masks) -> Masks:
    return live_channels(model, masks) if isinstance(options, Structured) else masks


def test_every_kind_of_options_is_tested() -> None:
    assert {type(options) for options in METHODS} == set(get_args(get_args(MethodOptions)[0]))


@pytest.mark.parametrize("options", METHODS, ids=lambda options: options.name)
def test_density_is_met_and_masks_nest(options: MethodOptions, first: PruningRound, trained: nn.Module) -> None:
    outer = prune(options, first)
    inner = prune(options, _second(first, trained, outer, 0.3))
    assert set(inner) == set(outer)
    for name in outer:
        assert not bool((inner[name] & ~outer[name]).any())
    for masks, target in ((outer, 0.6), (inner, 0.3)):
        entries = _entries(options, trained, masks)
        slack = len(entries) / sum(mask.numel() for mask in entries.values())
        assert target <= density(entries) + 1e-9
        assert density(entries) <= target + slack


@pytest.mark.parametrize("options", METHODS, ids=lambda options: options.name)
def test_methods_are_deterministic(options: MethodOptions, first: PruningRound, trained: nn.Module) -> None:
    again = replace(first, model=copy.deepcopy(trained))
    one, two = prune(options, first), prune(options, again)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_only_convolutions_are_pruned_by_default(first: PruningRound) -> None:
    assert set(prune(Magnitude(), first)) == {"1.weight", "4.weight"}
    assert set(prune(Magnitude(layers=("linear",)), first)) == {"8.weight", "10.weight"}


def test_magnitude_keeps_the_largest_weights(first: PruningRound, trained: nn.Module) -> None:
    masks = prune(Magnitude(), first)
    parameters = dict(trained.named_parameters())
    kept = torch.cat([parameters[name][mask].abs() for name, mask in masks.items()])
    dropped = torch.cat([parameters[name][~mask].abs() for name, mask in masks.items()])
    assert kept.min() >= dropped.max()


def test_sensitivity_is_the_derivative_with_respect_to_the_mask(digits: Dataset) -> None:
    """On all data in one batch the score of a linear layer is |dL/dm|, measured by differences."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double()
    data = Split(digits.train.images[:50].double(), digits.train.labels[:50])
    training = TRAINING.model_copy(update={"batch": 50})
    round_ = PruningRound(model, {}, 0.5, TrainingJob(training, data), data, 0)
    masks = prune(Sensitivity(name="snip", layers=("linear",)), round_)["1.weight"]
    slopes = torch.zeros_like(model[1].weight)
    for index in range(0, slopes.numel(), 7):
        changed = [copy.deepcopy(model) for _ in range(2)]
        for net, factor in zip(changed, (1 + 1e-4, 1 - 1e-4), strict=True):
            net[1].weight.data.view(-1)[index] *= factor
        up, down = (cross_entropy(net(data.images), data.labels).item() for net in changed)
        slopes.view(-1)[index] = abs(up - down) / 2e-4
    measured, kept = slopes.view(-1)[::7], masks.view(-1)[::7]
    assert measured[kept].min() >= measured[~kept].max() - 1e-9


def test_slimming_drops_the_smallest_scales_but_never_a_whole_layer(first: PruningRound) -> None:
    site = channel_sites(first.model)[0]
    norm = dict(first.model.named_modules())[site.batch_norm]
    norm.weight.data = torch.arange(1, 7) * 1e-6
    kept = live_channels(first.model, prune(Slim(), replace(first, density=0.4)))
    assert kept[site.batch_norm].tolist() == [False] * 5 + [True]


def test_channel_methods_leave_a_floor_of_every_layer(first: PruningRound) -> None:
    """The layer with the smaller scores keeps its part, although one threshold is for all layers."""
    sites = channel_sites(first.model)
    modules = dict(first.model.named_modules())
    for number, site in enumerate(sites):
        modules[site.batch_norm].weight.data = torch.linspace(1, 2, site.channels) * 10.0 ** -(6 * number)
    for floor in (0.0, 0.35):
        live = live_channels(first.model, prune(Slim(floor=floor), replace(first, density=0.5)))
        last = live[sites[-1].batch_norm]
        assert int(last.sum()) == max(1, int(floor * len(last)))
        assert bool(last[-1])


def test_refill_makes_whole_channels_live(first: PruningRound) -> None:
    masks = prune(Refill(), first)
    for site in channel_sites(first.model):
        rows = masks[f"{site.layer}.weight"].flatten(1)
        assert torch.equal(rows.all(1), rows.any(1))
        assert torch.equal(rows.all(1), masks[f"{site.batch_norm}.bias"])


def test_pruned_channels_output_zero(first: PruningRound, digits: Dataset) -> None:
    masks = prune(NrsChannel(), first)
    apply_masks(first.model, masks)
    model = first.model.eval()
    values = model[:4](digits.test.images)
    assert bool((values[:, ~masks["2.weight"]] == 0).all())
    assert bool((values[:, masks["2.weight"]] != 0).any())


def test_instability_ranks_wide_channels_last(first: PruningRound) -> None:
    """A channel whose shift puts it far from zero is stable and stays; one centred on zero goes."""
    norm = first.model[5]
    norm.bias.data[:] = 50.0
    norm.bias.data[3] = 0.0
    norm.weight.data[:] = 1.0
    assert not bool(live_channels(first.model, prune(NrsChannel(layerwise=True), first))["5"][3])


def test_channel_scores_need_held_out_images(first: PruningRound) -> None:
    with pytest.raises(InputError, match=r"data\.validation"):
        prune(UpperBound(), replace(first, validation=first.validation.first(0)))


def test_channels_need_batch_normalisation(first: PruningRound, digits: Dataset) -> None:
    with pytest.raises(InputError, match="batch normalisation"):
        prune(Slim(), replace(first, model=build_model(Mlp(), digits, 0)))


def test_hydra_learns_scores_and_leaves_weights_alone(first: PruningRound, trained: nn.Module) -> None:
    learned = prune(Hydra(epochs=3, learning_rate=0.05), first)
    by_size = prune(Magnitude(layerwise=True), replace(first, model=copy.deepcopy(trained)))
    assert any(not torch.equal(learned[name], by_size[name]) for name in learned)
    gates = dict(first.model.named_parameters())
    for name in learned:
        original = gates[name.replace(".weight", ".parametrizations.weight.original")]
        assert torch.equal(original, dict(trained.named_parameters())[name])


class Killed(Exception):  # noqa: N818 - what a signal does, and no error
    pass


@pytest.mark.parametrize("options", [Hydra(epochs=4), HydraFilter(epochs=4)], ids=lambda options: options.name)
def test_learning_that_was_killed_goes_on_with_the_same_result(
    options: MethodOptions, first: PruningRound, trained: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice, each time before an epoch is stored, so that it is done again."""
    training = first.job.training.model_copy(update={"checkpoint_seconds": 0})
    whole = replace(first, job=replace(first.job, training=training))
    expected = prune(options, whole)
    epochs: list[int] = []

    store = tensor_files.save

    def save(record: dict[str, Any], path: Path) -> None:
        epochs.append(record["epoch"])
        if epochs in ([1, 2], [1, 2, 2, 3]):
            raise Killed
        store(record, path)

    monkeypatch.setattr(tensor_files, "save", save)
    for _ in range(2):
        with pytest.raises(Killed):
            prune(options, replace(whole, model=copy.deepcopy(trained), checkpoint=tmp_path / "scores"))
    found = prune(options, replace(whole, model=copy.deepcopy(trained), checkpoint=tmp_path / "scores"))
    assert epochs == [1, 2, 2, 3, 3, 4]
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_filters_that_hydra_keeps_are_those_it_learned_with(first: PruningRound) -> None:
    """Every layer keeps one share of its channels, as the gates do while scores are learned."""
    masks = prune(HydraFilter(epochs=2, learning_rate=0.5), first)
    for name, count in (("2", 4), ("5", 5)):
        assert int(masks[f"{name}.weight"].sum()) == count
    with pytest.raises(ValueError, match="layerwise"):
        HydraFilter(layerwise=False)  # type: ignore[arg-type]


def test_straight_through_gradient_reaches_unchosen_scores_by_their_signs() -> None:
    """The choice is one of magnitudes: what asks for a weight makes its score greater in magnitude."""
    scores = nn.Parameter(torch.tensor([3.0, -2.0, 1.0, -0.5, 0.0]))
    gate = hydra.Gate(scores, torch.ones(5, dtype=torch.bool), 0.4)
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    chosen = gate(weight)
    assert chosen.tolist() == [1, 2, 0, 0, 0]
    chosen.sum().backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == [1, -2, 3, -4, 0]


@pytest.mark.parametrize("seed", range(20))
def test_scores_keep_the_informative_inputs(seed: int) -> None:
    """Four inputs carry the target, four are noise with the greater weights: half of them are to be kept."""
    generator = torch.Generator().manual_seed(seed)
    signs = torch.where(torch.rand(8, generator=generator) < 0.5, -1.0, 1.0)
    weight = torch.cat([0.4 + 0.2 * torch.rand(4, generator=generator), 0.6 + 0.4 * torch.rand(4, generator=generator)])
    weight = weight * signs
    inputs = torch.randn(256, 8, generator=generator)
    target = inputs[:, :4] @ weight[:4]
    scores = nn.Parameter(hydra.initial_scores(weight.unsqueeze(0)).squeeze(0))
    gate = hydra.Gate(scores, torch.ones(8, dtype=torch.bool), 0.5)
    optimizer = torch.optim.Adam([scores], 0.05)
    for _ in range(200):
        optimizer.zero_grad()
        (inputs @ gate(weight) - target).square().mean().backward()
        optimizer.step()
    assert scores.detach().abs().topk(4).indices.sort().values.tolist() == [0, 1, 2, 3]


def test_the_certified_part_is_a_half_where_the_margin_s_bound_is_zero(digits: Dataset) -> None:
    """Of a linear network bounds are exact: the margin loses the radius times the norm of the rows' difference."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).double()
    images = (0.2 + 0.6 * digits.train.images[:50]).double()  # far enough from where balls are cut off
    labels = model(images).argmax(1)
    rows = (model[1].weight[0] - model[1].weight[1]).detach()
    margins = (images.flatten(1) @ rows + model[1].bias[0] - model[1].bias[1]).abs().detach()
    for image, label, margin in zip(images, labels, margins, strict=True):
        radius = min(0.1, float(margin / rows.abs().sum()))
        found = float(certified_part(model, image[None], label[None], radius).detach())
        assert found == pytest.approx(float(margin / (margin + radius * rows.abs().sum())))
        wrong = float(certified_part(model, image[None], 1 - label[None], radius).detach())
        assert wrong == pytest.approx(-found)


def test_a_misclassified_image_has_a_negative_part_whatever_class_has_the_most_room() -> None:
    """Class 2 is the answer; class 1 may become larger within the ball."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 3)).double()
    model[1].weight.data[:, 0] = torch.tensor([0.0, 9.0, 0.0])
    model[1].bias.data[:] = torch.tensor([0.0, -5.0, 1.0])
    found = certified_part(model, torch.tensor([[[[0.5]]]], dtype=torch.float64), torch.tensor([0]), 0.5)
    assert found.tolist() == pytest.approx([-1.0])


def test_without_a_radius_no_margin_is_lost(first: PruningRound) -> None:
    exact = first.job.training.model_copy(update={"epsilon": 0.0})
    with pytest.raises(InputError, match=r"specification\.epsilon.*a radius is needed"):
        prune(CrownMargin(), replace(first, job=replace(first.job, training=exact)))


@pytest.mark.parametrize("change", ["loss", "size"])
def test_the_score_is_what_the_certified_part_of_classes_loses(
    digits: Dataset, trained: nn.Module, change: Literal["loss", "size"]
) -> None:
    """The kept weights are those whose scaling by differences changes the certified part of classes the most."""
    model, data = (
        copy.deepcopy(trained).double().eval(),
        Split(digits.validation.images.double(), digits.validation.labels),
    )
    job = TrainingJob(TRAINING, data)
    options = CrownMargin(layers=("linear",), change=change, steps=1)
    masks = prune(options, PruningRound(copy.deepcopy(model), {}, 0.5, job, data, 0))
    name = "10.weight"
    weight = dict(model.named_parameters())[name].data.view(-1)
    slopes = []
    for index in range(0, len(weight), 7):
        parts, before = [], float(weight[index])
        for factor in (1 + 1e-5, 1 - 1e-5):
            weight[index] = before * factor
            with torch.no_grad():
                part = certified_part(model, data.images, data.labels, 0.05)
                parts.append(torch.zeros(10).double().index_add(0, data.labels, part))
        weight[index] = before
        slope = (parts[0] - parts[1]) / 2e-5
        needed = slope.relu().sum() if change == "loss" else slope.abs().sum()
        slopes.append(needed if needed > 1e-9 else slope.sum())
    measured, kept = torch.tensor(slopes), masks[name].view(-1)[::7]
    assert 0 < int(kept.sum()) < len(kept)
    assert measured[kept].min() >= measured[~kept].max() - 1e-6


def test_signed_losses_add_up_to_nothing_and_cannot_tell_layers_apart(digits: Dataset, trained: nn.Module) -> None:
    """What the record of the criterion says of the last layer: scaling it as a whole changes nothing, for any class."""
    model, data = copy.deepcopy(trained).double().eval(), digits.validation
    last = list(model.children())[-1]
    for label in range(10):
        part = certified_part(model, data.of_class(label).images.double(), data.of_class(label).labels, 0.05)
        gradients = torch.autograd.grad(part.sum(), [last.weight, last.bias])
        losses = [(w * g).detach() for w, g in zip((last.weight, last.bias), gradients, strict=True)]
        size = sum(float(loss.abs().sum()) for loss in losses)
        assert size > 1e-3
        assert abs(sum(float(loss.sum()) for loss in losses)) < 1e-9 * size


def test_margins_are_pruned_in_steps_that_see_what_is_left(first: PruningRound) -> None:
    """Two steps are the masks of one to the density between, and then of one on the network that this left."""
    whole = prune(CrownMargin(steps=2), replace(first, model=copy.deepcopy(first.model), density=0.25))
    once = CrownMargin(steps=1)
    half = prune(once, replace(first, model=copy.deepcopy(first.model), density=0.5))
    model = copy.deepcopy(first.model)
    apply_masks(model, half)
    rest = prune(once, replace(first, model=model, masks=half, density=0.25))
    assert all(torch.equal(whole[name], rest[name]) for name in whole)
    direct = prune(once, replace(first, model=copy.deepcopy(first.model), density=0.25))
    assert any(not torch.equal(whole[name], direct[name]) for name in whole)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_margins_leave_every_layer_and_class_alive_and_right(seed: int) -> None:
    """Four clusters in the plane by a network of two hidden layers, of which a quarter of the weights is kept, without
    training after that."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(400) % 4
    corners = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    data = Split(0.5 + 0.2 * corners[labels] + 0.04 * torch.randn(400, 2, generator=generator), labels)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(2, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 4))
    training = TRAINING.model_copy(update={"epochs": 60, "batch": 40})
    job = TrainingJob(training, data.first(300))
    train(model, job)
    held = Split(data.images[300:], labels[300:])
    masks = prune(CrownMargin(layers=("linear",)), PruningRound(copy.deepcopy(model), {}, 0.25, job, held, seed))
    assert [float(mask.double().mean()) for mask in masks.values()] == pytest.approx([0.25] * 3, abs=0.01)
    assert bool(masks["4.weight"].any(1).all())
    apply_masks(model, masks)
    assert float((model(data.images).argmax(1) == labels).double().mean()) > 0.85


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_norm_is_that_of_what_a_weight_is_multiplied_with(groups: int) -> None:
    """Without an input channel, the weights that read it get nothing."""
    x, layer = torch.rand(3, 4, 5, 5) + 0.1, nn.Conv2d(4, 8, 3, groups=groups)
    for channel in range(4):
        without = x.clone()
        without[:, channel] = 0
        gone = input_norms(without, layer.weight, groups).expand_as(layer.weight) == 0
        before, after = layer(x), layer(without)
        changed = (before - after).abs().amax((0, 2, 3)) > 1e-6
        assert gone.flatten(1).any(1).equal(changed) and int(gone.sum()) == 9 * 8 // groups
    plain = nn.Linear(4, 2)
    assert torch.allclose(input_norms(x[:, :, 0, 0], plain.weight, 1), x[:, :, 0, 0].norm(dim=0).expand(2, 4))


@pytest.mark.parametrize("loss", [Standard(), Pgd(steps=1), Ibp()], ids=lambda loss: loss.name)
def test_wanda_sees_the_images_whatever_the_training(loss: LossOptions, first: PruningRound) -> None:
    """Regularisers by bounds are the last to pass through the layers: their centres of intervals are no inputs."""
    wanted = prune(Wanda(layers=("conv", "linear")), first)
    training = TRAINING.model_copy(update={"loss": loss, "epsilon": 0.1, "regularisers": (Stability(name="nrs"),)})
    found = prune(Wanda(layers=("conv", "linear")), replace(first, job=replace(first.job, training=training)))
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)
