"""Counts over the sources of a tree, by their syntax trees alone: what `house.py` prints.

Sizes, tables of operators, numeric constants, names that occur twice, import circles, docstrings that lean on others.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeGuard

CORE = ("bounds", "search")
"""Packages of bounding and branching, counted together, without the modules of `APART`."""
APART = {
    "attacks": ("attack_budget",),
    "processes and devices": ("parallel_search", "batch_size"),
}
"""Modules of `CORE` that are counted apart, by their file names."""
WITH_CONSTANTS = ("bounds", "search", "problem", "run", "attack", "ops", "backends")
"""Packages whose numeric constants are listed."""
TUNING = "tuning"
"""Module that numeric constants belong in; those of a module of this name are not listed."""
ENTRIES = 3
"""Fewest operators that make a collection a table of operators."""
WORDS = 4
"""Fewest words of a public function's docstring that may say enough."""
LEANING = re.compile(r"(The same|As|Likewise|Ditto)\b")
"""How docstrings begin that another text is needed for."""
MEASURED = re.compile(r"benchmarks/perf|\bmeasured\b", re.IGNORECASE)
"""What a constant's docstring says where it names a measurement."""
ELEMENT_TYPES = frozenset({"float16", "bfloat16", "float32", "float64"})
"""Names of relaxations of rounding that mean a type of number in most tables."""
SILENT_TOKENS = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class PythonFile:
    """One Python file of a tree."""

    path: str
    """Relative to the tree's root, with slashes."""
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree."""
        return ast.parse(self.text)

    @property
    def parts(self) -> tuple[str, ...]:
        """Dotted name, split: of a package's ``__init__.py``, the package's."""
        parts = Path(self.path).with_suffix("").parts
        return parts[:-1] if parts[-1] == "__init__" else parts

    @property
    def package(self) -> str:
        """Folder directly below the first one of the path; empty for a file there."""
        folders = Path(self.path).parts[1:-1]
        return folders[0] if folders else ""


def sources(root: Path) -> list[PythonFile]:
    """All Python files below a folder, sorted by path, without those in hidden folders."""
    paths = [path.relative_to(root) for path in root.rglob("*.py")]
    shown = sorted(path for path in paths if not any(part.startswith(".") for part in path.parts))
    return [PythonFile(path.as_posix(), (root / path).read_text(encoding="utf-8")) for path in shown]


def is_text(node: ast.AST | None) -> TypeGuard[ast.Expr]:
    """Whether a statement is a string alone: a docstring of what it stands in, or after."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def code_lines(source: PythonFile) -> int:
    """Lines with code: not blank, no comment alone, no docstring."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type not in SILENT_TOKENS:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(source.tree):
        if is_text(node):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def size(files: Collection[PythonFile]) -> dict[str, int]:
    """Number of files, their lines of code, and all their lines."""
    every = sum(len(source.text.splitlines()) for source in files)
    return {"files": len(files), "code": sum(map(code_lines, files)), "lines": every}


def sizes(files: Sequence[PythonFile]) -> dict[str, dict[str, int]]:
    """Sizes of all packages."""
    packages: dict[str, list[PythonFile]] = defaultdict(list)
    for source in files:
        packages[source.package or "(top)"].append(source)
    return {name: size(packages[name]) for name in sorted(packages)}


def core_sizes(files: Sequence[PythonFile]) -> dict[str, Any]:
    """Sizes of `CORE` and of its modules that are counted apart; names there that no module has."""
    core = [source for source in files if source.package in CORE]
    kind = {name: kind for kind, names in APART.items() for name in names}
    groups = {title: [s for s in core if kind.get(s.parts[-1]) == title] for title in APART}
    rest = [source for source in core if source.parts[-1] not in kind]
    absent = sorted(set(kind) - {source.parts[-1] for source in core})
    return {" + ".join(CORE): size(rest), **{title: size(group) for title, group in groups.items()}, "absent": absent}


def operator_of(node: ast.AST | None, names: Collection[str]) -> str:
    """The operator that an expression names, as a string or as an attribute of ``aten``; empty where it names none."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value if node.value in names else ""
    text = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
    return text if re.match(r"(torch\.ops\.)?aten\.", text) else ""


