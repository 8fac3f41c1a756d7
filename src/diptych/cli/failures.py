"""What went wrong, said in few words: on stderr, with a stable code, what to do, an exit status."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cyclopts import CycloptsError

from diptych.errors import (
    CheckpointMoved,
    Closed,
    Conflict,
    DefinitionError,
    DiptychError,
    ForeignCheckpoint,
    Invalid,
    KeyReused,
    LogUnusable,
    NoLog,
    NotAllowed,
    NotAuthenticated,
    NoViews,
    OutcomeUnknown,
    Overloaded,
    ProjectionPaused,
    Rejected,
    StaleAnswer,
    Unavailable,
    UndecodableEvent,
    UnknownMessage,
    ViewLost,
    ViewNotReady,
    said,
)
from diptych.sql.addresses import without_passwords

OK: Final = 0
NO: Final = 1
USAGE: Final = 2
AGAIN: Final = 3
FAULT: Final = 4
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141
"""What a shell shows for a program that ended by SIGPIPE."""

STATUS: Final[dict[type[DiptychError], int]] = {
    Rejected: NO,
    NotAuthenticated: NO,
    NotAllowed: NO,
    Invalid: USAGE,
    UnknownMessage: USAGE,
    DefinitionError: USAGE,
    KeyReused: USAGE,
    ForeignCheckpoint: USAGE,
    LogUnusable: USAGE,
    NoLog: USAGE,
    NoViews: USAGE,
    ViewLost: USAGE,
    Conflict: AGAIN,
    Overloaded: AGAIN,
    Unavailable: AGAIN,
    StaleAnswer: AGAIN,
    ViewNotReady: AGAIN,
    CheckpointMoved: AGAIN,
    ProjectionPaused: AGAIN,
    Closed: AGAIN,
}
"""Errors that are not named here are faults."""

HINTS: Final[dict[type[DiptychError], str]] = {
    NoLog: "check the address; the first `diptych do` makes the log",
    NotAuthenticated: "say who acts: --actor, and --role and --tenant where rules ask for them",
    NotAllowed: "say what the actor is: --role and --tenant",
    NoViews: "check the address; the first `diptych ask` makes the views",
    Conflict: "others changed the same; try again",
    Overloaded: "try again in a moment",
    Unavailable: "nothing was stored; try again",
    UndecodableEvent: "give a field that is new a default; the type of an old one stays as wide; "
    "what is damaged is in a backup, and `diptych log show --after POSITION` shows what follows",
    OutcomeUnknown: "with a --key, send it again with the same: it cannot happen twice; "
    "without one, look first with `diptych log show`",
}


class UsageError(Exception):
    """The command line was not used as it is meant to be."""

    def __init__(self, message: str, /, *, code: str = "usage", hint: str = "", **facts: Any):
        super().__init__(message)
        self.message = message
        self.code = code
        self.hint = hint
        self.facts: dict[str, Any] = facts
        self.trace: list[str] = []


class Failure:
    """One failure as it is shown."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        facts: Mapping[str, Any] | None = None,
        hint: str = "",
        trace: Sequence[str] = (),
    ) -> None:
        self.status = status
        self.code = code
        self.message = message
        self.facts = dict(facts or {})
        self.hint = hint
        self.trace = list(trace)


