"""The command side at work: order, groups, conflicts, keys, failures."""

from __future__ import annotations

import asyncio
import gc
import random
from typing import Any

import msgspec
import pytest

from diptych.codec import Codec
from diptych.errors import (
    Conflict,
    DecisionFailed,
    Invalid,
    KeyReused,
    OutcomeUnknown,
    Overloaded,
    Rejected,
    Unavailable,
    UnknownMessage,
)
from diptych.log import Append, Log, NewEvent, StoredEvent, WorksBy
from diptych.logs.memory import MemoryLog
from diptych.messages import Command
from diptych.write import answering, guessing
from diptych.write.bus import CommandBus, Limits
from diptych.write.entry import Entry, Receipt
from tests.write import shop
from tests.write.logs import Troubled


def never() -> bool:
    return False


async def everything(log: Log, codec: Codec) -> list[Any]:
    page = await log.read(limit=1_000_000)
    return [codec.event(stored) for stored in page.events]


def replay(events: list[Any]) -> dict[str, shop.Account]:
    """Fold the log in order, and check every rule at every step."""
    states: dict[str, shop.Account] = {}
    for event in events:
        names = [event.source, event.target] if isinstance(event, shop.Paid) else [event.account]
        for name in dict.fromkeys(names):
            state = states.get(name, shop.Account())
            if isinstance(event, shop.Opened):
                assert not state.opened, event
            elif not isinstance(event, shop.Touched):
                assert state.opened, event
            states[name] = shop.account(state, event)
    return states


def spread(outcome: Any) -> range:
    return range(outcome.first, outcome.last + 1)


async def test_a_receipt_says_where_the_events_lie() -> None:
    """The answer to a command carries positions, and a token for queries."""
    log = MemoryLog()
    bus, _ = shop.make_bus(log)
    receipt = await bus.submit(shop.Open("a"))
    assert (receipt.first, receipt.last, receipt.replayed) == (1, 1, False)
    assert str(receipt.token) == f"{log.identity}.1"


async def test_a_rejection_has_reason_code_and_facts() -> None:
    """A rule that says no answers with its reason, a stable code and the facts."""
    bus, _ = shop.make_bus(MemoryLog())
    await bus.submit(shop.Open("a"))
    with pytest.raises(Rejected) as caught:
        await bus.submit(shop.Open("a"))
    assert caught.value.reason == "account is open"
    assert caught.value.code == "account-is-open"
    assert caught.value.facts == {"account": "a"}


async def test_commands_on_one_boundary_share_a_batch() -> None:
    """256 commands on one boundary are decided one after the other and committed together."""
    log = Troubled(MemoryLog(), random.Random(1), never)
    bus, codec = shop.make_bus(log)
    await bus.submit(shop.Open("hot"))
    log.batches.clear()
    commands = [shop.Close("hot") if n % 2 == 0 else shop.Open("hot") for n in range(256)]
    await asyncio.gather(*[bus.submit(command) for command in commands])
    assert len(log.batches) <= 2
    assert len(await everything(log, codec)) == 257


async def test_order_of_submission_holds_within_a_boundary() -> None:
    """Commands of one boundary take effect in the order in which they were submitted."""
    log = Troubled(MemoryLog(), random.Random(2), never)
    bus, codec = shop.make_bus(log)
    names = [f"n{n}" for n in range(20)]
    waiting = [bus.submit(shop.Open(name)) for name in names]
    for n in range(200):
        waiting.append(bus.submit(shop.Pay(names[n % 20], names[(n * 7 + 1) % 20], n)))
    await asyncio.gather(*waiting)
    paid = [e for e in await everything(log, codec) if isinstance(e, shop.Paid)]
    assert len(paid) == 200
    for name in names:
        order = [e.amount for e in paid if name in (e.source, e.target)]
        assert order == sorted(order)


