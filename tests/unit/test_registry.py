"""Tables that modules fill: one entry under each name, no name twice, and errors that list what there is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from toolkit.errors import InputError
from toolkit.registry import Registry


def test_a_function_is_an_entry_or_makes_one() -> None:
    plain: Registry[str, object] = Registry("thing")
    made: Registry[str, tuple[str, object]] = Registry("thing")

    @plain.register("one", "two")
    @made.register("three", entry=lambda function: (function.__name__, 3))
    def known() -> None: ...

    assert dict(plain) == {"one": known, "two": known}
    assert dict(made) == {"three": ("known", 3)}


def test_no_name_has_two_entries() -> None:
    table: Registry[str, object] = Registry("rule")
    table.register("one")(len)
    with pytest.raises(ValueError, match="one has a rule already"):
        table.register("one")(sum)
    assert table["one"] is len


def test_an_unknown_name_is_answered_with_all_there_are() -> None:
    table: Registry[str, object] = Registry("rule")
    table.register("b", "a")(len)
    assert table.named("a") is len
    with pytest.raises(InputError, match="no rule is called 'c': there are a, b"):
        table.named("c")


def test_a_misspelt_name_is_answered_with_the_one_that_was_meant() -> None:
    table: Registry[str, object] = Registry("rule")
    table.register("chord", "random")(len)
    with pytest.raises(InputError, match=r"there are chord, random; did you mean chord\?"):
        table.named("cord")


def test_modules_of_a_folder_are_imported_once_all_entries_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "shelf_of_entries"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        'from toolkit.registry import Registry\n\nTABLE = Registry("thing", folder="shelf_of_entries")\n'
    )
    for name in ("first", "second"):
        text = f"from shelf_of_entries import TABLE\n\nTABLE.register({name!r})(print)\n"
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    table = __import__("shelf_of_entries").TABLE
    assert not table
    assert set(table.loaded()) == {"first", "second"}
    assert table.loaded() is table
    for name in [name for name in sys.modules if name.startswith("shelf_of_entries")]:
        monkeypatch.delitem(sys.modules, name)