def keys(node: ast.AST | None) -> Iterator[ast.AST]:
    """Keys or elements of a literal collection, of those unpacked into it, of unions, and of ``dict.fromkeys`` and the
    like."""
    if isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            yield from keys(value) if key is None else [key]
    elif isinstance(node, (ast.Set, ast.List, ast.Tuple)):
        for element in node.elts:
            yield from keys(element.value) if isinstance(element, ast.Starred) else [element]
    elif isinstance(node, ast.BinOp):
        yield from keys(node.left)
        yield from keys(node.right)
    elif isinstance(node, ast.Call) and ast.unparse(node.func) in {"dict.fromkeys", "frozenset", "set", "dict"}:
        yield from keys(node.args[0] if node.args else None)


def assignments(source: PythonFile) -> Iterator[tuple[ast.expr, ast.expr, str]]:
    """Target, value and docstring of the assignments of a module."""
    for node, after in pairwise([*source.tree.body, None]):
        text = ast.literal_eval(after.value) if is_text(after) else ""
        if isinstance(node, ast.Assign):
            yield node.targets[0], node.value, text
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            yield node.target, node.value, text


def operator_tables(files: Iterable[PythonFile], names: Collection[str]) -> list[str]:
    """Module-level collections of at least `ENTRIES` operators, as ``path:name``."""
    found = []
    for source in files:
        for target, value, _ in assignments(source):
            known = {operator_of(key, names) for key in keys(value)} - {""}
            if len(known) >= ENTRIES and not isinstance(value, (ast.List, ast.Tuple)):
                found.append(f"{source.path}:{ast.unparse(target)}")
    return found


def registries(files: Iterable[PythonFile], names: Collection[str]) -> list[str]:
    """Decorators that register functions for at least `ENTRIES` operators over the tree, as ``module:name``."""
    registered: dict[str, set[str]] = defaultdict(set)
    for source in files:
        for node in ast.walk(source.tree):
            for decorator in node.decorator_list if isinstance(node, Function) else []:
                if isinstance(decorator, ast.Call):
                    known = {operator_of(argument, names) for argument in decorator.args} - {""}
                    registered[definition(source, ast.unparse(decorator.func))] |= known
    return sorted(name for name, operators in registered.items() if len(operators) >= ENTRIES)


def definition(source: PythonFile, name: str) -> str:
    """Where a name of a module is from, as ``module:name``: what it is imported from, or the module itself."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return f"{node.module}:{alias.name}"
    return f"{'.'.join(source.parts)}:{name}"


def is_number(node: ast.AST) -> bool:
    """Whether an expression is made of numbers: literals, their sums and powers, and tuples and dicts of them."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, (int, float)) and not isinstance(node.value, bool)
    if isinstance(node, ast.UnaryOp):
        return is_number(node.operand)
    if isinstance(node, ast.BinOp):
        return is_number(node.left) and is_number(node.right)
    parts = node.values if isinstance(node, ast.Dict) else node.elts if isinstance(node, ast.Tuple) else []
    return bool(parts) and all(map(is_number, parts))


def constants(files: Iterable[PythonFile]) -> dict[str, list[str]]:
    """Numeric constants outside the tuning table, as ``path:name``, and those whose docstrings name a measurement."""
    found: dict[str, list[str]] = {"all": [], "measured": []}
    for source in files:
        if source.package not in WITH_CONSTANTS or source.parts[-1] == TUNING:
            continue
        for target, value, text in assignments(source):
            names = [node.id for node in ast.walk(target) if isinstance(node, ast.Name) and node.id.isupper()]
            places = [f"{source.path}:{name}" for name in names if is_number(value)]
            found["all"] += places
            found["measured"] += places if MEASURED.search(text) else []
    return found