def report(error: BaseException, arguments: Sequence[str]) -> int:
    """Say what went wrong, as far as there is something to say; return the exit status."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else OK if error.code is None else FAULT
    if isinstance(error, KeyboardInterrupt):
        if sys.stderr.isatty():
            sys.stderr.write("\n")  # after the ^C that the terminal has shown
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):
        _forget_stdout()
        return BROKEN_PIPE
    if "--debug" in arguments:
        sys.stderr.write(without_passwords("".join(traceback.format_exception(error))))
    failure = failure_of(error)
    try:
        sys.stdout.flush()
        _say(failure, as_json="--json" in arguments)
    except BrokenPipeError:
        _forget_stdout()
    return failure.status


def failure_of(error: BaseException) -> Failure:
    """Return how a failure is shown."""
    if isinstance(error, UsageError):
        # What was given may be an address where none belongs.
        facts = {
            name: without_passwords(fact) if isinstance(fact, str) else fact
            for name, fact in error.facts.items()
        }
        return Failure(USAGE, error.code, error.message, facts, error.hint, error.trace)
    if isinstance(error, CycloptsError):
        return Failure(USAGE, "usage", _of_cyclopts(error), hint=_help_for(error))
    if isinstance(error, DiptychError):
        status = next((s for kind, s in STATUS.items() if isinstance(error, kind)), FAULT)
        hint = next((h for kind, h in HINTS.items() if isinstance(error, kind)), "")
        if isinstance(error, Unavailable) and "user" in error.facts:
            hint = "let this user write there, or run as one who may"
        if isinstance(error, DefinitionError) and "known" in error.facts and "store" in error.facts:
            names = [*str(error.facts["known"]).split(", "), error.facts["store"]]
            hint = f'--views "{" ".join(f"{name}=URL" for name in names if name != "none")}"'
        trace = () if error.__cause__ is None or status != FAULT else foreign(error.__cause__)
        return Failure(status, error.code, error.message, error.facts, hint, trace)
    return Failure(
        FAULT,
        "fault",
        said(error),
        hint="--debug shows the whole traceback",
        trace=foreign(error),
    )


def _of_cyclopts(error: CycloptsError) -> str:
    text = without_passwords(" ".join(str(error).split()))
    tokens = error.unused_tokens or []
    if text.startswith("Unknown command") and tokens and tokens[0].startswith("-"):
        return f"Unknown option: {tokens[0]}."
    return text


def _help_for(error: CycloptsError) -> str:
    chain = [name for name in error.command_chain or () if name]
    return " ".join(["diptych", *chain, "--help"]) + " lists what there is"


# --- the user's own code --------------------------------------------------------------------------

_HOUSE = str(Path(__file__).parents[1]) + os.sep
_STDLIB = os.path.dirname(os.__file__) + os.sep
_BENEATH = tuple(f"{os.sep}{name}{os.sep}" for name in ("cyclopts", "sqlalchemy", "rich"))
_LINES = 5


def foreign(error: BaseException) -> list[str]:
    """Return the last places in the user's code that an exception came through; none: []."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((_HOUSE, _STDLIB, "<"))
        and not any(name in frame.filename for name in _BENEATH)
    ]
    if not frames:
        return []
    lines = [f"{f.filename}:{f.lineno} in {f.name}: {f.line}" for f in frames[-_LINES:]]
    return [*lines, "".join(traceback.format_exception_only(error)).strip()]


# --- on stderr ------------------------------------------------------------------------------------


def _say(failure: Failure, *, as_json: bool) -> None:
    if as_json:
        from diptych.cli.screen import as_line

        told: dict[str, Any] = {"code": failure.code, "message": failure.message}
        told["facts"] = failure.facts
        if failure.hint:
            told["hint"] = failure.hint
        if failure.trace:
            told["trace"] = failure.trace
        sys.stderr.write(as_line({"error": told}))
        return
    from diptych.cli.screen import screen

    _show(screen(stderr=True), failure)


def _show(console: Any, failure: Failure) -> None:
    """Print a failure: its code, the message, its facts, where it was, what to do."""
    from rich.text import Text

    from diptych.cli.screen import harmless

    head = Text.assemble((f"error[{failure.code}]", "bold red"), ": ", harmless(failure.message))
    console.print(head, soft_wrap=True)
    width = max((len(name) for name in failure.facts), default=0)
    for name, value in failure.facts.items():
        console.print(
            Text.assemble("  ", (name.ljust(width), "dim"), "  ", harmless(str(value))),
            soft_wrap=True,
        )
    for line in failure.trace:
        console.print(Text(f"  {line}", "dim"), soft_wrap=True)
    if failure.hint:
        console.print(Text.assemble(("  → ", "cyan"), failure.hint), soft_wrap=True)


def _forget_stdout() -> None:
    """Nobody reads any more: what is still buffered goes nowhere, without a word."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
    except (OSError, ValueError):
        pass


def warn(text: str) -> None:
    """Print a line on stderr that is no failure."""
    from rich.text import Text

    from diptych.cli.screen import screen

    screen(stderr=True).print(Text(text, "dim"), soft_wrap=True)
