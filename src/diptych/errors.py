"""Every error of the library: one root, one class a failure, facts as attributes.

A message states the rule first, then the facts in brackets, then the remedy. ``code`` is stable:
programs may compare it, and every code has an entry in ``docs/reference/errors.md``.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable
from typing import Any


class DiptychError(Exception):
    """The root of all errors of the library."""

    code: str = "diptych"

    def __init__(self, message: str, /, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.facts: dict[str, Any] = facts

    def __getattr__(self, name: str) -> Any:
        # Only called for what is not an attribute of its own.
        facts: dict[str, Any] = self.__dict__.get("facts", {})
        if name in facts:
            return facts[name]
        raise AttributeError(f"{type(self).__name__!r} has no attribute or fact {name!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        # Subclasses have required keywords, which Exception's own way of copying forgets.
        return _restored, (type(self), self.args, self.__dict__)

    def __str__(self) -> str:
        if not self.facts:
            return self.message
        listed = ", ".join(f"{name}: {text_of(value)}" for name, value in self.facts.items())
        return f"{self.message} ({listed})"


def outcome_of(error: BaseException) -> str:
    """Return the word for an error that figures are kept by: a stable code, or ``error``."""
    if isinstance(error, Rejected):  # its code is the application's own, one a rule
        return "rejected"
    return error.code if isinstance(error, DiptychError) else "error"


def _restored(
    kind: type[DiptychError], args: tuple[Any, ...], state: dict[str, Any]
) -> DiptychError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


def text_of(thing: object) -> str:
    """Return a thing as text, whatever its own code does when it is asked for one."""
    try:
        return f"{thing}"
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return f"({type(thing).__name__}, whose text cannot be had: {type(error).__name__})"


def said(error: BaseException) -> str:
    """Return the kind of an error and what it says; its kind alone where it says nothing."""
    if isinstance(error, FunctionFailed) and error.__cause__ is not None:
        error = error.__cause__
    text = text_of(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def raised(error: BaseException, *, awaited: bool = False, **facts: Any) -> Exception:
    """Return what a function of the application raised, as an ``Exception``.

    What is none (SystemExit, CancelledError, …) would end a task or the process; the function has
    merely failed. Only ``KeyboardInterrupt`` comes through, and of a function that was
    ``awaited`` the cancellation of the task that waits.
    """
    if isinstance(error, Exception):
        return error
    if isinstance(error, KeyboardInterrupt):
        raise error
    if awaited:
        from asyncio import CancelledError, current_task  # a command's help needs none

        task = current_task()
        if isinstance(error, CancelledError) and (task is None or task.cancelling()):
            raise error
    failure = FunctionFailed(
        "A function raised what would end a task or the process; it was taken for a failure",
        why=said(error),
        **facts,
    )
    failure.__cause__ = error
    return failure


def guarded(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a function of which nothing comes out but a value or an ``Exception``."""

    def guard(given: Any) -> Any:
        try:
            return function(given)
        except BaseException as error:
            raise raised(error) from error

    return guard


# --- answers to a command -------------------------------------------------------------------------


class Rejected(DiptychError):
    """A business rule said no: an expected answer, not a fault. Raised by decisions.

    ``reason`` is for people; ``code`` is for programs (by default the reason in kebab-case, so give
    one when the reason has variable parts); every further keyword is a fact about the case.
    """

    def __init__(self, reason: str, /, *, code: str | None = None, **facts: Any) -> None:
        super().__init__(reason, **facts)
        self.reason = reason
        self.code = code or re.sub(r"[^a-z0-9]+", "-", reason.lower()).strip("-")


class Invalid(DiptychError):
    """Input that does not have the shape its type asks for: names the field and the rule."""

    code = "invalid"

    def __init__(self, message: str, /, *, field: str, rule: str, **facts: Any) -> None:
        super().__init__(message, field=field or "(the whole message)", rule=rule, **facts)
        self.field = field
        self.rule = rule


class NotAuthenticated(DiptychError):
    """A rule asks who acts, and nobody said so. Nothing was done."""

    code = "not-authenticated"


class NotAllowed(DiptychError):
    """The actor is known, and the rule says no. Nothing was done."""

    code = "not-allowed"


class RuleFailed(DiptychError):
    """A rule raised, or said neither True nor False: a fault in that function. Nothing was done."""

    code = "rule-failed"


class Conflict(DiptychError):
    """The append condition failed: an event that matters to this decision came in between."""

    code = "conflict"

    def __init__(self, message: str, /, *, position: int, **facts: Any) -> None:
        super().__init__(message, position=position, **facts)
        self.position = position


class KeyReused(DiptychError):
    """An idempotency key was used before, with other content or by another actor."""

    code = "key-reused"


class Overloaded(DiptychError):
    """A queue is full. Nothing was done; try again later, or send less at a time."""

    code = "overloaded"


