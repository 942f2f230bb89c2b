"""Chains: rewinding, nesting, the cache, and what a recipe's networks look like."""

from __future__ import annotations

import copy
import os
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from small_models import relu_net
from torch import nn

from toolkit.data.dataset import Dataset, Split
from toolkit.data.load import load_dataset
from toolkit.errors import InputError
from toolkit.experiments.study_networks import changed_at_random, sorted_by_class, source_stamp
from toolkit.formats.onnx.export import export_model
from toolkit.models.architecture_options import Mlp, OnnxNet, identity
from toolkit.models.build import build_model
from toolkit.models.narrow import narrowed
from toolkit.pruning import ChainModel, build_chains
from toolkit.pruning.chain import (
    ChainContext,
    ChainState,
    Progress,
    chain_job,
    dense_key,
    initial_model,
    prune_chain,
    rewind,
    rewound_job,
)
from toolkit.pruning.controls import chain_with_controls, random_like
from toolkit.pruning.masks import density
from toolkit.pruning.pruning_options import Chain
from toolkit.recipe import Data, Recipe, parse_recipe
from toolkit.training import training_curve
from toolkit.training.schedule import stretched
from toolkit.training.training_job import TrainingJob
from toolkit.training.training_loop import apply_masks, train

CONV = {"architecture": "conv", "blocks": [{"channels": 4, "stride": 2}], "hidden": [8]}
QUICK = {"loss": "standard", "epochs": 2, "batch": 100, "optimizer": "adam", "learning_rate": 0.01}


def _recipe(*chains: dict[str, Any], **changes: Any) -> Recipe:
    named = [{"name": f"c{i}", "model": "net", "densities": [0.6, 0.3]} | chain for i, chain in enumerate(chains)]
    values = {
        "name": "test",
        "data": {"name": "digits"},
        "models": {"net": CONV},
        "training": QUICK | {"milestones": [1], "decay": 0.5},
        "chains": named,
        "specification": {"epsilon": 0.05},
    }
    return parse_recipe(values | changes, "test.toml", Path())


@pytest.fixture(scope="module")
def digits() -> Dataset:
    full = load_dataset(Data(name="digits"))
    return replace(full, train=full.train.first(200))


def _states(digits: Dataset, method: object, cache: Path | None = None, **options: Any) -> list[ChainState]:
    recipe = _recipe({"method": method} | options)
    chain = recipe.chains[0]
    return list(prune_chain(ChainContext(digits, cache=cache), recipe.models["net"], chain, recipe.training_of(chain)))


