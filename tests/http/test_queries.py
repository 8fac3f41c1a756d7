"""Queries over HTTP: fields in the address, freshness in the headers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Annotated, Any

import httpx
import pytest

from diptych import App, Command, Event, Key, Query, Tag, View, Views, select
from diptych.http import Limits, service
from tests.http.conftest import client_of, placing
from tests.http.shop import app

parked = App("parked")
ParcelId = Annotated[str, Tag("parcel")]


class Send(Command):
    parcel: ParcelId


class Sent(Event):
    parcel: ParcelId


@parked.decides
def send(command: Send) -> Iterator[Sent]:
    yield Sent(command.parcel)


class Arrival(View):
    parcel: Key[str]


@parked.projects(Arrival)
def arrival(row: Arrival | None, event: Sent) -> Arrival:
    raise RuntimeError("a secret")


async def test_a_query_with_a_token_sees_the_commands_effect(shop: httpx.AsyncClient) -> None:
    done = await shop.post("/commands/Place", json=placing(1))
    token = done.headers["Diptych-Token"]
    headers = {"Diptych-After": token}
    answer = await shop.get("/queries/OrdersOf", params={"customer": "ann"}, headers=headers)
    assert answer.status_code == 200
    assert [row["order"] for row in answer.json()] == ["1"]
    assert answer.headers["Diptych-As-Of"] == "1"
    assert answer.headers["Diptych-Token"] == token
    assert answer.headers["Age"] == "0"
    assert "Diptych-Stale" not in answer.headers


async def test_an_answer_that_is_still_the_same_is_304(shop: httpx.AsyncClient) -> None:
    address = "/queries/OrdersOf?customer=ann"
    first = await shop.get(address)
    same = await shop.get(address, headers={"If-None-Match": first.headers["ETag"]})
    assert (same.status_code, same.content) == (304, b"")
    assert "Diptych-As-Of" in same.headers
    done = await shop.post("/commands/Place", json=placing(1))
    headers = {
        "If-None-Match": f'"x", W/{first.headers["ETag"]}',
        "Diptych-After": done.headers["Diptych-Token"],
    }
    other = await shop.get(address, headers=headers)
    assert other.status_code == 200
    assert other.headers["ETag"] != first.headers["ETag"]


async def test_what_is_not_reached_in_time_is_marked_stale_or_503() -> None:
    opening = app.open(log="memory:", views="memory:", projections=False)
    api = service(opening)
    async with api.lifespan(), client_of(api) as client:
        done = await client.post("/commands/Place", json=placing(1))
        after = {"Diptych-After": done.headers["Diptych-Token"]}
        address = "/queries/OrdersOf?customer=ann"
        stale = await client.get(address, headers={**after, "Prefer": "wait=0.01"})
        assert (stale.status_code, stale.headers["Diptych-Stale"]) == (200, "true")
        assert stale.json() == []
        assert int(stale.headers["Age"]) >= 1  # rounded up: 0 would be the present
        strict = {**after, "Prefer": 'respond-async, wait="0", handling=strict'}
        refused = await client.get(address, headers=strict)
        assert (refused.status_code, refused.json()["code"]) == (503, "stale-answer")
        assert refused.headers["Retry-After"] == "1"


@pytest.mark.parametrize(
    ("token", "status"),
    [("nonsense", 422), ("other.1", 410), ("{log}.99", 410), ("{log}." + "9" * 5000, 422)],
)
async def test_a_token_that_is_none_of_this_log_is_refused(
    shop: httpx.AsyncClient, token: str, status: int
) -> None:
    done = await shop.post("/commands/Place", json=placing(1))
    log = done.headers["Diptych-Token"].rpartition(".")[0]
    headers = {"Diptych-After": token.format(log=log)}
    answer = await shop.get("/queries/OrdersOf?customer=ann", headers=headers)
    assert answer.status_code == status
    assert answer.json()["code"] == {422: "invalid", 410: "foreign-checkpoint"}[status]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("", {"words": "()", "exact": "False", "grade": "Grade.NORMAL"}),
        ("words=a&words=b", {"words": "('a', 'b')"}),
        ('near={"lat":1.5,"lon":2}', {"near": "Near(lat=1.5, lon=2.0)"}),
        ('lines=[{"sku":"a"},{"sku":"b","pieces":2}]', {
            "lines": "(Line(sku='a', pieces=1), Line(sku='b', pieces=2))"
        }),
        ("least=0.10&most=7&exact=true", {"least": "0.10", "most": "7", "exact": "True"}),
        ("most=null", {"most": "None"}),
        ("grade=fast&way=down", {"grade": "Grade.FAST", "way": "down"}),
        ("since=2026-01-31T09:30:00Z", {"since": "2026-01-31 09:30:00+00:00"}),
    ],
)  # fmt: skip
async def test_fields_of_all_kinds_are_written_in_the_address(
    shop: httpx.AsyncClient, address: str, said: dict[str, str]
) -> None:
    answer = await shop.get(f"/queries/Find?{address}")
    assert answer.status_code == 200, answer.text
    told = dict(one.split("=", 1) for one in answer.json())
    assert {name: told[name] for name in said} == said


@pytest.mark.parametrize(
    ("address", "field"),
    [
        ("most=101", "most"),
        ("most=x", "most"),
        ("most=1.0", "most"),
        ("least=1_000", "least"),
        ("since=0001-01-01T00:00:00%2B14:00", "since"),
        ("word=%ff%fe", "(the whole message)"),
        ("most=1&most=2", "most"),
        ("near=x", "near"),
        ('near={"lat":1.5}', "near.lon"),
        ("lines=[[]]", "lines[0]"),
        ("words=a&words=.", "words[1]"),
        ("since=2026-01-31T09:30:00", "since"),
        ("nope=1", "nope"),
        ("way=left", "way"),
    ],
)
async def test_a_field_that_is_none_is_422_and_named(
    shop: httpx.AsyncClient, address: str, field: str
) -> None:
    answer = await shop.get(f"/queries/Find?{address}")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert answer.json()["facts"]["field"] == field


async def test_parameters_that_are_too_large_or_too_deep_are_refused(
    shop: httpx.AsyncClient,
) -> None:
    large = await shop.get(f"/queries/One?order={'x' * 4000}")
    assert (large.status_code, large.json()["code"]) == (413, "too-large")
    deep = await shop.get("/queries/Find", params={"near": "[" * 9})
    assert (deep.status_code, deep.json()["code"]) == (422, "too-deep")


async def test_an_unknown_query_is_404_and_a_broken_answer_500(shop: httpx.AsyncClient) -> None:
    assert (await shop.get("/queries/Nope")).json()["code"] == "unknown-message"
    broken = await shop.get("/queries/Crash")
    assert (broken.status_code, broken.json()["code"]) == (500, "fault")
    assert "secret" not in broken.text


async def test_queries_that_wait_are_bounded() -> None:
    opening = app.open(log="memory:", views="memory:", projections=False)
    api = service(opening, limits=Limits(queries=2))
    async with api.lifespan(), client_of(api) as client:
        done = await client.post("/commands/Place", json=placing(1))
        headers = {"Diptych-After": done.headers["Diptych-Token"], "Prefer": "wait=0.5"}
        asked = [client.get("/queries/One?order=1", headers=headers) for _ in range(5)]
        answers = await asyncio.gather(*asked)
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [200, 200, 503, 503, 503]


async def test_history_is_answered_with_the_events_as_recorded(shop: httpx.AsyncClient) -> None:
    await shop.post("/commands/Place", json=placing(1))
    [recorded] = (await shop.get("/queries/History?order=1")).json()
    told: dict[str, Any] = recorded
    assert (told["position"], told["event"]["customer"]) == (1, "ann")


async def test_before_it_is_opened_and_after_it_is_stopped_it_says_503() -> None:
    api = service(app.open(log="memory:", views="memory:"))
    async with client_of(api) as client:
        assert (await client.get("/health/ready")).json()["status"] == "starting"
        early = await client.get("/queries/One?order=1")
        assert (early.status_code, early.json()["code"]) == (503, "closed")
        for _ in range(2):  # the same service may be opened again
            async with api.lifespan():
                assert (await client.get("/health/ready")).status_code == 200
                assert (await client.get("/queries/One?order=1")).status_code == 200
                api.stop()
                assert (await client.get("/health/ready")).json()["status"] == "stopping"
                assert (await client.get("/health/live")).status_code == 200


async def test_readiness_names_projections_that_do_not_apply_everything_and_stays_200() -> None:
    async with parked.open(log="memory:", views="memory:") as running:
        api = service(running)
        async with client_of(api) as client:
            assert (await client.get("/health/ready")).json() == {"status": "ready", "role": "all"}
            await running.do(Send("1"))
            await running.catch_up()
            health = await client.get("/health/ready")
    assert (health.status_code, health.json()["status"]) == (200, "degraded")
    [trouble] = health.json()["projections"]
    assert (trouble["projection"], trouble["parked_keys"], trouble["parked_events"]) == (
        "arrival", 1, 1,
    )  # fmt: skip
    assert "a secret" not in health.text


class Wide(Query[int]):
    skip: int


@parked.answers
async def wide(query: Wide, views: Views) -> int:
    return len(await views.all(select(Arrival).offset(query.skip)))


class Broken(Query[int]):
    pass


@parked.answers
def broken(query: Broken) -> int:
    raise SystemExit(3)


async def test_an_int_beyond_64_bits_is_422_and_a_failed_query_speaks_of_no_key() -> None:
    async with (
        parked.open(log="memory:", views="memory:") as running,
        client_of(service(running)) as client,
    ):
        for skip in (2**63, 10**26):
            far = await client.get("/queries/Wide", params={"skip": skip})
            assert (far.status_code, far.json()["code"]) == (422, "invalid")
        failed = await client.get("/queries/Broken")
        assert (failed.status_code, failed.json()["code"]) == (500, "function-failed")
        assert failed.json()["detail"] == "It has been logged under the id given in instance."
        assert (await client.get("/queries/Wide", params={"skip": 0})).json() == 0
