"""A builder of the next version of a view, that dies at a step; ``dying`` is for others, too.

python -m torture.builder AT PAGE LOG VIEWS
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import warnings
from collections.abc import Callable
from itertools import count
from typing import Any

from diptych.app.databases import Databases
from diptych.read.following.engine import Engine
from torture.application import accounts

STEPS = ("open", "claim", "apply", "index", "prove", "turn", "recut")
"""What a builder does in the database; it dies before or after one of them."""


def dying(at: int, page: int) -> None:
    """Have this process killed at its ``at``-th step in the read databases; 0: never.

    ``page``: how many events a page of the engines has, so that there are more steps or less.
    """
    defaults = Engine.__init__.__kwdefaults__
    assert defaults is not None
    defaults["page"], defaults["gather"] = page, 2  # so that steps are gathered, and there are many
    steps = count(1)

    def step() -> None:
        if next(steps) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    def mortal(work: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            step()
            result = await work(*args, **kwargs)
            step()
            return result

        return call

    make = Databases.store

    def store(self: Any, where: Any) -> Any:
        found: Any = make(self, where)
        if not hasattr(found, "dies"):
            found.dies = True
            for name in STEPS:
                setattr(found, name, mortal(getattr(found, name)))
        return found

    Databases.store = store  # type: ignore[method-assign]


async def build(at: int, page: int, log: str, views: str) -> None:
    """Build the next version and switch to it; or die."""
    dying(at, page)
    app = accounts(changed=True, slices=1)
    async with app.open(log=log, views=views, rebuild="manual") as running:
        await running.projections.rebuild("balance")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    asyncio.run(build(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:5]))
