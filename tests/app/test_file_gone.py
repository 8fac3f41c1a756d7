"""A SQLite file that is deleted, moved or replaced while it is open takes nothing more."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from diptych.errors import LogUnusable
from diptych.http import service
from diptych.logs.sqlite import SqliteLog
from diptych.sql import inplace
from diptych.sql.room import LEAST, Room
from diptych.testing.contracts.making import event, put
from tests.app.test_away import figures, told
from tests.app.test_databases import Asked, Place, app
from tests.http.conftest import client_of
from tests.logs.on_postgres import until

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the system lets nobody do it")


def deleted(path: Path) -> None:
    path.unlink()


def moved(path: Path) -> None:
    path.rename(path.with_name("elsewhere.db"))


def replaced(path: Path) -> None:
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    copy.replace(path)


def parted(path: Path) -> None:
    """The folder that it is in has got another name."""
    path.parent.rename(path.parent.with_name("other"))


@pytest.mark.parametrize("lose", [deleted, moved, replaced, parted])
async def test_a_command_is_not_acknowledged_that_nobody_would_find(
    tmp_path: Path, lose: Callable[[Path], None]
) -> None:
    """Of a log that is gone from its path; the error says what, where, and what to do."""
    path = tmp_path / "folder" / "log.db"
    path.parent.mkdir()
    async with app.open(log=f"sqlite:///{path}", views="memory:") as running:
        await running.do(Place("1", "ann"))
        lose(path)
        with pytest.raises(LogUnusable, match="deleted, moved or replaced") as caught:
            await running.do(Place("2", "ann"))
        there = "another file" if lose is replaced else "nothing"
        assert caught.value.facts == {"path": str(path), "there": there}
        with pytest.raises(LogUnusable, match="Move it back"):
            await running.log.head()
        assert len(await running.events.read()) == 1  # what was stored can still be saved


async def test_all_commands_of_a_batch_are_refused(tmp_path: Path) -> None:
    """Also where the loop stands still for the batch."""
    path = tmp_path / "log.db"
    async with app.open(log=f"sqlite:///{path}", views="memory:") as running:
        await running.do(Place("1", "ann"))
        path.unlink()
        sent = [running.submit(Place(str(n), "bob")) for n in range(100)]
        answers = await asyncio.gather(*sent, return_exceptions=True)
        assert {type(answer) for answer in answers} == {LogUnusable}


async def test_a_file_that_is_moved_back_is_written_to_again(tmp_path: Path) -> None:
    """The same program goes on, views too, and what it stores then is there."""
    path = tmp_path / "log.db"
    url = f"sqlite:///{path}"
    async with app.open(log=url, views=url) as running:
        await running.do(Place("1", "ann"))
        path.rename(tmp_path / "aside.db")
        with pytest.raises(LogUnusable):
            await running.do(Place("2", "ann"))
        (tmp_path / "aside.db").rename(path)
        receipt = await running.do(Place("3", "ann"))
        answer = await running.ask(Asked(), after=receipt.token, wait=60, strict=True)
        assert [row.order for row in answer.value[0]] == ["1", "3"]
    async with app.open(log=url, views=url) as running:
        assert [e.tags for e in await running.events.read()] == [("order:1",), ("order:3",)]


async def test_health_and_metrics_tell_that_the_log_is_gone(tmp_path: Path) -> None:
    """No request is to come here."""
    path = tmp_path / "log.db"
    url = f"sqlite:///{path}"
    async with app.open(log=url, views=url) as running, client_of(service(running)) as client:
        assert (await client.get("/health/ready")).json()["status"] == "ready"
        path.unlink()
        answer = await client.get("/health/ready")
        assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")
        assert (await figures(running))["diptych_log_up"] == 0


async def test_who_waits_for_the_log_learns_that_it_is_gone(tmp_path: Path) -> None:
    """A follower would wait for ever."""
    path = tmp_path / "log.db"
    log = await SqliteLog.open(path)
    waiting = asyncio.ensure_future(log.wait(0))
    await asyncio.sleep(0)
    path.unlink()
    with pytest.raises(LogUnusable, match="deleted"):
        await waiting
    await log.close()


async def test_views_whose_file_is_gone_are_away(tmp_path: Path) -> None:
    """Commands go on; status says why; moved back, the views catch up."""
    log, views = tmp_path / "log.db", tmp_path / "views.db"
    urls = f"sqlite:///{log}", f"sqlite:///{views}"
    async with (
        app.open(log=urls[0], views=urls[1]) as running,
        client_of(service(running)) as client,
    ):
        receipt = await running.do(Place("1", "ann"))
        await running.ask(Asked(), after=receipt.token, wait=60, strict=True)
        views.rename(tmp_path / "aside.db")
        await running.do(Place("2", "ann"))
        found = {s.projection: (s.state, s.position) for s in await running.status()}
        assert found == {"order": ("away", 1), "customer": ("away", 1)}
        assert str(views) in ((await running.status())[0].error or "")
        health = (await client.get("/health/ready")).json()
        assert (health["status"], health["views"]) == ("degraded", "unavailable")
        (tmp_path / "aside.db").rename(views)

        async def back() -> bool:
            return await told(running) == {
                "order": ("running", 2, 0),
                "customer": ("running", 2, 0),
            }

        await until(back)


async def test_the_folder_that_a_program_works_in_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path is looked at from where it was opened; a link is followed, also to another file."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "a")
    (tmp_path / "a" / "log.db").symlink_to(tmp_path / "real.db")
    log = await SqliteLog.open("log.db")
    monkeypatch.chdir(tmp_path / "b")
    await put(log, event("Moved", "a:1"))
    (tmp_path / "a" / "log.db").unlink()
    (tmp_path / "a" / "log.db").symlink_to(tmp_path / "another.db")
    shutil.copy(tmp_path / "real.db", tmp_path / "another.db")
    with pytest.raises(LogUnusable, match="replaced"):
        await put(log, event("Moved", "a:1"))
    await log.close()
    assert not list((tmp_path / "b").iterdir())


async def test_a_path_that_may_not_be_looked_at_any_more_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that has given up its rights goes on with the file it has open."""
    log = await SqliteLog.open(tmp_path / "log.db")

    def refused(path: str) -> tuple[int, int]:
        raise PermissionError(path)

    monkeypatch.setattr(inplace, "_file_at", refused)
    await put(log, event("Moved", "a:1"))
    await log.close()


def test_room_is_not_made_in_a_new_file(tmp_path: Path) -> None:
    """Where the file is gone and its write-ahead log is not, nothing is put in its place."""
    path = tmp_path / "log.db"
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("CREATE TABLE t (x)")
    writer.execute("INSERT INTO t VALUES (zeroblob(300000))")
    room = Room(path)
    room._size = path.with_name("log.db-wal").stat().st_size - 1
    assert room._size > LEAST
    path.unlink()
    room.keep()
    assert not path.exists()
    writer.close()
