"""What may be on a disk after the power was cut: a model of files, and of what a sync promises.

Of what was written to a file since its last sync, each write may be there, be gone, or be torn at
the border of a sector, independently of the others. A file that was made or deleted may be found
as it was before, until its folder has been synced: SQLite does so with the first sync of a journal
that it has opened. What was synced is there.

This is more than most disks do, and what SQLite says that it is made for, with powersafe
overwrite: a write never harms the bytes beside it. https://sqlite.org/atomiccommit.html
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from torture.power.vfs import Operation

SECTOR = 512


class _File:
    """One file (not a name): what is surely on the disk, and what was done since."""

    def __init__(self, content: bytes = b"") -> None:
        self.content = bytearray(content)
        self.pending: list[Operation] = []

    def sync(self) -> None:
        for operation in self.pending:
            _apply(self.content, operation)
        self.pending.clear()

    def after_cut(self, rng: random.Random) -> bytes:
        content = bytearray(self.content)
        for operation in self.pending:
            fate = rng.randrange(3)
            if fate == 0:
                _apply(content, operation)
            elif fate == 1 and operation.kind == "write":
                _tear(content, operation, rng)
        return bytes(content)


def _apply(content: bytearray, operation: Operation) -> None:
    if operation.kind == "truncate":
        del content[operation.at :]
        return
    if len(content) < operation.at:
        content.extend(bytes(operation.at - len(content)))
    content[operation.at : operation.at + len(operation.data)] = operation.data


def _tear(content: bytearray, operation: Operation, rng: random.Random) -> None:
    """Write some sectors only: the first ones, or any."""
    data, start = operation.data, operation.at
    whole = rng.randrange(2)
    until = start + rng.randrange(len(data) + 1)
    at = start
    while at < start + len(data):
        end = min(at // SECTOR * SECTOR + SECTOR, start + len(data))
        if (whole and end <= until) or (not whole and rng.random() < 0.5):
            part = data[at - start : end - start]
            _apply(content, Operation("write", operation.file, at, part))
        at = end


class Disk:
    """The files of a folder, as far as they are on the disk. Names are full paths."""

    def __init__(self, files: dict[str, bytes]) -> None:
        # The last of a name's files is the one in use; the others may come back. None: no file.
        self._names: dict[str, list[_File | None]] = {
            name: [_File(content)] for name, content in files.items()
        }
        self._fresh: set[int] = set()  # handles whose first sync is one of the folder too

    def do(self, operations: Iterable[Operation]) -> None:
        """Do what was recorded."""
        for operation in operations:
            found = self._names.setdefault(operation.file, [None])
            file = found[-1]
            if operation.kind == "open" and operation.file.endswith(("-journal", "-wal")):
                self._fresh.add(operation.at)
            if operation.kind == "delete":
                found.append(None)
                if operation.at:
                    self._sync_folder()
            elif operation.kind == "sync":
                if file is not None:
                    file.sync()
                    found[:] = [file]
                if operation.at in self._fresh:
                    self._fresh.discard(operation.at)
                    self._sync_folder()
            elif file is None:
                file = _File()
                found.append(file)
            if operation.kind in ("write", "truncate") and file is not None:
                file.pending.append(operation)

    def _sync_folder(self) -> None:
        for found in self._names.values():
            del found[:-1]

    def after_cut(self, rng: random.Random) -> dict[str, bytes]:
        """Return the files that are found when the power is back; the model itself goes on."""
        files: dict[str, bytes] = {}
        for name, found in self._names.items():
            file = found[-1] if rng.random() < 0.5 else rng.choice(found)
            if file is not None:
                files[name] = file.after_cut(rng)
        return files
