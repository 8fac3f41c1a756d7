"""Who may: authentication by tokens and proxies, and the rules of the application behind it."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from diptych import (
    Actor,
    App,
    Command,
    Event,
    Key,
    Query,
    Tag,
    View,
    Views,
    role,
    same_tenant,
    select,
)
from diptych.errors import DefinitionError
from diptych.http import Limits, bearer, service, trusted_proxy
from tests.http.conftest import Serve

SECRET = "a secret of more than thirty-two bytes, as HS256 wants it"
FlightId = Annotated[str, Tag("flight")]
app = App("flights")


class Depart(Command):
    flight: FlightId
    line: str


class Departed(Event):
    flight: FlightId
    line: str


@app.decides(allow=role("dispatcher") & same_tenant("line"))
def depart(command: Depart) -> Iterator[Departed]:
    yield Departed(command.flight, command.line)


class Board(View):
    flight: Key[str]
    line: str


@app.projects(Board)
def board(row: Board | None, event: Departed) -> Board:
    return Board(event.flight, event.line)


class Flights(Query[list[str]]):
    line: str


@app.answers(allow=same_tenant("line"))
async def flights(query: Flights, views: Views) -> list[str]:
    rows = await views.all(select(Board).where(Board.line == query.line))
    return [row.flight for row in rows]


app.exposes(Departed, allow=same_tenant("line"))


def token(key: Any = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    given = {
        "sub": "ann",
        "exp": int(time.time()) + 86_400,
        "roles": ["dispatcher"],
        "tenant": "UA",
    }
    given |= claims
    return jwt.encode({k: v for k, v in given.items() if v is not None}, key, algorithm)


@asynccontextmanager
async def served(
    authenticate: Any, peer: str = "127.0.0.1"
) -> AsyncGenerator[tuple[httpx.AsyncClient, Any]]:
    async with app.open(log="memory:", views="memory:") as running:
        api = service(running, authenticate=authenticate, limits=Limits(seconds=5))
        transport = httpx.ASGITransport(api, client=(peer, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            yield client, running


def bearing(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


DEPART = {"flight": "1", "line": "UA"}


async def test_the_claims_of_a_token_make_the_actor_who_stands_beside_the_event() -> None:
    async with served(bearer(SECRET, algorithms=["HS256"])) as (client, running):
        done = await client.post("/commands/Depart", json=DEPART, headers=bearing(token()))
        assert done.status_code == 200
        [recorded] = await running.events.read()
        assert (recorded.metadata.actor, recorded.metadata.tenant) == ("ann", "UA")
        assert recorded.metadata.roles == ("dispatcher",)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        (bearing(token(roles="pilot dispatcher")), 200),
        (bearing(token(roles=["pilot"])), 403),
        (bearing(token(tenant="DL")), 403),
        (bearing(token(tenant=None)), 403),
        (bearing(token(exp=1)), 401),
        (bearing(token(exp=None)), 401),
        (bearing(token(sub=None)), 401),
        (bearing(token(sub="")), 401),
        (bearing(token(roles=3)), 401),
        (bearing(token(roles=[3])), 401),
        (bearing(token("another secret of more than thirty-two bytes")), 401),
        (bearing(token(aud="somebody else")), 401),
        (bearing(jwt.encode({"sub": "a", "exp": 9e9}, "", "none")), 401),
        (bearing("nonsense"), 401),
        ({"Authorization": "Basic x"}, 401),
        ({"Authorization": "Bearer "}, 401),
    ],
)  # fmt: skip
async def test_a_token_is_taken_only_when_all_of_it_is_right(
    headers: dict[str, str], status: int
) -> None:
    async with served(bearer(SECRET, algorithms=["HS256"])) as (client, _):
        done = await client.post("/commands/Depart", json=DEPART, headers=headers)
        assert done.status_code == status, done.text
        if status == 401:
            assert done.headers["WWW-Authenticate"] == "Bearer"
            assert done.json()["code"] == "not-authenticated"
        asked = await client.get("/queries/Flights?line=UA", headers=headers)
        assert (asked.status_code == 401) == (status == 401)


async def test_a_public_key_is_no_secret() -> None:
    """A token signed with the public key as if it were a secret is refused."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    async with served(bearer(private.public_key(), algorithms=["RS256"])) as (client, _):
        good = bearing(token(private, "RS256"))
        assert (await client.get("/queries/Flights?line=UA", headers=good)).status_code == 200
        forged = bearing(token(SECRET, "HS256"))
        assert (await client.get("/queries/Flights?line=UA", headers=forged)).status_code == 401


