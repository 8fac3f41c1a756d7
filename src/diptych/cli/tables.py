"""Values as tables: what a query was answered, drawn as wide as it must be."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal, TypeGuard, cast

import msgspec
from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from diptych.cli.screen import ENDLESS, cell
from diptych.messages import Recorded

_NUMBERS = (int, float, Decimal)
NAME = 8
TEXT = 12
"""How narrow a column's name and its text may become before a table is given up; a number is
never folded."""

ENOUGH = 24
"""How many characters of a text that is cut are worth a column."""


class _Table(Table):
    """A table whose lines end, where nobody looks, with what they say: no blanks behind it."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        drawn = super().__rich_console__(console, options)
        if console.is_terminal:
            yield from drawn
            return
        for line in Segment.split_lines(one for one in drawn if isinstance(one, Segment)):
            while line and not line[-1].text.strip(" "):
                line.pop()
            if line:
                text, style, _ = line.pop()
                yield from line
                yield Segment(text.rstrip(" "), style)
            yield Segment.line()


def show_value(console: Console, value: Any) -> None:
    """Print rows as a table, one row as a record, anything else as it is."""
    if value is None:
        console.print(Text("nothing", "dim"))
    elif _is_many(value):
        show_rows(console, list(value))
    elif (record := _record(value)) is not None:
        show_record(console, record)
    else:
        console.print(Text(cell(value)), soft_wrap=True)


def show_rows(console: Console, rows: Sequence[Any]) -> None:
    """Print a table; where it does not fit the screen, a record for each row.

    Rows that have no fields are printed one a line.
    """
    found = [_record(row) for row in rows]
    records = [{"": row} if one is None else one for row, one in zip(rows, found, strict=True)]
    if not any(one is not None for one in found):
        for row in rows:
            console.print(Text(cell(row)), soft_wrap=True)
    else:
        table = next((t for t in _tables(records, console.width) if _fits(console, t)), None)
        if table is not None:
            console.print(table)
        else:
            for number, record in enumerate(records, 1):
                if number > 1:
                    console.print()
                console.print(Text(f"row {number}", "dim"))
                show_record(console, record)
    count = f"{len(rows)} row" if len(rows) == 1 else f"{len(rows)} rows"
    console.print(Text(count, "dim"))


def _tables(records: Sequence[Mapping[str, Any]], room: int) -> Iterator[Table]:
    """Yield the rows as a roomy table, a tight one with names broken at their `_`, a narrowed one.

    The last has its widest columns folded until it fits the room, if that is in reason.
    """
    names = list(dict.fromkeys(name for record in records for name in record))
    numbers = {
        name: all(_is_number(r.get(name)) for r in records if r.get(name) is not None)
        for name in names
    }
    cells = [[cell(record.get(name)) for name in names] for record in records]
    widths = [
        max((len(line) for text in column for line in text.splitlines()), default=0)
        for column in zip(*cells, strict=True)
    ]
    for tight in (False, True):
        titles = [
            broken(name, width) if tight else name
            for name, width in zip(names, widths, strict=True)
        ]
        table = make_table(dict(zip(titles, numbers.values(), strict=True)), tight=tight)
        for texts in cells:
            table.add_row(*map(Text, texts))
        yield table
    least = [
        max(width, min(len(name), NAME)) if number else min(max(width, len(name)), TEXT)
        for (name, number), width in zip(numbers.items(), widths, strict=True)
    ]
    most = [max(width, len(name)) for name, width in zip(names, widths, strict=True)]
    narrow = narrowed(most, least, room - (len(names) - 1))
    if narrow is None:
        return
    titles = [broken(name, width, hard=True) for name, width in zip(names, narrow, strict=True)]
    table = make_table(dict(zip(titles, numbers.values(), strict=True)), tight=True)
    for column, width in zip(table.columns, narrow, strict=True):
        column.width = width
    for texts in cells:
        table.add_row(*map(Text, texts))
    yield table


def narrowed(most: Sequence[int], least: Sequence[int], room: int) -> list[int] | None:
    """Return widths that fit the room, the widest columns shortened first; None: they cannot."""
    widths = list(most)
    while sum(widths) > room:
        spare = [n for n, width in enumerate(widths) if width > least[n]]
        if not spare:
            return None
        widths[max(spare, key=widths.__getitem__)] -= 1
    return widths


def broken(name: str, width: int, *, hard: bool = False) -> str:
    """Return a name on several lines, none longer than need be; hard: none longer than width."""
    parts = [part + "_" for part in name.split("_")]
    parts[-1] = parts[-1][:-1]
    if hard:
        parts = [part[n : n + width] for part in parts for n in range(0, len(part), width)]
    width = max(width, *map(len, parts))
    lines = [""]
    for part in parts:
        if len(lines[-1]) + len(part) > width:
            lines.append(part)
        else:
            lines[-1] += part
    return "\n".join(lines)


def _fits(console: Console, table: Table) -> bool:
    return _width(console, table) <= console.width


def _width(console: Console, table: Table) -> int:
    options = console.options.update(max_width=ENDLESS)
    return Measurement.get(console, options, table).maximum


