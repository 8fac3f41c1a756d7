"""The command line where views are in Redis or DuckDB, beside a read database with their books."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest

from diptych.testing.servers import RedisServer
from tests.cli.conftest import SHOP, URL, Cli
from tests.cli.test_db import sql

CACHED = SHOP.replace("class Summary(View)", 'class Summary(View, store="cache")')
CHANGED = CACHED.replace(
    "    return Summary(event.order", "    pieces += 1\n    return Summary(event.order"
)


@pytest.fixture(params=["sqlite-redis", "sqlite-duckdb", "postgres-redis"])
def cached(
    request: pytest.FixtureRequest, cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Cli:
    """A shop whose view is beside the books."""
    books, _, rows = request.param.partition("-")
    url = URL
    if books == "postgres":
        url = request.getfixturevalue("postgres_url")
    cache = "duckdb:///rows.duckdb"
    if rows == "redis":
        redis: RedisServer = request.getfixturevalue("redis_server")
        cache = f"{redis.url}?prefix={folder.name}:"
    (folder / "cached_shop.py").write_text(CACHED)
    (folder / "changed_shop.py").write_text(CHANGED)
    monkeypatch.setenv("DIPTYCH_APP", "cached_shop:app")
    monkeypatch.setenv("DIPTYCH_LOG", url)
    monkeypatch.setenv("DIPTYCH_VIEWS", f"main={url} cache={cache}")
    return cli


def pieces(cli: Cli) -> int:
    found: int = cli("ask", "One", "order=1", "--json").json["value"]["pieces"]
    return found


def test_it_is_asked_proved_rebuilt_and_dropped_as_anywhere(
    cached: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    for order in ("1", "2"):
        done = cached("do", "Place", f"order={order}", "customer=ann", "total=3")
        assert done.status == 0, done.err
    assert pieces(cached) == 0
    (status,) = cached("status", "--json").json["projections"]
    assert (status["projection"], status["lag"]) == ("summary", 0)
    assert cached("verify").status == 0
    rows = cached("verify", "--rows")
    assert (rows.status, rows.out.split()[-6:-4]) == (0, ["summary", "2"]), rows
    assert [v["state"] for v in cached("projections", "list", "--json").json["versions"]] == [
        "live"
    ]
    monkeypatch.setenv("DIPTYCH_APP", "changed_shop:app")
    built = cached("projections", "rebuild", "--compare", "--no-cutover")
    assert "of 2 rows 2 differ" in built.out, built
    assert pieces(cached) == 0
    assert cached("projections", "cutover", "summary", "--yes").status == 0
    assert pieces(cached) == 1
    assert cached("projections", "rollback", "summary", "--yes").status == 0
    assert pieces(cached) == 0
    assert cached("projections", "cutover", "summary", "--yes").status == 0
    assert cached("projections", "drop", "summary", "--yes").status == 0
    rewound = cached("projections", "rewind", "summary", "--to", "0", "--yes")
    assert rewound.status == 0, rewound
    assert cached("ask", "One", "order=1").status == 0
    assert pieces(cached) == 1
    assert cached("verify", "--rows").status == 0
    assert cached("db", "assert").status == 0


def test_looking_makes_nothing(cached: Cli) -> None:
    cached("do", "Place", "order=1", "customer=ann", "total=3", "--views", URL, "--app", "cli_shop")
    said = cached("status", "--json")
    assert (said.status, said.error["code"]) == (2, "no-views"), said


def test_a_statement_is_for_databases_with_sql(cached: Cli) -> None:
    """Redis has rows by key only; the error says so."""
    cached("do", "Place", "order=1", "customer=ann", "total=3")
    said = cached("ask", "HowMany", "--json")
    if "duckdb" in said.out or said.status == 0:
        assert said.json["value"] == 1
    else:
        assert said.error["code"] == "invalid"
        assert "by their key only" in said.error["message"]


def test_a_role_without_other_rights_keeps_books_of_rows(
    cli: Cli,
    folder: Path,
    postgres_url: str,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There are no tables of its rows in PostgreSQL; it notes versions and moves checkpoints."""
    (folder / "cached_shop.py").write_text(CACHED)
    (folder / "changed_shop.py").write_text(CHANGED)
    monkeypatch.setenv("DIPTYCH_APP", "cached_shop:app")
    role = f"keeper {folder.name}"
    sql(postgres_url, f'CREATE ROLE "{role}" LOGIN')
    cache = f"{redis_server.url}?prefix={folder.name}-role:"
    mine = postgres_url.replace("postgres@", f"{quote(role)}@")
    owner = ("--log", postgres_url, "--views", f"main={postgres_url} cache={cache}")
    as_role = ("--log", mine, "--views", f"main={mine} cache={cache}")
    try:
        assert cli("db", "apply", "--role", role, *owner).status == 0
        assert cli("do", "Place", "order=1", "customer=ada", "total=1", *as_role).status == 0
        for command in ("ask One order=1", "status", "verify --rows", "db assert"):
            said = cli(*command.split(), *as_role)
            assert said.status == 0, said
        changed = ("--app", "changed_shop:app", *as_role)
        assert cli("projections", "rebuild", *changed).status == 0
        assert cli("verify", "--rows", *changed).status == 0
    finally:
        sql(postgres_url, f'DROP OWNED BY "{role}"')
        sql(postgres_url, f'DROP ROLE "{role}"')
