"""Connections cut by a proxy of ours, half of them at a commit: before it is sent, or after.

The append function is a transaction by itself, so that its call is a commit; where a batch is
judged under the lock, the commit is a statement of its own.
"""

from __future__ import annotations

import asyncio
import random

from diptych.testing.checker import Violation
from diptych.testing.faults import Fault, Proxy
from diptych.testing.history import History
from torture.backends import Backend
from torture.clients import METADATA
from torture.load import Load, check_application, check_log, on_application, on_logs, opened

CUTS = 20

APPEND_OF_LOG = METADATA
APPEND_OF_APPLICATION = b'"correlation_id"'
COMMIT = b"COMMIT;"
"""What stands in the messages that commit, and in no others."""


async def cuts(backend: Backend, rng: random.Random) -> list[Violation]:
    """Cut connections under the load of a log's clients, or of an application; check everything."""
    if rng.random() < 0.75:
        # The impatient give up, with appends whose outcome is unknown.
        return await cuts_of_logs(backend, rng, rng.choice((1, 3)), rng.choice((0.1, 5.0)))
    return await _cuts_of_application(backend, rng)


async def cuts_of_logs(
    backend: Backend, rng: random.Random, number: int, patience: float
) -> list[Violation]:
    """Cut the connections of a log that is opened so many times."""
    history, url = History(), backend.new_log()
    async with (
        Proxy(url) as proxy,
        opened([proxy.url] * number, patience=patience) as logs,
        on_logs(logs, history, rng) as load,
    ):
        await _cut(proxy, load, rng, APPEND_OF_LOG)
    return await check_log(url, history)


async def _cuts_of_application(backend: Backend, rng: random.Random) -> list[Violation]:
    history, log = History(), backend.new_log()
    async with Proxy(log) as proxy:
        # Views by the proxy, by the same connections (inline), or elsewhere.
        views = rng.choice(backend.new_views(proxy.url))
        async with on_application(proxy.url, views, history, rng) as load:
            await _cut(proxy, load, rng, APPEND_OF_APPLICATION)
        there = views.replace(proxy.url.partition("?")[0], log.partition("?")[0])
    return await check_application(log, there, history.calls)


async def _cut(proxy: Proxy, load: Load, rng: random.Random, append: bytes) -> None:
    count = 0
    while count < CUTS:
        # Left alone for a while, logs append by one call again.
        await load.more(rng.choice((0, 0, 1, 2, 10)))
        if rng.random() < 0.5:
            count += await _cut_at_commit(proxy, load, rng, rng.choice((append, append, COMMIT)))
        else:
            count += min(1, proxy.cut(rng.choice((1, None))))
        if rng.random() < 0.1:
            proxy.refuse()  # for a while
            count += await _cut_at_commit(proxy, load, rng, append) + min(1, proxy.cut())
            await asyncio.sleep(0.15)
            proxy.accept()
    proxy.heal()
    await load.more(20)


async def _cut_at_commit(proxy: Proxy, load: Load, rng: random.Random, marker: bytes) -> int:
    fault: Fault = rng.choice((proxy.cut_before, proxy.cut_after, proxy.hold, proxy.hold))(marker)
    await load.until(fault.wait(), steps=40)
    if fault.kind == "hold" and fault.struck:
        # Late, the message finds that the client has stored its events by another connection; or
        # that all have waited, as long as it held the log's lock.
        await load.until(asyncio.sleep(rng.choice((0.02, 0.1))), steps=40)
        await fault.release()
    proxy.heal()
    return fault.struck
