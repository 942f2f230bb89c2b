"""What the documentation says exists, and what exists is said."""

import re
import runpy
from pathlib import Path

import pytest
import torch

from toolkit.recipe import load_recipe
from toolkit.result import DECIDED

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_reference_is_up_to_date():
    maker = runpy.run_path(str(ROOT / "docs" / "make_reference.py"))
    assert (ROOT / "docs" / "reference.md").read_text() == maker["reference"](), "run: python docs/make_reference.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert not missing


def test_the_recipe_in_the_documentation_is_valid(tmp_path):
    [text] = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "recipes.md").read_text(), re.DOTALL)
    (tmp_path / "recipe.toml").write_text(text)
    assert load_recipe(tmp_path / "recipe.toml").chains[0].name == "conv-magnitude-nrs"


def test_every_choice_is_named():
    """All tags that the reference knows stand on the page for people."""
    page = (ROOT / "docs" / "recipes.md").read_text()
    reference = (ROOT / "docs" / "reference.md").read_text()
    tags = re.findall(r"^\| `(?:name|architecture)` \| (`.+?) \|", reference, re.MULTILINE)
    for tag in re.findall(r"`(\w+)`", " ".join(tags)):
        assert f"`{tag}`" in page, tag


@pytest.mark.parametrize("recipe", sorted((ROOT / "specs").glob("*.toml")), ids=lambda path: path.name)
def test_recipes_are_valid(recipe):
    assert load_recipe(recipe).name


def test_the_examples_of_the_programming_interface_run(tmp_path, monkeypatch, capsys):
    """One after the other, as in one script; only pruning, which needs images of the reader's, stops at its recipe."""
    examples = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "api.md").read_text(), re.DOTALL | re.MULTILINE)
    assert len(examples) == 7
    recipes = []
    monkeypatch.setattr("toolkit.experiment.run_parsed", lambda recipe, _options: recipes.append(recipe) or 0)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names = {"__name__": "__main__"}
    for example in examples:
        exec(compile(example, "docs/api.md", "exec"), names)
    assert names["result"].verdict in DECIDED
    assert [recipe.chains[0].densities for recipe in recipes] == [(0.5, 0.25)]
    assert "one of the recipes that come along: cifar10_methods, " in capsys.readouterr().out