@pytest.mark.parametrize("guess_after", [guessing.GUESS_AFTER, 0])
@pytest.mark.parametrize("seed", range(40))
async def test_two_processes_and_failing_batches_break_no_rule(
    seed: int, guess_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever interleaves, fails or was guessed: no rule is broken, and answers tell the truth."""
    rng = random.Random(seed)
    monkeypatch.setattr(guessing, "GUESS_AFTER", guess_after)
    monkeypatch.setattr(answering, "ANSWERS_AT_ONCE", 2)
    monkeypatch.setattr(answering, "FEWEST", 1)
    log = MemoryLog()
    trouble = [Troubled(log, rng, lambda: rng.random() < 0.1) for _ in range(2)]
    trouble[0].works_by = rng.choice(["thread", "process"])
    buses = [
        shop.make_bus(one, Limits(batch=rng.choice([1, 3, 2048]), attempts=50)) for one in trouble
    ]
    names = [f"n{n}" for n in range(rng.choice([1, 2, 8]))]
    accepted: list[int] = []
    answers: list[Any] = []

    def command() -> Command:
        kind = rng.randrange(4)
        if kind == 0:
            return shop.Open(rng.choice(names))
        if kind == 1:
            return shop.Pay(rng.choice(names), rng.choice(names), 1)
        if kind == 2:
            return shop.Touch(rng.choice(names))
        return shop.Close(rng.choice(names))

    async def client(index: int) -> None:
        bus = buses[index % 2][0]
        for _ in range(25):
            try:
                receipt = await bus.submit(command())
            except (Rejected, Unavailable) as error:
                answers.append(error)
            else:
                accepted.append(receipt.last)
            if rng.random() < 0.3:
                await asyncio.sleep(0)

    await asyncio.gather(*[client(n) for n in range(8)])
    events = await everything(log, buses[0][1])
    assert sorted(accepted) == list(range(1, len(events) + 1))
    final = replay(events)
    # A state is everything up to its base, and what this process has appended since.
    for bus, _ in buses:
        for slot in bus._cache._slots.values():
            if not slot.loaded:
                continue  # it is read when it is asked for next
            own = [link.entry.outcome for link in slot.tail]
            known = [*events[: slot.base], *(events[p - 1] for o in own for p in spread(o))]
            name = slot.key[1][0].removeprefix("account:")
            touched = sum(isinstance(e, shop.Touched) and e.account == name for e in known)
            assert slot.state.touched == touched
    for bus, _ in buses:
        for name in names:
            state = final.get(name, shop.Account())
            outcome = bus.submit(shop.Open(name))
            try:
                await outcome
            except Rejected:
                assert state.opened
            except Unavailable:
                continue
            else:
                assert not state.opened
                final[name] = shop.account(state, shop.Opened(name))


@pytest.mark.parametrize("seed", range(10))
async def test_one_process_has_no_conflicts_with_itself(seed: int) -> None:
    """What this process has appended itself is known to it, whichever commands asked for it."""
    rng = random.Random(seed)
    log = Troubled(MemoryLog(), rng, never)
    bus, _ = shop.make_bus(log, Limits(batch=rng.choice([2, 2048])))
    await asyncio.gather(*[bus.submit(shop.Open(name)) for name in "abc"])

    def command() -> Command:
        if rng.random() < 0.5:
            return shop.Touch(rng.choice("abc"))
        return shop.Pay(rng.choice("abc"), rng.choice("abc"), 1)

    async def client() -> None:
        for _ in range(30):
            await bus.submit(command())

    await asyncio.gather(*[client() for _ in range(6)])
    assert log.refused == []


async def test_order_holds_through_conflicts() -> None:
    """Commands that are decided again keep their place before later ones of their boundary."""
    log = MemoryLog()
    other, _ = shop.make_bus(log)
    await asyncio.gather(*[other.submit(shop.Open(name)) for name in "ab"])
    late = iter([True, True])

    class Overtaken(Troubled):
        async def append(self, batch: Any) -> Any:
            if next(late, False):
                await other.submit(shop.Touch("a"))
            return await super().append(batch)

    overtaken = Overtaken(log, random.Random(8), never)
    bus, codec = shop.make_bus(overtaken, Limits(batch=4))
    await asyncio.gather(*[bus.submit(shop.Pay("a", "b", n)) for n in range(40)])
    assert "conflict" in overtaken.refused
    paid = [e.amount for e in await everything(log, codec) if isinstance(e, shop.Paid)]
    assert paid == list(range(40))


async def test_a_later_command_does_not_overtake_one_that_is_decided_again() -> None:
    """A rejection on a stale state is decided again before a later command of its boundary."""
    log = MemoryLog()
    one, _ = shop.make_bus(Troubled(log, random.Random(4), never), Limits(batch=1))
    other, _ = shop.make_bus(log)
    await one.submit(shop.Open("a"))
    await other.submit(shop.Close("a"))
    waiting = [one.submit(command) for command in (shop.Open("a"), shop.Close("a"))]
    assert [receipt.last for receipt in await asyncio.gather(*waiting)] == [3, 4]


@pytest.mark.parametrize("guess_after", [guessing.GUESS_AFTER, 0])
@pytest.mark.parametrize("seed", range(60))
async def test_pipelined_commands_end_as_if_sent_one_by_one(
    seed: int, guess_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was stored before by others, under the same keys too: order of submission counts."""
    rng = random.Random(seed)
    monkeypatch.setattr(guessing, "GUESS_AFTER", guess_after)
    log = MemoryLog()
    trouble = Troubled(log, rng, never)
    trouble.works_by = rng.choice([None, "thread", "process"])
    monkeypatch.setattr(answering, "FEWEST", 1)
    bus, codec = shop.make_bus(trouble, Limits(batch=rng.choice([1, 2, 5, 2048]), states=64))
    other, _ = shop.make_bus(log)
    names = [f"n{n}" for n in range(rng.choice([1, 2, 12]))]

    def command() -> Command:
        source, target = rng.choice(names), rng.choice(names)
        made = (shop.Open(source), shop.Close(source), shop.Pay(source, target, 1))
        return rng.choice([*made, made[0], shop.Touch(source)])

    async def stored(bus: CommandBus, command: Command, key: str | None = None) -> str:
        try:
            await bus.submit(command, key=key)
        except Rejected as rejected:
            return rejected.code
        return "accepted"

    for _ in range(rng.choice([0, 3, 20])):
        await stored(bus, command())  # its states will be stale
    for _ in range(rng.choice([0, 3, 20])):
        await stored(other, command())
    commands = [(f"k{n}", command()) for n in range(60)]
    repeated = rng.choice([0, 0, 10, 40])
    expected = [await stored(other, sent, key) for key, sent in commands[:repeated]]
    twin = MemoryLog()
    before = (await log.read(limit=1_000)).events
    await twin.append([Append(tuple(copy_of(event) for event in before))])
    single, _ = shop.make_bus(twin)
    expected += [await stored(single, sent, key) for key, sent in commands[repeated:]]

    answers: list[asyncio.Task[str]] = []
    for key, sent in commands:
        answers.append(asyncio.create_task(stored(bus, sent, key)))
        for _ in range(rng.choice([0, 0, 0, 1, 5])):
            await asyncio.sleep(0)
    assert await asyncio.gather(*answers) == expected
    happened, planned = await everything(log, codec), await everything(twin, codec)
    for name in names:
        assert [e for e in happened if concerns(e, name)] == [
            e for e in planned if concerns(e, name)
        ]


def copy_of(event: StoredEvent) -> NewEvent:
    return NewEvent(event.id, event.type, event.tags, bytes(event.data), bytes(event.metadata))


def concerns(event: Any, name: str) -> bool:
    """Whether an event is of an account; one that merely touches it has no place among them."""
    if isinstance(event, shop.Touched):
        return False
    return name in (
        (event.source, event.target) if isinstance(event, shop.Paid) else (event.account,)
    )


async def test_a_rejection_never_rests_on_what_was_not_committed() -> None:
    """A command rejected because of an append that then fails is decided again."""
    failing = iter([True])
    log = Troubled(MemoryLog(), random.Random(3), lambda: next(failing, False))
    bus, _ = shop.make_bus(log)
    first = bus.submit(shop.Open("a"))
    second = bus.submit(shop.Open("a"))
    await asyncio.sleep(0)
    results = await asyncio.gather(first, second, return_exceptions=True)
    # Both were in the failed batch, or the second one came after it: never "account is open".
    assert isinstance(results[0], Unavailable)
    assert isinstance(results[1], (Unavailable, Receipt))


async def test_a_stale_state_is_read_anew_before_a_rejection() -> None:
    """What another process has changed in between is seen, also when the answer is no."""
    log = MemoryLog()
    one, _ = shop.make_bus(log)
    other, _ = shop.make_bus(log)
    await one.submit(shop.Open("a"))
    await other.submit(shop.Close("a"))
    receipt = await one.submit(shop.Open("a"))
    assert receipt.last == 3


async def test_a_log_in_a_process_has_its_next_batch_before_answers_are_given() -> None:
    """What those who are answered do next does not keep the log waiting."""
    told_early: list[int] = []
    waiting: list[asyncio.Future[Receipt]] = []

    class Noted(Troubled):
        async def append(self, batch: Any) -> Any:
            told = sum(one.done() for one in waiting)
            told_early.append(told - sum(self.batches[:-1]))
            return await super().append(batch)

    log = Noted(MemoryLog(), random.Random(10), never)
    log.works_by = "process"
    bus, _ = shop.make_bus(log, Limits(batch=4))
    waiting += [bus.submit(shop.Open(str(n))) for n in range(12)]
    await asyncio.gather(*waiting)
    assert len(told_early) > 2
    assert not any(told_early)


@pytest.mark.parametrize("works_by", ["thread", "process"])
async def test_a_log_that_works_beside_is_answered_for_in_parts(works_by: WorksBy) -> None:
    """Those who were answered first have asked again before the last ones are answered."""
    log = Troubled(MemoryLog(), random.Random(9), never)
    log.works_by = works_by
    bus, _ = shop.make_bus(log)
    count = 3 * answering.ANSWERS_AT_ONCE

    async def client(name: str) -> None:
        await bus.submit(shop.Open(name))
        await bus.submit(shop.Close(name))

    await asyncio.gather(*[client(str(n)) for n in range(count)])
    assert len(log.batches) > 2
    waiting = [bus.submit(shop.Open(str(n))) for n in range(count)]
    await bus.close()
    assert all(future.done() for future in waiting)


async def test_the_conflict_names_what_it_is_with() -> None:
    """A command that is overtaken every time ends with Conflict, boundary and position."""
    log = MemoryLog()
    other, _ = shop.make_bus(log)
    await other.submit(shop.Open("a"))

    class Overtaken(Troubled):
        async def append(self, batch: Any) -> Any:
            await other.submit(shop.Touch("a"))
            return await super().append(batch)

    bus, _ = shop.make_bus(Overtaken(log, random.Random(4), never), Limits(attempts=3))
    with pytest.raises(Conflict) as caught:
        await bus.submit(shop.Close("a"))
    assert caught.value.facts["boundary"] == "account account:a"
    assert caught.value.facts["attempts"] == 3
    assert caught.value.position > 1


async def test_the_same_key_gives_the_first_answer() -> None:
    """A key's first answer is given again, receipt or rejection, whatever has happened since."""
    log = MemoryLog()
    bus, codec = shop.make_bus(log)
    first = await bus.submit(shop.Open("a"), key="k1")
    with pytest.raises(Rejected):
        await bus.submit(shop.Open("a"), key="k2")
    await bus.submit(shop.Close("a"))
    again = await bus.submit(shop.Open("a"), key="k1")
    assert (again.first, again.last, again.replayed) == (first.first, first.last, True)
    with pytest.raises(Rejected) as caught:
        await bus.submit(shop.Open("a"), key="k2")
    assert caught.value.code == "account-is-open"
    assert caught.value.facts == {"account": "a"}
    assert len(await everything(log, codec)) == 2
    # Nothing of the replays is left in the states.
    await bus.submit(shop.Open("a"))


async def test_the_same_key_at_the_same_time_takes_effect_once() -> None:
    """Concurrent retries of one command all get the one answer."""
    log = MemoryLog()
    bus, codec = shop.make_bus(log)
    receipts = await asyncio.gather(*[bus.submit(shop.Open("a"), key="k") for _ in range(20)])
    assert {r.last for r in receipts} == {1}
    assert len(await everything(log, codec)) == 1


async def test_a_key_with_other_content_is_refused() -> None:
    """The same key for another command is an error that names the key."""
    bus, _ = shop.make_bus(MemoryLog())
    await bus.submit(shop.Open("a"), key="k")
    with pytest.raises(KeyReused) as caught:
        await bus.submit(shop.Open("b"), key="k")
    assert caught.value.facts["key"] == "k"


async def test_what_built_on_a_replay_is_decided_again() -> None:
    """Commands decided on a replayed command's events find out that these never happened."""
    log = MemoryLog()
    bus, codec = shop.make_bus(log)
    await bus.submit(shop.Open("a"), key="k")
    await bus.submit(shop.Close("a"))
    replayed = bus.submit(shop.Open("a"), key="k")
    built_on = bus.submit(shop.Close("a"))
    assert (await replayed).replayed
    with pytest.raises(Rejected, match="not open"):
        await built_on
    assert len(await everything(log, codec)) == 2


async def test_an_unknown_outcome_makes_states_be_read_anew() -> None:
    """When a batch may or may not be stored, callers are told so, and the states are read again."""
    log = MemoryLog()

    class Lost(Troubled):
        lose = False

        async def append(self, batch: Any) -> Any:
            outcomes = await super().append(batch)
            if self.lose:
                self.lose = False
                raise OutcomeUnknown("planted")
            return outcomes

    lost = Lost(log, random.Random(5), never)
    bus, _ = shop.make_bus(lost)
    await bus.submit(shop.Touch("a"))
    await bus.submit(shop.Open("a"))
    lost.lose = True
    with pytest.raises(OutcomeUnknown):
        await bus.submit(shop.Close("a"))
    receipt = await bus.submit(shop.Open("a"))  # the close was in fact stored
    assert receipt.last == 4


async def test_a_full_queue_answers_at_once() -> None:
    """One command more than may wait is Overloaded, and those that wait are answered."""
    bus, _ = shop.make_bus(MemoryLog(), Limits(waiting=3))
    waiting = [bus.submit(shop.Open(name)) for name in "abc"]
    with pytest.raises(Overloaded) as caught:
        bus.submit(shop.Open("d"))
    assert caught.value.facts == {"waiting": 3, "limit": 3}
    await asyncio.gather(*waiting)
    await bus.submit(shop.Open("d"))


async def test_invalid_input_names_field_and_rule() -> None:
    """A command that does not fit its type is refused before it is decided."""
    bus, _ = shop.make_bus(MemoryLog())
    wrong: Any = shop.Pay("a", "b", "much")  # type: ignore[arg-type]
    with pytest.raises(Invalid) as caught:
        bus.submit(wrong)
    assert caught.value.field == "amount"
    assert caught.value.rule == "Expected `int`, got `str`"


@pytest.mark.parametrize("key", ["", "a\0b", "a\nb", "\ud800"])
async def test_a_key_is_printable(key: str) -> None:
    """A key that the log could not keep is refused before anything is done."""
    bus, _ = shop.make_bus(MemoryLog())
    with pytest.raises(Invalid) as caught:
        bus.submit(shop.Open("a"), key=key)
    assert caught.value.field == "key"


async def test_a_tag_that_no_log_keeps() -> None:
    """It is refused with the command's own field, and concerns this command only."""
    bus, _ = shop.make_bus(MemoryLog())
    for text in ("a\0", "a" * 1000):
        with pytest.raises(
            Invalid, match=r"Open is not valid .*field: account, rule: (.*tag|.*U.0000)"
        ):
            bus.submit(shop.Open(text))
    assert (await bus.submit(shop.Open("b"))).last == 1


async def test_an_unknown_command_is_refused() -> None:
    """A command that nobody decides is named."""

    class Stray(Command):
        pass

    bus, _ = shop.make_bus(MemoryLog())
    with pytest.raises(UnknownMessage, match="Stray"):
        bus.submit(Stray())


async def test_a_fault_in_a_decision_concerns_its_command_only() -> None:
    """An exception in a user's function is that command's answer; nothing else is disturbed."""
    log = MemoryLog()
    # An event that no longer folds.
    await log.append(
        [Append((NewEvent("x", "Opened", ("account:bad",), b'{"account": 1}', b"{}"),))]
    )
    bus, _ = shop.make_bus(log)
    bad, good = bus.submit(shop.Open("bad")), bus.submit(shop.Open("good"))
    with pytest.raises(Exception, match="does not fit its type"):
        await bad
    assert (await good).last == 2


async def test_an_error_in_evolve_is_named_by_file_and_line() -> None:
    """A model that raises gives DecisionFailed, which says where the decision stands."""
    bus, _ = shop.make_bus(MemoryLog())
    original = bus._side.models[0]

    def broken(state: Any, event: Any) -> Any:
        raise ZeroDivisionError("planted")

    models = bus._side.touched[shop.Opened]
    assert models[0][0] is original
    changed = msgspec.structs.replace(original, evolve=broken)
    bus._side = msgspec.structs.replace(
        bus._side, touched={shop.Opened: ((changed, models[0][1]),)}
    )
    with pytest.raises(DecisionFailed, match=r"shop\.py:\d+.*ZeroDivisionError"):
        await bus.submit(shop.Open("a"))


async def test_a_cancelled_caller_leaves_nothing_behind() -> None:
    """Cancelling who waits does not take back the command, nor disturb the others."""
    log = MemoryLog()
    bus, codec = shop.make_bus(log)
    first = bus.submit(shop.Open("a"))
    first.cancel()
    with pytest.raises(Rejected):
        await bus.submit(shop.Open("a"))
    assert len(await everything(log, codec)) == 1


async def test_close_answers_what_was_accepted() -> None:
    """Closing waits for the commands in flight, and takes no more."""
    log = Troubled(MemoryLog(), random.Random(6), never)
    bus, _ = shop.make_bus(log)
    waiting = [bus.submit(shop.Open(str(n))) for n in range(50)]
    await bus.close()
    assert all(future.done() for future in waiting)
    with pytest.raises(Exception, match="closed"):
        bus.submit(shop.Open("x"))


async def test_states_are_bounded() -> None:
    """No more model instances are kept than the limit says."""
    bus, _ = shop.make_bus(MemoryLog(), Limits(states=64))
    for n in range(300):
        await bus.submit(shop.Open(str(n)))
    assert len(bus._cache) <= 64


async def test_answered_commands_are_let_go() -> None:
    """A long chain on one boundary keeps no answered command in memory."""
    bus, _ = shop.make_bus(MemoryLog())
    await bus.submit(shop.Open("a"))
    for _ in range(200):
        await bus.submit(shop.Close("a"))
        await bus.submit(shop.Open("a"))
    gc.collect()
    assert sum(isinstance(thing, Entry) for thing in gc.get_objects()) <= 2
