"""The bank, its accounts kept where only rows are and read by their key.

``python -m tests.app.purse VERSION LOG MAIN CACHE STEP`` rebuilds it and kills itself at a step;
without a step it projects until it is killed.
"""

import asyncio
import sys
import warnings
from collections.abc import Callable
from typing import Any

from diptych import App, Key, Query, View, Views
from tests.app.bank import Bank, Paid, decide, signed, touched
from torture.builder import dying

NAMES = [*(f"a{n}" for n in range(7)), *(f"b{n}" for n in range(11))]


def v1(*, store: str = "cache", bad: int = -1, slices: int = 4) -> Bank:
    """``bad`` is an amount that it cannot fold."""
    app = App("purse")
    app.decides(decide)

    class Account(View, table="accounts", store=store):
        name: Key[str]
        balance: int

    @app.projects(Account, key=touched, slices=slices)
    def accounts(row: Account | None, event: Paid, key: str) -> Account:
        if event.amount == bad:
            raise ValueError("bad amount")
        return Account(key, (row.balance if row else 0) + signed(event, key))

    return Bank(app, Account, asked(app, Account))


def v2(*, store: str = "cache", slices: int = 4) -> Bank:
    """There is another column."""
    app = App("purse")
    app.decides(decide)

    class Account(View, table="accounts", store=store):
        name: Key[str]
        balance: int
        payments: int

    @app.projects(Account, key=touched, slices=slices)
    def accounts(row: Account | None, event: Paid, key: str) -> Account:
        old = row or Account(key, 0, 0)
        return Account(key, old.balance + signed(event, key), old.payments + 1)

    return Bank(app, Account, asked(app, Account))


def v3(*, store: str = "cache", slices: int = 4) -> Bank:
    """The same columns as at first, other values: all amounts count twice."""
    app = App("purse")
    app.decides(decide)

    class Account(View, table="accounts", store=store):
        name: Key[str]
        balance: int

    @app.projects(Account, key=touched, slices=slices)
    def accounts(row: Account | None, event: Paid, key: str) -> Account:
        return Account(key, (row.balance if row else 0) + 2 * signed(event, key))

    return Bank(app, Account, asked(app, Account))


def asked(app: App, view: Any) -> Any:
    class All(Query[dict[str, int]]):
        pass

    @app.answers
    async def all_accounts(query: All, views: Views) -> dict[str, int]:
        rows = [await views.get(view, name) for name in NAMES]
        return {row.name: row.balance for row in rows if row is not None}

    return All


VERSIONS: dict[str, Callable[..., Bank]] = {"v1": v1, "v2": v2, "v3": v3}


async def rebuild(version: str, log: str, main: str, cache: str, step: int) -> None:
    dying(step, 50)
    opening = VERSIONS[version]().app.open(
        log=log, views={"main": main, "cache": cache}, rebuild="manual"
    )
    async with opening as running:
        print(*[one.state for one in await running.projections.rebuild()])


async def project(version: str, log: str, main: str, cache: str) -> None:
    opening = VERSIONS[version]().app.open(log=log, views={"main": main, "cache": cache})
    async with opening as running:
        print("ready", flush=True)
        while True:
            await running.catch_up()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    version, log, main, cache, *step = sys.argv[1:]
    if step:
        asyncio.run(rebuild(version, log, main, cache, int(step[0])))
    else:
        asyncio.run(project(version, log, main, cache))
