"""``diptych log show`` and ``diptych log tail``: the events as they are stored."""

from __future__ import annotations

import sys
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
    options: Given,
) -> None:
    """Print the events in order: position, time, type, tags, data.

    With --json one object a line, as it is stored.
    """
    query = _query(types, tags)
    _check(after=after, until=until, limit=limit)
    _run(options, query, after or 0, until, limit, follow=False)


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


def _check(**numbers: int | None) -> None:
    for name, value in numbers.items():
        least = 1 if name == "limit" else 0
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
    follow: bool,
) -> None:
    from diptych.cli.running import opened_log, run

    write = _as_json if options.json else _line_writer()

    async def read() -> None:
        async with opened_log(options) as found:
            start = await found.head() if after is None else after
            await _print(found, query, start, until, limit, write, follow=follow)

    run(read())


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