class OutcomeUnknown(DiptychError):
    """The connection was lost at COMMIT and the log cannot be reached: stored or not."""

    code = "outcome-unknown"


class Unavailable(DiptychError):
    """The database cannot be reached, or refuses work. Nothing was stored."""

    code = "unavailable"


class DecisionFailed(DiptychError):
    """A decision or a model raised something else than ``Rejected``: a fault in that function."""

    code = "decision-failed"


class FunctionFailed(DiptychError):
    """A function of the application raised what is no ``Exception``: a fault in that function."""

    code = "function-failed"


# --- definitions ----------------------------------------------------------------------------------


class DefinitionError(DiptychError):
    """A function or type cannot be used as declared. Found at start-up; names file and line."""

    code = "definition"

    def __init__(self, message: str, /, *, at: str, **facts: Any) -> None:
        super().__init__(message, at=at, **facts)
        self.at = at


class UnknownMessage(DiptychError):
    """No command, query or event of that name is registered in this application."""

    code = "unknown-message"


class UndecodableEvent(DiptychError):
    """A stored event does not fit its type: it was written by another version of the type."""

    code = "undecodable-event"


def place(thing: Any) -> str:
    """Return ``file:line`` of a function or class, or its name where there is no source."""
    code = getattr(inspect.unwrap(thing), "__code__", None) if callable(thing) else None
    if code is not None:
        return f"{code.co_filename}:{code.co_firstlineno}"
    try:
        return f"{inspect.getsourcefile(thing)}:{inspect.getsourcelines(thing)[1]}"
    except (OSError, TypeError):
        return f"{getattr(thing, '__module__', '?')}.{getattr(thing, '__qualname__', thing)}"


def raised_at(error: BaseException) -> str:
    """Return ``file:line`` of the application's code where an error was raised; "" if in none.

    What lies beneath it (Python's own modules, installed packages) is passed over, unless there is
    nothing else: the application may be installed, too.
    """
    if isinstance(error, FunctionFailed) and error.__cause__ is not None:
        error = error.__cause__
    found, beneath = "", ""
    traceback = error.__traceback__
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        if not file.startswith((_HOUSE, "<")):
            beneath = f"{file}:{traceback.tb_lineno}"
            if not file.startswith(_STDLIB) and "site-packages" not in file:
                found = beneath
        traceback = traceback.tb_next
    return found or beneath


_HOUSE = os.path.dirname(__file__) + os.sep
_STDLIB = os.path.dirname(os.__file__) + os.sep


def calling() -> str:
    """Return ``file:line`` of the nearest caller outside the library."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith("diptych."):
        frame = frame.f_back
    return "?" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


# --- log and read side ----------------------------------------------------------------------------


class LogUnusable(DiptychError):
    """The log cannot be opened or used like this (fork, network file system, foreign file)."""

    code = "log-unusable"


class NoLog(DiptychError):
    """There is no log at an address, and none was to be made."""

    code = "no-log"


class NoViews(DiptychError):
    """Not all views of an application are at an address, and none were to be made."""

    code = "no-views"


class ForeignCheckpoint(DiptychError):
    """A checkpoint or token that does not belong to this log: refused, never silently used."""

    code = "foreign-checkpoint"


class ViewLost(DiptychError):
    """A view's table is not there, although its projection has applied events: refused."""

    code = "view-lost"


class DamagedRow(DiptychError):
    """A stored row of a view cannot be read as its type says: somebody has changed it."""

    code = "damaged-row"


class ViewNotReady(DiptychError):
    """A view's new version is being built, and the live one has not its columns. Ask again."""

    code = "view-not-ready"


class CheckpointMoved(DiptychError):
    """Another worker moved this checkpoint first; what was computed here has been thrown away."""

    code = "checkpoint-moved"


class ProjectionFailed(DiptychError):
    """A projection's fold or handler raised: it stands still at the event before."""

    code = "projection-failed"


class ProjectionPaused(DiptychError):
    """Somebody has paused a projection: it makes no step until it is resumed."""

    code = "projection-paused"


class StaleAnswer(DiptychError):
    """The read side did not reach the token in time, and the caller asked for nothing less."""

    code = "stale-answer"


class Closed(DiptychError):
    """The application or log has been closed."""

    code = "closed"


class ServerUnusable(DiptychError):
    """A server for tests cannot be had, started or controlled: says what to install or to do."""

    code = "server-unusable"


class TimedOut(DiptychError):
    """A blocking call took longer than it may. A command can have its effect all the same."""

    code = "timed-out"


class BlocksEventLoop(DiptychError):
    """A blocking call was made in a thread where an event loop runs."""

    code = "blocks-event-loop"


class SqliteVersionWarning(UserWarning):
    """The linked SQLite has the WAL-reset bug (fixed in 3.51.3, 3.50.7 and 3.44.6)."""
