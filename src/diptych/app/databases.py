"""Log and views by URL: which adapter serves an address, and which databases are shared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypeAlias
from urllib.parse import unquote

from msgspec import Struct

from diptych.codec import Codec
from diptych.errors import DefinitionError, Invalid, NoLog, NoViews
from diptych.log import Log
from diptych.logs.memory import MemoryLog
from diptych.read.port import ViewStore
from diptych.read.projections import Keyed, Projection
from diptych.read.views import MAIN
from diptych.sql.addresses import without_password

ViewsAt: TypeAlias = str | Mapping[str, str]
"""The URL of all views, or one for each read database by its name."""


Create: TypeAlias = Literal["all", "views", "nothing"]
"""What opening may make where it is not there yet."""


Rebuild: TypeAlias = Literal["auto", "manual", "never"]
"""Whether versions of projections that were never there before are built without being asked;
``never``: nor are those that others have asked for."""


_RULE = "memory: or sqlite:///file (sqlite:////absolute/file) or postgresql://user@host/database"
_VIEWS_RULE = (
    f"{_RULE}; beside a read database 'main' also redis://host:6379/0 (rediss://) or "
    "duckdb:///file (duckdb:////absolute/file)"
)
_ROWS_ONLY = ("redis", "duckdb")
"""The kinds that keep rows and nothing else: no log, no checkpoints."""


class Where(Struct, frozen=True):
    """An address, understood. Two that are equal are one database."""

    kind: Literal["memory", "sqlite", "postgresql", "redis", "duckdb"]
    url: str
    path: Path | None = None

    @property
    def shown(self) -> str:
        """The address, for people: without a password."""
        return without_password(self.url)

    def __repr__(self) -> str:
        return f"Where({self.shown!r})"

    @staticmethod
    def parse(url: str, field: str) -> Where:
        """Read ``memory:``, ``sqlite:///file`` or ``postgresql://…``; raise ``Invalid``."""
        given: Any = url
        rule = _RULE if field == "log" else _VIEWS_RULE
        if not isinstance(given, str):
            raise Invalid("That is no address", field=field, rule=rule, got=repr(given))
        if url == "memory:":
            return Where("memory", url)
        scheme, _, rest = url.partition("://")
        if scheme == "sqlite" and rest.startswith("/") and rest[1:2] not in ("", ":"):
            if "?" in rest:
                raise Invalid(
                    "A sqlite URL takes no parameters",
                    field=field,
                    rule="no '?'; one in a file's name is written %3F",
                    got=url,
                )
            path = Path(unquote(rest[1:])).absolute()
            return Where("sqlite", f"sqlite:///{path}", path)
        if scheme in ("postgresql", "postgres"):
            postgres().Address.parse(url, field)
            return Where("postgresql", url)
        if scheme in ("redis", "rediss", "duckdb"):
            return _rows_only(scheme, url, field)
        raise Invalid(
            "That is no address of a log or of views",
            field=field,
            rule=rule,
            got=without_password(url),
        )


def postgres() -> Any:
    """Return the module of PostgreSQL's connections, whose driver is an extra."""
    try:
        from diptych.sql import postgres as module
    except ModuleNotFoundError as error:
        if error.name != "asyncpg":
            raise
        raise Invalid(
            "PostgreSQL needs the driver asyncpg, which is not installed: "
            "pip install 'diptych[postgres]'",
            field="url",
            rule="a database whose driver is installed",
        ) from error
    return module


def _rows_only(scheme: str, url: str, field: str) -> Where:
    if field == "log":
        raise Invalid(
            "A database of that kind keeps views, but no log",
            field=field,
            rule=_RULE,
            got=without_password(url),
        )
    kind: Literal["redis", "duckdb"] = "duckdb" if scheme == "duckdb" else "redis"
    adapter(kind).Address.parse(url, field)
    return Where(kind, url)


