"""Sends invoices as commands, many at a time, and counts the answers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.json import Decoder

from diptych import Rejected
from examples.shop.retail.replay.commands import amount_of, command_of

if TYPE_CHECKING:
    from diptych import Receipt, Running
    from diptych.log import Appended
    from examples.shop.retail.replay.file import Invoice

WINDOW = 1000
"""Invoices that may wait for their answers."""

CHUNK = 200
"""Invoices sent before the answers are looked at."""


class Tally(Struct):
    """How many commands had this answer, what they amount to (GBP), and how many a month."""

    count: int = 0
    amount: Decimal = Decimal()
    by_month: dict[str, int] = {}

    def add(self, invoice: Invoice) -> None:
        """Count the command of an invoice."""
        self.count += 1
        self.amount += amount_of(invoice)
        month = f"{invoice.when:%Y-%m}"
        self.by_month[month] = self.by_month.get(month, 0) + 1


class _Kept(Struct):
    """What matters of a rejection as the log keeps it."""

    code: str


_kept = Decoder(_Kept)


class Load:
    """A load of invoices: ``accepted`` by command, ``rejected`` by command and code."""

    def __init__(self, running: Running, progress: Callable[[Load], None] | None = None) -> None:
        self.accepted: dict[str, Tally] = {}
        self.rejected: dict[tuple[str, str], Tally] = {}
        self.recalled = 0
        self.answered = 0
        self._running = running
        self._progress = progress
        self._waiting: deque[tuple[str, Invoice, asyncio.Future[Receipt]]] = deque()

    async def run(self, invoices: Iterator[Invoice]) -> None:
        """Send all that have no answer yet, in order; those of an earlier run are only counted."""
        try:
            recalling = True
            while chunk := list(islice(invoices, CHUNK)):
                known: dict[str, Appended] = {}
                if recalling:
                    known = await self._running.recall([key_of(invoice) for invoice in chunk])
                    # Beyond a window without any answer, the earlier run has sent nothing.
                    recalling = bool(known) or self.answered < WINDOW
                for invoice in chunk:
                    if answer := known.get(key_of(invoice)):
                        self._recall(invoice, answer)
                    else:
                        self._send(invoice)
                await self._until(WINDOW - CHUNK)
            await self._until(0)
        finally:  # stopped: nobody will look at these answers, the next run recalls them
            for _, _, left in self._waiting:
                left.add_done_callback(lambda future: future.cancelled() or future.exception())

    async def _until(self, waiting: int) -> None:
        """Let answers come in until only so many are outstanding."""
        while len(self._waiting) > waiting:
            await asyncio.wait((self._waiting[0][2],))
            self._count()
        await asyncio.sleep(0)
        self._count()
        if self._progress is not None:
            self._progress(self)

    def _send(self, invoice: Invoice) -> None:
        command = command_of(invoice)
        answer = self._running.submit(command, key=key_of(invoice))
        self._waiting.append((command.message_name, invoice, answer))

    def _recall(self, invoice: Invoice, answer: Appended) -> None:
        self.recalled += 1
        name = command_of(invoice).message_name
        if answer.rejection is None:
            self._accept(name, invoice)
        else:
            self._reject(name, _kept.decode(answer.rejection).code, invoice)

    def _count(self) -> None:
        """Count the answers at hand."""
        waiting = self._waiting
        while waiting and waiting[0][2].done():
            name, invoice, answer = waiting.popleft()
            error = answer.exception()
            if error is None:
                self._accept(name, invoice)
            elif isinstance(error, Rejected):
                self._reject(name, error.code, invoice)
            else:
                raise error
            self.answered += 1

    def _accept(self, name: str, invoice: Invoice) -> None:
        self.accepted.setdefault(name, Tally()).add(invoice)

    def _reject(self, name: str, code: str, invoice: Invoice) -> None:
        self.rejected.setdefault((name, code), Tally()).add(invoice)


def key_of(invoice: Invoice) -> str:
    """Return the idempotency key: an invoice is entered once, whatever is sent again."""
    return f"invoice-{invoice.number}"
