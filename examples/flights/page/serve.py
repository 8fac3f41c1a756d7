"""Serves the board while the flights are replayed."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import warnings
import webbrowser
from collections.abc import Coroutine
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import uvicorn
from rich.console import Console

from diptych import Limits
from diptych.errors import SqliteVersionWarning
from diptych.http.serving import bound
from examples.flights import app
from examples.flights.page.bell import Bell
from examples.flights.page.clock import Clock, Replay
from examples.flights.page.desk import Desk
from examples.flights.page.leash import Leash
from examples.flights.page.site import site_of
from examples.flights.replay.commands import commands
from examples.flights.replay.file import Slice, open_flights

HOST: Final = "127.0.0.1"
FOLDER: Final = Path("build/board")
BEGIN: Final = datetime(2013, 1, 2, 19, 30, tzinfo=UTC)
"""Half past two in New York, on the second day of the year."""

GRACE: Final = 2
"""Seconds that streams are given to end."""


async def serve(
    *,
    log: str | None = None,
    views: str | None = None,
    slice: Slice = "first_week",
    since: datetime = BEGIN,
    speed: float = 1.0,
    slow: bool = False,
    fresh: bool = False,
    port: int = 0,
    browser: bool = False,
) -> int:
    """Serve until SIGINT or SIGTERM. Without addresses log and views are in ``build/board``."""
    warnings.simplefilter("ignore", SqliteVersionWarning)
    if log is None or views is None:
        if fresh:
            shutil.rmtree(FOLDER, ignore_errors=True)
        FOLDER.mkdir(parents=True, exist_ok=True)
    log = log or f"sqlite:///{FOLDER}/log.db"
    views = views or f"sqlite:///{FOLDER}/views.db"
    limits = Limits(states=20_000)
    sock = bound(HOST, port)
    async with AsyncExitStack() as stack:
        opening = app.open(log=log, views=views, limits=limits, projections=False)
        running = await stack.enter_async_context(opening)
        flights = stack.enter_context(open_flights())
        bell = Bell()
        clock = Clock(since, speed, bell)
        replay = Replay(running, clock, commands(flights, slice))
        await replay.load()
        await running.catch_up()
        leash = Leash(running, bell, slow=slow)
        desk = Desk(running, clock, leash, bell)
        server = _Server(desk, f"http://{HOST}:{sock.getsockname()[1]}/", open_browser=browser)
        work = (replay.run(), leash.run(), leash.watch())
        await _together(server.serve(sockets=[sock]), work)
    return 0


async def _together(
    serving: Coroutine[Any, Any, None], work: tuple[Coroutine[Any, Any, None], ...]
) -> None:
    """Work while it is served; what goes wrong in the work ends both."""
    tasks = [asyncio.create_task(one) for one in (serving, *work)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError, KeyboardInterrupt):
                await task


class _Server(uvicorn.Server):
    """One that says where it is, and ends the streams when it is to stop."""

    def __init__(self, desk: Desk, url: str, *, open_browser: bool) -> None:
        super().__init__(
            uvicorn.Config(
                site_of(desk),
                log_level="warning",
                access_log=False,
                server_header=False,
                lifespan="off",
                ws="none",
                timeout_graceful_shutdown=GRACE,
            )
        )
        self._desk = desk
        self._url = url
        self._open_browser = open_browser

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        console = Console(highlight=False)
        console.print(f"The board is at {self._url}  [dim](Ctrl-C ends it)[/]", soft_wrap=True)
        sys.stdout.flush()
        if self._open_browser and has_browser():
            await asyncio.to_thread(webbrowser.open, self._url)

    async def shutdown(self, sockets: Any = None) -> None:
        self._desk.close()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: Any) -> None:
        self.should_exit, self.force_exit = True, self.should_exit


def has_browser() -> bool:
    """Whether a browser with a window of its own could be opened; not one in the terminal."""
    if sys.platform == "darwin":
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
