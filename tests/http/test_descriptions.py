"""What the service says of itself: OpenAPI, AsyncAPI, and a page made of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import msgspec
import pytest
from openapi_spec_validator import validate

from diptych import App
from diptych.http.asyncapi import asyncapi
from diptych.http.openapi import openapi
from diptych.http.schemas import example_of
from examples.flights.application import app as flights
from examples.shop.orders import app as orders
from examples.shop.retail.application import app as retail
from tests.http.conftest import placing
from tests.http.shop import app

APPS = [app, orders, flights, retail]


@pytest.fixture
async def described(shop: httpx.AsyncClient) -> Any:
    return (await shop.get("/openapi.json")).json()


@pytest.mark.parametrize("one", APPS, ids=["test", "orders", "flights", "retail"])
def test_openapi_is_valid_and_complete(one: App) -> None:
    definitions = one.compile()
    told = json.loads(msgspec.json.encode(openapi(definitions, "all")))
    validate(told)
    assert told["openapi"] == "3.1.0"
    for kind in ("commands", "queries"):
        for name in getattr(definitions.codec, kind):
            assert f"/{kind}/{name}" in told["paths"]
    names = [op["operationId"] for path in told["paths"].values() for op in path.values()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("one", APPS, ids=["test", "orders", "flights", "retail"])
def test_every_reference_of_asyncapi_leads_somewhere(one: App) -> None:
    told = json.loads(msgspec.json.encode(asyncapi(one.compile(), "all")))
    assert told["asyncapi"] == "3.0.0"
    found = re.findall(r'"\$ref":\s*"([^"]+)"', json.dumps(told))
    assert found
    for reference in found:
        node: Any = told
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
    for operation in told["operations"].values():
        assert operation["action"] == "send"


@pytest.mark.parametrize("one", APPS, ids=["test", "orders", "flights", "retail"])
def test_asyncapi_is_valid(one: App) -> None:
    schema = json.loads((Path(__file__).parent / "asyncapi" / "3.0.0.json").read_text())
    told = json.loads(msgspec.json.encode(asyncapi(one.compile(), "all")))
    validator = jsonschema_rs.validator_for(schema)
    assert [str(error) for error in validator.iter_errors(told)] == []
    assert not validator.is_valid({**told, "operations": {"x": {"action": "shout"}}})


async def test_descriptions_come_from_docstrings_and_rules_from_types(described: Any) -> None:
    place = described["paths"]["/commands/Place"]["post"]
    assert place["summary"] == "Place an order."
    assert "It is paid later." in place["description"]
    cancel = described["paths"]["/commands/Cancel"]["post"]
    assert cancel["summary"] == "Cancel an order that is placed."  # its decision's
    fields = described["components"]["schemas"]["Place"]["properties"]
    assert fields["customer"]["description"] == "Who pays."
    assert fields["order"]["maxLength"] == 40
    assert fields["wanted"]["anyOf"][0]["format"] == "date-time"
    assert fields["total"]["type"] == ["string", "number"]
    order = described["components"]["schemas"]["Order"]["properties"]
    assert order["total"]["type"] == "string"
    near = next(
        p for p in described["paths"]["/queries/Find"]["get"]["parameters"] if p["name"] == "near"
    )
    assert "application/json" in near["content"]


async def test_the_example_of_a_command_is_accepted(
    shop: httpx.AsyncClient, described: Any
) -> None:
    place = described["paths"]["/commands/Place"]["post"]
    example = place["requestBody"]["content"]["application/json"]["example"]
    assert (await shop.post("/commands/Place", json=example)).status_code == 200
    batch = described["paths"]["/commands"]["post"]
    text = batch["requestBody"]["content"]["application/x-ndjson"]["example"]
    answer = await shop.post(
        "/commands", content=text, headers={"Content-Type": "application/x-ndjson"}
    )
    assert answer.json()["line"] == 1


async def test_answers_are_what_the_description_says(
    shop: httpx.AsyncClient, described: Any
) -> None:
    def check(path: str, verb: str, answer: httpx.Response) -> None:
        told = described["paths"][path][verb]["responses"][str(answer.status_code)]
        media = answer.headers["Content-Type"]
        schema = {**told["content"][media]["schema"], "components": described["components"]}
        jsonschema_rs.validate(schema, answer.json())
        for name, header in told.get("headers", {}).items():
            assert name in answer.headers or not header.get("required")

    fields = {**placing(1), "wanted": "2026-01-31T09:30:00Z", "lines": [{"sku": "a"}]}
    for expected in (200, 409):
        done = await shop.post("/commands/Place", json=fields)
        assert done.status_code == expected
        check("/commands/Place", "post", done)
    check("/commands/Place", "post", await shop.post("/commands/Place", json={}))
    check("/commands/Break", "post", await shop.post("/commands/Break", json={"order": "1"}))
    for address in ("OrdersOf?customer=ann", "One?order=1", "One?order=2", "History?order=1"):
        path = "/queries/" + address.partition("?")[0]
        check(path, "get", await shop.get(f"/queries/{address}"))
    lost = await shop.get("/queries/One?order=1", headers={"Diptych-After": "x.1"})
    check("/queries/One", "get", lost)


async def test_the_form_of_a_token_is_the_same_wherever_it_goes(
    described: Any, shop: httpx.AsyncClient
) -> None:
    """Where it is given, in headers and bodies, and where it is taken."""
    ask = described["paths"]["/queries/OrdersOf"]["get"]
    do = described["paths"]["/commands/Place"]["post"]
    schemas = described["components"]["schemas"]
    forms = {
        *(one["schema"]["pattern"] for one in ask["parameters"] if one["name"] == "Diptych-After"),
        *(
            told["headers"]["Diptych-Token"]["schema"]["pattern"]
            for one in (ask, do)
            for status, told in one["responses"].items()
            if status in ("200", "304")
        ),
        *(schemas[name]["properties"]["token"]["pattern"] for name in ("Accepted", "LiveAnswer")),
    }
    (form,) = forms
    done = await shop.post("/commands/Place", json=placing("1"))
    assert re.fullmatch(form, done.json()["token"])


async def test_the_version_changes_with_the_interface(described: Any) -> None:
    other = openapi(orders.compile(), "all")
    assert other["info"]["version"] != described["info"]["version"]
    assert openapi(app.compile(), "all")["info"]["version"] == described["info"]["version"]


async def test_what_has_not_changed_is_304(shop: httpx.AsyncClient) -> None:
    tag = (await shop.get("/asyncapi.json")).headers["ETag"]
    same = await shop.get("/asyncapi.json", headers={"If-None-Match": tag})
    assert (same.status_code, same.content) == (304, b"")


async def test_the_page_needs_nothing_from_elsewhere(shop: httpx.AsyncClient) -> None:
    page = await shop.get("/reference")
    assert page.headers["Content-Type"].startswith("text/html")
    texts = [page.text]
    for file in ("reference.css", "reference.js"):
        assert f"reference/{file}" in page.text
        answer = await shop.get(f"/reference/{file}")
        assert answer.status_code == 200
        texts.append(answer.text)
    assert not re.search(r"https?://|//[a-z]+\.", "\n".join(texts))
    assert "style=" not in page.text  # the policy would refuse it
    assert (await shop.get("/reference/..%2fservice.py")).status_code == 404


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "minLength": 3, "maxLength": 4},
        {"type": "integer", "minimum": 5, "maximum": 9},
        {"type": "integer", "exclusiveMaximum": -3},
        {"type": "number", "exclusiveMinimum": 2},
        {"type": "array", "items": {"type": "boolean"}, "minItems": 1},
        {"anyOf": [{"type": "null"}, {"enum": ["a", "b"]}]},
        {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]},
        {"type": ["string", "number"], "format": "decimal", "pattern": r"^[0-9]+\.[0-9]+$"},
    ],
)
def test_examples_fit_their_schemas(schema: dict[str, Any]) -> None:
    jsonschema_rs.validate(schema, example_of(schema, {}))
