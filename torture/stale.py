"""What is stale after a failover that has lost events is refused, wherever it is kept."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from contextlib import closing, suppress

import asyncpg
from msgspec import Struct

from diptych import Running
from diptych.app.databases import Where
from diptych.errors import DiptychError, ForeignCheckpoint, LogUnusable, OutcomeUnknown
from diptych.log import Token
from diptych.sql.postgres import Address
from diptych.testing.checker import check_history, check_views
from diptych.testing.history import AskRequest, Call, Done, History, Told
from diptych.testing.recording import AppRecorder
from torture.application import ACCOUNTS, BalanceOf, Move, Open, accounts
from torture.backends import Backend, open_log
from torture.load import customers
from torture.replication import Pair, replicated

SECONDS = 30.0
"""For what has to come at some time."""


class Lost(Struct):
    """What the replica lacked: all behind ``head``. ``last`` was acknowledged, and is among it."""

    head: int
    last: Token
    since: int
    """When the primary was dead, in ns of the machine's monotonic clock."""


async def stale(backend: Backend, rng: random.Random, *, again: bool) -> list[str]:
    """Fail over to a replica that lags; return what does not hold.

    ``again``: the lost positions are given to other events, before anybody looks.
    """
    history = History()
    async with replicated(synchronous=False) as pair:
        log = pair.new_log()
        beside = backend.new_views(log)[0]
        elsewhere = rng.choice([backend.new_views(log)[1], backend.new_log()])
        async with accounts().open(log=log, views=beside) as near:
            async with accounts().open(log=log, views=elsewhere) as running:
                lost = await _fail_over(pair, log, running, history, rng)
                if again:
                    await _go_on(near, history, lost.last.position + rng.randint(1, 20), rng)
                found = await _refused_while_running(running, lost, again=again)
            found += await _refused_when_opened(log, elsewhere, lost, again=again)
            if not again:
                found += await _token_refused(near, lost)
                await _go_on(near, history, lost.head + rng.randint(1, 20), rng)
            # What is in the log's database went back with it: it fits, and nobody has to help.
            await near.catch_up()
            found += [str(one) for one in await check_views(near)]
        if not found:
            found += await _rewound(log, elsewhere, rng)
            found += await _checked(log, beside, history, lost)
        return found


# --- losing ---------------------------------------------------------------------------------------


async def _fail_over(
    pair: Pair, log: str, running: Running, history: History, rng: random.Random
) -> Lost:
    """Have an application store and apply events that the replica never gets, then fail over."""
    async with customers(running, history, rng) as load:
        await load.more(rng.randint(5, 100))
        pair.lag(silently=rng.random() < 0.5)
        await load.more(rng.randint(1, 60))
        last = (await running.do(_move(rng))).token
        await running.catch_up()
        await pair.kill()
        since = time.monotonic_ns()
        await asyncio.sleep(rng.choice((0.0, 0.0, 0.5)))
        await pair.promote()
        await load.more(rng.randint(5, 40))
    now = await open_log(log)
    try:
        head = await now.head()
    finally:
        await now.close()
    if head >= last.position:
        raise RuntimeError("the replica has lost nothing: the round shows nothing")
    return Lost(head, last, since)


async def _go_on(running: Running, history: History, upto: int, rng: random.Random) -> None:
    """Have commands done by a process that has stored nothing before, up to a position."""
    app = AppRecorder(running, history, "afterwards")
    while await running.log.head() < upto:
        with suppress(DiptychError):
            await app.do(Open(f"a{rng.randrange(ACCOUNTS)}"))
        with suppress(DiptychError):
            await app.do(_move(rng))


def _move(rng: random.Random) -> Move:
    a, b = rng.sample(range(ACCOUNTS), 2)
    return Move(f"a{a}", f"a{b}", 1)


# --- refused --------------------------------------------------------------------------------------


