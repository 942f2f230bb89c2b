"""Which source files and libraries take part in something, found by following the imports from its first module.

No list is kept by hand, so none can be forgotten. Imports are found in the text of the modules, which is ten times
quicker than parsing them; one inside of a function, under a condition or for a type checker counts, too.
"""

from __future__ import annotations

import hashlib
import platform
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]
"""The folder that holds this package."""
PACKAGE = "toolkit"

_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import[ \t]*(\([^)]*\)|[^\n#;]*)|import[ \t]+([\w., \t]+))"
    r"|import_module\([ \t]*[\"']([\w.]+)[\"']",
    re.MULTILINE,
)
_NAME = re.compile(r"[\w.]+(?:[ \t]+as[ \t]+\w+)?")
_FOLDER = re.compile(r"""\bfolder=["']([\w.]+)["']""")
"""A package of which every module is imported: that of a `toolkit.registry.Registry`."""

ALIASES = {"google": "protobuf"}
"""Distribution of a module that is not called like it."""
BEHIND = ("highspy", "ml_dtypes", "torchvision")
"""Libraries that those which are imported compute with, where they are installed."""


@cache
def sources_of(modules: tuple[str, ...]) -> tuple[Path, ...]:
    """The files of this package that run when these modules do, by name."""
    return tuple(sorted(_closure(modules)[0]))


@cache
def libraries_of(modules: tuple[str, ...]) -> tuple[str, ...]:
    """The libraries, by the names that they are imported under, which these modules use; without Python's own."""
    return tuple(sorted(_closure(modules)[1]))


@cache
def code_hash(modules: tuple[str, ...]) -> str:
    """SHA-256 over the source of all files of this package that run when these modules do."""
    digest = hashlib.sha256()
    for path in sources_of(modules):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(ROOT).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


@cache
def library_versions(modules: tuple[str, ...]) -> Mapping[str, str]:
    """Versions of Python and of the libraries that these modules use; ``missing`` for what is not installed."""
    found = {"python": f"{platform.python_implementation()} {platform.python_version()}"}
    names = sorted({*libraries_of(modules), *BEHIND})
    return found | {ALIASES.get(name, name): library_version(name) for name in names}


def library_version(name: str) -> str:
    """The version of the library that is imported under a name."""
    try:
        return version(ALIASES.get(name, name))
    except PackageNotFoundError:
        if find_spec(name) is None:
            return "missing"
    # A distribution of another name, such as onnxruntime-gpu.
    return ", ".join(f"{dist} {version(dist)}" for dist in sorted(set(packages_distributions().get(name, ()))))


def imports_in(source: str) -> Iterator[str]:
    """Dotted names that a module's text imports; of ``from a import b`` both ``a`` and ``a.b``.

    Of a package of which each module is imported, as by the table of `toolkit.bounds.bounder`, it is all of them.
    """
    for package in _FOLDER.findall(source):
        folder = ROOT.joinpath(*package.split("."))
        yield from (f"{package}.{path.stem}" for path in sorted(folder.glob("*.py")) if path.stem != "__init__")
    for origin, members, modules, dynamic in _IMPORT.findall(source):
        if dynamic:
            yield dynamic
        if origin:
            yield origin
            yield from (f"{origin}.{name}" for name in _names(members))
        yield from _names(modules)


def _names(text: str) -> Iterator[str]:
    without_comments = re.sub(r"#[^\n]*", "", text)
    return (match.group().split()[0] for match in _NAME.finditer(without_comments))


def _closure(modules: Iterable[str]) -> tuple[set[Path], set[str]]:
    """Files of this package reached from modules, and the first parts of the names of other modules on the way."""
    files: set[Path] = set()
    libraries: set[str] = set()
    open_names = list(modules)
    while open_names:
        name = open_names.pop()
        if name.split(".")[0] != PACKAGE:
            libraries.add(name.split(".")[0])
            continue
        for path in _files(name):
            if path not in files:
                files.add(path)
                open_names += imports_in(path.read_text(encoding="utf-8"))
    return files, {name for name in libraries if name and name not in sys.stdlib_module_names}


def _files(name: str) -> Iterator[Path]:
    """The file of a module of this package, and those of the packages around it, which run before; none for what is
    no module."""
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        place = ROOT.joinpath(*parts[:count])
        for path in (place.with_suffix(".py"), place / "__init__.py"):
            if path.is_file():
                yield path
