from datetime import date, time
from decimal import Decimal

from diptych import Event
from examples.shop.retail.ids import InvoiceId


class BadDebtAdjusted(Event):
    invoice: InvoiceId
    day: date
    clock: time
    amount: Decimal
