"""Every failure as problem details (RFC 9457), with a status and a stable code.

What concerns the caller is told; what concerns the operator is logged under an id, and the caller
gets that id alone: no stack trace, no path and no address ever leaves.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Struct

from diptych.errors import (
    BlocksEventLoop,
    CheckpointMoved,
    Closed,
    Conflict,
    DamagedRow,
    DecisionFailed,
    DefinitionError,
    DiptychError,
    ForeignCheckpoint,
    FunctionFailed,
    Invalid,
    KeyReused,
    LogUnusable,
    NoLog,
    NotAllowed,
    NotAuthenticated,
    NoViews,
    OutcomeUnknown,
    Overloaded,
    ProjectionFailed,
    ProjectionPaused,
    Rejected,
    RuleFailed,
    ServerUnusable,
    StaleAnswer,
    TimedOut,
    Unavailable,
    UndecodableEvent,
    UnknownMessage,
    ViewLost,
    ViewNotReady,
    said,
)
from diptych.messages import new_id

MEDIA_TYPE: Final = "application/problem+json"

Headers: TypeAlias = list[tuple[bytes, bytes]]

_logger = logging.getLogger("diptych.http")
_encode = msgspec.json.Encoder(enc_hook=str).encode


class Answered(Struct, frozen=True):
    """How a kind of failure is answered.

    ``detail``: what is said in place of the error's own text; "": that text. ``facts``: which of
    the error's facts are told; None: all. ``retry``: seconds after which to try again.
    """

    status: int
    title: str
    detail: str = ""
    facts: tuple[str, ...] | None = ()
    retry: int | None = None


_AGAIN: Final = "Nothing was done. Try again in a moment."

ERRORS: Final[dict[type[DiptychError], Answered]] = {
    Rejected: Answered(409, "A business rule said no", facts=None),
    Invalid: Answered(422, "The input is not valid", facts=("field", "rule")),
    NotAuthenticated: Answered(401, "It is not known who asks", facts=("message",)),
    NotAllowed: Answered(403, "Who asks may not do this", facts=("message",)),
    KeyReused: Answered(422, "The idempotency key was used for something else"),
    UnknownMessage: Answered(404, "There is no such command or query", facts=("name",)),
    ForeignCheckpoint: Answered(410, "The token is not one of this log"),
    Conflict: Answered(503, "Others changed the same, each time", detail=_AGAIN, retry=1),
    Overloaded: Answered(503, "There is too much to do", facts=("waiting", "limit"), retry=1),
    Unavailable: Answered(503, "The database cannot be reached", detail=_AGAIN, retry=2),
    StaleAnswer: Answered(
        503, "The views have not reached the token", facts=("position", "reached"), retry=1
    ),
    ViewNotReady: Answered(
        503, "The view is being built", facts=("view", "position", "head"), retry=2
    ),
    Closed: Answered(503, "The service is being stopped", detail=_AGAIN, retry=2),
    CheckpointMoved: Answered(503, "Another worker was faster", detail=_AGAIN, retry=1),
    OutcomeUnknown: Answered(
        504,
        "It is not known whether it was done",
        detail="The connection to the database was lost. Send it again with the same idempotency "
        "key: it cannot happen twice. Without a key, look first whether it has happened.",
    ),
    TimedOut: Answered(504, "It took too long", facts=("seconds",)),
}
"""Every other error of the library is a fault of the service."""

FAULT: Final = Answered(
    500,
    "The service has failed",
    detail="It has been logged under the id given in instance. It may have been done or not: "
    "send it again with the same idempotency key only.",
)

READ_FAILED: Final = "It has been logged under the id given in instance."
"""What is said of it where nothing was to be done."""

FAULTS: Final[tuple[type[DiptychError], ...]] = (
    DamagedRow,
    DecisionFailed,
    FunctionFailed,
    RuleFailed,
    DefinitionError,
    UndecodableEvent,
    LogUnusable,
    NoLog,
    NoViews,
    ViewLost,
    ProjectionFailed,
    ProjectionPaused,
    ServerUnusable,
    BlocksEventLoop,
)
"""The faults that have a class."""

DOOR: Final[dict[str, Answered]] = {
    "not-found": Answered(404, "There is nothing at this address"),
    "method-not-allowed": Answered(405, "This address does not take that method"),
    "too-large": Answered(413, "It is too large", facts=None),
    "too-deep": Answered(422, "It is nested too deeply", facts=None),
    "media-type": Answered(415, "The body is not of the right media type", facts=None),
    "foreign-host": Answered(421, "This service does not answer to that name"),
    "foreign-origin": Answered(403, "Pages of that origin may not call this service"),
}
"""What only the door refuses."""


class Problem(Exception):
    """A request that the door itself refuses; ``code`` is one of ``DOOR``."""

    def __init__(self, code: str, detail: str, /, *, headers: Headers = [], **facts: Any) -> None:  # noqa: B006  # never changed
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.headers = headers
        self.facts = facts


def answer_to(error: DiptychError) -> Answered:
    """Return how an error of the library is answered."""
    if isinstance(error, UnknownMessage) and "position" in error.facts:
        return FAULT  # an event in the log, not what was asked for
    if isinstance(error, ForeignCheckpoint) and "projection" in error.facts:
        return FAULT  # the service's own checkpoint, not the caller's token
    return next((a for kind, a in ERRORS.items() if isinstance(error, kind)), FAULT)


def problem_of(
    error: BaseException, *, reading: bool = False
) -> tuple[int, dict[str, Any], Headers]:
    """Return status, problem details and headers; a fault is logged.

    ``reading``: nothing was to be done, so there is no doubt whether it was.
    """
    headers: Headers = []
    if isinstance(error, Problem):
        answered, code, detail, facts = DOOR[error.code], error.code, error.detail, error.facts
        kind, headers = code, list(error.headers)
    elif isinstance(error, DiptychError):
        answered, code, detail, facts = answer_to(error), error.code, error.message, error.facts
        kind = "rejected" if isinstance(error, Rejected) else code
    else:
        answered, code, detail, facts, kind = FAULT, "fault", "", {}, "fault"
    told: dict[str, Any] = {
        "type": f"urn:diptych:{kind}",
        "title": answered.title,
        "status": answered.status,
        "detail": answered.detail or detail,
        "code": code,
    }
    if answered is FAULT:
        if reading:
            told["detail"] = READ_FAILED
        told["instance"] = f"urn:uuid:{new_id()}"
        _logger.error("%s: %s", told["instance"], said(error), exc_info=error)
    if shown := _shown(facts, answered.facts):
        told["facts"] = shown
    if answered.retry is not None:
        headers.append((b"retry-after", b"%d" % answered.retry))
    if answered.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    return answered.status, told, headers


def _shown(facts: Mapping[str, Any], names: Sequence[str] | None) -> dict[str, Any]:
    return {
        name: _sayable(value) for name, value in facts.items() if names is None or name in names
    }


def _sayable(fact: Any) -> Any:
    """Return a fact as JSON has it; what JSON cannot say, as text."""
    try:
        return msgspec.Raw(_encode(fact))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return ascii(fact)


def encoded(problem: Mapping[str, Any]) -> bytes:
    """Return problem details as JSON."""
    try:
        return _encode(problem)
    except UnicodeEncodeError:  # half a character, from a text that the caller has sent
        return _encode({name: ascii(v) if isinstance(v, str) else v for name, v in problem.items()})


__all__ = [
    "DOOR",
    "ERRORS",
    "FAULT",
    "FAULTS",
    "MEDIA_TYPE",
    "Answered",
    "Headers",
    "Problem",
    "answer_to",
    "encoded",
    "problem_of",
]
