"""The schemas that an application needs in PostgreSQL: what is missing, and making it.

``App.open`` makes what is missing by itself where the role may. Where the application's role may
not, somebody else plans, applies and grants. SQLite files are made when they are opened.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

from msgspec import Struct, structs

from diptych.app.databases import Databases, ViewsAt, Where, postgres, read_databases
from diptych.app.modules import Definitions
from diptych.errors import Invalid, NoViews
from diptych.read.port import Kept
from diptych.read.projections import Projection
from diptych.read.versioning.versions import Versions


class Step(Struct, frozen=True):
    """SQL to be run, and what it is for."""

    name: str
    sql: str


class Part(Struct, frozen=True):
    """The log, or one read database: ``steps`` are what it lacks, none when all is there."""

    part: str
    database: str
    schema: str
    steps: tuple[Step, ...]


async def plan(definitions: Definitions, log: str, views: ViewsAt) -> list[Part]:
    """Return what the log's database and the read databases lack. Changes nothing.

    Raises ``Invalid``, ``LogUnusable``, ``Unavailable``, ``DefinitionError`` (a view has changed).
    """
    parts: list[Part] = []
    async with _connected(Where.parse(log, "log")) as (database, connection):
        if database is not None:
            pending = await _log_schema().pending(connection, database.schema)
            parts.append(_part("log", database, [(step.name, step.sql) for step in pending]))
    for where, projections in read_databases(views, definitions.projections).items():
        async with _connected(where) as (database, connection):
            if database is not None:
                from diptych.read.stores.postgres.schema import plan_tables

                kept = await _wanted(_versions(definitions, database, projections))
                lacking = await plan_tables(connection, database.schema, kept)
                parts.append(_part("views", database, lacking))
        if where.path is not None and where.path.exists():
            await _require_fit(definitions, Where.parse(log, "log"), where, projections)
    return parts


async def _require_fit(
    definitions: Definitions, log: Where, where: Where, projections: Sequence[Projection]
) -> None:
    """Raise ``DefinitionError`` where a view has changed that is kept in place, in a file."""
    async with AsyncExitStack() as stack:
        store = Databases(stack, log, create="nothing").store(where)
        for name, kept in (await Versions(store, definitions.codec, projections).wanted()).items():
            with suppress(NoViews):  # what is lacking in a file is made
                await store.open("", {name: kept}, create=False)


async def apply(
    definitions: Definitions, log: str, views: ViewsAt, *, role: str | None = None
) -> list[Part]:
    """Make what is lacking, and let ``role`` append, read and project; return what was run.

    The log's part is one transaction, and each read database's is one. May be run again, and by
    several at once. Raises what `plan` does, and ``Invalid`` where there is no such role, before
    anything is made.
    """
    done = await plan(definitions, log, views)
    if role is not None:
        for where in (Where.parse(log, "log"), *read_databases(views, ())):
            await _require_role(where, role)
    identity = ""
    async with _connected(Where.parse(log, "log")) as (database, connection):
        if database is not None:
            await _log_schema().apply(connection, database.schema)
            if role is not None:
                await _grant(connection, database, "diptych.logs.postgres", role, [])
            identity = await connection.fetchval(f"SELECT identity FROM {database.schema}.log")
    for where, projections in read_databases(views, definitions.projections).items():
        async with _connected(where) as (database, connection):
            if database is None:
                continue
            versions = _versions(definitions, database, projections)
            await versions.open(identity, create=True, rebuild=True)
            kept = await _wanted(versions)
            for one in kept.values():
                await versions.store.index(one)
            if role is not None:
                tables = [table for one in kept.values() for _, table in one.places]
                package = "diptych.read.stores.postgres"
                await _grant(connection, database, package, role, tables)
    return done


async def _wanted(versions: Versions) -> dict[str, Kept]:
    """Return what is to be there, with its indexes: who builds a version may not own its table."""
    found = await versions.wanted()
    return {instance: structs.replace(kept, indexed=True) for instance, kept in found.items()}


async def _require_role(where: Where, role: str) -> None:
    """Raise ``Invalid`` before anything is changed."""
    async with _connected(where) as (database, connection):
        if database is not None and not await connection.fetchval(
            "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", role
        ):
            raise Invalid(
                "There is no such role; create it first (CREATE ROLE … LOGIN)",
                field="role",
                rule="a role of the database",
                got=role,
            )


async def _grant(
    connection: Any, database: Any, package: str, role: str, tables: list[str]
) -> None:
    from diptych.sql.named import read_sql

    quoted = await connection.fetchval("SELECT quote_ident($1)", role)
    names = [await connection.fetchval("SELECT quote_ident($1)", table) for table in tables]
    listed = "".join(f", {database.schema}.{name}" for name in names)
    text = read_sql(package, "grants.sql").replace("{schema}", database.schema)
    await connection.execute(text.replace("{role}", quoted).replace("{views}", listed))


def _versions(
    definitions: Definitions, database: Any, projections: Sequence[Projection]
) -> Versions:
    from diptych.read.stores.postgres import PostgresViews

    return Versions(PostgresViews(database, owned=False), definitions.codec, projections)


def _log_schema() -> Any:
    from diptych.logs.postgres.log import log_schema

    return log_schema()


def _part(part: str, database: Any, steps: list[tuple[str, str]]) -> Part:
    found = tuple(Step(name, database.sql(sql).strip()) for name, sql in steps)
    return Part(part, database.path, database.schema, found)


@asynccontextmanager
async def _connected(where: Where) -> AsyncGenerator[tuple[Any, Any]]:
    """Give a database and a connection to it, or nothing where it is not PostgreSQL."""
    if where.kind != "postgresql":
        yield None, None
        return
    driver = postgres()
    database = driver.Database(where.url)
    try:
        async with database.lease() as connection:
            yield database, connection
    except driver.LOST as error:
        raise driver.unavailable(error, database.path) from error
    except driver.asyncpg.PostgresError as error:
        raise driver.failure_of(error, database.path) from error
    finally:
        await database.close()
