"""Batches on their way to the log, one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from diptych.log import Append, Log, Outcome, Told, beginner_of


class Sending:
    """Sends batches to a log. ``busy`` from `begin` until `end`.

    A log with a method ``begin_append`` is asked so, and tells of a command that is alone in the
    same round of the event loop. (For larger batches it is measurably better to let one pass.)
    """

    def __init__(self, log: Log) -> None:
        self.busy = False
        self._log = log
        self._begin = beginner_of(log)
        self._ended: list[asyncio.Future[None]] = []

    def begin(self, batch: Sequence[Append], done: Told) -> None:
        """Send a batch; ``done`` is called later, once, with what came of it."""
        self.busy = True
        if self._begin is not None:
            try:
                self._begin(batch, done if len(batch) == 1 else _later(done))
            except Exception as error:
                _later(done)(None, error)
            return
        sent = asyncio.ensure_future(self._log.append(batch))

        def tell(sent: asyncio.Future[list[Outcome]]) -> None:
            error = asyncio.CancelledError() if sent.cancelled() else sent.exception()
            done(sent.result() if error is None else None, error)

        sent.add_done_callback(tell)

    def end(self) -> None:
        """Note that all is settled."""
        self.busy = False
        while self._ended:
            ended = self._ended.pop()
            if not ended.done():
                ended.set_result(None)

    def ended(self) -> asyncio.Future[None]:
        """Return what is done when the present batch is settled."""
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ended.append(ended)
        return ended


def _later(done: Told) -> Told:
    loop = asyncio.get_running_loop()

    def tell(outcomes: list[Outcome] | None, error: BaseException | None) -> None:
        loop.call_soon(done, outcomes, error)

    return tell
