"""Parked keys: what cannot be applied is set aside, holds up nothing else, and comes back."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from diptych.codec import Codec
from diptych.errors import (
    DamagedRow,
    ForeignCheckpoint,
    Invalid,
    ProjectionFailed,
    ProjectionPaused,
)
from diptych.log import Append, Log
from diptych.logs.memory import MemoryLog
from diptych.read.following.engine import Engine
from diptych.read.parking import parking
from diptych.read.parking.desk import NO_KEY
from diptych.read.parking.keys import ParkedKeys
from diptych.read.parking.steering import Steering
from diptych.read.port import Transaction
from diptych.read.projections import Keyed, Projection, handler, projection
from diptych.read.proving.rowcheck import Column, verify_rows
from diptych.read.proving.verify import Verdict, verify
from diptych.read.views import Key, View
from tests.read.world import (
    Deleted,
    Journal,
    Moved,
    Noted,
    World,
    all_recorded,
    append,
    both,
    journals,
    keyed,
    new_event,
    orders,
    placed,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::diptych.errors.SqliteVersionWarning"),
    pytest.mark.usefixtures("backend"),
]


class Trail(View):
    """All that a key has seen, in order: a fold that shows every event lost, doubled or moved."""

    name: Key[str]
    seen: list[int]
    last: int = 0


class Faults:
    """What is wrong with the application, until it is put right."""

    def __init__(self, kind: str = "", poison: Iterable[int] = ()) -> None:
        self.kind = kind
        self.poison = set(poison)

    def projection(self, slices: int = 8) -> Keyed:
        def trail(row: Trail | None, event: Moved, key: str) -> Trail | None:
            bad = event.amount in self.poison
            if bad and self.kind == "fold":
                raise ValueError(f"no {event.amount}\0\ud800")
            seen = [*(row.seen if row else []), event.amount]
            if bad and self.kind == "row":
                return Trail(key, seen, 2**70)
            if row is not None and row.last:  # only rows that are written need be writable
                return Trail(key, seen, row.last)
            if bad and self.kind == "returned":
                return "a row"  # type: ignore[return-value]
            if bad and self.kind == "other key":
                return Trail(f"{key}?", seen)
            return Trail(key, seen)

        def key(event: Moved) -> list[str]:
            if event.amount in self.poison and self.kind == "key":
                raise LookupError("no key")
            return both(event)

        return projection(trail, Trail, key=key, slices=slices)


KINDS = ["fold", "key", "undecodable", "row", "returned", "other key"]


async def poisoned(log: Log, kind: str, poison: set[int], events: list[Moved]) -> None:
    """Append events, those that are poison undecodable where that is the kind of fault."""
    for start in range(0, len(events), 100):
        made = []
        for event in events[start : start + 100]:
            new = new_event(event)
            if kind == "undecodable" and event.amount in poison:
                data = msgspec.json.encode({"source": event.source, "target": event.target})
                new = msgspec.structs.replace(new, data=data)
            made.append(new)
        await log.append([Append(tuple(made))])


def moves(count: int, names: int = 20) -> list[Moved]:
    chosen = random.Random(7)
    return [
        Moved(f"k{chosen.randrange(names)}", f"k{chosen.randrange(names)}", n) for n in range(count)
    ]


def parked_of(world: World) -> ParkedKeys:
    return ParkedKeys(world.log, world.codec, [world.engine])


async def proved(world: World) -> dict[str, Verdict]:
    found = await verify(world.log, world.codec, world.store, world.projections)
    again = await verify(world.log, world.codec, world.store, world.projections, since="last")
    assert all(one.ok for one in found), found
    assert [(one.ok, one.reason) for one in again] == [(one.ok, one.reason) for one in found]
    return {one.projection: one for one in found}


def expected(
    events: Iterable[Moved], without: Callable[[Moved, str], bool]
) -> dict[str, list[int]]:
    """Return what each key should have seen."""
    found: dict[str, list[int]] = {}
    for event in events:
        for key in dict.fromkeys(both(event)):
            if not without(event, key):
                found.setdefault(key, []).append(event.amount)
    return found


async def trails(world: World) -> dict[str, list[int]]:
    return {name: row.seen for name, row in keyed(await world.rows(Trail), "name").items()}  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_poison_event_holds_up_nothing_but_its_keys_and_comes_back(
    kind: str,
) -> None:
    """One in 1,000, six kinds of error: after the fix a retry gives what a cold fold gives."""
    poison = {250, 1250, 2250}
    events = moves(3000, names=200)
    faults = Faults(kind, poison)
    one = faults.projection()
    async with World([one, orders()], page=500) as world:
        await poisoned(world.log, kind, poison, events)
        await world.append(*placed(1))
        await world.engine.catch_up()
        status = {one.projection: one for one in await world.engine.status()}
        assert {one.position for one in status.values()} == {3001}
        now = await trails(world)
        nameless = kind in ("key", "undecodable")
        bad = {key: e.amount for e in reversed(events) if e.amount in poison for key in both(e)}

        def held(event: Moved, key: str) -> bool:
            if nameless:
                return event.amount in poison
            return key in bad and event.amount >= bad[key]

        assert now == expected(events, held)
        listed = await parked_of(world).keys()
        assert {one.key for one in listed} == ({NO_KEY} if nameless else {f'"{k}"' for k in bad})
        verdict = (await proved(world))["trail"]
        rows = await verify_rows(world.log, world.codec, world.store, one)
        assert rows.ok, rows
        waiting = sum(held(e, k) for e in events for k in dict.fromkeys(both(e)))
        assert verdict.parked == (3 if nameless else waiting)
        shown = status["trail"]
        assert (shown.parked_events, shown.parked_keys) == (verdict.parked, len(listed))
        assert shown.lag_seconds > 0
        assert status["order"].parked_keys == 0
        # Nothing is right yet: a retry changes nothing but the number of attempts.
        for result in await parked_of(world).retry():
            assert result.applied == 0
            assert result.left
            assert result.error
        assert await trails(world) == now
        assert (await proved(world))["trail"].parked == verdict.parked
        assert all(one.attempts == 2 for one in await parked_of(world).keys())

        faults.kind = ""
        if kind == "undecodable":
            world.codec.events["Moved"] = msgspec.structs.replace(
                world.codec.events["Moved"], decode=lenient(events)
            )
        await parked_of(world).retry()
        assert await parked_of(world).keys() == []
        assert await trails(world) == expected(events, lambda _e, _k: False)
        verdict = (await proved(world))["trail"]
        assert (verdict.parked, verdict.skipped) == (0, 0)
        await world.append(*moves(300))
        await world.engine.catch_up()
        assert await trails(world) == expected([*events, *moves(300)], lambda _e, _k: False)
        await proved(world)


def lenient(events: list[Moved]) -> Callable[[Any], Any]:
    """Return a decoder that knows what the events were that lack their amount."""
    numbers = {(e.source, e.target): e.amount for e in events if e.amount in (250, 1250, 2250)}

    class Some(msgspec.Struct):
        source: str
        target: str
        amount: int = -1

    def decode(data: Any) -> Moved:
        found = msgspec.json.decode(data, type=Some)
        amount = found.amount
        if amount < 0:
            amount = numbers[found.source, found.target]
        return Moved(found.source, found.target, amount)

    return decode


class Mute(Exception):
    """Says nothing, and raises when it is asked to."""

    def __str__(self) -> str:
        raise SystemExit(4)

    __repr__ = __str__


ODD: list[Callable[[], BaseException]] = [
    Mute,
    asyncio.CancelledError,
    lambda: SystemExit(3),
    GeneratorExit,
    StopIteration,
    StopAsyncIteration,
    RecursionError,
    lambda: ExceptionGroup("some", [ValueError(1)]),
    lambda: BaseExceptionGroup("all", [SystemExit(3)]),
]


@pytest.mark.parametrize("make", ODD, ids=lambda make: type(make()).__name__)
async def test_whatever_a_function_raises_parks_its_key_and_stops_nothing_else(
    make: Callable[[], BaseException],
) -> None:
    """Also what would end a task or the process, and what cannot even say what it is."""
    poison = {2: "fold", 5: "fold", 3: "key"}

    def trail(row: Trail | None, event: Moved, key: str) -> Trail | None:
        if poison.get(event.amount) == "fold":
            raise make()
        return Trail(key, [*(row.seen if row else []), event.amount])

    def key(event: Moved) -> list[str]:
        if poison.get(event.amount) == "key":
            raise make()
        return [event.source]

    async def note(event: Noted, tx: Transaction) -> None:
        await tx.put(Journal(1, event.text))
        if event.text == "bad" and poison:
            raise make()

    name = type(make()).__name__
    events = [Moved("ab"[n % 2], "c", n) for n in range(8)]
    one = projection(trail, Trail, key=key)
    async with World([one, orders(), handler(note, Journal)]) as world:
        await world.engine.start()
        head = await world.append(*events, *placed(1))
        soon = time.monotonic() + 60
        assert await world.engine.wait_for(["trail", "order"], head, soon)
        listed = {found.key: found for found in await parked_of(world).keys()}
        assert listed.keys() == {'"a"', '"b"', NO_KEY}
        assert {found.kind for found in listed.values()} == {name}
        await proved(world)
        assert (await verify_rows(world.log, world.codec, world.store, one)).ok
        assert all(found.error for found in await parked_of(world).retry("trail"))
        head = await world.append(Noted("good"), Noted("bad"), *placed(2))
        soon = time.monotonic() + 60
        assert await world.engine.wait_for(["order"], head, soon)
        assert await world.engine.wait_for(["journal"], head - 2, soon)
        while (status := {s.projection: s for s in await world.engine.status()})[
            "journal"
        ].state != "failed":
            await asyncio.sleep(0.001)
        assert status["order"].state == "running"
        assert status["journal"].error is not None
        assert world.engine.running
        poison.clear()
        await parked_of(world).retry()
        assert await world.engine.wait_for(["trail", "order", "journal"], head, soon)
        assert (await proved(world))["trail"].parked == 0


async def test_an_event_that_cannot_be_decoded_is_parked_by_what_can_be_read_of_its_key() -> None:
    """Where keys are fields of the event: then its order is kept like that of any other."""
    async with World([orders()]) as world:
        await world.append(*placed(1, 2))
        broken = msgspec.structs.replace(new_event(placed(1)[0]), data=b'{"order":"o1"}')
        await world.log.append([Append((broken,))])
        await world.append(*placed(1, 2, 3))
        await world.engine.catch_up()
        (key,) = await parked_of(world).keys()
        assert (key.key, key.position, key.events, key.kind) == ('"o1"', 3, 2, "UndecodableEvent")
        assert (await proved(world))["order"].parked == 2
        (row,) = await parked_of(world).retry("order", "o1")
        assert (row.applied, row.left) == (0, 2)
        with pytest.raises(Invalid, match="kept with who"):
            await parked_of(world).skip("order", "o1", actor="ada", why=" ")
        await parked_of(world).skip("order", "o1", actor="ada", why="a test")
        (row,) = await parked_of(world).retry("order", "o1")
        assert (row.applied, row.left) == (1, 0)
        verdict = (await proved(world))["order"]
        assert (verdict.parked, verdict.skipped) == (0, 1)
        (shown,) = await parked_of(world).show("order", "o1")
        assert (shown.state, shown.actor, shown.why, shown.position) == (
            "skipped",
            "ada",
            "a test",
            3,
        )
        assert shown.decided is not None
        assert (await world.engine.status())[0].skipped == 1


async def test_of_a_key_function_that_takes_anything_no_undecodable_event_is_folded() -> None:
    """Though the key function does not look at the event."""

    def fold(row: Trail | None, event: Moved) -> Trail | None:
        return Trail("all", [*(row.seen if row else []), event.amount])

    async with World([projection(fold, Trail, key=lambda _: "all")]) as world:
        await world.append(*moves(2))
        broken = msgspec.structs.replace(new_event(moves(1)[0]), data=b"{}")
        await world.log.append([Append((broken,))])
        await world.append(*moves(1))
        await world.engine.catch_up()
        assert await trails(world) == {"all": [0, 1, 0]}
        assert [one.key for one in await parked_of(world).keys()] == [NO_KEY]
        await proved(world)


async def test_with_too_many_parked_keys_a_projection_stands_still(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its function is at fault then; the database is not filled, and nothing is lost."""
    monkeypatch.setattr(parking, "MOST_KEYS", 3)
    faults = Faults("fold", {3, 4, 5, 6, 7})
    events = [Moved(f"k{n}", f"k{n}", n) for n in range(10)]
    async with World([faults.projection()]) as world:
        await world.append(*events)
        with pytest.raises(ProjectionFailed, match="has parked 3 keys already"):
            await world.engine.catch_up()
        status = (await world.engine.status())[0]
        assert (status.state, status.position, status.parked_keys) == ("failed", 6, 3)
        await proved(world)
        faults.kind = ""
        await world.engine.catch_up()
        await parked_of(world).retry()
        assert await trails(world) == expected(events, lambda _e, _k: False)
        await proved(world)


