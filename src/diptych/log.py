"""The log's port: append, read, head, wait, recall.

A log is the one ordered sequence of an application's events. Positions are 1, 2, 3 … without
holes, in commit order; 0 means none. ``logs/memory.py`` is the readable specification of what is
said here, and ``diptych.testing.contracts`` holds every adapter to it.

The append condition is the dynamic consistency boundary of https://dcb.events.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Literal, Protocol, TypeAlias, TypeGuard

from msgspec import DecodeError, Raw, Struct
from msgspec.json import Decoder

from diptych.errors import ForeignCheckpoint, Invalid, LogUnusable
from diptych.messages import LONGEST_TEXT


class QueryItem(Struct, frozen=True, gc=False):
    """Events of any of ``types`` (none given: of every type) that bear all of ``tags``."""

    types: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()

    def matches(self, type_name: str, tags: Sequence[str]) -> bool:
        """Whether an event of this type, with these tags, is meant."""
        return (not self.types or type_name in self.types) and self.tags.issubset(tags)


class EventQuery(Struct, frozen=True, gc=False):
    """Events that match any of the items; without items, every event."""

    items: tuple[QueryItem, ...] = ()

    def matches(self, type_name: str, tags: Sequence[str]) -> bool:
        """Whether an event of this type, with these tags, is meant."""
        return not self.items or any(item.matches(type_name, tags) for item in self.items)

    @staticmethod
    def of(types: Sequence[str] = (), tags: Sequence[str] = ()) -> EventQuery:
        """Return the query of one item."""
        return EventQuery((QueryItem(frozenset(types), frozenset(tags)),))


EVERY_EVENT = EventQuery()


class NewEvent(Struct, frozen=True, gc=False):
    """An event to be appended: ``data`` and ``metadata`` are JSON objects, nothing around them.

    ``id`` and ``type`` have no quotes, backslashes or control characters; a tag is not empty.
    None of them is longer than 1000 bytes.
    """

    id: str
    type: str
    tags: tuple[str, ...]
    data: bytes
    metadata: bytes


class StoredEvent(Struct, frozen=True, array_like=True, gc=False):
    """An event as it was stored: ``data`` and ``metadata`` are JSON, byte for byte."""

    position: int
    id: str
    type: str
    tags: tuple[str, ...]
    data: Raw
    metadata: Raw


class Condition(Struct, frozen=True, gc=False):
    """Append only unless an event that matches ``query`` lies after position ``after``.

    ``known`` are positions after ``after`` that the caller has seen and does not object to.
    ``since`` and ``seen`` let an append build on earlier ones *of the same batch*, by their index
    in it: ``since`` stands for the last position of that append (instead of ``after``), the events
    of those in ``seen`` count as known. When one of them is not newly appended, this one is
    refused as ``unfounded``.
    """

    query: EventQuery
    after: int = 0
    known: tuple[int, ...] = ()
    since: int | None = None
    seen: tuple[int, ...] = ()


class Append(Struct, frozen=True, gc=False):
    """Events that are appended together or not at all, if all conditions hold.

    ``key`` is an idempotency key, kept for ever with a digest of the request, ``content``: the same
    key with the same content is answered with the first answer, before any condition is looked at;
    with other content it is refused. ``rejection`` (JSON) is an answer to be kept under the key
    instead of events.
    """

    events: tuple[NewEvent, ...]
    conditions: tuple[Condition, ...] = ()
    key: str | None = None
    content: bytes = b""
    rejection: bytes | None = None


class Appended(Struct, frozen=True, gc=False):
    """The answer to an append that took place, now or (``replayed``) when the key was first used.

    ``first`` and ``last`` are the events' positions. Without events ``first`` is 0 and ``last`` is
    the head at that time.
    """

    first: int
    last: int
    replayed: bool = False
    rejection: bytes | None = None


class Refused(Struct, frozen=True):
    """The answer to an append that did not take place.

    ``conflict``: the event at ``position`` matches the condition at index ``condition``: the first
    such event, of the first such condition.
    ``key-reused``: the key was used with other content, for the append that ended at ``position``.
    ``unfounded``: an append of the same batch that it builds on did not take place.
    ``failed``: work inside the append's transaction (an inline projection) raised ``error``.
    """

    reason: Literal["conflict", "key-reused", "unfounded", "failed"]
    position: int = 0
    condition: int = 0
    error: BaseException | None = None


Outcome: TypeAlias = Appended | Refused


class Page(Struct, frozen=True, gc=False):
    """Events in order of position; all that match in (after, ``upto``] are in ``events``."""

    events: list[StoredEvent]
    upto: int


InsideAppend: TypeAlias = Callable[[Any, list[StoredEvent]], None]
"""Work done in the append's own transaction: gets the adapter's connection and the new events."""


class Log(Protocol):
    """What an adapter offers. All positions and limits count events; times are seconds."""

    @property
    def identity(self) -> str:
        """The log's own id, made when it was created and never changed."""
        ...

    def append(self, batch: Sequence[Append]) -> Awaitable[list[Outcome]]:
        """Append a batch in one durable transaction; answer each append by itself, in order.

        Conditions see the earlier appends of the batch. A refused append never fails its
        neighbours. Raises ``Invalid`` (see `require_sound`) and ``Unavailable``: nothing is stored;
        ``OutcomeUnknown``, ``Closed``.
        """
        ...

    def read(
        self,
        query: EventQuery = EVERY_EVENT,
        *,
        after: int = 0,
        until: int | None = None,
        limit: int = 1000,
    ) -> Awaitable[Page]:
        """Return the next matching events after a position, at most ``limit``, up to ``until``.

        A page may hold fewer than ``limit`` (at least 1) before the end of the log: go on from
        ``upto``, until the head.
        """
        ...

    async def head(self) -> int:
        """Return the position of the last event; 0 when there is none."""
        ...

    async def wait(self, after: int, timeout: float | None = None) -> int:
        """Wait until the head lies after a position, at most ``timeout`` s; return the head."""
        ...

    async def recall(self, keys: Sequence[str]) -> dict[str, Appended]:
        """Return the first answers kept under these idempotency keys."""
        ...

    async def close(self) -> None:
        """Finish what was accepted, then release everything. May be called twice."""
        ...


