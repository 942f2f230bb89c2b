"""Mixed precision: half precision in the network's passes, single precision in weights, losses and bounds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from toolkit.data.dataset import Dataset
from toolkit.data.load import load_dataset
from toolkit.models.architecture_options import PresetNet
from toolkit.models.build import build_model
from toolkit.pruning.chain import ChainContext, dense_key
from toolkit.pruning.masks import weight_masks
from toolkit.pruning.round import PruningRound
from toolkit.recipe import Data
from toolkit.training.accuracy import accuracy
from toolkit.training.training_job import TrainingJob
from toolkit.training.training_loop import make_stepper, objective, train
from toolkit.training.training_options import (
    CrownIbp,
    FgsmGradAlign,
    Ibp,
    LossOptions,
    MtlIbp,
    Pgd,
    Precision,
    Sabr,
    Stability,
    Standard,
    Training,
)

HALVES: tuple[Precision, ...] = ("bfloat16", "float16")
NET = PresetNet(architecture="digits_conv", channels=(4, 8), hidden=(12,))


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset(Data(name="digits"))


def loss_and_gradient(digits: Dataset, training: Training) -> tuple[Tensor, Tensor]:
    model = build_model(NET, digits, 0).train()
    images, labels = digits.train.images[:40], digits.train.labels[:40]
    loss = objective(model, training, images, labels, 0.02, torch.Generator().manual_seed(0))
    gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return loss.detach(), torch.cat([g.flatten() for g in gradients if g is not None])


def seen_types(digits: Dataset, training: Training) -> set[torch.dtype]:
    """Element types that the first convolution gives during one evaluation of the loss."""
    model, seen = build_model(NET, digits, 0).train(), set[torch.dtype]()
    conv = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    conv.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    objective(model, training, digits.train.images[:8], digits.train.labels[:8], 0.02, torch.Generator())
    return seen


@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("loss", [Standard(), FgsmGradAlign(), Pgd(steps=1)], ids=lambda loss: loss.name)
def test_passes_of_the_network_are_in_half_precision(digits: Dataset, precision: Precision, loss: LossOptions) -> None:
    training = Training(loss=loss, epsilon=0.02, precision=precision)
    assert seen_types(digits, training) == {getattr(torch, precision)}
    mixed, gradient = loss_and_gradient(digits, training)
    plain, wanted = loss_and_gradient(digits, training.model_copy(update={"precision": "float32"}))
    assert mixed.dtype == gradient.dtype == torch.float32
    assert mixed != plain
    assert float(mixed) == pytest.approx(float(plain), rel=0.01)
    assert nn.functional.cosine_similarity(gradient, wanted, 0) > 0.95


@pytest.mark.parametrize("loss", [Ibp(), CrownIbp()], ids=lambda loss: loss.name)
def test_bounds_stay_in_single_precision(digits: Dataset, loss: LossOptions) -> None:
    training = Training(loss=loss, epsilon=0.03, regularisers=(Stability(name="nrs"),))
    wanted = loss_and_gradient(digits, training)
    found = loss_and_gradient(digits, training.model_copy(update={"precision": "bfloat16"}))
    assert all(torch.equal(first, second) for first, second in zip(found, wanted, strict=True))


@pytest.mark.parametrize("loss", [Sabr(steps=1), MtlIbp(steps=1)], ids=lambda loss: loss.name)
def test_attacks_are_in_half_precision_where_bounds_are_not(digits: Dataset, loss: LossOptions) -> None:
    seen = seen_types(digits, Training(loss=loss, epsilon=0.02, precision="bfloat16"))
    assert seen == {torch.bfloat16, torch.float32}


def test_pruning_scores_are_in_single_precision(digits: Dataset) -> None:
    def score(precision: Precision) -> Tensor:
        job = TrainingJob(Training(loss=Pgd(steps=1), epsilon=0.02, precision=precision), digits.train.first(50))
        model = build_model(NET, digits, 0)
        return next(PruningRound(model, {}, 0.5, job, digits.validation, 0).losses(model, "test"))

    assert torch.equal(score("bfloat16"), score("float32"))


@pytest.mark.parametrize("precision", HALVES)
def test_a_run_in_mixed_precision_learns_and_keeps_masks(digits: Dataset, precision: Precision) -> None:
    training = Training(
        loss=Standard(), epsilon=0.0, epochs=6, batch=50, optimizer="adam", learning_rate=0.01, precision=precision
    )
    model = build_model(NET, digits, 0)
    masks = {
        name: torch.rand(mask.shape, generator=torch.Generator().manual_seed(0)) < 0.7
        for name, mask in weight_masks(model, ("conv",)).items()
    }
    train(model, TrainingJob(training, digits.train), masks)
    assert accuracy(model, digits.test) > 0.8
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.float32
        assert name not in masks or torch.equal(parameter != 0, masks[name])


class _PrecisionRunKilledError(Exception):
    pass


@pytest.mark.parametrize("precision", HALVES)
def test_a_killed_run_in_mixed_precision_goes_on(digits: Dataset, tmp_path: Path, precision: Precision) -> None:
    def killer(done: int, total: int) -> None:
        if done > 2:
            raise _PrecisionRunKilledError

    training = Training(loss=Standard(), epsilon=0.0, epochs=4, precision=precision, checkpoint_seconds=0)
    job = TrainingJob(training, digits.train.first(300))
    whole = train(build_model(NET, digits, 0), job)
    with pytest.raises(_PrecisionRunKilledError):
        train(build_model(NET, digits, 0), job, checkpoint=tmp_path / "run.part", observer=killer)
    resumed = train(build_model(NET, digits, 0), job, checkpoint=tmp_path / "run.part")
    pairs = zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    assert all(torch.equal(first, second) for first, second in pairs)


def test_the_scale_of_float16_is_part_of_a_checkpoint(digits: Dataset) -> None:
    training = Training(precision="float16")
    first, second = (make_stepper(build_model(NET, digits, 0), training) for _ in range(2))
    first.scaler.scale(torch.ones(()))
    first.scaler.update(128.0)
    second.load_state_dict(first.state_dict())
    assert second.scaler.get_scale() == 128
    assert not make_stepper(build_model(NET, digits, 0), Training()).scaler.is_enabled()


def test_states_of_another_precision_are_others(digits: Dataset) -> None:
    names = {dense_key(ChainContext(digits), NET, Training(epsilon=0.1, precision=p)) for p in ("float32", *HALVES)}
    assert len(names) == 3
