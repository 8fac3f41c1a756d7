"""Histories: what was asked of a log or an application, and when, and what was answered.

A call is noted before it is made and again when it is answered, one JSON line each, so that what
was under way at a kill -9 is in the history as *unknown*. Histories of several processes, or from
before and after a restart, are joined by reading all their files: `load`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias
from uuid import uuid4

import msgspec
from msgspec import Raw, Struct

from diptych.log import EVERY_EVENT, Append, EventQuery, NewEvent, Outcome, Refused, StoredEvent

Ending: TypeAlias = Literal["ok", "failed", "unknown"]
"""``ok``: answered (a refused append is an answer). ``failed``: an error that promises that nothing
was stored. ``unknown``: no answer, or an error that promises nothing."""

# --- what is asked --------------------------------------------------------------------------------


class AppendRequest(Struct, frozen=True, tag="append"):
    """A call of ``append``."""

    batch: tuple[Append, ...]


class ReadRequest(Struct, frozen=True, tag="read"):
    """A call of ``read``."""

    query: EventQuery
    after: int
    until: int | None
    limit: int


class HeadRequest(Struct, frozen=True, tag="head"):
    """A call of ``head``."""


class WaitRequest(Struct, frozen=True, tag="wait"):
    """A call of ``wait``."""

    after: int
    timeout: float | None


class RecallRequest(Struct, frozen=True, tag="recall"):
    """A call of ``recall``."""

    keys: tuple[str, ...]


class DoRequest(Struct, frozen=True, tag="do"):
    """A command. ``correlation`` marks the events that it leads to."""

    command: str
    key: str | None
    correlation: str


class AskRequest(Struct, frozen=True, tag="ask"):
    """A query; ``after`` is the position of its token, 0 without one."""

    query: str
    message: Raw
    after: int


class SawRequest(Struct, frozen=True, tag="saw"):
    """What a subscriber was given: all that match in (after, upto]."""

    subscriber: str
    query: EventQuery
    after: int


Request: TypeAlias = (
    AppendRequest
    | ReadRequest
    | HeadRequest
    | WaitRequest
    | RecallRequest
    | DoRequest
    | AskRequest
    | SawRequest
)

# --- what is answered -----------------------------------------------------------------------------


class Answered(Struct, frozen=True, omit_defaults=True):
    """The answer to one append (or, in a recall, to a key): as ``Appended`` and ``Refused``."""

    first: int = 0
    last: int = 0
    replayed: bool = False
    rejection: bytes | None = None
    refused: str = ""
    position: int = 0
    condition: int = 0


class Sight(Struct, frozen=True, array_like=True):
    """An event that was seen: ``digest`` is that of its content, empty when it was not seen."""

    position: int
    id: str
    digest: str = ""


class Outcomes(Struct, frozen=True, tag="outcomes"):
    """The answers to a batch."""

    outcomes: tuple[Answered, ...]


class Seen(Struct, frozen=True, tag="seen"):
    """A page: these events, and no others up to ``upto``."""

    events: tuple[Sight, ...]
    upto: int


class Head(Struct, frozen=True, tag="head"):
    """The head."""

    position: int


class Recalled(Struct, frozen=True, tag="recalled"):
    """The first answers by key."""

    answers: dict[str, Answered]


class Done(Struct, frozen=True, tag="done"):
    """A receipt."""

    command_id: str
    first: int
    last: int
    replayed: bool


class Told(Struct, frozen=True, tag="told"):
    """The answer to a query, as JSON."""

    value: Raw
    as_of: int
    stale: bool


Answer: TypeAlias = Outcomes | Seen | Head | Recalled | Done | Told


class Call(Struct, frozen=True, kw_only=True):
    """One call. ``start`` and ``end`` are nanoseconds of the machine's monotonic clock.

    ``end`` is None for a call that was never answered; ``error`` is the code or type of what it
    raised.
    """

    id: str
    client: str
    request: Request
    start: int
    end: int | None = None
    outcome: Ending = "unknown"
    answer: Answer | None = None
    error: str = ""

    @property
    def operation(self) -> str:
        """The method's name."""
        return str(self.request.__struct_config__.tag)


class _Begun(Struct, frozen=True, tag="call"):
    id: str
    client: str
    time: int
    request: Request


class _Ended(Struct, frozen=True, tag="answer", omit_defaults=True):
    id: str
    time: int
    outcome: Ending
    answer: Answer | None = None
    error: str = ""


_encode = msgspec.json.Encoder().encode
_lines: msgspec.json.Decoder[_Begun | _Ended] = msgspec.json.Decoder(_Begun | _Ended)


