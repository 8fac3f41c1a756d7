"""Verify: a projection that skipped or doubled events is found out, and they are named."""

from __future__ import annotations

import itertools
import random
import sqlite3
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Context, Decimal, localcontext
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diptych.errors import ForeignCheckpoint, Unavailable
from diptych.log import StoredEvent
from diptych.logs.sqlite import SqliteLog
from diptych.read.events import Events
from diptych.read.following import fold
from diptych.read.parking.steering import Steering
from diptych.read.port import Change, Checkpoint
from diptych.read.projections import Keyed
from diptych.read.proving import proof
from diptych.read.proving.blame import Unit, explain
from diptych.read.proving.proof import (
    MODULUS,
    Tally,
    add_packed,
    hash_event,
    hash_key,
    pack,
    slice_of,
    tally_blocks,
    tally_slices,
    total_of,
    unpack,
)
from diptych.read.proving.rowcheck import verify_rows
from diptych.read.proving.verify import Verdict, ranges, verify
from tests.read.world import Moved, Noted, World, accounts, journals, orders, placed

pytestmark = pytest.mark.usefixtures("backend")


async def built(events: int = 3000) -> World:
    world = World([orders(), accounts(), journals()])
    await world.engine.open()
    three = ([*placed(n), Moved("a", f"k{n % 7}", n), Noted("x")] for n in range(0, events, 3))
    await world.append(*itertools.chain(*three))
    await world.engine.catch_up()
    return world


async def judged(world: World, name: str) -> Verdict:
    verdicts = await verify(world.log, world.codec, world.store, world.projections)
    found = {v.projection: v for v in verdicts}
    assert all(v.ok for n, v in found.items() if n != name)
    return found[name]


async def tamper(world: World, name: str, position: int, times: int) -> None:
    """Make the proof say that an event was applied ``times`` more often than it was."""
    page = await world.log.read(after=position - 1, until=position)
    event = page.events[0]
    decoded = world.codec.event(event)
    projections = {p.name: p for p in world.projections}
    keys = projections[name].keys_of(decoded) if name != "journal" else (None,)  # type: ignore[attr-defined]
    one = projections[name]
    (before,) = (await world.store.checkpoints())[name]
    mark = hash_event(position, event.id)
    more = [
        (slice_of(k, one.slices), Tally(times, times * mark * hash_key(k) % MODULUS)) for k in keys
    ]
    added = total_of(tally for _, tally in more)
    number = position >> proof.BLOCK_SHIFT
    tallies = before.tallies
    for place, tally in more:
        changed = unpack(tallies)
        changed[place] = changed[place].plus(tally)
        tallies = pack(changed)
    after = msgspec.structs.replace(
        before,
        count=before.count + added.count,
        digest=(before.digest + added.digest) % MODULUS,
        tallies=tallies,
    )
    block = await world.store.block(name, 0, number)
    assert await world.store.apply([Change(before, after, {number: block.plus(added)})]) == [True]


async def test_a_sound_read_model_is_found_sound() -> None:
    world = await built()
    verdict = await judged(world, "order")
    assert verdict.ok
    assert (verdict.position, verdict.count) == (3000, 1000)
    await world.store.close()


ORDER = range(1, 3001, 3)
MOVES = range(2, 3001, 3)
NOTES = range(3, 3001, 3)


@pytest.mark.parametrize(
    ("name", "missing", "doubled"),
    [
        ("order", [ORDER[400]], []),
        ("order", [], [ORDER[999]]),
        ("account", [MOVES[7]], []),
        ("account", [MOVES[7], MOVES[90]], []),
        ("account", [], [MOVES[1], MOVES[300]]),
        ("account", [MOVES[5]], [MOVES[9]]),
        ("order", [ORDER[5], ORDER[77], ORDER[200]], []),
        ("order", [ORDER[5], ORDER[77], ORDER[200], ORDER[333]], []),
        ("order", [ORDER[5], ORDER[77]], [ORDER[200]]),
        ("order", [ORDER[5], ORDER[77]], [ORDER[200], ORDER[201]]),
        ("order", list(ORDER[100:180]), []),
        ("order", list(ORDER[100:900]), []),
        ("account", [], list(MOVES[100:900])),
        ("order", list(ORDER[100:200]), list(ORDER[250:260])),
        ("order", list(ORDER[10:20]), [*ORDER[500:600], ORDER[950]]),
        ("order", [], [ORDER[3], ORDER[3]]),
        ("journal", [NOTES[3]], [NOTES[400]]),
    ],
)
async def test_faults_are_named_exactly(name: str, missing: list[int], doubled: list[int]) -> None:
    world = await built()
    for position in missing:
        await tamper(world, name, position, -1)
    for position in doubled:
        await tamper(world, name, position, +1)
    verdict = await judged(world, name)
    assert not verdict.ok
    assert (verdict.missing, verdict.doubled) == (sorted(missing), sorted(doubled))
    assert (verdict.ahead, verdict.unresolved) == ([], [])
    assert not missing or f"missing: {ranges(missing)}" in verdict.reason
    assert not doubled or f"more than once: {ranges(doubled)}" in verdict.reason
    await world.store.close()


