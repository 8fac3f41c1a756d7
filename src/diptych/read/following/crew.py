"""Who works on a read database, and what each one's share is.

Every worker says each second that it is there, and computes everybody's share in the same way from
the list of those who did. Two that disagree for a moment do the same work twice, of which the
checkpoints let one pass: nothing but wasted work rests on this.

Each gets an equal part of every projection. Of several that are far behind it gets an equal part of
all together, whole ones mostly: else each worker would read all events for all of them. Which these
are is said by the first of the workers that have any in common. (Several engines of a process may
share one list of workers, and no projection.)
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from typing import Final
from zlib import crc32

from msgspec import structs

from diptych.errors import DiptychError
from diptych.messages import new_id
from diptych.read.port import ViewStore, Worker
from diptych.read.projections import Projection

BEAT_SECONDS: Final = 1.0
LEASE_SECONDS: Final = 5.0
"""A worker that was not seen for so long is taken for gone."""

FAR: Final = 50_000
NEAR: Final = 10_000
"""A projection is far behind from so many events on, and until it has come so near to the head."""

LOOKS: Final = 5
"""Over so many looks it is seen how fast projections move."""


class Crew:
    """The workers of one read database, as one of them sees them.

    Until the first ``beat`` a worker believes itself alone. ``alive`` tells whether a process of
    this host (by its id) exists.
    """

    def __init__(
        self,
        store: ViewStore,
        projections: Sequence[Projection],
        *,
        lease: float = LEASE_SECONDS,
        alive: Callable[[int], bool] | None = None,
    ) -> None:
        self._store = store
        self._lease = lease
        self._alive = alive or is_alive
        self.me = Worker(new_id(), host(), os.getpid(), _names(projections))
        self.workers: list[Worker] = [self.me]
        self.present = False
        self._cut = _cut(projections)
        self._looks = deque[dict[str, int]](maxlen=LOOKS)
        self._doubted = asyncio.Event()

    def follow(self, projections: Collection[Projection]) -> None:
        """Have a share of these from now on, and of no others."""
        self._cut = _cut(projections)
        self._become(structs.replace(self.me, projections=_names(projections)))

    async def beat(self, head: Callable[[], Awaitable[int]]) -> bool:
        """Say that this worker is there, look who else is; True when shares are others now.

        ``head`` tells where the log ends.
        """
        before = _basis(self.workers)
        await self._say()
        first = self._first()
        bulk = await self._look(head) if first.id == self.me.id else first.bulk
        if bulk != self.me.bulk:
            self._become(structs.replace(self.me, bulk=bulk))
            if first.id == self.me.id:
                await self._say()
        return _basis(self.workers) != before

    def _first(self) -> Worker:
        """Return the first of those that have projections in common with this one."""
        mine = set(self.me.projections)
        return next((one for one in self.workers if mine.intersection(one.projections)), self.me)

    def _become(self, me: Worker) -> None:
        before, self.me = self.me, me
        self.workers = [me if one == before else one for one in self.workers]

    async def _say(self) -> None:
        workers = await self._store.beat(self.me, self._lease)
        self.present = True
        here = [one for one in workers if not self._is_gone(one)]
        for one in workers:
            if one not in here:
                await self._store.leave(one.id)
        self.workers = here

    async def _look(self, head: Callable[[], Awaitable[int]]) -> tuple[str, ...]:
        """Return the projections that are far behind, and move at about the same pace."""
        try:
            async with asyncio.timeout(BEAT_SECONDS):  # others are not to take us for gone
                stored, last = await self._store.checkpoints(), await head()
        except (DiptychError, TimeoutError):
            return self.me.bulk
        now = {
            name: min((span.position for span in stored.get(name, ())), default=0)
            for name in self._cut
        }
        self._looks.append(now)
        bulk = self.me.bulk
        far = [n for n, at in now.items() if last - at > (NEAR if n in bulk else FAR)]
        if far and max(last - now[name] for name in far) <= FAR:
            return bulk  # they are nearly there: to share anew would take longer
        if len(self._looks) == LOOKS:  # one that stands still, or is throttled, keeps nobody busy
            moved = {name: now[name] - self._looks[0].get(name, 0) for name in far}
            fastest = max(moved.values(), default=0)
            far = [name for name in far if 4 * moved[name] >= fastest]
        return tuple(sorted(far)) if len(far) > 1 else ()

    def doubt(self) -> None:
        """Note that somebody has done our work: he may be new here."""
        self._doubted.set()

    async def rest(self) -> None:
        """Wait until it is time to beat again."""
        await asyncio.sleep(BEAT_SECONDS / 5)
        with suppress(TimeoutError):
            async with asyncio.timeout(BEAT_SECONDS * 4 / 5):
                await self._doubted.wait()
        self._doubted.clear()

    async def leave(self) -> None:
        """Let the others know at once that this worker goes."""
        if self.present:
            self.present = False
            await self._store.leave(self.me.id)
        self.workers = [self.me]

    def share(self, one: Projection) -> range:
        """Return the slices of a projection that are this worker's."""
        return shares(one.name, one.slices, self._around()).get(self.me.id, range(0))

    def cuts(self, one: Projection) -> list[int]:
        """Return the slices at which the workers' shares of a projection meet."""
        found = shares(one.name, one.slices, self._around()).values()
        return sorted({part.start for part in found if part} - {0})

    def _around(self) -> list[Worker]:
        """Return all workers, this one too: it works on until it is seen again, and harms nobody.

        (A pause has cost it its place.)
        """
        if any(one.id == self.me.id for one in self.workers):
            return self.workers
        return sorted([*self.workers, self.me], key=lambda one: one.id)

    def _is_gone(self, worker: Worker) -> bool:
        return worker.host == self.me.host and not self._alive(worker.pid)


def shares(name: str, slices: int, workers: Sequence[Worker]) -> dict[str, range]:
    """Return the slices of a projection that are each worker's, by its id; some may have none."""
    sharing = [one for one in workers if name in one.projections]
    members = [one.id for one in sharing]
    size = len(members)
    if slices == 1:
        # Else the first worker would have all of these.
        chosen = crc32(name.encode()) % max(size, 1)
        return {id_: range(int(place == chosen)) for place, id_ in enumerate(members)}
    place, together = 0, 1
    if sharing and name in sharing[0].bulk:
        alike = [
            other
            for other in sharing[0].bulk
            if [one.id for one in workers if other in one.projections] == members
        ]
        place, together = alike.index(name), len(alike)
    edges = [
        min(max((number * together - place * size) * slices // max(size, 1), 0), slices)
        for number in range(size + 1)
    ]
    return {id_: range(*edges[at : at + 2]) for at, id_ in enumerate(members)}


def _basis(workers: Sequence[Worker]) -> object:
    """Return what shares are computed from."""
    said = {name: one.bulk for one in reversed(workers) for name in one.projections}
    return [(one.id, one.projections) for one in workers], said


def _cut(projections: Iterable[Projection]) -> list[str]:
    """Return those that are followed in slices."""
    return [one.name for one in projections if one.slices > 1]


def _names(projections: Iterable[Projection]) -> tuple[str, ...]:
    return tuple(sorted(one.name for one in projections if not one.inline))


def host() -> str:
    """Return a name for where process ids mean the same processes: a host, or a container on it."""
    name = socket.gethostname()
    with suppress(OSError):
        return f"{name}/{os.stat('/proc/self/ns/pid').st_ino}"
    return name


def is_alive(pid: int) -> bool:
    """Whether there is a process of this id here."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
