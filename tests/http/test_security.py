"""Who may reach the door: names, origins, and what browsers are told."""

from __future__ import annotations

import httpx
import pytest
from starlette.requests import Request

from diptych import Actor
from diptych.http import service
from tests.http.conftest import client_of, placing
from tests.http.shop import app


async def test_without_authentication_it_answers_to_names_of_this_machine_only(
    shop: httpx.AsyncClient,
) -> None:
    for host in ("localhost", "localhost:8000", "127.0.0.1:80", "[::1]:8000", "LOCALHOST"):
        answer = await shop.get("/queries/One?order=1", headers={"Host": host})
        assert answer.status_code == 200, host
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.nip.io:80", ""):
        answer = await shop.get("/queries/One?order=1", headers={"Host": host})
        assert (answer.status_code, answer.json()["code"]) == (421, "foreign-host"), host
        # Probes call it by whatever address it has.
        assert (await shop.get("/health/live", headers={"Host": host})).status_code == 200


async def test_it_answers_to_the_names_it_was_given() -> None:
    async with app.open(log="memory:", views="memory:") as running:
        named = service(running, hosts=["api.example"])
        known = service(running, authenticate=lambda request: None)
        async with client_of(named) as client:
            for host, status in (("api.example:443", 200), ("localhost", 421)):
                answer = await client.get("/queries/One?order=1", headers={"Host": host})
                assert answer.status_code == status
        async with client_of(known) as client:
            answer = await client.get("/queries/One?order=1", headers={"Host": "any.example"})
            assert answer.status_code == 200


async def test_pages_of_other_origins_are_refused_unless_they_were_named() -> None:
    async with app.open(log="memory:", views="memory:") as running:
        api = service(running, origins=["https://shop.example"])
        async with client_of(api) as client:
            for origin in ("http://evil.example", "null", "http://localhost:1", "http://[bad"):
                answer = await client.post(
                    "/commands/Place", json=placing(1), headers={"Origin": origin}
                )
                assert (answer.status_code, answer.json()["code"]) == (403, "foreign-origin")
                assert "Access-Control-Allow-Origin" not in answer.headers
            own = await client.post(
                "/commands/Place", json=placing(1), headers={"Origin": "http://localhost"}
            )
            assert own.status_code == 200
            for number, status in ((1, 409), (2, 200)):
                named = await client.post(
                    "/commands/Place",
                    json=placing(number),
                    headers={"Origin": "https://shop.example"},
                )
                assert named.status_code == status
                assert named.headers["Access-Control-Allow-Origin"] == "https://shop.example"
                assert "diptych-token" in named.headers["Access-Control-Expose-Headers"]
            asked = await client.options(
                "/commands/Place",
                headers={
                    "Origin": "https://shop.example",
                    "Access-Control-Request-Method": "POST",
                    "Access-Control-Request-Headers": "content-type, idempotency-key",
                },
            )
            assert asked.status_code == 200


@pytest.mark.parametrize("address", ["/queries/One?order=1", "/nowhere", "/reference"])
async def test_every_answer_tells_browsers_to_be_careful(
    shop: httpx.AsyncClient, address: str
) -> None:
    headers = (await shop.get(address)).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "Set-Cookie" not in headers


async def test_metrics_are_for_whoever_is_known_where_anybody_is() -> None:
    async with app.open(log="memory:", views="memory:") as running:
        async with client_of(service(running)) as client:
            assert (await client.post("/commands/Place", json=placing(1))).status_code == 200
            told = await client.get("/metrics")
            assert told.status_code == 200
            assert told.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            assert "\ndiptych_log_head 1\n" in told.text
        known = service(running, authenticate=request_actor)
        async with client_of(known) as client:
            answer = await client.get("/metrics")
            assert (answer.status_code, answer.json()["code"]) == (401, "not-authenticated")
            assert (await client.get("/metrics", headers={"X-Who": "ann"})).status_code == 200


def request_actor(request: Request) -> Actor | None:
    who = request.headers.get("X-Who")
    return None if who is None else Actor(who)
