"""Who works on a read database, and what each one's share is.

Every worker says each second that it is there, and computes everybody's share in the same way from
the list of those who did. Two that disagree for a moment do the same work twice, of which the
checkpoints let one pass: nothing but wasted work rests on this.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final
from zlib import crc32

from msgspec import structs

from diptych.messages import new_id
from diptych.read.port import ViewStore, Worker
from diptych.read.projections import Projection

BEAT_SECONDS: Final = 1.0
LEASE_SECONDS: Final = 5.0
"""A worker that was not seen for so long is taken for gone."""


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

    def follow(self, projections: Iterable[Projection]) -> None:
        """Have a share of these from now on, and of no others."""
        before, self.me = self.me, structs.replace(self.me, projections=_names(projections))
        self.workers = [self.me if one == before else one for one in self.workers]

    @property
    def is_first(self) -> bool:
        """Whether this worker is the one to do what only one needs to do."""
        return self.workers[0].id == self.me.id

    async def beat(self) -> bool:
        """Say that this worker is there, look who else is; True when that has changed."""
        workers = await self._store.beat(self.me, self._lease)
        self.present = True
        here = [one for one in workers if not self._is_gone(one)]
        for one in workers:
            if one not in here:
                await self._store.leave(one.id)
        changed = here != self.workers
        self.workers = here
        return changed

    async def leave(self) -> None:
        """Let the others know at once that this worker goes."""
        if self.present:
            self.present = False
            await self._store.leave(self.me.id)
        self.workers = [self.me]

    def share(self, one: Projection) -> range:
        """Return the slices of a projection that are this worker's."""
        members = self._members(one)
        if one.slices == 1:
            # Else the first worker would have all of these.
            mine = members[crc32(one.name.encode()) % len(members)] == self.me.id
            return range(int(mine))
        edges = self._edges(one, len(members))
        place = members.index(self.me.id)
        return range(edges[place], edges[place + 1])

    def cuts(self, one: Projection) -> list[int]:
        """Return the slices at which the workers' shares of a projection meet."""
        return [] if one.slices == 1 else self._edges(one, len(self._members(one)))[1:-1]

    def _members(self, one: Projection) -> list[str]:
        found = [worker.id for worker in self.workers if one.name in worker.projections]
        # One that a pause has cost its place works on until it is seen again: it harms nobody.
        return found if self.me.id in found else sorted([*found, self.me.id])

    def _edges(self, one: Projection, workers: int) -> list[int]:
        return [one.slices * place // workers for place in range(workers + 1)]

    def _is_gone(self, worker: Worker) -> bool:
        return worker.host == self.me.host and not self._alive(worker.pid)


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
