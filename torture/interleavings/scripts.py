"""What the sessions of an interleaving do: each a few steps of reading, deciding and appending.

A session stands for a process. It either knows of the log what it has seen before, and appends by
one call; or it knows nothing, and judges under the lock.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeAlias, cast

from msgspec import Struct

from diptych.log import Append, Condition, EventQuery, Log, NewEvent, Outcome
from diptych.logs.postgres import PostgresLog
from diptych.messages import new_id
from diptych.testing.recording import Recorder
from torture.clients import METADATA
from torture.interleavings.sessions import Session

TAKEN, NOTED = "Taken", "Noted"


class Player(Struct):
    """One session in one interleaving: its log, and the place that all are after.

    ``head`` is where the log ended before. ``log`` knows what it has seen in earlier ones,
    ``fresh`` nothing.
    """

    session: Session
    log: Recorder
    fresh: Recorder
    place: str
    head: int

    @property
    def query(self) -> EventQuery:
        """Who has taken the place?"""
        return EventQuery.of([TAKEN], [self.tag])

    @property
    def tag(self) -> str:
        """The tag of the place."""
        return f"place:{self.place}"

    def taken(self) -> NewEvent:
        """Return the event that takes the place."""
        return NewEvent(new_id(), TAKEN, (self.tag,), b"{}", METADATA)

    def noted(self) -> NewEvent:
        """Return an event that nobody minds."""
        return NewEvent(new_id(), NOTED, (self.tag, "note:1"), b"{}", METADATA)


Program: TypeAlias = Callable[[Player], Coroutine[Any, Any, None]]


class Script(Struct, frozen=True):
    """The sessions' programs, and how many steps of each are put in order."""

    name: str
    programs: tuple[Program, ...]
    steps: int

    @property
    def counts(self) -> tuple[int, ...]:
        """The steps of each session."""
        return (self.steps,) * len(self.programs)


# --- programs -------------------------------------------------------------------------------------


async def judge_under_lock(player: Player) -> None:
    """Read; then lock, recall, look for older matches, insert, commit: six steps."""
    page = await player.fresh.read(player.query)
    known = tuple([event.position for event in page.events])
    condition = Condition(player.query, max(0, player.head - 1), known)
    append = Append((player.taken(),), (condition,), key=new_id(), content=b"c")
    await player.fresh.append([append])


async def decide(player: Player) -> None:
    """Read, append in one call, commit, and read again."""
    page = await player.log.read(player.query)
    await player.log.append([Append((player.taken(),), (Condition(player.query, page.upto),))])
    await player.log.read(player.query)


async def lock_first(player: Player) -> None:
    """Lock, look, insert, commit."""
    condition = Condition(player.query, max(0, player.head - 1))
    await player.fresh.append([Append((player.taken(),), (condition,))])


async def note(player: Player) -> None:
    """Append one event, then two, without conditions: each a call and a commit."""
    await player.log.append([Append((player.noted(),))])
    await player.log.append([Append((player.noted(), player.taken()))])


async def follow_all(player: Player) -> None:
    """Read four pages, each after the one before."""
    await _follow(player, EventQuery(), 4)


async def follow_tag(player: Player) -> None:
    """Read two pages of a tag: which types there are, and their events."""
    await _follow(player, EventQuery.of([], [player.tag]), 2)


async def _follow(player: Player, query: EventQuery, pages: int) -> None:
    upto = 0
    for _ in range(pages):
        page = await player.log.read(query, after=upto)
        name = f"{player.log.client} of {player.place}"
        player.log.history.saw(name, page.events, after=upto, upto=page.upto, query=query)
        upto = page.upto


def use_key(content: bytes) -> Program:
    """Append with the key that all use, look it up, and ask for the head."""

    async def program(player: Player) -> None:
        condition = Condition(player.query, player.head)
        key = f"key:{player.place}"
        await player.log.append([Append((player.taken(),), (condition,), key, content)])
        await player.log.recall([key])
        await player.log.head()

    return program


async def batch(player: Player) -> None:
    """Append three at once that build on each other, read, and ask for the head."""
    first = Condition(player.query, player.head)
    await player.log.append(
        [
            Append((player.taken(),), (first,)),
            Append((player.taken(),), (Condition(player.query, 0, (), 0),)),
            Append((player.noted(),), (Condition(player.query, player.head, (), None, (0, 1)),)),
        ]
    )
    await player.log.read(player.query)
    await player.log.head()


async def mind_a_type(player: Player) -> None:
    """Append if nobody has taken any place: a condition without a tag."""
    query = EventQuery.of([TAKEN], [])
    page = await player.log.read(query, after=player.head)
    await player.log.append([Append((player.taken(),), (Condition(query, page.upto),))])


async def within(player: Player) -> None:
    """Append in a transaction of the caller's: lock, look, insert, commit."""
    append = Append((player.taken(),), (Condition(player.query, max(0, player.head - 1)),))
    theirs = cast("Log", _Within(player))
    await Recorder(theirs, player.log.history, player.log.client).append([append])


class _Within:
    """As much of a log as is recorded."""

    def __init__(self, player: Player) -> None:
        self._log = cast("PostgresLog", player.fresh.log)
        self._database = player.session.database

    async def append(self, batch: Sequence[Append]) -> list[Outcome]:
        async with self._database.lease() as connection, connection.transaction():
            log = await self._log.within(connection)
            return [await log.append(append) for append in batch]


SIX = Script("under the lock", (judge_under_lock, judge_under_lock), 6)

FOURS = (
    Script("deciders", (decide, decide, decide), 4),
    Script("readers", (note, follow_all, follow_tag), 4),
    Script("keys", (use_key(b"c"), use_key(b"c"), use_key(b"another")), 4),
    Script("batches", (batch, mind_a_type, note), 4),
    Script("within", (within, decide, lock_first), 4),
)
