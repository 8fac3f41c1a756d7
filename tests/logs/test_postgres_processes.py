"""Several processes on one PostgreSQL log: rules and order hold, and nobody starves."""

import asyncio
import json
from collections import Counter
from contextlib import ExitStack

from diptych.logs.postgres import PostgresLog
from diptych.testing.contracts.making import everything
from tests.logs.on_postgres import connected, listener, until
from tests.logs.test_processes import LONG, said, start, worker


async def test_of_three_processes_exactly_one_wins_each_seat(postgres_url: str) -> None:
    """Three processes race for 300 seats: each is taken once, and positions have no hole."""
    rounds = 300
    with ExitStack() as stack:
        racers = [stack.enter_context(worker("race", postgres_url, rounds)) for _ in range(3)]
        assert [said(racer) for racer in racers] == ["ready"] * 3
        for racer in racers:
            start(racer)
        wins = [said(racer) for racer in racers]
    merged: dict[str, int] = {}
    for each in wins:
        assert not merged.keys() & each.keys()
        merged |= each
    assert merged.keys() == {str(n) for n in range(rounds)}
    log = await PostgresLog.open(postgres_url)
    stored = await everything(log)
    await log.close()
    assert [e.position for e in stored] == list(range(1, rounds + 1))
    assert {e.tags[0].removeprefix("seat:"): e.position for e in stored} == merged


async def test_processes_agree_on_keys_and_on_conflicts(postgres_url: str) -> None:
    """A key has one effect and one answer whoever uses it; a conflict names the winner's event."""
    rounds = 150
    with ExitStack() as stack:
        users = [stack.enter_context(worker("keys", postgres_url, rounds)) for _ in range(2)]
        racers = [stack.enter_context(worker("conflicts", postgres_url, rounds)) for _ in range(2)]
        everybody = users + racers
        assert [said(each) for each in everybody] == ["ready"] * 4
        for each in everybody:
            start(each)
        answers = [said(each) for each in users]
        told = [said(each) for each in racers]
    log = await PostgresLog.open(postgres_url)
    stored = await everything(log)
    await log.close()
    assert [e.position for e in stored] == list(range(1, 2 * rounds + 1))
    places = {event.tags[0]: event.position for event in stored}
    assert len(places) == 2 * rounds
    assert told[0] == told[1] == {str(n): places[f"seat:{n}"] for n in range(rounds)}
    for n in range(rounds):
        outcomes = [outcome for each in answers for outcome in each[f"k{n}"]]
        assert {last for last, _ in outcomes} == {places[f"key:{n}"]}
        assert [replayed for _, replayed in outcomes].count(False) == 1


async def test_batches_of_several_processes_share_the_log(postgres_url: str) -> None:
    """Of three processes that append all the time, each gets a fair part of the positions."""
    log = await PostgresLog.open(postgres_url)
    with ExitStack() as stack:
        fillers = [stack.enter_context(worker("fill", postgres_url)) for _ in range(3)]
        for filler in fillers:
            said(filler)  # all are at work
        before = await log.head()

        async def much() -> bool:
            return await log.head() >= before + 3000

        reading = [asyncio.to_thread(filler.communicate) for filler in fillers]
        drained = asyncio.gather(*reading)
        await until(much)
        head = await log.head()
        for filler in fillers:
            filler.kill()
        await drained
    stored = [e for e in await everything(log) if before < e.position <= head]
    await log.close()
    parts = Counter(event.tags[1] for event in stored)
    assert len(parts) == 3
    assert min(parts.values()) > len(stored) / 3 / 4, parts


async def test_what_was_acknowledged_survives_kill(postgres_url: str) -> None:
    """After kill -9 of a writing process every acknowledged append is there, and none is torn."""
    ids: list[str] = []
    for acknowledged in (1, 100):
        with worker("fill", postgres_url) as process:
            for _ in range(acknowledged):
                ids += said(process)
            process.kill()
            assert process.stdout is not None
            for line in process.stdout:  # what it had said before it died
                if line.endswith("]\n"):
                    ids += json.loads(line)
    log = await PostgresLog.open(postgres_url)
    stored = await everything(log)
    assert [e.position for e in stored] == list(range(1, len(stored) + 1))
    assert set(ids) <= {e.id for e in stored}
    for one, two in zip(stored[::2], stored[1::2], strict=True):
        answer = (await log.recall([one.id]))[one.id]
        assert (answer.first, answer.last) == (one.position, two.position)
    await log.close()


async def test_those_who_open_an_empty_schema_together_share_one_log(postgres_url: str) -> None:
    """Eight processes that open a schema which is not there yet find one identity."""
    url = f"{postgres_url}?schema=together"
    with ExitStack() as stack:
        processes = [stack.enter_context(worker("identity", url)) for _ in range(8)]
        assert len({said(process) for process in processes}) == 1


async def test_another_process_wakes_a_waiter(postgres_url: str) -> None:
    """A wait ends when another process has appended, though that one closes at once."""
    log = await PostgresLog.open(postgres_url, poll=1e9)
    waiting = asyncio.ensure_future(log.wait(0))
    async with connected(postgres_url) as admin:
        await listener(admin)
    with worker("once", postgres_url):
        assert await asyncio.wait_for(waiting, LONG) == 1
    await log.close()