def _equal(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("method", ["random", "magnitude", "slim"])
def test_masks_nest_and_hold_in_the_trained_networks(digits: Dataset, method: str) -> None:
    states = _states(digits, method)
    assert [state.index for state in states] == [0, 1, 2]
    for outer, inner in pairwise(states[1:]):
        assert all(not bool((inner.masks[name] & ~outer.masks[name]).any()) for name in outer.masks)
    for state in states[1:]:
        for name, parameter in state.model.named_parameters():
            if name in state.masks:
                assert bool((parameter[~state.masks[name]] == 0).all())


def test_reported_densities(digits: Dataset) -> None:
    assert [state.density for state in _states(digits, "magnitude")] == pytest.approx([1, 22 / 36, 11 / 36])
    assert [state.density for state in _states(digits, "slim")] == pytest.approx([1, 0.75, 0.5])


def _rewound(digits: Dataset, variant: str) -> tuple[nn.Module, nn.Module, nn.Module, nn.Module, TrainingJob]:
    recipe = _recipe({"method": "magnitude", "rewind": variant, "rewind_epoch": 1})
    chain, context = recipe.chains[0], ChainContext(digits)
    training = recipe.training_of(chain)
    initial = initial_model(context, recipe.models["net"], training)
    job = TrainingJob(training, digits.train, seed=7)
    dense, current = (train(copy.deepcopy(initial), replace(job, seed=seed)) for seed in (7, 8))
    return rewind(chain, job, initial, dense, current), initial, dense, current, job


def test_rewinding_restores_every_bit(digits: Dataset) -> None:
    restored, initial, _, _, _ = _rewound(digits, "lt")
    assert _equal(restored, initial)
    assert all(a is not b for a, b in zip(restored.parameters(), initial.parameters(), strict=True))
    restored, initial, _, _, job = _rewound(digits, "rewind_lt")
    assert _equal(restored, train(initial, replace(job, epochs=1)))
    restored, _, dense, _, _ = _rewound(digits, "pt")
    assert _equal(restored, dense)
    restored, _, _, current, _ = _rewound(digits, "finetune")
    assert _equal(restored, current)


@pytest.mark.parametrize("ending", [{"keep": "certified"}, {"averaging": {"start": 1, "every": 1}}])
def test_an_epoch_is_rewound_to_whatever_training_ends_with(
    digits: Dataset, ending: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the best epoch before it nor an average of weights is the epoch."""
    monkeypatch.setattr(training_curve, "chosen_accuracy", lambda network, job, record: 1 / record.epoch)
    last, other = (
        _recipe({"method": "magnitude", "rewind": "rewind_lt", "rewind_epoch": 2}, training=QUICK | more)
        for more in ({}, ending)
    )
    initial, [chain] = build_model(last.models["net"], digits, 0), last.chains
    jobs = [chain_job(ChainContext(digits), recipe.training_of(chain)) for recipe in (last, other)]
    restored = [rewind(chain, job, initial, initial, initial) for job in jobs]
    assert _equal(*restored)
    assert not _equal(restored[0], train(copy.deepcopy(initial), replace(jobs[1], epochs=2)))


@pytest.mark.parametrize("method", ["magnitude", "slim"])
def test_survivors_start_from_their_initial_values(digits: Dataset, tmp_path: Path, method: str) -> None:
    """What a round's training starts from, as stored: with its masks, the initial network bit for bit."""
    recipe = _recipe({"method": method, "densities": [0.5]})
    chain, context = recipe.chains[0], ChainContext(digits, cache=tmp_path, progress=_keep_start(tmp_path))
    training = recipe.training_of(chain)
    _, state = prune_chain(context, recipe.models["net"], chain, training)
    initial = initial_model(context, recipe.models["net"], training)
    [record] = [torch.load(path, weights_only=True) for path in tmp_path.glob("*.kept")]
    apply_masks(initial, state.masks)
    trained = dict(state.model.named_parameters())
    for name, wanted in initial.state_dict().items():
        mask = state.masks.get(name, torch.tensor(True))
        assert torch.equal(record["model"][name] * mask, wanted), name
        assert name not in trained or not torch.equal(trained[name], wanted), name


def _keep_start(folder: Path) -> Progress:
    """Keeps what a pruned state starts from, which is removed when the state is done."""

    def observer(name: str, done: int, total: int) -> None:
        for path in folder.glob("*.start"):
            shutil.copyfile(path, path.with_suffix(".kept"))

    return observer


def test_fine_tuning_stays_at_the_end_of_the_schedules(digits: Dataset) -> None:
    recipe = _recipe({"method": "magnitude", "rewind": "finetune"})
    job = TrainingJob(recipe.training_of(recipe.chains[0]), digits.train)
    tuned = rewound_job(job, recipe.chains[0], ChainContext(digits), 1).training
    assert (tuned.learning_rate, tuned.milestones, tuned.ramp) == (0.005, (), None)


def test_training_does_not_touch_the_initial_weights(digits: Dataset) -> None:
    recipe = _recipe({"method": "magnitude"})
    chain, context = recipe.chains[0], ChainContext(digits)
    training = recipe.training_of(chain)
    states = list(prune_chain(context, recipe.models["net"], chain, training))
    initial = initial_model(context, recipe.models["net"], training)
    start = dict(initial.named_parameters())
    assert not _equal(states[0].model, initial)
    retrained = copy.deepcopy(initial)
    train(retrained, rewound_job(TrainingJob(training, digits.train), chain, context, 1), states[1].masks)
    assert _equal(retrained, states[1].model)
    assert all(bool((start[name] != 0).all()) for name in states[1].masks)


def test_one_shot_scores_the_initial_network(digits: Dataset) -> None:
    states = _states(digits, "magnitude", one_shot=True)
    recipe = _recipe({"method": "magnitude"})
    model = initial_model(ChainContext(digits), recipe.models["net"], recipe.training_of(recipe.chains[0]))
    weight = dict(model.named_parameters())["1.weight"].abs()
    for state in states[1:]:
        mask = state.masks["1.weight"]
        assert weight[mask].min() >= weight[~mask].max()


def test_one_shot_random_masks_nest(digits: Dataset) -> None:
    _, first, second = _states(digits, "random", one_shot=True)
    assert not bool((second.masks["1.weight"] & ~first.masks["1.weight"]).any())


class _ChainKilledError(Exception):
    pass


def test_a_killed_chain_goes_on_with_the_same_result(digits: Dataset, tmp_path: Path) -> None:
    recipe = _recipe({"method": "snip"}, {"method": "slim"})
    whole = list(build_chains(recipe, digits))
    told: list[str] = []

    def killer(name: str, done: int, total: int) -> None:
        told.append(name)
        if len(told) == 4:
            raise _ChainKilledError

    with pytest.raises(_ChainKilledError):
        list(build_chains(recipe, digits, progress=killer, cache=tmp_path))
    told.clear()
    resumed = list(build_chains(recipe, digits, progress=lambda name, *_: told.append(name), cache=tmp_path))
    assert "net dense" not in told
    assert [model.name for model in resumed] == [model.name for model in whole]
    assert all(_equal(a.module, b.module) for a, b in zip(resumed, whole, strict=True))
    assert all(a.metadata == b.metadata for a, b in zip(resumed, whole, strict=True))
    told.clear()
    list(build_chains(recipe, digits, progress=lambda name, *_: told.append(name), cache=tmp_path))
    assert told == []
    assert {path.suffix for path in tmp_path.iterdir()} == {".pt"}


def test_a_damaged_cache_file_is_made_again(digits: Dataset, tmp_path: Path) -> None:
    recipe = _recipe({"method": "magnitude", "densities": [0.5]})
    whole = list(build_chains(recipe, digits, cache=tmp_path))
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:100])
    again = list(build_chains(recipe, digits, cache=tmp_path))
    assert all(_equal(a.module, b.module) for a, b in zip(again, whole, strict=True))


