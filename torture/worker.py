"""Other processes of the runs.

    python -m torture.worker <what> <history> <log> <views> <seed> [module:function]

They say ``ready`` and wait for a line; then they say a line for each answer that they got. The
function is called first: with it the tests plant bugs.
"""

from __future__ import annotations

import asyncio
import random
import sys
import warnings
from importlib import import_module
from pathlib import Path

from diptych.testing.history import History
from diptych.testing.recording import AppRecorder, Recorder
from torture.application import accounts, customer
from torture.backends import open_log
from torture.clients import Client
from torture.races import SHAPES, race


async def _start() -> None:
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)


async def clients(history: History, log_url: str, rng: random.Random) -> None:
    """Random clients and races, then the end."""
    log = await open_log(log_url, remembered=rng.choice((3, 25_000)))
    await _start()
    keys = [f"key-{number}" for number in range(8)]
    recorders = [Recorder(log, history, f"{history.new_id()}") for _ in range(4)]
    await asyncio.gather(
        *(Client(one, random.Random(rng.random()), keys).work(12) for one in recorders)
    )
    for shape in SHAPES:
        await race([log], history, rng, shape)
    await log.close()


async def application(history: History, log: str, views: str, rng: random.Random) -> None:
    """Commands and queries until the kill. Keys are those of earlier processes too."""
    async with accounts(inline=log == views).open(log=log, views=views) as running:
        await _start()
        app = AppRecorder(running, history)

        async def client(number: int) -> None:
            mine = app.of(f"{history.new_id()}")
            while True:
                await customer(mine, number, rng)
                print("answered", flush=True)

        await asyncio.gather(*(client(number) for number in range(8)))


async def projections(log: str, views: str) -> None:
    """Nothing but projections, until the kill."""
    async with accounts().open(log=log, views=views):
        await _start()
        await asyncio.Event().wait()


async def main(what: str, history: Path, log: str, views: str, seed: str) -> None:
    """Do what is asked for."""
    warnings.simplefilter("ignore")
    noted, rng = History(history), random.Random(seed)
    if what == "clients":
        await clients(noted, log, rng)
    elif what == "projections":
        await projections(log, views)
    else:
        await application(noted, log, views, rng)


if __name__ == "__main__":
    if len(sys.argv) > 6:
        module, _, function = sys.argv[6].partition(":")
        getattr(import_module(module), function)()
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:6]))
