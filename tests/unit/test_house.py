"""The counts of `benchmarks/perf/house.py`, on small trees of which every figure is known."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
OPERATORS = {"Relu", "Sigmoid", "Tanh", "relu"}


@pytest.fixture(scope="module")
def counts() -> ModuleType:
    return measuring("house_counts")


def measuring(name: str) -> ModuleType:
    """A module of ``benchmarks/perf``, which is no package."""
    folder = str(ROOT / "benchmarks" / "perf")
    sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(folder)


@pytest.fixture
def tree(counts: ModuleType, tmp_path: Path) -> Callable[[dict[str, str]], Any]:
    """Writes files below an empty folder and reads them as the script does."""

    def write(files: dict[str, str]) -> Any:
        for path, text in files.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
        return counts.sources(tmp_path)

    return write


def test_hidden_folders_are_not_read(counts: ModuleType, tree: Callable[..., Any]) -> None:
    files = tree({"toolkit/b.py": "", "toolkit/a/__init__.py": "", ".venv/c.py": "", "toolkit/.cache/d.py": ""})
    assert [(source.path, source.package, source.parts) for source in files] == [
        ("toolkit/a/__init__.py", "a", ("toolkit", "a")),
        ("toolkit/b.py", "", ("toolkit", "b")),
    ]


CODE = '''"""Docstring of a module,
of two lines."""

# a comment
X = 1  # counted
"""Docstring of a variable."""


def f():
    """Docstring of a function."""
    text = """a string
that is no docstring"""
    return (
        text

        # a comment inside
    )
'''


def test_lines_of_code_are_neither_blank_nor_comments_nor_docstrings(
    counts: ModuleType, tree: Callable[..., Any]
) -> None:
    """X, def, the string's two lines, and three of the return."""
    files = tree({"toolkit/a/x.py": CODE, "toolkit/a/y.py": "x = 2\n", "toolkit/z.py": "\n"})
    assert counts.sizes(files) == {
        "(top)": {"files": 1, "code": 0, "lines": 1},
        "a": {"files": 2, "code": 8, "lines": len(CODE.splitlines()) + 1},
    }


def test_attacks_and_processes_are_counted_apart(counts: ModuleType, tree: Callable[..., Any]) -> None:
    paths = ("bounds/crown", "search/root", "search/attack_budget", "search/batch_size", "training/batch_size")
    found = counts.core_sizes(tree({f"toolkit/{path}.py": "x = 1\n" for path in paths}))
    assert found["bounds + search"]["files"] == 2
    assert found["attacks"]["files"] == found["processes and devices"]["files"] == 1
    assert "parallel_search" in found["absent"]
    assert "attack_budget" not in found["absent"]


@pytest.mark.parametrize(
    "value",
    [
        '{"Relu": 1, "Tanh": 2, "Sigmoid": 3}',
        '{"Relu", "Tanh", "Sigmoid", "else"}',
        'frozenset({"Relu", "Tanh", "Sigmoid"})',
        'dict.fromkeys(["Relu", "Tanh", "Sigmoid"], 1)',
        "{aten.relu.default: 1, torch.ops.aten.add.Tensor: 2, aten.view.default: 3}",
        '{"Relu": 1, **{"Tanh": 2, "Sigmoid": 3}}',
        '{"Relu", *("Tanh", "Sigmoid")}',
        '{"Relu"} | {"Tanh", "Sigmoid"}',
    ],
)
def test_tables_of_operators(value: str, counts: ModuleType, tree: Callable[..., Any]) -> None:
    files = tree({"toolkit/a.py": f"TABLE = {value}\nTYPED: object = {value}\ndef f():\n    return {value}\n"})
    assert counts.operator_tables(files, OPERATORS) == ["toolkit/a.py:TABLE", "toolkit/a.py:TYPED"]


@pytest.mark.parametrize(
    "value",
    [
        '{"Relu": 1, "Tanh": 2}',
        '{"Relu": 1, "Tanh": 2, "other": 3}',
        '{1: "Relu", 2: "Tanh", 3: "Sigmoid"}',
        '["Relu", "Tanh", "Sigmoid"]',
        '{"Relu", "Relu", "Tanh"}',
        "{other.relu.default: 1, other.add.Tensor: 2, other.view.default: 3}",
    ],
)
def test_what_is_no_table_of_operators(value: str, counts: ModuleType, tree: Callable[..., Any]) -> None:
    assert counts.operator_tables(tree({"toolkit/a.py": f"TABLE = {value}\n"}), OPERATORS) == []


