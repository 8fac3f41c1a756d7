"""A cheap client of HTTP: connections kept alive, requests written beforehand, in its own process.

``python -m bench.client`` is that process: it reads a `Task` as JSON and prints a `Taken`.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import urlencode, urlsplit

import msgspec
from msgspec import Struct

from bench import loader
from bench.figures import Figures
from bench.orders import workload
from bench.timing import percentiles

Work: TypeAlias = Literal["commands", "queries"]
Request: TypeAlias = tuple[float, bytes]
"""When it was due (0.0: when it is sent), and what is sent."""

ROOT: Final = Path(__file__).parents[1]
TICK: Final = 0.002


class Task(Struct, frozen=True):
    """What to send: so many requests on so many connections.

    ``orders``: how many there are to ask for. ``rate``: requests a second, whether or not earlier
    ones are answered; 0: each connection sends when it has its answer. ``name`` goes into the
    orders that commands open.
    """

    url: str
    work: Work
    connections: int
    requests: int
    orders: int = 0
    rate: float = 0.0
    name: str = "o"


class Taken(Struct, frozen=True):
    """How it went: seconds in all, for so many requests, and percentiles of what each took."""

    seconds: float
    count: int
    figures: Figures


def written(task: Task) -> list[list[bytes]]:
    """Return the requests of each connection."""
    host = urlsplit(task.url).netloc
    each = max(1, task.requests // task.connections)
    made = _commands if task.work == "commands" else _queries
    return [
        [_request(host, *one) for one in made(task, number, each)]
        for number in range(task.connections)
    ]


def _commands(task: Task, number: int, count: int) -> Iterator[tuple[str, bytes]]:
    for turn in range(count // 4 + 1):
        for command in workload(f"{task.name}-{number}-{turn}")[: count - turn * 4]:
            yield f"POST /commands/{type(command).__name__}", msgspec.json.encode(command)


def _queries(task: Task, number: int, count: int) -> Iterator[tuple[str, bytes]]:
    for turn in range(count):
        order = loader.order_of((number * 7919 + turn * 104_729) % task.orders)
        yield f"GET /queries/SummaryOf?{urlencode({'order': order})}", b""


def _request(host: str, line: str, body: bytes) -> bytes:
    head = f"{line} HTTP/1.1\r\nHost: {host}\r\nAccept: application/json\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


class Connection(asyncio.Protocol):
    """One connection: a request at a time, from those that are left."""

    def __init__(self, requests: deque[Request], taken: list[float]) -> None:
        self._requests = requests
        self._taken = taken
        self._buffer = b""
        self._began = 0.0
        self.busy = False
        self.last = True
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        """Keep what to write to."""
        self._transport = transport

    def send(self) -> None:
        """Send the next request; ``done`` when there is none left."""
        if not self._requests:
            self.busy = False
            if self.last and not self.done.done():
                self.done.set_result(None)
            return
        due, request = self._requests.popleft()
        self._began = due or time.perf_counter()
        self.busy = True
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Take an answer, or a part of one."""
        if self._buffer:
            data = self._buffer + data
        head = data.find(b"\r\n\r\n")
        at = data.find(b"content-length: ", 0, head)
        if head < 0 or len(data) < head + 4 + int(data[at + 16 : data.index(b"\r", at)]):
            self._buffer = data
            return
        self._buffer = b""
        if not data.startswith(b"HTTP/1.1 200"):
            raise AssertionError(data.decode())
        self._taken.append(time.perf_counter() - self._began)
        self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits that nothing more comes."""
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server has closed"))

    def close(self) -> None:
        """Hang up."""
        self._transport.close()


async def run(task: Task) -> Taken:
    """Send it all."""
    requests = written(task)
    taken: list[float] = []
    shared: deque[Request] = deque()
    connections: list[Connection] = []
    for own in requests:
        # Each connection has its own requests; where a rate is asked for, they share what is due.
        queue = shared if task.rate else deque((0.0, one) for one in own)
        connections.append(await _connected(task.url, queue, taken))
    began = time.perf_counter()
    if task.rate:
        for one in connections:
            one.last = False
        steps = [one for step in zip(*requests, strict=True) for one in step]
        await _offer(task.rate, steps, shared, connections)
    else:
        for one in connections:
            one.send()
    await asyncio.gather(*[one.done for one in connections])
    seconds = time.perf_counter() - began
    for one in connections:
        one.close()
    return Taken(seconds, len(taken), percentiles(taken))


async def _connected(url: str, queue: deque[Request], taken: list[float]) -> Connection:
    address = urlsplit(url)
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(
        lambda: Connection(queue, taken), address.hostname or "", address.port or 80
    )
    return connection


async def _offer(
    rate: float, requests: list[bytes], shared: deque[Request], connections: list[Connection]
) -> None:
    """Make requests due at a rate; one that finds no connection free waits, and that counts."""
    began = time.perf_counter()
    made = 0
    while made < len(requests):
        upto = min(len(requests), int((time.perf_counter() - began) * rate) + 1)
        shared.extend((began + number / rate, requests[number]) for number in range(made, upto))
        made = upto
        for one in connections:
            if shared and not one.busy:
                one.send()
        await asyncio.sleep(TICK)
    for one in connections:
        one.last = True
        if not one.busy:
            one.send()


async def sent(task: Task) -> Taken:
    """Have it sent by a process of its own."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.client"),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    output, _ = await child.communicate(msgspec.json.encode(task))
    assert child.returncode == 0
    return msgspec.json.decode(output, type=Taken)


if __name__ == "__main__":
    import gc

    import uvloop

    gc.disable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(run(msgspec.json.decode(sys.stdin.buffer.read(), type=Task)))
    sys.stdout.buffer.write(msgspec.json.encode(found))