def test_networks_of_a_recipe(digits: Dataset) -> None:
    nrs = {"regularisers": [{"name": "nrs", "weight": 0.1}]}
    recipe = _recipe({"method": "magnitude"}, {"method": "slim"}, {"method": "magnitude", "training": nrs})
    models = {model.name: model for model in build_chains(recipe, digits)}
    assert list(models) == [
        "net-dense",
        "c0-01",
        "c0-02",
        "c1-01",
        "c1-02",
        "c2-dense",
        "c2-01",
        "c2-02",
    ]
    dense = models["net-dense"]
    assert (dense.method, dense.chains, dense.density, dense.relus) == ("dense", ("c0", "c1"), 1.0, 4 * 16 + 8)
    assert dense.parameters == 36 + 4 + 8 + 64 * 8 + 8 + 80 + 10
    assert models["c0-02"].parameters == dense.parameters - 25
    assert models["c1-02"].relus == 2 * 16 + 8
    assert models["c1-02"].parameters == 18 + 2 + 4 + 32 * 8 + 8 + 80 + 10
    assert models["c1-02"].metadata["density"] == "0.500000"
    assert all(isinstance(value, str) for model in models.values() for value in model.metadata.values())
    assert all(not model.module.training for model in models.values())
    for model in models.values():
        assert sum(layer.neurons for layer in model.stability.layers) == model.relus
        assert model.stability.epsilon == 0.05
        correct = model.module(digits.test.images).argmax(1) == digits.test.labels
        assert model.standard_accuracy == pytest.approx(correct.float().mean().item())
    _check_attacked(dense, digits)


