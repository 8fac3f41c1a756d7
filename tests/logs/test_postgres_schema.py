"""The log's schema: migrated it is as when made anew, and its events stay as they are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest

from diptych.app.schemas import apply, plan
from diptych.errors import LogUnusable, ServerUnusable, Unavailable
from diptych.log import Append, Appended
from diptych.logs.postgres import PostgresLog
from diptych.logs.postgres import log as log_module
from diptych.logs.postgres.log import log_schema
from diptych.sql.migrations import _LEDGER
from diptych.testing.contracts.making import event, put
from diptych.testing.servers import PostgresServer, postgres
from tests.logs.on_postgres import connected, opened
from tests.logs.test_postgres_crashes import Balances, Deposit, make_app

CATALOG = {
    "columns": """
        SELECT c.relname, c.relkind::text, a.attnum, a.attname,
               format_type(a.atttypid, a.atttypmod), a.attnotnull,
               a.attcollation::regcollation::text, pg_get_expr(d.adbin, d.adrelid)
        FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
        LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE c.relnamespace = $1::regnamespace AND c.relkind IN ('r', 'v') AND a.attnum > 0""",
    "indexes": """
        SELECT c.relname, pg_get_indexdef(i.indexrelid) FROM pg_index AS i
        JOIN pg_class AS c ON c.oid = i.indexrelid WHERE c.relnamespace = $1::regnamespace""",
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = $1::regnamespace""",
    "functions": """
        SELECT proname, pg_get_functiondef(oid) FROM pg_proc
        WHERE pronamespace = $1::regnamespace""",
    "triggers": """
        SELECT tgname, tgenabled::text, pg_get_triggerdef(t.oid) FROM pg_trigger AS t
        JOIN pg_class AS c ON c.oid = t.tgrelid WHERE c.relnamespace = $1::regnamespace""",
    "views": """
        SELECT relname, pg_get_viewdef(oid) FROM pg_class
        WHERE relnamespace = $1::regnamespace AND relkind = 'v'""",
}


async def catalog(connection: asyncpg.Connection[Any], schema: str) -> dict[str, list[str]]:
    """Return all that PostgreSQL knows of a schema, as sorted texts without the schema's name."""
    found: dict[str, list[str]] = {}
    for kind, sql in CATALOG.items():
        rows = await connection.fetch(sql, schema)
        found[kind] = sorted(repr(tuple(row)).replace(schema, "…") for row in rows)
    return found


@pytest.fixture(scope="module", params=["any", "path"])
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """The server of the other tests, and the one that this machine has installed."""
    if request.param == "any":
        yield request.getfixturevalue("postgres_server")
        return
    try:
        with postgres(source="path") as found:
            yield found
    except ServerUnusable as error:
        pytest.skip(str(error))


async def test_migrated_equals_fresh(server: PostgresServer) -> None:
    """All migrations and then the schema's files leave what the schema's files leave alone."""
    wanted = log_schema()
    async with connected(server.new_database("migrated")) as connection:
        print(server.version)
        await wanted.apply(connection, "fresh")
        await connection.execute("CREATE SCHEMA migrated")
        await connection.execute(_LEDGER.replace("{schema}", "migrated"))
        await connection.execute(
            "INSERT INTO migrated.diptych_migrations VALUES ('log', '0000_before', 'x')"
        )
        steps = [step.name for step in await wanted.apply(connection, "migrated")]
        assert [name for name in steps if name.startswith("migrations/")] == [
            step.name for step in wanted.migrations
        ]
        fresh, migrated = [await catalog(connection, s) for s in ("fresh", "migrated")]
        for kind in CATALOG:
            assert migrated[kind] == fresh[kind]
            assert fresh[kind]
    server.drop_database(server.url.replace("/postgres", "/migrated"))


async def test_a_difference_is_seen(postgres_url: str) -> None:
    """The comparison finds an index, a default and a trigger that are not as they should be."""
    async with connected(postgres_url) as connection:
        await log_schema().apply(connection, "fresh")
        fresh = await catalog(connection, "fresh")
        for change, kind in (
            ("DROP INDEX fresh.events_by_type", "indexes"),
            ("ALTER TABLE fresh.log ALTER COLUMN head SET DEFAULT 0", "columns"),
            ("ALTER TABLE fresh.events DISABLE TRIGGER ALL", "triggers"),
            ("ALTER FUNCTION fresh.append STABLE", "functions"),
            ("ALTER TABLE fresh.log DROP CONSTRAINT log_one_check", "constraints"),
        ):
            await connection.execute(change)
            assert (await catalog(connection, "fresh"))[kind] != fresh[kind]


