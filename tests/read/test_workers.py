"""Workers share the slices of projections, and take over from those who go, die or are paused."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from diptych.errors import DefinitionError, Unavailable
from diptych.log import Log
from diptych.logs.memory import MemoryLog
from diptych.read.following import crew as crew_module
from diptych.read.following.crew import FAR, LOOKS, NEAR, Crew, host, is_alive, shares
from diptych.read.port import Change, Checkpoint, Worker
from diptych.read.projections import Keyed, fold_events, projection
from diptych.read.proving.verify import verify
from tests.read.backends import Current, OnPostgres
from tests.read.world import (
    Account,
    Journal,
    Moved,
    Noted,
    Order,
    World,
    accounts,
    all_recorded,
    append,
    journals,
    keyed,
    order,
    orders,
    placed,
)

pytestmark = pytest.mark.usefixtures("backend")


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers look at each other more often than once a second."""
    monkeypatch.setattr(crew_module, "BEAT_SECONDS", 0.02)


def all_projections() -> list[Any]:
    return [orders(), accounts(), journals()]


@asynccontextmanager
async def worker(
    path: Path, log: Log, *, lease: float = 60.0, **options: Any
) -> AsyncGenerator[World]:
    world = World(all_projections(), log=log, path=path, **options)
    world.engine.crew = Crew(world.store, world.projections, lease=lease)
    async with world:
        await world.engine.start()
        yield world


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await holds():
            await asyncio.sleep(0.01)


async def shared(workers: Sequence[World], name: str = "order") -> bool:
    """Whether each slice of a projection is followed by one of these, and all alike."""
    spans = [(f.span.start, f.span.end) for one in workers for f in one.engine.spans.of(name)]
    sizes = [end - start for start, end in spans]
    stored = [(c.slice, c.end) for c in (await workers[0].store.checkpoints())[name]]
    even = len(sizes) == len(workers) and max(sizes) - min(sizes) <= 1
    return sorted(spans) == stored and sum(sizes) == 64 and even


async def counts(world: World, workers: int) -> bool:
    """Whether a worker believes that there are so many."""
    return len(world.engine.crew.workers) == workers


async def sound(world: World) -> None:
    """All there is in the log has been applied, once, in order."""
    records = await all_recorded(world.log)
    assert keyed(await world.rows(Order), "order") == fold_events(orders(), records, {})
    assert keyed(await world.rows(Account), "name") == fold_events(accounts(), records, {})
    notes = [r.event.text for r in records if isinstance(r.event, Noted)]
    assert await world.rows(Journal) == [Journal(1, "".join(notes))]
    verdicts = await verify(world.log, world.codec, world.store, world.projections)
    assert all(v.ok for v in verdicts), verdicts


async def some(log: Log, n: int) -> int:
    return await append(log, *placed(n), Moved(f"k{n % 9}", f"k{n % 5}", n), Noted(f"{n}"))


async def test_workers_share_and_one_who_goes_leaves_all_to_the_other(tmp_path: Path) -> None:
    log = MemoryLog()
    async with worker(tmp_path / "v.db", log) as one:
        async with worker(tmp_path / "v.db", log) as two:
            await until(lambda: shared([one, two]))
            head = 0
            for n in range(40):
                head = await some(log, n)
            for world in (one, two):
                names = ["order", "account", "journal"]
                assert await world.engine.wait_for(names, head, time.monotonic() + 60)
                await world.engine.catch_up()
            await sound(one)
            async with worker(tmp_path / "v.db", log) as three:
                await until(lambda: shared([one, two, three]))
                await until(lambda: shared([one, two, three], "account"))
        await until(lambda: shared([one]))
        await some(log, 41)
        await one.engine.catch_up()
        await sound(one)


