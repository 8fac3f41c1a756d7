"""The spans of slices that an engine follows, kept in step with the crew's shares."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

from diptych.codec import Codec
from diptych.errors import ForeignCheckpoint
from diptych.log import Log, renewals_of
from diptych.read.following.crew import Crew
from diptych.read.following.follower import Follower
from diptych.read.port import Checkpoint, ViewStore
from diptych.read.projections import Projection


class Spans:
    """The followers of an engine, by projection; and how far others are with what is not ours."""

    def __init__(
        self,
        log: Log,
        codec: Codec,
        store: ViewStore,
        projections: Sequence[Projection],
        cache_rows: int,
    ) -> None:
        self._log = log
        self._codec = codec
        self.store = store
        self._cache_rows = cache_rows
        self.projections: dict[str, Projection] = {}
        self._of: dict[str, list[Follower]] = {}
        self._others: dict[str, int] = {}
        self.stale = True
        self._sharing = False
        self.follow(projections)

    def follow(self, projections: Iterable[Projection]) -> None:
        """Follow these from now on, and no others."""
        listed = {one.name: one for one in projections}
        if listed == self.projections:
            return
        self.projections = listed
        self._of = {
            name: self._of.get(name) or [Follower(one, self._codec, self._cache_rows)]
            for name, one in self.projections.items()
        }
        self._others = {name: at for name, at in self._others.items() if name in self._of}
        self.stale = True

    def __iter__(self) -> Iterator[Follower]:
        for followers in self._of.values():
            yield from followers

    def of(self, name: str) -> list[Follower]:
        """Return the followers of a projection; none where all of it is others' work."""
        return self._of.get(name, [])

    def position(self, name: str) -> int:
        """Return how far a projection is, as far as is known here: all of its slices."""
        positions = [follower.checkpoint.position for follower in self.of(name)]
        if name in self._others:
            positions.append(self._others[name])
        return min(positions, default=0)

    def is_ours(self, name: str) -> bool:
        """Whether this engine follows all slices of a projection."""
        return name in self._of and name not in self._others

    def require_own(self, names: Iterable[str]) -> None:
        """Raise ``ForeignCheckpoint`` for projections whose rows are those of another log."""
        for name in names:
            for follower in self.of(name):
                if follower.state == "refused" and follower.error is not None:
                    raise follower.error

    # --- shares -----------------------------------------------------------------------------------

    async def share(self, crew: Crew) -> None:
        """Take up this worker's share: cut what reaches beyond it, join what stands level."""
        self.stale, self._sharing = False, True
        crew.follow(self.projections.values())
        stored = await self.store.checkpoints()
        for name, one in self.projections.items():
            if one.inline or any(follower.state == "refused" for follower in self._of[name]):
                continue
            mine, cuts = crew.share(one), crew.cuts(one)
            if not (spans := stored.get(name, [])):
                continue  # it will be refused
            wanted = await self.store.recut(name, cuts) if _differ(spans, cuts) else spans
            self._take(one, wanted, mine)

    async def all(self) -> None:
        """Follow all there is, as it is cut now."""
        self.stale, self._sharing = False, False
        stored = await self.store.checkpoints() if self.projections else {}
        for name, one in self.projections.items():
            if spans := stored.get(name):
                self._take(one, spans, range(one.slices))

    def _take(self, one: Projection, spans: Iterable[Checkpoint], mine: range) -> None:
        before = {(f.span.start, f.span.end): f for f in self._of[one.name]}
        followers: list[Follower] = []
        others: list[int] = []
        for span in spans:
            if span.slice not in mine:
                others.append(span.position)
                continue
            known = before.get((span.slice, span.end))
            followers.append(known or Follower(one, self._codec, self._cache_rows, span))
        self._of[one.name] = followers
        self._others.pop(one.name, None)
        if others:
            self._others[one.name] = min(others)

    def look_level(self) -> None:
        """Note it when neighbours could be joined; that is for workers to do."""
        if not self._sharing:
            return
        for followers in self._of.values():
            if len(followers) > 1 and not any(follower.lost for follower in followers):
                self.stale |= len({follower.tip.position for follower in followers}) == 1

    # --- from the store ---------------------------------------------------------------------------

    async def reload(self, follower: Follower) -> None:
        """Read a follower's checkpoint anew; one that is not of this log stops it."""
        try:
            there = await follower.reload(self._log, self.store)
        except ForeignCheckpoint as error:
            follower.refuse(error)
            return
        if not there:
            self.stale = True
            if follower.state == "refused":
                follower.state = "new"
        elif follower.paused is not None:
            follower.rest(follower.paused, time.monotonic())
        elif follower.state in ("standby", "new", "paused", "refused"):
            follower.state = "running"
            follower.error = None

    async def look_again(
        self, followers: Iterable[Follower], written: Callable[[], Awaitable[object]]
    ) -> bool:
        """Refuse those whose event is gone, where the log may be another server's by now.

        ``written`` waits for their steps. True: one stands elsewhere now than it did before.
        """
        renewals = renewals_of(self._log)
        doubtful = {one: one.position for one in followers if one.renewals != renewals}
        if doubtful:
            await written()
        for follower in doubtful:
            try:
                if not follower.lost:
                    await follower.look_again(self._log)
            except ForeignCheckpoint as error:
                follower.refuse(error)
        return any(one.lost or one.position != at for one, at in doubtful.items())

    async def look(self) -> list[Follower]:
        """Read how far all are; return followers whose checkpoint has gone back, or is no more.

        Those that are refused are asked about again; rows that are gone are folded anew.
        """
        await self.store.lost_rows(refill=True)
        for follower in [one for one in self if one.state == "refused"]:
            await self.reload(follower)  # somebody may have put it right: rewound it, most likely
        known = {follower: follower.checkpoint for follower in self}
        stored = await self.store.checkpoints()
        back: list[Follower] = []
        for name, followers in self._of.items():
            spans = {(span.slice, span.end): span for span in stored.get(name, [])}
            ours: set[tuple[int, int]] = set()
            for follower in followers:
                place = (follower.span.start, follower.span.end)
                ours.add(place)
                found = spans.get(place)
                if found is None:
                    self.stale = True
                    back.append(follower)
                elif follower.checkpoint is not known.get(follower):
                    pass  # a step has ended meanwhile: what was read is from before, perhaps
                elif found.position < follower.checkpoint.position:
                    follower.checkpoint = found
                    back.append(follower)
            if name in self._others:
                rest = [span.position for place, span in spans.items() if place not in ours]
                self._others[name] = min(rest, default=0)
        return back


def _differ(spans: Sequence[Checkpoint], cuts: Sequence[int]) -> bool:
    """Whether the spans should be cut, or may be joined."""
    edges = {span.slice for span in spans}
    return not edges.issuperset(cuts) or len(spans) > len(cuts) + 1
