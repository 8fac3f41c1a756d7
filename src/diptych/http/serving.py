"""Runs a service by a server of HTTP, uvicorn or granian, until a signal asks it to stop."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from typing import Any, Final, Literal, Protocol, TypeAlias

from diptych.errors import Invalid

GIVE_UP_MS: Final = 30_000
"""Milliseconds that what was sent may wait for the client to take it."""

MOST_PORT: Final = 65_535

YOUNG: Final = (20_000, 20, 20)
"""Objects made until the collector looks at the youngest; and how much more seldom at others."""

ServerName: TypeAlias = Literal["uvicorn", "granian"]

Started: TypeAlias = Callable[[str], None]
"""Called with the address when requests are taken."""


def bound(host: str, port: int) -> socket.socket:
    """Return a socket bound to an address; port 0: a free one. ``Invalid`` when it cannot be had.

    It does not listen yet.
    """
    if not 0 <= port <= MOST_PORT:  # the system would take another: the number modulo 65,536
        raise Invalid(
            "That is no port",
            field="port",
            rule=f"1 to {MOST_PORT}; 0 for one that is free",
            got=port,
        )
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _no_address(host, port, error) from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # Else a client that takes nothing would hold its connection after it was given up.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, GIVE_UP_MS)
        sock.bind(address)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise _no_address(host, port, error) from error
    return sock


def _no_address(host: str, port: int, error: OSError) -> Invalid:
    return Invalid(
        "The service cannot have that address",
        field="host, port",
        rule="an address of this machine that is free",
        got=f"{host}:{port}",
        why=error.strerror or error,
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


class Stoppable(Protocol):
    """An ASGI application that can be told to take no more requests."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        ...

    def stop(self) -> None:
        """Take no more requests."""
        ...


async def run(
    api: Stoppable, sock: socket.socket, server: ServerName, *, grace: float, started: Started
) -> signal.Signals:
    """Serve until SIGINT or SIGTERM; what runs then may take ``grace`` more seconds.

    A second signal ends it at once. Returns the first one. ``Invalid``: the server is not
    installed.
    """
    url = _url(sock)
    spare_collector()
    serving = _uvicorn(api, sock, grace) if server == "uvicorn" else _granian(api, sock, grace)
    loop = asyncio.get_running_loop()
    stopped: asyncio.Future[signal.Signals] = loop.create_future()

    def stop(number: signal.Signals) -> None:
        if not stopped.done():
            stopped.set_result(number)
            api.stop()
            serving.stop()
        else:
            task.cancel()

    async def serve() -> None:
        await serving.serve(lambda: started(url))

    task = asyncio.create_task(serve(), name="diptych-http")
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, stop, number)
    try:
        with suppress(asyncio.CancelledError):
            await task
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
        sock.close()
    return stopped.result() if stopped.done() else signal.SIGTERM


def spare_collector() -> None:
    """Have the garbage collector pass over what is there for ever, and look seldom at the rest.

    Requests leave few cycles behind, while all that is in flight is looked through each time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*YOUNG)


def _url(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _missing(name: str, extra: str) -> Invalid:
    return Invalid(
        f"This needs {name}, which is not installed: pip install 'diptych[{extra}]'",
        field="server",
        rule="a server that is installed",
        got=name,
    )


# --- uvicorn --------------------------------------------------------------------------------------


def _uvicorn(api: Stoppable, sock: socket.socket, grace: float) -> Any:
    try:
        import uvicorn
    except ModuleNotFoundError as error:
        raise _missing("uvicorn", "http") from error

    class Server(uvicorn.Server):
        """One whose signals are handled by `run`, so that the application is closed after it."""

        tell: Callable[[], None]

        @contextmanager
        def capture_signals(self) -> Generator[None]:
            yield

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            self.tell()

    class Serving:
        def __init__(self) -> None:
            self.server = Server(
                uvicorn.Config(
                    api,
                    log_level="warning",
                    log_config=None,
                    access_log=False,
                    # Who is trusted to say so is the business of `trusted_proxy`.
                    proxy_headers=False,
                    server_header=False,
                    lifespan="off",
                    ws="none",
                    loop="none",
                    # Whole seconds, in its signature only.
                    timeout_graceful_shutdown=grace,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
                )
            )

        async def serve(self, tell: Callable[[], None]) -> None:
            self.server.tell = tell
            await self.server.serve(sockets=[sock])

        def stop(self) -> None:
            self.server.should_exit = True

    return Serving()


# --- granian --------------------------------------------------------------------------------------


def _granian(api: Stoppable, sock: socket.socket, grace: float) -> Any:
    try:
        from granian.constants import Interfaces
        from granian.server.embed import Server
    except ModuleNotFoundError as error:
        raise _missing("granian", "granian") from error

    class Serving:
        def __init__(self) -> None:
            # It binds by itself; `sock` has found the address, and gives it up now.
            host, port = sock.getsockname()[:2]
            sock.close()
            self.server = Server(
                api, host, port, interface=Interfaces.ASGINL, websockets=False, log_enabled=False
            )
            setattr(self.server, "workers_kill_timeout", grace)  # noqa: B010  # typed None

        async def serve(self, tell: Callable[[], None]) -> None:
            serving = asyncio.create_task(self.server.serve(), name="granian")
            try:
                await _reachable(self.server.bind_addr, self.server.bind_port, serving)
                tell()
            finally:
                await serving

        def stop(self) -> None:
            server: Any = self.server
            server.stop()

    return Serving()


async def _reachable(host: str, port: int, serving: asyncio.Task[None]) -> None:
    while not serving.done():
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError:
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return


__all__ = ["ServerName", "bound", "is_loopback", "run"]
