"""What must hold: ratios of medians of the same run, and a few plain figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

from msgspec import Struct

from bench.figures import OURS, Results
from bench.peers import events_peer, uma
from bench.scenarios import asking, catch_up, commands, doors, growth, memory, readable, reading
from bench.setup import Sizes


class Bar(Struct, frozen=True):
    """A bar of a run. ``measured`` is None where something was not measured: it does not hold."""

    scenario: int
    name: str
    required: float
    measured: float | None
    held: bool


Measured: TypeAlias = Callable[[Results], float | None]

COMMANDS: Final = "commands/s"
EVENTS: Final = "events/s"


class Required(Struct, frozen=True):
    """A bar to be held: at least, or ``at_most``, so much."""

    scenario: int
    name: str
    required: float
    measured: Measured
    at_most: bool = False

    def judge(self, results: Results) -> Bar:
        """Compare what was measured with what is required."""
        found = self.measured(results)
        held = found is not None and (
            found <= self.required if self.at_most else found >= self.required
        )
        measured = None if found is None else float(f"{found:.4g}")
        return Bar(self.scenario, self.name, self.required, measured, held)


def figure(
    scenario: int, backend: str, unit: str, in_flight: int | None = None, *, name: str | None = None
) -> Measured:
    """Ours alone."""
    return lambda results: _best(
        results.of(scenario, backend, OURS, unit, in_flight=in_flight, name=name)
    )


def ratio(
    scenario: int,
    backend: str,
    unit: str,
    subject: str,
    *,
    in_flight: int | None = None,
    name: str | None = None,
    same: bool = False,
) -> Measured:
    """Ours by the best figure of another; ``same``: at the same number in flight."""

    def measured(results: Results) -> float | None:
        own = results.of(scenario, backend, OURS, unit, in_flight=in_flight, name=name)
        beside = in_flight if same else None
        others = results.of(scenario, backend, subject, unit, in_flight=beside, name=name)
        return own[0] / max(others) if own and others else None

    return measured


def _best(found: list[float]) -> float | None:
    return max(found, default=None)


def growth_of(backend: str, work: str, sizes: Sizes) -> Measured:
    """The cost per event in the largest log, by that in the small one."""

    def measured(results: Results) -> float | None:
        small, large = (
            results.of(8, backend, growth.subject(events), growth.UNIT, name=work)
            for events in (sizes.small, max(sizes.events, sizes.largest))
        )
        return large[0] / small[0] if small and large else None

    return measured


def boundary_of(backend: str, events: int) -> Measured:
    """What one boundary takes to be read in a log of a size."""

    def measured(results: Results) -> float | None:
        found = results.of(8, backend, growth.subject(events), "p99 ms", name=growth.BOUNDARY)
        return _best(found)

    return measured


def bars(results: Results, sizes: Sizes, only: Iterable[int], backends: Iterable[str]) -> list[Bar]:
    """Judge the bars of the scenarios (none given: all) and backends of a run."""
    wanted = set(only)
    return [
        required.judge(results)
        for backend in backends
        for required in _required(backend, sizes)
        if not wanted or required.scenario in wanted
    ]


def _required(backend: str, sizes: Sizes) -> list[Required]:
    most = max(sizes.in_flight)
    label = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}[backend]
    peer, faster = events_peer.SUBJECT, events_peer.FASTER
    commit = ratio(1, backend, COMMANDS, commands.GROUP_COMMIT, in_flight=most, same=True)
    first = f"1 orders at {most}, {label}"
    at_one = ratio(1, backend, COMMANDS, peer, in_flight=most)
    found = [Required(1, f"{first}: at least 0.5 times the bare group commit", 0.5, commit)]
    if backend == "sqlite":
        found += [
            Required(1, f"{first}: at least 12 times eventsourcing", 12, at_one),
            Required(1, f"{first}: commands/s", 15_000, figure(1, backend, COMMANDS, most)),
            Required(
                2, f"2 hot boundary, {label}: commands/s", 5_000, figure(2, backend, COMMANDS)
            ),
        ]
    else:
        found += [
            Required(1, f"{first}: at least 25 times eventsourcing's default mode", 25, at_one),
            Required(
                1,
                f"{first}: at least 10 times eventsourcing with DB functions",
                10,
                ratio(1, backend, COMMANDS, faster, in_flight=most),
            ),
            Required(
                1,
                f"{first}: at least 4 times UmaDB",
                4,
                ratio(1, backend, COMMANDS, uma.SUBJECT, in_flight=most),
            ),
            Required(
                2, f"2 hot boundary, {label}: commands/s", 10_000, figure(2, backend, COMMANDS)
            ),
            Required(
                2,
                f"2 hot boundary, {label}: at least 15 times eventsourcing",
                15,
                ratio(2, backend, COMMANDS, peer),
            ),
        ]
    found.append(
        Required(
            3,
            f"3 one client, {label}: p50 at most 1.6 times a bare durable insert",
            1.6,
            ratio(3, backend, "p50 ms", commands.INSERT),
            at_most=True,
        )
    )
    fold = f"4 catch-up, {label}"
    found.append(
        Required(
            4,
            f"{fold}: at least 0.4 times the bare loop",
            0.4,
            ratio(4, backend, EVENTS, catch_up.FLOOR),
        )
    )
    if backend == "postgresql":
        found += [
            Required(
                4,
                f"{fold}: at least 80 times eventsourcing's runner",
                80,
                ratio(4, backend, EVENTS, peer),
            ),
            Required(4, f"{fold}: events/s", 60_000, figure(4, backend, EVENTS)),
            Required(
                5,
                f"5 event to readable, {label}: p99 at most 100 ms",
                100,
                figure(5, backend, "p99 ms", name=readable.ONE),
                at_most=True,
            ),
            Required(
                5,
                f"5 event to readable, four projections, {label}: p99 at most 150 ms",
                150,
                figure(5, backend, "p99 ms", name=readable.FOUR),
                at_most=True,
            ),
        ]
    found.append(
        Required(
            6,
            f"6 reading, {label}: at least 0.6 times bare pages decoded by msgspec",
            0.6,
            ratio(6, backend, EVENTS, reading.FLOOR),
        )
    )
    for way in asking.WAYS:
        found.append(
            Required(
                7,
                f"7 query {way}, {label}: at most 1.5 times SQLAlchemy alone",
                1.5,
                ratio(7, backend, asking.UNIT, asking.FLOOR, name=f"query {way}"),
                at_most=True,
            )
        )
    over = ratio(10, backend, COMMANDS, doors.HANDLER)
    if backend == "postgresql":
        found += [
            Required(
                10, f"10 commands over HTTP, {label}: at least 0.5 times a bare handler", 0.5, over
            ),
            Required(
                10,
                f"10 commands over HTTP, {label}: p99 at half of that at most 60 ms",
                60,
                figure(10, backend, doors.LATENCY),
                at_most=True,
            ),
        ]
    found.append(
        Required(
            11,
            f"11 query by key over HTTP, {label}: at least 0.6 times a bare handler",
            0.6,
            ratio(11, backend, doors.QUERIES, doors.HANDLER),
        )
    )
    large = max(sizes.events, sizes.largest)
    for work in growth.WORKS:
        found.append(
            Required(
                8,
                f"8 {work}, {label}: an event at {large:,} at most 1.25 times at {sizes.small:,}",
                1.25,
                growth_of(backend, work, sizes),
                at_most=True,
            )
        )
    for events in sorted({sizes.small, sizes.events, sizes.largest}):
        found.append(
            Required(
                8,
                f"8 one boundary, {label}: p99 at most 1 ms at {events:,} events, by an index",
                1,
                boundary_of(backend, events),
                at_most=True,
            )
        )
    for work, unit in (("catch-up", memory.CATCH_UP), ("rebuild", memory.REBUILD)):
        found.append(
            Required(
                9,
                f"9 memory of a {work}, {label}: at most 300 MB at every size",
                300,
                figure(9, backend, unit),
                at_most=True,
            )
        )
    return found
