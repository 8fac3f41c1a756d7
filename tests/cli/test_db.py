"""`diptych db plan`, `apply` and `assert`."""

import os
import shutil
import subprocess
from pathlib import Path
from urllib.parse import quote

import pytest

from diptych.errors import ServerUnusable
from diptych.sql.postgres import RESERVED
from diptych.testing.servers import PostgresServer
from diptych.testing.servers.postgresql import execute
from tests.cli.conftest import SHOP, Cli


@pytest.fixture
def on_postgres(cli: Cli, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command line with log and views of the shop in an empty PostgreSQL database."""
    monkeypatch.setenv("DIPTYCH_LOG", postgres_url)
    monkeypatch.setenv("DIPTYCH_VIEWS", postgres_url)
    return cli


def psql(server: PostgresServer, url: str, script: str) -> str:
    """Run a script as it stands; return what psql complains of."""
    program = server._psql or shutil.which("psql")
    if program is None:
        pytest.skip("there is no psql")
    done = subprocess.run(
        [program, "-Xq", "-d", url, "-f", "-"],
        input=script,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PGOPTIONS": "-c client_min_messages=warning"},
    )
    return done.stderr


def sql(url: str, text: str) -> str:
    """Run one statement; return its first value."""
    return execute(url, text, None)


# --- plan -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "views", ["same", "another schema", "another database", "two in one", "a file"]
)
def test_what_plan_prints_is_run_by_psql_as_it_stands(
    cli: Cli, views: str, postgres_url: str, postgres_server: PostgresServer
) -> None:
    """Afterwards nothing is lacking, and the application works; run again, it does no harm."""
    where = {
        "same": postgres_url,
        "another schema": f"{postgres_url}?schema=views",
        "another database": postgres_server.new_database(),
        "two in one": f"main={postgres_url}?connections=3",
        "a file": "sqlite:///views.db",
    }[views]
    words = ("--log", postgres_url, "--views", where)
    planned = cli("db", "plan", *words)
    assert planned.status == 0
    assert cli("db", "assert", *words).status == 1  # it has run nothing
    assert psql(postgres_server, postgres_url, planned.out) == ""
    assert cli("db", "assert", *words).out == "nothing is lacking\n"
    after = cli("db", "plan", *words).out
    assert after.count("lacks nothing") == len(after.splitlines()) == planned.out.count(": lacks")
    assert "ERROR" not in psql(postgres_server, postgres_url, planned.out)
    assert cli("do", "Place", "order=1", "customer=ada", "total=1", *words).status == 0
    assert cli("ask", "HowMany", "--json", *words).json["value"] == 1
    assert cli("verify", *words).status == 0


def test_words_of_sql_may_be_names_of_tables_but_not_of_schemas(
    on_postgres: Cli, folder: Path, postgres_url: str, postgres_server: PostgresServer
) -> None:
    """Tables and fields are quoted; a schema would have to be in every statement."""
    view = "View, table='select', indexes=(('customer', 'order'),)"
    source = SHOP.replace("class Summary(View)", f"class Summary({view})")
    (folder / "odd_shop.py").write_text(source)
    planned = on_postgres("db", "plan", "--app", "odd_shop")
    assert 'CREATE TABLE IF NOT EXISTS diptych."select" ("order" text' in planned.out
    assert psql(postgres_server, postgres_url, planned.out) == ""
    assert on_postgres("db", "assert", "--app", "odd_shop").status == 0
    said = on_postgres("db", "plan", "--log", f"{postgres_url}?schema=order", "--json")
    assert (said.status, said.error["code"]) == (2, "invalid")
    reserved = sql(
        postgres_url,
        "SELECT string_agg(word, ' ') FROM pg_get_keywords() WHERE catcode IN ('R', 'T')",
    )
    assert set(reserved.split()) <= RESERVED


def test_a_plan_of_half_a_schema_is_run_wholly_or_not_at_all(
    on_postgres: Cli, postgres_url: str, postgres_server: PostgresServer
) -> None:
    """Something in its way stops psql's run without a trace, as it does that of apply."""
    planned = on_postgres("db", "plan").out
    log = planned.partition("-- views:")[0]
    sql(postgres_url, "CREATE SCHEMA diptych")
    sql(postgres_url, "CREATE VIEW diptych.events AS SELECT 1 AS one")
    assert "ERROR" in psql(postgres_server, postgres_url, log)
    assert sql(postgres_url, "SELECT to_regclass('diptych.log') IS NULL") in ("t", "True")


def test_plan_as_json(on_postgres: Cli, postgres_url: str) -> None:
    log, views = on_postgres("db", "plan", "--json").json["parts"]
    assert (log["part"], log["schema"], log["database"]) == ("log", "diptych", postgres_url)
    assert [step["name"] for step in log["steps"]][:3] == ["schema", "ledger", "schema/1_log"]
    assert (views["part"], views["schema"]) == ("views", "diptych")
    assert 'CREATE TABLE diptych."summary"' in [step["name"] for step in views["steps"]]
    assert "{schema}" not in str([log, views])


def test_files_lack_nothing(cli: Cli) -> None:
    assert cli("db", "plan").out.startswith("-- Neither log nor views are in PostgreSQL")
    assert cli("db", "plan", "--json").json == {"parts": []}
    assert cli("db", "assert").out == "nothing is lacking\n"
    assert cli("db", "apply", "--role", "nobody").out == ""


# --- apply and assert -----------------------------------------------------------------------------


def test_apply_makes_what_is_lacking_once(on_postgres: Cli, postgres_url: str) -> None:
    planned = on_postgres("db", "plan", "--json").json
    lacking = on_postgres("db", "assert")
    assert (lacking.status, lacking.out.count("\n  ")) == (1, 10 + 9)
    assert on_postgres("db", "assert", "--json").json == planned
    made = on_postgres("db", "apply", "--json")
    assert (made.status, made.json) == (0, planned)
    again = on_postgres("db", "apply")
    assert again.out.splitlines() == [
        f"{part}: {postgres_url}, schema diptych: lacked nothing" for part in ("log", "views")
    ]
    assert (on_postgres("db", "assert").status, on_postgres("db", "assert").out) == (
        0,
        "nothing is lacking\n",
    )
    assert [part["steps"] for part in on_postgres("db", "assert", "--json").json["parts"]] == [
        [],
        [],
    ]


def test_apply_for_a_role_that_is_missing_changes_nothing(on_postgres: Cli) -> None:
    before = on_postgres("db", "plan", "--json").json
    said = on_postgres("db", "apply", "--role", "missing", "--json")
    assert (said.status, said.out, said.error["code"]) == (2, "", "invalid")
    assert said.error["facts"]["got"] == "missing"
    assert on_postgres("db", "plan", "--json").json == before


@pytest.mark.parametrize("name", ["clerk", 'Head "of" Sales'])
def test_a_role_without_other_rights_runs_the_application(
    on_postgres: Cli, name: str, folder: Path, postgres_url: str
) -> None:
    """It appends, projects and asks; it neither makes tables nor touches events."""
    role = f"{name} {folder.name}"  # roles belong to the server, which other tests use too
    quoted = '"' + role.replace('"', '""') + '"'
    sql(postgres_url, f"CREATE ROLE {quoted} LOGIN")
    try:
        applied = on_postgres("db", "apply", "--role", role)
        assert applied.out.endswith(
            f"{role} may append, read and project, and neither change nor delete events\n"
        )
        mine = postgres_url.replace("postgres@", f"{quote(role)}@")
        as_role = ("--log", mine, "--views", mine)
        for order in ("1", "2"):
            words = ("Place", f"order={order}", "customer=ada", "total=1", "--key", order)
            assert on_postgres("do", *words, *as_role).status == 0
        assert on_postgres("ask", "HowMany", "--json", *as_role).json["value"] == 2
        for command in ("status", "verify", "log show", "db assert", "db plan"):
            assert on_postgres(*command.split(), *as_role).status == 0, command
        for forbidden in (
            "DELETE FROM diptych.events",
            "UPDATE diptych.events SET data = ''",
            "TRUNCATE diptych.event_tags",
            "UPDATE diptych.log SET identity = ''",
            "CREATE TABLE diptych.mine (one int)",
        ):
            with pytest.raises(ServerUnusable, match="permission denied"):
                sql(mine, forbidden)
        # What is new to be made is for the owner to make.
        source = SHOP.replace("class Summary(View)", 'class Summary(View, table="renewed")')
        (folder / "new_shop.py").write_text(source)
        for command in ("ask HowMany", "db apply"):
            said = on_postgres(*command.split(), "--app", "new_shop", "--json", *as_role)
            assert (said.status, said.error["code"]) == (2, "log-unusable"), command
        for command, status in (("plan", 0), ("assert", 1)):
            said = on_postgres("db", command, "--app", "new_shop", *as_role)
            assert (said.status, 'CREATE TABLE diptych."renewed"' in said.out) == (status, True)
        assert on_postgres("db", "apply", "--role", role, "--app", "new_shop").status == 0
        assert on_postgres("ask", "HowMany", "--app", "new_shop", *as_role).status == 0
    finally:
        sql(postgres_url, f"DROP OWNED BY {quoted}")
        sql(postgres_url, f"DROP ROLE {quoted}")


def test_a_role_finishes_a_view_with_indexes_that_its_owner_has_prepared(
    on_postgres: Cli, folder: Path, postgres_url: str
) -> None:
    """Indexes are its owner's to make: apply makes them; assert says where one is lacking."""
    role = f"clerk {folder.name}"
    sql(postgres_url, f'CREATE ROLE "{role}" LOGIN')
    try:
        source = SHOP.replace(
            "class Summary(View)", 'class Summary(View, indexes=(("customer",),))'
        )
        (folder / "one_shop.py").write_text(source)
        source = source.replace("pieces: int = 0", "pieces: int = 0\n    paid: bool = False")
        (folder / "two_shop.py").write_text(source)
        mine = postgres_url.replace("postgres@", f"{quote(role)}@")
        as_role = ("--log", mine, "--views", mine)
        on_postgres("db", "apply", "--role", role, "--app", "one_shop")
        words = ("Place", "order=1", "customer=ada", "total=1")
        assert on_postgres("do", *words, "--app", "one_shop", *as_role).status == 0
        on_postgres("ask", "HowMany", "--app", "one_shop", *as_role)
        made = on_postgres("db", "apply", "--role", role, "--app", "two_shop", "--json")
        *_, table, index = (step["name"] for step in made.json["parts"][1]["steps"])
        assert (table[:12], index[:12]) == ("CREATE TABLE", "CREATE INDEX")
        name = sql(postgres_url, "SELECT indexname FROM pg_indexes WHERE indexname ~ '__.*_by_'")
        sql(postgres_url, f'DROP INDEX diptych."{name}"')
        lacking = on_postgres("db", "assert", "--app", "two_shop", *as_role)
        assert (lacking.status, f'CREATE INDEX "{name}"' in lacking.out) == (1, True)
        said = on_postgres("projections", "rebuild", "--app", "two_shop", "--json", *as_role)
        assert (said.status, said.error["code"]) == (2, "log-unusable")
        on_postgres("db", "apply", "--app", "two_shop")
        assert on_postgres("db", "assert", "--app", "two_shop", *as_role).status == 0
        assert on_postgres("projections", "rebuild", "--app", "two_shop", *as_role).status == 0
        assert on_postgres("ask", "HowMany", "--app", "two_shop", *as_role).status == 0
    finally:
        sql(postgres_url, f'DROP OWNED BY "{role}"')
        sql(postgres_url, f'DROP ROLE "{role}"')
