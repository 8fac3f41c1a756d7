"""Commands over HTTP: one at a time, and many in a batch."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from diptych.http import Limits, service
from tests.http.conftest import LINES, client_of, placing
from tests.http.shop import app


async def test_a_command_is_answered_with_a_token_in_body_and_header(
    shop: httpx.AsyncClient,
) -> None:
    answer = await shop.post("/commands/Place", json=placing(1))
    assert answer.status_code == 200
    assert answer.json()["token"] == answer.headers["Diptych-Token"]
    assert (answer.json()["first"], answer.json()["replayed"]) == (1, False)
    assert answer.headers["Cache-Control"] == "no-store"


async def test_a_rejection_is_409_with_its_reason_code_and_facts(shop: httpx.AsyncClient) -> None:
    await shop.post("/commands/Place", json=placing(1))
    answer = await shop.post("/commands/Place", json=placing(1))
    assert answer.status_code == 409
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json() == {
        "type": "urn:diptych:rejected",
        "title": "A business rule said no",
        "status": 409,
        "detail": "order already placed",
        "code": "order-already-placed",
        "facts": {"order": "1", "total": "9.50"},
    }


@pytest.mark.parametrize("key", ["k-1", '"k-1"'], ids=["bare", "quoted"])
async def test_the_same_key_gives_the_first_answer_again(shop: httpx.AsyncClient, key: str) -> None:
    headers = {"Idempotency-Key": "k-1"}
    first = await shop.post("/commands/Place", json=placing(1), headers=headers)
    again = await shop.post("/commands/Place", json=placing(1), headers={"Idempotency-Key": key})
    assert again.status_code == 200
    assert again.json()["replayed"]
    assert again.headers["Diptych-Token"] == first.headers["Diptych-Token"]


async def test_the_same_key_for_something_else_is_422(shop: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "k-1"}
    await shop.post("/commands/Place", json=placing(1), headers=headers)
    answer = await shop.post("/commands/Place", json=placing(2), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "key-reused")


@pytest.mark.parametrize("key", ["", '""', " ", "a\x01", "é", "x" * 256])
async def test_a_key_that_is_none_is_422(shop: httpx.AsyncClient, key: str) -> None:
    headers = {b"Idempotency-Key": key.encode("latin-1")}
    answer = await shop.post("/commands/Place", json=placing(1), headers=headers)
    assert (answer.status_code, answer.json()["facts"]["field"]) == (422, "Idempotency-Key")


async def test_two_keys_are_422(shop: httpx.AsyncClient) -> None:
    headers = [("Idempotency-Key", "k-1"), ("Idempotency-Key", "k-2")]
    answer = await shop.post("/commands/Place", json=placing(1), headers=headers)
    assert (answer.status_code, answer.json()["facts"]["field"]) == (422, "Idempotency-Key")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "(the whole message)"),
        (b"{", "(the whole message)"),
        (b"[]", "(the whole message)"),
        (b"\xff", "(the whole message)"),
        (b'{"order": "1"}', "customer"),
        (b'{"order": 1, "customer": "a", "total": 1}', "order"),
        (b'{"order": "1", "customer": "a", "total": "Infinity"}', "total"),
        (b'{"order": "1", "customer": "a", "total": "1e200000"}', "total"),
        (b'{"order": "1", "customer": "a", "total": 1e200000}', "total"),
        (b'{"order": "1", "customer": "a", "total": 1, "x": 1}', "x"),
        (b'{"order": "1", "customer": "\\ud800", "total": 1}', "(the whole message)"),
    ],
)
async def test_a_body_that_is_not_the_commands_is_422_and_names_the_field(
    shop: httpx.AsyncClient, body: bytes, field: str
) -> None:
    headers = {"Content-Type": "application/json; charset=utf-8"}
    answer = await shop.post("/commands/Place", content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert answer.json()["facts"]["field"] == field


@pytest.mark.parametrize("media", [None, "text/plain", "application/x-www-form-urlencoded"])
async def test_what_a_form_of_another_page_can_send_is_415(
    shop: httpx.AsyncClient, media: str | None
) -> None:
    headers = {} if media is None else {"Content-Type": media}
    body = json.dumps(placing(1)).encode()
    answer = await shop.post("/commands/Place", content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "media-type")


async def test_a_command_that_is_too_large_or_too_deep_is_refused(shop: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "application/json"}
    large = await shop.post("/commands/Place", content=b" " * 4001, headers=headers)
    assert (large.status_code, large.json()["facts"]) == (413, {"limit": 4000})

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b" " * 1000

    streamed = await shop.post("/commands/Place", content=chunks(), headers=headers)
    assert streamed.status_code == 413
    deep = await shop.post("/commands/Place", content=b'{"a":' * 9, headers=headers)
    assert (deep.status_code, deep.json()["code"]) == (422, "too-deep")
    # Brackets in text are text.
    text = {**placing(1), "customer": "[{" * 9}
    assert (await shop.post("/commands/Place", json=text)).json()["code"] == "invalid"


async def test_an_unknown_command_is_404_and_another_method_405(shop: httpx.AsyncClient) -> None:
    unknown = await shop.post("/commands/Nope", json={})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown-message")
    wrong = await shop.get("/commands/Place")
    assert (wrong.status_code, wrong.headers["Allow"]) == (405, "POST")
    assert (await shop.get("/nowhere")).json()["code"] == "not-found"


async def test_a_broken_decision_is_500_and_its_secrets_stay_here(
    shop: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await shop.post("/commands/Break", json={"order": "1"})
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (500, "decision-failed")
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert problem["instance"] in caplog.text
    assert "secret of the house" in caplog.text


async def test_a_command_that_takes_too_long_is_504() -> None:
    api = service(app.open(log="memory:", views="memory:"), limits=Limits(seconds=0.0))
    async with api.lifespan(), client_of(api) as client:
        answer = await client.post("/commands/Place", json=placing(1))
    assert (answer.status_code, answer.json()["code"]) == (504, "timed-out")


async def test_overload_is_503_with_a_time_to_try_again() -> None:
    from diptych import Limits as Waiting

    opening = app.open(log="memory:", views="memory:", limits=Waiting(waiting=1))
    api = service(opening)
    async with api.lifespan(), client_of(api) as client:
        sent = [client.post("/commands/Place", json=placing(i)) for i in range(8)]
        answers = await asyncio.gather(*sent)
    refused = [answer for answer in answers if answer.status_code == 503]
    assert refused
    assert all(answer.json()["code"] == "overloaded" for answer in refused)
    assert all(answer.headers["Retry-After"] == "1" for answer in refused)
    assert 200 in {answer.status_code for answer in answers}


# --- batches --------------------------------------------------------------------------------------


def lines(*commands: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(command).encode() + b"\n" for command in commands)


async def test_a_batch_is_answered_line_by_line_in_order(shop: httpx.AsyncClient) -> None:
    content = lines(
        {"command": "Place", "data": placing(1), "key": "a"},
        {"command": "Place", "data": placing(1)},
        {"command": "Nope"},
        {"command": "Place", "data": placing(1), "key": "a"},
        {"command": "Cancel", "data": {"order": "1"}},
        {"command": "Cancel", "data": {}},
        {"nonsense": 1},
    )
    answer = await shop.post("/commands", content=content + b"\n{\n\n", headers=LINES)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    told = [json.loads(line) for line in answer.text.splitlines()]
    assert [(one["line"], one["status"]) for one in told] == [
        (1, 200), (2, 409), (3, 404), (4, 200), (5, 200), (6, 422), (7, 422), (9, 422),
    ]  # fmt: skip
    assert told[3]["receipt"]["replayed"]
    assert told[1]["problem"]["code"] == "order-already-placed"


async def test_lines_of_a_batch_are_appended_together() -> None:
    """A thousand commands take far fewer transactions than a thousand."""
    async with app.open(log="memory:", views="memory:") as running:
        appends = 0
        append = running.log.append

        async def counting(batch: Any) -> Any:
            nonlocal appends
            appends += 1
            return await append(batch)

        running.log.append = counting  # type: ignore[method-assign]
        async with client_of(service(running)) as client:
            content = lines(*({"command": "Place", "data": placing(i)} for i in range(1000)))
            answer = await client.post("/commands", content=content, headers=LINES)
    assert answer.text.count('"status":200') == 1000
    assert appends < 100


async def test_a_batch_waits_where_the_queue_is_full_of_others() -> None:
    from diptych import Limits as Waiting

    opening = app.open(log="memory:", views="memory:", limits=Waiting(waiting=2))
    api = service(opening)
    async with api.lifespan(), client_of(api) as client:
        content = lines(*({"command": "Place", "data": placing(i)} for i in range(20)))
        answer = await client.post("/commands", content=content, headers=LINES)
    assert answer.text.count('"status":200') == 20


async def test_a_line_or_a_batch_that_is_too_large_ends_with_413() -> None:
    limits = Limits(body=200, batch=500)
    api = service(app.open(log="memory:", views="memory:"), limits=limits)
    async with api.lifespan(), client_of(api) as client:
        good = lines({"command": "Place", "data": placing(1)})
        long = await client.post("/commands", content=good + b"x" * 201, headers=LINES)
        whole = await client.post("/commands", content=good * 9, headers=LINES)
    told = [json.loads(line) for line in long.text.splitlines()]
    assert [one["status"] for one in told] == [200, 413]
    assert json.loads(whole.text.splitlines()[-1])["problem"]["facts"] == {"limit": 500}


async def test_a_batch_says_that_it_is_lines(shop: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "application/json"}
    assert (await shop.post("/commands", content=b"{}", headers=headers)).status_code == 415