async def test_a_worker_that_dies_is_taken_over_when_its_lease_is_over(tmp_path: Path) -> None:
    """Nothing tells of its end; a query for its slices waits no longer than that."""
    log = MemoryLog()
    async with worker(tmp_path / "v.db", log, lease=0.4) as one:
        two = World(all_projections(), log=log, path=tmp_path / "v.db")
        async with two:
            await two.engine.start()
            await until(lambda: shared([one, two]))
            for task in (two.engine._task, two.engine._beating):
                assert task is not None
                task.cancel()
            head = await some(log, 1)
            for n in range(2, 20):
                head = await some(log, n)
            assert await one.engine.wait_for(["order"], head, time.monotonic() + 60)
            await until(lambda: shared([one]))
            await one.engine.catch_up()
            await sound(one)


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_worker_that_died_is_taken_over_though_the_clock_has_jumped(
    tmp_path: Path, hours: int
) -> None:
    """Seen in what is now the future, it must not seem to live until then.

    It was on another host, so nobody can look for its process.
    """
    names = ("account", "journal", "order")
    log = MemoryLog()
    async with worker(tmp_path / "v.db", log, lease=0.4) as one:
        dead = Worker("elsewhere", "another host", 1, names)
        await one.store.beat(dead, 3600)
        await until(lambda: counts(one, 2))
        on_server = isinstance(Current.backend, OnPostgres)
        later = "seen + make_interval(secs => ?)" if on_server else "seen + ?"
        change = f"UPDATE diptych_workers SET seen = {later}"
        await Current.backend.sql(one.store, change, hours * 3600.0)
        await until(lambda: counts(one, 1))
        head = 0
        for n in range(20):
            head = await some(log, n)
        assert await one.engine.wait_for(["order"], head, time.monotonic() + 60)
        await one.engine.catch_up()
        await sound(one)


