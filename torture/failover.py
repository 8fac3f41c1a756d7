"""A primary dies for good under load, and its streaming replica takes over behind the same address.

Synchronous: nothing that was acknowledged is lost, and work resumes by itself. Asynchronous: the
replica lags, and what it lacks is lost. Whoever has stored, applied or been told of a lost event is
then refused, also where its position has been given to another event; after a rewind, views are
the fold of what the log holds now.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import Final

from diptych.errors import LogUnusable
from diptych.testing.checker import Violation
from diptych.testing.history import AppendRequest, AskRequest, Call, Done, History, Outcomes, Told
from torture.backends import Backend
from torture.cuts import APPEND_OF_APPLICATION, APPEND_OF_LOG
from torture.load import (
    CLIENTS,
    Load,
    check_application,
    check_log,
    on_application,
    on_logs,
    opened,
)
from torture.replication import Pair, replicated
from torture.stale import stale

RESUMED_SECONDS: Final = 60.0

TOLD: Final = "Told that stored events are lost"


async def failover(backend: Backend, rng: random.Random, number: int) -> Sequence[object]:
    """Fail over: in turn without a loss, with one, and with one whose positions are used again."""
    match number % 3:
        case 0:
            return await loses_nothing(backend, rng)
        case kind:
            return await stale(backend, rng, again=kind == 2)


async def loses_nothing(
    backend: Backend, rng: random.Random, *, synchronous: bool = True
) -> list[Violation]:
    """Fail over to a replica that commits have waited for, under the load of a run; check all.

    ``synchronous``: whether they really have. (The tests say that it is not so.)
    """
    history = History()
    # Impatient ones give up before the replica is there: the outcome stays unknown.
    patience = rng.choice((0.1, 5.0))
    async with replicated(synchronous=synchronous) as pair:
        log = pair.new_log()
        if rng.random() < 0.5:
            async with (
                opened([log] * rng.choice((1, 3)), patience=patience) as logs,
                on_logs(logs, history, rng) as load,
            ):
                await _fail_over(pair, load, history, rng, APPEND_OF_LOG, _appended)
            return _refusals(history.calls) + await check_log(log, history)
        # Beside the log in another schema, in a file, in the log's own; or on another server.
        views = rng.choice([*backend.new_views(log), backend.new_log()])
        async with on_application(log, views, history, rng) as load:
            await _fail_over(pair, load, history, rng, APPEND_OF_APPLICATION, _done_and_seen)
        return _refusals(history.calls) + await check_application(log, views, history.calls)


async def _fail_over(
    pair: Pair,
    load: Load,
    history: History,
    rng: random.Random,
    append: bytes,
    resumed: Callable[[Sequence[Call]], bool],
) -> None:
    await load.more(rng.randint(5, 150))
    if rng.random() < 0.5:
        # From now on no commit can be acknowledged; what is under way is stored here only.
        pair.lag(silently=rng.random() < 0.5)
        await load.until(asyncio.sleep(rng.choice((0.05, 0.3))), steps=40)
    if rng.random() < 0.5:
        # One has not heard what came of its commit: it has to find out from the replica.
        await load.until(pair.address.cut_after(append).wait(), steps=40)
    await pair.kill()
    pair.address.heal()
    await asyncio.sleep(rng.choice((0.0, 0.0, 0.5)))
    await pair.promote()
    began = time.monotonic_ns()
    async with asyncio.timeout(RESUMED_SECONDS):
        while True:
            calls = [call for call in history.calls if call.start > began]
            if resumed(calls) or _refusals(calls):
                break
            await load.more(20)
    await load.more(rng.randint(10, 60))


def _appended(calls: Sequence[Call]) -> bool:
    """Whether each client has stored events."""
    return (
        len(
            {
                call.client
                for call in calls
                if isinstance(call.request, AppendRequest) and isinstance(call.answer, Outcomes)
                if any(answer.first and not answer.replayed for answer in call.answer.outcomes)
            }
        )
        == CLIENTS
    )


def _done_and_seen(calls: Sequence[Call]) -> bool:
    """Whether each client has done a command, and a query has seen what a command did."""
    done = {
        call.client
        for call in calls
        if isinstance(call.answer, Done) and call.answer.first and not call.answer.replayed
    }
    seen = any(
        isinstance(call.request, AskRequest)
        and isinstance(call.answer, Told)
        and call.request.after
        and not call.answer.stale
        for call in calls
    )
    return seen and len(done) == CLIENTS


def _refusals(calls: Sequence[Call]) -> list[Violation]:
    """Return who was told that the log has lost what he had stored: it must not have."""
    told = [call for call in calls if call.error == LogUnusable.code]
    return [Violation(1, TOLD, {"client": call.client, "call": call.id}) for call in told[:3]]
