"""One SQLite database in this process: a thread that writes, a thread that reads.

The writing connection is the only one that writes and checkpoints (rule 6 of the log). Readers
never block it, nor it them (WAL).

A step of a statement gives up Python's interpreter lock and must win it back from a busy event
loop, which can take milliseconds. So the callers' jobs are written to take few steps: many rows in
one INSERT, one page in one aggregated row.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import threading
import time
import warnings
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from diptych.errors import (
    Closed,
    DiptychError,
    LogUnusable,
    SqliteVersionWarning,
    Unavailable,
)
from diptych.sql.brief import Brief, Habit
from diptych.sql.gathering import Done, settle
from diptych.sql.inplace import InPlace
from diptych.sql.room import CHECKPOINT, Room

T = TypeVar("T")
Job: TypeAlias = Callable[[sqlite3.Connection], T]

BUSY_SECONDS = 30.0
"""How long a transaction waits for another process's write lock before ``Unavailable``."""

_BUSY_LOOK_MS = 3
"""How often it looks again: SQLite's own waiting grows to 100 ms, and starves."""

_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs"}
    | {"fuse.sshfs", "fuse.s3fs", "fuse.glusterfs", "lustre", "ncpfs"}
)


_forks = 0  # how many forks lie between this process and the first one


def _forked() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_forked)


class Database:
    """A file (or, for ``path=None``, a private database in memory) and its two threads.

    ``durable`` asks for an fsync at each commit; without it a power cut may take back the last
    transactions, whole, which suits read models: their checkpoint goes back with their rows.
    """

    def __init__(self, path: Path | None, *, durable: bool = True) -> None:
        # SQLite, too, goes by where a path led when it was opened.
        self.path = path = None if path is None else path.absolute()
        self.durable = durable
        self._closed = False
        self._forks = _forks
        if path is not None:
            refuse_network(path)
            warn_of_version()
        self._room = None if path is None or not durable or is_frozen(path) else Room(path)
        self._writer = _Worker("write", self._connect(writing=True), self._room)
        self._in_place = None if path is None else InPlace(path)
        # A database in memory exists in one connection only.
        self._reader = self._writer if path is None else _Worker("read", self._connect())
        self._peeker = None if path is None else self._connect()
        self._brief: Brief | None = None
        self._writing = 0

    def _connect(self, *, writing: bool = False) -> sqlite3.Connection:
        target = ":memory:" if self.path is None else str(self.path)
        frozen = self.path is not None and is_frozen(self.path)
        connection: sqlite3.Connection | None = None
        try:
            connection = sqlite3.connect(
                f"{self.path.resolve().as_uri()}?immutable=1" if self.path and frozen else target,
                uri=frozen,
                timeout=BUSY_SECONDS,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=512,
            )
            if writing and not frozen:
                patiently(lambda: connection.execute("PRAGMA journal_mode = WAL"))
                connection.execute(f"PRAGMA synchronous = {'FULL' if self.durable else 'NORMAL'}")
                connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT}")
                # KiB. The log's index by tag is written all over; views are written in key order.
                kept = 65_536 if self.durable else 16_384
                connection.execute(f"PRAGMA cache_size = -{kept}")
            else:
                connection.execute("PRAGMA wal_autocheckpoint = 0")
                connection.execute("PRAGMA query_only = ON")
                connection.execute("PRAGMA cache_size = -8192")
            connection.execute("PRAGMA temp_store = MEMORY")
            if writing:
                connection.execute(f"PRAGMA busy_timeout = {_BUSY_LOOK_MS}")
        except sqlite3.DatabaseError as error:
            if connection is not None:
                connection.close()
            raise LogUnusable(
                "The SQLite file cannot be opened; check the path and its permissions, and that "
                "it is a SQLite database",
                path=target,
                why=error,
            ) from error
        return connection

    def write(self, job: Job[T]) -> asyncio.Future[T]:
        """Run a job on the writing thread. It opens and ends its own transactions."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.begin_write(job, partial(settle, future))
        return future

    def read(self, job: Job[T]) -> asyncio.Future[T]:
        """Run a job on the reading thread."""
        self.require_usable()
        return _future(self._reader.jobs, job)

    def begin_write(
        self, job: Job[T], done: Done[T], gone: type[DiptychError] = Unavailable
    ) -> None:
        """Begin what `write` does; at its end call ``done`` in the event loop.

        It spares those who wait a round of the loop. A file that is not in its place is not written
        to: an error of the kind ``gone``.
        """
        self.require_usable()
        self._writing += 1

        def in_place(connection: sqlite3.Connection) -> T:
            self.require_in_place(gone)
            return job(connection)

        _enqueue(self._writer.jobs, in_place, partial(self._written, done))

    def _written(self, done: Done[T], result: T | None, failure: BaseException | None) -> None:
        self._writing -= 1
        done(result, failure)

    @property
    def is_writing(self) -> bool:
        """Whether the writing thread has something to do."""
        return self._writing > 0

    def begin_read(self, job: Job[T], done: Done[T]) -> None:
        """Begin what `read` does; at its end call ``done`` in the event loop."""
        self.require_usable()
        _enqueue(self._reader.jobs, job, done)

    def peek(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        """Return the first row of a point read, made at once on the caller's thread.

        Only for reads of a few microseconds: a thread hop costs more than they do.
        """
        self.require_usable()
        connection = self._peeker or self._writer.connection
        try:
            return connection.execute(sql, parameters).fetchone()
        except sqlite3.DatabaseError as error:
            raise failure_of(error) from error

    def prepare(self, job: Job[None]) -> None:
        """Make ready for `brief`: do on its connection, at once, what its reads need."""
        if self.path is None:
            return  # it has one connection, and what that shows may not be committed yet
        if self._brief is None:
            self._brief = Brief(self._connect())
        job(self._brief.connection)

    async def brief(self, sql: str, parameters: Sequence[Any], habit: Habit) -> Any:
        """Return the first row of what is committed, read at once on the caller's thread.

        None, where the statement may take long there, or fails: the reading thread is to run it.
        """
        self.require_usable()
        if self._brief is None:
            return None
        if self._brief.is_tiring:
            await asyncio.sleep(0)
            self.require_usable()
        return self._brief.first(sql, parameters, habit)

    def version(self) -> int:
        """Return a number that is another one when anybody has changed the database."""
        if self._peeker is None:  # nobody else can
            return self._writer.connection.total_changes
        found: int = self.peek("PRAGMA data_version")[0]
        return found

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[Session]:
        """Hold the writing thread for several jobs in a row, with nobody else's in between."""
        session = Session()
        served = asyncio.ensure_future(self.write(session.serve))
        try:
            yield session
        finally:
            session.jobs.put(None)
            with suppress(Unavailable):
                await served

    async def close(self) -> None:
        """Finish the jobs that wait, then close. May be called twice."""
        if self._closed:
            return
        self._closed = True
        if self._forks != _forks:
            return
        if self._room is not None:
            self._room.enough = True
        workers = {self._reader, self._writer}
        # Not `to_thread`: at the exit of a program no thread pool works any more.
        closing = [_future(worker.jobs, sqlite3.Connection.close) for worker in workers]
        for worker in workers:
            worker.jobs.put(None)
        await asyncio.gather(*closing)
        for worker in workers:
            worker.thread.join()  # it has nothing more to do
        if self._peeker is not None:
            self._peeker.close()
        if self._brief is not None:
            self._brief.connection.close()

    def require_in_place(self, gone: type[DiptychError] = Unavailable) -> None:
        """Raise an error of this kind where the file was deleted, moved or replaced meanwhile."""
        if self._in_place is not None:
            self._in_place.require(gone)

    def require_usable(self) -> None:
        """Raise ``Closed`` or, in a forked process, ``LogUnusable``."""
        if self._closed:
            raise Closed("The database has been closed", path=self.path)
        if self._forks != _forks:
            raise LogUnusable(
                "A SQLite connection must not be used after fork; open it in the new process",
                path=self.path,
            )


