from collections.abc import Iterator
from datetime import date, time
from typing import Annotated

from msgspec import Meta

from diptych import Command, Module
from examples.shop.retail.ids import InvoiceId
from examples.shop.retail.lines import Line
from examples.shop.retail.move_stock.event import FreeStockRecorded, StockWrittenOff

module = Module("move-stock")


class RecordFreeStock(Command):
    invoice: InvoiceId
    day: date
    clock: time
    lines: Annotated[tuple[Line, ...], Meta(min_length=1)]


class WriteOffStock(Command):
    invoice: InvoiceId
    day: date
    clock: time
    lines: Annotated[tuple[Line, ...], Meta(min_length=1)]


@module.decides
def record_free_stock(command: RecordFreeStock) -> Iterator[FreeStockRecorded]:
    yield FreeStockRecorded(command.invoice, command.day, command.clock, command.lines)


@module.decides
def write_off_stock(command: WriteOffStock) -> Iterator[StockWrittenOff]:
    yield StockWrittenOff(command.invoice, command.day, command.clock, command.lines)
