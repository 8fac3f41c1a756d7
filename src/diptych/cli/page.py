"""What ``diptych`` and ``diptych --help`` print. It is on the screen before cyclopts is loaded."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Final, NamedTuple

ABOUT: Final = "Work with a Diptych application: its commands, its log, its views."


class Command(NamedTuple):
    """A command, and where in ``diptych.cli`` it is found when it is called."""

    name: str
    where: str
    about: str


COMMANDS: Final = (
    Command("describe", "describe:describe", "Show what the application consists of."),
    Command("do", "messages:do", "Send a command; print where its events lie in the log."),
    Command("ask", "messages:ask", "Send a query; print the answer and how old it is."),
    Command("log", "log:log", "Look into the log: show, tail."),
    Command("serve", "serve:serve", "Serve the application over HTTP."),
    Command("status", "status:status", "Show how far each projection is behind the log."),
    Command("metrics", "metrics:metrics", "Print positions and lag as Prometheus reads them."),
    Command("work", "work:work", "Keep the views current; share the work with others."),
    Command("db", "db:db", "Make the schemas in PostgreSQL: plan, apply, assert."),
    Command("verify", "verify:verify", "Prove that the views applied each event exactly once."),
    Command("parked", "parked:parked", "What cannot be applied: list, show, retry, skip."),
    Command(
        "projections", "projections:projections", "Change views: plan, rebuild, pause, rewind, …"
    ),
)

OPTIONS: Final = {
    "app": "The application, MODULE:NAME; importable from the current folder.",
    "log": "Where the log is: sqlite:///FILE, postgresql://USER@HOST/DATABASE or memory:",
    "views": "Where the views are; the log's URL keeps both in one database. Several: "
    '"main=URL reports=URL".',
    "json": "Answer in JSON on stdout; messages go to stderr.",
    "debug": "Show the traceback of an error.",
}
FLAGS: Final = {"json", "debug"}

STATUS: Final = """\
Exit status
  0    done
  1    the answer is no: rejected, or verify found a difference or parked keys
  2    wrong usage or invalid input
  3    try again: conflict, overloaded, unavailable, stale
  4    a fault
  130  Ctrl-C"""


def variable(option: str) -> str:
    """Return the environment variable that stands in for an option."""
    return f"DIPTYCH_{option.upper()}"


def page() -> str:
    """Return the help on everything."""
    options = [
        (f"--{name}" if name in FLAGS else f"--{name} STR", _told(name, about))
        for name, about in OPTIONS.items()
    ]
    more = [
        ("--help, -h", "Show this; after a command, what it takes."),
        ("--version", "Print the version."),
    ]
    return "\n\n".join(
        (
            "Usage: diptych [OPTIONS] COMMAND …",
            ABOUT,
            _table("Commands", [(command.name, command.about) for command in COMMANDS]),
            _table("Options of every command", options + more),
            STATUS.replace("Exit status", _bold("Exit status")),
        )
    )


def _told(name: str, about: str) -> str:
    return about if name in FLAGS else f"{about} [env: {variable(name)}]"


def _table(title: str, rows: list[tuple[str, str]]) -> str:
    left = max(len(name) for name, _ in rows) + 4
    width = max(shutil.get_terminal_size().columns - left, 20)
    lines = [_bold(title)]
    for name, about in rows:
        first, *rest = _wrapped(about, width)
        lines.append(f"  {name.ljust(left - 2)}{first}")
        lines += [f"{' ' * left}{line}" for line in rest]
    return "\n".join(lines)


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append(word)
        else:
            lines[-1] += f" {word}" if lines[-1] else word
    return lines


def _bold(text: str) -> str:
    plain = not sys.stdout.isatty() or os.environ.get("TERM") == "dumb"
    return text if plain else f"\033[1m{text}\033[0m"