class Positioned(Protocol):
    """``StoredEvent``, ``Recorded``: whatever knows its position and id."""

    @property
    def position(self) -> int:
        """The position in the log."""
        ...

    @property
    def id(self) -> str:
        """The event's id."""
        ...


class History:
    """Takes calls down: in memory, or in a file whose lines survive a kill -9.

    One file is written by one process at a time. ``clock`` must be one for all processes whose
    histories are joined, as the default is on one machine.
    """

    def __init__(
        self, path: Path | None = None, *, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._file = None if path is None else open(path, "ab", buffering=0)  # noqa: SIM115
        if self._file is not None and self._file.tell():
            self._file.write(b"\n")  # the line before may be torn
        self._path = path
        self._kept: list[_Begun | _Ended] = []
        self._clock = clock
        # A process that was killed and started again must not use an id twice.
        self._prefix = uuid4().hex[:12]
        self._calls = 0

    def begin(self, client: str, request: Request, *, call: str = "") -> str:
        """Note that a call is about to be made; return its id."""
        call = call or self.new_id()
        self._note(_Begun(call, client, self._clock(), request))
        return call

    def new_id(self) -> str:
        """Return an id for a call that is to be begun."""
        self._calls += 1
        return f"{self._prefix}.{self._calls}"

    def end(
        self, call: str, outcome: Ending, answer: Answer | None = None, *, error: str = ""
    ) -> None:
        """Note what a call was answered."""
        self._note(_Ended(call, self._clock(), outcome, answer, error))

    def saw(
        self,
        subscriber: str,
        events: Iterable[Positioned],
        *,
        after: int,
        upto: int,
        query: EventQuery = EVERY_EVENT,
    ) -> None:
        """Note that a subscriber was given these events: all that match in (after, ``upto``]."""
        sights = tuple([Sight(e.position, e.id, digest_of(e) if _whole(e) else "") for e in events])
        call = self.begin(self._prefix, SawRequest(subscriber, query, after))
        self.end(call, "ok", Seen(sights, upto))

    def _note(self, line: _Begun | _Ended) -> None:
        if self._file is None:
            self._kept.append(line)
        else:
            self._file.write(_encode(line) + b"\n")

    @property
    def calls(self) -> list[Call]:
        """All calls so far, in the order in which they began."""
        return _joined(self._kept) if self._path is None else load(self._path)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def load(*paths: Path | str) -> list[Call]:
    """Read histories and join them. A last line that was torn by a kill is left out."""
    found: list[_Begun | _Ended] = []
    for path in paths:
        for line in Path(os.fspath(path)).read_bytes().split(b"\n"):
            try:
                if line:
                    found.append(_lines.decode(line))
            except msgspec.DecodeError:
                if line.endswith(b"}"):
                    raise
    return _joined(found)


def _joined(lines: Iterable[_Begun | _Ended]) -> list[Call]:
    begun: dict[str, _Begun] = {}
    ended: dict[str, _Ended] = {}
    for line in lines:
        if isinstance(line, _Begun):
            begun[line.id] = line
        else:
            ended[line.id] = line
    calls: list[Call] = []
    for one in begun.values():
        call = Call(id=one.id, client=one.client, request=one.request, start=one.time)
        if (end := ended.get(one.id)) is not None:
            call = msgspec.structs.replace(
                call, end=end.time, outcome=end.outcome, answer=end.answer, error=end.error
            )
        calls.append(call)
    return sorted(calls, key=lambda call: call.start)


# --- in short -------------------------------------------------------------------------------------


def digest_of(event: Any) -> str:
    """Return a digest of what an event says: of a ``NewEvent`` or a ``StoredEvent``."""
    return content_digest(event.type, event.tags, bytes(event.data), bytes(event.metadata))


def content_digest(type_name: str, tags: Sequence[str], data: bytes, metadata: bytes) -> str:
    """Return a digest of type, tags, data and metadata."""
    whole = _encode((type_name, tags, data, metadata))
    return blake2b(whole, digest_size=12).hexdigest()


def _whole(event: object) -> bool:
    return isinstance(event, (StoredEvent, NewEvent))


def answered(outcome: Outcome) -> Answered:
    """Return an answer of the log's as it is noted."""
    if isinstance(outcome, Refused):
        return Answered(
            refused=outcome.reason, position=outcome.position, condition=outcome.condition
        )
    return Answered(outcome.first, outcome.last, outcome.replayed, outcome.rejection)
