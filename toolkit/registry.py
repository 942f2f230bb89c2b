"""Tables that modules fill themselves: a decorator puts what it stands above into one, under one name or several.

A table with a folder imports every module of that package once it is asked for all of them, so that a module there
which registers something needs to be named nowhere else.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any, TypeVar

from toolkit.errors import InputError, did_you_mean

K = TypeVar("K")
"""Names of one table."""
V = TypeVar("V")
"""Entries of one table."""
F = TypeVar("F", bound=Callable[..., Any])
"""The function that a decorator stands above."""


class Registry(dict[K, V]):
    """Entries by name."""

    def __init__(self, kind: str, *, folder: str = "") -> None:
        """``kind`` is what an entry is, in the singular, for errors; ``folder`` the package whose modules have all.

        It is named in the call, where `toolkit.sources` finds it: these modules take part in what uses the table.
        """
        super().__init__()
        self.kind, self.folder = kind, folder
        self._complete = False

    def register(self, *names: K, entry: Callable[[Any], V] | None = None) -> Callable[[F], F]:
        """Decorate a function that is an entry, or of which ``entry`` makes one. Raises ValueError for a name that is
        taken."""

        def put(function: F) -> F:
            for name in names:
                if name in self:
                    raise ValueError(f"{name} has a {self.kind} already")
                self[name] = function if entry is None else entry(function)  # type: ignore[assignment]
            return function

        return put

    def loaded(self) -> Registry[K, V]:
        """The table with the entries of all modules of its folder."""
        if not self._complete:
            self._complete = True
            package = importlib.import_module(self.folder)
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{self.folder}.{module.name}")
        return self

    def named(self, name: K) -> V:
        """The entry of this name. Raises InputError that lists all names where there is none."""
        if name not in self:
            known = sorted(map(str, self))
            raise InputError(
                f"no {self.kind} is called {name!r}: there are {', '.join(known)}{did_you_mean(str(name), known)}"
            )
        return self[name]
