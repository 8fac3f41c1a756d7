"""The Online Retail file, replayed: every number is the one computed by other means."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import pytest

from diptych import Running
from diptych.errors import KeyReused
from examples.shop.retail import app
from examples.shop.retail.countries.query import SalesByCountry
from examples.shop.retail.customers.query import Customer, SalesByCustomer
from examples.shop.retail.months.query import SalesByMonth
from examples.shop.retail.products.query import Product, SalesByProduct
from examples.shop.retail.replay.file import Invoice, invoices, opened
from examples.shop.retail.replay.report import Report, replay
from tests.examples.shop.expected import (
    DECEMBER,
    FILE,
    FIRST_DAY,
    ROOT,
    expected,
    needs_data,
    whole_file,
)
from tests.examples.shop.test_file import row

EVENTS = {
    "PlaceOrder": "OrderPlaced",
    "CancelLines": "LinesCancelled",
    "AdjustBadDebt": "BadDebtAdjusted",
    "WriteOffStock": "StockWrittenOff",
    "RecordFreeStock": "FreeStockRecorded",
}


def check_report(report: Report, wanted: dict[str, Any]) -> None:
    """Every number of a replay of the file, `atomic`."""
    found = {
        "counts": {_name(command): count for command, count in report.accepted.items()}
        | {_rejection(r.code): r.count for r in report.rejections},
        "amounts": {_name(c): report.totals[EVENTS[c]].amount for c in report.accepted}
        | {_rejection(r.code): r.amount for r in report.rejections},
        "rejected_exceeds_held_by_month": next(
            r.by_month for r in report.rejections if r.code == "exceeds-held"
        ),
        "net_after_accepted_cancellations": report.net,
        "customer_product_pairs_with_held_gt_0": report.held.pairs,
        "units_held": report.held.pieces,
    }
    wanted = {
        **wanted,
        "amounts": {name: Decimal(amount) for name, amount in wanted["amounts"].items()},
        "net_after_accepted_cancellations": Decimal(wanted["net_after_accepted_cancellations"]),
    }
    assert found == wanted
    assert report.events == sum(report.accepted.values())
    assert {EVENTS[c]: n for c, n in report.accepted.items()} == {
        event: total.count for event, total in report.totals.items()
    }
    assert report.verified


def _name(command: str) -> str:
    return "Cancel_accepted" if command == "CancelLines" else command


def _rejection(code: str) -> str:
    return "Cancel_rejected_" + code.replace("-", "_")


async def load(running: Running, before: datetime | None = None) -> Report:
    with opened(FILE) as (rows, _):
        return await replay(running, invoices(rows, before=before))


@needs_data
@pytest.mark.parametrize("where", ["memory:", "sqlite"])
async def test_the_first_day_has_the_expected_numbers(where: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shop.db'}" if where == "sqlite" else where
    async with app.open(log=url, views=url) as running:
        check_report(await load(running, FIRST_DAY), expected()["slice_first_day"]["atomic"])


@needs_data
async def test_december_has_the_expected_numbers() -> None:
    async with app.open(log="memory:", views="memory:") as running:
        report = await load(running, DECEMBER)
        check_report(report, expected()["slice_december_2010"]["atomic"])
        [month] = (await running.ask(SalesByMonth())).value
        wanted = expected()["by_month"]["2010-12"]
        assert (month.orders, month.gross) == (wanted["orders"], Decimal(wanted["gross"]))
        assert month.new_customers == wanted["customers"]


@needs_data
async def test_a_load_that_was_stopped_goes_on_and_ends_with_the_same_numbers(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    with opened(FILE) as (rows, _):
        async with app.open(log=url, views=url) as running:
            await replay(running, islice(invoices(rows, before=FIRST_DAY), 70))
    for recalled in (70, 143):
        async with app.open(log=url, views=url) as running:
            report = await load(running, FIRST_DAY)
        assert report.recalled == recalled
        check_report(report, expected()["slice_first_day"]["atomic"])


async def test_an_invoice_that_goes_on_much_later_is_refused() -> None:
    def torn() -> Iterator[Invoice]:
        yield from invoices([row("1")])
        yield from invoices([row("1", code="71053")])

    async with app.open(log="memory:", views="memory:") as running:
        with pytest.raises(KeyReused, match="invoice-1"):
            await replay(running, torn())


@needs_data
@whole_file
@pytest.mark.timeout(900)
async def test_the_whole_file_has_the_expected_numbers(tmp_path: Path) -> None:
    """541,909 rows, through the command line; then every figure by queries."""
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    command = [sys.executable, "-W", "ignore", "-m", "examples.shop", "load", str(FILE)]
    run = subprocess.run(
        [*command, "--log", url, "--views", url, "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    print(run.stdout)
    report = json.loads(run.stdout)
    assert report["peak_memory_mb"] < 400
    async with app.open(log=url, views=url) as running:
        again = await load(running)
        assert again.recalled == 25_900
        check_report(again, expected()["replay"]["atomic"])
        await check_sales(running, expected())


async def check_sales(running: Running, wanted: dict[str, Any]) -> None:
    """Gross sales by country, month, product and customer."""
    countries = (await running.ask(SalesByCountry())).value
    assert {c.country for c in countries if c.orders} == set(wanted["by_country_all_net"])
    top = [(c.country, c.gross, c.orders) for c in countries[:10]]
    assert top == [
        (name, Decimal(figures["gross"]), figures["orders"])
        for name, figures in wanted["by_country_top10_by_gross"].items()
    ]
    months = (await running.ask(SalesByMonth())).value
    assert [(m.month, m.gross, m.orders) for m in months] == [
        (month, Decimal(figures["gross"]), figures["orders"])
        for month, figures in wanted["by_month"].items()
    ]
    newcomers = accumulate(m.new_customers for m in months)
    seen = dict(zip([m.month for m in months], newcomers, strict=True))
    for date, figures in wanted["as_of"].items():
        assert seen[date[:7]] == figures["customers_seen"]
        until = [m for m in months if m.month <= date[:7]]
        assert sum(m.gross for m in until) == Decimal(figures["gross"])
        assert sum(m.orders for m in until) == figures["orders"]
    products = (await running.ask(SalesByProduct())).value
    assert [(p.code, p.gross, p.pieces, p.lines, p.orders) for p in products] == [
        (p["code"], Decimal(p["amount"]), p["quantity"], p["lines"], p["invoices"])
        for p in wanted["top20_products_by_gross_amount"]
    ]
    assert (await running.ask(Product("85123a"))).value == products[2]
    customers = (await running.ask(SalesByCustomer())).value
    assert [(c.customer, c.gross, c.pieces, c.lines, c.orders) for c in customers] == [
        (c["CustomerID"], Decimal(c["amount"]), c["quantity"], c["lines"], c["invoices"])
        for c in wanted["top20_customers_by_gross_amount"]
    ]
    for name, figures in wanted["customer_samples"].items():
        found = (await running.ask(Customer(name))).value
        if not figures["orders"]:
            assert found is None or not found.orders
            continue
        assert found is not None
        assert (found.orders, found.gross) == (figures["orders"], Decimal(figures["gross"]))
        first, last = found.first_order, found.last_order
        assert (str(first), str(last)) == (figures["first_order"][:10], figures["last_order"][:10])
