"""Which node of an ONNX file is being run, so that whoever watches its operators can name it.

The tracer of `toolkit.problem` sees operators of torch, which mean nothing to somebody who has a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from toolkit.errors import UnsupportedError

_CURRENT: ContextVar[str] = ContextVar("origin", default="")


def current_origin() -> str:
    """The file, the operator and the node that run now, for messages; empty outside of an imported network."""
    return _CURRENT.get()


@contextmanager
def origin(text: str) -> Iterator[None]:
    """Whatever runs inside comes from the node with this description; so do refusals, and notes on other errors."""
    token = _CURRENT.set(text)
    try:
        yield
    except UnsupportedError as error:
        raise UnsupportedError(f"{text}: {error}") from error
    except Exception as error:
        error.add_note(text)
        raise
    finally:
        _CURRENT.reset(token)
