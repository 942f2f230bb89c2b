"""The loop learns, is deterministic, survives a kill with the same result, and keeps masked weights at zero."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from toolkit.data.dataset import Dataset, Split
from toolkit.data.load import load_dataset
from toolkit.errors import InputError
from toolkit.models.architecture_options import Mlp, PresetNet, ResNet
from toolkit.models.build import build_model
from toolkit.models.structure import relu_sites
from toolkit.pruning.masks import weight_masks
from toolkit.recipe import Data
from toolkit.training.accuracy import accuracy, fgsm_accuracy, pgd_accuracy
from toolkit.training.certified_accuracy import certified_accuracy
from toolkit.training.differentiable_intervals import image_box, propagate
from toolkit.training.initialise import ibp_initialise
from toolkit.training.stats import measure_stability
from toolkit.training.training_job import TrainingJob
from toolkit.training.training_loop import batches, objective, run_training, train
from toolkit.training.training_options import (
    Averaging,
    CcIbp,
    FastIbp,
    FgsmGradAlign,
    Ibp,
    LossOptions,
    MtlIbp,
    Pgd,
    Ramp,
    Sabr,
    Standard,
    Training,
)

QUICK = Training(
    loss=Pgd(steps=2, step_size=0.6),
    epsilon=0.05,
    epochs=5,
    batch=100,
    optimizer="adam",
    learning_rate=0.005,
    ramp=Ramp(length=2),
    milestones=(4,),
    checkpoint_seconds=0,
)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset(Data(name="digits"))


@pytest.fixture(scope="module")
def few(digits: Dataset) -> Split:
    return digits.train.first(250)


def _conv(digits: Dataset) -> nn.Module:
    return build_model(PresetNet(architecture="digits_conv", channels=(4, 8)), digits, 0)


def _same(first: nn.Module, second: nn.Module) -> bool:
    return all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize(
    "loss", [MtlIbp(steps=2), CcIbp(steps=2), Sabr(steps=2), FgsmGradAlign(), Ibp()], ids=lambda loss: loss.name
)
def test_a_step_updates_batch_statistics_once_and_by_the_images(loss: LossOptions) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.BatchNorm2d(1), nn.ReLU(), nn.Flatten(), nn.Linear(9, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    images, labels = torch.rand(20, 1, 3, 3), torch.arange(20) % 3
    training = Training(loss=loss, epsilon=0.1, regularisers=(FastIbp(),), clean_share=0.1)
    objective(net.train(), training, images, labels, 0.05, torch.Generator().manual_seed(0))
    assert net[0].running_mean.item() == pytest.approx(0.1 * images.mean().item(), rel=1e-5)
    assert (net[0].momentum, net[4].momentum) == (0.1, 0.1)
    assert not net[0]._forward_hooks


@pytest.mark.parametrize("loss", [Ibp(), Sabr(ratio=1.0, steps=1), Pgd(steps=1)], ids=lambda loss: loss.name)
def test_a_share_of_the_objective_is_the_loss_of_clean_images(loss: LossOptions) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(9, 5), nn.ReLU(), nn.Linear(5, 3))
    images, labels = torch.rand(20, 1, 3, 3), torch.arange(20) % 3

    def found(share: float) -> float:
        training = Training(loss=loss, epsilon=0.1, clean_share=share)
        return objective(net, training, images, labels, 0.1, torch.Generator().manual_seed(0)).item()

    clean = nn.functional.cross_entropy(net(images), labels).item()
    assert found(1.0) == pytest.approx(clean)
    assert found(0.3) == pytest.approx(0.7 * found(0.0) + 0.3 * clean)
    assert found(0.0) > clean


def test_a_tiny_run_learns(digits: Dataset) -> None:
    model = train(build_model(Mlp(hidden=(32,)), digits, 0), TrainingJob(QUICK, digits.train))
    standard, attacked = accuracy(model, digits.test), pgd_accuracy(model, digits.test, 0.05, steps=10, restarts=1)
    assert standard > 0.9
    assert 0.5 < attacked <= standard
    one_step = fgsm_accuracy(model, digits.test, 0.05)
    assert pgd_accuracy(model, digits.test, 0.05, steps=40, restarts=2) <= one_step < standard
    assert fgsm_accuracy(model, digits.test, 0.0) == standard
    assert not model.training


class _TrainingKilledError(Exception):
    pass


def _kill_after(epoch: int) -> object:
    def observer(done: int, total: int) -> None:
        if done > epoch:
            raise _TrainingKilledError

    return observer


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_killed_run_ends_with_the_same_weights(digits: Dataset, few: Split, tmp_path: Path, optimizer: str) -> None:
    job = TrainingJob(QUICK.model_copy(update={"optimizer": optimizer}), few, "crop", seed=3)
    whole = train(_conv(digits), job)
    checkpoint = tmp_path / "run.part"
    with pytest.raises(_TrainingKilledError):
        train(_conv(digits), job, checkpoint=checkpoint, observer=_kill_after(2))
    assert checkpoint.exists()
    epochs: list[int] = []
    resumed = train(_conv(digits), job, checkpoint=checkpoint, observer=lambda done, total: epochs.append(done))
    assert epochs == [3, 4, 5]
    assert _same(whole, resumed)
    assert not checkpoint.exists()


def test_the_best_epoch_is_chosen_on_images_held_out(digits: Dataset, few: Split, tmp_path: Path) -> None:
    """With a rate that grows until training breaks, the best epoch is not the last; a killed run finds the same one."""
    training = QUICK.model_copy(update={"keep": "attacked", "decay": 60.0, "epochs": 8})
    job = TrainingJob(training, few, seed=3, validation=digits.validation)
    seen: dict[int, tuple[float, dict[str, torch.Tensor]]] = {}
    model = _conv(digits)

    def observer(done: int, total: int) -> None:
        found = pgd_accuracy(model, digits.validation, 0.05, steps=10, restarts=1, seed=3)
        seen[done] = found, copy.deepcopy(model.state_dict())

    train(model, job, observer=observer)
    wanted = max((epoch for epoch in seen if epoch >= 2), key=lambda epoch: (seen[epoch][0], epoch))
    assert 2 <= wanted < 8
    assert all(torch.equal(value, seen[wanted][1][name]) for name, value in model.state_dict().items())
    with pytest.raises(_TrainingKilledError):
        train(_conv(digits), job, checkpoint=tmp_path / "run.part", observer=_kill_after(6))
    assert _same(model, train(_conv(digits), job, checkpoint=tmp_path / "run.part"))


def test_the_best_certified_epoch_is_kept(digits: Dataset, few: Split) -> None:
    training = QUICK.model_copy(update={"keep": "certified", "decay": 60.0, "epochs": 8, "measured_epsilon": 0.01})
    found = run_training(_conv(digits), TrainingJob(training, few, seed=3, validation=digits.validation))
    full = [record for record in found.curve if record.epsilon == 0.05]
    assert len(full) == 7
    best = max(full, key=lambda record: (record.certified, record.epoch))
    assert 0.2 < best.certified > found.curve[-1].certified
    held = digits.validation.first(200)
    assert certified_accuracy(found.model, held, 0.01) == best.certified
    assert accuracy(found.model, held) == best.standard


def test_every_epoch_has_a_record(digits: Dataset, few: Split) -> None:
    found = run_training(_conv(digits), TrainingJob(QUICK, few, seed=3, validation=digits.validation))
    assert [record.epoch for record in found.curve] == [1, 2, 3, 4, 5]
    assert [record.learning_rate for record in found.curve] == pytest.approx([0.005] * 4 + [0.0005])
    assert found.curve[0].epsilon < found.curve[1].epsilon == found.curve[4].epsilon == 0.05
    assert found.curve[-1].loss < found.curve[0].loss
    held = digits.validation.first(200)
    assert found.curve[-1].standard == accuracy(found.model, held)
    assert found.curve[-1].certified == certified_accuracy(found.model, held, 0.05)
    unmeasured = run_training(_conv(digits), TrainingJob(QUICK, few, seed=3))
    assert _same(found.model, unmeasured.model)
    assert {(record.standard, record.certified) for record in unmeasured.curve} == {(None, None)}


@pytest.mark.parametrize("decay", [None, 0.4])
def test_the_weights_that_training_ends_with_are_an_average(digits: Dataset, few: Split, decay: float | None) -> None:
    """An epoch has three steps, so that of every third step from epoch 3 on there are the ends of epochs 3, 4 and 5."""
    averaging = Averaging(start=3, every=3, decay=decay)
    job = TrainingJob(QUICK.model_copy(update={"averaging": averaging}), few, seed=3)
    assert job.batches == 3
    model, ends = _conv(digits), {}

    def observer(done: int, total: int) -> None:
        ends[done] = {name: value.detach().clone() for name, value in model.named_parameters()}

    train(model, job, observer=observer)
    share = [1 / 3, 1 / 3, 1 / 3] if decay is None else [decay**2, decay * (1 - decay), 1 - decay]
    for name, value in model.named_parameters():
        expected = sum(part * ends[epoch][name] for part, epoch in zip(share, (3, 4, 5), strict=True))
        assert torch.allclose(value, expected, atol=1e-6)
    plain = train(_conv(digits), TrainingJob(QUICK, few, seed=3))
    assert all(torch.equal(value, ends[5][name]) for name, value in plain.named_parameters())


@pytest.mark.parametrize("update", [{"batch_statistics": "population"}, {"averaging": Averaging(start=5, every=1)}])
def test_batch_statistics_are_those_of_all_training_images(
    digits: Dataset, few: Split, update: dict[str, object]
) -> None:
    training = QUICK.model_copy(update={"batch": 250, "augment": False} | update)
    model = train(_conv(digits), TrainingJob(training, few, seed=3))
    first = model[1](model[0](few.images))
    assert torch.allclose(model[2].running_mean, first.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(model[2].running_var, first.transpose(0, 1).flatten(1).var(1), rtol=1e-4)
    assert not any(module.training for module in model.modules())


def test_a_killed_run_has_the_same_averages_curve_and_choice(digits: Dataset, few: Split, tmp_path: Path) -> None:
    update = {"averaging": Averaging(start=2, every=2), "batch_statistics": "population", "keep": "certified"}
    job = TrainingJob(QUICK.model_copy(update=update), few, "crop", seed=3, validation=digits.validation)
    whole = run_training(_conv(digits), job)
    for epoch in (1, 4):
        checkpoint = tmp_path / f"{epoch}.part"
        with pytest.raises(_TrainingKilledError):
            run_training(_conv(digits), job, checkpoint=checkpoint, observer=_kill_after(epoch))
        resumed = run_training(_conv(digits), job, checkpoint=checkpoint)
        assert _same(whole.model, resumed.model)
        assert whole.curve == resumed.curve


def test_averages_begin_within_the_training() -> None:
    with pytest.raises(ValueError, match="starts in epoch 6 of 5"):
        Training(epochs=5, averaging=Averaging(start=6))


def test_the_best_epoch_needs_images_held_out(digits: Dataset, few: Split) -> None:
    with pytest.raises(InputError, match=r"data\.validation"):
        train(_conv(digits), TrainingJob(QUICK.model_copy(update={"keep": "attacked"}), few, validation=few.first(0)))


def test_a_damaged_checkpoint_is_ignored(digits: Dataset, few: Split, tmp_path: Path) -> None:
    checkpoint = tmp_path / "run.part"
    checkpoint.write_bytes(b"not a checkpoint")
    job = TrainingJob(QUICK.model_copy(update={"epochs": 1}), few)
    assert _same(train(_conv(digits), job, checkpoint=checkpoint), train(_conv(digits), job))


def test_other_seeds_give_other_weights(digits: Dataset, few: Split) -> None:
    training = QUICK.model_copy(update={"epochs": 1})
    first, second = (train(_conv(digits), TrainingJob(training, few, seed=seed)) for seed in (0, 1))
    assert not _same(first, second)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_masked_weights_stay_zero(digits: Dataset, few: Split, optimizer: str) -> None:
    training = QUICK.model_copy(update={"epochs": 1, "optimizer": optimizer, "weight_decay": 0.1})
    model = _conv(digits)
    masks = {
        name: torch.rand(mask.shape, generator=torch.Generator().manual_seed(0)) < 0.3
        for name, mask in weight_masks(model, ("conv", "linear")).items()
    }
    train(model, TrainingJob(training, few), masks)
    for name, parameter in model.named_parameters():
        if name in masks:
            assert torch.equal(parameter != 0, masks[name])


def test_a_shorter_job_follows_the_same_schedule(digits: Dataset, few: Split) -> None:
    snapshots: list[nn.Module] = []
    model = _conv(digits)

    def observer(done: int, total: int) -> None:
        if done == 2:
            snapshots.append(_conv(digits))
            snapshots[0].load_state_dict(model.state_dict())

    train(model, TrainingJob(QUICK, few), observer=observer)
    assert _same(snapshots[0], train(_conv(digits), TrainingJob(QUICK, few, epochs=2)))


def test_batches_cover_the_data_once(digits: Dataset) -> None:
    job = TrainingJob(QUICK.model_copy(update={"batch": 64}), digits.validation)
    sizes = [len(labels) for _, labels in batches(job, torch.Generator().manual_seed(0))]
    assert sum(sizes) == 197
    assert len(sizes) == job.batches == 4
    assert max(sizes) - min(sizes) <= 1


def test_divergence_is_an_input_error(digits: Dataset) -> None:
    training = Training(loss=Standard(), epsilon=0.0, epochs=3, learning_rate=1e18, clip=1e30)
    with pytest.raises(InputError, match=r"training\.learning_rate"):
        train(build_model(Mlp(), digits, 0), TrainingJob(training, digits.train))


def test_ibp_initialisation_scales_with_the_fan_in(digits: Dataset) -> None:
    model = build_model(Mlp(hidden=(500, 400)), digits, 0)
    last = model[-1].weight.clone()
    ibp_initialise(model, 0)
    assert model[4].weight.std().item() == pytest.approx((2 * torch.pi) ** 0.5 / 500, rel=0.02)
    assert torch.equal(model[-1].weight, last)


def test_ibp_initialisation_halves_the_weights_that_read_a_residual_sum(digits: Dataset) -> None:
    model = build_model(ResNet(depth=8, width=16), digits, 0)
    ibp_initialise(model, 0)
    unit = {
        name: module.weight.std().item() * module.weight[0].numel() / (2 * torch.pi) ** 0.5
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
    }
    first, second = [name for name, _ in model.named_children() if name in {"4", "6"}]
    halved = {f"{second}.main.0", f"{second}.shortcut.0", "8.main.0", "8.shortcut.0"}
    assert first == "4"
    for name, value in unit.items():
        assert value == pytest.approx(0.5 if name in halved else 1.0, rel=0.1), name


def test_stability_statistics(digits: Dataset) -> None:
    model = _conv(digits).eval()
    small, large = (measure_stability(model, digits.test.images, epsilon) for epsilon in (0.0, 0.1))
    assert [layer.neurons for layer in large.layers] == [4 * 16, 8 * 4, 32]
    assert small.unstable_ratio == 0
    assert 0 < large.unstable_ratio < 1
    assert small.mean("width") == pytest.approx(0, abs=1e-6)
    assert large.instability > small.instability


def test_sensitivity_is_the_deviation_of_centres_over_images(digits: Dataset) -> None:
    model, images = _conv(digits).eval(), digits.test.images[:300]
    _, trace = propagate(model, image_box(images, 0.1))
    wanted = [trace[site.relu].centre.flatten(1).std(0, unbiased=False).mean().item() for site in relu_sites(model)]
    found = [layer.sensitivity for layer in measure_stability(model, images, 0.1).layers]
    assert found == pytest.approx(wanted, rel=1e-3)
