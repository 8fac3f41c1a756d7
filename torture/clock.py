"""A clock of the day that is apart from the system's, by as much as a small file says.

It is put in place of ``time.time``, ``time.time_ns`` and ``datetime.now`` in the modules that ask
for the time, so it needs neither a compiler nor rights. ``time.monotonic`` goes on as it does.
"""

from __future__ import annotations

import mmap
import struct
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime, timedelta, tzinfo
from importlib import import_module
from pathlib import Path
from typing import Any

import diptych
from diptych.read.freshness import ReadMeasures

_real, _real_ns = time.time, time.time_ns

ASIDE = ("cli", "testing", "console")
"""Parts that are not under test here."""


class Clock:
    """Whoever sets ``offset`` (seconds) sets it in all processes that wear the file's clock."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(8))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 8)

    @property
    def offset(self) -> float:
        """How far ahead of the system's clock it is, seconds."""
        found: float = struct.unpack_from("d", self._map)[0]
        return found

    @offset.setter
    def offset(self, seconds: float) -> None:
        struct.pack_into("d", self._map, 0, seconds)

    @staticmethod
    def real() -> float:
        """Return what the system's clock says, seconds since 1970."""
        return _real()

    @contextmanager
    def worn(self) -> Generator[None]:
        """Have this process go by this clock until the end of the block."""
        before = self.wear()
        try:
            yield
        finally:
            for names, name, value in before:
                names[name] = value

    def wear(self) -> list[tuple[dict[str, Any], str, Any]]:
        """Have this process go by this clock; return what that has replaced."""

        class Jumping(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> Any:
                return datetime.now(tz) + timedelta(seconds=self.offset)

        def seconds() -> float:
            return _real() + self.offset

        def nanoseconds() -> int:
            return _real_ns() + int(self.offset * 1e9)

        defaults = ReadMeasures.__init__.__kwdefaults__
        assert defaults is not None
        replacements: list[tuple[dict[str, Any], str, Any]] = [
            (time.__dict__, "time", seconds),
            (time.__dict__, "time_ns", nanoseconds),
            (defaults, "clock", seconds),
            *((vars(sys.modules[name]), "datetime", Jumping) for name in _askers()),
        ]
        before = [(names, name, names[name]) for names, name, _ in replacements]
        for names, name, value in replacements:
            names[name] = value
        return before


def _askers() -> list[str]:
    """Return the names of the modules that ask ``datetime`` for the time, and load them."""
    root = Path(diptych.__file__).parent
    found: list[str] = []
    for path in sorted(root.rglob("*.py")):
        inside = path.relative_to(root)
        if inside.parts[0] not in ASIDE and "datetime.now(" in path.read_text("utf-8"):
            parts = ("diptych", *inside.with_suffix("").parts)
            name = ".".join(parts).removesuffix(".__init__")
            import_module(name)
            found.append(name)
    return found