async def test_a_process_of_this_host_that_is_gone_is_taken_over_at_once(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert not is_alive(gone.pid)
    assert is_alive(os.getpid())
    names = ("account", "journal", "order")
    log = MemoryLog()
    async with World(all_projections(), log=log, path=tmp_path / "v.db") as before:
        await before.store.beat(Worker("dead", host(), gone.pid, names), 3600)
        await before.store.beat(Worker("elsewhere", "another host", gone.pid, names), 3600)
    async with worker(tmp_path / "v.db", log, lease=3600) as one:
        assert [w.id for w in one.engine.crew.workers if w.id != one.engine.crew.me.id] == [
            "elsewhere"
        ]


class Paused:
    """A store whose next step is held up, as its worker is, until it is let go."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self.held = asyncio.Event()
        self.go = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    async def apply(self, changes: Sequence[Change]) -> list[bool]:
        self.held.set()
        await self.go.wait()
        moved: list[bool] = await self.real.apply(changes)
        return moved


@pytest.mark.parametrize("round_", range(3))
async def test_a_worker_paused_past_its_lease_harms_nothing(tmp_path: Path, round_: int) -> None:
    """Its step comes when others have long done it: it is not made a second time."""
    log = MemoryLog()
    async with (
        worker(tmp_path / "v.db", log, lease=0.3) as one,
        worker(tmp_path / "v.db", log, lease=0.3) as two,
    ):
        await until(lambda: shared([one, two]))
        paused = Paused(two.store)
        two.engine.spans.store = cast(Any, paused)
        beating, two.engine._beating = two.engine._beating, None
        assert beating is not None
        beating.cancel()
        head = 0
        for n in range(30):
            head = await some(log, n)
        await asyncio.wait_for(paused.held.wait(), 60)
        assert await one.engine.wait_for(["order", "account"], head, time.monotonic() + 60)
        await until(lambda: shared([one]))
        paused.go.set()
        two.engine._beating = asyncio.create_task(two.engine._beat())
        for n in range(30, 60):
            head = await some(log, n)
        await until(lambda: shared([one, two]))
        for world in (one, two):
            assert await world.engine.wait_for(
                ["order", "account", "journal"], head, time.monotonic() + 60
            )
        await sound(one)


async def test_workers_that_come_and_go_lose_and_double_nothing(tmp_path: Path) -> None:
    """Some end well, some just end; events come all the time, and small pages are cut anywhere."""
    log = MemoryLog()
    rng = random.Random(4)
    path = tmp_path / "v.db"
    async with worker(path, log, lease=0.3, page=7) as stays:

        async def comes_and_goes(seed: int) -> None:
            mine = random.Random(seed)
            for _ in range(4):
                world = World(all_projections(), log=log, path=path, page=mine.randint(1, 9))
                async with world:
                    await world.engine.start()
                    await asyncio.sleep(mine.uniform(0, 0.15))
                    if mine.random() < 0.5:
                        for task in (world.engine._task, world.engine._beating):
                            assert task is not None
                            task.cancel()
                        world.engine.crew.present = False

        guests = asyncio.gather(*[comes_and_goes(n) for n in range(3)])
        n = 0
        while not guests.done():
            await some(log, n)
            n += 1
            await asyncio.sleep(rng.uniform(0, 0.01))
        await guests
        head = await log.head()
        names = ["order", "account", "journal"]
        assert await stays.engine.wait_for(names, head, time.monotonic() + 60)
        await until(lambda: shared([stays]))
        await sound(stays)


async def test_slices_are_chosen_per_projection() -> None:
    few = projection(order, Order, slices=5)
    async with World([few]) as world:
        await world.append(*placed(*range(50)))
        await world.engine.catch_up()
        (checkpoint,) = (await world.store.checkpoints())["order"]
        assert checkpoint.slices == 5
        (status,) = await world.engine.status()
        assert [(s.first, s.last, s.position, s.lag) for s in status.spans] == [(0, 4, 50, 0)]
        assert [v.ok for v in await verify(world.log, world.codec, world.store, [few])] == [True]


@pytest.mark.parametrize("slices", [0, -1, 1.5, "8", 5000, True])
def test_slices_that_are_none_are_refused(slices: Any) -> None:
    with pytest.raises(DefinitionError, match="slices="):
        projection(order, Order, slices=slices)
    with pytest.raises(DefinitionError, match="one slice"):
        projection(order, Order, slices=2, inline=True)


names = st.lists(st.text(min_size=1), min_size=1, max_size=9, unique=True)


@given(names, st.integers(1, 70))
def test_shares_are_even_and_leave_nothing_out(ids: list[str], slices: int) -> None:
    """All workers compute the same, each from the same list."""
    one: Keyed = projection(order, Order, slices=slices)
    workers = [Worker(id_, "", 1, (one.name,)) for id_ in sorted(ids)]
    shares: list[range] = []
    for me in workers:
        crew = Crew(None, [one])  # type: ignore[arg-type]
        crew.me, crew.workers = me, workers
        shares.append(crew.share(one))
        edges = {share.start for share in shares} | {shares[-1].stop}
        assert slices == 1 or set(crew.cuts(one)) >= edges - {0, slices}
    assert [n for share in shares for n in share] == list(range(slices))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(names, st.sets(st.sampled_from("abcdef"), min_size=1), st.integers(2, 70))
def test_of_what_is_far_behind_each_gets_a_part_of_all_together(
    ids: list[str], bulk: set[str], slices: int
) -> None:
    """Whole projections, but for those that must be cut; what is not far behind, as ever."""
    names = tuple("abcdefg")
    workers = [Worker(id_, "", 1, names, tuple(sorted(bulk))) for id_ in sorted(ids)]
    found = {name: shares(name, slices, workers) for name in names}
    for parts in found.values():
        assert [n for worker in workers for n in parts[worker.id]] == list(range(slices))
    sizes = [sum(len(found[name][one.id]) for name in bulk) for one in workers]
    assert max(sizes) - min(sizes) <= 1
    cut = [name for name in bulk if sum(map(bool, found[name].values())) > 1]
    assert len(cut) < len(workers)
    even = shares("g", slices, [replace(one, bulk=()) for one in workers])
    assert found["g"] == even


def test_projections_that_others_do_not_know_are_shared_among_those_who_do() -> None:
    both, old = ("a", "b", "b@2"), ("a", "b")
    bulk = ("a", "b", "b@2")
    workers = [Worker("1", "", 1, both, bulk), Worker("2", "", 1, old), Worker("3", "", 1, both)]
    assert shares("a", 64, workers) == {"1": range(42), "2": range(42, 64), "3": range(64, 64)}
    assert shares("b@2", 64, workers) == {"1": range(32), "3": range(32, 64)}


def test_who_shares_no_projection_says_nothing_of_it() -> None:
    """As the engine of a row store, whose books are another engine's, too."""
    ours = ("c", "d")
    workers = [Worker("1", "", 1, ("a",), ("c",)), Worker("2", "", 1, ours, ours)]
    workers.append(Worker("3", "", 1, ours, ours))
    assert shares("c", 64, workers) == {"2": range(64), "3": range(64, 64)}
    assert shares("d", 64, workers) == {"2": range(0), "3": range(64)}


class Positions:
    """A store in which only positions can be read, and the log's head."""

    def __init__(self, **positions: int) -> None:
        self.positions = positions
        self.last = 0
        self.rows: dict[str, Worker] = {}

    async def head(self) -> int:
        return self.last

    async def checkpoints(self) -> dict[str, list[Checkpoint]]:
        return {name: [Checkpoint(name, "", at)] for name, at in self.positions.items()}

    async def beat(self, worker: Worker, lease: float) -> list[Worker]:
        self.rows[worker.id] = worker
        return [self.rows[id_] for id_ in sorted(self.rows)]

    async def bulk(self, crew: Crew, last: int, **positions: int) -> tuple[str, ...]:
        self.positions, self.last = positions, last
        await crew.beat(self.head)
        return crew.me.bulk


async def test_the_first_worker_says_what_is_far_behind() -> None:
    """Until it has come near; when the rest is nearly there too, it is left where it is."""
    store = Positions()
    kept = [projection(order, Order, name=name) for name in ("a", "b", "c")]
    crews = [Crew(store, kept) for _ in range(2)]  # type: ignore[arg-type]
    one, two = sorted(crews, key=lambda crew: crew.me.id)
    assert await store.bulk(one, FAR, a=0, b=0, c=0) == ()
    assert await store.bulk(one, FAR + 1, a=0, b=0, c=0) == ("a", "b", "c")
    assert await two.beat(store.head)
    assert two.me.bulk == ("a", "b", "c")
    head = 3 * FAR
    assert await store.bulk(one, head, a=10, b=10, c=head) == ("a", "b")
    assert await store.bulk(one, head, a=20, b=head - NEAR, c=head) == ()  # one alone
    assert await store.bulk(one, head, a=30, b=30, c=30) == ("a", "b", "c")
    assert await store.bulk(one, head, a=head - NEAR - 1, b=head, c=head) == ("a", "b", "c")
    assert await store.bulk(one, head, a=head - NEAR, b=head, c=head) == ()


async def test_engines_that_share_no_projection_speak_for_themselves() -> None:
    """Those of a process: one has its rows elsewhere, and its books where the other has all."""
    store = Positions()
    main = Crew(store, [projection(order, Order, name="a")])  # type: ignore[arg-type]
    beside = Crew(store, [projection(order, Order, name=name) for name in ("b", "c")])  # type: ignore[arg-type]
    for crew in (main, beside, main):
        await store.bulk(crew, FAR + 1, a=0, b=0, c=0)
    assert (main.me.bulk, beside.me.bulk) == ((), ("b", "c"))


async def test_what_stands_still_or_is_throttled_is_not_shared_with_the_rest() -> None:
    store, head = Positions(), 10 * FAR
    kept = [projection(order, Order, name=name) for name in ("a", "b", "c", "d")]
    crew = Crew(store, kept)  # type: ignore[arg-type]
    for look in range(LOOKS + 1):
        found = await store.bulk(crew, head, a=1000 * look, b=1000 * look, c=0, d=100 * look)
        assert found == (("a", "b", "c", "d") if look < LOOKS - 1 else ("a", "b"))


async def test_a_log_that_does_not_answer_costs_nobody_his_place() -> None:
    async def away() -> int:
        raise Unavailable("The log is away")

    store = Positions(a=0, b=0)
    crew = Crew(store, [projection(order, Order, name=name) for name in ("a", "b")])  # type: ignore[arg-type]
    assert await store.bulk(crew, 2 * FAR, a=0, b=0) == ("a", "b")
    assert not await crew.beat(away)
    assert (crew.present, crew.me.bulk) == (True, ("a", "b"))


async def test_far_behind_two_workers_take_whole_projections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the head each has a part of both again; nothing is lost or doubled on the way."""
    monkeypatch.setattr(crew_module, "FAR", 200)
    monkeypatch.setattr(crew_module, "NEAR", 40)
    log = MemoryLog()
    for n in range(1000):
        await some(log, n)
    taken: dict[str, list[tuple[str, range]]] = {}
    share = Crew.share

    def noting(self: Crew, one: Any) -> range:
        found = share(self, one)
        taken.setdefault(self.me.id, []).append((one.name, found))
        return found

    monkeypatch.setattr(Crew, "share", noting)
    async with (
        worker(tmp_path / "v.db", log, page=7) as one,
        worker(tmp_path / "v.db", log, page=7) as two,
    ):
        head = await log.head()
        names = ["order", "account", "journal"]
        assert await one.engine.wait_for(names, head, time.monotonic() + 60)
        await until(lambda: shared([one, two]))
        await until(lambda: shared([one, two], "account"))
        first, second = sorted((one, two), key=lambda world: world.engine.crew.me.id)
        assert ("account", range(64)) in taken[first.engine.crew.me.id]
        assert ("order", range(64)) in taken[second.engine.crew.me.id]
        await sound(one)


async def test_who_is_no_worker_leaves_the_spans_as_they_are_cut() -> None:
    """Bringing views to the head by hand joins nothing, and does not stop to look for it."""
    async with World([orders()], page=5) as world:
        await world.store.recut("order", [20, 40])
        await world.append(*placed(*range(60)))
        await world.engine.spans.all()
        before = world.engine.spans.of("order")
        await world.engine.catch_up()
        assert world.engine.spans.of("order") is before
        assert [span.slice for span in (await world.store.checkpoints())["order"]] == [0, 20, 40]
