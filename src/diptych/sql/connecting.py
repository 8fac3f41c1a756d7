"""How a connection to PostgreSQL is made: what the server and the system are told of it."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    import asyncpg

Connection: TypeAlias = "asyncpg.Connection[Any]"

GIVEN_UP_SECONDS: Final = 2.0
"""How long a connection may take to be made after its caller was cancelled."""


async def made(making: Coroutine[Any, Any, Connection]) -> Connection:
    """Return the connection that is being made. A caller who is cancelled waits for it as well.

    asyncpg cannot be cancelled at every point: of a socket that has just been connected, it leaves
    a future that nobody asks, and asyncio complains of that on stderr.
    """
    task = asyncio.create_task(making, name="diptych-connect")
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        task.add_done_callback(_dropped)  # also where the caller is cancelled once more
        await asyncio.wait({task}, timeout=GIVEN_UP_SECONDS)
        if not task.done():
            task.cancel()
        raise
    return task.result()


def _dropped(task: asyncio.Task[Connection]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().terminate()


def settings(silence: float) -> dict[str, str]:
    """Return what a session is told: it gives up an end that is silent for so many seconds."""
    seconds = str(math.ceil(silence))
    return {
        # Compiling a plan takes longer than any of our statements.
        "jit": "off",
        # The append function takes its lock in a statement of its own, which must see the newest.
        "default_transaction_isolation": "read committed",
        # A process that is frozen, or whose machine is gone, must not keep the log's lock.
        "idle_in_transaction_session_timeout": f"{seconds}s",
        "tcp_user_timeout": f"{seconds}s",
        "tcp_keepalives_idle": seconds,
        "tcp_keepalives_interval": "5",
        "tcp_keepalives_count": "3",
    }


def watch(connection: Connection, silence: float) -> None:
    """Have the system give up a connection whose other end does not even acknowledge."""
    transport: asyncio.BaseTransport = getattr(connection, "_transport")  # noqa: B009  # no other way
    found = transport.get_extra_info("socket")
    if found is None or found.family not in (socket.AF_INET, socket.AF_INET6):
        return
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_USER_TIMEOUT", math.ceil(silence * 1000)),
        ("TCP_KEEPIDLE", math.ceil(silence)),
        ("TCP_KEEPINTVL", 5),
        ("TCP_KEEPCNT", 3),
    ):
        if (option := getattr(socket, name, None)) is not None:
            found.setsockopt(socket.IPPROTO_TCP, option, value)