def adapter(kind: Literal["redis", "duckdb"]) -> Any:
    """Return the module of a row store, whose driver is an extra."""
    try:
        return import_module(f"diptych.read.stores.{kind}")
    except ModuleNotFoundError as error:
        if error.name != kind:
            raise
        raise Invalid(
            f"Views in {kind} need its driver, which is not installed: "
            f"pip install 'diptych[{kind}]'",
            field="views",
            rule="a database whose driver is installed",
        ) from error


def books_of(views: ViewsAt) -> Where | None:
    """Return the address of the read database "main", which keeps checkpoints for those without."""
    where = None if isinstance(views, str) else views.get(MAIN)
    return None if where is None else Where.parse(where, f"views.{MAIN}")


def read_databases(
    views: ViewsAt, projections: Sequence[Projection], *, spare: bool = False
) -> dict[Where, list[Projection]]:
    """Return the addresses of all read databases, and the projections that each is to keep.

    ``spare``: there may be addresses that no view names; else that is taken for a mistake.
    """
    found: dict[Where, list[Projection]] = {}
    if isinstance(views, str):
        found[Where.parse(views, "views")] = list(projections)
        _check_rows_only(found, None)
        return found
    by_name: Any = views
    if not isinstance(by_name, Mapping):
        rule = "a URL, or a dictionary of them by name"
        raise Invalid("That is no address of views", field="views", rule=rule, got=repr(by_name))
    given = {name: Where.parse(url, f"views.{name}") for name, url in views.items()}
    for where in given.values():
        found[where] = []
    for one in projections:
        if one.store not in given:
            raise DefinitionError(
                "A view names a read database that has no address; give one in views={...}",
                at=one.at,
                projection=one.name,
                store=one.store,
                known=", ".join(given) or "none",
            )
        found[given[one.store]].append(one)
    used = {MAIN, *(one.store for one in projections)}
    if projections and not spare and (unused := [name for name in given if name not in used]):
        raise Invalid(
            "An address is given for a read database that no view names",
            field="views",
            rule="one of " + ", ".join(sorted(used)),
            got=", ".join(unused),
        )
    _check_rows_only(found, given.get(MAIN))
    return found


def _check_rows_only(places: Mapping[Where, Sequence[Projection]], main: Where | None) -> None:
    for where, kept in places.items():
        if where.kind not in _ROWS_ONLY:
            continue
        if main is None or main.kind in _ROWS_ONLY:
            raise Invalid(
                "A database of that kind keeps rows only: its checkpoints are in the read database "
                "'main'. Give that one too, in SQLite or PostgreSQL",
                field="views",
                rule="views={'main': 'sqlite:///…', 'cache': 'redis://…'}",
                got=where.shown,
            )
        for one in kept:
            if not isinstance(one, Keyed) or one.inline:
                raise DefinitionError(
                    "Where only rows are kept there are no transactions: such views are kept by a "
                    "fold, and not inline; give the view another store=...",
                    at=one.at,
                    projection=one.name,
                    database=where.shown,
                )


class Connections(Struct, frozen=True):
    """How many connections a process makes to a PostgreSQL database, at most."""

    database: str
    most: int
    listening: int


def connections(log: str, views: ViewsAt) -> list[Connections]:
    """Return the bounds for each PostgreSQL database that an application uses."""
    log_at = Where.parse(log, "log")
    places = dict.fromkeys([log_at, *read_databases(views, ())])
    found: list[Connections] = []
    for where in places:
        if where.kind == "postgresql":
            address = postgres().Address.parse(where.url)
            listening = int(where == log_at and not address.pooled)
            found.append(Connections(address.shown, address.connections, listening))
    return found


