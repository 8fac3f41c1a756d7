"""The shop behind a door: in this process, or served by processes of its own."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest
import uvicorn

from diptych.http import Limits, Service, service
from diptych.http.serving import bound
from tests.house.paths import ROOT
from tests.http.shop import app

LINES = {"Content-Type": "application/x-ndjson"}


def client_of(api: Service) -> httpx.AsyncClient:
    """A client in this process. What the service raises is raised here."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://localhost")


@pytest.fixture
async def shop() -> AsyncGenerator[httpx.AsyncClient]:
    """A client of the shop's service, on a log in memory."""
    api = service(app.open(log="memory:", views="memory:"), limits=Limits(body=4000, depth=8))
    async with api.lifespan(), client_of(api) as client:
        yield client


@asynccontextmanager
async def on_uvicorn(api: Service) -> AsyncGenerator[str]:
    """Serve in this process, on a real server; gives its address."""
    with bound("127.0.0.1", 0) as sock:
        server = uvicorn.Server(uvicorn.Config(api, lifespan="off", log_config=None, ws="none"))
        task = asyncio.create_task(server._serve([sock]))
        host, port = sock.getsockname()[:2]
        await until(lambda: server.started)
        try:
            yield f"http://{host}:{port}"
        finally:
            api.stop()
            server.should_exit = server.force_exit = True
            await task


async def until(check: Callable[[], object]) -> None:
    """Wait for a condition."""
    while not check():
        await asyncio.sleep(0.01)


class Served:
    """A process that serves, and where."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, "the server has not started"
        self.url: str = json.loads(line)["url"]

    def client(self, timeout: float = 20.0) -> httpx.AsyncClient:
        """A client of this process."""
        return httpx.AsyncClient(base_url=self.url, timeout=timeout)

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout: float = 30.0) -> int:
        """Send a signal, and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(timeout)


Serve = Callable[..., Served]


@pytest.fixture
def serve(tmp_path: Path) -> Generator[Serve]:
    """Starts `diptych serve` with these words, on a log in a file of the test."""
    started: list[subprocess.Popen[str]] = []

    def start(
        *words: str, port: int = 0, url: str = "", environment: Mapping[str, str] | None = None
    ) -> Served:
        at = url or f"sqlite:///{tmp_path}/shop.db"
        given = {"DIPTYCH_APP": "tests.http.shop:app", "DIPTYCH_LOG": at, "DIPTYCH_VIEWS": at}
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        process = subprocess.Popen(
            [sys.executable, "-c", MAIN, "serve", "--port", str(port), "--json", *words],
            env={**os.environ, **given, "PYTHONPATH": path, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=tmp_path,
        )
        started.append(process)
        return Served(process)

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def quiet_port() -> int:
    """A free port that no client is given: one that connects to itself would hold it."""
    for port in random.sample(range(12_000, 32_000), 100):
        with socket.socket() as sock, suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


MAIN = "import sys; from diptych.cli import main; sys.exit(main())"


def placing(order: object, customer: str = "ann", total: str = "9.50") -> dict[str, object]:
    """The fields of a command that places an order."""
    return {"order": str(order), "customer": customer, "total": total}