def test_controls_stand_beside_each_pruned_network(digits: Dataset, tmp_path: Path) -> None:
    recipe = _recipe({"method": "magnitude", "controls": ["retrained", "random_masks", "narrow"]})
    models = {model.name: model for model in build_chains(recipe, digits, cache=tmp_path)}
    kinds = ("", "-retrained", "-random_masks", "-narrow")
    assert list(models) == ["net-dense", *(f"c0-{state}{kind}" for state in ("01", "02") for kind in kinds)]
    for state in ("01", "02"):
        pruned, retrained, random, narrow = (models[f"c0-{state}{kind}"] for kind in kinds)
        assert (retrained.method, retrained.density, retrained.control) == ("retrained", 1.0, "retrained")
        assert random.density == pruned.density < 1
        assert random.parameters == pruned.parameters
        assert not torch.equal(random.module[1].weight != 0, pruned.module[1].weight != 0)
        assert narrow.density == 1.0
        assert abs(narrow.parameters - pruned.parameters) < 0.2 * pruned.parameters
        assert not any(control.retrained for control in (retrained, random, narrow))
    random_conv = [models[f"c0-{state}-random_masks"].module[1].weight != 0 for state in ("01", "02")]
    assert bool((random_conv[1] <= random_conv[0]).all())
    again = list(build_chains(recipe, digits, cache=tmp_path))
    assert all(_equal(model.module, models[model.name].module) for model in again)


def test_chains_of_equal_training_share_their_unpruned_controls(digits: Dataset, tmp_path: Path) -> None:
    """One network in all, as the dense one; with epochs of learning scores, or another rewind, it is another."""
    controls = ["retrained", "stretched"]
    recipe = _recipe(
        {"method": "magnitude", "controls": controls},
        {"method": "snip", "controls": controls, "densities": [0.4]},
        {"method": {"name": "hydra", "epochs": 1}, "controls": controls, "densities": [0.4]},
        {"method": "random", "rewind": "finetune", "controls": ["retrained"], "densities": [0.4]},
        {"method": "random", "densities": [0.4]},
    )
    chains = {model.name: model.chains for model in build_chains(recipe, digits, cache=tmp_path)}
    own = {f"c{chain}-{state}": (f"c{chain}",) for chain, state in ((0, "01"), (0, "02"), (1, "01"), (2, "01"),
                                                                    (3, "01"), (4, "01"))}  # fmt: skip
    first = {f"c0-01-{control}": ("c0", "c1") for control in controls}
    second = {f"c0-02-{control}": ("c0",) for control in controls}
    learned = {f"c2-01-{control}": ("c2",) for control in controls} | {"c3-01-retrained": ("c3",)}
    assert chains == {"net-dense": ("c0", "c1", "c2", "c3", "c4")} | own | first | second | learned


@pytest.mark.parametrize(("method", "learning"), [("magnitude", 0), ({"name": "hydra", "epochs": 2}, 2)])
def test_the_unpruned_control_is_trained_for_as_many_epochs_as_the_chain(
    digits: Dataset, method: Any, learning: int
) -> None:
    recipe = _recipe({"method": method, "rewind": "finetune", "controls": ["retrained"]})
    chain, options = recipe.chains[0], recipe.models["net"]
    context = ChainContext(digits)
    states = list(chain_with_controls(context, options, chain, recipe.training_of(chain)))
    dense, *later = states
    job = TrainingJob(recipe.training_of(chain), digits.train, validation=digits.validation)
    expected = copy.deepcopy(dense.model)
    for index, control in enumerate([state for state in later if state.control], 1):
        alike = rewound_job(job, chain, context, index)
        longer = alike.training.model_copy(update={"epochs": alike.training.epochs + learning})
        expected = train(expected, replace(alike, training=longer))
        assert _equal(control.model, expected)
        assert len(control.curve) == job.training.epochs + learning


