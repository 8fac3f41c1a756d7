"""The program of a guard: it runs a server's programs in a folder, and removes both in the end.

It is started by its path and knows only the standard library. It takes requests, one JSON object a
line, and gives one answer to each. The end of the pipe, even in the middle of a request, and the
death of its owner mean the same: end the programs, remove the folder, and go.
"""

from __future__ import annotations

import json
import os
import pwd
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypedDict

LOG = "server.log"
"""What the programs print: a file in the folder."""

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)

# Seconds.
TO_START = 120.0
TO_STOP = 120.0
TO_QUIT = 5.0
BETWEEN_LOOKS = 0.005
BETWEEN_LOOKS_AT_OWNER = 0.5


class OwnerGone(Exception):
    """The owner has closed its end of the pipe, or has died."""


class Owner:
    """The process that started this one."""

    def __init__(self) -> None:
        self.pid = os.getppid()

    def speaks(self, seconds: float) -> bool:
        """Wait for up to that many seconds; say whether there is a request, or the pipe's end."""
        # Children that the owner has forked may hold the pipe open after its death.
        if os.getppid() != self.pid:
            raise OwnerGone
        return bool(select.select([sys.stdin], [], [], seconds)[0])

    def request(self) -> dict[str, Any]:
        """Wait for the next request."""
        while not self.speaks(BETWEEN_LOOKS_AT_OWNER):
            pass
        line = sys.stdin.readline()
        if not line:
            raise OwnerGone
        request: dict[str, Any] = json.loads(line)
        return request

    def answer(self, **answer: Any) -> None:
        """Answer a request."""
        with suppress(BrokenPipeError):
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()

    def pause(self) -> None:
        """Wait a moment, unless the owner goes."""
        if self.speaks(BETWEEN_LOOKS):
            raise OwnerGone


def pause() -> None:
    """Wait a moment."""
    time.sleep(BETWEEN_LOOKS)


def until(condition: Callable[[], bool], seconds: float, pause: Callable[[], None]) -> bool:
    """Wait until the condition holds; False when it does not within that many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        pause()
    return True


def processes() -> dict[int, tuple[int, str]]:
    """Return parent and state (R, S, T, Z, …) of every process."""
    found: dict[int, tuple[int, str]] = {}
    if Path("/proc/self/stat").exists():
        for name in os.listdir("/proc"):
            with suppress(OSError):
                if name.isdecimal():
                    stat = Path("/proc", name, "stat").read_text(errors="replace")
                    state, parent = stat.rpartition(") ")[2].split()[:2]
                    found[int(name)] = int(parent), state
        return found
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True
    )
    for line in listed.stdout.splitlines():
        pid, parent, state = line.split()[:3]
        found[int(pid)] = int(parent), state[0]
    return found


def dead(pids: Sequence[int]) -> bool:
    """Say whether none of them runs any more."""
    now = processes()
    return all(now.get(pid, (0, "Z"))[1] == "Z" for pid in pids)


class Programs:
    """The programs of one folder; at most one of them is a postmaster that runs."""

    def __init__(self, folder: Path, user: str) -> None:
        self.folder = folder
        self.user = user
        self._program: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> subprocess.Popen[bytes] | None:
        """What runs."""
        if self._program is not None and self._program.poll() is not None:
            self._program = None
        return self._program

    def launch(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a program: in the folder, with a plain environment, printing to the log."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "LC_", "LANG"))}
        with (self.folder / LOG).open("ab") as log:
            program = self._program = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**kept, "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **identity(self.user),
            )
        return program

    def run(self, command: Sequence[str], owner: Owner) -> int | None:
        """Run a program to its end; None when it does not come in time."""
        program = self.launch(command)
        until(lambda: program.poll() is not None, TO_START, owner.pause)
        return program.poll()

    def start(self, command: Sequence[str], owner: Owner, port: int | None = None) -> int | None:
        """Start the server, unless it runs; None when it is ready, else its status.

        With ``port`` it is ready when it can be connected to; without, it is a postmaster.
        """
        if self.running:
            return None
        postmaster = self.launch(command)

        def ready() -> bool:
            if port is not None:
                with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
                    return True
                return False
            # What pg_ctl waits for: the last line of the pid file (LOCK_FILE_LINE_PM_STATUS).
            with suppress(OSError):
                lines = (self.folder / "data" / "postmaster.pid").read_text().split()
                return lines[:1] == [str(postmaster.pid)] and lines[-1] in ("ready", "standby")
            return False

        if not until(lambda: postmaster.poll() is not None or ready(), TO_START, owner.pause):
            self.kill()
        return postmaster.poll()

    def stop(self, owner: Owner) -> int | None:
        """Shut the postmaster down, clients first; its status, or None when it does not in time."""
        postmaster = self.running
        if postmaster is None:
            return 0
        postmaster.send_signal(signal.SIGINT)
        until(lambda: postmaster.poll() is not None, TO_STOP, owner.pause)
        return postmaster.poll()

    def kill(self) -> None:
        """End what runs and its children as a crash of the machine would."""
        program = self.running
        if program is None:
            return

        def halted() -> bool:
            return processes().get(program.pid, (0, "Z"))[1] in "TtZ"

        # Halted, it starts no further child, and does not notice that one has died.
        program.send_signal(signal.SIGSTOP)
        until(halted, TO_QUIT, pause)
        children = [pid for pid, (parent, _) in processes().items() if parent == program.pid]
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        program.kill()
        program.wait()
        until(lambda: dead(children), TO_QUIT, pause)

    def quit(self) -> None:
        """End what runs; a postmaster frees its shared memory first, when it can."""
        program = self.running
        if program is not None:
            program.send_signal(signal.SIGQUIT)
            until(lambda: program.poll() is not None, TO_QUIT, pause)
            self.kill()


class Identity(TypedDict, total=False):
    """As whom ``subprocess`` runs a program."""

    user: str
    group: int
    extra_groups: list[int]


def identity(user: str | None) -> Identity:
    """Return what makes ``subprocess`` run a program as that user; nothing for none."""
    if not user:
        return {}
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def serve(programs: Programs, owner: Owner) -> NoReturn:
    """Do what the owner asks for, until it is gone."""
    while True:
        request = owner.request()
        status: int | None = 0
        match request["verb"]:
            case "run":
                status = programs.run(request["command"], owner)
            case "start":
                status = programs.start(request["command"], owner, request.get("port"))
            case "stop":
                status = programs.stop(owner)
            case _:
                programs.kill()
        owner.answer(status=status)


def _leave(_signal: int, _frame: FrameType | None) -> None:
    sys.exit()


def main(base: str, user: str) -> None:
    """Make the folder, serve the owner, and leave nothing behind."""
    for number in SIGNALS:
        signal.signal(number, _leave)
    owner = Owner()
    folder = Path(tempfile.mkdtemp(prefix="diptych-server-", dir=base))
    programs = Programs(folder, user)
    try:
        if user:
            shutil.chown(folder, user)
        owner.answer(folder=str(folder))
        with suppress(OwnerGone):
            serve(programs, owner)
    finally:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        programs.quit()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
