"""What can go wrong, told so that a person can act on it.

Every error a user can cause is a :class:`ToolkitError` whose message is one line: what is wrong, where (file, line or
node) and what to do. Command lines print it on stderr and exit with code 2; a verdict is never made from one.
"""

from __future__ import annotations


class ToolkitError(Exception):
    """Base of every error that a user can act on."""


class InputError(ToolkitError):
    """A file, an option or a recipe is missing, malformed or inconsistent."""


class UnsupportedError(ToolkitError):
    """The input is legal, but uses something this toolkit cannot handle (an operator, a theory, a type)."""
