"""`diptych work` and `diptych status --watch`: processes of their own, until told to end."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli

MAIN = (
    sys.executable,
    "-W",
    "ignore",
    "-c",
    # Tests that a shell runs in its background have inherited that Ctrl-C is ignored.
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from diptych.cli import main; sys.exit(main())",
)


@contextmanager
def running(*words: str) -> Generator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*MAIN, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),  # else readline's COLUMNS would be there, too
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def seen(process: subprocess.Popen[str], holds: Callable[[Any], bool]) -> Any:
    """Read lines of JSON until one of them holds."""
    assert process.stdout is not None
    for line in process.stdout:
        found = json.loads(line)
        if holds(found):
            return found
    raise AssertionError(process.stderr.read() if process.stderr else "it has ended")


def ended(process: subprocess.Popen[str], by: signal.Signals) -> int:
    process.send_signal(by)
    process.communicate(timeout=60)
    return process.returncode


def one(found: Any) -> Any:
    (only,) = found["projections"]
    return only


WORK = ("work", "--json", "--every", "0.05")


def test_a_worker_keeps_the_views_current_until_it_is_told_to_end(filled: Cli) -> None:
    with running(*WORK, "--verify-every", "0.1") as worker:
        seen(worker, lambda found: one(found)["lag"] == 0 and one(found)["workers"] == 1)
        filled("do", "Place", "order=4", "customer=ada", "total=1")
        seen(worker, lambda found: one(found)["position"] == 4)
        proved = seen(worker, lambda found: (one(found)["proved"] or {}).get("position") == 4)
        assert one(proved)["proved"]["ok"] is True
        assert one(filled("status", "--json").json)["workers"] == 1
        assert ended(worker, signal.SIGTERM) == 0
    assert one(filled("status", "--json").json)["workers"] == 0


def test_two_workers_share_and_one_goes_on_alone(filled: Cli) -> None:
    def spans(found: Any) -> list[int]:
        return [span["first"] for span in one(found)["spans"]]

    with running(*WORK) as first, running(*WORK) as second:
        seen(first, lambda found: one(found)["workers"] == 2 and spans(found) == [0, 32])
        filled("do", "Place", "order=4", "customer=ada", "total=1")
        seen(second, lambda found: one(found)["position"] == 4)
        assert ended(second, signal.SIGINT) == 130
        seen(first, lambda found: one(found)["workers"] == 1 and spans(found) == [0])
        first.kill()
        first.communicate()
    assert filled("verify").status == 0


def test_watching_goes_on_until_it_is_told_to_end(filled: Cli) -> None:
    with running("status", "--watch", "--json", "--every", "0.05") as watch:
        seen(watch, lambda found: one(found)["state"] == "no worker")
        filled("ask", "HowMany")
        seen(watch, lambda found: one(found)["state"] == "current")
        assert ended(watch, signal.SIGINT) == 130
    with running("status", "--watch", "--every", "0.05") as watch:
        assert watch.stdout is not None
        lines = [next(watch.stdout) for _ in range(9)]
        assert sum(line.startswith("log ") for line in lines) >= 2
        assert "events/s" in lines[1]
        assert ended(watch, signal.SIGINT) == 130


def test_an_interrupt_is_written_into_a_line_of_its_own(filled: Cli) -> None:
    """Behind a full line it would make another one, and the first would stay on the screen."""
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [*MAIN, "status", "--watch", "--every", "0.05"])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 40, 160, 0, 0))
    shown = b""
    while b"no worker" not in shown:
        shown += os.read(terminal, 65536)
    os.write(terminal, b"\x03")
    with suppress(OSError):  # Linux's end of a terminal
        while more := os.read(terminal, 65536):
            shown += more
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130
    os.close(terminal)
    assert shown.count(b"^C") == 1
    assert b"\n^C" in shown


def screens(rows: int, columns: int, until: Callable[[str], bool]) -> str:
    """Watch on a terminal of a size until a screen is seen; return it, without colours."""
    child, terminal = pty.fork()
    if child == 0:
        while fcntl.ioctl(1, termios.TIOCGWINSZ, b"\0" * 8)[:2] == b"\0\0":
            pass  # the size is not there yet
        # Readline's COLUMNS and LINES are in the environment of execv, not in this one.
        words = [*MAIN, "status", "--watch", "--every", "0.05"]
        os.execve(sys.executable, words, {**os.environ, "TERM": "xterm"})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
    shown, screen = b"", ""
    while not until(screen):
        shown += os.read(terminal, 65536)
        # Each look goes up over the last one; the last but one is whole.
        looks = re.split(r"(?:\x1b\[1A\x1b\[2K)+", shown.decode(errors="replace"))[:-1]
        screen = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", looks[-1]) if looks else ""
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(terminal)
    return screen.rstrip("\n")


MANY = """
from typing import Annotated
from diptych import App, Command, Event, Key, Tag, View