class Session:
    """The writing thread, held. Jobs run on it one after the other."""

    def __init__(self) -> None:
        self.jobs: _Jobs = queue.SimpleQueue()

    async def run(self, job: Job[T]) -> T:
        """Run a job and return what it returns."""
        return await _future(self.jobs, job)

    def serve(self, connection: sqlite3.Connection) -> None:
        """Serve this session's jobs until it ends; roll back what it leaves open."""
        _serve(self.jobs, connection)
        if connection.in_transaction:
            connection.execute("ROLLBACK")


_Waiting: TypeAlias = tuple[Job[Any], asyncio.AbstractEventLoop, "Done[Any]"]
_Jobs: TypeAlias = "queue.SimpleQueue[_Waiting | None]"


class _Worker:
    """One long-lived thread with a queue: `asyncio.to_thread` would cost 0.14 ms a call."""

    def __init__(self, name: str, connection: sqlite3.Connection, room: Room | None = None) -> None:
        self.connection = connection
        self.jobs: _Jobs = queue.SimpleQueue()
        self.thread = threading.Thread(
            target=_serve,
            args=(self.jobs, connection, room),
            name=f"diptych-sqlite-{name}",
            daemon=True,
        )
        self.thread.start()


def _enqueue(jobs: _Jobs, job: Job[T], done: Done[T]) -> None:
    jobs.put((job, asyncio.get_running_loop(), done))


def _future(jobs: _Jobs, job: Job[T]) -> asyncio.Future[T]:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    jobs.put((job, loop, partial(settle, future)))
    return future


def _serve(jobs: _Jobs, connection: sqlite3.Connection, room: Room | None = None) -> None:
    while (waiting := jobs.get()) is not None:
        job, loop, done = waiting
        result: Any = None
        failure: BaseException | None = None
        try:
            result = job(connection)
        except sqlite3.DatabaseError as error:
            failure = failure_of(error, connection)
            failure.__cause__ = error
        except BaseException as error:  # handed to the caller, whatever it is
            failure = error
        with suppress(RuntimeError):  # the loop has been closed: nobody waits any more
            loop.call_soon_threadsafe(done, result, failure)
        del waiting, job, done, result, failure
        if room is not None and not room.enough and jobs.empty():
            room.keep()


