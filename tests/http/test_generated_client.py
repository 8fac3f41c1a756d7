"""A client that is generated from /openapi.json alone works against the service."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from diptych.http import service
from tests.http.shop import app


async def test_a_generated_client_sends_a_command_and_asks_a_query(
    shop: httpx.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    description = tmp_path / "openapi.json"
    description.write_bytes((await shop.get("/openapi.json")).content)
    settings = tmp_path / "settings.yaml"
    # It knows no lines of JSON; to a client they are bytes.
    settings.write_text(
        "content_type_overrides:\n  application/x-ndjson: application/octet-stream\n"
        "post_hooks: []\n"
    )
    run = subprocess.run(
        [
            str(Path(sys.executable).with_name("openapi-python-client")),
            *("generate", "--path", str(description), "--meta", "none"),
            *("--output-path", str(tmp_path / "shop_client"), "--fail-on-warning"),
            *("--config", str(settings)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def module(name: str) -> Any:
        return importlib.import_module(f"shop_client.{name}")

    api = service(app.open(log="memory:", views="memory:"))
    async with api.lifespan():
        client = module("client").Client(
            base_url="http://localhost", httpx_args={"transport": httpx.ASGITransport(api)}
        )
        models = module("models")
        lines = [models.Line(sku="a", pieces=2)]
        body = models.Place(order="1", customer="ann", total="9.50", lines=lines)
        done = await module("api.commands.do_place").asyncio(
            client=client, body=body, idempotency_key="k-1"
        )
        assert isinstance(done, models.Accepted)
        [order] = await module("api.queries.ask_orders_of").asyncio(
            client=client, customer="ann", diptych_after=done.token
        )
        assert (order.order, order.total, order.pieces) == ("1", "9.50", 2)
        again = await module("api.commands.do_place").asyncio(client=client, body=body)
        assert isinstance(again, models.Problem)
        assert (again.status, again.code) == (409, "order-already-placed")