async def test_an_older_schema_is_refused_until_it_is_brought_up_to_date(
    postgres_url: str,
) -> None:
    """An open names what is pending; ``apply`` makes it, keeps the events, and is done once."""
    async with opened(postgres_url) as log:
        await put(log, event())
        identity = log.identity
    async with connected(postgres_url) as connection:
        await connection.execute(
            "UPDATE diptych.diptych_migrations SET digest = 'older' WHERE name = '(objects)';"
            "DROP FUNCTION diptych.append"
        )
    with pytest.raises(LogUnusable, match=r"run `diptych db plan`.*pending: .*schema/6_append"):
        await PostgresLog.open(postgres_url)
    definitions = make_app().compile()
    [part, _] = await plan(definitions, postgres_url, postgres_url)
    assert "schema/6_append" in [step.name for step in part.steps]
    await apply(definitions, postgres_url, postgres_url)
    parts = await plan(definitions, postgres_url, postgres_url)
    assert [part.steps for part in parts] == [(), ()]
    async with opened(postgres_url) as log:
        assert (log.identity, await log.head()) == (identity, 1)
        await put(log, event())


# --- rights ---------------------------------------------------------------------------------------


@pytest.fixture
async def role(postgres_url: str) -> AsyncIterator[str]:
    """A role that may connect, and nothing else; dropped after the test."""
    name = f"app_{postgres_url[-8:]}"
    async with connected(postgres_url) as admin:
        await admin.execute(f"CREATE ROLE {name} LOGIN")
        yield name
        await admin.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


CHANGES = [
    "UPDATE diptych.events SET type = 'Other'",
    "UPDATE diptych.events SET data = data",
    "DELETE FROM diptych.events",
    "TRUNCATE diptych.events",
    "UPDATE diptych.event_tags SET tag = 'a:2'",
    "DELETE FROM diptych.event_tags",
    "TRUNCATE diptych.event_tags",
    "DELETE FROM diptych.idempotency_keys",
    "UPDATE diptych.log SET identity = 'other'",
    "DELETE FROM diptych.log",
    "DROP TABLE diptych.events",
    "ALTER TABLE diptych.events DISABLE TRIGGER ALL",
    "CREATE TABLE diptych.mine ()",
]


async def test_the_role_of_an_application_can_work_but_not_change_events(
    postgres_url: str, role: str
) -> None:
    """With the grants of ``db apply --role`` an application works; what it must not do fails."""
    url = postgres_url.replace("postgres@", f"{role}@")
    app = make_app()
    await apply(app.compile(), postgres_url, postgres_url, role=role)
    async with app.open(log=url, views=url) as running:
        receipt = await running.do(Deposit("ann", 1), key="k")
        answer = await running.ask(Balances(), after=receipt.token, strict=True)
        assert [row.deposits for row in answer.value] == [1]
        assert [verdict.ok for verdict in await running.verify()] == [True]
    async with connected(url) as connection:
        for change in CHANGES:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(change)
        assert len(await connection.fetch("SELECT * FROM diptych.events_readable")) == 1


async def test_not_even_the_owner_changes_events(postgres_url: str) -> None:
    """A trigger refuses UPDATE, DELETE and TRUNCATE to the owner, who is a superuser here."""
    async with opened(postgres_url) as log:
        await put(log, event("Moved", "a:1"))
    async with connected(postgres_url) as connection:
        for change in CHANGES[:7]:
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="never changed"):
                await connection.execute(change)


async def test_who_owns_the_schema_need_not_own_the_database(postgres_url: str, role: str) -> None:
    """A role that may create nothing but what is in its own schema can make the log there."""
    async with connected(postgres_url) as admin:
        await admin.execute(f"CREATE SCHEMA given AUTHORIZATION {role}")
        url = postgres_url.replace("postgres@", f"{role}@") + "?schema=given"
        async with opened(url) as log:
            await put(log, event())


# --- what cannot be opened ------------------------------------------------------------------------


