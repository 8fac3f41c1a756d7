"""Queries: a typed question, the function that answers it, and how fresh the answer is.

An application wires the read side so::

    store = SqliteViews(Database(path, durable=False))   # or owned=False on the log's database
    engine = Engine(log, codec, store, projections)
    await engine.open(); await engine.start()
    queries = Queries(log, codec, [engine], answers)
    found = await queries.ask(OrdersOf("ada"), after=token)
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeGuard, TypeVar, get_args, get_origin

from msgspec import Struct

from diptych.codec import Codec
from diptych.errors import (
    DefinitionError,
    DiptychError,
    Invalid,
    StaleAnswer,
    UnknownMessage,
    place,
    raised,
)
from diptych.log import Log, Token
from diptych.messages import (
    Actor,
    Query,
    actor_of,
    everybody_may,
    require_kind,
)
from diptych.read.events import Events
from diptych.read.following.engine import Engine
from diptych.read.freshness import Asked, QueryMeasures
from diptych.read.kinds import bare
from diptych.read.port import Found, View, definition_of
from diptych.read.present import Present
from diptych.read.status import age_after
from diptych.signatures import Signature, members, signature_of
from diptych.telemetry.metrics import Telemetry

if TYPE_CHECKING:
    from sqlalchemy import Executable

    from diptych.read.select import SelectOf

R = TypeVar("R")
V = TypeVar("V", bound=View)


class Answer(Struct, Generic[R], frozen=True):
    """What a query was answered, and how fresh that is.

    ``as_of`` is the log position that every view used had reached, ``age`` (seconds) that of the
    oldest event after it, 0.0 where it is the log's head. ``stale``: the token was not reached in
    time. ``token`` stands for ``as_of``.
    """

    value: R
    as_of: int
    age: float
    stale: bool
    token: Token


class Look(Struct, frozen=True):
    """An answer, and what it rests on: the projections of the views read, and the log or not."""

    value: Any
    as_of: int
    projections: frozenset[str]
    reads_log: bool


class Views:
    """The views, for one query: each read first waits for the query's token."""

    def __init__(
        self,
        engines: Sequence[Engine],
        owners: dict[type[View], tuple[Engine, str]],
        position: int,
        deadline: float,
    ) -> None:
        self._engines = engines
        self._owners = owners
        self._position = position
        self._deadline = deadline
        self.waited = 0.0
        self.as_of: int | None = None
        self.stale = False
        self.used: set[str] = set()

    async def all(self, statement: SelectOf[V]) -> list[V]:
        """Return the rows of a select of one view."""
        return await self._read(statement)

    async def first(self, statement: SelectOf[V]) -> V | None:
        """Return the first row, or None."""
        found: list[V] = await self._read(_limited(statement, 1))
        return found[0] if found else None

    async def one(self, statement: SelectOf[V]) -> V:
        """Return the only row; ``Invalid`` when there is none, or more than one."""
        found: list[V] = await self._read(_limited(statement, 2))
        if len(found) != 1:
            raise Invalid(
                "The statement was to find exactly one row",
                field="statement",
                rule="one row",
                found="none" if not found else "more than one",
            )
        return found[0]

    async def get(self, view: type[V], key: Any) -> V | None:
        """Return the row of a key (a tuple where the view has several key fields), or None."""
        engine, names = self._kept((view,))
        found = await self._fresh(engine, names, lambda: engine.store.get(view, key))
        row: V | None = found.rows[0] if found.rows else None
        return row

    async def rows(self, statement: Executable) -> list[tuple[Any, ...]]:
        """Return the rows of any select over views, as tuples."""
        return await self._read(statement, as_view=False)

    async def _read(self, statement: Any, *, as_view: bool = True) -> list[Any]:
        engine, names, planned = self._plan(statement)
        read = engine.store.all if as_view else engine.store.rows
        found = await self._fresh(engine, names, lambda: read(planned))
        rows: list[Any] = found.rows
        return rows

    def _plan(self, statement: Any) -> tuple[Engine, set[str], Any]:
        """Return whose views a statement reads, and the statement as that store takes it."""
        if getattr(statement, "is_dml", False):
            raise Invalid(
                "A query reads; rows are written by projections",
                field="statement",
                rule="a select",
                got=statement,
            )
        for engine in self._engines:
            planned = engine.store.plan(statement)
            kept, names = self._kept(engine.store.views_of(planned))
            if kept is engine:
                return engine, names, planned
        raise Invalid(
            "There is no view to be read here; the application keeps none",
            field="statement",
            rule="a view that is projected",
        )

    def _kept(self, views: Iterable[type[View]]) -> tuple[Engine, set[str]]:
        """Return the engine that keeps these views, and its projections that do."""
        engine: Engine | None = None
        names: set[str] = set()
        for view in views:
            owner = self._owners.get(view)
            if owner is None:
                raise Invalid(
                    "No projection keeps this view in the application",
                    field="statement",
                    rule="a view that is projected",
                    view=view.__name__,
                    at=definition_of(view).at,
                )
            if engine is not None and owner[0] is not engine:
                raise Invalid(
                    "A statement reads views of one read database; ask each by a statement of its "
                    "own, and join the answers in Python",
                    field="statement",
                    rule="one read database",
                    views=", ".join(sorted(each.__name__ for each in views)),
                )
            engine = owner[0]
            names.add(owner[1])
        if engine is None:
            engine = self._engines[0]
        return engine, names

    async def _fresh(
        self, engine: Engine, names: set[str], read: Callable[[], Awaitable[Found]]
    ) -> Found:
        """Read from the versions that are live, when the token is reached, or cannot be in time."""
        while True:
            instances, turn = await engine.versions.readable(names, engine.log, self._deadline)
            self.used |= instances
            engine.spans.require_own(instances)
            if self._position:
                await self._reach(engine, instances)
            try:
                found = await read()
            except DiptychError:
                if not await engine.versions.refresh():
                    raise
                continue  # a version has been dropped meanwhile
            if found.turn != turn:
                await engine.versions.refresh()
                continue  # another version is live
            reached = self._position and min(
                (found.positions.get(name, 0) for name in instances), default=self._position
            )
            if reached >= self._position or self.stale:
                self._note(instances, found.positions)
                return found
            # What was there is there no more: the database has crashed, or failed over.
            await engine.doubt()
            self.stale = time.monotonic() > self._deadline

    async def _reach(self, engine: Engine, names: set[str]) -> None:
        began = time.perf_counter()
        if not await engine.wait_for(names, self._position, self._deadline):
            self.stale = True
        self.waited += time.perf_counter() - began

    def _note(self, names: set[str], positions: dict[str, int]) -> None:
        for name in names:
            reached = positions.get(name, 0)
            self.as_of = reached if self.as_of is None else min(self.as_of, reached)