async def test_a_handler_stands_still_until_its_event_is_skipped() -> None:
    """Which is kept with who did it; verify expects it no more."""

    async def fragile(event: Noted, tx: Transaction) -> None:
        page = await tx.get(Journal, 1)
        await tx.put(Journal(1, (page.text if page else "") + event.text))
        if event.text == "bad":
            raise ValueError("no")

    async with World([handler(fragile, Journal)]) as world:
        await world.append(Noted("a"), Noted("bad"), Noted("c"))
        with pytest.raises(ProjectionFailed, match="no"):
            await world.engine.catch_up()
        with pytest.raises(Invalid, match="does not fail on that event"):
            await parked_of(world).skip("journal", actor="ada", why="x", position=3)
        skipped = await parked_of(world).skip("journal", actor="ada", why="x", position=2)
        assert (skipped.position, skipped.event) == (2, "Noted")
        await asyncio.sleep(0)
        while (await world.engine.status())[0].position < 3:
            await world.engine.catch_up()
        assert await world.rows(Journal) == [Journal(1, "ac")]
        verdict = (await proved(world))["journal"]
        assert (verdict.count, verdict.skipped) == (2, 1)
        with pytest.raises(Invalid, match="does not fail on that event"):
            await parked_of(world).skip("journal", actor="ada", why="x")


