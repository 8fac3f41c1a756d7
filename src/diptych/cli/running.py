"""Opens the application for one command, and runs it on an event loop."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import warnings
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TextIO, TypeVar

from diptych.app import Module
from diptych.app.databases import Create, Rebuild, ViewsAt
from diptych.app.running import Opening, Running
from diptych.cli.failures import UsageError, warn
from diptych.cli.options import Options
from diptych.errors import SqliteVersionWarning
from diptych.log import Log

T = TypeVar("T")


def run(
    work: Coroutine[Any, Any, T],
    *,
    stays: bool = False,
    loop: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> T:
    """Run to the end; Ctrl-C closes the application first. ``loop`` makes the event loop.

    A fault of the linked SQLite is told in one line, and only by a process that ``stays``: one that
    is started again and again would say it each time.
    """
    with warnings.catch_warnings():
        show, told = warnings.showwarning, not stays

        def once(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            nonlocal told
            if not issubclass(category, SqliteVersionWarning):
                show(message, category, filename, lineno, file, line)
            elif not told:
                told = True
                warn(
                    f"SQLite {sqlite3.sqlite_version} may lose a commit when several processes "
                    "write to one file (the WAL-reset bug, https://sqlite.org/wal.html): use "
                    "3.51.3 or later, 3.50.7 or 3.44.6; PYTHONWARNINGS=ignore:SQLite says no more"
                )

        warnings.showwarning = once
        with asyncio.Runner(loop_factory=loop) as runner:
            return runner.run(work)


@asynccontextmanager
async def opened(
    app: Module,
    options: Options,
    *,
    create: Create,
    projections: bool = False,
    rebuild: Rebuild = "manual",
    verify_every: float | None = None,
    away: bool = False,
    spare: bool = False,
) -> AsyncGenerator[Running]:
    """Open the application on log and views; ``create`` says what may be made.

    ``rebuild``: one command does not deploy, so versions that are new are built by those only that
    go on: workers, and who is asked to. ``away``: read databases need not answer.
    ``spare``: some may be given that no view names.
    """
    log, views = addresses(options)
    async with Opening(
        app.compile(),
        log,
        views,
        None,
        projections=projections,
        create=create,
        rebuild=rebuild,
        verify_every=verify_every,
        away=away,
        spare=spare,
    ) as running:
        yield running


@asynccontextmanager
async def opened_log(options: Options) -> AsyncGenerator[Log]:
    """Open a log without its application: its events as they are stored."""
    log = _given(options.log, "log")
    opening = Module("log").open(log=log, views="memory:", projections=False, create="nothing")
    async with opening as running:
        yield running.log


def addresses(options: Options) -> tuple[str, ViewsAt]:
    """Return where the log is, and where the views are."""
    return _given(options.log, "log"), _views(options.views)


def _given(url: str, what: str) -> str:
    verb = "is" if what == "log" else "are"
    if not url:
        hint = f"--{what} sqlite:///FILE (or DIPTYCH_{what.upper()})"
        if what == "views":
            hint += "; the log's URL keeps both in one database"
        raise UsageError(f"Say where the {what} {verb}", code=f"no-{what}", hint=hint)
    return url


_COMMA = re.compile(r",(\s|[\w-]+=\w+:)")  # not the one between PostgreSQL's hosts


def _views(text: str) -> ViewsAt:
    """Read one URL, or ``main=URL reports=URL``."""
    words = text.split()
    named = [(name, url) for name, _, url in (word.partition("=") for word in words) if url]
    if not any(_is_name(name) for name, _ in named):
        return _given(text, "views")
    if (
        len(named) < len(words)
        or not all(_is_name(name) for name, _ in named)
        or _COMMA.search(text)
    ):
        raise UsageError(
            "Several read databases are given by their names, with spaces between",
            code="usage",
            hint='--views "main=URL reports=URL"; in a URL, a space is %20 and a comma %2C',
            got=text,
        )
    return dict(named)


def _is_name(text: str) -> bool:
    return text.replace("-", "_").isidentifier()
