"""A stored event that somebody has damaged: it is named by its position, the others are read."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from diptych.codec import metadata_of, require_whole, time_of
from diptych.errors import LogUnusable, UndecodableEvent
from diptych.log import Append, Appended, EventQuery, NewEvent
from diptych.logs.sqlite import SqliteLog
from diptych.messages import new_id
from tests.read.world import Moved, new_event

DAMAGE = ['{"a":', "", "nonsense", "{}}", '{"a":1}x']


def event(*tags: str) -> NewEvent:
    found = new_event(Moved("a", "b", 1))
    return NewEvent(new_id(), found.type, tags, found.data, found.metadata)


def damage(path: Path, change: str, *values: object) -> None:
    """Change stored events behind the library's back."""
    database = sqlite3.connect(path)
    with database:
        database.execute("DROP TRIGGER events_are_never_changed")
        database.execute(f"UPDATE events SET {change}", values)
    database.close()


@pytest.mark.parametrize("column", ["data", "metadata"])
@pytest.mark.parametrize("text", [*DAMAGE, b'{"a":"\xff"}'])
async def test_a_damaged_event_is_read_as_it_is_and_all_others_beside_it(
    tmp_path: Path, column: str, text: str | bytes
) -> None:
    """By whatever way: all, by tags and types, many reads at once."""
    path = tmp_path / "log.db"
    log = await SqliteLog.open(path)
    await log.append([Append(tuple(event(f"t:{n % 3}") for n in range(12)))])
    damage(path, f"{column} = CAST(? AS TEXT) WHERE position = 5", text)
    pages = [
        await log.read(),
        await log.read(EventQuery.of(["Moved"])),
        await log.read(EventQuery.of(tags=["t:1"])),
    ]
    pages += await asyncio.gather(
        *(log.read(EventQuery.of(["Moved"], [f"t:{n}"]), limit=20) for n in range(3))
    )
    assert [len(page.events) for page in pages] == [12, 12, 4, 4, 4, 4]
    assert {page.upto for page in pages} == {12}
    for page in pages:
        for stored in page.events:
            if stored.position != 5:
                require_whole(stored)
                assert time_of(stored) == metadata_of(stored).time
                continue
            assert bytes(getattr(stored, column)) == (
                text if isinstance(text, bytes) else text.encode()
            )
            with pytest.raises(UndecodableEvent) as told:
                require_whole(stored)
            assert told.value.position == 5
    assert any(stored.position == 5 for stored in pages[2].events)
    await log.close()


async def test_damaged_tags_are_named(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    log = await SqliteLog.open(path)
    await log.append([Append((event("t:1"), event("t:2")))])
    damage(path, "tags = '[' WHERE position = 2")
    with pytest.raises(UndecodableEvent) as told:
        await log.read()
    assert told.value.position == 2
    await log.close()


async def test_a_log_whose_head_was_set_back(tmp_path: Path) -> None:
    """It says so, when it is opened and when it appends, and nothing is lost."""
    path = tmp_path / "log.db"

    def put(head: int) -> None:
        database = sqlite3.connect(path)
        with database:
            database.execute("UPDATE log SET head = ?", (head,))
        database.close()

    log = await SqliteLog.open(path)
    await log.append([Append((event(),)) for _ in range(3)])
    put(1)
    with pytest.raises(LogUnusable, match="set back by hand"):
        await log.append([Append((event(),))])
    with pytest.raises(LogUnusable, match="last_event: 3"):
        await SqliteLog.open(path)
    put(3)
    assert await log.append([Append((event(),))]) == [Appended(4, 4)]
    await log.close()