async def test_a_handler_that_does_not_fail_passes_nothing_over() -> None:
    """One that lags, is paused, or has had its event skipped: each event behind is healthy."""
    faults = {"bad"}

    async def fragile(event: Noted, tx: Transaction) -> None:
        if event.text in faults:
            raise ValueError("no")
        page = await tx.get(Journal, 1)
        await tx.put(Journal(1, (page.text if page else "") + event.text))

    async def refused(rule: str) -> None:
        with pytest.raises(Invalid, match=rule):
            await parked_of(world).skip("journal", actor="ada", why="x")

    async with World([handler(fragile, Journal)]) as world:
        await world.append(Noted("a"), Noted("bad"), Noted("c"))
        await refused("does not fail on that event")
        with pytest.raises(ProjectionFailed):
            await world.engine.catch_up()
        await parked_of(world).skip("journal", actor="ada", why="x")
        await refused("does not fail on that event")
        await control_of(world).pause("journal", actor="ada", why="a look")
        await refused("does not fail on that event")
        await control_of(world).resume("journal")
        while (await world.engine.status())[0].position < 3:
            await world.engine.catch_up()
        assert await world.rows(Journal) == [Journal(1, "ac")]
        await proved(world)


async def test_what_a_handler_stands_before_is_known_to_every_process() -> None:
    """Which event, since when, why and how often; until it has handled it."""
    faults = {"bad", "b"}

    async def fragile(event: Noted, tx: Transaction) -> None:
        if event.text in faults:
            raise ValueError(f"{event.text} \0 is refused")
        page = await tx.get(Journal, 1)
        await tx.put(Journal(1, (page.text if page else "") + event.text))

    async with World([handler(fragile, Journal)]) as world:
        looker = Engine(world.log, world.codec, world.store, world.projections)
        await looker.open()
        assert (await looker.status())[0].state != "failed"
        await world.append(Noted("a"), Noted("b"), Noted("bad"))
        for _ in range(2):
            with pytest.raises(ProjectionFailed):
                await world.engine.catch_up()
        parked = ParkedKeys(world.log, world.codec, [looker])
        (event,) = await parked.show("journal")
        assert (event.position, event.event, event.kind, event.attempts) == (
            *(2, "Noted", "ValueError", 2),
        )
        (status,) = await looker.status()
        assert (status.state, status.failed_position, status.parked_events) == ("failed", 2, 1)
        for words in ("position: 2", f"since: {event.since:%Y-%m-%d}", "is refused"):
            assert words in str(status.error)
        (retried,) = await parked.retry()
        assert (retried.applied, retried.left) == (0, 1)
        assert "is refused" in retried.error
        faults.remove("b")
        with pytest.raises(ProjectionFailed):
            await world.engine.catch_up()
        (event,) = await parked.show("journal")
        assert (event.position, event.attempts) == (3, 1)
        faults.clear()
        await world.engine.catch_up()
        assert await parked.keys() == []
        (status,) = await looker.status()
        assert (status.state == "failed", status.error) == (False, None)
        assert await world.rows(Journal) == [Journal(1, "abbad")]
        await proved(world)


