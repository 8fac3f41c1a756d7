"""An application at work: its log, its views and both sides, put together and taken apart again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote

from diptych.app.modules import Definitions
from diptych.codec import Codec
from diptych.errors import DefinitionError, Invalid
from diptych.log import Appended, Log, Token
from diptych.logs.memory import MemoryLog
from diptych.logs.sqlite import SqliteLog, read_inside
from diptych.messages import Command, Query
from diptych.read.engine import Engine
from diptych.read.inline import Inline
from diptych.read.port import ViewStore
from diptych.read.projections import Keyed
from diptych.read.queries import Answer, Events, Queries, Views
from diptych.read.status import Status
from diptych.read.stores.sqlite import SqliteViews
from diptych.sql.sqlite import Database
from diptych.write.bus import CommandBus, Limits
from diptych.write.entry import Receipt

if TYPE_CHECKING:
    from diptych.read.verify import Verdict

R = TypeVar("R")


class Running:
    """An open application. Made by ``App.open``; lives on one event loop.

    ``events`` reads the log, decoded; ``log`` is the port itself.
    """

    def __init__(
        self, definitions: Definitions, log: Log, store: ViewStore, bus: CommandBus, engine: Engine
    ) -> None:
        self.definitions = definitions
        self.log = log
        self.events = Events(log, definitions.codec)
        self._bus = bus
        self._store = store
        self._engine = engine
        self._queries = Queries(log, definitions.codec, store, engine, definitions.answers)

    # --- commands ---------------------------------------------------------------------------------

    async def do(
        self,
        command: Command,
        *,
        key: str | None = None,
        actor: str | None = None,
        correlation_id: str | None = None,
        causation_id: str | None = None,
    ) -> Receipt:
        """Decide a command and append its events; durable when this returns.

        ``key`` is an idempotency key: the same key gives the first answer again, for ever, be it a
        receipt or a rejection. Raises ``Rejected``, ``Invalid``, ``Conflict``, ``KeyReused``,
        ``Overloaded``, ``Unavailable``, ``OutcomeUnknown``, ``DecisionFailed``.
        """
        return await self.submit(
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
        actor: str | None = None,
        correlation_id: str | None = None,
        causation_id: str | None = None,
    ) -> asyncio.Future[Receipt]:
        """Like ``do``, for many at a time: the future gives the answer.

        Commands of one boundary take effect in the order of these calls. ``Invalid``,
        ``UnknownMessage`` and ``Overloaded`` are raised at once.
        """
        return self._bus.submit(
            command,
            key=key,
            actor=actor,
            correlation_id=correlation_id,
            causation_id=causation_id,
        )

    async def recall(self, keys: Sequence[str]) -> dict[str, Appended]:
        """Return the first answers given under these idempotency keys, for those that were used."""
        return await self.log.recall(keys)

    # --- queries ----------------------------------------------------------------------------------

    async def ask(
        self,
        query: Query[R],
        *,
        after: Token | None = None,
        wait: float = 5.0,
        strict: bool = False,
    ) -> Answer[R]:
        """Answer a query, after waiting at most ``wait`` seconds until its views reach ``after``.

        Not reached in time: the last known answer, marked ``stale``; with ``strict`` it is
        ``StaleAnswer``. Raises ``Invalid``, ``UnknownMessage``, ``ForeignCheckpoint``.
        """
        return await self._queries.ask(query, after=after, wait=wait, strict=strict)

    @property
    def views(self) -> Views:
        """The views as they are now, for scripts and tests; applications ask queries."""
        return self._queries.views()

    # --- the read side, looked after --------------------------------------------------------------

    async def status(self) -> list[Status]:
        """Return how far each projection is, and how far behind."""
        return await self._engine.status()

    async def catch_up(self) -> None:
        """Bring every projection to where the log's head is now."""
        await self._engine.catch_up()

    async def verify(self, *names: str) -> list[Verdict]:
        """Prove that projections have applied each event exactly once, or name the positions.

        Without names, all of them.
        """
        from diptych.read.verify import verify

        known = {one.name: one for one in self.definitions.projections}
        if unknown := [name for name in names if name not in known]:
            raise Invalid(
                "There is no such projection",
                field="projection",
                rule="one of " + (", ".join(known) or "none"),
                got=", ".join(unknown),
            )
        asked = [known[name] for name in names or known]
        return await verify(self.log, self.definitions.codec, self._store, asked)


@asynccontextmanager
async def open_app(
    definitions: Definitions,
    log_url: str,
    views_url: str,
    limits: Limits | None,
    *,
    projections: bool,
) -> AsyncGenerator[Running]:
    """Put an application together; at the end take it apart, in the opposite order."""
    log_path, views_path = sqlite_path(log_url, "log"), sqlite_path(views_url, "views")
    together = log_path is not None and log_path == views_path
    inline = [p for p in definitions.projections if isinstance(p, Keyed) and p.inline]
    if inline and not together:
        raise DefinitionError(
            "An inline projection needs log and views in one SQLite file; give both the same "
            "sqlite:/// URL, or leave out inline=True",
            at=inline[0].at,
            log=log_url,
            views=views_url,
        )
    codec = definitions.codec
    async with AsyncExitStack() as stack:
        # One file has one writing thread, be it for views, the log or both.
        database = Database(views_path, durable=together)
        stack.push_async_callback(database.close)
        store = SqliteViews(database, owned=False)
        stack.push_async_callback(store.close)
        log: Log = MemoryLog()
        if log_path is not None:
            if not together:
                database = Database(log_path)
                stack.push_async_callback(database.close)
            log = await _sqlite_log(database, codec, store, inline)
        stack.push_async_callback(log.close)
        engine = Engine(log, codec, store, definitions.projections)
        await engine.open()
        if projections:
            await engine.start()
        stack.push_async_callback(engine.stop)
        bus = CommandBus(definitions.write, codec, log, limits)
        stack.push_async_callback(bus.close)
        yield Running(definitions, log, store, bus, engine)


async def _sqlite_log(
    database: Database, codec: Codec, store: SqliteViews, inline: Sequence[Keyed]
) -> Log:
    """Open the log; inline projections reach its transactions as a callable."""
    if not inline:
        return await SqliteLog.open(database)
    opened: list[Log] = []
    inside = Inline(codec, lambda: opened[0].identity, inline, store.inside, read_inside)
    opened.append(await SqliteLog.open(database, inside=inside))
    return opened[0]


def sqlite_path(url: str, field: str) -> Path | None:
    """Return the file that a URL names; None for ``memory:``."""
    if url == "memory:":
        return None
    scheme, _, path = url.partition(":///")
    if scheme != "sqlite" or not path or path.startswith(":"):
        raise Invalid(
            "That is no address of a log or of views",
            field=field,
            rule="memory: or sqlite:///file (sqlite:////absolute/file)",
            got=url,
        )
    return Path(unquote(path)).absolute()
