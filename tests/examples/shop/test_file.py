"""The file is streamed: rows become invoices, invoices commands."""

import csv
import lzma
from collections.abc import Iterator
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path

import pytest

from examples.shop.__main__ import cli
from examples.shop.retail.lines import Line
from examples.shop.retail.place_order.command import PlaceOrder
from examples.shop.retail.replay.commands import command_of
from examples.shop.retail.replay.file import APART, COLUMNS, BadFile, invoices, opened


def row(invoice: str, code: str = "85123a", when: str = "2010-12-01 08:26:00") -> list[str]:
    return [invoice, code, "T-LIGHT HOLDER", "6", when, "2.55", "17850", "United Kingdom"]


def test_an_invoice_becomes_a_command_with_every_line_of_it() -> None:
    [invoice] = invoices([row("536365"), row("536365")])
    line = Line("85123A", "T-LIGHT HOLDER", 6, Decimal("2.55"))
    assert command_of(invoice) == PlaceOrder(
        "536365", "17850", "United Kingdom", date(2010, 12, 1), time(8, 26), (line, line)
    )


def test_an_invoice_interleaved_with_another_is_put_together() -> None:
    found = list(invoices([row("1"), row("2"), row("2"), row("1"), row("3")]))
    assert [(one.number, len(one.rows)) for one in found] == [("1", 2), ("2", 2), ("3", 1)]


def test_only_a_few_invoices_are_open_at_a_time() -> None:
    taken: list[int] = []

    def rows() -> Iterator[list[str]]:
        for number in range(10 * APART):
            taken.append(number)
            yield row(str(number))

    next(invoices(rows()))
    assert len(taken) <= APART + 2


def test_a_slice_ends_before_its_date() -> None:
    later = row("2", when="2010-12-02 00:00:00")
    found = list(invoices([row("1"), later], before=datetime(2010, 12, 2)))
    assert [one.number for one in found] == ["1"]


@pytest.mark.parametrize("suffix", [".csv", ".csv.xz"])
def test_the_file_is_read_packed_or_not(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"retail{suffix}"
    plain = tmp_path / "plain"
    with plain.open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, row("536365")])
    content = plain.read_bytes()
    path.write_bytes(lzma.compress(content) if suffix == ".csv.xz" else content)
    with opened(path) as (rows, read):
        assert list(rows) == [row("536365")]
        assert read() == path.stat().st_size


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "retail.csv"
    with pytest.raises(BadFile, match=r"cannot be opened.*retail\.csv"), opened(path):
        pass
    path.write_text("a,b\n1,2\n")
    with pytest.raises(BadFile, match=r"not the Online Retail file.*InvoiceNo"), opened(path):
        pass
    with pytest.raises(BadFile, match=r"Row 3 cannot be read.*six"):
        list(invoices([row("1"), [*row("1")[:3], "six", *row("1")[4:]]]))
    packed = tmp_path / "retail.csv.xz"
    packed.write_bytes(lzma.compress(",".join(COLUMNS).encode() * 1000)[:-20])
    with pytest.raises(BadFile, match="damaged"), opened(packed) as (rows, _):
        list(rows)


def test_the_help_of_the_importer_names_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    cli(["load", "--help"], result_action="return_value")
    printed = capsys.readouterr().out
    assert all(option in printed for option in ("PATH", "--log", "--views", "--json"))