@pytest.mark.parametrize("rewind", ["lt", "finetune"])
def test_the_stretched_control_is_one_training_of_as_many_epochs(digits: Dataset, tmp_path: Path, rewind: str) -> None:
    method = {"name": "hydra", "epochs": 2}
    recipe = _recipe({"method": method, "rewind": rewind, "controls": ["stretched"]})
    chain, options = recipe.chains[0], recipe.models["net"]
    training = recipe.training_of(chain)
    context = ChainContext(digits, cache=tmp_path)
    states = list(chain_with_controls(context, options, chain, training))
    controls = [state for state in states if state.control == "stretched"]
    assert len(controls) == len(chain.targets)
    for index, control in enumerate(controls, 1):
        epochs = training.epochs + index * (training.epochs + 2)
        job = replace(chain_job(context, training), training=stretched(training, epochs))
        assert _equal(control.model, train(initial_model(context, options, training), job))
        assert len(control.curve) == epochs
    assert len({state.key for state in states}) == len(states)
    again = chain_with_controls(replace(context, progress=_no_training), options, chain, training)
    assert [state.key for state in again] == [state.key for state in states]
    slower = {"training": {"milestones": [2]}}
    others = recipe.model_copy(update={"chains": (chain.model_copy(update=slower),)})
    changed = others.training_of(others.chains[0])
    later = list(chain_with_controls(context, options, others.chains[0], changed))
    assert not {state.key for state in later} & {state.key for state in states}


def _no_training(name: str, done: int, epochs: int) -> None:
    raise AssertionError(f"{name} is trained")


def test_a_network_from_a_file_has_no_stretched_control(digits: Dataset, tmp_path: Path) -> None:
    export_model(build_model(Mlp(hidden=(4,)), digits, 0), digits.test.images[:1], tmp_path / "net.onnx")
    recipe = _recipe({"method": {"name": "magnitude", "layers": ["linear"]}, "controls": ["stretched"]})
    chain, training = recipe.chains[0], recipe.training_of(recipe.chains[0])
    options = OnnxNet(file=tmp_path / "net.onnx")
    with pytest.raises(InputError, match="has no initial weights; leave out 'stretched'"):
        list(chain_with_controls(ChainContext(digits), options, chain, training))


def test_random_masks_have_the_densities_of_each_layer() -> None:
    wanted = {"a": torch.rand(9, 7) < 0.3, "b": torch.rand(40) < 0.9}
    live = {"a": torch.rand(9, 7) < 0.8}
    masks = random_like(wanted, live, torch.Generator().manual_seed(1))
    for name, mask in masks.items():
        assert mask.sum() == wanted[name].sum()
        assert bool((mask <= live.get(name, torch.ones_like(mask))).all())
    assert not torch.equal(masks["a"], wanted["a"])


def test_a_file_has_no_narrow_version(digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="leave out 'narrow'"):
        narrowed(OnnxNet(file=tmp_path / "net.onnx"), digits, 100)


@pytest.mark.parametrize("options", [CONV, "paper7", {"architecture": "mlp", "hidden": [30, 20]}, "resnet"])
def test_narrow_networks_have_as_many_parameters_as_asked_for(options: Any) -> None:
    images = torch.zeros(1, 3, 32, 32)
    split = Split(images, torch.zeros(1, dtype=torch.long))
    dataset = Dataset("colour", split, split, split, 10, (0.0,) * 3, (1.0,) * 3)
    given = _recipe({"method": "magnitude"}, models={"net": options}).models["net"]
    whole = sum(parameter.numel() for parameter in build_model(given, dataset, 0).parameters())
    for part in (0.6, 0.25):
        found = build_model(narrowed(given, dataset, round(part * whole)), dataset, 0)
        assert sum(parameter.numel() for parameter in found.parameters()) == pytest.approx(part * whole, rel=0.2)


def _check_attacked(model: ChainModel, digits: Dataset) -> None:
    attacked = [model.pgd_accuracy(digits.test, epsilon, steps=5, restarts=1) for epsilon in (0.0, 0.2)]
    assert attacked[0] == model.standard_accuracy
    assert attacked[1] < attacked[0]


def test_weights_of_linear_layers_can_be_pruned(digits: Dataset) -> None:
    state = _states(digits, {"name": "magnitude", "layers": ["linear"]})[1]
    assert set(state.masks) == {"5.weight", "7.weight"}
    assert density(state.masks) == pytest.approx(0.6, abs=0.002)


def test_clashing_names_are_an_input_error(digits: Dataset) -> None:
    recipe = _recipe(
        {"method": "magnitude", "name": "first"},
        {"method": "slim", "name": "other", "training": {"epochs": 1}},
        {"method": "slim", "name": "last", "model": "other"},
        models={"net": CONV, "other": CONV | {"hidden": [9]}},
    )
    with pytest.raises(InputError, match="other-dense"):
        next(iter(build_chains(recipe, digits)))