@pytest.mark.parametrize("kind", ["fold", "key", "row"])
async def test_retries_beside_engines_that_run_lose_and_double_nothing(
    kind: str, tmp_path: Path
) -> None:
    """Two engines that share the slices, and others that retry all the time; one is cut off."""
    events = moves(1200, names=12)
    faults = Faults(kind, {n for n in range(1200) if n % 97 == 13})
    log = MemoryLog()
    path = tmp_path / "v.db"
    worlds = [World([faults.projection()], log=log, path=path, page=size) for size in (11, 37, 50)]
    one, two, operator = worlds
    async with one, two, operator:
        await one.engine.start()
        await two.engine.start()
        done = False

        async def retry(world: World) -> None:
            while not done:
                await parked_of(world).retry()
                await asyncio.sleep(0)

        retrying = [asyncio.create_task(retry(operator)) for _ in range(2)]
        for start in range(0, 1200, 60):
            await append(log, *events[start : start + 60])
            if start == 600:
                faults.kind = ""
            if start == 780:
                await two.engine.stop()
            await asyncio.sleep(0.001)
        head = await log.head()
        while not await one.engine.wait_for(["trail"], head, time.monotonic() + 1):
            pass
        done = True
        await asyncio.gather(*retrying)
        await parked_of(operator).retry()
        assert await parked_of(operator).keys() == []
        assert await trails(operator) == expected(events, lambda _e, _k: False)
        verdict = (await proved(operator))["trail"]
        records = await all_recorded(log)
        assert verdict.count == sum(len(set(both(r.event))) for r in records)  # type: ignore[misc, arg-type]


