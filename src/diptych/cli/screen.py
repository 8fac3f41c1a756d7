"""How answers look: rich on a terminal, the same without colour and without a width in a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import IO, Any

import msgspec
from rich.console import Console
from rich.text import Text

ENDLESS = 100_000
"""The width where nobody looks: what is read by a program is never folded or cut."""

_json = msgspec.json.Encoder(enc_hook=str, decimal_format="string")


class _Screen(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to ``main``."""
        raise BrokenPipeError


def screen(*, stderr: bool = False) -> Console:
    """Return a console. COLUMNS, NO_COLOR and TERM are honoured."""
    file: IO[str] = sys.stderr if stderr else sys.stdout
    width = None if file.isatty() or os.environ.get("COLUMNS") else ENDLESS
    return _Screen(file=file, width=width, highlight=False, soft_wrap=False, emoji=False)


def as_line(value: Any) -> str:
    """Return one JSON document on one line."""
    return _json.encode(value).decode() + "\n"


def write_json(value: Any) -> None:
    """Print one JSON document: indented for people on a terminal, else on one line."""
    data = _json.encode(value)
    if sys.stdout.isatty():
        data = msgspec.json.format(data, indent=2)
    sys.stdout.write(data.decode() + "\n")


def cell(value: Any) -> str:
    """Return a value as text for people."""
    if value is None:
        return ""
    if isinstance(value, str):
        return harmless(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, (int, float)):
        return str(value)
    plain = msgspec.to_builtins(value, enc_hook=str)
    return plain if isinstance(plain, str) else _json.encode(plain).decode()


_CONTROLS = {
    code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code not in (9, 10)
}


def harmless(text: str) -> str:
    """Return text whose control characters are spelled out: a terminal must not obey them."""
    return text.translate(_CONTROLS)


def moment(value: datetime, *, precise: bool = True) -> str:
    """Return a time as ISO 8601, without the noise: 2013-01-01 05:15:00Z."""
    text = value.isoformat(sep=" ", timespec="auto" if precise else "milliseconds")
    return text.removesuffix("+00:00") + ("Z" if text.endswith("+00:00") else "")


def seconds(value: float) -> str:
    """Return a duration for people: 0.4 s, 3 min, 5 h, 12 d."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if value >= 2 * size:
            return f"{value / size:.0f} {unit}"
    return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"


def counted(number: int, noun: str) -> str:
    """Return a number of things: 1 event, 2 events."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def facts(console: Console, title: str, style: str, rows: Mapping[str, Any]) -> None:
    """Print a title and, below it, names and values in two columns."""
    kind, colon, rest = title.partition(":")
    console.print(Text.assemble((kind, style), colon, harmless(rest)), soft_wrap=True)
    width = max((len(name) for name in rows), default=0)
    for name, value in rows.items():
        console.print(
            Text.assemble("  ", (name.ljust(width), "dim"), "  ", cell(value)), soft_wrap=True
        )
