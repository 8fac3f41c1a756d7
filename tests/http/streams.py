"""Many live streams while commands run: does each end with the right answer, and what do they cost?

`python -m tests.http.streams --streams 1000 --queries 100 --rate 500 --seconds 10`
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from tests.http.fuzzing import Serving, serving

SENDERS = 32


@dataclass
class Report:
    """What was measured. Memory is kilobytes, time is seconds."""

    streams: int
    commands: int = 0
    rate: float = 0.0
    answers: int = 0
    wrong: int = 0
    per_stream: float = 0.0
    cpu: float = 0.0
    seconds: float = 0.0
    lags: list[float] = field(default_factory=list[float])

    def __str__(self) -> str:
        lags = sorted(self.lags) or [0.0]
        return (
            f"{self.streams} streams, {self.commands} commands at {self.rate:.0f}/s for "
            f"{self.seconds:.1f} s: {self.answers} answers, {self.wrong} streams ended wrong; "
            f"{self.per_stream:.1f} KB a stream; the server used {self.cpu:.1f} s of CPU; from a "
            f"command to the news of it: median {lags[len(lags) // 2] * 1000:.0f} ms, "
            f"99 % {lags[int(len(lags) * 0.99)] * 1000:.0f} ms"
        )


class Reader:
    """One stream: how many orders its customer has, as was last told."""

    def __init__(self, customer: str) -> None:
        self.customer = customer
        self.orders = -1
        self.answers = 0

    async def open(self, host: str, port: int) -> None:
        """Connect, and wait for the first answer."""
        # Small buffers: the reader's own memory is not what is measured.
        self._reader, self._writer = await asyncio.open_connection(host, port, limit=2**22)
        request = (
            f"GET /queries/OrdersOf?customer={self.customer} HTTP/1.1\r\nHost: localhost\r\n"
            "Accept: text/event-stream\r\n\r\n"
        )
        self._writer.write(request.encode())
        while self.answers == 0:
            await self.read_one()

    async def read_one(self) -> None:
        """Read a line."""
        line = await self._reader.readline()
        if not line:
            raise EOFError
        if line.startswith(b"data: "):
            self.orders = line.count(b'"order"')
            self.answers += 1

    def close(self) -> None:
        """Leave."""
        self._writer.close()


class Sender:
    """One connection that sends commands, one after the other."""

    async def open(self, host: str, port: int) -> None:
        """Connect."""
        self._reader, self._writer = await asyncio.open_connection(host, port)

    async def send(self, fields: dict[str, str]) -> None:
        """Place an order."""
        body = json.dumps(fields)
        self._writer.write(
            f"POST /commands/Place HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
            f"Content-Type: application/json\r\n\r\n{body}".encode()
        )
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        await self._reader.readexactly(int(head.partition(b"content-length:")[2].split()[0]))
        assert head.startswith(b"http/1.1 200"), head

    def close(self) -> None:
        """Leave."""
        self._writer.close()


def memory_of(pid: int) -> int:
    """Resident memory of a process, kilobytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    parts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(parts[11]) + int(parts[12])) / 100


async def measure(
    served: Serving, *, streams: int, queries: int, rate: float, seconds: float
) -> Report:
    """Open the streams, send the commands, wait until every stream has the right answer."""
    report = Report(streams)
    host, port = urlsplit(served.url).hostname or "", urlsplit(served.url).port or 0
    customers = [f"c{number}" for number in range(queries)]
    senders = [Sender() for _ in range(SENDERS)]
    async with httpx.AsyncClient(base_url=served.url, timeout=60) as client:
        for customer in customers:  # what the first ones cost is no stream's
            await client.get(f"/queries/OrdersOf?customer={customer}")
        for sender in senders:
            await sender.open(host, port)
        before = memory_of(served.pid)
        readers = [Reader(customers[number % queries]) for number in range(streams)]
        for start in range(0, streams, 50):
            await asyncio.gather(*(one.open(host, port) for one in readers[start : start + 50]))
        report.per_stream = (memory_of(served.pid) - before) / streams
        wanted: Counter[str] = Counter()
        sent_at: dict[tuple[str, int], float] = {}

        async def follow(reader: Reader) -> None:
            while True:
                known = reader.orders
                await reader.read_one()
                for count in range(known + 1, reader.orders + 1):
                    if (at := sent_at.get((reader.customer, count))) is not None:
                        report.lags.append(time.monotonic() - at)

        following = [asyncio.create_task(follow(one)) for one in readers]
        cpu, begun = cpu_of(served.pid), time.monotonic()
        total = int(rate * seconds)
        numbers = iter(range(total))

        async def send(sender: Sender) -> None:
            for number in numbers:
                due = begun + number / rate
                while (left := due - time.monotonic()) > 0:
                    await asyncio.sleep(left)
                customer = customers[number % queries]
                wanted[customer] += 1
                sent_at[customer, wanted[customer]] = time.monotonic()
                await sender.send({"order": f"o{number}", "customer": customer, "total": "1"})

        await asyncio.gather(*map(send, senders))
        report.seconds = time.monotonic() - begun
        report.commands, report.rate = total, total / report.seconds
        end = time.monotonic() + 30
        while any(one.orders != wanted[one.customer] for one in readers):
            if time.monotonic() > end:
                break
            await asyncio.sleep(0.05)
        report.cpu = cpu_of(served.pid) - cpu
        report.wrong = sum(one.orders != wanted[one.customer] for one in readers)
        report.answers = sum(one.answers for one in readers)
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)
        for reader in readers:
            reader.close()
        for sender in senders:
            sender.close()
    return report


def main() -> int:
    """Measure once, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--rate", type=float, default=500)
    parser.add_argument("--seconds", type=float, default=10)
    given = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # the server inherits it
    with (
        tempfile.TemporaryDirectory() as folder,
        serving("tests.http.shop:app", Path(folder)) as served,
    ):
        report = asyncio.run(measure(served, **vars(given)))
    print(report)
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