async def test_what_cannot_be_told_is_not_guessed() -> None:
    world = await built()
    await world.sql(
        "UPDATE diptych_blocks SET digest = '00000000000000000000000000000bad' "
        "WHERE projection = 'order' AND block = 1"
    )
    verdict = await judged(world, "order")
    assert (verdict.missing, verdict.doubled) == ([], [])
    assert verdict.unresolved == [(1024, 2047)]
    assert "not the sum of its blocks" in verdict.reason
    await world.store.close()


async def test_a_skipping_engine_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted bug: the fold passes over an event, and so do rows and digest."""
    real = fold.fold_used

    def skipping(
        one: Any, cache: Any, span: Any, used: Sequence[fold.Used], parking: Any
    ) -> fold.Folding:
        return real(one, cache, span, [u for u in used if u[0].position != ORDER[2]], parking)

    monkeypatch.setattr("diptych.read.following.pages.fold_used", skipping)
    world = await built(30)
    verdict = await judged(world, "order")
    assert verdict.missing == [ORDER[2]]
    await world.store.close()


async def test_a_doubling_engine_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    real = fold.fold_used

    def doubling(
        one: Any, cache: Any, span: Any, used: Sequence[fold.Used], parking: Any
    ) -> fold.Folding:
        twice = [[u, u] if u[0].position == ORDER[2] else [u] for u in used]
        return real(one, cache, span, list(itertools.chain(*twice)), parking)

    monkeypatch.setattr("diptych.read.following.pages.fold_used", doubling)
    world = await built(30)
    assert (await judged(world, "order")).doubled == [ORDER[2]]
    await world.store.close()


async def test_a_digest_that_does_not_depend_on_the_event_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A planted bug in the digest: the engine hashes something else than verify."""

    def careless(events: Iterable[StoredEvent]) -> list[int]:
        return [proof.hash_event(stored.position, "") for stored in events]

    monkeypatch.setattr("diptych.read.following.pages.hash_events", careless)
    world = await built(30)
    verdicts = await verify(world.log, world.codec, world.store, world.projections)
    assert [v.ok for v in verdicts] == [False, False, False]
    await world.store.close()


class Apart:
    """A planted bug: a store that commits rows and checkpoint apart, and dies in between."""

    def __init__(self, world: World, *, rows_first: bool) -> None:
        self.world = world
        self.real = world.store
        self.rows_first = rows_first
        self.dies = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    async def apply(self, changes: Sequence[Change]) -> list[bool]:
        if not self.dies:
            return await self.real.apply(changes)
        self.dies = False
        if not self.rows_first:
            # The checkpoint first: its position is durable, rows and proof are not.
            for change in changes:
                await _position_only(self.world, change.after)
        else:
            for change in changes:
                await _effects_only(self.real, change)
        raise Unavailable("killed in between")


async def _position_only(world: World, after: Checkpoint) -> None:
    await world.sql(
        "UPDATE diptych_checkpoints SET position = ?, event_id = ? WHERE projection = ?",
        after.position,
        after.event_id,
        after.projection,
    )


async def _effects_only(store: Any, change: Change) -> None:
    """Commit a step's rows and proof, but leave the checkpoint's position where it was."""
    moved = msgspec.structs.replace(
        change.after, position=change.before.position, event_id=change.before.event_id
    )
    await store.apply([Change(change.before, moved, change.blocks, change.writes)])


@pytest.mark.parametrize("rows_first", [True, False])
async def test_rows_and_checkpoint_committed_apart_are_found_out(rows_first: bool) -> None:
    world = World([accounts()])
    await world.engine.open()
    await world.append(*[Moved("a", "b", n) for n in range(10)])
    await world.engine.catch_up()
    world.engine.spans.store = cast(Any, Apart(world, rows_first=rows_first))
    await world.append(*[Moved("a", "b", n) for n in range(5)])
    with pytest.raises(Unavailable):
        await world.engine.catch_up()
    await world.engine.catch_up()
    [verdict] = await verify(world.log, world.codec, world.store, world.projections)
    expected = list(range(11, 16))
    assert verdict.doubled == (expected if rows_first else [])
    assert verdict.missing == ([] if rows_first else expected)
    await world.store.close()


async def move_by_hand(world: World, position: int) -> None:
    page = await world.log.read(after=position - 1, until=position)
    await world.sql(
        "UPDATE diptych_checkpoints SET position = ?, event_id = ? WHERE projection = 'order'",
        position,
        page.events[0].id,
    )


