"""Opens the application for one command, and runs it on an event loop."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncGenerator, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any, TextIO, TypeVar

from diptych.app import Module
from diptych.app.databases import ViewsAt, Where
from diptych.app.running import Running
from diptych.cli.failures import UsageError, warn
from diptych.cli.options import Options
from diptych.errors import SqliteVersionWarning
from diptych.log import Log

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end; Ctrl-C closes the application first."""
    with warnings.catch_warnings():
        show, told = warnings.showwarning, set[str]()

        def once(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if not issubclass(category, SqliteVersionWarning):
                show(message, category, filename, lineno, file, line)
            elif str(message) not in told:
                told.add(str(message))
                warn(str(message))

        warnings.showwarning = once
        return asyncio.run(work)


@asynccontextmanager
async def opened(
    app: Module, options: Options, *, create: bool, views: bool = False, projections: bool = False
) -> AsyncGenerator[Running]:
    """Open the application on log and views.

    Unless ``create``, the log must be there already; with ``views``, the views too.
    """
    log = _given(options.log, "log", must_exist=not create)
    where = _views(options.views, must_exist=views)
    async with app.open(log=log, views=where, projections=projections) as running:
        yield running


@asynccontextmanager
async def opened_log(options: Options) -> AsyncGenerator[Log]:
    """Open a log without its application: its events as they are stored."""
    log = _given(options.log, "log", must_exist=True)
    async with Module("log").open(log=log, views="memory:", projections=False) as running:
        yield running.log


def addresses(options: Options, *, must_exist: bool) -> tuple[str, ViewsAt]:
    """Return where the log is, and where the views are."""
    log = _given(options.log, "log", must_exist=must_exist)
    return log, _views(options.views, must_exist=must_exist)


def _given(url: str, what: str, *, must_exist: bool) -> str:
    verb = "is" if what == "log" else "are"
    if not url:
        hint = f"--{what} sqlite:///FILE (or DIPTYCH_{what.upper()})"
        if what == "views":
            hint += "; the log's URL keeps both in one database"
        raise UsageError(f"Say where the {what} {verb}", code=f"no-{what}", hint=hint)
    path = Where.parse(url, what).path
    if path is not None and must_exist and not (path.exists() and path.stat().st_size):
        verb = "do" if what == "log" else "ask"
        raise UsageError(
            f"There {'is no log' if what == 'log' else 'are no views'} at that address",
            code=f"no-{what}",
            hint=f"check the path; the first `diptych {verb}` makes the file",
            file=path,
        )
    return url


def _views(text: str, *, must_exist: bool) -> ViewsAt:
    """Read one URL, or ``main=URL reports=URL``."""
    named = dict(_named(text))
    if not named:
        return _given(text, "views", must_exist=must_exist)
    return {name: _given(url, "views", must_exist=must_exist) for name, url in named.items()}


def _named(text: str) -> Iterator[tuple[str, str]]:
    for word in text.split():
        name, equals, url = word.partition("=")
        if equals and name.replace("-", "_").isidentifier():
            yield name, url