def _limited(statement: Any, most: int) -> Any:
    limit = getattr(statement, "limit", None)
    if limit is None:
        raise Invalid(
            "That is no select; write select(View)",
            field="statement",
            rule="select(View)",
            got=statement,
        )
    return limit(most)


# --- definitions ----------------------------------------------------------------------------------


class Answering(Struct, frozen=True):
    """A function that answers a type of query; ``asks`` tells what each parameter gets."""

    query: type[Query[Any]]
    function: Callable[..., Any]
    asks: tuple[str, ...]
    is_async: bool
    at: str


def answering(function: Callable[..., Any]) -> Answering:
    """Define what a module's ``answers`` decorates; ``DefinitionError`` when it cannot be used."""
    signature = signature_of(function)
    asks: list[str] = []
    query: type[Query[Any]] | None = None
    for parameter in signature.parameters:
        annotation = parameter.annotation
        if annotation is Views:
            asks.append("views")
        elif annotation is Events:
            asks.append("events")
        elif query is None and _is_query(annotation):
            query = annotation
            asks.append("query")
        else:
            raise DefinitionError(
                "An answer takes one query, and Views or Events",
                at=signature.at,
                parameter=parameter.name,
            )
    if query is None:
        raise DefinitionError("An answer takes the query that it answers", at=signature.at)
    _check_result(signature, query)
    return Answering(
        query, function, tuple(asks), inspect.iscoroutinefunction(function), signature.at
    )


def _is_query(annotation: Any) -> TypeGuard[type[Query[Any]]]:
    return isinstance(annotation, type) and issubclass(annotation, Query)


def result_of(query: type[Query[Any]]) -> Any:
    """Return R of a ``class X(Query[R])``."""
    for cls in query.__mro__:
        for base in getattr(cls, "__orig_bases__", ()):
            if get_origin(base) is Query and not isinstance(get_args(base)[0], TypeVar):
                return get_args(base)[0]
    raise DefinitionError(
        "A query says what it is answered with: class OrdersOf(Query[list[OrderSummary]])",
        at=place(query),
    )


def _check_result(signature: Signature, query: type[Query[Any]]) -> None:
    promised = result_of(query)
    if set(members(bare(signature.returns))) != set(members(bare(promised))):
        raise DefinitionError(
            "An answer's return annotation is what its query promises",
            at=signature.at,
            promised=promised,
            got=signature.returns,
        )


def check_answers(answers: Iterable[Answering], queries: Iterable[type[Query[Any]]] = ()) -> None:
    """Check that each query has exactly one answer."""
    found: dict[type, Answering] = {}
    for one in answers:
        if (other := found.setdefault(one.query, one)) is not one:
            raise DefinitionError(
                "Two functions answer the same query",
                at=one.at,
                query=one.query.__name__,
                other=other.at,
            )
    for query in queries:
        if query not in found:
            raise DefinitionError(
                "No function answers this query; write one and decorate it with answers",
                at=place(query),
                query=query.__name__,
            )