def repeated(places: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Names that occur at two or more places, with these, of pairs (name, place)."""
    where: dict[str, list[str]] = defaultdict(list)
    for name, place in places:
        where[name].append(place)
    return {name: where[name] for name in sorted(where) if len(where[name]) > 1}


def repeated_files(files: Iterable[PythonFile]) -> dict[str, list[str]]:
    """File names that occur twice or more, with their paths."""
    return repeated((Path(s.path).name, s.path) for s in files if Path(s.path).name != "__init__.py")


def repeated_classes(files: Iterable[PythonFile]) -> dict[str, list[str]]:
    """Class names that occur twice or more, with the paths of their files."""
    return repeated((n.name, s.path) for s in files for n in ast.walk(s.tree) if isinstance(n, ast.ClassDef))


def imports(node: ast.AST, inside: bool, types: bool = False) -> Iterator[ast.Import | ast.ImportFrom]:
    """Import statements that run when a module is imported or, ``inside`` functions, only when one of these runs.

    With ``types``, those for type checkers alone, too.
    """
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child
        elif isinstance(child, Function):
            yield from (n for n in ast.walk(child) if inside and isinstance(n, (ast.Import, ast.ImportFrom)))
        elif isinstance(child, ast.If) and ast.unparse(child.test).split(".")[-1] == "TYPE_CHECKING":
            yield from imports(ast.Module([*child.body, *child.orelse] if types else child.orelse, []), inside, types)
        else:
            yield from imports(child, inside, types)


def modules_of(statement: ast.Import | ast.ImportFrom, known: Collection[str]) -> set[str]:
    """Modules among the known ones that an absolute import names; packages on the way to them are not counted."""
    if isinstance(statement, ast.Import):
        return {alias.name for alias in statement.names} & set(known)
    within = {f"{statement.module}.{alias.name}" for alias in statement.names}
    own = {statement.module or ""} if within - set(known) else set()
    return (within | own) & set(known)


def circles(files: Sequence[PythonFile], inside: bool, types: bool = False) -> list[list[str]]:
    """Sets of modules each of which imports all others in the end; with imports ``inside`` functions, or without, and
    with those for type checkers alone, or without."""
    trees = {".".join(source.parts): source.tree for source in files}
    graph = {name: {other for one in imports(tree, inside, types) for other in modules_of(one, trees)}
             for name, tree in trees.items()}  # fmt: skip
    reached = {name: reachable(graph, name) for name in graph}
    found = {tuple(sorted(b for b in reached[a] if a in reached[b])) for a in graph if a in reached[a]}
    return [list(circle) for circle in sorted(found)]


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    """Nodes at the ends of paths of at least one edge."""
    found: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += graph[node]
    return found


def inner_imports(files: Sequence[PythonFile]) -> int:
    """Import statements inside functions that name modules of the tree."""
    known = {".".join(source.parts) for source in files}
    both = [[sum(bool(modules_of(one, known)) for one in imports(source.tree, inside)) for inside in (True, False)]
            for source in files]  # fmt: skip
    return sum(every - outer for every, outer in both)


def unclear_docstrings(files: Iterable[PythonFile]) -> list[str]:
    """Docstrings, of variables too, that lean on another text or say little of a public function, as ``path:line``."""
    found = []
    for source in files:
        short = {node.body[0] for node in ast.walk(source.tree)
                 if isinstance(node, Function) and not node.name.startswith("_")}  # fmt: skip
        for node in filter(is_text, ast.walk(source.tree)):
            text = ast.literal_eval(node.value).strip()
            if LEANING.match(text) or (node in short and len(text.split()) < WORDS):
                found.append((source.path, node.lineno, text.partition("\n")[0]))
    return [f"{path}:{line}: {beginning}" for path, line, beginning in sorted(found)]


def longest_function(files: Iterable[PythonFile]) -> dict[str, Any]:
    """The function of most lines, from its ``def`` on, docstring included."""
    spans = [(node.end_lineno - node.lineno + 1, f"{source.path}:{node.name}") for source in files
             for node in ast.walk(source.tree) if isinstance(node, Function) and node.end_lineno]  # fmt: skip
    return dict(zip(("lines", "function"), max(spans), strict=True)) if spans else {}