# --- what a log may offer besides -----------------------------------------------------------------

WorksBy: TypeAlias = Literal["thread", "process"]
Told: TypeAlias = Callable[[list[Outcome] | None, BaseException | None], None]
"""Takes the outcomes of a batch, or why it has none."""


def works_by(log: Log) -> WorksBy | None:
    """Return what a log works by beside the event loop, as its attribute ``works_by`` says."""
    return getattr(log, "works_by", None)


def beginner_of(log: Log) -> Callable[[Sequence[Append], Told], None] | None:
    """Return the method ``begin_append``, if there is one.

    It does what ``append`` does, but begins within the call, and tells without a future between,
    which would take another round of the event loop. It is for who has gathered appends already,
    and made them sound (`require_sound`), as the command side has. What it raises it does not tell.
    """
    return getattr(log, "begin_append", None)


def renewals_of(log: Log) -> int:
    """Return how often a log may have become another server's, which has lost events.

    An adapter that is connected to one counts its connections in ``renewals``.
    """
    renewals: int = getattr(log, "renewals", 0)
    return renewals


# --- what can be stored ---------------------------------------------------------------------------

_BAD_NAME = re.compile(r'["\\\x00-\x1f\x7f\ud800-\udfff]')
_BAD_TEXT = re.compile(r"[\x00\ud800-\udfff]")
_json = Decoder(list[Raw])


def require_sound(batch: Sequence[Append]) -> None:
    """Raise ``Invalid`` unless every adapter can store this batch and give it back unchanged.

    Adapters call it first, so that one bad append cannot fail the transaction of its neighbours.
    """
    events = [event for append in batch for event in append.events]
    names = [event.id for event in events]
    names += {event.type for event in events}
    texts = [tag for event in events for tag in event.tags]
    objects = [event.data for event in events]
    objects += [event.metadata for event in events]
    for index, append in enumerate(batch):
        if append.key is not None:
            texts.append(append.key)
        if append.rejection is not None and (append.events or append.key is None):
            raise _unsound("rejection", "with a key, and instead of events", append.key)
        for condition in append.conditions:
            if condition.seen or condition.since is not None:
                _require_founded(condition, index)
    # All of a kind at once; which one it is matters only when there is one.
    if "" in names or _BAD_NAME.search("".join(names)):
        bad_name = next(name for name in names if not name or _BAD_NAME.search(name))
        raise _unsound("events.type", "id and type: no quotes, no control characters", bad_name)
    if "" in texts or _BAD_TEXT.search("".join(texts)):
        bad_text = next(text for text in texts if not text or _BAD_TEXT.search(text))
        raise _unsound("events.tags or key", "not empty, no NUL characters", bad_text)
    words = names + texts
    if words and max(map(len, words)) > LONGEST_TEXT // 4:
        for word in words:
            if len(word.encode()) > LONGEST_TEXT:
                raise _unsound(
                    "id, type, tag or key", f"at most {LONGEST_TEXT} bytes", f"{word[:20]}…"
                )
    if not _are_objects(objects):
        bad = next(each for each in objects if not _are_objects([each]))
        raise _unsound("events.data", "data and metadata: a JSON object in UTF-8", bad)


