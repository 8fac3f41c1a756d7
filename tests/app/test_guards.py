"""Rows, proofs and people's decisions are guarded, whatever is renamed, lost or changed."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diptych import App, Event, Invalid, Key, Query, View, Views, select
from diptych.errors import ForeignCheckpoint
from tests.app.bank import Bank, Paid, decide, signed, touched
from tests.app.test_versions import balances, expected, opened, pay, url

__all__ = ["url"]

Sum = Callable[[int, Paid, str], int]


def simple(balance: int, event: Paid, key: str) -> int:
    return balance + signed(event, key)


def bank(fold: Sum = simple, *, name: str | None = None) -> Bank:
    """A bank whose fold, and the name of its projection, are as given."""
    app = App("bank")
    app.decides(decide)

    class Account(View, table="accounts"):
        name: Key[str]
        balance: int

    @app.projects(Account, key=touched, name=name)
    def accounts(row: Account | None, event: Paid, key: str) -> Account:
        return Account(key, fold(row.balance if row else 0, event, key))

    class All(Query[list[Account]]):
        pass

    @app.answers
    async def all_accounts(query: All, views: Views) -> list[Account]:
        return await views.all(select(Account))

    return Bank(app, Account, All)


async def execute(url: str, *statements: str) -> None:
    """Change the database behind the library's back."""
    if url.startswith("sqlite"):
        import sqlite3
        from contextlib import closing

        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as db, db:
            for statement in statements:
                db.execute(statement)
        return
    import asyncpg

    connection = await asyncpg.connect(url, server_settings={"search_path": "diptych"})
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


# --- a projection begins on tables that are new or empty ------------------------------------------


async def test_a_renamed_projection_does_not_fold_into_the_rows_of_before(url: str) -> None:
    """It is refused, with the name that it had; once rewound, it is the old name that is."""
    one, other = bank(), bank(name="renamed")
    async with opened(one, url) as running:
        receipt = await pay(running, 0, 20)
        assert await balances(running, one, receipt.token) == expected(20)
    async with opened(other, url) as running:
        with pytest.raises(ForeignCheckpoint, match="keep the name accounts") as refused:
            await running.ask(other.all())
        assert refused.value.facts["rows_of"] == "accounts"
        (status,) = await running.status()
        assert (status.state, "rewind renamed" in str(status.error)) == ("refused", True)
        (verdict,) = await running.verify()
        assert (verdict.ok, verdict.outcome) == (False, "refused")
    async with opened(one, url) as old:
        assert await balances(old, one) == expected(20)
        assert (await old.verify_rows())[0].ok
        async with opened(other, url, projections=False, create="nothing") as running:
            await running.steering.rewind("renamed")
        async with opened(other, url) as running:
            receipt = await pay(running, 20, 30)
            assert await balances(running, other, receipt.token) == expected(30)
            assert (await running.verify())[0].ok
            assert (await running.verify_rows())[0].ok
    async with opened(one, url) as old:
        with pytest.raises(ForeignCheckpoint, match="keep the name renamed"):
            await old.projections.rebuild()
        await old.steering.rewind("accounts")
    async with opened(one, url) as old:
        await old.projections.rebuild()
        assert await balances(old, one) == expected(30)
        assert (await old.verify_rows())[0].ok


@pytest.mark.parametrize("blocks", [True, False])
async def test_a_lost_checkpoint_does_not_double_the_rows(url: str, blocks: bool) -> None:
    one = bank()
    async with opened(one, url) as running:
        receipt = await pay(running, 0, 20)
        assert await balances(running, one, receipt.token) == expected(20)
    lost = ["DELETE FROM diptych_checkpoints", "DELETE FROM diptych_blocks"]
    await execute(url, *lost[: 1 + blocks])
    for create in ("nothing", "all"):
        async with opened(one, url, create=create, projections=False) as running:
            (status,) = await running.status()
            assert status.state == "refused"
            assert (await running.verify())[0].outcome == "refused"
            with pytest.raises(ForeignCheckpoint, match="rewind accounts"):
                await running.ask(one.all())
    async with opened(one, url) as running:
        with pytest.raises(ForeignCheckpoint):
            await running.catch_up()
        await running.steering.rewind("accounts")
    async with opened(one, url) as running:
        await running.catch_up()
        assert await balances(running, one) == expected(20)
        assert (await running.verify())[0].ok
        assert (await running.verify_rows())[0].ok