# --- asking ---------------------------------------------------------------------------------------


class Queries:
    """Answers the queries of one application."""

    def __init__(
        self,
        log: Log,
        codec: Codec,
        engines: Sequence[Engine],
        answers: Sequence[Answering],
        require_allowed: Callable[[Actor | None, Query[Any]], None] = everybody_may,
        *,
        telemetry: Telemetry | None = None,
    ) -> None:
        check_answers(answers)
        self._require_allowed = require_allowed
        self._measures = QueryMeasures(telemetry or Telemetry())
        self._log = log
        self._codec = codec
        self._engines = engines
        self._answers = {one.query: one for one in answers}
        self._events = Events(log, codec)
        self._present = Present(log)
        self._owners = {
            view: (engine, one.name)
            for engine in engines
            for one in engine.projections.values()
            for view in one.views
        }

    def views(self, position: int = 0, deadline: float = 0.0) -> Views:
        """Return the views, to be read when they reach a position, or the deadline is over."""
        return Views(self._engines, self._owners, position, deadline)

    async def ask(
        self,
        query: Query[R],
        *,
        actor: Actor | str | None = None,
        after: Token | str | None = None,
        wait: float = 5.0,
        strict: bool = False,
    ) -> Answer[R]:
        """Answer a query, after waiting at most ``wait`` seconds until its views reach ``after``.

        ``after``: a token, or the text of one, as a client passes it on.
        Not reached in time: the answer is ``stale``, or with ``strict`` it is ``StaleAnswer``.
        Raises ``Invalid``, ``UnknownMessage``, what the rules say, and ``ForeignCheckpoint`` for a
        token of another log or beyond the head of this one.
        """
        with self._measures.asked(query) as asked:
            return await self._ask(query, actor, after, wait, strict, asked)

    async def _ask(
        self,
        query: Query[R],
        actor: Actor | str | None,
        after: Token | str | None,
        wait: float,
        strict: bool,
        asked: Asked,
    ) -> Answer[R]:
        answer = self._answering(query)
        clean, _ = self._codec.validate(query)
        self._require_allowed(actor_of(actor), clean)
        after = _token(after)
        if type(wait) not in (int, float) or not wait >= 0:
            raise Invalid("That is no time to wait", field="wait", rule="seconds", got=repr(wait))
        position = 0 if after is None else after.position
        head = 0
        if after is not None or answer.asks != _USUAL:
            # What is read from the log itself is as of the head before.
            head = await self._log.head()
        if after is not None:
            after.require_reachable(self._log.identity, head)
        views = self.views(position, time.monotonic() + wait)
        value = await self._value(answer, clean, views)
        if after is not None:
            asked.waited = views.waited
        if views.stale:
            asked.outcome = "stale"
        if views.stale and strict:
            raise StaleAnswer(
                "The views have not reached the token in time; ask again, or without strict",
                position=position,
                reached=views.as_of,
                waited=wait,
            )
        now = head if views.as_of is None and head else await self._present.head()
        as_of, age = now if views.as_of is None else views.as_of, 0.0
        if as_of < now:
            age = await age_after(self._log, as_of)
        return Answer(value, as_of, age, views.stale, Token(self._log.identity, as_of))

    async def look(self, query: Query[Any]) -> Look:
        """Answer a query as things are now, and tell what the answer rests on."""
        answer = self._answering(query)
        views = self.views()
        head = 0 if answer.asks == _USUAL else await self._log.head()
        value = await self._value(answer, query, views)
        as_of = head if views.as_of is None else views.as_of
        return Look(value, as_of, frozenset(views.used), "events" in answer.asks)

    def _answering(self, query: Query[Any]) -> Answering:
        answer = self._answers.get(type(query))
        if answer is None:
            require_kind(query, Query)
            raise UnknownMessage(
                "There is no answer to this query in the application", name=type(query).__name__
            )
        return answer

    async def _value(self, answer: Answering, query: Query[Any], views: Views) -> Any:
        try:
            if answer.asks == _USUAL:
                value: Any = answer.function(query, views)
            else:
                given = {"query": query, "views": views, "events": self._events}
                value = answer.function(*[given[ask] for ask in answer.asks])
            return await value if answer.is_async else value
        except Exception:
            raise
        except BaseException as error:
            raise raised(error, awaited=answer.is_async, at=answer.at) from error


_USUAL = ("query", "views")


def _token(given: Token | str | None) -> Token | None:
    if given is None or isinstance(given, Token):
        return given
    return Token.parse(given)


__all__ = [
    "Answer",
    "Answering",
    "Events",
    "Look",
    "Queries",
    "Views",
    "answering",
    "check_answers",
    "result_of",
]
