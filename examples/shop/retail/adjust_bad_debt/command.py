from collections.abc import Iterator
from datetime import date, time
from decimal import Decimal

from diptych import Command, Module
from examples.shop.retail.adjust_bad_debt.event import BadDebtAdjusted
from examples.shop.retail.ids import InvoiceId

module = Module("adjust-bad-debt")


class AdjustBadDebt(Command):
    invoice: InvoiceId
    day: date
    clock: time
    amount: Decimal


@module.decides
def adjust_bad_debt(command: AdjustBadDebt) -> Iterator[BadDebtAdjusted]:
    yield BadDebtAdjusted(command.invoice, command.day, command.clock, command.amount)