def make_table(columns: Mapping[str, bool], *, tight: bool = False) -> Table:
    """Return an empty table; the columns that are True hold numbers. Nothing is ever cut off."""
    table = _Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 0 if tight else 1, 0, 0 if tight else 1),
        pad_edge=False,
        header_style="bold",
        show_edge=False,
    )
    for name, number in columns.items():
        justify: Literal["right", "left"] = "right" if number else "left"
        table.add_column(name, justify=justify, overflow="fold", vertical="bottom")
    return table


def fitted(
    console: Console,
    columns: Mapping[str, bool],
    rows: Sequence[Sequence[str | Text]],
    cut: str = "",
) -> RenderableType:
    """Return a table; where it does not fit the screen, a record for each row.

    The texts of the column ``cut`` stand on one line each, shortened with `…` to what fits.
    """
    texts = [
        [_on_one_line(t) if name == cut else _text(t) for name, t in zip(columns, row, strict=True)]
        for row in rows
    ]
    longest = (
        max((row[list(columns).index(cut)].cell_len for row in texts), default=0) if cut else 0
    )
    for tight in (False, True):
        table = _filled(columns, texts, tight=tight)
        most = longest - (_width(console, table) - console.width)
        if cut and ENOUGH <= most < longest:
            shorter = [
                [
                    _shortened(t, most) if name == cut else t
                    for name, t in zip(columns, row, strict=True)
                ]
                for row in texts
            ]
            table = _filled(columns, shorter, tight=tight)
        if _fits(console, table):
            return table
    width = max(map(len, columns))
    lines: list[Text] = []
    for row in texts:
        lines += [Text()] if lines else []
        for name, text in zip(columns, row, strict=True):
            if text:
                shown = _shortened(text, max(console.width - width - 2, 1)) if name == cut else text
                lines.append(Text.assemble((name.ljust(width), "bold"), "  ", shown))
    return Group(*lines)


def slim(
    console: Console,
    columns: Mapping[str, bool],
    rows: Sequence[Sequence[str | Text]],
    spare: Sequence[str],
) -> Table:
    """Return a table that lacks, where it does not fit the screen, what can be spared of columns.

    The first of ``spare`` goes first.
    """
    texts = [[_text(text) for text in row] for row in rows]
    table = _filled(columns, texts, tight=False)
    for left_out in range(len(spare) + 1):
        kept = [name for name in columns if name not in spare[:left_out]]
        which = [n for n, name in enumerate(columns) if name in kept]
        cells = [[row[n] for n in which] for row in texts]
        for tight in (False, True):
            table = _filled({name: columns[name] for name in kept}, cells, tight=tight)
            if _fits(console, table):
                return table
    return table


def _filled(columns: Mapping[str, bool], rows: Sequence[Sequence[Text]], *, tight: bool) -> Table:
    table = make_table(columns, tight=tight)
    for row in rows:
        table.add_row(*row)
    return table


def _text(given: str | Text) -> Text:
    return Text(cell(given)) if isinstance(given, str) else given


def _on_one_line(given: str | Text) -> Text:
    return Text(" ".join(_text(given).plain.split()))


def _shortened(text: Text, width: int) -> Text:
    short = text.copy()
    short.truncate(width, overflow="ellipsis")
    return short


def show_record(console: Console, record: Mapping[str, Any]) -> None:
    """Print one row, a line for each field."""
    width = max((len(name) for name in record), default=0)
    for name, value in record.items():
        console.print(Text.assemble((name.ljust(width), "bold"), "  ", cell(value)), soft_wrap=True)


def plain(value: Any) -> Any:
    """Return a value whose JSON tells the types of recorded events too."""
    if isinstance(value, Recorded):
        return {
            "position": value.position,
            "id": value.id,
            "type": value.event.message_name,
            "tags": value.tags,
            "data": value.event,
            "metadata": value.metadata,
        }
    return [plain(inner) for inner in value] if _is_many(value) else value


def _record(value: Any) -> dict[str, Any] | None:
    """Return the fields of a struct or mapping; None for what has none."""
    if isinstance(value, Recorded):
        return {
            "position": value.position,
            "time": value.metadata.time,
            "type": value.event.message_name,
            "tags": " ".join(value.tags),
            "data": value.event,
        }
    if isinstance(value, msgspec.Struct):
        return {name: getattr(value, name) for name in value.__struct_fields__}
    if _is_mapping(value):
        return {str(name): inner for name, inner in value.items()}
    if type(value) is not tuple and hasattr(value, "_asdict"):
        named: dict[str, Any] = value._asdict()
        return named
    if isinstance(value, tuple):
        return {str(n): inner for n, inner in enumerate(cast("Iterable[Any]", value), 1)}
    return None


def _is_many(value: Any) -> TypeGuard[Iterable[Any]]:
    return isinstance(value, (list, set, frozenset)) or type(value) is tuple


def _is_mapping(value: Any) -> TypeGuard[Mapping[Any, Any]]:
    return isinstance(value, Mapping)


def _is_number(value: Any) -> bool:
    return isinstance(value, _NUMBERS) and not isinstance(value, (bool, dt.datetime))
