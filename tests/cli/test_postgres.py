"""The command line on PostgreSQL: looking makes nothing, and does what it does on SQLite."""

import asyncio
from collections.abc import Sequence

import asyncpg
import pytest

from tests.cli.conftest import Cli


@pytest.fixture
def on_postgres(cli: Cli, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command line with log and views of the shop in an empty PostgreSQL database."""
    monkeypatch.setenv("DIPTYCH_LOG", postgres_url)
    monkeypatch.setenv("DIPTYCH_VIEWS", postgres_url)
    return cli


def lacking(cli: Cli) -> list[str]:
    """What the database lacks, by name."""
    parts = cli("db", "plan", "--json").json["parts"]
    return [step["name"] for part in parts for step in part["steps"]]


@pytest.mark.parametrize(
    "words",
    [("log", "show"), ("log", "tail"), ("status",), ("verify",), ("ask", "HowMany")],
)
def test_where_no_log_is_none_is_made_by_looking(on_postgres: Cli, words: Sequence[str]) -> None:
    everything = lacking(on_postgres)
    said = on_postgres(*words, "--json")
    assert (said.status, said.out, said.error["code"]) == (2, "", "no-log")
    assert said.error["message"].startswith("There is no log at that address")
    assert said.error["facts"]["schema"] == "diptych"
    assert said.error["hint"] == "check the address; the first `diptych do` makes the log"
    assert lacking(on_postgres) == everything


@pytest.mark.parametrize("words", [("log", "show"), ("do", "Touch", "order=1"), ("db", "plan")])
def test_a_database_that_is_not_there_is_to_be_created(
    on_postgres: Cli, postgres_url: str, words: Sequence[str]
) -> None:
    missing = postgres_url.rpartition("/")[0] + "/missing"
    said = on_postgres("--log", missing, "--views", missing, *words, "--json")
    assert (said.status, said.error["code"]) == (2, "log-unusable")
    assert said.error["message"].endswith("create it first, as with createdb")


@pytest.mark.parametrize("command", ["status", "verify"])
def test_views_that_are_not_there_are_not_made_by_looking(
    on_postgres: Cli, postgres_url: str, command: str
) -> None:
    on_postgres("do", "Place", "order=1", "customer=ada", "total=1", "--views", "memory:")
    elsewhere = ("--views", f"{postgres_url}?schema=elsewhere", "--json")
    for views in (("--views", postgres_url, "--json"), elsewhere):
        before = on_postgres("db", "plan", *views).json
        said = on_postgres(command, *views)
        assert (said.status, said.out, said.error["code"]) == (2, "", "no-views")
        assert said.error["message"].startswith("There are no views at that address")
        assert said.error["facts"]["lacking"] == "summary"
        assert on_postgres("db", "plan", *views).json == before
    assert on_postgres("ask", "HowMany", *elsewhere).json["value"] == 1
    assert on_postgres(command, *elsewhere).status == 0


def run_sql(url: str, sql: str) -> None:
    """Run statements as the owner."""

    async def job() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    asyncio.run(job())


def test_a_role_that_may_only_read_verifies(on_postgres: Cli, postgres_url: str) -> None:
    """What is found is not kept, and a command that writes names what the role lacks."""
    on_postgres("do", "Place", "order=1", "customer=ada", "total=1")
    on_postgres("ask", "HowMany")
    name = f"reader_{postgres_url[-8:]}"
    run_sql(
        postgres_url,
        f"CREATE ROLE {name} LOGIN; GRANT USAGE ON SCHEMA diptych TO {name}; "
        f"GRANT SELECT ON ALL TABLES IN SCHEMA diptych TO {name}",
    )
    try:
        reader = postgres_url.replace("postgres@", f"{name}@")
        where = ("--log", reader, "--views", reader, "--json")
        found = on_postgres("verify", *where)
        assert (found.status, found.json["ok"]) == (0, True)
        status = on_postgres("status", *where).json
        assert all(one["proved"] is None for one in status["projections"])
        refused = on_postgres("projections", "rewind", "summary", "--yes", *where)
        assert (refused.status, refused.error["code"]) == (2, "log-unusable")
        assert "the role that owns them" in refused.error["message"]
    finally:
        run_sql(postgres_url, f"DROP OWNED BY {name}; DROP ROLE {name}")