async def _refused_while_running(running: Running, lost: Lost, *, again: bool) -> list[str]:
    """The process that has stored and applied what is lost: it neither appends nor projects."""
    found: list[str] = []
    for account in range(ACCOUNTS):  # whatever it knows of them
        with suppress(LogUnusable, OutcomeUnknown):
            try:
                receipt = await running.do(Open(f"new-{account}"))
            except DiptychError as error:
                if isinstance(error, (LogUnusable, OutcomeUnknown)):
                    raise
                found.append(f"who has stored lost events is told something else: {error!r}")
            else:
                found.append(f"who has stored lost events goes on: {receipt}")
    try:
        async with asyncio.timeout(SECONDS):
            while any(one.state != "refused" for one in await running.status()):
                await asyncio.sleep(0.05)
    except TimeoutError:
        states = {one.projection: (one.state, one.position) for one in await running.status()}
        found.append(f"who has applied lost events goes on: {states}")
    return found + await _nothing_told(running, lost, again=again)


async def _refused_when_opened(log: str, views: str, lost: Lost, *, again: bool) -> list[str]:
    """A process that is opened anew on views that have applied what is lost."""
    found: list[str] = []
    async with accounts().open(log=log, views=views) as running:
        with suppress(ForeignCheckpoint):
            await running.catch_up()
            found.append("views that have applied lost events catch up")
        for one in await running.status():
            if one.state != "refused":
                found.append(f"{one.projection} has applied lost events, and is {one.state}")
        for verdict in await running.verify():
            if verdict.ok:
                found.append(f"{verdict.projection} has applied lost events, and is proved")
        return found + await _nothing_told(running, lost, again=again)


async def _nothing_told(running: Running, lost: Lost, *, again: bool) -> list[str]:
    found: list[str] = []
    for after in (None, lost.last):
        try:
            answer = await running.ask(BalanceOf("a0"), after=after, wait=0.0)
        except ForeignCheckpoint:
            continue
        found.append(f"a query is answered by views of lost events: {answer}, token: {after}")
    return found


async def _token_refused(running: Running, lost: Lost) -> list[str]:
    """Views that fit do not say that they have reached a position that is lost."""
    try:
        answer = await running.ask(BalanceOf("a0"), after=lost.last, wait=0.0)
    except ForeignCheckpoint:
        return []
    return [f"a token from beyond the head is taken: {answer}"]


# --- put right ------------------------------------------------------------------------------------


async def _rewound(log: str, views: str, rng: random.Random) -> list[str]:
    """Rewind what is refused, as an operator would, beside workers or without."""
    async with accounts().open(log=log, views=views, projections=rng.random() < 0.5) as running:
        await _empty(views, "turnover")  # a handler's rows stay, unless one takes them away
        for one in await running.status():
            await running.steering.rewind(one.projection)
        async with asyncio.timeout(SECONDS):
            await running.catch_up()
        return [str(one) for one in await check_views(running)]


async def _empty(views: str, table: str) -> None:
    where = Where.parse(views, "views")
    if where.path is not None:
        with closing(sqlite3.connect(where.path)) as file, file:
            file.execute(f"DELETE FROM {table}")
        return
    address = Address.parse(where.url)
    connection = await asyncpg.connect(address.dsn)
    try:
        await connection.execute(f"DELETE FROM {address.schema}.{table}")
    finally:
        await connection.close()


async def _checked(log: str, beside: str, history: History, lost: Lost) -> list[str]:
    """Hold what is not lost, and what was done since, against the log and its views."""
    calls = [call for call in history.calls if not _is_lost(call, lost)]
    async with accounts().open(log=log, views=beside) as running:
        await running.catch_up()
        found = await check_history(calls, running.log)
        return [str(one) for one in found + await check_views(running)]


def _is_lost(call: Call, lost: Lost) -> bool:
    """Whether what a call was answered rests on what is gone."""
    if call.client == "afterwards":
        return False
    if isinstance(call.answer, Done):
        return call.answer.last > lost.head
    if isinstance(call.request, AskRequest) and isinstance(call.answer, Told):
        ended_late = call.end is None or call.end > lost.since
        return ended_late or call.answer.as_of > lost.head
    return False
