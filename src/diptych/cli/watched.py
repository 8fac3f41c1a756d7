"""A table on a screen of a certain size: what does not fit is left out, what is wrong stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from rich.console import Console, Group, RenderableType
from rich.text import Text

from diptych.cli.screen import counted
from diptych.cli.tables import slim

Row: TypeAlias = tuple[str | Text, ...]

LEAST_ROWS = 3
"""How many rows there is always room for, however much there is to tell."""


def watched(
    console: Console,
    title: Text,
    told: Sequence[Text],
    columns: Mapping[str, bool],
    rows: Sequence[tuple[bool, Row]],
    spare: Sequence[str],
) -> Group:
    """Return what fits the screen: a title, what is told, and a table of rows.

    ``rows``: whether something is wrong with it, and its cells; those stay longest. ``spare``: the
    columns that are left out where they do not fit, the first one first. A last line says how much
    is not shown.
    """
    everything = Group(title, *told, slim(console, columns, [row for _, row in rows], spare))
    room = console.height - 1  # the terminal writes ^C into a line of its own
    if _height(console, everything) <= room:
        return everything
    title = _on_one_line(title)
    room -= 4  # the title, the table's head, and how much is not shown
    lines = [_on_one_line(text) for text in told[: max(room - LEAST_ROWS, 1)]]
    most = min(len(rows), max(room - len(lines), 1))
    first = sorted(range(len(rows)), key=lambda n: not rows[n][0])  # what is wrong
    table = slim(console, columns, [rows[n][1] for n in sorted(first[:most])], spare)
    hidden = [
        counted(number, noun)
        for number, noun in ((len(told) - len(lines), "message"), (len(rows) - most, "projection"))
        if number
    ]
    if not hidden:
        return Group(title, *lines, table)
    more = Text(f"… {' and '.join(hidden)} more: on a taller terminal, or with --json", "dim")
    return Group(title, *lines, table, _on_one_line(more))


def _on_one_line(text: Text) -> Text:
    short = Text(" ").join(text.split())  # its lines
    short.no_wrap, short.overflow = True, "ellipsis"
    return short


def _height(console: Console, what: RenderableType) -> int:
    return len(console.render_lines(what, pad=False))
