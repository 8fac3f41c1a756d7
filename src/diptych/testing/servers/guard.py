"""The owner's end of a guard: a process that runs a server, and ends it when its owner is gone."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from diptych.errors import ServerUnusable
from diptych.testing.servers import watchdog


class Guard:
    """The owner's end: a folder of its own, and the programs that run there.

    ``base`` is the folder to make it in (default: that of ``tempfile``), ``user`` the name of the
    one who runs the programs (default: the owner). Any thread may call.
    """

    def __init__(self, *, base: str | None = None, user: str | None = None) -> None:
        self._lock = threading.Lock()
        # A session of its own: Ctrl-C at a terminal is for the owner, who then closes the pipe.
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-I",
                "-S",
                watchdog.__file__,
                base or tempfile.gettempdir(),
                user or "",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.pid = self._process.pid
        self.folder = Path(self._answer()["folder"])

    def run(self, *command: str | Path) -> int | None:
        """Run a program to its end and return its status; what it prints goes to the log."""
        return self._ask("run", command)

    def start(self, *command: str | Path, port: int | None = None) -> int | None:
        """Start a server and wait until it is ready; return its status if it ended instead.

        With ``port`` it is ready when it can be connected to there; without, it is a postmaster.
        """
        return self._ask("start", command, port=port)

    def stop(self) -> bool:
        """Stop the postmaster by a fast shutdown; say whether it has stopped."""
        return self._ask("stop") is not None

    def kill(self) -> None:
        """Send SIGKILL to the postmaster and all its children, and wait until they are gone."""
        self._ask("kill")

    def log(self) -> str:
        """Return what the programs have printed so far."""
        with suppress(FileNotFoundError):
            return (self.folder / watchdog.LOG).read_text(errors="replace")
        return ""

    def close(self) -> None:
        """End the programs, remove the folder, and wait until that is done."""
        with suppress(BrokenPipeError), self._process:
            pass

    def _ask(
        self, verb: str, command: Sequence[str | Path] = (), port: int | None = None
    ) -> int | None:
        with self._lock:
            assert self._process.stdin is not None
            request = {"verb": verb, "command": [str(word) for word in command], "port": port}
            with suppress(BrokenPipeError):  # the missing answer tells
                self._process.stdin.write(json.dumps(request) + "\n")
                self._process.stdin.flush()
            status: int | None = self._answer()["status"]
            return status

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ServerUnusable("The guard of a server for tests has died", pid=self.pid)
        answer: dict[str, Any] = json.loads(line)
        return answer
