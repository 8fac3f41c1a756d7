"""A file that this user may only read: it is said so, and what only reads works on a copy."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Annotated

import pytest

from diptych import App, Command, Event, Key, Tag, View
from diptych.app.running import open_log
from diptych.errors import Unavailable

NOBODY = 65534
Name = Annotated[str, Tag("name")]
app = App("copied")


class Add(Command):
    name: Name


class Added(Event):
    name: Name


class Seen(View):
    name: Key[str]


@app.decides
def add(command: Add) -> Iterator[Added]:
    yield Added(command.name)


@app.projects(Seen)
def seen(row: Seen | None, event: Added) -> Seen:
    return Seen(event.name)


@pytest.fixture
def copy() -> Generator[Path]:
    """A folder for a file; within the test nobody's rights count, not those of root."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        yield Path(folder) / "copy.db"
        os.seteuid(os.getuid())
        os.chmod(folder, 0o777)


def lock(file: Path, folder: int) -> None:
    file.chmod(0o444)
    file.parent.chmod(folder)
    if os.geteuid() == 0:
        os.seteuid(NOBODY)


async def filled(file: Path) -> str:
    url = f"sqlite:///{file}"
    async with app.open(log=url, views=url) as running:
        await running.do(Add("a"))
        await running.catch_up()
        # What is imported for these may be out of a nobody's reach.
        await running.status()
        assert all(one.ok for one in await running.verify())
        assert all(one.ok for one in await running.verify_rows())
    return url


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="rights as POSIX has them")
async def test_a_copy_that_can_only_be_read_is_looked_into_and_proved(copy: Path) -> None:
    url = await filled(copy)
    lock(copy, 0o555)
    async with open_log(url) as log:
        assert await log.head() == 1
        assert len((await log.read()).events) == 1
    async with app.open(log=url, views=url, projections=False, create="nothing") as running:
        assert all(one.position == 1 for one in await running.status())
        assert all(one.ok for one in await running.verify())
        assert all(one.ok for one in await running.verify_rows())
        with pytest.raises(Unavailable, match=r"may not be written by this user.*user: \d+"):
            await running.do(Add("b"))


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="rights as POSIX has them")
async def test_a_file_that_may_not_be_written_is_said_to_be_so(copy: Path) -> None:
    """Not that it should be tried again."""
    url = await filled(copy)
    lock(copy, 0o777)
    with pytest.raises(Unavailable, match="may not be written by this user") as told:
        async with app.open(log=url, views=url, projections=False) as running:
            await running.do(Add("b"))
    assert str(copy) in str(told.value.path)