async def test_two_who_skip_the_same_event_do_so_once() -> None:
    """And one who has been retried meanwhile is not skipped."""
    faults = Faults("fold", {3})
    async with World([faults.projection()]) as world:
        await world.append(*[Moved("a", "a", n) for n in range(6)])
        await world.engine.catch_up()
        skips = [
            parked_of(world).skip("trail", "a", actor=actor, why="x") for actor in ("ada", "bob")
        ]
        results = await asyncio.gather(*skips, return_exceptions=True)
        assert len(await parked_of(world).show("trail", "a")) == 3
        await parked_of(world).retry()
        gone = [one for one in await parked_of(world).show("trail", "a") if one.state == "skipped"]
        assert len(gone) == sum(not isinstance(one, BaseException) for one in results)
        await proved(world)


async def test_events_of_unknown_types_are_counted() -> None:
    """A projection cannot use them: they may be of one that was renamed."""
    async with World([orders()]) as world:
        await world.append(*placed(1))
        for name in ("Renamed", "Renamed", "Gone"):
            other = msgspec.structs.replace(new_event(Noted("x")), type=name)
            await world.log.append([Append((other,))])
        await world.engine.catch_up()
        assert (await proved(world))["order"].unknown == {"Renamed": 2, "Gone": 1}
        await world.append(*placed(2))
        other = msgspec.structs.replace(new_event(Noted("y")), type="Gone")
        await world.log.append([Append((other,))])
        await world.engine.catch_up()
        projections = world.engine.projections.values()
        for _ in range(2):
            (since,) = await verify(
                world.log, world.codec, world.store, list(projections), since="last"
            )
            assert since.unknown == {"Renamed": 2, "Gone": 2}
        (status,) = await world.engine.status()
        assert status.proved is not None
        assert status.proved.unknown == {"Renamed": 2, "Gone": 2}


# --- pause, resume, rewind ------------------------------------------------------------------------


def control_of(world: World) -> Steering:
    return Steering(world.log, world.codec, [world.engine])


async def test_a_paused_projection_stands_wherever_its_worker_is(tmp_path: Path) -> None:
    """As soon as ``pause`` returns; others go on, and so does it when it is resumed."""
    faults = Faults()
    log = MemoryLog()
    path = tmp_path / "v.db"
    projections: list[Projection] = [faults.projection(), orders()]
    worker = World(projections, log=log, path=path)
    operator = World(projections, log=log, path=path)
    async with worker, operator:
        await worker.engine.start()
        await append(log, *moves(50))
        assert await worker.engine.wait_for(["trail"], 50, time.monotonic() + 30)
        pause = await control_of(operator).pause("trail", actor="ada", why="a look")
        before = (await operator.store.checkpoints())["trail"]
        head = await append(log, *moves(50), *placed(1))
        assert await worker.engine.wait_for(["order"], head, time.monotonic() + 30)
        while {s.projection: s for s in await worker.engine.status()}["trail"].error is None:
            await asyncio.sleep(0.001)
        assert (await operator.store.checkpoints())["trail"] == before
        for world in (worker, operator):
            shown = {s.projection: s for s in await world.engine.status()}["trail"]
            assert (shown.state, shown.paused) == ("paused", pause)
        with pytest.raises(ProjectionPaused, match="a look"):
            await worker.engine.catch_up()
        with pytest.raises(ProjectionPaused, match="ada"):
            await operator.engine.catch_up()
        assert await control_of(operator).resume("trail")
        assert not await control_of(operator).resume("trail")
        assert await worker.engine.wait_for(["trail"], head, time.monotonic() + 30)
        assert {s.projection: s for s in await worker.engine.status()}["trail"].error is None
        await proved(worker)


async def test_nothing_is_retried_while_a_projection_is_paused() -> None:
    faults = Faults("fold", {3})
    async with World([faults.projection()]) as world:
        await world.append(*moves(6))
        await world.engine.catch_up()
        await control_of(world).pause("trail", actor="ada", why="x")
        with pytest.raises(ProjectionPaused):
            await parked_of(world).retry()
        await control_of(world).resume("trail")
        await parked_of(world).retry()


