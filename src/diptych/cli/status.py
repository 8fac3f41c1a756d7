"""``diptych status``: how far the views are behind the log, once or all the time."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from diptych.cli.failures import UsageError
from diptych.cli.options import Given, Options

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from diptych.app.running import Running
    from diptych.read.status import Status


def status(
    *,
    watch: Annotated[bool, Parameter(help="Go on looking, until Ctrl-C.", negative="")] = False,
    every: Annotated[float, Parameter(help="With --watch: seconds between two looks.")] = 1.0,
    options: Given,
) -> None:
    """Show how far each projection is behind the log.

    Positions and lag count events; `behind` is the age of the oldest event not yet applied. An
    effect is one event applied to one key, so an event may have several, or none. `fresh within`
    is what was promised; late: the oldest event has waited longer. `proved` is what verify found
    last. Nothing is applied by looking.
    """
    from diptych.cli.loading import load
    from diptych.cli.running import opened, run

    app = load(options.app)
    if not every > 0:
        raise UsageError("--every is a number of seconds, more than 0", code="usage", got=every)

    async def look() -> None:
        async with opened(app, options, create="nothing", away=True) as running:
            with Screen(options, live=watch) as shown:
                while True:
                    await shown.look(running)
                    if not watch:
                        return
                    await asyncio.sleep(every)

    run(look())


class Screen:
    """Where the state of projections is shown: once, or again and again in the same place.

    Not on a terminal, each look is printed below the one before; as JSON, each is a line.
    """

    def __init__(self, options: Options, *, live: bool) -> None:
        from diptych.cli.screen import screen

        self._options = options
        self._live: Live | None = None
        self._console = screen()
        self._watching = live
        self._before: dict[tuple[str, str], tuple[float, int]] = {}
        self._drawn: tuple[object, Group | None, str] = (None, None, "")
        if live and self._console.is_terminal and not options.json:
            from rich.live import Live

            self._live = Live(console=self._console, auto_refresh=False)

    def __enter__(self) -> Screen:
        if self._live is not None:
            self._live.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._live is not None:
            self._live.__exit__(*exception)

    async def look(self, running: Running) -> None:
        """Look at the projections, and show them."""
        from rich.console import Group
        from rich.text import Text

        identity = running.log.identity
        found, head = await running.status(), await running.log.head()
        if self._options.json:
            self._show_json(identity, head, found)
            return
        before = self._drawn[1]
        shown = self._picture(identity, head, found)
        if self._live is not None:
            if shown is before:
                return
            # The terminal writes ^C behind the last line: a full one would go on in another, which
            # nobody counts, and the first line would be left behind.
            self._live.update(Group(shown, Text()), refresh=True)
        else:
            if shown is not before:
                with self._console.capture() as capture:
                    self._console.print(shown, soft_wrap=True)
                self._drawn = (*self._drawn[:2], capture.get())
            self._console.file.write(self._drawn[2])
            self._console.file.flush()

    def _show_json(self, identity: str, head: int, found: list[Status]) -> None:
        from diptych.cli.screen import as_line, write_json

        data = {"log": identity, "head": head, "projections": [_status_data(o) for o in found]}
        if self._watching:
            sys.stdout.write(as_line(data))
            sys.stdout.flush()
        else:
            write_json(data)

    def _picture(self, identity: str, head: int, found: list[Status]) -> Group:
        """Return what is shown; the same object, while nothing changes.

        To draw it costs more than to look: without that, an idle worker would mostly draw.
        """
        from rich.console import Group
        from rich.text import Text

        title = Text.assemble(("log ", "dim"), identity, ("  head ", "dim"), str(head))
        if not found:
            return Group(title, Text("no projections", "dim"))
        promised = any(one.freshness is not None for one in found)
        columns = (
            {"projection": False, "kind": False, "position": True, "lag": True, "behind": True}
            | ({"events/s": True, "left": True} if self._watching else {})
            | ({"fresh within": True} if promised else {})
            | {"effects": True, "workers": True, "proved": False, "state": False}
        )
        rows: list[tuple[str | Text, ...]] = [
            (
                one.projection,
                "inline" if one.inline else "async",
                *_places(one),
                *(self._rate(one) if self._watching else ()),
                *([_promise(one)] if promised else ()),
                "-" if _is_unknown(one) else str(one.count),
                "-" if one.inline or one.state == "away" else str(one.workers),
                _proved(one),
                Text(_phase(one), _STYLES.get(_state(one), "red")),
            )
            for one in found
        ]
        errors = [
            Text.assemble((f"{one.projection}: ", "red"), one.error)
            for one in found
            if one.error and one.state != "paused"  # a pause is told already
        ]
        told = [
            Text.assemble((f"{one.projection}: ", "yellow"), text)
            for one in found
            if (text := _told(one))
        ]
        texts = [title, *told, *errors, *(cell for row in rows for cell in row)]
        key = self._console.size, [str(text) for text in texts]
        if key != self._drawn[0]:
            lines = title, errors, told
            self._drawn = (key, self._draw(found, lines, columns, rows), "")
        assert self._drawn[1] is not None
        return self._drawn[1]

    def _draw(
        self,
        found: list[Status],
        lines: tuple[Text, list[Text], list[Text]],
        columns: dict[str, bool],
        rows: list[tuple[str | Text, ...]],
    ) -> Group:
        from rich.console import Group

        from diptych.cli.tables import fitted
        from diptych.cli.watched import watched

        title, errors, told = lines
        if self._live is None:
            return Group(title, fitted(self._console, columns, rows), *told, *errors)
        wrong = [_is_wrong(one) for one in found]
        spare = list(_SPARE)
        if any(_late(one) for one in found):
            spare.remove("fresh within")
        if any(one.proved is not None and not one.proved.ok for one in found):
            spare.remove("proved")
        marked = list(zip(wrong, rows, strict=True))
        return watched(self._console, title, [*errors, *told], columns, marked, spare)

    def _rate(self, one: Status) -> tuple[str, str]:
        """Return events a second since the last look, and how long the rest takes at that rate."""
        from diptych.cli.screen import seconds

        now = time.monotonic()
        which = (one.projection, one.version)
        then, position = self._before.get(which, (now, one.position))
        self._before[which] = (now, one.position)
        if now <= then:
            return "", ""
        rate = max(one.position - position, 0) / (now - then)
        return f"{rate:.0f}", seconds(one.lag / rate) if one.lag and rate else "-"


_STYLES = {"current": "green", "behind": "yellow"}

_SPARE = "kind", "effects", "left", "position", "workers", "events/s", "fresh within", "proved"
"""The columns that a watched screen does without where it is too narrow, the first one first."""


def _state(one: Status) -> str:
    if one.state in ("away", "failed", "refused", "paused") or one.phase == one.state == "new":
        return one.state
    if not one.lag:
        return "parked" if one.parked_keys else "current"
    return "behind" if one.workers or one.inline else "no worker"


def _is_unknown(one: Status) -> bool:
    """Whether nothing is known of where it is: its database is away, and was never seen."""
    return one.state == "away" and not one.spans


def _places(one: Status) -> tuple[str, str, str]:
    """Say where it is, and how far behind."""
    from diptych.cli.screen import seconds

    if _is_unknown(one):
        return "-", "-", "-"
    behind = seconds(one.lag_seconds) if one.lag or one.parked_keys else "-"
    return str(one.position), str(one.lag), behind


def _is_wrong(one: Status) -> bool:
    differs = one.proved is not None and not one.proved.ok
    return differs or _late(one) or bool(one.parked_keys) or _state(one) not in _STYLES


def _phase(one: Status) -> str:
    """Say the state, and of a version that is not the live one which it is."""
    if one.phase in ("live", "new"):
        return _state(one)
    return f"{_state(one)}, {one.phase} {one.version}".rstrip()


def _told(one: Status) -> str:
    """Say what operators have done, or have to do."""
    from diptych.cli.screen import counted, harmless, moment

    said: list[str] = []
    if one.paused is not None:
        since = moment(one.paused.since.replace(microsecond=0))
        said.append(f"paused by {one.paused.actor} since {since}: {one.paused.why}")
    if one.phase == "new":
        said.append("it is new, and will be made at the first start")
    said += [f"{one.version} is held: {why}" for why in one.objections]
    if one.parked_keys:
        of = counted(one.parked_keys, "key")
        said.append(f"{counted(one.parked_events, 'event')} of {of} parked")
    if one.skipped:
        said.append(f"{counted(one.skipped, 'event')} skipped")
    if one.proved is not None and one.proved.unknown:
        types = ", ".join(f"{name}: {count}" for name, count in sorted(one.proved.unknown.items()))
        said.append(f"passed over, as this program does not know these events: {types}")
    return harmless("; ".join(said))


def _proved(one: Status) -> Text:
    from rich.text import Text

    from diptych.cli.screen import seconds

    if one.proved is None or (one.proved.ok and not one.proved.position):
        return Text("-")  # what was found right before any event tells nothing
    told, style = ("ok", "") if one.proved.ok else ("differs", "bold red")
    if one.proved.ok and one.proved.reason:
        told, style = "parked", "yellow"
    return Text(f"{told}, {seconds(one.proved.age)} ago", style)


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
        "workers": one.workers,
        "proved": one.proved,
        "state": _state(one),
        "error": one.error,
        "parked_keys": one.parked_keys,
        "parked_events": one.parked_events,
        "skipped": one.skipped,
        "paused": one.paused,
        "fresh_within": None if one.freshness is None else one.freshness.within,
        "late": _late(one),
        "version": one.version,
        "phase": one.phase,
        "objections": one.objections,
    }
