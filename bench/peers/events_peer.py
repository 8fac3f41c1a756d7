"""eventsourcing: orders, one hot order, latency, catch-up by its runner, reading its log."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from bench.figures import Backend, Figures, NotHere
from bench.peers.threads import run_threads
from bench.places import Place, file_of
from bench.timing import percentiles

SUBJECT: Final = "eventsourcing"
FASTER: Final = "eventsourcing, DB functions"
WARNING: Final = (
    f"{FASTER}: POSTGRES_ENABLE_DB_FUNCTIONS inserts without the table lock that its default mode "
    "takes; notification ids can then become visible out of order, and its readers can miss events"
)


class Mode(Struct, frozen=True):
    """A way to run it. ``cached``: with aggregates kept in memory and not read again."""

    subject: str
    functions: bool = False
    cached: bool = False


def modes(backend: Backend, *, cached: bool = False) -> list[Mode]:
    """Return how it runs on a backend: in its default mode, faster, and (if asked) from a cache."""
    found = [Mode(SUBJECT), Mode(FASTER, True)] if backend == "postgresql" else [Mode(SUBJECT)]
    if cached:
        found += [Mode(f"{mode.subject}, cached", mode.functions, True) for mode in found]
    return found


def orders_module() -> ModuleType:
    try:
        return importlib.import_module("bench.peers.events_orders")
    except ImportError as error:
        raise NotHere(f"eventsourcing is not installed ({error})") from error


def environment(url: str, mode: Mode, threads: int) -> dict[str, str]:
    """Return its settings: a connection for each thread, as its documentation advises.

    Its cache looks for newer events at each command unless told that this process is alone.
    """
    cache = {"AGGREGATE_CACHE_MAXSIZE": "1000", "AGGREGATE_CACHE_FASTFORWARD": "n"}
    if not mode.cached:
        cache = {}
    if url.startswith("sqlite:"):
        return {
            "PERSISTENCE_MODULE": "eventsourcing.sqlite",
            "SQLITE_DBNAME": file_of(url),
            "SQLITE_LOCK_TIMEOUT": "30",
            **cache,
        }
    parts = urlsplit(url)
    return {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": parts.path.removeprefix("/"),
        "POSTGRES_HOST": parts.hostname or "127.0.0.1",
        "POSTGRES_PORT": str(parts.port or 5432),
        "POSTGRES_USER": unquote(parts.username or "postgres"),
        "POSTGRES_PASSWORD": unquote(parts.password or "postgres"),
        "POSTGRES_POOL_SIZE": str(threads),
        "POSTGRES_MAX_OVERFLOW": "2",
        "POSTGRES_ENABLE_DB_FUNCTIONS": "y" if mode.functions else "n",
        **cache,
    }


async def orders(mode: Mode, threads: int, count: int, place: Place) -> Figures:
    """Order workloads, each thread at its own orders."""
    app = orders_module().Orders(environment(place.database(), mode, threads))
    each = max(1, count // threads // 4)

    def client(number: int) -> None:
        for turn in range(each):
            app.workload(f"o-{number}-{turn}")

    try:
        return {"commands/s": threads * each * 4 / run_threads(threads, client)}
    finally:
        app.close()


async def hot(mode: Mode, threads: int, count: int, place: Place) -> Figures:
    """All threads at one order; a conflict is tried again, from the aggregate in its cache.

    Without the cache it would read the whole order at each command. With it, it looks for newer
    events first, or conflicts would never end.
    """
    settings = environment(place.database(), mode, threads)
    app = orders_module().Orders({**settings, "AGGREGATE_CACHE_MAXSIZE": "1000"})
    order = app.open("hot", "ann")
    each = max(1, count // threads)

    def client(_: int) -> None:
        for _turn in range(each):
            app.add_again(order, "tea", 2)

    try:
        return {"commands/s": threads * each / run_threads(threads, client)}
    finally:
        app.close()


async def latency(mode: Mode, count: int, place: Place) -> Figures:
    """One thread, one command after the other."""
    app = orders_module().Orders(environment(place.database(), mode, 1))
    taken: list[float] = []

    def timed(work: Callable[..., Any], *arguments: object) -> Any:
        began = time.perf_counter()
        answer = work(*arguments)
        taken.append(time.perf_counter() - began)
        return answer

    try:
        for number in range(max(1, count // 4)):
            order = timed(app.open, f"o-{number}", "ann")
            timed(app.add, order, "tea", 2)
            timed(app.add, order, "cup", 1)
            timed(app.confirm, order)
    finally:
        app.close()
    return percentiles(taken)
