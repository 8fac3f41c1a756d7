"""``diptych parked``: the events that projections cannot apply."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, TypeAlias

from cyclopts import App, Parameter

from diptych.cli.asking import sure
from diptych.cli.failures import NO, OK, UsageError
from diptych.cli.options import Given
from diptych.cli.steering import Acting, login, work

if TYPE_CHECKING:
    from diptych.app.running import Running
    from diptych.read.parking.desk import Parked, ParkedKey
    from diptych.read.parking.retrying import Retried

parked = App(name="parked", help="Look at, retry and skip events that projections cannot apply.")

Projection: TypeAlias = Annotated[str, Parameter(help="Which projection.")]
Key: TypeAlias = Annotated[
    str | None, Parameter(help="Which key, as `parked list` shows it; a handler has none.")
]


@parked.command(name="list")
def list_(
    *projections: Annotated[str, Parameter(help="Of which projections [default: all].")],
    options: Given,
) -> int:
    """Show the keys that wait behind an event which cannot be applied, and what was raised.

    `skipped` are events that were passed over for good. On a terminal an error is cut to one line;
    `parked show` has it whole. Ends with status 1 when any key waits.
    """
    from diptych.cli.screen import seconds, write_json

    found = work(options, lambda running: running.parked.keys(*projections))
    waiting = any(one.events for one in found)
    if options.json:
        write_json({"parked": found})
        return NO if waiting else OK
    columns = {"projection": False, "key": False, "events": True, "skipped": True, "first": True}
    columns |= {"event": False, "tried": True, "age": True, "error": False}
    rows: list[tuple[str, ...]] = []
    for one in found:
        error = ": ".join(filter(None, (one.kind, one.error)))
        first = str(one.position) if one.events else ""
        tried = str(one.attempts) if one.events else ""
        age = seconds(_age(one)) if one.events else ""
        values = (one.projection, _key(one), str(one.events), str(one.skipped), first)
        rows.append((*values, one.event, tried, age, error))
    _print(columns, rows)
    return NO if waiting else OK


def _key(one: ParkedKey | Retried) -> str:
    """Return a key as people are shown it; a handler has none."""
    return "(none)" if one.key in ("", "null") else one.key


def _print(columns: dict[str, bool], rows: Sequence[tuple[str, ...]]) -> None:
    """Print a table of which the errors are cut to the screen; `show` tells them whole."""
    from diptych.cli.screen import screen
    from diptych.cli.tables import fitted

    console = screen()
    shown = fitted(console, columns, rows, cut="error")
    console.print(shown if rows else "nothing is parked", soft_wrap=True)


@parked.command
def show(projection: Projection, key: Key = None, /, *, options: Given) -> None:
    """Show the events of a key that wait or were skipped, in their order.

    Of a handler: the event that it stands before, as it fails on it, and those that were skipped.
    """
    from diptych.cli.screen import moment, screen, write_json
    from diptych.cli.tables import fitted

    found = work(options, lambda running: running.parked.show(projection, key))
    if options.json:
        write_json({"parked": found})
        return
    columns = {"position": True, "event": False, "time": False, "tried": True, "state": False}
    rows = [
        (
            str(one.position),
            one.event,
            moment(one.time, precise=False),
            str(one.attempts),
            one.state,
            _what(one),
        )
        for one in found
    ]
    console = screen()
    console.print(fitted(console, columns | {"what": False}, rows), soft_wrap=True)


def _what(one: Parked) -> str:
    if one.state == "skipped":
        return f"{one.actor}: {one.why}"
    return ": ".join(filter(None, (one.kind, one.error))) or "waits for those before it"


@parked.command
def retry(
    projection: Annotated[str | None, Parameter(help="Which projection.")] = None,
    key: Annotated[str | None, Parameter(help="Which key [default: all of it].")] = None,
    /,
    *,
    all_: Annotated[bool, Parameter(name="--all", help="Of all projections.", negative="")] = False,
    options: Given,
) -> int:
    """Apply what is parked, in its order, with the code at hand, until something fails again.

    Works beside workers that run. The event that a handler stands before is left to them: they try
    it again by themselves, within 30 seconds. Ends with status 1 when something stays parked.
    """
    from diptych.cli.screen import write_json

    if (projection is None) != all_:
        raise UsageError("Say which projection, or --all", hint="diptych parked retry --all")
    found: list[Retried] = work(options, lambda running: running.parked.retry(projection, key))
    left = any(one.left for one in found)
    if options.json:
        write_json({"retried": found})
        return NO if left else OK
    columns = {"projection": False, "key": False, "applied": True, "left": True, "error": False}
    rows = [
        (one.projection, _key(one), str(one.applied), str(one.left), one.error) for one in found
    ]
    _print(columns, rows)
    return NO if left else OK


@parked.command
def skip(
    projection: Projection,
    key: Key = None,
    /,
    *,
    why: Annotated[str, Parameter(help="The reason; it is kept.")],
    position: Annotated[
        int | None, Parameter(help="Which event of the key [default: the first].")
    ] = None,
    actor: Acting = None,
    yes: Annotated[bool, Parameter(help="Do it without asking.", negative="")] = False,
    options: Given,
) -> int:
    """Pass over one event for good; what waits behind it is applied by `retry`.

    It is kept with who did it and why; `verify` expects it no more. Of a handler: the event that it
    fails on and stands before; where there is none, nothing is skipped.
    """
    from diptych.cli.screen import harmless, write_json

    of = f" of key {key}" if key is not None else ""
    # What is not there is said before anything is asked, and what was asked for is skipped.
    due = work(options, lambda running: running.parked.due(projection, key, position=position))
    event = harmless(f"{due.event} at position {due.position} ({_what(due)})")
    if not sure([f"{projection}{of}: {event} will never be applied"], yes=yes):
        return NO
    who = login(actor)

    async def done(running: Running) -> Parked:
        return await running.parked.skip(projection, key, actor=who, why=why, position=due.position)

    skipped = work(options, done)
    if options.json:
        write_json({"skipped": skipped})
    else:
        print(harmless(f"{skipped.event} at position {skipped.position} is skipped"))
    return OK


def _age(one: ParkedKey) -> float:
    from datetime import UTC, datetime

    return 0.0 if one.time is None else max((datetime.now(UTC) - one.time).total_seconds(), 0.0)