async def test_a_checkpoint_moved_forward_by_hand_is_found_out() -> None:
    world = await built(2400)
    await world.append(*placed(*range(5000, 5600)))
    await move_by_hand(world, 3000)
    verdict = await judged(world, "order")
    assert verdict.missing == list(range(2401, 3001))
    assert "nothing after position 2400" in verdict.reason
    await world.store.close()


async def test_a_checkpoint_moved_back_by_hand_is_found_out() -> None:
    world = await built(3000)
    await move_by_hand(world, 1500)
    verdict = await judged(world, "order")
    assert verdict.ahead == [p for p in ORDER if p > 1500]
    assert (verdict.missing, verdict.doubled) == ([], [])
    assert "moved back" in verdict.reason
    await world.store.close()


async def test_a_foreign_checkpoint_is_named_as_such() -> None:
    world = await built(30)
    await world.sql("UPDATE diptych_checkpoints SET log = 'x' WHERE projection = 'order'")
    verdict = await judged(world, "order")
    assert "belongs to another log" in verdict.reason
    await world.store.close()


# --- the arithmetic -------------------------------------------------------------------------------


def units(count: int, seed: int = 1) -> list[Unit]:
    rng = random.Random(seed)
    return [Unit(p, rng.getrandbits(128)) for p in range(1, count + 1)]


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 60),
    st.lists(st.tuples(st.sampled_from([-1, 1]), st.integers(0, 59)), min_size=1, max_size=3),
)
def test_up_to_three_single_faults_are_always_explained(
    size: int, faults: list[tuple[int, int]]
) -> None:
    there = {index % size: sign for sign, index in faults}
    known = units(size)
    digest = sum(sign * known[i].digest for i, sign in there.items()) % MODULUS
    found = explain(known, digest, sum(there.values()))
    assert found is not None
    assert {i: sign for sign, run in found for i in run} == there


def test_a_difference_of_the_count_alone_is_not_explained() -> None:
    assert explain(units(10), 0, 1) is None
    assert explain(units(10), 0, 0) == []


def test_a_full_block_is_searched_in_bounded_time() -> None:
    known = units(1024)
    picked = [3, 500, 1000]
    digest = -sum(known[i].digest for i in picked) % MODULUS
    assert explain(known, digest, -3) is not None


hashes = st.integers(0, MODULUS - 1)


@given(st.lists(st.tuples(st.integers(1, 5000), st.integers(0, 7), hashes)))
def test_tallies_of_blocks_and_slices_add_up(effects: list[tuple[int, int, int]]) -> None:
    effects.sort()
    positions, slices, digests = [[e[n] for e in effects] for n in range(3)]
    whole = Tally(len(effects), sum(digests) % MODULUS)
    blocks = tally_blocks(positions, digests)
    assert total_of(blocks.values()) == whole
    for number, tally in blocks.items():
        assert tally.count == sum(p >> proof.BLOCK_SHIFT == number for p in positions)
    packed = add_packed(pack([Tally(1, MODULUS - 1)] * 8), tally_slices(slices, digests))
    for number, tally in enumerate(unpack(packed)):
        mine = [digest for place, digest in zip(slices, digests, strict=True) if place == number]
        assert tally == Tally(1 + len(mine), (sum(mine) - 1) % MODULUS)


effects = st.tuples(st.integers(1), st.text(), st.text() | st.integers() | st.none())


@given(effects, effects)
def test_different_effects_have_different_hashes(
    a: tuple[int, str, Any], b: tuple[int, str, Any]
) -> None:
    first, second = [hash_event(p, e) * hash_key(k) % MODULUS for p, e, k in (a, b)]
    assert (first == second) == (a == b)


NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "equal",
    [
        (Decimal("1.50"), Decimal("1.5"), 1.5),
        (1, 1.0, Decimal("1E0"), True),
        (0, Decimal("-0.00"), -0.0),
        (
            datetime(2026, 1, 1, 12, tzinfo=UTC),
            datetime(2026, 1, 1, 14, tzinfo=timezone(timedelta(hours=2))),
        ),
        (("a", Decimal(2)), ("a", 2)),
        (Decimal("1." + "0" * 30 + "10"), Decimal("1." + "0" * 30 + "1")),
    ],
)
def test_keys_that_are_equal_have_one_hash(equal: tuple[Any, ...]) -> None:
    assert len(set(equal)) == len({hash_key(key) for key in equal}) == 1


def test_keys_that_are_not_equal_have_several() -> None:
    keys = ["1", 1, ("1",), ("1", "2"), "1,2", None, "", Decimal("1.5"), "1.5", date(2026, 1, 1)]
    keys += [Decimal("1." + "0" * 30 + last) for last in "12"]
    assert len({hash_key(key) for key in keys}) == len(keys)


