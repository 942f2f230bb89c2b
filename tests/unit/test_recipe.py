"""Recipes: what is read, and one line for whatever is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.errors import InputError
from toolkit.models.architecture_options import PresetNet
from toolkit.paper import dense_key, paper_rows
from toolkit.pruning.criteria.channels import Refill, Slim
from toolkit.pruning.criteria.hydra import Hydra
from toolkit.pruning.criteria.weights import Magnitude, Random, Sensitivity
from toolkit.pruning.criterion import Structured
from toolkit.pruning.pruning_options import Chain, MethodOptions
from toolkit.recipe import load_recipe
from toolkit.settings import Settings
from toolkit.training.training_options import CrownIbp, FgsmGradAlign, Ibp, Pgd, Ramp, Stability, Training

ROOT = Path(__file__).parents[2]

TEXT = """
name = "small"
seed = 3
[data]
name = "npz:images.npz"
[models.net]
architecture = "conv"
blocks = [{ channels = 4 }]
[training]
loss = "pgd"
epochs = 4
weight_decay = 1e-3
[[chains]]
name = "one"
model = "net"
method = { name = "slim", compress = false }
rate = 0.5
states = 3
[chains.training]
weight_decay = 0.0
regularisers = [{ name = "nrs", weight = 0.5 }]
[specification]
epsilon = 0.1
[verification]
timeout = 5
"""


def _write(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def test_a_recipe_is_read(tmp_path: Path) -> None:
    recipe = load_recipe(_write(tmp_path, TEXT))
    chain = recipe.chains[0]
    training = recipe.training_of(chain)
    assert recipe.training.loss == Pgd()
    assert chain.method == Slim(compress=False)
    assert chain.targets == (0.5, 0.25)
    assert (training.epochs, training.weight_decay, training.epsilon) == (4, 0.0, 0.1)
    assert training.regularisers == (Stability(name="nrs", weight=0.5),)
    assert recipe.verification.timeout == 5
    assert recipe.data.base == tmp_path


def test_the_digest_depends_on_the_content_alone(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    same = load_recipe(_write(tmp_path / "other", "# a remark\n" + TEXT))
    assert load_recipe(_write(tmp_path, TEXT)).digest == same.digest
    assert load_recipe(_write(tmp_path, TEXT.replace("0.1", "0.2"))).digest != same.digest


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('"npz:images.npz"', "7", "data.name"),
        ('architecture = "conv"', 'architecture = "cnv"', "models.net"),
        ("channels = 4", "channels = 0", "models.net.conv.blocks.0.channels"),
        ('loss = "pgd"', 'loss = "pdg"', "training.loss"),
        ("epochs = 4", "epoch = 4", "training.epoch: no such key; did you mean epochs?"),
        ('model = "net"', 'model = "nets"', "chains.0.model"),
        ('"slim"', '"slimming"', "chains.0.method"),
        ("rate = 0.5", "rate = 1.5", "chains.0.rate"),
        ("states = 3", "", "chains.0"),
        ("states = 3", 'states = 3\none_shot = true\ncontrols = ["stretched"]', "chains.0: controls: networks of one"),
        ("weight = 0.5", "weigth = 0.5", "weigth: no such key; did you mean weight?"),
        ("weight_decay = 0.0", "weight_decay = -1", "weight_decay"),
        ("epsilon = 0.1", "epsilon = nan", "specification.epsilon"),
        ("epsilon = 0.1", "", "specification.epsilon"),
        ("timeout = 5", "timeout = 0", "verification.timeout"),
        ("seed = 3", "seed = ", "line 3"),
        ('name = "small"', 'name = "../small"', "name"),
    ],
)
def test_mistakes_are_one_line_with_file_and_key(tmp_path: Path, old: str, new: str, key: str) -> None:
    assert old in TEXT
    path = _write(tmp_path, TEXT.replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        load_recipe(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert key in message
    assert "\n" not in message


SWEEP = """
[trainings.certified]
loss = "ibp"
epochs = 7
[[sweeps]]
name = "all"
models = ["net"]
methods = ["magnitude", { name = "snip", batches = 2 }]
densities = [0.5]
trained = "certified"
seeds = [7]
"""


def test_a_sweep_is_many_chains(tmp_path: Path) -> None:
    recipe = load_recipe(_write(tmp_path, TEXT + SWEEP))
    assert [chain.name for chain in recipe.all_chains] == ["one", "all-magnitude", "all-snip"]
    training = recipe.training_of(recipe.all_chains[1])
    assert (training.loss, training.epochs, training.weight_decay) == (Ibp(), 7, 1e-3)
    assert recipe.all_seeds == (3, 7)
    assert [chain.name for chain in recipe.with_seed(3).all_chains] == ["one"]
    assert [chain.name for chain in recipe.with_seed(7).all_chains] == ["all-magnitude", "all-snip"]
    assert recipe.only_seed(5).all_seeds == (5,)
    assert len(recipe.only_seed(5).all_chains) == 3


def test_seeds_of_the_recipe_are_for_all_chains(tmp_path: Path) -> None:
    recipe = load_recipe(_write(tmp_path, TEXT.replace("seed = 3", "seeds = [1, 2]")))
    assert recipe.all_seeds == (1, 2)
    assert recipe.with_seed(2).seed == 2


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("seed = 3", "seeds = [1, 1]", "twice"),
        ('model = "net"', 'model = "net"\ntrained = "hard"', "no training 'hard'"),
        ('model = "net"', 'model = "net"\npaper = "IMP"', "no row 'IMP'"),
    ],
)
def test_wrong_names_in_chains(tmp_path: Path, old: str, new: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_recipe(_write(tmp_path, TEXT.replace(old, new, 1)))


def test_a_chain_name_twice_is_an_error(tmp_path: Path) -> None:
    chain = TEXT[TEXT.index("[[chains]]") : TEXT.index("[specification]")]
    with pytest.raises(InputError, match="'one' is used twice"):
        load_recipe(_write(tmp_path, TEXT.replace("[specification]", chain + "[specification]")))


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00", b"name = 'a'\nname = 'b'"])
def test_unreadable_files(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "recipe.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"recipe\.toml"):
        load_recipe(path)
    with pytest.raises(InputError):
        load_recipe(tmp_path)


@pytest.mark.parametrize("path", sorted((ROOT / "specs").glob("*.toml")), ids=lambda path: path.stem)
def test_the_recipes_that_come_along(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert all(recipe.training_of(chain).epsilon is not None for chain in recipe.all_chains)


@pytest.mark.parametrize(
    ("name", "table"),
    [("cifar10_paper", "cifar10-2"), ("svhn_paper", "svhn-2"), ("fashion_paper", "fashion-0.1"),
     ("cifar10_paper_8_255", "cifar10-8")],
)  # fmt: skip
def test_the_papers_recipes_have_every_row_of_its_tables(name: str, table: str) -> None:
    recipe = load_recipe(ROOT / "specs" / f"{name}.toml")
    shown = {key for chain in recipe.all_chains for key in chain.paper}
    shown |= {dense_key(key) for key in shown}
    assert shown == {key for key in paper_rows() if key.startswith(f"{table}/") and "/ctbench/" not in key}
    for chain in recipe.all_chains:
        certified = chain.trained == "certified"
        assert recipe.training_of(chain) == papers_training(chain, table), chain.name
        assert chain.method == papers_method(chain), chain.name
        assert recipe.seeds_of(chain) == ((100, 101, 102, 103, 104) if certified else (100,))
        count, rate = (11, 0.11) if isinstance(chain.method, Structured) else (15, 0.2)
        assert chain.targets == pytest.approx([(1 - rate) ** state for state in range(1, count + 1)])
        assert (chain.rewind, chain.one_shot, chain.model) == ("lt", False, "paper7")
    assert recipe.models["paper7"] == PresetNet(architecture="paper7")
    assert recipe.specification.images == 200
    assert recipe.data.validation == 0
    assert recipe.verification == Settings(
        timeout=300,
        attack_restarts=100,
        attack_steps=100,
        alpha_iterations=100,
        beta_iterations=20,
        batch=512,
        max_domains=200_000,
    )


EPSILON = {"cifar10-2": 2 / 255, "cifar10-8": 8 / 255, "svhn-2": 2 / 255, "fashion-0.1": 0.1}


def papers_training(chain: Chain, table: str) -> Training:
    """Training of a chain of the paper, by the words in its name."""
    wide, certified = table == "cifar10-8", chain.name.startswith("certified")
    stability = {"rs", "nrs"} & set(chain.name.split("-"))
    common = {
        "epsilon": EPSILON[table],
        "measured_epsilon": EPSILON[table],
        "epochs": 300 if wide else 200,
        "batch": 128,
        "milestones": (210, 255) if wide else (140, 170),
        "decay": 0.1,
        "clip": 8.0,
        "ramp": Ramp(start=16, length=121, middle=0.4) if wide else Ramp(start=11, length=81, middle=0.4),
        "augment": True,
    }
    if certified:
        decay = 0.0 if stability or "random" in chain.name else 1e-5
        own = {"loss": CrownIbp(), "optimizer": "adam", "learning_rate": 1e-3, "weight_decay": decay}
        more = {"weight": 0.001, "bounds": "scheduled", "reduction": "channels", "without_batch_norm": "skip"}
    else:
        own = {"loss": FgsmGradAlign(alpha=1.25, weight=0.2), "learning_rate": 0.01, "weight_decay": 5e-4}
        own |= {"optimizer": "sgd", "momentum": 0.9}
        more = {"weight": 0.01, "bounds": "maximum", "reduction": "neurons", "without_batch_norm": "rs"}
    terms = [{"name": name, "detach": "denominator"} | more for name in stability]
    terms += [{"name": "slimming", "weight": 1e-4, "reduction": "sum"}] * chain.name.endswith("slim")
    return Training.model_validate(common | own | {"regularisers": terms})


def papers_method(chain: Chain) -> MethodOptions:
    """Pruning method of a chain of the paper, by the words in its name."""
    kind = chain.name.split("-")[1]
    rate = 0.001 if chain.name.startswith("certified") else 0.01
    return {
        "random": Random(),
        "imp": Magnitude(),
        "snip": Sensitivity(name="snip", batches=1),
        "hydra": Hydra(epochs=20, learning_rate=rate),
        "refill": Refill(rate=0.2, floor=0),
        "slim": Slim(floor=0),
    }[kind]


def test_reading_a_recipe_needs_no_torch() -> None:
    code = (
        "import sys; from toolkit.recipe import load_recipe; import toolkit.pruning; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0
