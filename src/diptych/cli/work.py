"""``diptych work``: keep the views current, together with whoever else does."""

from __future__ import annotations

import asyncio
import signal
from typing import Annotated

from cyclopts import Parameter

from diptych.cli.failures import INTERRUPTED, OK, UsageError
from diptych.cli.options import Given


def work(
    *,
    verify_every: Annotated[
        float | None,
        Parameter(help="Prove the views every so many seconds, from the last proof on."),
    ] = None,
    every: Annotated[float, Parameter(help="Seconds between two looks at the screen.")] = 1.0,
    quiet: Annotated[bool, Parameter(help="Show nothing.", negative="")] = False,
    options: Given,
) -> int:
    """Keep the views current, until Ctrl-C or SIGTERM.

    Any number of processes may do so, on any machines that reach the databases: they share the
    slices of all projections, and take over from one that ends. Shows what `status --watch` does.
    """
    from diptych.cli.loading import load
    from diptych.cli.running import run

    app = load(options.app)
    if not every > 0:
        raise UsageError("--every is a number of seconds, more than 0", code="usage", got=every)

    async def keep_current() -> signal.Signals:
        from diptych.cli.running import opened
        from diptych.cli.status import Screen

        ended: asyncio.Future[signal.Signals] = asyncio.get_running_loop().create_future()

        def end(by: signal.Signals) -> None:
            if not ended.done():
                ended.set_result(by)

        for one in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(one, end, one)
        async with opened(
            app,
            options,
            create="views",
            projections=True,
            rebuild="auto",
            verify_every=verify_every,
        ) as running:
            with Screen(options, live=True) as shown:
                while not ended.done():
                    if not quiet:
                        await shown.look(running)
                    await asyncio.wait({ended}, timeout=every)
        return ended.result()

    return INTERRUPTED if run(keep_current(), stays=True) == signal.SIGINT else OK
