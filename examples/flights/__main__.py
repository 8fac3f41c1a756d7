"""``python -m examples.flights demo``, ``board`` and ``load``."""

from __future__ import annotations

import asyncio
import gc
import re
import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import cyclopts
import msgspec
from cyclopts import Parameter

from diptych import DiptychError
from examples.flights.replay.commands import Part
from examples.flights.replay.file import Slice

cli = cyclopts.App(
    name="python -m examples.flights",
    help="Every departure from New York in 2013, replayed through a CQRS application.",
    version_flags=[],
)


def parse_part(text: str) -> Part:
    """Return (1, 2) for "1/2"."""
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError("A part is written like 1/2: the first of two.")
    return int(found[1]), int(found[2])


def require_part(_type: Any, text: str) -> None:
    """Raise ``ValueError`` unless the text is a part."""
    parse_part(text)


@cli.command
def demo(
    *, slice: Slice = "first_week", page: bool | None = None, browser: bool | None = None
) -> int:
    """Replay a slice into build/flights, show what came of it, and serve the departures board.

    Parameters
    ----------
    slice
        Which flights.
    page
        Serve the board until Ctrl-C; by default where the output is a terminal.
    browser
        Open it in a browser; by default where there is one with a window of its own.
    """
    from examples.flights.demo import show

    status = asyncio.run(show(slice))
    if status == 0 and (sys.stdout.isatty() if page is None else page):
        return board(fresh=True, browser=browser)
    return status


@cli.command
def board(
    *,
    speed: float = 1.0,
    slice: Slice = "first_week",
    since: datetime | None = None,
    log: str | None = None,
    views: str | None = None,
    port: int = 0,
    slow: Annotated[bool, Parameter(negative=())] = False,
    fresh: Annotated[bool, Parameter(negative=())] = False,
    browser: bool | None = None,
) -> int:
    """Serve the departures board while flights are replayed; Ctrl-C ends it.

    Parameters
    ----------
    speed
        Minutes of the flights' time that go by in a second; 0: it stands still.
    slice
        Which flights.
    since
        Time, in UTC, at which to begin; what happened before is loaded first.
    log
        Address of the log; by default it is in build/board.
    views
        Address of the views; by default they are in build/board.
    port
        Where to listen on this machine; 0: a free port.
    slow
        Let the views lag on purpose, from the start.
    fresh
        Forget what is in build/board.
    browser
        Open it in a browser; by default where there is one with a window of its own.
    """
    from examples.flights.page.serve import BEGIN, serve

    begin = since.replace(tzinfo=since.tzinfo or UTC) if since is not None else BEGIN
    return asyncio.run(
        serve(
            log=log,
            views=views,
            slice=slice,
            since=begin,
            speed=speed,
            slow=slow,
            fresh=fresh,
            port=port,
            browser=sys.stdout.isatty() if browser is None else browser,
        )
    )


@cli.command
def load(
    *,
    log: str,
    views: str,
    slice: Slice = "first_week",
    part: Annotated[str, Parameter(validator=require_part)] = "1/1",
    json: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Replay a slice, or the rest of it: what has been answered before is passed over.

    Parameters
    ----------
    log
        Address of the log: sqlite:///file, or memory:
    views
        Address of the views; it may be the log's.
    slice
        Which flights.
    part
        1/2 and 2/2 are halves for two processes at the same time; each aircraft is in one of them.
    json
        Print the report as one JSON object.
    """
    return asyncio.run(_load(log, views, slice, parse_part(part), json=json))


async def _load(log: str, views: str, slice: Slice, part: Part, *, json: bool) -> int:
    from examples.flights.replay.report import replay

    done, report = await replay(log, views, slice, part)
    if json:
        print(msgspec.json.encode(report).decode())
    else:
        from examples.flights.screen import print_report

        print_report(report, done.rejections)
    return 130 if report.stopped else 0 if report.verified else 1


@cli.command(show=False)
def follow(*, log: str, views: str) -> None:
    """Keep the views current until stdin is closed."""
    from examples.flights.replay.reader import follow

    asyncio.run(follow(log, views))


def main() -> int:
    """Run the command line."""
    # Nearly nothing that a replay makes is a cycle: looking for them less often saves a third.
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)
    try:
        return int(cli(result_action="return_value") or 0)
    except KeyboardInterrupt:  # while it was still loading
        return 130
    except DiptychError as error:
        print(f"{error.code}: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