async def test_a_fold_that_is_put_back_is_folded_anew(tmp_path: Path) -> None:
    """By workers that run, too; what was parked or skipped is tried again."""
    faults = Faults("fold", {3, 5})
    log = MemoryLog()
    events = moves(200)
    async with World([faults.projection()], log=log, path=tmp_path / "v.db", page=17) as world:
        await world.engine.start()
        await append(log, *events)
        assert await world.engine.wait_for(["trail"], 200, time.monotonic() + 30)
        await world.sql("UPDATE trail SET seen = '[-1]'")
        faults.kind = ""
        done = await control_of(world).rewind("trail")
        assert (done.before, done.position) == (200, 0)
        head = await append(log, *moves(10))
        assert await world.engine.wait_for(["trail"], head, time.monotonic() + 30)
        while (await world.engine.status())[0].position < head:
            await asyncio.sleep(0.001)
        assert await trails(world) == expected([*events, *moves(10)], lambda _e, _k: False)
        assert (await proved(world))["trail"].parked == 0


async def test_a_handler_that_is_put_back_handles_again_what_lies_behind() -> None:
    """To a position or a time; its rows stay, its proof is that of then."""

    async def note(event: Noted, tx: Transaction) -> None:
        page = await tx.get(Journal, 1)
        await tx.put(Journal(1, (page.text if page else "") + event.text))

    async with World([handler(note, Journal)]) as world:
        await world.append(*[Noted("a")] * 1100, age=100)
        await world.append(*placed(1), Noted("b"), Noted("c"), age=1)
        await world.engine.catch_up()
        done = await control_of(world).rewind("journal", 1102)
        assert (done.before, done.position) == (1103, 1102)
        assert (await proved(world))["journal"].count == 1101
        await world.engine.open()
        await world.engine.catch_up()
        text = "a" * 1100 + "bcc"
        assert await world.rows(Journal) == [Journal(1, text)]
        assert (await proved(world))["journal"].count == 1102
        half = datetime.now(UTC) - timedelta(seconds=50)
        assert (await control_of(world).rewind("journal", half)).position == 1100
        await world.engine.open()
        await world.engine.catch_up()
        assert await world.rows(Journal) == [Journal(1, text + "bc")]
        await proved(world)
        await control_of(world).rewind("journal")
        assert (await proved(world))["journal"].count == 0
        with pytest.raises(Invalid, match="where it has been"):
            await control_of(world).rewind("journal", 1)
        with pytest.raises(Invalid, match="no such projection"):
            await control_of(world).rewind("other", 1)


async def put_checkpoint(world: World, position: int) -> None:
    """As somebody does by hand."""
    (event,) = (await world.log.read(after=position - 1, until=position, limit=1)).events
    await world.sql(
        f"UPDATE diptych_checkpoints SET position = {position}, event_id = '{event.id}'"
    )
    await world.engine.open()


async def test_what_a_handler_has_done_twice_is_accepted_by_a_rewind_to_where_it_stands() -> None:
    """As the finding's remedy says: nothing is handled again, and what follows is proved."""
    async with World([journals()]) as world:
        await world.append(*map(Noted, "abc"))
        await world.engine.catch_up()
        await put_checkpoint(world, 2)
        (ahead,) = await verify(world.log, world.codec, world.store, world.projections)
        assert ahead.ahead == [3]
        assert "a second time" in ahead.remedy
        await world.engine.catch_up()
        (found,) = await verify(world.log, world.codec, world.store, world.projections)
        assert found.doubled == [3]
        assert found.remedy.startswith("nothing takes back what a handler has done twice: put that")
        assert "then `diptych projections rewind journal --to 3` accepts what is" in found.remedy
        await control_of(world).pause("journal", actor="ada", why="done twice")
        await control_of(world).rewind("journal", 3)
        await control_of(world).resume("journal")
        await world.engine.open()
        await world.engine.catch_up()
        assert await world.rows(Journal) == [Journal(1, "abcc")]
        assert (await proved(world))["journal"].count == 3
        await world.append(Noted("d"))
        await world.engine.catch_up()
        assert await world.rows(Journal) == [Journal(1, "abccd")]
        await proved(world)


async def test_what_a_handler_has_not_handled_is_handled_by_a_rewind_to_before_it() -> None:
    """With all that follows; where its sums alone are wrong, they are made anew."""
    async with World([journals()]) as world:
        await world.append(*map(Noted, "abcd"))
        await put_checkpoint(world, 2)
        await world.engine.catch_up()
        (found,) = await verify(world.log, world.codec, world.store, world.projections)
        assert found.missing == [1, 2]
        assert found.remedy.startswith("`diptych projections rewind journal --to 0` has all events")
        await control_of(world).rewind("journal", 0)
        await world.engine.open()
        await world.engine.catch_up()
        assert await world.rows(Journal) == [Journal(1, "cdabcd")]
        await proved(world)
        await world.sql("UPDATE diptych_checkpoints SET count = count + 1")
        (found,) = await verify(world.log, world.codec, world.store, world.projections)
        assert (
            "where nothing is missing, `diptych projections rewind journal --to 4`" in found.remedy
        )
        await control_of(world).rewind("journal", 4)
        await world.engine.open()
        await world.engine.catch_up()
        assert await world.rows(Journal) == [Journal(1, "cdabcd")]
        await proved(world)


