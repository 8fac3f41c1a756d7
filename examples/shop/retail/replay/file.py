"""The file: rows streamed from .csv or .csv.xz, and put together to invoices."""

from __future__ import annotations

import csv
import lzma
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal, InvalidOperation
from io import TextIOWrapper
from pathlib import Path
from typing import IO, NamedTuple, cast

APART = 100
"""Rows that may lie between two of one invoice: so long it is kept open."""

COLUMNS = [
    "InvoiceNo",
    "StockCode",
    "Description",
    "Quantity",
    "InvoiceDate",
    "UnitPrice",
    "CustomerID",
    "Country",
]


class BadFile(Exception):
    """The file cannot be read, or is not the one that is meant."""


class Row(NamedTuple):
    """A row of the file; the stock code in upper case."""

    code: str
    description: str
    quantity: int
    price: Decimal


class Invoice:
    """All rows of one invoice; what they share is taken from the first."""

    __slots__ = ("country", "customer", "last", "number", "rows", "when")

    def __init__(self, number: str, when: datetime, customer: str | None, country: str) -> None:
        self.number = number
        self.when = when
        self.customer = customer
        self.country = country
        self.rows: list[Row] = []
        self.last = 0


@contextmanager
def opened(path: Path) -> Generator[tuple[Iterator[list[str]], Callable[[], int]]]:
    """Open the file: its rows, and how many bytes of it have been read."""
    try:
        raw = path.open("rb")
    except OSError as error:
        raise BadFile(f"The file cannot be opened ({error.strerror}: {path})") from error
    with raw, _unpacked(raw, path) as binary:
        rows = csv.reader(TextIOWrapper(binary, encoding="utf-8", newline=""))
        try:
            if next(rows, None) != COLUMNS:
                raise BadFile(
                    f"That is not the Online Retail file ({path}); its first row is "
                    + ",".join(COLUMNS)
                )
            yield rows, raw.tell
        except (lzma.LZMAError, EOFError, UnicodeDecodeError, csv.Error) as error:
            raise BadFile(f"The file is damaged ({path}: {error})") from error


def _unpacked(raw: IO[bytes], path: Path) -> IO[bytes]:
    return cast("IO[bytes]", lzma.LZMAFile(raw)) if path.suffix == ".xz" else raw


def invoices(rows: Iterable[list[str]], *, before: datetime | None = None) -> Iterator[Invoice]:
    """Yield the invoices in the order of their first rows; memory holds a few of them.

    An invoice is complete when so many rows of others have followed. One that goes on later is
    sent again with other content under the same key, and that is refused.
    """
    open_: dict[str, Invoice] = {}
    for number, row in enumerate(rows, start=2):
        try:
            invoice = row[0]
            current = open_.get(invoice)
            if current is None:
                when = datetime.fromisoformat(row[4])
                if before is not None and when >= before:
                    break
                current = open_[invoice] = Invoice(invoice, when, row[6] or None, row[7])
            current.rows.append(Row(row[1].upper(), row[2], int(row[3]), Decimal(row[5])))
            current.last = number
        except (ValueError, IndexError, InvalidOperation) as error:
            raise BadFile(f"Row {number} cannot be read ({error}): {row}") from error
        while number - (first := next(iter(open_.values()))).last > APART:
            yield open_.pop(first.number)
    yield from open_.values()
