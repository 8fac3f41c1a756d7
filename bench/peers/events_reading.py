"""eventsourcing's read side: its projection runner, and its notification log."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import urlsplit

from bench.figures import Backend, Figures, NotHere
from bench.peers.events_peer import SUBJECT, Mode, environment, orders_module
from bench.places import Place
from bench.setup import Setup

_MODE = Mode(SUBJECT)


async def catch_up(setup: Setup, backend: Backend, place: Place) -> Figures:
    """Run its projection runner from the start of a log until it is at its end."""
    module = orders_module()
    if backend == "sqlite":
        raise NotHere("eventsourcing has no subscriptions on SQLite")
    log = await setup.prepared(backend, SUBJECT, setup.sizes.peer_events, fill)
    from eventsourcing.projection import ProjectionRunner

    settings = environment(log.url, _MODE, 3)
    # The view's tables are in a database of their own, new for each measurement.
    settings["SUMMARYPROJECTION_POSTGRES_DBNAME"] = urlsplit(place.database()).path[1:]
    began = time.perf_counter()
    with ProjectionRunner(
        application_class=module.Orders,
        projection_class=module.SummaryProjection,
        view_class=module.Summaries,
        env=settings,
    ) as runner:
        runner.wait(log.events, timeout=300)
        seconds = time.perf_counter() - began
    return {"events/s": log.events / seconds}


async def fill(url: str, events: int) -> None:
    """Put so many events (a multiple of four) into its log."""
    app = orders_module().Orders(environment(url, _MODE, 1))
    _fill(app, events)
    app.close()


def _fill(app: Any, events: int) -> None:
    module = orders_module()
    for number in range(events // 4):
        order = module.Order(f"o-{number}", "ann")
        order.add("tea", 2)
        order.add("cup", 1)
        order.confirm()
        app.save(order)


async def read(events: int, place: Place) -> Figures:
    """Read its log in pages of 1,000 notifications, and map them to domain events."""
    app = orders_module().Orders(environment(place.database(), _MODE, 1))
    _fill(app, events)
    began = time.perf_counter()
    count, start = 0, 1
    while found := app.recorder.select_notifications(start, 1000):
        count += len([app.mapper.to_domain_event(notification) for notification in found])
        start = found[-1].id + 1
    seconds = time.perf_counter() - began
    app.close()
    assert count == events // 4 * 4
    return {"events/s": count / seconds}
