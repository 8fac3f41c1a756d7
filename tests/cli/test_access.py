"""Rules on the command line: shown by `describe`, asked by `do` and `ask`."""

from pathlib import Path

import pytest

from tests.cli.conftest import Cli

DESK = """
from collections.abc import Iterator

from diptych import App, Command, Event, Query, anyone, role, same_tenant

app = App("desk")


class Open(Command):
    tenant: str


class Opened(Event):
    tenant: str


class Closed(Event):
    pass


class Hours(Query[int]):
    tenant: str


@app.decides(allow=role("clerk") & same_tenant("tenant"))
def open_desk(command: Open) -> Iterator[Opened | Closed]:
    yield Opened(command.tenant)


@app.answers(allow=same_tenant("tenant"))
def hours(query: Hours) -> int:
    return 8


app.exposes(Opened, allow=role("auditor") | anyone)
"""

TREE = """\
module desk
├── command Open
│   ├── tenant: str
│   ├── for role("clerk") & same_tenant("tenant")
│   └── emits Opened Closed
├── event Opened v1
│   ├── tenant: str
│   └── for role("auditor") | anyone
├── event Closed v1
└── query Hours
    ├── tenant: str
    ├── for same_tenant("tenant")
    └── gives int
"""


@pytest.fixture
def desk(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    (folder / "cli_desk.py").write_text(DESK)
    monkeypatch.setenv("DIPTYCH_APP", "cli_desk:app")
    return cli


def test_describe_shows_who_may(desk: Cli) -> None:
    assert desk("describe") == (0, TREE, "")
    found = desk("describe", "--json").json
    assert found["commands"][0]["allow"] == 'role("clerk") & same_tenant("tenant")'
    assert [event["allow"] for event in found["events"]] == ['role("auditor") | anyone', None]
    assert found["queries"][0]["allow"] == 'same_tenant("tenant")'


def test_the_shell_acts_with_roles_and_a_tenant(desk: Cli) -> None:
    who = ("--actor", "ann", "--role", "lead", "--role", "clerk", "--tenant", "acme")
    assert desk("do", "Open", "tenant=acme", *who).status == 0
    [event] = desk("log", "show", "--json").lines
    assert event["metadata"]["actor"] == "ann"
    assert event["metadata"]["tenant"] == "acme"
    assert event["metadata"]["roles"] == ["clerk", "lead"]
    assert desk("ask", "Hours", "tenant=acme", "--actor", "ann", "--tenant", "acme").status == 0


def test_who_may_not_is_told_so_with_status_1(desk: Cli) -> None:
    told = desk("do", "Open", "tenant=acme", "--actor", "ann", "--json")
    assert (told.status, told.error["code"]) == (1, "not-allowed")
    told = desk("do", "Open", "tenant=acme", "--json")
    assert (told.status, told.error["code"]) == (1, "not-authenticated")
    told = desk("ask", "Hours", "tenant=acme", "--actor", "a", "--tenant", "bolt")
    assert told.status == 1
    assert "--role and --tenant" in told.err


def test_roles_without_an_actor_are_nobodys(desk: Cli) -> None:
    told = desk("do", "Open", "tenant=acme", "--role", "clerk")
    assert told.status == 2
    assert "--actor" in told.err