async def refusal(url: str) -> str:
    """Return the text of the error that an open gives, and of that of an application."""
    with pytest.raises(LogUnusable) as found:
        await PostgresLog.open(url)
    with pytest.raises(LogUnusable):
        async with make_app().open(log=url, views="memory:"):
            pass
    return str(found.value)


async def test_a_database_that_is_not_there(postgres_url: str) -> None:
    """The text names the database, without a password."""
    text = await refusal(f"{postgres_url}_not".replace("postgres@", "postgres:secret@"))
    assert "InvalidCatalogNameError" in text
    assert "_not" in text
    assert "secret" not in text


async def test_a_wrong_password() -> None:
    """The text says that the role is not let in, and does not repeat the password."""
    with postgres(source="wheel") as server:  # one of its own: who may come in is changed
        async with connected(server.url) as admin:
            await admin.execute("CREATE ROLE ann LOGIN PASSWORD 'right'")
            rules = "(VALUES ('host all postgres all trust'), ('host all all all scram-sha-256'))"
            file = await admin.fetchval("SHOW hba_file")
            await admin.execute(f"COPY {rules} TO '{file}'")
            await admin.execute("SELECT pg_reload_conf()")
            text = await refusal(server.url.replace("postgres@", "ann:wrong@"))
            assert "does not let this role in" in text
            assert "InvalidPasswordError" in text
            assert "wrong" not in text


async def test_a_role_without_rights(postgres_url: str, role: str) -> None:
    """The text names the right that is missing, and the command that lists what is to be made."""
    text = await refusal(postgres_url.replace("postgres@", f"{role}@"))
    assert "permission denied" in text
    assert "diptych db plan" in text
    async with opened(postgres_url):
        text = await refusal(postgres_url.replace("postgres@", f"{role}@"))
        assert "permission denied for schema diptych" in text
        assert "to make or drop tables" in text
        assert "the role that owns them" in text


async def test_a_server_that_is_too_old(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text says which version is needed."""
    monkeypatch.setattr(log_module, "OLDEST", 99)
    assert "PostgreSQL 99 or later is needed (version: " in await refusal(postgres_url)


@pytest.mark.parametrize(
    "theirs",
    [
        "CREATE TABLE shop.events (id int)",
        "CREATE TABLE shop.log (line text)",
        "CREATE VIEW shop.events AS SELECT 1 AS position",
        "CREATE FUNCTION shop.readable(bytea) RETURNS int LANGUAGE sql AS 'SELECT 1'",
    ],
)
async def test_a_schema_that_holds_something_else(postgres_url: str, theirs: str) -> None:
    """The text says to choose another schema; theirs is left as it was."""
    async with connected(postgres_url) as connection:
        await connection.execute(f"CREATE SCHEMA shop; {theirs}")
        before = await catalog(connection, "shop")
        text = await refusal(url := f"{postgres_url}?schema=shop")
        assert "holds something else" in text
        assert "?schema=" in text
        with pytest.raises(LogUnusable, match="holds something else"):
            await apply(make_app().compile(), url, "memory:")
        assert await catalog(connection, "shop") == before


async def test_a_log_that_has_lost_its_row(postgres_url: str) -> None:
    """A log without head and identity is refused."""
    async with opened(postgres_url):
        pass
    async with connected(postgres_url) as connection:
        await connection.execute("DELETE FROM diptych.log")
    assert "has lost its identity" in await refusal(postgres_url)


async def test_a_log_whose_head_was_set_back(postgres_url: str) -> None:
    """It says so, when it is opened and when it appends, and nothing is lost."""
    async with opened(postgres_url) as log:
        await log.append([Append((event("Taken"),)) for _ in range(3)])
        async with connected(postgres_url) as connection:
            await connection.execute("UPDATE diptych.log SET head = 1")
        with pytest.raises(LogUnusable, match="set back by hand"):
            await log.append([Append((event("Taken"),))])
        assert "last_event: 3" in await refusal(postgres_url)
        async with connected(postgres_url) as connection:
            await connection.execute("UPDATE diptych.log SET head = 3")
        [appended] = await log.append([Append((event("Taken"),))])
        assert appended == Appended(4, 4)


async def test_a_server_that_is_not_there(unused_tcp_port: int) -> None:
    """It cannot be reached, which is not the same as being unusable."""
    with pytest.raises(Unavailable, match="cannot be reached"):
        async with opened(f"postgresql://ann@127.0.0.1:{unused_tcp_port}/x", patience=0.05):
            pass
