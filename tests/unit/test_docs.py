"""What the documentation says exists, and what exists is said."""

import importlib
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.cli import COMMANDS
from toolkit.recipe import load_recipe

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_reference_is_up_to_date():
    maker = runpy.run_path(str(ROOT / "docs" / "make_reference.py"))
    assert (ROOT / "docs" / "reference.md").read_text() == maker["reference"](), "run: python docs/make_reference.py"


def test_the_page_of_commands_has_all_of_them_with_their_options():
    """Names alone: how a page is laid out is the library's."""
    made = runpy.run_path(str(ROOT / "docs" / "make_reference.py"))["commands"]()
    page = (ROOT / "docs" / "commands.md").read_text()
    told, known = (re.findall(r"^##+ (prunecert .*)|`(--[\w-]+)", text, re.MULTILINE) for text in (page, made))
    assert told == known, "run: python docs/make_reference.py"
    assert {f"prunecert {name}" for name in COMMANDS} <= {command for command, _ in told}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_stand_in_blocks_that_can_be_run(page):
    """Commands stand in blocks of bash; conftest.py says of which pages they are run."""
    text = page.read_text()
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        if re.search(r"^(\$ )?(prunecert|python|make) ", block, re.MULTILINE) and language != "console":
            assert language == "bash", block
    directives = re.findall(r"^<!-- skip", text, re.MULTILINE)
    reasons = re.findall(r'^<!-- skip: next "\w.+" -->\n\n```bash', text, re.MULTILINE)
    assert len(directives) == len(reasons)


def test_the_site_is_made_without_warnings(tmp_path):
    pytest.importorskip("sphinx")
    pytest.importorskip("myst_parser")
    made = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-c", "docs", ".", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (made.returncode, made.stderr) == (0, "")
    for page in ("docs/tutorial", "docs/commands", "docs/python_reference", "README", "CONTRIBUTING"):
        assert (tmp_path / f"{page}.html").is_file(), page
    assert "certified accuracy" in (tmp_path / "docs/python_reference.html").read_text().lower()


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


# --- names in the pages for developers --------------------------------------------------------------------------------

FOR_DEVELOPERS = [ROOT / "CONTRIBUTING.md", ROOT / "docs" / "architecture.md", ROOT / "docs" / "how_it_works.py"]
IN_THE_CODE = ["toolkit/**/*.py", "tests/**/*.py", "docs/*.py", "pyproject.toml", "Makefile"]
"""Where a plain name must stand."""


def quoted(page: Path) -> list[str]:
    """What stands in backticks, outside of blocks."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", text)


def is_path(name: str) -> bool:
    return re.fullmatch(r"[\w.-]+(/[\w.-]+)*/?", name) is not None and ("/" in name or name.endswith((".py", ".toml")))


def is_dotted(name: str) -> bool:
    return re.fullmatch(r"(toolkit|prunecert)(\.\w+)+", name) is not None


def exists(dotted: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def missing(names: list[str]) -> list[str]:
    """Paths that lead nowhere, dotted names of nothing, and plain names that stand nowhere in the code."""
    code = "\n".join(path.read_text() for pattern in IN_THE_CODE for path in ROOT.glob(pattern))
    words = set(re.findall(r"\w+", code))
    paths = [name for name in names if is_path(name) and not (ROOT / name).exists()]
    dotted = [name for name in names if is_dotted(name) and not exists(name)]
    plain = [name for name in names if re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", name) and not is_path(name)]
    return paths + dotted + [name for name in plain if not is_dotted(name) and name.split(".")[-1] not in words]


@pytest.mark.parametrize("page", FOR_DEVELOPERS, ids=lambda page: page.name)
def test_every_name_for_developers_exists(page):
    names = quoted(page)
    assert any(map(is_path, names))
    assert not missing(names)


def test_names_of_nothing_are_seen():
    wrong = [
        "toolkit/bound.py",
        "toolkit.verify.LoadedQuery.refute",
        "toolkit.bond",
        "toolkit.bounds.crown.bounds.x",
        "Unsaid" + "Word",
    ]
    assert missing(wrong) == wrong
    right = [
        "toolkit/bounds",
        "docs/recipes.md",
        "toolkit.verify.LoadedQuery.refuted",
        "toolkit.bounds",
        "MethodOptions",
        "n u",
    ]
    assert missing(right) == []