@pytest.mark.parametrize("algorithms", [[], ["none"], ["HS256", "None"]])
def test_a_bearer_names_the_algorithms_of_its_keys(algorithms: list[str]) -> None:
    with pytest.raises(DefinitionError, match="algorithms"):
        bearer(SECRET, algorithms=algorithms)


async def test_streams_and_batches_ask_the_rules_too() -> None:
    async with served(bearer(SECRET, algorithms=["HS256"])) as (client, _):
        other, stream = bearing(token(tenant="DL")), {"Accept": "text/event-stream"}
        for headers, status in ((stream, 401), ({**stream, **other}, 403)):
            live = await client.get("/queries/Flights?line=UA", headers=headers)
            assert live.status_code == status
        assert (await client.get("/events", headers=stream)).status_code == 401
        lines = {"Content-Type": "application/x-ndjson", **other}
        line = b'{"command": "Depart", "data": {"flight": "1", "line": "UA"}}\n'
        batch = await client.post("/commands", content=line, headers=lines)
        assert batch.json()["problem"]["code"] == "not-allowed"


async def test_only_a_trusted_proxy_says_who_asks() -> None:
    trusted = trusted_proxy("X-User", roles="X-Roles", tenant="X-Tenant", proxies=["10.0.0.0/8"])
    ann = {"X-User": "ann", "X-Roles": "dispatcher,pilot", "X-Tenant": "UA"}
    cases: list[tuple[str, Any, int]] = [
        ("10.1.2.3", ann, 200),
        ("10.1.2.3", {}, 401),
        ("10.1.2.3", {**ann, "X-Roles": "pilot"}, 403),
        ("10.1.2.3", {**ann, "X-User": ""}, 401),
        ("10.1.2.3", [*ann.items(), ("X-User", "bob")], 401),
        ("192.0.2.7", ann, 401),
        ("192.0.2.7", {"X-Roles": "dispatcher"}, 401),
    ]
    for peer, headers, status in cases:
        async with served(trusted, peer) as (client, _):
            done = await client.post("/commands/Depart", json=DEPART, headers=headers)
            assert done.status_code == status, (peer, headers)


def test_proxies_are_addresses() -> None:
    with pytest.raises(DefinitionError, match="addresses"):
        trusted_proxy("X-User", proxies=["proxy.example"])


async def test_an_authentication_that_fails_is_a_fault_and_lets_nobody_in() -> None:
    async def broken(request: Any) -> Actor | None:
        raise RuntimeError("secret")

    async with served(broken) as (client, running):
        done = await client.post("/commands/Depart", json=DEPART)
        assert (done.status_code, "secret" in done.text) == (500, False)
        assert await running.log.head() == 0


def by_header(request: Any) -> Actor | None:
    """What the command line is given by its name."""
    name = request.headers.get("X-Name")
    return None if name is None else Actor(name, {"dispatcher"}, "UA")


async def test_the_command_line_is_given_an_authentication_by_name(serve: Serve) -> None:
    words = ("--authenticate", "tests.http.test_actors:by_header", "--host", "0.0.0.0")
    server = serve(*words, environment={"DIPTYCH_APP": "tests.http.test_actors:app"})
    url = server.url.replace("0.0.0.0", "127.0.0.1")
    async with httpx.AsyncClient(base_url=url, headers={"Host": "any.example"}) as client:
        assert (await client.post("/commands/Depart", json=DEPART)).status_code == 401
        headers = {"X-Name": "ann"}
        done = await client.post("/commands/Depart", json=DEPART, headers=headers)
        assert done.status_code == 200
