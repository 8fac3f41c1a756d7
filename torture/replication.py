"""A PostgreSQL and its streaming replica, behind one address that leads to the primary.

The replica is connected by a proxy of ours, so that it can be made to lag: what its primary writes
from then on, it never gets.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from typing import Any
from uuid import uuid4

import asyncpg

from diptych.errors import ServerUnusable
from diptych.testing.faults import Proxy
from diptych.testing.servers.guard import Guard
from diptych.testing.servers.installations import Installation, find
from diptych.testing.servers.postgresql import ALWAYS, ATTEMPTS, free_port

SECONDS = 60.0
"""For what has to come at some time: a replica that streams, a promotion."""

BETWEEN_LOOKS = 0.01

INITDB = "--auth=trust --username=postgres --encoding=UTF8 --locale=C --no-sync"
BACKUP = "--host=127.0.0.1 --username=postgres --checkpoint=fast --wal-method=stream --no-sync"

STREAMING = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
MARK = "SELECT pg_logical_emit_message(true, 'torture', 'is it waited for?')"


class Node:
    """One server of the pair, in the folder of a guard. Its methods block."""

    def __init__(self, installation: Installation, guard: Guard) -> None:
        if not installation.reachable:
            installation = installation.copied(guard.folder / "programs")
        self._installation = installation
        self._guard = guard
        self._data = guard.folder / "data"
        self._killed = False
        self.url = ""

    def make(self) -> None:
        """Make an empty one, and start it."""
        self._run("initdb", *INITDB.split(), "-D", str(self._data))
        self._configure(**ALWAYS)
        self._start()

    def copy(self, primary: Node, link: Proxy) -> None:
        """Make a replica of a primary that runs, and have it follow it by a link."""
        port = primary.url.rpartition(":")[2].partition("/")[0]
        self._run("pg_basebackup", *BACKUP.split(), f"--port={port}", "-D", str(self._data))
        self._configure(primary_conninfo=f"host=127.0.0.1 port={link.port} user=postgres")
        signal = self._data / "standby.signal"
        signal.touch()
        if self._installation.user:
            shutil.chown(signal, self._installation.user)
        self._start()

    def kill(self) -> None:
        """Send SIGKILL to all processes of the server at once."""
        self._guard.kill()
        self._killed = True

    def close(self) -> None:
        """Free what a kill has left outside of the folder: shared memory."""
        if self._killed:
            self._guard.run(
                *self._installation.command("postgres", "--single", "-D", self._data, "postgres")
            )

    def _configure(self, **settings: str) -> None:
        with (self._data / "postgresql.conf").open("a") as configuration:
            configuration.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def _start(self) -> None:
        for _ in range(ATTEMPTS):  # somebody may take the port before the server does
            port = free_port()
            command = self._installation.command("postgres", "-D", self._data, "-p", str(port))
            if self._guard.start(*command) is None:
                self.url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
                return
        raise self._failed("PostgreSQL did not start")

    def _run(self, program: str, *arguments: str) -> None:
        if self._guard.run(*self._installation.command(program, *arguments)) != 0:
            raise self._failed(f"{program} failed")

    def _failed(self, what: str) -> ServerUnusable:
        return ServerUnusable(what, log="\n".join(self._guard.log().splitlines()[-8:]))


class Pair:
    """A primary and its replica. ``address`` leads to the primary, ``link`` the replica to it."""

    def __init__(self, primary: Node, replica: Node, address: Proxy, link: Proxy) -> None:
        self._primary = primary
        self._replica = replica
        self.address = address
        self._link = link

    def new_log(self) -> str:
        """Return the URL of a new log at the address."""
        return f"{self.address.url}?schema=log_{uuid4().hex}"

    def lag(self, *, silently: bool) -> None:
        """Let nothing more come to the replica, which is told (its connection is cut) or not."""
        if silently:
            self._link.swallow()
        else:
            self._link.refuse()
            self._link.cut()

    async def kill(self) -> None:
        """Kill the primary, for good."""
        await asyncio.to_thread(self._primary.kill)

    async def promote(self) -> None:
        """Make the replica the primary, to which the address leads from now on."""
        async with _connected(self._replica.url) as replica:
            if not await replica.fetchval(f"SELECT pg_promote(true, {SECONDS:.0f})"):
                raise RuntimeError("the replica was not promoted")
        self.address.redirect(self._replica.url)

    async def make_synchronous(self) -> None:
        """Have commits wait for the replica, and see that they do."""
        async with _connected(self._primary.url) as admin, _connected(self._primary.url) as writer:
            await admin.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            await admin.execute("SELECT pg_reload_conf()")
            waited = False
            async with asyncio.timeout(SECONDS):
                # It is another process than those asked here that sees to it, and it takes a while.
                while not waited:
                    self._link.swallow()
                    mark = asyncio.ensure_future(writer.execute(MARK))
                    while not (mark.done() or waited):
                        waited = bool(await admin.fetchval(WAITING))
                    self._link.restore()
                    await mark

    async def follow(self) -> None:
        """Wait until the replica follows the primary."""
        async with _connected(self._primary.url) as admin, asyncio.timeout(SECONDS):
            while not await admin.fetchval(STREAMING):
                await asyncio.sleep(BETWEEN_LOOKS)


@asynccontextmanager
async def replicated(*, synchronous: bool) -> AsyncGenerator[Pair]:
    """Have a primary with a replica that follows it; both are gone at the end."""
    installation = await asyncio.to_thread(find, "any")
    with _node(installation) as primary, _node(installation) as replica:
        await asyncio.to_thread(primary.make)
        async with Proxy(primary.url) as address, Proxy(primary.url) as link:
            await asyncio.to_thread(replica.copy, primary, link)
            pair = Pair(primary, replica, address, link)
            await pair.follow()
            if synchronous:
                await pair.make_synchronous()
            yield pair


@contextmanager
def _node(installation: Installation) -> Generator[Node]:
    # Another user does not reach a temporary folder that is below a home.
    base = "/tmp" if installation.user else None
    with (
        closing(Guard(base=base, user=installation.user)) as guard,
        closing(Node(installation, guard)) as node,
    ):
        yield node


@asynccontextmanager
async def _connected(url: str) -> AsyncGenerator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await connection.close()
