"""``python -m examples.shop load``: the Online Retail file through the retail application."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import cyclopts
import msgspec
from cyclopts import Parameter

from diptych import DiptychError

if TYPE_CHECKING:
    from examples.shop.retail.replay.report import Report

cli = cyclopts.App(
    name="python -m examples.shop",
    help="A gift shop's year of invoices, replayed through a CQRS application.",
    version_flags=[],
    suppress_keyboard_interrupt=False,
)


@cli.command
def load(
    path: Path,
    /,
    *,
    log: str = "memory:",
    views: str | None = None,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Send every invoice of the file as a command; a load that was stopped goes on where it was.

    Parameters
    ----------
    path
        The file, online_retail.csv or online_retail.csv.xz. It is read in place.
    log
        Address of the log: sqlite:///file, or memory:
    views
        Address of the views [default: that of the log].
    json
        Print the report as one JSON object.
    """
    return asyncio.run(_load(path, log, log if views is None else views, json=json))


async def _load(path: Path, log: str, views: str, *, json: bool) -> int:
    from examples.shop.retail import app
    from examples.shop.retail.replay.file import invoices, opened
    from examples.shop.retail.replay.report import replay
    from examples.shop.retail.replay.screen import print_report, progress_bar

    with opened(path) as (rows, read):
        async with app.open(log=log, views=views) as running:
            with progress_bar(path, read) as progress:
                report: Report = await replay(running, invoices(rows), progress)
    if json:
        print(msgspec.json.encode(report).decode())
    else:
        print_report(report)
    return 0 if report.verified else 1


def main() -> int:
    from examples.shop.retail.replay.file import BadFile

    try:
        status: int = cli(result_action="return_value")
    except (BadFile, DiptychError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped. The same command goes on where this one stopped.", file=sys.stderr)
        return 130
    return status


if __name__ == "__main__":
    sys.exit(main())
