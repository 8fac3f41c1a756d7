"""The bare floor: conditional appends in group commit on the sqlite3 module, and nothing else.

The same rows (an event, two entries of the index by tag and type, JSON of the same size) and the
same durability, without loading, deciding or encoding anything.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from pathlib import Path
from typing import Any

_DATA = '{"order":"o-000001","product":"tea","quantity":2}'
_ID = "0" * 36
_METADATA = f'{{"time":"2026-01-01T00:00:00Z","command_id":"{_ID}","correlation_id":"{_ID}"}}'


class Floor:
    """One writing thread that takes all that waits and commits it together."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._jobs: queue.SimpleQueue[tuple[str, asyncio.Future[int]] | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def append(self, tag: str) -> asyncio.Future[int]:
        """Append one event unless another of its tag came since this process's last."""
        answer: asyncio.Future[int] = self._loop.create_future()
        self._jobs.put((tag, answer))
        return answer

    async def close(self) -> None:
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        connection = sqlite3.connect(self._path, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(
            "CREATE TABLE events (position INTEGER PRIMARY KEY, id TEXT, type TEXT, tags TEXT,"
            " data TEXT, metadata TEXT);"
            "CREATE TABLE event_tags (tag TEXT, type TEXT, position INTEGER,"
            " PRIMARY KEY (tag, type, position)) WITHOUT ROWID;"
        )
        position, last = 0, dict[str, int]()
        while True:
            batch = [self._jobs.get()]
            while not self._jobs.empty():
                batch.append(self._jobs.get())
            events: list[tuple[Any, ...]] = []
            answers: list[tuple[asyncio.Future[int], int]] = []
            connection.execute("BEGIN IMMEDIATE")
            for job in batch:
                if job is None:
                    continue
                tag, answer = job
                query = "SELECT max(position) FROM event_tags WHERE tag = ? AND type = 'Added'"
                (found,) = connection.execute(query, (tag,)).fetchone()
                assert found is None or found <= last[tag]
                position += 1
                last[tag] = position
                identity = f"{position:036}"
                marks = (("", "Added", position), (tag, "Added", position))
                connection.executemany("INSERT INTO event_tags VALUES (?, ?, ?)", marks)
                events.append((position, identity, "Added", f'["{tag}"]', _DATA, _METADATA))
                answers.append((answer, position))
            connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", events)
            connection.execute("COMMIT")
            self._loop.call_soon_threadsafe(_settle, answers)
            if batch[-1] is None:
                connection.close()
                return


def _settle(answers: list[tuple[asyncio.Future[int], int]]) -> None:
    for answer, position in answers:
        answer.set_result(position)
