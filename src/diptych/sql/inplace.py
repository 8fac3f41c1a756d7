"""Whether a file that is open still lies at its path.

What is written to a file that was deleted, or that another has taken the place of, is found by
nobody and gone when the last program that has it open ends. Neither the system nor SQLite says so:
with a write-ahead log, SQLite looks at the path when it opens the file and when it closes it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from diptych.errors import DiptychError

_HELD: Final = os.name == "nt"
"""Whether the system itself lets nobody delete or move a file that SQLite has open."""


class InPlace:
    """Compares the file at a path with the one that was there when this was made.

    The comparison is SQLite's own, by device and inode; it takes some 3 µs. A file that is moved
    back is in place again.
    """

    __slots__ = ("_path", "_there")

    def __init__(self, path: Path) -> None:
        self._path = str(path.absolute())  # where it stays when the program changes its directory
        self._there = None if _HELD else _file_at(self._path)

    def require(self, kind: type[DiptychError]) -> None:
        """Raise an error of this kind unless the file is in place."""
        if self._there is None:
            return
        found: tuple[int, int] | None
        try:
            found = _file_at(self._path)
        except (FileNotFoundError, NotADirectoryError):
            found = None
        except OSError:
            return  # it may not be looked at any more, which says nothing of where it is
        if found != self._there:
            raise kind(
                "The SQLite file was deleted, moved or replaced while this program has it open; "
                "nothing was stored. Move it back to its path, and all goes on; or save what it "
                "holds before you stop the program, as that is lost then",
                path=self._path,
                there="another file" if found else "nothing",
            )


def _file_at(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino
