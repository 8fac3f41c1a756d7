"""What an invoice asks for: one command, by the letter before its number and its prices."""

from __future__ import annotations

from decimal import Decimal

from diptych import Command
from examples.shop.retail.adjust_bad_debt.command import AdjustBadDebt
from examples.shop.retail.cancel_lines.command import CancelLines
from examples.shop.retail.lines import Line
from examples.shop.retail.move_stock.command import RecordFreeStock, WriteOffStock
from examples.shop.retail.place_order.command import PlaceOrder
from examples.shop.retail.replay.file import Invoice


def command_of(invoice: Invoice) -> Command:
    """Return the command of an invoice. Quantities are without sign: the command says it."""
    day, clock = invoice.when.date(), invoice.when.time()
    if invoice.number.startswith("A"):
        return AdjustBadDebt(invoice.number, day, clock, amount_of(invoice))
    lines = tuple([Line(r.code, r.description, abs(r.quantity), r.price) for r in invoice.rows])
    if invoice.number.startswith("C"):
        return CancelLines(invoice.number, invoice.customer, invoice.country, day, clock, lines)
    if any(row.price for row in invoice.rows):
        return PlaceOrder(invoice.number, invoice.customer, invoice.country, day, clock, lines)
    if invoice.rows[0].quantity < 0:
        return WriteOffStock(invoice.number, day, clock, lines)
    return RecordFreeStock(invoice.number, day, clock, lines)


def amount_of(invoice: Invoice) -> Decimal:
    """Return what the command of an invoice amounts to, exactly."""
    total = sum((row.quantity * row.price for row in invoice.rows), Decimal())
    return -total if invoice.number.startswith("C") else total
