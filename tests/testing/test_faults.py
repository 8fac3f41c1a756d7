"""The proxy fails when it is told to, and not otherwise."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from diptych.testing.faults import Proxy

LONG = 30.0


class Echo:
    """A server that answers each line with the same line, and notes it."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                self.heard.append(line)
                writer.write(line)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    echo.url = f"echo://ann:secret@127.0.0.1:{port}/path?x=1"
    yield echo
    server.close()
    await server.wait_closed()


@pytest.fixture
async def proxy(echo: Echo) -> AsyncIterator[Proxy]:
    async with asyncio.timeout(LONG), Proxy(echo.url) as proxy:
        yield proxy


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def say(self, *pieces: bytes) -> bytes:
        """Send pieces; return the line that answers, nothing when the connection is cut."""
        try:
            for piece in pieces:
                self.writer.write(piece)
                await self.writer.drain()
                await asyncio.sleep(0.001)
            return await self.reader.readline()
        except OSError:
            return b""

    def close(self) -> None:
        self.writer.transport.abort()


async def connect(proxy: Proxy) -> Client:
    return Client(*await asyncio.open_connection("127.0.0.1", proxy.port))


async def test_it_carries_what_it_gets(echo: Echo, proxy: Proxy) -> None:
    """Without faults clients notice nothing; the URL is that of the server, through the proxy."""
    assert proxy.url == f"echo://ann:secret@127.0.0.1:{proxy.port}/path?x=1"
    one, other = await connect(proxy), await connect(proxy)
    long = b"x" * 50_000 + b"\n"
    assert await one.say(b"a\n") == b"a\n"
    assert await other.say(long) == long
    assert (proxy.made, proxy.connected, len(echo.heard)) == (2, 2, 2)
    one.close()
    other.close()


async def test_a_message_is_cut_off_before_the_server_gets_it(echo: Echo, proxy: Proxy) -> None:
    """``cut_before``: the bytes do not reach the server, also when they come in two pieces."""
    fault = proxy.cut_before(b"COMMIT", times=2)
    for pieces in ((b"COMMIT\n",), (b"COM", b"MIT\n")):
        client = await connect(proxy)
        assert await client.say(b"work\n") == b"work\n"
        assert await client.say(*pieces) == b""
        client.close()
    await fault.wait()
    assert echo.heard == [b"work\n", b"work\n"]
    client = await connect(proxy)
    assert await client.say(b"COMMIT\n") == b"COMMIT\n"  # it has struck twice
    client.close()


async def test_a_message_is_cut_off_before_its_answer(echo: Echo, proxy: Proxy) -> None:
    """``cut_after``: the server has got and answered it, the client does not know."""
    fault = proxy.cut_after(b"COMMIT")
    client, other = await connect(proxy), await connect(proxy)
    assert await client.say(b"work\n") == b"work\n"
    assert await client.say(b"COMMIT\n") == b""
    await fault.wait()
    assert (fault.struck, echo.heard[-1]) == (1, b"COMMIT\n")
    assert await other.say(b"work\n") == b"work\n"  # others are left alone
    client.close()
    other.close()


async def test_a_message_may_come_late(echo: Echo, proxy: Proxy) -> None:
    """``hold``: the client is cut off, and the server gets the message when it is released."""
    fault = proxy.hold(b"late")
    client, other = await connect(proxy), await connect(proxy)
    assert await client.say(b"late\n") == b""
    assert await other.say(b"later\n") == b"later\n"
    assert echo.heard == [b"later\n"]
    await fault.release()
    assert (fault.arrived, echo.heard) == (1, [b"later\n", b"late\n"])
    client.close()
    other.close()


async def test_connections_are_cut_at_once(proxy: Proxy) -> None:
    """``cut`` ends those that are there; new ones work."""
    clients = [await connect(proxy) for _ in range(3)]
    for client in clients:
        assert await client.say(b"a\n") == b"a\n"
    assert (proxy.cut(1), proxy.cut(), proxy.cut()) == (1, 2, 0)
    assert [await client.say(b"b\n") for client in clients] == [b"", b"", b""]
    client = await connect(proxy)
    assert await client.say(b"c\n") == b"c\n"
    for each in (client, *clients):
        each.close()


async def test_connections_are_refused(proxy: Proxy) -> None:
    """While it refuses, new connections are cut; those that are there go on."""
    there = await connect(proxy)
    assert await there.say(b"a\n") == b"a\n"
    proxy.refuse()
    refused = await connect(proxy)
    assert await refused.say(b"b\n") == b""
    assert await there.say(b"c\n") == b"c\n"
    proxy.accept()
    accepted = await connect(proxy)
    assert await accepted.say(b"d\n") == b"d\n"
    assert proxy.made == 3
    for each in (there, refused, accepted):
        each.close()


async def test_silence(echo: Echo, proxy: Proxy) -> None:
    """While it swallows, nothing comes through and nothing is cut; then all of it does."""
    client = await connect(proxy)
    assert await client.say(b"a\n") == b"a\n"
    proxy.swallow()
    answer = asyncio.ensure_future(client.say(b"b\n"))
    done, _ = await asyncio.wait({answer}, timeout=0.05)
    assert not done
    assert echo.heard == [b"a\n"]
    proxy.restore()
    assert await answer == b"b\n"
    client.close()


async def test_a_server_that_is_not_there(proxy: Proxy, unused_tcp_port: int) -> None:
    """A client of a server that is down is cut off."""
    async with Proxy(f"echo://127.0.0.1:{unused_tcp_port}") as before_nothing:
        client = await connect(before_nothing)
        assert await client.say(b"a\n") == b""
        client.close()
    assert proxy.connected == 0


async def test_it_leads_to_another_server(echo: Echo, proxy: Proxy, unused_tcp_port: int) -> None:
    """``redirect`` is for new connections; those that are there stay where they are."""
    client = await connect(proxy)
    assert await client.say(b"a\n") == b"a\n"
    for url, answer in ((f"echo://127.0.0.1:{unused_tcp_port}", b""), (echo.url, b"c\n")):
        proxy.redirect(url)
        other = await connect(proxy)
        assert await other.say(b"c\n") == answer
        other.close()
    assert await client.say(b"b\n") == b"b\n"
    client.close()


async def test_nothing_strikes_after_healing(proxy: Proxy) -> None:
    """``heal`` forgets all faults; ``delay`` only slows down."""
    proxy.cut_before(b"a")
    proxy.heal()
    proxy.delay = 0.001
    client = await connect(proxy)
    assert await client.say(b"a\n") == b"a\n"
    client.close()