def test_chain_needs_falling_densities() -> None:
    for densities in ([], [0.3, 0.6], [0.5, 0.5], [1.0]):
        with pytest.raises(ValueError, match="densities"):
            Chain(name="c", model="m", method="magnitude", densities=densities)


def test_states_are_kept_for_the_code_and_the_data_that_made_them(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = _recipe({"method": "magnitude"})
    training, options = recipe.training_of(recipe.chains[0]), recipe.models["net"]

    def key(dataset: Dataset = digits, options: Any = options) -> str:
        return dense_key(ChainContext(dataset), options, training)

    keys = [key()]
    shifted = tuple(value + 0.01 for value in digits.mean)
    tall = replace(digits.train, images=digits.train.images.reshape(len(digits.train), 1, 4, 16))
    for changes in ({"augmentation": "flip"}, {"mean": shifted}, {"std": shifted}, {"classes": 11}, {"train": tall}):
        keys.append(key(replace(digits, **changes)))  # type: ignore[arg-type]
    for name, other in (("code_hash", lambda modules: "x"), ("library_versions", lambda modules: {"torch": "0"})):
        with monkeypatch.context() as patch:
            patch.setattr(f"toolkit.pruning.chain.{name}", other)
            keys.append(key())
    assert key() == keys[0]
    assert len(set(keys)) == len(keys)


def test_a_network_counts_with_the_weights_that_it_keeps_elsewhere(tmp_path: Path) -> None:
    proto = onnx.load(relu_net(tmp_path / "inside.onnx"))
    onnx.save(proto, tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    options = OnnxNet(file=tmp_path / "net.onnx")
    before = identity(options)
    content = bytearray((tmp_path / "net.data").read_bytes())
    content[-1] ^= 1
    (tmp_path / "net.data").write_bytes(content)
    assert identity(options) != before


def test_the_user_s_own_images_count_by_content(tmp_path: Path) -> None:
    (tmp_path / "images" / "train" / "a").mkdir(parents=True)
    file, image = tmp_path / "images.npz", tmp_path / "images" / "train" / "a" / "0.png"
    seen = []
    for content in (b"one", b"two"):
        file.write_bytes(content)
        image.write_bytes(content)
        os.utime(file, ns=(1, 1))
        os.utime(image, ns=(len(seen), len(seen)))
        for data in (Data(name="npz:images.npz", base=tmp_path), Data(name="folder:images", base=tmp_path),
                     Data(name="digits", source="npz:images.npz", base=tmp_path)):  # fmt: skip
            seen.append(source_stamp(data))
    assert seen[0] != seen[3]
    assert seen[1] != seen[4]
    assert seen[2] != seen[5]
    assert source_stamp(Data(name="digits")) == []


@pytest.mark.parametrize(
    ("labels", "wanted", "told"),
    [
        ([0, 0, 0, 1, 1, 1, 2, 2], 6, "the 6 verified images are of 2 of 3 classes"),
        ([0, 0, 0, 1, 1, 1, 2, 2], 8, ""),
        ([0, 1, 0, 1, 0, 1, 2, 2], 6, ""),
        ([0, 1, 2, 0, 1, 2, 0, 1], 2, ""),
    ],
)
def test_verified_images_that_are_sorted_by_class_are_told(labels: list[int], wanted: int, told: str) -> None:
    assert sorted_by_class(labels, wanted).startswith(told)
    assert bool(sorted_by_class(labels, wanted)) == bool(told)


def test_own_images_that_are_changed_at_random_unasked_are_told() -> None:
    for data, augmentation, told in (
        (Data(name="npz:signs.npz"), "crop_flip", True),
        (Data(name="npz:signs.npz", augmentation="crop_flip"), "crop_flip", False),
        (Data(name="npz:grey.npz"), "none", False),
        (Data(name="cifar10"), "crop_flip", False),
    ):
        assert ("--augmentation none" in changed_at_random(data, augmentation)) == told