@pytest.mark.parametrize("harm", ["lost events", "lost checkpoint", "another log"])
async def test_a_handler_that_is_refused_goes_on_behind_what_it_has_handled(harm: str) -> None:
    """Its rows stay, whatever it is put back to; what lies before is not handled again."""
    statement = {
        "lost events": "UPDATE diptych_checkpoints SET position = position + 1000",
        "lost checkpoint": "DELETE FROM diptych_checkpoints",
        "another log": "UPDATE diptych_checkpoints SET log = 'another'",
    }[harm]
    async with World([journals()]) as world:
        await world.append(*[Noted("")] * 1100, *map(Noted, "abc"))
        await world.engine.catch_up()
        await world.sql(statement)
        if harm == "another log":
            await world.sql("UPDATE diptych_blocks SET count = count + 1")
        (verdict,) = await verify(world.log, world.codec, world.store, world.projections)
        assert "--to POSITION" in verdict.reason
        with pytest.raises(Invalid, match="0 to 1103"):
            await control_of(world).rewind("journal", 1104)
        assert (await control_of(world).rewind("journal", datetime.now(UTC))).position == 1103
        assert (await control_of(world).rewind("journal", 1102)).position == 1102
        assert (await proved(world))["journal"].count == 1102
        assert await world.rows(Journal) == [Journal(1, "abc")]
        await world.append(Noted("d"))
        await world.engine.open()
        await world.engine.catch_up()
        assert await world.rows(Journal) == [Journal(1, "abccd")]
        await proved(world)
        await world.sql(statement)
        assert (await control_of(world).rewind("journal")).position == 0
        await world.engine.open()
        await world.engine.catch_up()
        assert await world.rows(Journal) == [Journal(1, "abccdabcd")]
        await proved(world)


async def test_a_handler_is_not_put_back_while_events_that_it_has_handled_are_unknown() -> None:
    """As their class was renamed: it would be said to have handled none of them."""

    async def gone(event: Deleted, tx: Transaction) -> None:
        await tx.put(Journal(2, event.order))

    known = Codec()
    known.register([Deleted])
    one = handler(gone, Journal, name="journal")
    async with World([journals()]) as world:
        await world.append(Noted("a"), Deleted("o1"), Noted("b"))
        await world.engine.catch_up()
        engine = Engine(world.log, known, world.store, [one])
        await engine.open()
        steering = Steering(world.log, known, [engine])
        (verdict,) = await verify(world.log, known, world.store, [one])
        assert (verdict.ok, verdict.unknown) == (False, {"Noted": 2})
        assert 'stored_as="…"' in verdict.remedy
        assert "do not rewind journal" in verdict.remedy
        for to in (0, 3):
            with pytest.raises(Invalid, match="unknown: Noted: 2"):
                await steering.rewind("journal", to)
        assert (await proved(world))["journal"].count == 3


async def test_a_handler_that_is_renamed_takes_over_its_rows() -> None:
    async with World([journals()]) as world:
        await world.append(*map(Noted, "abc"))
        await world.engine.catch_up()
        renamed = handler(journals().function, Journal, name="renamed")
        engine = Engine(world.log, world.codec, world.store, [renamed])
        await engine.open()
        (status,) = await engine.status()
        assert "keep the name journal" in str(status.error)
        steering = Steering(world.log, world.codec, [engine])
        assert (await steering.rewind("renamed", 3)).position == 3
        await world.append(Noted("d"))
        await engine.open()
        await engine.catch_up()
        assert await world.rows(Journal) == [Journal(1, "abcd")]
        (verdict,) = await verify(world.log, world.codec, world.store, [renamed])
        assert (verdict.ok, verdict.count) == (True, 4)


# --- planted bugs ---------------------------------------------------------------------------------


async def test_a_later_event_of_a_parked_key_that_is_folded_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bug: the key is forgotten with the page in which it failed."""
    monkeypatch.setattr(parking.Parking, "know", lambda *_: None)
    real = parking.Parking.park

    def forgetful(self: parking.Parking, held: Any) -> Any:
        found = real(self, held)
        self.numbers.clear()
        return found

    monkeypatch.setattr(parking.Parking, "park", forgetful)
    faults = Faults("fold", {3})
    async with World([faults.projection()], page=5) as world:
        await world.append(*[Moved("a", "a", n) for n in range(20)])
        await world.engine.catch_up()
        faults.kind = ""
        await parked_of(world).retry()
        assert await trails(world) != {"a": list(range(20))}


async def test_a_retry_that_is_applied_twice_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: what was applied stays parked."""
    from diptych.read.parking.retrying import Retry

    real = Retry._change

    times = 0

    async def careless(self: Retry, *args: Any, **options: Any) -> Any:
        nonlocal times
        times += 1
        if times == 1:
            options.pop("unparked")
        return await real(self, *args, **options)

    faults = Faults("fold", {3})
    async with World([faults.projection()]) as world:
        await world.append(*[Moved("a", "a", n) for n in range(6)])
        await world.engine.catch_up()
        faults.kind = ""
        monkeypatch.setattr(Retry, "_change", careless)
        await parked_of(world).retry()
        (verdict,) = await verify(world.log, world.codec, world.store, world.projections)
        assert not verdict.ok
        assert verdict.doubled == [4, 5, 6]


