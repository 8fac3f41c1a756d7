from datetime import date, time

from diptych import Event
from examples.shop.retail.ids import InvoiceId
from examples.shop.retail.lines import Line


class FreeStockRecorded(Event):
    invoice: InvoiceId
    day: date
    clock: time
    lines: tuple[Line, ...]


class StockWrittenOff(Event):
    invoice: InvoiceId
    day: date
    clock: time
    lines: tuple[Line, ...]