def _require_founded(condition: Condition, index: int) -> None:
    founded = condition.seen
    if condition.since is not None:
        founded = (condition.since, *founded)
    if not all(0 <= earlier < index for earlier in founded):
        raise _unsound("conditions", "since and seen: earlier appends of the batch", founded)


def require_limit(limit: int) -> None:
    """Raise ``Invalid`` unless a page may hold at least one event."""
    if limit < 1:
        raise Invalid("A page holds at least one event", field="limit", rule="1 or more", got=limit)


LOOK_BACK: Final = 1000
"""How many positions at a time are looked through for the last event that is there."""


async def last_position(log: Log) -> int:
    """Return where the log's last event is: before the head, where somebody has deleted the last.

    Nobody who follows the log comes further, until something is appended.
    """
    until = await log.head()
    size = 1
    while until:
        after = max(until - size, 0)
        if (page := await log.read(after=after, until=until, limit=size)).events:
            return page.events[-1].position
        until, size = after, LOOK_BACK
    return 0


def head_set_back(**facts: object) -> LogUnusable:
    """Return the error of a log whose head lies before events that it holds."""
    return LogUnusable(
        "The log's head lies before events that the log holds: it was set back by hand, or its "
        "table was restored by itself. Nothing can be appended: set `head` in the table `log` to "
        "the position of the last event, or restore the whole database from a backup",
        **facts,
    )


def is_new(outcome: Outcome) -> TypeGuard[Appended]:
    """Whether the append took place just now, so that others of its batch may build on it."""
    return isinstance(outcome, Appended) and not outcome.replayed


def _are_objects(texts: list[bytes]) -> bool:
    """Whether each is one JSON object, and nothing around it that would be lost on the way."""
    for text in texts:
        if text[:1] != b"{" or text[-1:] != b"}":
            return False
    listed = b"[" + b",".join(texts) + b"]"
    try:
        # All at once: one that is several, or a part, would not come back as it is.
        found = _json.decode(listed)
        if not listed.isascii():
            listed.decode()
    except (DecodeError, UnicodeDecodeError):
        return False
    return list(map(bytes, found)) == texts


def _unsound(field: str, rule: str, got: object) -> Invalid:
    return Invalid("The log cannot store that; nothing was stored", field=field, rule=rule, got=got)


class Token(Struct, frozen=True, gc=False):
    """A place in one log, given to clients so that they can wait for it. Opaque to them."""

    log: str
    position: int

    def __str__(self) -> str:
        return f"{self.log}.{self.position}"

    @staticmethod
    def parse(text: str) -> Token:
        """Read what ``str(token)`` wrote."""
        given: Any = text
        log, _, position = given.rpartition(".") if isinstance(given, str) else ("", "", "")
        if not log or not (position.isascii() and position.isdigit()) or len(position) > 18:
            raise Invalid(
                "That is no token; pass on the token of a command's answer unchanged",
                field="token",
                rule="<log identity>.<position>",
                got=text,
            )
        return Token(log, int(position))

    def require(self, log: str) -> None:
        """Raise ``ForeignCheckpoint`` unless the token belongs to this log."""
        if self.log != log:
            raise ForeignCheckpoint(
                "The token belongs to another log; ask the service that issued it",
                token_of=self.log,
                this_log=log,
            )

    def require_reachable(self, log: str, head: int) -> None:
        """Raise ``ForeignCheckpoint`` unless the token belongs to this log and is not beyond it."""
        self.require(log)
        if self.position > head:
            raise ForeignCheckpoint(
                "The token lies beyond the head of this log: it was restored from a backup or "
                "failed over, and what the token stands for is lost",
                position=self.position,
                head=head,
            )
