"""Live queries and the log as streams, from servers of their own."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import httpx
import pytest

from tests.http.conftest import Serve, Served, placing
from tests.http.fuzzing import serving
from tests.http.reading import following
from tests.http.streams import measure

LIVE = "/queries/OrdersOf?customer=ann"


@pytest.fixture
def server(serve: Serve) -> Served:
    return serve()


async def test_a_live_query_answers_at_once_and_whenever_the_answer_changes(
    server: Served,
) -> None:
    async with server.client() as client, following(client, LIVE) as events:
        first = await anext(events)
        assert (first.data["value"], first.data["stale"]) == ([], False)
        # What does not change this answer is not told.
        await client.post("/commands/Place", json=placing(1, "bob"))
        done = await client.post("/commands/Place", json=placing(2))
        news = await anext(events)
        assert [row["order"] for row in news.data["value"]] == ["2"]
        assert news.data["as_of"] == 2
        assert news.id == news.data["token"] == done.headers["Diptych-Token"]


async def test_a_live_query_is_resumed_by_the_last_event_id(server: Served) -> None:
    async with server.client() as client:
        done = await client.post("/commands/Place", json=placing(1))
        token = done.headers["Diptych-Token"]
        resumed = [
            (LIVE, {"Last-Event-ID": token}),
            (LIVE, {"Diptych-After": token}),
            (f"{LIVE}&diptych-after={token}", {}),
        ]
        for address, headers in resumed:
            async with following(client, address, **headers) as events:
                first = await anext(events)
                if first.data["stale"]:
                    first = await anext(events)
                assert [row["order"] for row in first.data["value"]] == ["1"]
        foreign = {"Accept": "text/event-stream", "Last-Event-ID": "other.1"}
        refused = await client.get(LIVE, headers=foreign)
        assert (refused.status_code, refused.json()["code"]) == (410, "foreign-checkpoint")


async def test_a_live_query_that_cannot_be_answered_is_a_problem_not_a_stream(
    server: Served,
) -> None:
    async with server.client() as client:
        for address, status in (("/queries/Crash", 500), ("/queries/OrdersOf", 422)):
            answer = await client.get(address, headers={"Accept": "text/event-stream"})
            assert answer.status_code == status
            assert answer.headers["Content-Type"] == "application/problem+json"


async def test_who_takes_json_too_gets_json(server: Served) -> None:
    async with server.client() as client:
        headers = {"Accept": "application/json, text/event-stream"}
        assert (await client.get(LIVE, headers=headers)).json() == []


async def test_the_log_is_a_stream_by_types_and_tags_with_resume(server: Served) -> None:
    async with server.client() as client:
        for number in (1, 2, 3):
            await client.post("/commands/Place", json=placing(number))
        await client.post("/commands/Cancel", json={"order": "2"})
        async with following(client, "/events?after=0&types=Placed") as events:
            told = [await anext(events) for _ in range(3)]
            assert [one.data["position"] for one in told] == [1, 2, 3]
            assert told[0].data["type"] == "Placed"
            assert told[0].data["tags"] == ["order:1"]
            assert told[0].data["data"]["total"] == "9.50"
            assert told[0].data["metadata"]["command_id"]
            await client.post("/commands/Cancel", json={"order": "1"})
            await client.post("/commands/Place", json=placing(4))
            assert (await anext(events)).data["position"] == 6
            for number in range(7, 11):  # one by one: none of them is passed over
                await client.post("/commands/Place", json=placing(number))
                assert (await anext(events)).data["position"] == number
        resume = {"Last-Event-ID": told[1].id}
        async with following(client, "/events?after=0&types=Placed", **resume) as events:
            assert (await anext(events)).data["position"] == 3
        async with following(client, "/events?tags=order:2&after=0") as events:
            assert [(await anext(events)).data["type"] for _ in range(2)] == ["Placed", "Cancelled"]


@pytest.mark.parametrize(
    ("address", "field"),
    [
        ("types=Nope", "types"),
        ("tags=x", "tags"),
        ("after=99", "after"),
        ("after=" + "9" * 30, "after"),
        ("after=x", "token"),
        ("after=0&after=0", "after"),
        ("nope=1", "nope"),
    ],
)
async def test_events_that_cannot_be_told_are_422(
    shop: httpx.AsyncClient, address: str, field: str
) -> None:
    answer = await shop.get(f"/events?{address}")
    assert (answer.status_code, answer.json()["facts"]["field"]) == (422, field)


async def test_sigterm_ends_the_streams_and_then_the_server(server: Served) -> None:
    async with server.client() as client:
        async with following(client, LIVE) as live, following(client, "/events") as log:
            await anext(live)
            stopped = asyncio.create_task(asyncio.to_thread(server.stop))
            assert [one async for one in live] == []
            assert [one async for one in log] == []
        assert await stopped == 0


async def test_a_stream_goes_on_at_another_server_where_it_ended(serve: Serve) -> None:
    first = serve()
    async with first.client() as client, following(client, "/events?after=0") as events:
        await client.post("/commands/Place", json=placing(1))
        last = (await anext(events)).id
        await client.post("/commands/Place", json=placing(2))
        await asyncio.to_thread(first.stop, signal.SIGKILL)
    async with (
        serve().client() as client,
        following(client, "/events", **{"Last-Event-ID": last}) as events,
    ):
        assert (await anext(events)).data["data"]["order"] == "2"


async def test_views_of_another_process_are_noticed(serve: Serve) -> None:
    """Commands, queries and the work on views in three processes, and a live query between."""
    writer = serve("--role", "commands")
    worker, reader = serve("--role", "workers"), serve("--role", "queries")
    async with writer.client() as commands, reader.client() as queries, worker.client() as work:
        async with following(queries, LIVE) as events:
            assert (await anext(events)).data["value"] == []
            done = await commands.post("/commands/Place", json=placing(1))
            assert [row["order"] for row in (await anext(events)).data["value"]] == ["1"]
        after = {"Diptych-After": done.headers["Diptych-Token"]}
        answer = await queries.get(LIVE, headers=after)
        assert [row["order"] for row in answer.json()] == ["1"]
        assert (await queries.post("/commands/Place", json=placing(2))).status_code == 404
        assert (await commands.get(LIVE)).status_code == 404
        for client, role in ((commands, "commands"), (queries, "queries"), (work, "workers")):
            assert (await client.get("/health/ready")).json() == {"status": "ready", "role": role}
        assert (await work.get("/openapi.json")).status_code == 404
        assert "/commands/Place" not in (await queries.get("/openapi.json")).json()["paths"]


async def test_many_streams_end_with_the_right_answer_and_take_little_memory(
    tmp_path: Path,
) -> None:
    """200 streams of 20 queries, while commands run; `python -m tests.http.streams`: 1,000."""
    with serving("tests.http.shop:app", tmp_path) as served:
        report = await measure(served, streams=200, queries=20, rate=100, seconds=2)
    assert report.wrong == 0
    assert report.commands == 200
    assert report.per_stream < 60
