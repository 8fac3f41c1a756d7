"""Python's interpreter lock, left to a thread on purpose.

A thread that wants it while the event loop computes gets it after 5 ms, or when the loop has
nothing more to do. So a thread that needs it again and again for short moments hardly gets on. The
loop does better to stand still until what needs the interpreter is done, and to go on beside what
does not: a COMMIT, most of all.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Final

LEAST: Final = 16
"""From so many appends on it pays: two threads are woken for it."""

SECONDS: Final = 0.005
"""How long the loop stands still at most. Then it would have had to take turns anyway."""


class Turn:
    """A thread's turn: it says when it is ``over``, and the loop waits for that."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def over(self) -> None:
        """Let the loop go on. May be called twice."""
        with suppress(RuntimeError):
            self._lock.release()

    def wait(self) -> None:
        """Stand still until the turn is over, but not for long."""
        self._lock.acquire(timeout=SECONDS)
