"""``diptych log show`` and ``diptych log tail``: the events as they are stored."""

from __future__ import annotations

import sys
from collections import Counter
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from cyclopts import App, Parameter

from diptych.cli.failures import UsageError
from diptych.cli.options import Given, Options

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from diptych.log import EventQuery, Log, StoredEvent

log = App(name="log", help="Look into the log; it needs --log only, no application.")

After: TypeAlias = Annotated[int | None, Parameter(help="Only events after this position.")]
Types: TypeAlias = Annotated[
    list[str] | None,
    Parameter(name="--type", help="Only events of this type; may be repeated.", negative=""),
]
Tags: TypeAlias = Annotated[
    list[str] | None,
    Parameter(
        name="--tag",
        help="Only events with this tag, KEY:VALUE; several: with all of them.",
        negative="",
    ),
]
Limit: TypeAlias = Annotated[int | None, Parameter(help="At most so many events.")]

PAGE = 1000


@log.command
def show(
    *,
    after: After = None,
    until: Annotated[
        int | None, Parameter(help="Only events up to this position [default: the head].")
    ] = None,
    types: Types = None,
    tags: Tags = None,
    limit: Limit = None,
    last: Annotated[int | None, Parameter(help="The newest so many events.")] = None,
    options: Given,
) -> None:
    """Print the events in order: position, time, type, tags, data.

    With --json one object a line, as it is stored.
    """
    query = _query(types, tags)
    _check(after=after, until=until, limit=limit, last=last)
    if limit is not None and last is not None:
        raise UsageError("Give --limit, the first events, or --last, the newest; not both")
    seen: Counter[str] = Counter()
    _run(options, query, after or 0, until, limit, last=last, seen=seen)
    if not options.json:
        _tell_nothing(options, types or [], seen)


@log.command
def tail(
    *,
    after: Annotated[
        int | None, Parameter(help="Begin after this position [default: the head].")
    ] = None,
    types: Types = None,
    tags: Tags = None,
    limit: Annotated[int | None, Parameter(help="End after so many events.")] = None,
    options: Given,
) -> None:
    """Print events as they are appended, until Ctrl-C.

    Events of other processes are seen within a few hundredths of a second.
    """
    query = _query(types, tags)
    _check(after=after, limit=limit)
    _run(options, query, after, None, limit, follow=True)


def _tell_nothing(options: Options, types: list[str], seen: Counter[str]) -> None:
    """Say on stderr that nothing was found, and which types the application does not know."""
    from diptych.cli.failures import warn

    if not seen:
        warn("0 events")
    missing = [name for name in types if name not in seen]
    if not missing or not options.app:
        return
    from diptych.cli.loading import load
    from diptych.errors import DiptychError

    try:
        known = load(options.app).compile().codec.events
    except (UsageError, DiptychError):
        return  # the log can be looked into without its application
    for name in missing:
        if name not in known:
            close = get_close_matches(name, known)
            hint = f"did you mean {' or '.join(close)}?" if close else "see `diptych describe`"
            warn(f"no event type {name} is registered in {options.app}; {hint}")


def _check(**numbers: int | None) -> None:
    for name, value in numbers.items():
        least = 1 if name in ("limit", "last") else 0
        if value is not None and value < least:
            raise UsageError(f"--{name} is {least} or more", code="invalid", got=value)


def _query(types: list[str] | None, tags: list[str] | None) -> EventQuery:
    from diptych.log import EventQuery

    for tag in tags or ():
        if ":" not in tag:
            raise UsageError("A tag is written KEY:VALUE", code="invalid", got=repr(tag))
    return EventQuery.of(types or (), tags or ())


def _run(
    options: Options,
    query: EventQuery,
    after: int | None,
    until: int | None,
    limit: int | None,
    *,
    last: int | None = None,
    seen: Counter[str] | None = None,
    follow: bool = False,
) -> None:
    from diptych.cli.running import opened_log, run
    from diptych.codec import require_whole
    from diptych.errors import UndecodableEvent

    show = _as_json if options.json else _line_writer()

    def write(events: Sequence[StoredEvent]) -> None:
        for number, event in enumerate(events):
            try:
                require_whole(event)
            except UndecodableEvent:
                show(events[:number])
                raise
        show(events)
        if seen is not None:
            seen.update(event.type for event in events)

    async def read() -> None:
        async with opened_log(options) as found:
            start = await found.head() if after is None else after
            if last is not None:
                write(await _newest(found, query, start, until, last))
                return
            await _print(found, query, start, until, limit, write, follow=follow)

    run(read())


async def _newest(
    found: Log, query: EventQuery, after: int, until: int | None, last: int
) -> list[StoredEvent]:
    """Return the last matching events: the log is read back from its end, in growing steps."""
    head = await found.head()
    high = head if until is None else min(until, head)
    step = max(last, PAGE)
    newest: list[StoredEvent] = []
    while high > after and len(newest) < last:
        low = position = max(after, high - step)
        events: list[StoredEvent] = []
        while position < high:
            page = await found.read(query, after=position, until=high, limit=PAGE)
            events += page.events
            position = max(page.upto, position)
        newest = [*events, *newest]
        high, step = low, step * 2
    return newest[-last:]


async def _print(
    found: Log,
    query: EventQuery,
    after: int,
    until: int | None,
    limit: int | None,
    write: Callable[[Sequence[StoredEvent]], None],
    *,
    follow: bool,
) -> None:
    left = limit
    while True:
        page = await found.read(
            query, after=after, until=until, limit=PAGE if left is None else min(left, PAGE)
        )
        if page.events:
            write(page.events)
            sys.stdout.flush()
        if left is not None:
            left -= len(page.events)
            if not left:
                return
        after = max(page.upto, after)
        head = await found.head()
        end = head if until is None else min(until, head)
        if after >= end:
            if not follow:
                return
            await found.wait(after)


# --- one line an event ----------------------------------------------------------------------------


def _as_json(events: Sequence[StoredEvent]) -> None:
    from diptych.cli.screen import as_line

    sys.stdout.write("".join(as_line(_data(event)) for event in events))


def _data(event: StoredEvent) -> dict[str, Any]:
    return {
        "position": event.position,
        "id": event.id,
        "type": event.type,
        "tags": event.tags,
        "data": event.data,
        "metadata": event.metadata,
    }


def _line_writer() -> Callable[[Sequence[StoredEvent]], None]:
    from rich.text import Text

    from diptych.cli.screen import screen

    console = screen()
    coloured = console.is_terminal and not console.no_color

    def write(events: Sequence[StoredEvent]) -> None:
        if not coloured:  # the same text, much faster
            sys.stdout.write("".join("".join(t for t, _ in _parts(e)) + "\n" for e in events))
            return
        for event in events:
            console.print(Text.assemble(*_parts(event)), soft_wrap=True)

    return write


def _parts(event: StoredEvent) -> list[tuple[str, str]]:
    """Return the pieces of a line and their styles."""
    from diptych.cli.screen import harmless, moment
    from diptych.codec import metadata_of

    tags = harmless(" ".join(event.tags)).replace("\n", "\\n")
    return [
        (f"{event.position:>8}", "bold"),
        (f"  {moment(metadata_of(event).time, precise=False)}  ", "dim"),
        (f"{event.type}  ", "cyan"),
        (tags + "  " if tags else "", "magenta"),
        (bytes(event.data).decode(), ""),
    ]
