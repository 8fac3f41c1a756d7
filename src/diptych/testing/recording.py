"""Recorders: a log, and an opened application, that note every call in a history."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from diptych.codec import Codec
from diptych.errors import (
    Conflict,
    DecisionFailed,
    DiptychError,
    Invalid,
    KeyReused,
    NotAllowed,
    NotAuthenticated,
    Overloaded,
    ProjectionFailed,
    Rejected,
    RuleFailed,
    StaleAnswer,
    Unavailable,
    UnknownMessage,
)
from diptych.log import EVERY_EVENT, Append, Appended, EventQuery, Log, Outcome, Page, Token
from diptych.messages import Actor, Command, Query
from diptych.testing.history import (
    Answer,
    AppendRequest,
    AskRequest,
    Done,
    DoRequest,
    Ending,
    Head,
    HeadRequest,
    History,
    Outcomes,
    ReadRequest,
    Recalled,
    RecallRequest,
    Request,
    Seen,
    Sight,
    Told,
    WaitRequest,
    answered,
    digest_of,
)

R = TypeVar("R")
T = TypeVar("T")

_NOTHING_STORED = (
    Rejected,
    NotAuthenticated,
    NotAllowed,
    RuleFailed,
    Invalid,
    Conflict,
    KeyReused,
    Overloaded,
    Unavailable,
    DecisionFailed,
    ProjectionFailed,
    StaleAnswer,
    UnknownMessage,
)


class _Noting:
    def __init__(self, history: History, client: str) -> None:
        self.history = history
        self.client = client

    async def note(
        self,
        request: Request,
        work: Callable[[], Any],
        answer_of: Callable[[Any], Answer],
        *,
        call: str = "",
    ) -> Any:
        """Note a call, make it, note its answer; raise what it raises."""
        call = self.history.begin(self.client, request, call=call)
        try:
            result = await work()
        except asyncio.CancelledError:
            self.history.end(call, "unknown", error="cancelled")
            raise
        except Exception as error:
            # Only what promises that nothing was stored is a failure; of the rest we know nothing.
            ending: Ending = "failed" if isinstance(error, _NOTHING_STORED) else "unknown"
            code = error.code if isinstance(error, DiptychError) else type(error).__name__
            self.history.end(call, ending, error=code)
            raise
        self.history.end(call, "ok", answer_of(result))
        return result


class Recorder:
    """A log that notes every call and passes it on to another log. See ``diptych.log.Log``."""

    def __init__(self, log: Log, history: History, client: str = "client") -> None:
        self.log = log
        self.history = history
        self.client = client
        self._noting = _Noting(history, client)

    def of(self, client: str) -> Recorder:
        """Return the recorder of another client of the same log."""
        return Recorder(self.log, self.history, client)

    @property
    def identity(self) -> str:
        """The log's own id."""
        return self.log.identity

    async def append(self, batch: Sequence[Append]) -> list[Outcome]:
        """Append a batch."""
        outcomes: list[Outcome] = await self._noting.note(
            AppendRequest(tuple(batch)),
            lambda: self.log.append(batch),
            lambda found: Outcomes(tuple([answered(outcome) for outcome in found])),
        )
        return outcomes

    async def read(
        self,
        query: EventQuery = EVERY_EVENT,
        *,
        after: int = 0,
        until: int | None = None,
        limit: int = 1000,
    ) -> Page:
        """Read a page."""
        page: Page = await self._noting.note(
            ReadRequest(query, after, until, limit),
            lambda: self.log.read(query, after=after, until=until, limit=limit),
            lambda page: Seen(
                tuple([Sight(e.position, e.id, digest_of(e)) for e in page.events]), page.upto
            ),
        )
        return page

    async def head(self) -> int:
        """Return the head."""
        head: int = await self._noting.note(HeadRequest(), self.log.head, Head)
        return head

    async def wait(self, after: int, timeout: float | None = None) -> int:
        """Wait until the head lies after a position."""
        head: int = await self._noting.note(
            WaitRequest(after, timeout), lambda: self.log.wait(after, timeout), Head
        )
        return head

    async def recall(self, keys: Sequence[str]) -> dict[str, Appended]:
        """Return the first answers to keys."""
        found: dict[str, Appended] = await self._noting.note(
            RecallRequest(tuple(keys)),
            lambda: self.log.recall(keys),
            lambda found: Recalled({key: answered(answer) for key, answer in found.items()}),
        )
        return found

    async def close(self) -> None:
        """Close the log."""
        await self.log.close()


class _Definitions(Protocol):
    @property
    def codec(self) -> Codec: ...


class _Running(Protocol):
    """The part of ``diptych.Running`` that is recorded."""

    @property
    def definitions(self) -> _Definitions: ...

    async def do(
        self,
        command: Command,
        *,
        key: str | None = None,
        actor: Actor | str | None = None,
        correlation_id: str | None = None,
        causation_id: str | None = None,
    ) -> Any: ...

    async def ask(
        self,
        query: Query[R],
        *,
        actor: Actor | str | None = None,
        after: Token | None = None,
        wait: float = 5.0,
        strict: bool = False,
    ) -> Any: ...


class AppRecorder:
    """An opened application that notes commands and queries, and passes them on.

    Each command gets a correlation id of its own, by which the checker finds its events again.
    """

    def __init__(self, running: _Running, history: History, client: str = "client") -> None:
        self.running = running
        self.history = history
        self._noting = _Noting(history, client)

    def of(self, client: str) -> AppRecorder:
        """Return the recorder of another client of the same application."""
        return AppRecorder(self.running, self.history, client)

    async def do(
        self, command: Command, *, key: str | None = None, actor: Actor | str | None = None
    ) -> Any:
        """Do a command; return its receipt."""
        call = self.history.new_id()
        return await self._noting.note(
            DoRequest(type(command).__name__, key, call),
            lambda: self.running.do(command, key=key, actor=actor, correlation_id=call),
            lambda r: Done(r.command_id, r.first, r.last, r.replayed),
            call=call,
        )

    async def ask(
        self,
        query: Query[Any],
        *,
        actor: Actor | str | None = None,
        after: Token | None = None,
        wait: float = 5.0,
        strict: bool = False,
    ) -> Any:
        """Ask a query; return its answer."""
        codec = self.running.definitions.codec
        _, data = codec.validate(query)
        return await self._noting.note(
            AskRequest(
                codec.of(type(query)).name,
                msgspec.Raw(data),
                0 if after is None else after.position,
            ),
            lambda: self.running.ask(query, actor=actor, after=after, wait=wait, strict=strict),
            lambda answer: Told(
                msgspec.Raw(plain_json(answer.value)), answer.as_of, bool(answer.stale)
            ),
        )


plain_json = msgspec.json.Encoder(enc_hook=str, order="deterministic").encode
"""JSON of any answer, the same for the same answer."""