def test_a_hash_depends_on_no_context_of_the_program() -> None:
    """Two programs that calculate with other precisions agree on their keys."""
    keys = [Decimal("1.23456789"), 1.23456789, Decimal("1e-20")]
    before = [hash_key(key) for key in keys]
    with localcontext(Context(prec=3)):
        assert [hash_key(key) for key in keys] == before


async def test_events_swapped_between_two_keys_are_found_out() -> None:
    """The hash of an effect is that of its event and of its key together."""
    world = await built(30)
    (before,) = (await world.store.checkpoints())["order"]
    page = await world.log.read(after=ORDER[3] - 1, until=ORDER[4])
    (one, key), (two, other) = [
        (hash_event(e.position, e.id), hash_key(world.codec.event(e).order))  # type: ignore[attr-defined]
        for e in (page.events[0], page.events[-1])
    ]
    swapped = one * other + two * key - one * key - two * other
    assert swapped % MODULUS
    after = msgspec.structs.replace(before, digest=(before.digest + swapped) % MODULUS)
    assert await world.store.apply([Change(before, after, {})]) == [True]
    assert not (await judged(world, "order")).ok
    await world.store.close()


def test_ranges_in_words() -> None:
    assert ranges([3, 8, 7, 9]) == "3, 7 to 9"
    assert ranges([]) == ""
    assert ranges(range(0, 100, 2), most=2) == "0, 2 and 48 more ranges"


@pytest.mark.parametrize("lost", [[20], [1, 2], [*range(30, 70)], [19, 21, 60]])
async def test_events_that_the_log_has_lost_are_named_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: list[int]
) -> None:
    """Whether projections have applied them or not; and nothing beyond the head is spoken of."""
    monkeypatch.setattr("diptych.read.proving.verify.PAGE", 50)
    log = await SqliteLog.open(tmp_path / "log.db")
    async with World([orders(), journals()], log=log, page=50) as world:
        await world.append(*(placed(n)[0] if n % 2 else Noted("x") for n in range(400)))
        await world.engine.catch_up()
        database = sqlite3.connect(tmp_path / "log.db")
        with database:
            database.execute("DROP TRIGGER events_are_never_deleted")
            database.executemany("DELETE FROM events WHERE position = ?", [(p,) for p in lost])
        database.close()
        for verdict in await verify(world.log, world.codec, world.store, world.projections):
            assert not verdict.ok
            assert [p for a, b in verdict.gaps for p in range(a, b + 1)] == lost
            assert f"the log itself has no event at: {ranges(lost)}" in verdict.reason
            assert all(last <= 400 for _, last in verdict.unresolved)
            assert "restore the log from a backup" in verdict.remedy
        (kept,) = [one for one in world.projections if isinstance(one, Keyed)]
        rows = await verify_rows(world.log, world.codec, world.store, kept)
        # What is left in the rows is the last copy of what those events said.
        assert rows.ok == all(p % 2 == 1 for p in lost)
        assert rows.ok or "restore the log from a backup" in rows.remedy
        # Whoever reads it passes over the gap, and over nothing else.
        assert len([e async for e in Events(log, world.codec).all()]) == 400 - len(lost)
        await Steering(log, world.codec, [world.engine]).rewind("order")
        await world.engine.open()
        await world.engine.catch_up()
        (verdict, _) = await verify(world.log, world.codec, world.store, world.projections)
        assert verdict.count == 200 - sum(p % 2 == 0 for p in lost)
        assert verdict.gaps
        assert not verdict.unresolved
    await log.close()


async def test_a_checkpoint_at_an_event_that_is_lost_is_no_reason_to_rewind(tmp_path: Path) -> None:
    log = await SqliteLog.open(tmp_path / "log.db")
    async with World([orders()], log=log) as world:
        await world.append(*placed(1, 2, 3))
        await world.engine.catch_up()
        await world.append(*placed(4))
        database = sqlite3.connect(tmp_path / "log.db")
        with database:
            database.execute("DROP TRIGGER events_are_never_deleted")
            database.execute("DELETE FROM events WHERE position = 3")
        database.close()
        (verdict,) = await verify(world.log, world.codec, world.store, world.projections)
        assert verdict.reason.startswith("the log itself has no event at: 3; somebody has")
        assert (verdict.gaps, verdict.outcome) == ([(3, 3)], "compared")
        assert verdict.remedy.startswith("restore the log from a backup")
        # Who is to go on from there refuses, and says the same.
        (follower,) = world.engine.spans
        with pytest.raises(ForeignCheckpoint, match="Restore the log from a backup"):
            await follower.reload(world.log, world.store)
    await log.close()
