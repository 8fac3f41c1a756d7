"""Connections that are being made when nobody wants them any more."""

import asyncio

from diptych.sql.connecting import Connection, made


class Ended:
    """In place of a connection."""

    def __init__(self) -> None:
        self.terminated = asyncio.Event()

    def terminate(self) -> None:
        self.terminated.set()


async def test_one_whose_caller_is_cancelled_twice_is_ended() -> None:
    """Else nobody would: it is open until the garbage collector finds it."""
    connection, may_end = Ended(), asyncio.Event()

    async def making() -> Connection:
        await may_end.wait()
        return connection  # type: ignore[return-value]

    caller = asyncio.create_task(made(making()))
    for _ in range(2):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    assert caller.cancelled()
    may_end.set()
    async with asyncio.timeout(30):
        await connection.terminated.wait()
