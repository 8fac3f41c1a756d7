"""``diptych status`` and ``diptych verify``: how far the views are, and whether they are right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from diptych.cli.failures import NO, OK
from diptych.cli.options import Given

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from diptych.read.status import Status
    from diptych.read.verify import Verdict


def status(*, options: Given) -> None:
    """Show how far each projection is behind the log.

    Positions and lag count events; `behind` is the age of the oldest event not yet applied. An
    effect is one event applied to one key, so an event may have several, or none. `fresh within`
    is what was promised; late: the oldest event has waited longer. Nothing is applied by looking.
    """
    from diptych.cli.loading import load
    from diptych.cli.running import opened, run
    from diptych.cli.screen import screen, write_json

    app = load(options.app)

    async def look() -> tuple[str, int, list[Status]]:
        async with opened(app, options, create="nothing") as running:
            return running.log.identity, await running.log.head(), await running.status()

    identity, head, found = run(look())
    if options.json:
        projections = [_status_data(one) for one in found]
        write_json({"log": identity, "head": head, "projections": projections})
        return
    from rich.text import Text

    from diptych.cli.screen import seconds
    from diptych.cli.tables import make_table

    console = screen()
    console.print(Text.assemble(("log ", "dim"), identity, ("  head ", "dim"), str(head)))
    if not found:
        console.print(Text("no projections", "dim"))
        return
    promised = any(one.freshness is not None for one in found)
    table = make_table(
        {"projection": False, "kind": False, "position": True, "lag": True, "behind": True}
        | ({"fresh within": True} if promised else {})
        | {"effects": True, "state": False}
    )
    for one in found:
        table.add_row(
            one.projection,
            "inline" if one.inline else "async",
            str(one.position),
            str(one.lag),
            seconds(one.lag_seconds) if one.lag or one.parked_keys else "-",
            *([_promise(one)] if promised else ()),
            str(one.count),
            Text(_state(one), _STYLES.get(_state(one), "red")),
        )
    console.print(table)
    for one in found:
        if told := _told(one):
            console.print(Text.assemble((f"{one.projection}: ", "yellow"), told), soft_wrap=True)
    for one in found:
        if one.error:
            console.print(Text.assemble((f"{one.projection}: ", "red"), one.error), soft_wrap=True)


_STYLES = {"current": "green", "behind": "yellow"}


def _state(one: Status) -> str:
    """Nobody can tell from outside whether a worker is running, only how far it got."""
    if one.state in ("failed", "refused", "paused"):
        return one.state
    return "behind" if one.lag else "parked" if one.parked_keys else "current"


def _told(one: Status) -> str:
    """Say what operators have done, or have to do."""
    from diptych.cli.screen import harmless, moment

    said: list[str] = []
    if one.paused is not None:
        since = moment(one.paused.since.replace(microsecond=0))
        said.append(f"paused by {one.paused.actor} since {since}: {one.paused.why}")
    if one.parked_keys:
        said.append(f"{one.parked_events} events of {one.parked_keys} keys are parked")
    if one.skipped:
        said.append(f"{one.skipped} events were skipped")
    return harmless("; ".join(said))


def _promise(one: Status) -> Text:
    """Say what was promised, and whether the oldest event not yet applied breaks it just now."""
    from rich.text import Text

    if one.freshness is None:
        return Text("-")
    within = f"{one.freshness.within:g} s"
    return Text(f"{within}, late", "red") if _late(one) else Text(within)


def _late(one: Status) -> bool:
    return one.freshness is not None and one.lag_seconds > one.freshness.within


def _status_data(one: Status) -> dict[str, Any]:
    return {
        "projection": one.projection,
        "kind": "inline" if one.inline else "async",
        "position": one.position,
        "lag": one.lag,
        "lag_seconds": round(one.lag_seconds, 3),
        "applied": one.count,
        "spans": one.spans,
        "state": _state(one),
        "error": one.error,
        "parked_keys": one.parked_keys,
        "parked_events": one.parked_events,
        "skipped": one.skipped,
        "paused": one.paused,
        "fresh_within": None if one.freshness is None else one.freshness.within,
        "late": _late(one),
    }


def verify(
    *projections: Annotated[str, Parameter(help="Which projections [default: all].")],
    since: Annotated[
        Literal["start", "last"], Parameter(help="From the start, or from the last proof on.")
    ] = "start",
    options: Given,
) -> int:
    """Prove that the views applied each event exactly once, up to where they are.

    Reads the log and compares. Names the positions that are missing or were applied twice, and
    ends with status 1 when there are any, or parked keys. An effect is one event applied to one
    key, so an event may have several, or none. What was proved is kept with the views.
    """
    from diptych.cli.loading import load
    from diptych.cli.running import opened, run
    from diptych.cli.screen import screen, write_json

    app = load(options.app)

    async def look() -> list[Verdict]:
        async with opened(app, options, create="nothing") as running:
            return await running.verify(*projections, since=since)

    found = run(look())
    right = all(one.ok and not one.parked for one in found)
    if options.json:
        write_json({"ok": right, "projections": found})
        return OK if right else NO
    from rich.text import Text

    from diptych.cli.tables import make_table

    console = screen()
    table = make_table(
        {"projection": False, "up to": True, "effects": True, "took": True, "result": False}
    )
    for one in found:
        told = Text("ok", "green") if one.ok else Text("differs", "bold red")
        if one.ok and one.parked:
            told = Text("parked", "yellow")
        table.add_row(
            one.projection, str(one.position), str(one.count), f"{one.seconds:.2f} s", told
        )
    console.print(table if found else Text("no projections", "dim"))
    for one in found:
        if not one.ok:
            name = (f"{one.projection}: ", "bold red")
            console.print(Text.assemble(name, one.reason), soft_wrap=True)
            _print_faults(console, one)
        for text in _beside(one):
            console.print(Text(f"{one.projection}: {text}", "yellow"), soft_wrap=True)
    return OK if right else NO


def _beside(one: Verdict) -> list[str]:
    """Say what is not applied, and yet no fault."""
    from diptych.cli.screen import harmless

    said: list[str] = []
    if one.parked:
        said.append(f"{one.parked} effects are parked: `diptych parked list` shows them")
    if one.skipped:
        said.append(f"{one.skipped} effects were skipped")
    if one.unknown:
        types = ", ".join(f"{name}: {count}" for name, count in sorted(one.unknown.items()))
        said.append(harmless(f"unknown types of events: {types}"))
    return said


MOST_FAULTS = 20


def _print_faults(console: Console, verdict: Verdict) -> None:
    from rich.text import Text

    from diptych.cli.screen import cell
    from diptych.cli.tables import make_table

    table = make_table(
        {"fault": False, "position": True, "event": False, "key": False, "id": False}
    )
    for fault in verdict.faults[:MOST_FAULTS]:
        table.add_row(fault.what, str(fault.position), fault.event, cell(fault.key), fault.event_id)
    if verdict.faults:
        console.print(table)
    if (more := len(verdict.faults) - MOST_FAULTS) > 0:
        console.print(Text(f"and {more} more (--json has all)", "dim"))
