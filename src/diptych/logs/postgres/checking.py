"""What a judge asks of the database: older events, and the answers kept under keys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from diptych.log import Append, Appended, Condition
from diptych.logs.postgres.statements import Statements
from diptych.sql.judge import older
from diptych.sql.postgres import Connection
from diptych.sql.ranges import findable, is_everything, is_point, legs_of


class Legs:
    """Ranges of the tag index in which there must be nothing, for the append function to look at.

    They ask for more than the conditions do, never for less: where something is found, the batch
    is judged under the lock. ``unclear``: a condition cannot be put in this way. ``alone``: it can
    be judged for exactly the head that it was judged for. ``granted``: something was taken for
    granted that only the function can tell.
    """

    def __init__(self, head: int) -> None:
        self._head = head
        self.unclear = False
        self.alone = False
        self.granted = False
        self.tags: list[str] = []
        self.types: list[str] = []
        self.afters: list[int] = []

    def arrays(self) -> tuple[list[str], list[str], list[int]]:
        """Return tags, types and positions."""
        return self.tags, self.types, self.afters

    def first_stored(self, condition: Condition) -> int:
        """Take for granted that nothing older is in a condition's way, and have that looked at."""
        if condition.known:
            self.unclear = True
        self.granted = True
        self._add(condition, condition.after)
        return 0

    def note(self, batches: Iterable[Sequence[Append]]) -> None:
        """Have it looked at whether others have appended what matters to these conditions."""
        for batch in batches:
            for append in batch:
                for condition in append.conditions:
                    # With `since`, all that came before the batch has been seen by another.
                    if condition.since is None:
                        self._add(condition, self._head)
                        if max(condition.after, *condition.known, 0) > self._head:
                            self.alone = True  # positions to come cannot be told in advance

    def _add(self, condition: Condition, after: int) -> None:
        items = findable(condition.query).items
        if not items or any(not item.types or not item.tags for item in items):
            if after < self._head:
                self.unclear = True
            else:
                self.alone = True
            return
        for item in items:
            tag = min(item.tags)
            for name in item.types:
                self.tags.append(tag)
                self.types.append(name)
                self.afters.append(after)


async def stored_answers(
    connection: Connection, sql: Statements, batches: Iterable[Sequence[Append]]
) -> dict[str, tuple[bytes, Appended]]:
    """Return content and first answer of those of the batches' keys that were used."""
    keys = [append.key for batch in batches for append in batch if append.key is not None]
    return await recall(connection, sql, keys) if keys else {}


async def recall(
    connection: Connection, sql: Statements, keys: Sequence[str]
) -> dict[str, tuple[bytes, Appended]]:
    """Return content and first answer of those keys that were used."""
    rows = await connection.fetch(sql.recall, keys)
    return {
        key: (content, Appended(first, last, True, rejection))
        for key, content, first, last, rejection in rows
    }


async def first_stored(
    connection: Connection, sql: Statements, batches: Iterable[Sequence[Append]], until: int
) -> dict[int, int]:
    """Return the first match up to a position of every condition that is older, by its ``id()``."""
    old = older(batches, until)
    found: dict[int, int] = {}
    numbers: list[int] = []
    tags: list[str] = []
    types: list[str] = []
    afters: list[int] = []
    for number, condition in enumerate(old):
        query = findable(condition.query)
        if condition.known or not is_point(query):
            found[id(condition)] = await _first_match(connection, sql, condition, until)
            continue
        for item in query.items:
            (tag,) = item.tags
            for name in item.types:
                numbers.append(number)
                tags.append(tag)
                types.append(name)
                afters.append(condition.after)
    if numbers:
        rows = await connection.fetch(sql.first_matches, numbers, tags, types, afters, until)
        for number, position in rows:
            which = id(old[int(number)])
            found[which] = min(found.get(which, position), position)
    return found


async def types_of(connection: Connection, sql: Statements, tag: str) -> tuple[int, list[str]]:
    """Return the head, and the types that occur with a tag."""
    row = await connection.fetchrow(sql.types_of_tag, tag)
    assert row is not None
    return row[0], row[1] or []


async def _first_match(
    connection: Connection, sql: Statements, condition: Condition, until: int
) -> int:
    query, after, known = findable(condition.query), condition.after, set(condition.known)
    # Of one more than are known, at least one is not.
    limit = len(known) + 1
    rows: list[Any] = []
    if is_everything(query):
        rows += await connection.fetch(sql.match_any, after, until, limit)
    else:
        types: dict[str, list[str]] = {}
        for item in query.items:
            if not item.types:
                tag = min(item.tags)
                types[tag] = (await types_of(connection, sql, tag))[1]
        legs = legs_of(query.items, types.__getitem__)
        for text, parameters in sql.over_legs("match_legs", legs, after, until, limit):
            rows += await connection.fetch(text, *parameters)
    return min((row[0] for row in rows if row[0] not in known), default=0)