def test_registries_are_told_apart_by_the_module_that_defines_them(
    counts: ModuleType, tree: Callable[..., Any]
) -> None:
    """Three operators over two files; two operators under the same name from elsewhere; a decorator of other things."""
    files = tree({
        "toolkit/a.py": "@rule('Relu', 'Tanh')\ndef f(): ...\n",
        "toolkit/b.py": "from toolkit.a import rule as law\n@law('Sigmoid')\ndef g(): ...\n",
        "toolkit/c.py": "@rule(aten.add.Tensor, aten.mul.Tensor)\n@kept('x', 'y', 'z')\ndef h(): ...\n",
    })  # fmt: skip
    assert counts.registries(files, OPERATORS) == ["toolkit.a:rule"]


def test_numeric_constants(counts: ModuleType, tree: Callable[..., Any]) -> None:
    text = (
        'A = 1\n"""Measured once."""\nB: float = -2.0**-3\n"""See benchmarks/perf/x.json."""\nC, D = 1, 2.5\n'
        'E = {"cpu": 1 << 20}\n"""Why: unmeasured."""\n_F = 3\n'
        'lower = 1\nFLAG = True\nNAME = "x"\nMIXED = {"a": 1, "b": "c"}\nEMPTY = ()\nCALL = f(1)\n'
    )
    files = tree({
        "toolkit/bounds/a.py": text,
        "toolkit/search/tuning.py": "A = 1\n",
        "toolkit/report/a.py": "A = 1\n",
    })  # fmt: skip
    found = counts.constants(files)
    assert found["all"] == [f"toolkit/bounds/a.py:{name}" for name in ("A", "B", "C", "D", "E", "_F")]
    assert found["measured"] == ["toolkit/bounds/a.py:A", "toolkit/bounds/a.py:B"]


def test_names_that_occur_twice(counts: ModuleType, tree: Callable[..., Any]) -> None:
    files = tree({
        "toolkit/a/x.py": "class One: ...\nclass Two: ...\n",
        "toolkit/b/x.py": "def f():\n    class One: ...\n",
        "toolkit/a/__init__.py": "",
        "toolkit/b/__init__.py": "",
    })  # fmt: skip
    both = ["toolkit/a/x.py", "toolkit/b/x.py"]
    assert counts.repeated_files(files) == {"x.py": both}
    assert counts.repeated_classes(files) == {"One": both}


CIRCLE = {
    "toolkit/__init__.py": "",
    "toolkit/a.py": "from toolkit.b import name\n",
    "toolkit/b.py": "import toolkit.c\n",
    "toolkit/c.py": "if x:\n    from toolkit import a\n",
    "toolkit/d.py": "import toolkit.a\nimport os\n",
}


def test_import_circles(counts: ModuleType, tree: Callable[..., Any]) -> None:
    """d reads the circle and is not in it."""
    assert counts.circles(tree(CIRCLE), False) == [["toolkit.a", "toolkit.b", "toolkit.c"]]


@pytest.mark.parametrize("test", ["TYPE_CHECKING", "typing.TYPE_CHECKING"])
def test_imports_for_type_checkers_make_no_circle(test: str, counts: ModuleType, tree: Callable[..., Any]) -> None:
    files = {**CIRCLE, "toolkit/c.py": f"if {test}:\n    from toolkit import a\nelse:\n    import toolkit.d\n"}
    assert counts.circles(tree(files), False) == [["toolkit.a", "toolkit.b", "toolkit.c", "toolkit.d"]]
    files["toolkit/d.py"] = ""
    assert counts.circles(tree(files), False) == counts.circles(tree(files), True) == []
    assert counts.circles(tree(files), False, types=True) == [["toolkit.a", "toolkit.b", "toolkit.c"]]