app = App("many")

class Place(Command):
    order: Annotated[str, Tag("order")]

class Placed(Event):
    order: Annotated[str, Tag("order")]

@app.decides
def place(command: Place) -> list[Event]:
    return [Placed(command.order)]

def project(number: int) -> None:
    class Row(View, table=f"claims_by_policy_{number}"):
        order: Key[str]

    def fold(row: Row | None, event: Placed) -> Row:
        assert number < 9
        return Row(event.order)

    fold.__name__ = fold.__qualname__ = f"claims_by_policy_{number}"
    fold.__annotations__ = {"row": Row | None, "event": Placed, "return": Row}
    app.projects(Row)(fold)

for number in range(10):
    project(number)
"""


@pytest.mark.parametrize(("rows", "columns"), [(30, 80), (10, 80), (10, 50), (12, 160)])
def test_what_is_wrong_is_on_every_screen(
    cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch, rows: int, columns: int
) -> None:
    """Of ten projections the last one has a parked key; what does not fit is counted."""
    (folder / "cli_many.py").write_text(MANY)
    many = ("--app", "cli_many:app")
    assert cli(*many, "do", "Place", "order=1").status == 0
    assert cli(*many, "projections", "list").status == 0
    with running(*many, *WORK) as worker:
        seen(worker, lambda found: found["projections"][-1]["parked_keys"] == 1)
        monkeypatch.setenv("DIPTYCH_APP", "cli_many:app")
        screen = screens(rows, columns, lambda screen: "parked" in screen)
        assert ended(worker, signal.SIGTERM) == 0
    lines = screen.splitlines()
    assert len(lines) < rows
    assert max(map(len, lines)) <= columns
    assert lines[0].startswith("log ")
    assert lines[1] == "claims_by_policy_9: 1 event of 1 key parked"
    shown = [line.split()[0] for line in lines[4:] if line.startswith("claims")]
    assert shown[-1] == "claims_by_policy_9"
    if len(shown) < 10:
        assert lines[-1].startswith(f"… {10 - len(shown)} projections more: ")


@pytest.mark.parametrize(
    "words", [("work", "--every", "0"), ("status", "--watch", "--every", "-1")]
)
def test_a_rate_that_is_none_is_refused(filled: Cli, words: tuple[str, ...]) -> None:
    assert filled(*words).status == 2


def test_a_worker_makes_no_log(cli: Cli, folder: Path) -> None:
    """A mistaken address is to be noticed."""
    said = cli("work", "--log", "sqlite:///mistaken.db", "--json")
    assert (said.status, said.error["code"]) == (2, "no-log")
    assert not (folder / "mistaken.db").exists()


def test_a_time_between_proofs_that_is_none_is_refused(filled: Cli) -> None:
    said = filled("work", "--verify-every", "0", "--json")
    assert (said.status, said.error["facts"]["field"]) == (2, "verify_every")
