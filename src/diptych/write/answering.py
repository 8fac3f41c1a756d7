"""Answers on their way to those who wait for them."""

from __future__ import annotations

import asyncio
from collections import deque

from diptych.log import WorksBy
from diptych.write.entry import Entry, Receipt
from diptych.write.measures import Measures

ROUNDS = 3
"""Rounds of the event loop until what those who were answered ask for is on its way."""

ANSWERS_AT_ONCE = 96
"""How many commands of a batch are answered before those ask again, by a log in a process."""

FEWEST, MOST = 16, 256
"""The same for one in a thread, where it is half of all that are open."""


class Answering:
    """Answers commands; ``open`` is how many were accepted and have no answer yet.

    Where the log works beside the event loop, a batch is answered in parts: the log can begin with
    what the first ones ask for next, while the others are answered here.
    """

    def __init__(self, measures: Measures, works_by: WorksBy | None) -> None:
        self.open = 0
        self._measures = measures
        self._waiting: deque[tuple[Entry, Receipt | BaseException]] = deque()
        self._begun = False
        self._works_by = works_by

    @property
    def busy(self) -> bool:
        """Whether answers are still to be given."""
        return bool(self._waiting)

    def give(self, entry: Entry, result: Receipt | BaseException) -> None:
        """Answer one command."""
        self.open -= 1
        self._measures.answered(entry, result)
        if entry.answer.done():
            return  # the caller was cancelled; what was decided stands
        if isinstance(result, Receipt):
            entry.answer.set_result(result)
        else:
            entry.answer.set_exception(result)

    def add(self, entry: Entry, result: Receipt | BaseException) -> None:
        """Answer one command with the others of its batch: see `deliver`."""
        self._waiting.append((entry, result))

    def deliver(self, *, behind: bool) -> None:
        """Answer what was added; ``behind``: after a batch that is about to be sent.

        What those who are answered do next would keep a log in another process waiting.
        """
        if self._works_by is None:
            self._give(len(self._waiting))
        elif self._waiting and not self._begun:
            self._begun = True
            self._later(ROUNDS if behind and self._works_by == "process" else 0)

    def _later(self, rounds: int) -> None:
        if rounds:
            asyncio.get_running_loop().call_soon(self._later, rounds - 1)
            return
        by_process = self._works_by == "process"
        self._give(ANSWERS_AT_ONCE if by_process else min(max(FEWEST, self.open // 2), MOST))
        self._begun = bool(self._waiting)
        if self._begun:
            self._later(ROUNDS)

    def _give(self, count: int) -> None:
        waiting = self._waiting
        for _ in range(min(len(waiting), count)):
            self.give(*waiting.popleft())