def test_imports_in_functions_are_counted_by_themselves(counts: ModuleType, tree: Callable[..., Any]) -> None:
    inside = "import toolkit.d\ndef f():\n    import os\n    from toolkit import a\n"
    files = tree({**CIRCLE, "toolkit/c.py": inside, "toolkit/d.py": ""})
    assert counts.circles(files, False) == []
    assert counts.circles(files, True) == [["toolkit.a", "toolkit.b", "toolkit.c"]]
    assert counts.inner_imports(files) == 1


def test_docstrings_that_lean_on_others_or_say_little(counts: ModuleType, tree: Callable[..., Any]) -> None:
    text = (
        'A = 1\n"""The same for B."""\n'
        'def f():\n    """Too short here."""\n'
        'def _g():\n    """Short."""\n'
        'def h():\n    """Assert what is enough."""\n'
        'class C:\n    """As `A`, but otherwise."""\n    def m(self):\n        """Ditto."""\n'
    )
    found = counts.unclear_docstrings(tree({"toolkit/a.py": text}))
    assert [line.partition(": ")[0] for line in found] == [f"toolkit/a.py:{line}" for line in (2, 4, 10, 12)]


def test_the_longest_function(counts: ModuleType, tree: Callable[..., Any]) -> None:
    files = tree(
        {"toolkit/a.py": "@x\ndef f():\n    return 1\n\n\nclass C:\n    async def g(self):\n\n        return 2\n"}
    )
    assert counts.longest_function(files) == {"lines": 3, "function": "toolkit/a.py:g"}
    assert counts.longest_function([]) == {}


PROGRAM = """
class Thing:
    def outer(self):
        return middle()

def middle():
    return [inner() for _ in range(2)]

def inner():
    class Local:
        one = 1
    def nested():
        return [2, Local.one]
    return sorted(nested(), key=lambda x: x)

def importing(body):
    exec(body)

def unused():
    pass
"""


def test_functions_that_are_entered(tmp_path: Path) -> None:
    """Called between: middle and its list; functions that are only defined, classes, lambdas, nested functions, what
    runs by an import, and other folders do not count."""
    query = measuring("house_query")
    (tmp_path / "package").mkdir()
    path = tmp_path / "package" / "code.py"
    path.write_text(PROGRAM)
    body = compile("def register():\n    return 1\n\nregister()\n", str(path), "exec")
    names: dict[str, Any] = {}
    exec(compile(PROGRAM, str(path), "exec"), names)
    recorder = query.EntryRecorder(tmp_path / "package", "package.code.Thing.outer", "package.code.inner")
    before = sys.getprofile()
    sys.setprofile(recorder)
    try:
        names["Thing"]().outer()
        names["importing"](body)
    finally:
        sys.setprofile(before)
    frames = 3 if sys.version_info < (3, 12) else 2  # since 3.12 a list comprehension has no frame of its own
    assert recorder.report() == {
        "files": 1,
        "functions": 4,
        "frames_to_optimised_bounds": frames,
        "folders": {"package": [1, 4]},
        "paths": {"package/code.py": 4},
    }


def test_the_functions_between_which_frames_are_counted_exist() -> None:
    query = measuring("house_query")
    for name in (query.OUTER, query.INNER):
        module, _, function = name.rpartition(".")
        assert callable(getattr(importlib.import_module(module), function))


def test_the_table_shows_the_figures() -> None:
    """The sources of this checkout, of which a few figures are known from elsewhere."""
    house = measuring("house")
    query = {"files": 12, "functions": 34, "frames_to_optimised_bounds": 5}
    report = {**house.counted(ROOT), "query": query}
    table = dict(house.rows(report))
    assert table["files and functions that one query enters"] == "12 34"
    assert table["import circles, at import"] == table["import circles, with imports in functions"] == "0 []"
    assert int(table["search: files, code, lines"].split()[0]) == len(list((ROOT / "toolkit/search").glob("*.py")))
    tables = {table.rpartition(":")[0].rpartition("/")[0] for table in report["operator_tables"]}
    assert "toolkit/proof" in tables, "the checker shares nothing"
    assert tables <= {"toolkit/ops", "toolkit/proof"}, "operators are known in one place"
    assert not report["core"]["absent"], "modules that are counted apart have other names now"
