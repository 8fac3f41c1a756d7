"""The password of a URL is never shown: not in an error, not on the command line, not by repr."""

from __future__ import annotations

import traceback
from collections.abc import Sequence

import pytest

from diptych import App, Event, Key, Query, View
from diptych.app.databases import Where
from diptych.cli import main
from diptych.errors import DefinitionError, DiptychError, Invalid, LogUnusable
from diptych.sql.addresses import without_password, without_passwords
from diptych.sql.postgres import Address, Database
from diptych.testing import scenarios

SECRET = "s3cret"

REFUSED = [
    f"ann:{SECRET}@host/db",
    f"mysql://ann:{SECRET}@host/db",
    f"postgresql:ann:{SECRET}@host/db",
    f"postgresql:/ann:{SECRET}@host/db",
    f"postgresql://ann:{SECRET}@host/db?schema=Bad",
    f"postgresql://ann:{SECRET}@host/db?connections=1",
    f"postgresql://ann:{SECRET}@host/db?pooled=yes",
    f"postgresql://host/db?password={SECRET}&schema=Bad",
    f"postgresql://ann:{SECRET}/{SECRET}@host/db",
    f"postgresql://ann:{SECRET}#{SECRET}@host/db",
    f"postgresql://ann:{SECRET}?{SECRET}@host/db",
    f"postgresql://ann:{SECRET}@{SECRET}/{SECRET}@host/db",
    f"postgresql://ann:{SECRET}[{SECRET}@host/db",
    f"postgresql://ann:{SECRET}@host:port/db",
    f"postgresql://ann:{SECRET}@host/db postgresql://bob:{SECRET}@host/db",
]


class Placed(Event):
    order: str


class Order(View):
    order: Key[str]


class HowMany(Query[int]):
    pass


def make_app(*, inline: bool = False) -> App:
    app = App("shop")

    @app.projects(Order, inline=inline)
    def order(row: Order | None, event: Placed) -> Order | None:
        return Order(event.order)

    @app.answers
    def how_many(query: HowMany) -> int:
        return 0

    return app


app = make_app()


def require_secrecy(error: BaseException) -> None:
    """Look at all that can be seen of an error."""
    told = [str(error), repr(error), "".join(traceback.format_exception(error))]
    if isinstance(error, DiptychError):
        told += [error.message, str(error.facts), repr(error.facts)]
    assert not [text for text in told if SECRET in text]


@pytest.mark.parametrize("url", REFUSED)
async def test_an_address_that_is_refused_is_shown_without_its_password(url: str) -> None:
    """Whatever is wrong with it, and whichever of its characters had to be written as %XX."""
    for log, views in ((url, "memory:"), ("memory:", url)):
        with pytest.raises(Invalid) as refused:
            async with make_app().open(log=log, views=views):
                pass
        assert "host" in str(refused.value)
        require_secrecy(refused.value)
    with pytest.raises(Invalid) as refused:
        async with make_app().open(log="memory:", views={"main": url}):
            pass
    require_secrecy(refused.value)


async def test_a_database_that_refuses_is_shown_without_the_password(postgres_url: str) -> None:
    url = postgres_url.replace("postgres@", f"stranger:{SECRET}@")
    with pytest.raises(LogUnusable) as failed:
        async with make_app().open(log=url, views="memory:"):
            pass
    assert "stranger@127.0.0.1" in str(failed.value)
    require_secrecy(failed.value)


async def test_an_inline_projection_that_cannot_be_is_refused_without_a_password() -> None:
    url = f"postgresql://ann:{SECRET}@127.0.0.1:1/shop"
    for addresses in ((url, "memory:"), ("memory:", url), (url, f"{url}?schema=other")):
        with pytest.raises(DefinitionError) as refused:
            async with make_app(inline=True).open(log=addresses[0], views=addresses[1]):
                pass
        assert "ann@127.0.0.1:1" in str(refused.value)
        require_secrecy(refused.value)


def test_scenarios_that_begin_alike_are_refused_without_a_password(postgres_url: str) -> None:
    url = postgres_url.replace("postgres@", f"postgres:{SECRET}@")
    begun = scenarios(make_app(), log=url)(Placed("1"))
    begun.then(Order("1"))
    begun.given(Placed("2")).then(Order("1"), Order("2"))
    with pytest.raises(Invalid, match="cannot share one log") as refused:
        begun.given(Placed("3")).then(Order("1"), Order("3"))
    require_secrecy(refused.value)


@pytest.mark.parametrize(
    "url", [f"postgresql://ann:{SECRET}@host/db", f"postgresql://host/db?password={SECRET}"]
)
def test_what_holds_an_address_does_not_show_its_password(url: str) -> None:
    where, address = Where.parse(url, "log"), Address.parse(url)
    assert where.url == url  # a test that cannot fail would say nothing
    assert SECRET in address.dsn
    told = repr([where, address, {where: address}])
    assert "host/db" in told
    assert SECRET not in told
    assert SECRET not in Database(url).path


WORDS: Sequence[Sequence[str]] = [
    ("describe",),
    ("status",),
    ("verify",),
    ("ask", "HowMany"),
    ("log", "show"),
    ("db", "plan"),
    ("db", "apply", "--role", "nobody"),
    ("db", "apply"),
    ("db", "assert"),
]


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize("flags", [(), ("--json",), ("--debug",)])
def test_the_command_line_shows_no_password(
    words: Sequence[str],
    flags: Sequence[str],
    postgres_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Neither in what it answers nor in what it refuses."""
    monkeypatch.setenv("DIPTYCH_APP", "tests.app.test_passwords")
    server = postgres_url.replace("postgres@", f"postgres:{SECRET}@")
    for url in (server, *REFUSED):
        main([*words, *flags, "--log", url, "--views", url])
    main([*words, server, *flags])
    told = capsys.readouterr()
    assert "postgresql://ann@host" in told.err
    assert SECRET not in told.out + told.err


def test_what_is_no_password_stays() -> None:
    for url in (
        "sqlite:///folder/a:b@c/shop.db",
        "postgresql://ann@host:5433/shop?schema=s",
        "postgresql://one:1,two:2/shop",
        "memory:",
    ):
        assert without_password(url) == url
        assert without_passwords(f"see '{url}' there") == f"see '{url}' there"
