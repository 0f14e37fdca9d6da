"""The real exception behind a failed handshake.

OpenSSL calls our signing and checking code in the middle of a handshake and understands only yes and no.
What was raised there is kept here, per thread, and raised again once OpenSSL has sent its alert and the
``ssl`` module has raised an ``SSLError`` that says far less.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Slot(threading.local):
    error: BaseException | None = None


_slot = _Slot()


def keep(error: BaseException) -> None:
    """Remember *error* for this thread. The first one wins: later ones are its consequences."""
    if _slot.error is None:
        _slot.error = error


def last_error() -> BaseException | None:
    """Take what a callback raised in this thread since the last call, or None."""
    error, _slot.error = _slot.error, None
    return error


@contextmanager
def surfacing() -> Iterator[None]:
    """Wrap a handshake: what a callback raised inside it comes out, with the SSLError as its context.

    It comes out even if the handshake went on regardless, so a refused peer is never talked to.
    """
    last_error()
    try:
        yield
    except Exception as outer:
        error = last_error()
        if error is None or error is outer:
            raise
        raise error from outer
    error = last_error()
    if error is not None:
        raise error