class Databases:
    """The databases of one application, each opened once. The stack closes them."""

    def __init__(
        self,
        stack: AsyncExitStack,
        log: Where,
        views: Iterable[Where] = (),
        create: Create = "all",
        books: Where | None = None,
    ) -> None:
        self._stack = stack
        self._log = log
        self._views = list(views)
        self._create = create
        self._books = books
        self._opened: dict[Where, Any] = {}
        self._stores: dict[Where, Any] = {}

    @property
    def postgres(self) -> list[Any]:
        """The PostgreSQL databases."""
        return [db for where, db in self._opened.items() if where.kind == "postgresql"]

    def store(self, where: Where) -> ViewStore:
        """Return the view store at an address; ``NoViews`` for a file that may not be made."""
        if where in self._stores:
            known: ViewStore = self._stores[where]
            return known
        if where.kind == "redis" or where.kind == "duckdb":
            return self._beside(where, where.kind)
        if self._create == "nothing" and _is_missing_file(where):
            raise NoViews(
                "There are no views at that address, and none were to be made", path=where.path
            )
        database = self._database(where)
        store: Any
        if where.kind == "postgresql":
            from diptych.read.stores.postgres import PostgresViews

            store = PostgresViews(database, owned=False)
        else:
            from diptych.read.stores.sqlite import SqliteViews

            store = SqliteViews(database, owned=False)
        self._stores[where] = store
        self._stack.push_async_callback(store.close)
        found: ViewStore = store
        return found

    def _beside(self, where: Where, kind: Literal["redis", "duckdb"]) -> ViewStore:
        from diptych.read.beside import RowsBeside

        assert self._books is not None, "checked by read_databases"
        module = adapter(kind)
        address = module.Address.parse(where.url)
        rows = module.Rows(address)
        self._stack.push_async_callback(rows.close)
        store = RowsBeside(self.store(self._books), rows, name=address.shown, kind=kind)
        found: ViewStore = store
        self._stores[where] = found
        return found

    async def log(self, codec: Codec, inline: Sequence[Keyed]) -> Log:
        """Open the log; inline projections reach its transactions as a callable.

        To be called before `store`: where there is no log, no views are made. Raises ``NoLog``.
        """
        where = self._log
        self.require_together(inline)
        create = self._create == "all"
        if not create and _is_missing_file(where):
            raise NoLog("There is no log at that address, and none was to be made", path=where.path)
        if where.kind == "memory":
            return MemoryLog()
        opened: list[Log] = []
        inside: Any = None
        if inline:
            inside = self._inside(codec, lambda: opened[0].identity, inline)
        database = self._database(where)
        if where.kind == "postgresql":
            from diptych.logs.postgres import PostgresLog

            opened.append(await PostgresLog.open(database, create=create, inside=inside))
        else:
            from diptych.logs.sqlite import SqliteLog

            opened.append(await SqliteLog.open(database, create=create, inside=inside))
        return opened[0]

    def require_together(self, inline: Sequence[Keyed]) -> None:
        """Raise ``DefinitionError`` unless log and views of inline projections share a database."""
        if inline and (self._log not in self._views or self._log.kind == "memory"):
            raise DefinitionError(
                "An inline projection needs log and views in one database; give both the same "
                "sqlite:/// or postgresql:// URL, or leave out inline=True",
                at=inline[0].at,
                log=self._log.shown,
                views=", ".join(where.shown for where in self._views),
            )

    def _inside(self, codec: Codec, identity: Callable[[], str], inline: Sequence[Keyed]) -> Any:
        store: Any = self.store(self._log)
        if self._log.kind == "postgresql":
            from diptych.logs.postgres import reader_inside
            from diptych.read.following.inline import AsyncInline

            gaps = reader_inside(self._database(self._log).schema)
            return AsyncInline(codec, identity, inline, store.inside, gaps)
        from diptych.logs.sqlite import read_inside
        from diptych.read.following.inline import Inline

        return Inline(codec, identity, inline, store.inside, read_inside)

    def _database(self, where: Where) -> Any:
        """Return the database at an address: one file has one writing thread, whatever is in it."""
        found = self._opened.get(where)
        if found is None:
            if where.kind == "postgresql":
                found = postgres().Database(where.url)
            else:
                from diptych.sql.sqlite import Database

                found = Database(where.path, durable=where == self._log)
            self._opened[where] = found
            self._stack.push_async_callback(found.close)
        return found


def _is_missing_file(where: Where) -> bool:
    from diptych.sql.sqlite import is_missing

    return where.path is not None and is_missing(where.path)