async def test_nothing_waits_for_events_that_the_log_has_lost() -> None:
    """A checkpoint beyond the head: retries say so; back to 0 needs nothing of it."""
    faults = Faults("key", {1})
    events = [Moved("a", "b", n) for n in range(3)]
    async with World([faults.projection(), journals()]) as world:
        await world.append(*events, Noted("a"))
        await world.engine.catch_up()
        await world.sql("UPDATE diptych_checkpoints SET position = position + 1000")
        faults.kind = ""
        async with asyncio.timeout(60):
            with pytest.raises(ForeignCheckpoint, match="beyond the head"):
                await parked_of(world).retry()
        for name in ("trail", "journal"):
            assert (await control_of(world).rewind(name)).position == 0
        await world.engine.open()
        await world.engine.catch_up()
        assert await trails(world) == expected(events, lambda _e, _k: False)
        await proved(world)


async def test_a_damaged_row_parks_its_key_is_named_and_is_mended_by_a_rewind() -> None:
    """Somebody has changed it so that it cannot even be read."""
    events = moves(60, names=6)
    one = Faults().projection()
    async with World([one, orders()], page=20) as world:
        await world.append(*events[:30])
        await world.engine.catch_up()
        table = Trail.__view__.table_name
        await world.sql(f"UPDATE {table} SET seen = '{{\"a\":1}}' WHERE name = 'k3'")
        for follower in world.engine.spans:
            follower.forget()
        await world.append(*events[30:], *placed(1))
        await world.engine.catch_up()
        assert {s.position for s in await world.engine.status()} == {61}
        (key,) = await parked_of(world).keys()
        assert (key.key, key.kind) == ('"k3"', "DamagedRow")
        for words in ("rewind", "view: Trail", "key: k3", "column: seen", '{"a":1}'):
            assert words in key.error
        assert (await proved(world))["trail"].parked == key.events
        verdict = await verify_rows(world.log, world.codec, world.store, one)
        assert not verdict.ok
        assert verdict.rows == 6
        (fault,) = verdict.faults
        right = [e.amount for e in events[:30] if "k3" in both(e)]
        assert (fault.what, fault.key) == ("different", "k3")
        assert fault.columns == [Column("seen", right, '{"a":1}')]
        with pytest.raises(DamagedRow, match="k3"):
            await world.rows(Trail)
        assert (await parked_of(world).retry("trail", "k3"))[0].left == key.events
        await control_of(world).rewind("trail")
        await world.engine.open()
        await world.engine.catch_up()
        assert await trails(world) == expected(events, lambda _e, _k: False)
        assert (await proved(world))["trail"].parked == 0
        assert (await verify_rows(world.log, world.codec, world.store, one)).ok


@pytest.mark.parametrize("page", [1, 3, 500])
@pytest.mark.parametrize("bad", ["number", "surrogate", "type"])
async def test_a_row_that_cannot_be_stored_parks_its_key_whatever_follows_in_the_page(
    page: int, bad: str
) -> None:
    """The next event would have replaced it: that depends on how the log is cut into pages."""

    def trail(row: Trail | None, event: Moved) -> Trail | None:
        if event.amount != 4:
            return Trail(event.source, [*(row.seen if row else []), event.amount])
        if bad == "number":
            return Trail(event.source, [4], 2**70)
        return Trail(event.source, ["\ud800"] if bad == "surrogate" else None)  # type: ignore[list-item, arg-type]

    one = projection(trail, Trail, key=lambda event: event.source)
    async with World([one], page=page) as world:
        await world.append(*(Moved("ab"[n % 2], "c", n) for n in range(10)))
        await world.engine.catch_up()
        assert await trails(world) == {"a": [0, 2], "b": [1, 3, 5, 7, 9]}
        (key,) = await parked_of(world).keys()
        assert (key.key, key.position, key.events) == ('"a"', 5, 3)
        await proved(world)
        (again,) = await parked_of(world).retry()
        assert (again.applied, again.left) == (0, 3)
        assert await trails(world) == {"a": [0, 2], "b": [1, 3, 5, 7, 9]}
