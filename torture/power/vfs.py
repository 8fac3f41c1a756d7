"""A VFS for SQLite that takes down every write and sync, and passes it on to the system's.

It is registered by ctypes in the very library that Python's ``sqlite3`` has loaded, so that
nothing of ours is replaced: the log's own connections, threads, PRAGMAs and statements go through
it. What it does not see: the shared-memory index beside the write-ahead log, which SQLite never
trusts after a restart, and reads.
https://sqlite.org/vfs.html
"""

from __future__ import annotations

import ctypes
from collections.abc import Generator
from contextlib import contextmanager
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_int64, c_void_p
from functools import cache
from pathlib import Path
from typing import Literal

from msgspec import Struct


class Operation(Struct, frozen=True):
    """Something done to a file: its name, where, and the bytes written.

    ``at`` is the offset of a write, the size left by a truncation, the handle that is opened or
    synced, and whether a deletion syncs the folder.
    """

    kind: Literal["open", "write", "truncate", "sync", "delete"]
    file: str
    at: int = 0
    data: bytes = b""


# Names are pointers, not c_char_p: SQLite keeps the pointer that it passes, so we pass on the same.
_Open = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p)
_Delete = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int)
_Write = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_Truncate = CFUNCTYPE(c_int, c_void_p, c_int64)
_Sync = CFUNCTYPE(c_int, c_void_p, c_int)


class _Vfs(ctypes.Structure):
    _fields_ = [
        ("version", c_int),
        ("size_of_file", c_int),
        ("longest_path", c_int),
        ("next", c_void_p),
        ("name", c_char_p),
        ("data", c_void_p),
        ("open", _Open),
        ("delete", _Delete),
        ("others", c_void_p * 16),
    ]


class _Methods(ctypes.Structure):
    _fields_ = [
        ("version", c_int),
        ("close", c_void_p),
        ("read", c_void_p),
        ("write", _Write),
        ("truncate", _Truncate),
        ("sync", _Sync),
        ("others", c_void_p * 13),
    ]


class _File(ctypes.Structure):
    _fields_ = [("methods", POINTER(_Methods))]


def _text(name: int) -> str:
    return ctypes.string_at(name).decode()


class Unusable(Exception):
    """The SQLite of this Python cannot be reached by ctypes (linked in statically)."""


class Recording:
    """What has been done to the files below a folder, in order."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder.resolve())
        self.operations: list[Operation] = []

    def clock(self) -> int:
        """Return how much has been done: the time of this world."""
        return len(self.operations)


class _Shim:
    """The VFS, once a process. While nobody records it only passes on."""

    def __init__(self) -> None:
        import _sqlite3

        try:
            self.library = ctypes.CDLL(_sqlite3.__file__)
            find = self.library.sqlite3_vfs_find
            self.register = self.library.sqlite3_vfs_register
        except (AttributeError, OSError) as error:
            raise Unusable(str(error)) from error
        find.restype = POINTER(_Vfs)
        find.argtypes = [c_char_p]
        self.register.argtypes = [POINTER(_Vfs), c_int]
        self.system = find(None)
        self.recording: Recording | None = None
        self._files: dict[int, tuple[str, _Methods]] = {}  # by the address of the open file
        self._tables: dict[int, tuple[_Methods, _Methods]] = {}
        # ctypes calls into these for ever: they must never be collected.
        self._kept = (_Open(self._open), _Delete(self._delete))
        self._calls = (_Write(self._write), _Truncate(self._truncate), _Sync(self._sync))
        self.ours = _Vfs()
        ctypes.memmove(ctypes.byref(self.ours), self.system, ctypes.sizeof(_Vfs))
        self.ours.next = None
        self.ours.name = b"diptych-power"
        self.ours.open, self.ours.delete = self._kept

    def note(self, operation: Operation) -> None:
        if self.recording is not None:
            self.recording.operations.append(operation)

    def _open(self, vfs: int, name: int | None, file: int, flags: int, out: int) -> int:
        result = int(self.system.contents.open(vfs, name, file, flags, out))
        recording = self.recording
        if result or name is None or recording is None:
            return result
        path = _text(name)
        if not path.startswith(recording.folder):
            return result
        opened = ctypes.cast(file, POINTER(_File)).contents
        address = ctypes.addressof(opened.methods.contents)
        if address not in self._tables:
            system = _Methods.from_address(address)
            ours = _Methods.from_buffer_copy(system)
            ours.write, ours.truncate, ours.sync = self._calls
            self._tables[address] = (system, ours)
        system, ours = self._tables[address]
        opened.methods = ctypes.pointer(ours)
        self._files[file] = (path, system)
        self.note(Operation("open", path, file))
        return result

    def _delete(self, vfs: int, name: int, sync_folder: int) -> int:
        result = int(self.system.contents.delete(vfs, name, sync_folder))
        recording = self.recording
        if not result and recording is not None and _text(name).startswith(recording.folder):
            self.note(Operation("delete", _text(name), sync_folder))
        return result

    # Only files that were opened while somebody records have our methods.

    def _write(self, file: int, data: int, size: int, at: int) -> int:
        name, system = self._files[file]
        self.note(Operation("write", name, at, ctypes.string_at(data, size)))
        return int(system.write(file, data, size, at))

    def _truncate(self, file: int, size: int) -> int:
        name, system = self._files[file]
        self.note(Operation("truncate", name, size))
        return int(system.truncate(file, size))

    def _sync(self, file: int, flags: int) -> int:
        name, system = self._files[file]
        result = int(system.sync(file, flags))
        if not result:
            self.note(Operation("sync", name, file))
        return result


@cache
def shim() -> _Shim:
    """Return the VFS; ``Unusable`` where it cannot be had."""
    return _Shim()


@contextmanager
def recorded(folder: Path) -> Generator[Recording]:
    """Record what SQLite does to the files below a folder that are opened from now on."""
    one = shim()
    recording = Recording(folder)
    one.recording = recording
    one.register(ctypes.byref(one.ours), 1)  # the default, for connections that are opened now
    try:
        yield recording
    finally:
        one.register(one.system, 1)
        one.recording = None
