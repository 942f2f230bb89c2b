"""Importing ahead: large libraries on a thread of their own, while the main thread does something without them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import import_module
from threading import Thread

IMPATIENCE = 0.0005
"""Seconds after which a thread gets its turn while another imports; by default it waits ten times as long, after every
call that it makes into a library."""


def import_ahead(modules: Iterable[str]) -> Thread:
    """Start importing; the thread ends when all is there, or with the first that cannot be imported.

    What cannot be imported is not told here: whoever needs it imports it again, and meets the same error.
    """
    missing = [module for module in modules if module not in sys.modules]
    patience = sys.getswitchinterval()

    def load() -> None:
        sys.setswitchinterval(min(patience, IMPATIENCE))
        try:
            for module in missing:
                import_module(module)
        except Exception:
            pass
        finally:
            sys.setswitchinterval(patience)

    thread = Thread(target=load, name="import")
    thread.start()
    return thread
