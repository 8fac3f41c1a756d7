"""UmaDB: its server from the wheel, its client in threads; read the boundary, decide, append."""

from __future__ import annotations

import importlib
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Final

import msgspec

from bench.figures import Figures, NotHere
from bench.floors.rows import DECODE
from bench.orders import Added, Confirmed, Opened, Order
from bench.orders import order as evolve
from bench.peers.threads import run_threads
from bench.places import Place
from diptych import Event

SUBJECT: Final = "UmaDB"
_encode = msgspec.json.Encoder().encode


def umadb_module() -> ModuleType:
    handler = signal.getsignal(signal.SIGINT)
    try:
        return importlib.import_module("umadb")
    except ImportError as error:
        raise NotHere(f"umadb is not installed ({error})") from error
    finally:
        signal.signal(signal.SIGINT, handler)  # importing it sets one of its own


@contextmanager
def server(place: Place) -> Generator[str]:
    """Run its server on a free port, with its data in the place; give its address."""
    umadb = umadb_module()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    folder = place.folder / "uma"
    folder.mkdir()
    run = "from umadb.umadb_server_cli import main; main()"
    command = [sys.executable, "-c", run, "--listen", address, "--db-path", str(folder)]
    with (place.folder / "uma.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _await_server(umadb, f"http://{address}", process)
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(30)


def _await_server(umadb: Any, url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            umadb.Client(url).head()
            return
        except Exception as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise NotHere(f"UmaDB's server did not start ({error})") from error
            time.sleep(0.05)


class Handler:
    """Runs commands as its documentation shows: read, fold, decide, append on condition."""

    def __init__(self, umadb: Any, client: Any) -> None:
        self._umadb = umadb
        self._client = client

    def run(self, order: str, decide: Callable[[str, Order], Event]) -> None:
        """Run one command: ``decide`` turns the order's state into an event."""
        umadb = self._umadb
        tag = f"order:{order}"
        boundary = umadb.Query([umadb.QueryItem(["Opened", "Added", "Confirmed"], [tag])])
        found = self._client.read(boundary)
        state = Order()
        for sequenced in found:
            stored = sequenced.event
            state = evolve(state, DECODE[stored.event_type](stored.data))
        event = decide(order, state)
        new = umadb.Event(type(event).__name__, _encode(event), [tag], uuid.uuid4())
        condition = umadb.AppendCondition(boundary, found.head())
        self._client.append([new], condition)

    def workload(self, order: str) -> None:
        """Run the four commands of one order."""
        self.run(order, _open)
        self.run(order, _add)
        self.run(order, _add)
        self.run(order, _confirm)


def _open(order: str, state: Order) -> Opened:
    assert not state.open
    return Opened(order, "ann")


def _add(order: str, state: Order) -> Added:
    assert state.open
    return Added(order, "tea", 2)


def _confirm(order: str, state: Order) -> Confirmed:
    assert state.items
    return Confirmed(order)


async def orders(threads: int, count: int, place: Place) -> Figures:
    """Order workloads, each thread at its own orders, with a client of its own."""
    umadb = umadb_module()
    with server(place) as url:
        handlers = [Handler(umadb, umadb.Client(url)) for _ in range(threads)]
        each = max(1, count // threads // 4)

        def client(number: int) -> None:
            for turn in range(each):
                handlers[number].workload(f"o-{number}-{turn}")

        return {"commands/s": threads * each * 4 / run_threads(threads, client)}