@contextmanager
def transaction(connection: sqlite3.Connection) -> Generator[None]:
    """Hold the write lock from the start; commit at the end, or roll back when something raises."""
    patiently(lambda: connection.execute("BEGIN IMMEDIATE"))
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


@contextmanager
def spilling(connection: sqlite3.Connection) -> Generator[None]:
    """Let what must be sorted go to temporary files meanwhile; to be entered outside transactions.

    They lie where SQLITE_TMPDIR or TMPDIR says, else in /var/tmp.
    """
    connection.execute("PRAGMA temp_store = FILE")
    try:
        yield
    finally:
        connection.execute("PRAGMA temp_store = MEMORY")


def patiently(work: Callable[[], T]) -> T:
    """Do what needs a lock that others may hold for long, and may be tried again from the start."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            return work()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise


_FAULTS = frozenset(
    {
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_RANGE,
        sqlite3.SQLITE_TOOBIG,
    }
)


def is_faulty(error: sqlite3.Error) -> bool:
    """Whether the statement or its values are at fault, not the database."""
    if isinstance(error, sqlite3.ProgrammingError):
        return True  # of Python's driver: values that do not fit the statement
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _FAULTS


def failure_of(
    error: sqlite3.DatabaseError, connection: sqlite3.Connection | None = None
) -> Exception:
    """Return the library's error for one of SQLite's: what callers can do something about."""
    if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_READONLY:
        return _read_only(error, connection)
    if isinstance(error, sqlite3.OperationalError):
        return Unavailable("SQLite refused the work; nothing of it was stored", why=error)
    if type(error) is sqlite3.DatabaseError:
        return LogUnusable(
            "SQLite finds the file damaged; restore it from a backup, or recover it with the "
            "sqlite3 shell's .recover",
            why=error,
        )
    return error  # a fault in a statement of ours, or a value that cannot be bound


def _read_only(error: sqlite3.Error, connection: sqlite3.Connection | None) -> Unavailable:
    path = ""
    if connection is not None:
        with suppress(sqlite3.Error):
            path = connection.execute("PRAGMA database_list").fetchone()[2]
    return Unavailable(
        "The SQLite file, or its folder, where SQLite keeps files beside it, may not be written by "
        "this user; nothing was stored, and trying again does not help",
        path=path or "?",
        user=getattr(os, "geteuid", lambda: "?")(),
        why=error,
    )


def is_frozen(path: Path) -> bool:
    """Whether a file is one that this user may only read, and in whose folder he can make none.

    SQLite then cannot keep what WAL needs beside it. Where nothing is left in a WAL, the file can
    be read as it is: a copy, or a backup.
    """
    wal = path.with_name(path.name + "-wal")
    return (
        path.is_file()
        and not os.access(path, os.W_OK, effective_ids=_EFFECTIVE)
        and not os.access(path.parent, os.W_OK, effective_ids=_EFFECTIVE)
        and not (wal.exists() and wal.stat().st_size)
    )


_EFFECTIVE = os.access in os.supports_effective_ids


def is_missing(path: Path) -> bool:
    """Whether there is no file, or an empty one: opening it would make a new database."""
    return not (path.exists() and path.stat().st_size)


def refuse_network(path: Path) -> None:
    """Raise ``LogUnusable`` for a file on a network file system: WAL needs shared memory."""
    try:
        mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return  # not Linux: no portable way to ask
    kind = filesystem_of(path.resolve(), mounts)
    if kind in _NETWORK:
        raise LogUnusable(
            "SQLite's write-ahead log does not work on a network file system; use a local disk, "
            "or PostgreSQL",
            path=path,
            filesystem=kind,
        )


def filesystem_of(path: Path, mounts: list[str]) -> str:
    """Return the type of the file system that holds a path, from lines of /proc/mounts."""
    best, kind = -1, ""
    for line in mounts:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = Path(fields[1].replace("\\040", " "))
        if path.is_relative_to(point) and len(point.parts) > best:
            best, kind = len(point.parts), fields[2]
    return kind


def has_wal_reset_bug(version: tuple[int, ...]) -> bool:
    """Whether this version of SQLite can lose a checkpoint race: https://sqlite.org/wal.html."""
    backported = {(3, 50): (3, 50, 7), (3, 44): (3, 44, 6)}
    return version < backported.get((version[0], version[1]), (3, 51, 3))


def warn_of_version() -> None:
    """Warn once a process when the linked SQLite has the WAL-reset bug."""
    if has_wal_reset_bug(sqlite3.sqlite_version_info):
        warnings.warn(
            f"SQLite {sqlite3.sqlite_version} has the WAL-reset bug: with several processes on one "
            "file a commit can be lost in a rare race; use 3.51.3 or later, 3.50.7 or 3.44.6",
            SqliteVersionWarning,
            stacklevel=2,
        )
