"""The system's PgBouncer in transaction mode, on a free port, before a server for tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from contextlib import closing, contextmanager
from urllib.parse import unquote, urlsplit

import pytest

from diptych.testing.servers import PostgresServer
from diptych.testing.servers.guard import Guard
from diptych.testing.servers.installations import NOBODY
from diptych.testing.servers.postgresql import ATTEMPTS, free_port

SESSIONS = 3
"""So few of the server's that transactions of one client change between them."""

CONFIGURATION = """
[databases]
* = host={host} port={port} user={user} {password}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {sessions}
max_client_conn = 500
server_round_robin = 1
server_login_retry = 1
stats_period = 3600
log_connections = 0
log_disconnections = 0
"""


def program() -> str | None:
    """Return PgBouncer's path; distributions put it where only root's PATH leads."""
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


@contextmanager
def pgbouncer(server: PostgresServer) -> Generator[PgBouncer]:
    """Give a PgBouncer before a server; it is gone at the end, whatever happens."""
    found = program()
    if found is None:
        pytest.skip("there is no pgbouncer on PATH: `apt-get install pgbouncer`")
    # It refuses to run as root; and another user does not reach a temporary folder below a home.
    user = NOBODY if os.geteuid() == 0 else None
    with closing(Guard(base="/tmp" if user else None, user=user)) as guard:
        yield PgBouncer(found, guard, server, user)


class PgBouncer:
    """A pooler of its own process."""

    def __init__(
        self, program: str, guard: Guard, server: PostgresServer, user: str | None
    ) -> None:
        to = urlsplit(server.url)
        for _ in range(ATTEMPTS):
            self.port = free_port()
            settings = guard.folder / "pgbouncer.ini"
            settings.write_text(
                CONFIGURATION.format(
                    host=to.hostname,
                    port=server.port,
                    user=unquote(to.username or ""),
                    password=f"password={unquote(to.password)}" if to.password else "",
                    listen=self.port,
                    sessions=SESSIONS,
                )
            )
            # It may hold a password; who runs the program is to read it.
            settings.chmod(0o600)
            if user:
                shutil.chown(settings, user)
            if guard.start(program, settings, port=self.port) is None:
                return
        raise RuntimeError(f"PgBouncer did not start: {guard.log()}")

    def url(self, database: str) -> str:
        """Return the URL by which a database of the server is reached through it."""
        parts = urlsplit(database)
        return parts._replace(netloc=f"{parts.username}@127.0.0.1:{self.port}").geturl()
