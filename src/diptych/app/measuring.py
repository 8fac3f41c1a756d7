"""What an open application tells about itself, beyond what its two sides count as they work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress

from diptych.errors import DiptychError, LogUnusable, Unavailable
from diptych.log import Log
from diptych.read.status import STATES, Status
from diptych.telemetry import declared
from diptych.telemetry.metrics import Family, Labels, Number, Telemetry

LOOK_SECONDS = 10.0
"""How often an application looks where its projections are, when OpenTelemetry reads its gauges."""

LOG_SECONDS = 2.0
"""How long the log may take to answer; then it is away."""


async def note(
    telemetry: Telemetry,
    waiting: int,
    log: Log,
    status: Callable[[], Awaitable[Sequence[Status]]],
) -> None:
    """Set the gauges of the log and of the projections, as far as these can be asked."""
    telemetry.number(declared.COMMAND_WAITING)[()].value = waiting
    up = telemetry.number(declared.LOG_UP)[()]
    try:
        async with asyncio.timeout(LOG_SECONDS):
            head = await log.head()
        up.value = 1
        note_status(telemetry, head, await status())
    except (Unavailable, LogUnusable, TimeoutError):
        up.value = 0


def note_status(telemetry: Telemetry, head: int, found: Sequence[Status]) -> None:
    """Set the gauges to what was found."""
    telemetry.number(declared.LOG_HEAD)[()].value = head
    found = [one for one in found if one.phase == "live"]
    _note_spans(telemetry, found)
    for one in found:
        if one.state != "away":  # else what was proved last stands
            _note_proof(telemetry, one)
        for state in STATES:
            series = telemetry.number(declared.PROJECTION_STATE)[one.projection, state]
            series.value = float(state == one.state)
        if one.freshness is not None:
            kept, burns = telemetry.number(declared.FRESHNESS_MET), declared.FRESHNESS_BURN
            _set(kept, (one.projection,), one.freshness.met)
            _set(telemetry.number(burns), (one.projection, "5m"), one.freshness.burn_5m)
            _set(telemetry.number(burns), (one.projection, "1h"), one.freshness.burn_1h)


def _note_spans(telemetry: Telemetry, found: Sequence[Status]) -> None:
    """Set what is told of each span; those that were cut or joined are told no more."""
    families = [
        telemetry.number(metric)
        for metric in (
            *(declared.PROJECTION_POSITION, declared.PROJECTION_LAG),
            declared.PROJECTION_LAG_AGE,
        )
    ]
    now: set[Labels] = set()
    for one in found:
        for span in one.spans:
            at: Labels = (one.projection, f"{span.first}-{span.last}")
            now.add(at)
            told = (span.position, span.lag, span.lag_seconds)
            for family, value in zip(families, told, strict=True):
                family[at].value = value
    for family in families:
        for at in family.keys() - now:
            del family[at]


def _set(family: Family[Number], labels: Labels, value: float | None) -> None:
    """Set a gauge; without a value there is none, rather than the last one for ever."""
    if value is None:
        family.pop(labels, None)
    else:
        family[labels].value = value


def _note_proof(telemetry: Telemetry, one: Status) -> None:
    """Note what ``verify`` has found last of the live version, and when."""
    at = (one.projection,)
    proof = one.proved
    told = (
        (declared.VERIFY_COMPLETE, None if proof is None else float(proof.ok)),
        (declared.VERIFY_POSITION, None if proof is None else proof.position),
        (declared.VERIFY_TIME, None if proof is None else proof.time.timestamp()),
    )
    for metric, value in told:
        _set(telemetry.number(metric), at, value)


@asynccontextmanager
async def observed(
    telemetry: Telemetry,
    look: Callable[[], Awaitable[object]],
) -> AsyncGenerator[None]:
    """Look again and again, where somebody reads the gauges without asking for them first."""
    task = asyncio.create_task(_look(look)) if telemetry.observed else None
    try:
        yield
    finally:
        telemetry.closed = True
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def _look(look: Callable[[], Awaitable[object]]) -> None:
    while True:
        with suppress(DiptychError):  # a database is away: what was seen last stands
            await look()
        await asyncio.sleep(LOOK_SECONDS)
