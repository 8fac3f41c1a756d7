"""What the command side measures: how commands end and how long it takes, and the writer's work."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import TYPE_CHECKING

from diptych.errors import Rejected, outcome_of
from diptych.messages import Command
from diptych.telemetry import declared
from diptych.telemetry.metrics import Telemetry
from diptych.write.entry import Entry, Receipt

if TYPE_CHECKING:
    from opentelemetry.trace import Span


class Measures:
    """Told by the command bus. Times are in seconds of ``time.perf_counter()``."""

    def __init__(self, telemetry: Telemetry) -> None:
        self.tracing = telemetry.tracing
        self._commands = telemetry.histogram(declared.COMMAND_DURATION)
        self._retries = telemetry.number(declared.COMMAND_RETRIES)
        self._transactions = telemetry.histogram(declared.APPEND_DURATION)
        self._size = telemetry.histogram(declared.APPEND_SIZE)[()]
        self._events = telemetry.number(declared.APPEND_EVENTS)[()]

    def refused(self, command: Command, error: Exception, began: float) -> None:
        """Count a command that was not accepted."""
        name = getattr(command, "message_name", type(command).__name__)
        self._commands[name, outcome_of(error)].observe(perf_counter() - began)

    def answered(self, entry: Entry, result: Receipt | BaseException) -> None:
        """Count a command that is about to be answered."""
        if not isinstance(result, Receipt):
            outcome = outcome_of(result)
        elif result.replayed:
            outcome = "replayed"
        elif result.first:
            outcome = "appended"
            self._events.value += result.last - result.first + 1
        else:
            outcome = "unchanged"
        name = entry.decision.command.message_name
        self._commands[name, outcome].observe(perf_counter() - entry.began)
        if self.tracing is not None and entry.span is not None:
            self.tracing.end(entry.span, outcome, fine=isinstance(result, (Receipt, Rejected)))

    def retried(self, entry: Entry) -> None:
        """Count a command that is to be decided again after a conflict."""
        self._retries[entry.decision.command.message_name,].value += 1

    def writing(self, batch: Sequence[Entry]) -> Span | None:
        """Begin the span of a transaction, where anybody wants it."""
        if self.tracing is None:
            return None
        return self.tracing.append([entry.span for entry in batch])

    def written(
        self, size: int, began: float, span: Span | None, error: BaseException | None = None
    ) -> None:
        """Count a transaction of so many commands, and end its span."""
        outcome = "committed" if error is None else outcome_of(error)
        self._transactions[outcome,].observe(perf_counter() - began)
        self._size.observe(size)
        if self.tracing is not None and span is not None:
            self.tracing.end(span, outcome, fine=error is None)