async def test_a_worker_that_was_refused_goes_on_once_it_is_rewound(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diptych.read.following.engine.DOUBT_SECONDS", 0.1)
    one = bank()
    async with opened(one, url) as running:
        await pay(running, 0, 20)
        await running.catch_up()
    await execute(url, "DELETE FROM diptych_checkpoints")
    async with opened(one, url) as worker:
        assert [status.state for status in await worker.status()] == ["refused"]
        async with opened(one, url, projections=False) as other:
            await other.steering.rewind("accounts")
        while (await worker.status())[0].lag:
            await asyncio.sleep(0.01)
        assert await balances(worker, one) == expected(20)


async def test_what_is_left_of_a_projection_is_not_taken_for_its_own(url: str) -> None:
    """Its checkpoint and table are gone, its blocks are there: it begins anew, and is proved."""
    one = bank()
    async with opened(one, url) as running:
        await pay(running, 0, 20)
        await running.catch_up()
    await execute(url, "DELETE FROM diptych_checkpoints", "DROP TABLE accounts")
    async with opened(one, url) as running:
        await running.catch_up()
        assert await balances(running, one) == expected(20)
        (verdict,) = await running.verify()
        assert (verdict.ok, verdict.reason) == (True, "")


# --- a new version lacks nothing of the live one --------------------------------------------------


def fails_for_b1(balance: int, event: Paid, key: str) -> int:
    if key == "b1":
        raise ValueError("no b1")
    return balance + signed(event, key)


@pytest.mark.parametrize("by", ["workers", "rebuild"])
async def test_a_version_that_parks_what_the_live_one_applied_is_held(url: str, by: str) -> None:
    one, bad, good = bank(), bank(fails_for_b1), bank(lambda *given: 2 * simple(*given))
    async with opened(one, url) as running:
        receipt = await pay(running, 0, 20)
        assert await balances(running, one, receipt.token) == expected(20)
    async with opened(bad, url, rebuild="auto" if by == "workers" else "manual") as running:
        if by == "workers":
            while (await running.projections.plan())[0].action == "building":
                await running.catch_up()
            assert (await running.projections.plan())[0].action == "held"
        else:
            (built,) = await running.projections.rebuild()
            assert built.state == "held"
            assert built.objections == ['1 key is parked in it, and not in the live version: "b1"']
        assert await balances(running, bad) == expected(20)
        (plan,) = await running.projections.plan()
        assert "parked" in plan.objections[0]
        shown = {one.phase: one.objections for one in await running.status()}
        assert shown == {"held": plan.objections, "live": []}
        with pytest.raises(Invalid, match="--force"):
            await running.projections.cutover("accounts")
        await running.projections.cutover("accounts", force=True)
        assert "b1" not in await balances(running, bad)
    async with opened(bad, url) as running:  # what is parked in the live one too is no reason
        assert (await running.projections.plan())[0].objections == []
    async with opened(good, url) as running:
        await running.catch_up()
        assert (await running.projections.plan())[0].action == "none"


async def test_a_version_whose_program_does_not_know_an_event_any_more_is_held(url: str) -> None:
    one = bank()
    async with opened(one, url) as running:
        receipt = await pay(running, 0, 20)
        assert await balances(running, one, receipt.token) == expected(20)
    other = renamed_event()
    async with opened(other, url, rebuild="manual") as running:
        (built,) = await running.projections.rebuild()
        assert built.state == "held"
        assert (
            "does not know events that the live version applies (Paid: 20)" in (built.objections[0])
        )
    async with opened(one, url) as running:
        assert await balances(running, one) == expected(20)


def renamed_event() -> Bank:
    app = App("bank")

    class PaidOut(Event):
        source: str
        target: str
        amount: int

    class Account(View, table="accounts"):
        name: Key[str]
        balance: int

    @app.projects(Account, key=lambda event: [event.source, event.target])
    def accounts(row: Account | None, event: PaidOut, key: str) -> Account:
        return Account(key, 0)

    class All(Query[list[Account]]):
        pass

    @app.answers
    async def all_accounts(query: All, views: Views) -> list[Account]:
        return await views.all(select(Account))

    return Bank(app, Account, All)


# --- the proof is of what is read ------------------------------------------------------------


async def test_the_live_version_is_proved_by_a_program_of_another_one(url: str) -> None:
    """It is where effects are the same; a fault of the live one is found by the new program."""
    one, three = bank(), bank(lambda *given: 2 * simple(*given))
    async with opened(one, url) as running:
        await pay(running, 0, 20)
        await running.catch_up()
    async with opened(three, url, rebuild="manual") as running:
        (verdict,) = await running.verify()  # nothing of its own is there yet
        assert (verdict.ok, verdict.phase, verdict.count) == (True, "live", 40)
        await running.projections.rebuild(cutover=False)
        live, held = await running.verify()
        assert (live.ok, live.phase, held.ok, held.phase) == (True, "live", True, "held")
        assert len({live.version, held.version}) == 2
        (rows,) = await running.verify_rows()
        assert (rows.ok, rows.outcome) == (False, "not compared")
        assert live.version in rows.reason
        assert held.version in rows.reason
    await execute(url, "UPDATE diptych_checkpoints SET count = 39 WHERE projection = 'accounts'")
    async with opened(three, url, rebuild="manual") as running:
        live, held = await running.verify()
        assert (live.ok, live.phase, held.ok) == (False, "live", True)


async def test_a_live_version_of_other_effects_is_said_not_to_be_provable(url: str) -> None:
    async with opened(bank(), url) as running:
        await pay(running, 0, 20)
        await running.catch_up()
    other = renamed_event()
    async with opened(other, url, rebuild="manual") as running:
        (verdict,) = await running.verify()
        assert (verdict.ok, verdict.outcome, verdict.count) == (False, "unprovable", 0)
        assert verdict.version in verdict.reason


# --- what was decided stays decided ---------------------------------------------------------------


def fails_at_7(balance: int, event: Paid, key: str) -> int:
    if event.amount == 7:
        raise ValueError("not seven")
    return balance + signed(event, key)


def without_seven(last: int) -> dict[str, int]:
    found = expected(last)
    found["a0"], found["b7"] = found["a0"] + 7, found["b7"] - 7
    return found


async def test_what_was_skipped_for_good_stays_skipped_in_the_next_version(url: str) -> None:
    one = bank(fails_at_7)
    async with opened(one, url) as running:
        await pay(running, 0, 30)
        await running.catch_up()
        for key in ("a0", "b7"):
            await running.parked.skip("accounts", key, actor="ann", why="wrong")
        await running.parked.retry()
        assert await balances(running, one) == without_seven(30)
    two = bank()
    async with opened(two, url) as running:
        await running.catch_up()
        assert (await running.projections.plan())[0].action == "none"
        assert await balances(running, two) == without_seven(30)
        (verdict,) = await running.verify()
        assert (verdict.ok, verdict.skipped) == (True, 2)
        assert (await running.verify_rows())[0].ok
        shown = await running.parked.show("accounts", "a0")
        assert [(p.state, p.actor, p.why) for p in shown] == [("skipped", "ann", "wrong")]


async def test_a_version_that_has_applied_what_was_skipped_meanwhile_is_held(url: str) -> None:
    one, two = bank(fails_at_7), bank()
    async with opened(one, url) as running:
        await pay(running, 0, 30)
        await running.catch_up()
        async with opened(two, url, rebuild="manual") as new:
            await new.projections.rebuild(cutover=False)
            await running.parked.skip("accounts", "a0", actor="ann", why="wrong")
            (built,) = await new.projections.rebuild()
            assert (built.state, built.objections) == (
                "held",
                ['events that were skipped for good in the live version are not: "a0" at 8'],
            )


# --- what is new, what is another log's, and who builds -------------------------------------------


def with_more() -> Bank:
    """There is another projection beside that of `bank`."""
    one = bank()

    class Payment(View, table="payments"):
        source: Key[str]
        number: int

    @one.app.projects(Payment)
    def payments(row: Payment | None, event: Paid) -> Payment:
        return Payment(event.source, 1 + (row.number if row else 0))

    return one


async def test_a_new_projection_among_known_ones_is_said_to_be_new(url: str) -> None:
    async with opened(bank(), url) as running:
        await pay(running, 0, 20)
        await running.catch_up()
    looking: dict[str, Any] = {"projections": False, "create": "nothing", "rebuild": "manual"}
    async with opened(with_more(), url, **looking) as running:
        for _ in range(2):
            plans = await running.projections.plan()
            assert {plan.projection: plan.action for plan in plans} == {
                "accounts": "none",
                "payments": "new",
            }
        shown = {one.projection: (one.phase, one.lag) for one in await running.status()}
        assert shown == {"accounts": ("live", 0), "payments": ("new", 20)}
        known, new = await running.verify()
        assert (known.ok, known.outcome, new.ok, new.outcome) == (True, "compared", True, "new")
        known_rows, new_rows = await running.verify_rows()
        assert (known_rows.ok, new_rows.ok, new_rows.outcome) == (True, True, "new")
    async with opened(with_more(), url) as running:
        await running.catch_up()
        assert all(one.ok for one in await running.verify())
        assert {plan.action for plan in await running.projections.plan()} == {"none"}


async def test_a_renamed_projection_is_refused_before_it_was_ever_started(url: str) -> None:
    async with opened(bank(), url) as running:
        await pay(running, 0, 20)
        await running.catch_up()
    other = bank(name="renamed")
    looking: dict[str, Any] = {"projections": False, "create": "nothing", "rebuild": "manual"}
    async with opened(other, url, **looking) as running:
        assert [one.state for one in await running.status()] == ["refused"]
        assert [one.outcome for one in await running.verify()] == ["refused"]
        assert "keep the name accounts" in (await running.projections.plan())[0].objections[0]
        await running.steering.rewind("renamed")
    async with opened(other, url) as running:
        await running.catch_up()
        assert await balances(running, other) == expected(20)
    async with opened(bank(), url, **looking) as old:
        assert [one.phase for one in await old.status()] == []


async def test_views_of_another_log_are_refused_whatever_their_version(
    url: str, tmp_path: Path
) -> None:
    """Nothing is built beside them, and nobody waits."""
    async with opened(bank(), url) as running:
        await pay(running, 0, 20)
        await running.catch_up()
    log, changed = f"sqlite:///{tmp_path}/another.db", renamed_event()
    for create in ("all", "nothing"):
        async with changed.app.open(log=log, views=url, create=create) as running:
            (status,) = await running.status()
            assert (status.state, status.phase) == ("refused", "live")
            assert [one.outcome for one in await running.verify()] == ["refused"]
            assert len(await running.projections.versions()) == 1
            with pytest.raises(ForeignCheckpoint, match="another log"):
                await running.ask(changed.all(), wait=0.0)


async def test_with_rebuild_never_nothing_is_built_that_others_have_asked_for(url: str) -> None:
    one, three = bank(), bank(lambda *given: 2 * simple(*given))
    async with opened(one, url) as running:
        await pay(running, 0, 20)
        await running.catch_up()
    async with opened(three, url, rebuild="never") as asking:
        assert await balances(asking, three) == expected(20)
        assert len(await asking.projections.versions()) == 1
    async with opened(three, url, rebuild="auto", projections=False):
        pass
    async with opened(three, url, rebuild="never") as asking:
        await asking.catch_up()
        states = {one.state: one.position for one in await asking.projections.versions()}
        assert states == {"live": 20, "building": 0}
        assert await balances(asking, three) == expected(20)
