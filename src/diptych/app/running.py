"""An application at work: its log, its views and both sides, put together and taken apart again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from diptych.app.databases import (
    Create,
    Databases,
    Rebuild,
    ViewsAt,
    Where,
    books_of,
    read_databases,
)
from diptych.app.measuring import note, observed
from diptych.app.modules import Definitions
from diptych.app.proving import proving
from diptych.app.reading import EventsFor
from diptych.app.within import Within
from diptych.codec import Codec
from diptych.errors import DefinitionError, Invalid, Unavailable, calling
from diptych.log import Appended, Log, Token
from diptych.messages import Actor, Command, Query
from diptych.read.control import Projections
from diptych.read.following.engine import Engine
from diptych.read.freshness import ReadMeasures
from diptych.read.live import LiveQueries
from diptych.read.parking.keys import ParkedKeys
from diptych.read.parking.steering import Steering
from diptych.read.projections import Keyed
from diptych.read.queries import Answer, Events, Queries, Views
from diptych.read.status import Status
from diptych.read.versioning.rebuild import Builder
from diptych.telemetry import attach
from diptych.telemetry.metrics import Telemetry
from diptych.telemetry.prometheus import exposition
from diptych.write.bus import CommandBus, Limits
from diptych.write.entry import Receipt

if TYPE_CHECKING:
    from diptych.read.proving.rowcheck import RowVerdict
    from diptych.read.proving.verify import Since, Verdict

R = TypeVar("R")


class Running:
    """An open application. Made by ``App.open``; lives on one event loop.

    ``events`` reads the log, decoded; ``log`` is the port itself. These and ``views`` know no
    rules. ``telemetry`` holds the figures that ``metrics`` tells. ``parked`` is what projections
    could not apply; ``steering`` pauses, resumes and rewinds them; ``projections`` looks after
    their versions.
    """

    def __init__(
        self,
        definitions: Definitions,
        log: Log,
        bus: CommandBus,
        engines: Sequence[Engine],
        builders: Sequence[Builder],
        telemetry: Telemetry,
        unopened: list[Engine],
    ) -> None:
        self.definitions = definitions
        self.log = log
        self.events = Events(log, definitions.codec)
        self._bus = bus
        self._engines = engines
        self._builders = builders
        self._unopened = unopened
        self.projections = Projections(builders)
        allow = definitions.access.require
        self._queries = Queries(
            log, definitions.codec, engines, definitions.answers, allow, telemetry=telemetry
        )
        self._live = LiveQueries(log, definitions.codec, self._queries, engines, allow)
        self.telemetry = telemetry
        self.parked = ParkedKeys(log, definitions.codec, engines)
        self.steering = Steering(log, definitions.codec, engines)

    # --- commands ---------------------------------------------------------------------------------

    async def do(
        self,
        command: Command,
        *,
        key: str | None = None,
        actor: Actor | str | None = None,
        correlation_id: str | None = None,
        causation_id: str | None = None,
    ) -> Receipt:
        """Decide a command and append its events; durable when this returns.

        ``key`` is an idempotency key: the same key gives the first answer again, for ever, be it a
        receipt or a rejection, to the same actor. ``actor`` is who acts, or only his id; the rules
        are asked about him. Raises ``Rejected``, ``NotAuthenticated``, ``NotAllowed``, ``Invalid``,
        ``Conflict``, ``KeyReused``, ``Overloaded``, ``Unavailable``, ``OutcomeUnknown``,
        ``DecisionFailed``, ``RuleFailed``.
        """
        return await self._bus.submit(
            command,
            key=key,
            actor=actor,
            correlation_id=correlation_id,
            causation_id=causation_id,
        )

    def submit(
        self,
        command: Command,
        *,
        key: str | None = None,
        actor: Actor | str | None = None,
        correlation_id: str | None = None,
        causation_id: str | None = None,
    ) -> asyncio.Future[Receipt]:
        """Like ``do``, for many at a time: the future gives the answer.

        Commands of one boundary take effect in the order of these calls. ``Invalid``,
        ``UnknownMessage``, ``Overloaded`` and what the rules say are raised at once.
        """
        return self._bus.submit(
            command,
            key=key,
            actor=actor,
            correlation_id=correlation_id,
            causation_id=causation_id,
        )

    async def within(self, connection: Any) -> Within:
        """Return what commands and events can be appended by within the caller's own transaction.

        ``connection``: one of asyncpg, or SQLAlchemy's AsyncConnection or AsyncSession, with an
        open READ COMMITTED transaction on the log's PostgreSQL database. Raises ``Invalid`` for
        anything else.
        """
        within = getattr(self.log, "within", None)
        if within is None:
            raise Invalid(
                "Appending within the caller's transaction needs a log in PostgreSQL",
                field="connection",
                rule="a log at postgresql://…",
                got=type(self.log).__name__,
            )
        return Within(self.definitions, await within(connection))

    async def recall(self, keys: Sequence[str]) -> dict[str, Appended]:
        """Return the first answers given under these idempotency keys, for those that were used."""
        return await self.log.recall(keys)

    # --- queries ----------------------------------------------------------------------------------

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
        Not reached in time: the last known answer, marked ``stale``; with ``strict`` it is
        ``StaleAnswer``. Raises ``Invalid``, ``UnknownMessage``, ``ForeignCheckpoint``, and what the
        rules say of ``actor``: ``NotAuthenticated``, ``NotAllowed``, ``RuleFailed``.
        """
        return await self._queries.ask(query, actor=actor, after=after, wait=wait, strict=strict)

    def events_for(self, actor: Actor | str | None) -> Events:
        """Return the log, decoded, as far as this actor may read it: what clients are given.

        A type that he may not read is ``NotAuthenticated`` or ``NotAllowed``; no types stand for
        all that he may. Single events that the rule withholds from him are passed over.
        """
        return EventsFor(self.log, self.definitions.codec, self.definitions.access, actor)

    def live(
        self,
        query: Query[R],
        *,
        actor: Actor | str | None = None,
        after: Token | str | None = None,
        wait: float = 0.0,
    ) -> AsyncGenerator[Answer[R]]:
        """Follow a query: its answer, then a new one whenever it is another than the last.

        Of several changes in short time only the last may be seen. ``after``: to go on from a
        token; where the views have not reached it after ``wait`` seconds, the first answer is
        ``stale``, and a fresh one follows. The rules are asked about ``actor`` at the start and
        before each new answer. It ends when the application is closed, and raises what ``ask``
        raises. Close it (``contextlib.aclosing``), or let go of it.
        """
        return self._live.answers(query, actor=actor, after=after, wait=wait)

    @property
    def views(self) -> Views:
        """The views as they are now, for scripts and tests; applications ask queries."""
        return self._queries.views()

    # --- the read side, looked after --------------------------------------------------------------

    async def status(self) -> list[Status]:
        """Return how far each projection is, and how far behind.

        Those whose read database does not answer are ``away``; the others are told all the same.
        Raises ``Unavailable`` where the log does not answer.
        """
        for engine in self._unopened[:]:
            with suppress(Unavailable):
                await engine.open(create=False, rebuild=False)
                self._unopened.remove(engine)
        found = await asyncio.gather(*(engine.status() for engine in self._engines))
        return [one for each in found for one in each]

    async def metrics(self) -> str:
        """Return all metrics as text, in the format that Prometheus reads (0.0.4).

        Where the log does not answer, what is told of it and of projections is what was seen last.
        """
        await note(self.telemetry, self._bus.waiting, self.log, self.status)
        return exposition(self.telemetry)

    async def catch_up(self) -> None:
        """Bring every projection to where the log's head is now; switch to what was built so."""
        done = [engine.catch_up() for engine in self._engines]
        for result in await asyncio.gather(*done, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result
        for builder in self._builders:
            if builder.auto:
                await builder.finish(builder.building(), asked=False)

    async def verify(self, *names: str, since: Since = "start") -> list[Verdict]:
        """Prove that projections have applied each event exactly once, or name the positions.

        Without names, all of them. ``since="last"``: from where each was last proved. Where this
        program's version is not the live one, there is a verdict of each.
        """
        known = self._known(names)
        verdicts: dict[str, list[Verdict]] = {}
        for builder in self._builders:
            chosen = [name for name in builder.engine.projections if name in known]
            verdicts |= await builder.verify(chosen, since=since)
        return [verdict for name in known for verdict in verdicts[name]]

    async def verify_rows(self, *names: str, sample: float = 1.0) -> list[RowVerdict]:
        """Fold the events aside and compare what comes out with the rows, column by column.

        Without names, all projections but handlers, which have no fold. ``sample``: the share of
        the keys to be looked at, as 0.01. Raises ``ProjectionFailed`` where an event cannot be
        folded.
        """
        if not 0 < sample <= 1:
            raise Invalid("That is no share of the keys", field="sample", rule="0 to 1", got=sample)
        known = self._known(names)
        verdicts: dict[str, RowVerdict] = {}
        for builder in self._builders:
            chosen = [name for name in builder.engine.projections if name in known]
            verdicts |= await builder.verify_rows(chosen, sample=sample)
        return [verdicts[name] for name in known if name in verdicts]

    def _known(self, names: Sequence[str]) -> list[str]:
        known = [one.name for one in self.definitions.projections]
        if unknown := [name for name in names if name not in known]:
            raise Invalid(
                "There is no such projection",
                field="projection",
                rule="one of " + (", ".join(known) or "none"),
                got=", ".join(unknown),
            )
        return list(dict.fromkeys(names)) or known


class Opening(AbstractAsyncContextManager[Running]):
    """What ``Module.open`` returns: the application, opened by ``async with``.

    Once closed it may be opened again. ``away``: open it although read databases do not answer, for
    its ``status`` and ``metrics`` only. ``spare``: also on read databases that no view names, where
    something may be left.
    """

    def __init__(
        self,
        definitions: Definitions,
        log_url: str,
        views_at: ViewsAt,
        limits: Limits | None,
        *,
        projections: bool,
        create: Create,
        rebuild: Rebuild,
        verify_every: float | None,
        away: bool = False,
        spare: bool = False,
    ) -> None:
        self.definitions = definitions
        self._open = partial(
            open_app,
            definitions,
            log_url,
            views_at,
            limits,
            projections=projections,
            create=create,
            rebuild=rebuild,
            verify_every=verify_every,
            away=away,
            spare=spare,
        )

    async def __aenter__(self) -> Running:
        self._opening = self._open()
        return await self._opening.__aenter__()

    async def __aexit__(self, *exception: Any) -> bool | None:
        return await self._opening.__aexit__(*exception)

    if not TYPE_CHECKING:  # type checkers are to say so themselves

        def __enter__(self) -> None:
            raise DefinitionError(
                "Write `async with app.open(...)`, or `with app.open_blocking(...)` where there is "
                "no event loop",
                at=calling(),
            )

        def __exit__(self, *exception: object) -> None:
            """Never reached."""


@asynccontextmanager
async def open_app(
    definitions: Definitions,
    log_url: str,
    views_at: ViewsAt,
    limits: Limits | None,
    *,
    projections: bool,
    create: Create,
    rebuild: Rebuild,
    verify_every: float | None,
    away: bool,
    spare: bool,
) -> AsyncGenerator[Running]:
    """Put an application together; at the end take it apart, in the opposite order."""
    if create not in get_args(Create):
        rule = " or ".join(get_args(Create))
        raise Invalid("That cannot be made", field="create", rule=rule, got=create)
    if rebuild not in get_args(Rebuild):
        rule = " or ".join(get_args(Rebuild))
        raise Invalid("That is no way to rebuild", field="rebuild", rule=rule, got=rebuild)
    log_at = Where.parse(log_url, "log")
    places = read_databases(views_at, definitions.projections, spare=spare)
    codec = definitions.codec
    async with AsyncExitStack() as stack:
        databases = Databases(stack, log_at, places, create, books_of(views_at))
        inline = [p for p in definitions.projections if isinstance(p, Keyed) and p.inline]
        log = await databases.log(codec, inline)
        stack.push_async_callback(log.close)
        telemetry = attach(definitions.name)
        engines = [
            Engine(
                *(log, codec, databases.store(where), kept),
                measures=ReadMeasures(telemetry, kept),
            )
            for where, kept in places.items()
        ]
        builders = [Builder(engine, auto=rebuild == "auto") for engine in engines]
        unopened: list[Engine] = []
        for engine, builder in zip(engines, builders, strict=True):
            try:
                await engine.open(
                    create=create != "nothing", rebuild=rebuild == "auto", builds=rebuild != "never"
                )
            except Unavailable:
                if not away:
                    raise
                unopened.append(engine)
            stack.push_async_callback(engine.stop)
            stack.push_async_callback(builder.stop)
            if projections:
                await engine.start()
                await builder.start()
        allow = definitions.access.require
        bus = CommandBus(definitions.write, codec, log, limits, allow, telemetry=telemetry)
        stack.push_async_callback(bus.close)
        running = Running(definitions, log, bus, engines, builders, telemetry, unopened)
        await stack.enter_async_context(observed(telemetry, running.metrics))
        await stack.enter_async_context(proving(builders, verify_every))
        stack.push_async_callback(running._live.stop)  # pyright: ignore[reportPrivateUsage]
        yield running


@asynccontextmanager
async def open_log(url: str) -> AsyncGenerator[Log]:
    """Open a log alone, by its URL; make it when there is none."""
    async with AsyncExitStack() as stack:
        log = await Databases(stack, Where.parse(url, "log")).log(Codec(), ())
        stack.push_async_callback(log.close)
        yield log
