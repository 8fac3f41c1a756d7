"""The ledger of campaigns: what has been done, with what, and what was found. JSON lines."""

from __future__ import annotations

import platform
import sqlite3
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec import Struct

LEDGER = Path(__file__).parents[1] / "build" / "torture" / "ledger.jsonl"


class Line(Struct, frozen=True):
    """The state of a campaign: ``done`` and ``violations`` are totals since it began.

    ``rounds`` is the number of the round to go on with.
    """

    run: str
    backend: str
    seed: int
    rounds: int
    done: int
    unit: str
    violations: int
    seconds: float
    found: list[str]
    versions: dict[str, str]
    time: str


_decode = msgspec.json.Decoder(Line).decode


def read(path: Path = LEDGER) -> list[Line]:
    """Return all lines; one that was torn is left out."""
    lines: list[Line] = []
    if path.exists():
        for text in path.read_bytes().split(b"\n"):
            with suppress(msgspec.DecodeError):
                lines.append(_decode(text))
    return lines


def last(run: str, backend: str, seed: int, path: Path = LEDGER) -> Line | None:
    """Return where a campaign stopped."""
    found = [
        line for line in read(path) if (line.run, line.backend, line.seed) == (run, backend, seed)
    ]
    return found[-1] if found else None


def write(line: Line, path: Path = LEDGER) -> None:
    """Add a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        # The line before may have been torn by a kill.
        file.write(b"\n" * (file.tell() > 0) + msgspec.json.encode(line) + b"\n")


def versions(backend: str) -> dict[str, str]:
    """Return the versions of what is under test."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "sqlite": sqlite3.sqlite_version,
        "backend": backend,
    }


def now() -> str:
    """Return the time, for people."""
    return datetime.now(UTC).isoformat(timespec="seconds")
