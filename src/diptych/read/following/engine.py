"""The engine: follows the log for all projections of one view store.

Each turn takes the projection furthest behind, reads one page of the log, decodes it once for all
near by, folds it for each, and writes rows and checkpoint in one transaction, while the next is
folded. Engines share the work (`crew`, `spans`); that it is right rests on checkpoints alone.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Final

from diptych.codec import Codec
from diptych.errors import Closed, DiptychError, LogUnusable, Unavailable
from diptych.log import Log, StoredEvent, last_position
from diptych.read.following.crew import Crew
from diptych.read.following.fold import Used
from diptych.read.following.follower import RESTING, STOPPED, Follower
from diptych.read.following.gathering import GATHER, Gathering, Step
from diptych.read.following.handling import Handling
from diptych.read.following.pace import Pace
from diptych.read.following.pages import decode_page, event_before, fold_page, next_page
from diptych.read.following.spans import Spans
from diptych.read.following.waiting import Waiting
from diptych.read.freshness import ReadMeasures
from diptych.read.parking.failing import failure_of, unwritable
from diptych.read.port import Change, ViewStore
from diptych.read.projections import Handler, Keyed, Projection, check_projections
from diptych.read.status import Status, status_of
from diptych.read.versioning.versions import Versions
from diptych.telemetry.metrics import Telemetry

PAGE: Final = 2000
CACHE_ROWS: Final = 20_000
GATHER_SECONDS: Final = 0.01
"""Under a steady stream of small appends, how long events gather when no query waits for them."""

SETTLE_SECONDS: Final = 0.25
"""How long a checkpoint may lie behind over events that its projection does not use."""

POLL_SECONDS: Final = 0.05
INLINE_SECONDS: Final = 1.0
DOUBT_SECONDS: Final = 5.0
"""How often a resting engine looks whether the database has lost steps, in a crash."""


class Engine:
    """Keeps the projections of one store current. ``open``, then ``start`` or ``catch_up``."""

    def __init__(
        self,
        log: Log,
        codec: Codec,
        store: ViewStore,
        projections: Sequence[Projection],
        *,
        page: int = PAGE,
        gather: int = GATHER,
        cache_rows: int = CACHE_ROWS,
        measures: ReadMeasures | None = None,
    ) -> None:
        check_projections(projections)
        self.log, self.codec, self.page = log, codec, page
        self.projections = {one.name: one for one in projections}
        self.versions = Versions(store, codec, projections)
        self.spans = Spans(log, codec, store, projections, cache_rows)
        self.crew = Crew(store, projections)
        self.pace = Pace()
        self.measures = measures or ReadMeasures(Telemetry(), projections)
        self._task: asyncio.Task[None] | None = None
        self._beating: asyncio.Task[None] | None = None
        self._gathering = Gathering(gather)
        self._writing: asyncio.Task[bool] | None = None
        self._turning = asyncio.Lock()
        self._hurry = asyncio.Event()
        self.waiting = Waiting(self.spans, self._hurry.set)
        self._handling = Handling(store, self._fail, self.measures, self._handled)
        self._inline_at = self._doubted_at = 0.0

    # --- life -------------------------------------------------------------------------------------

    async def open(self, *, create: bool = True, rebuild: bool = True, builds: bool = True) -> None:
        """Make tables, read checkpoints. A foreign checkpoint stops its projection only.

        Without ``create`` nothing is made: ``NoViews`` when something is missing. With ``rebuild``
        versions that are new are made, to be built beside the live ones; without ``builds`` those
        that others have made are not built here either.
        """
        self.versions.builds = builds
        await self.versions.open(self.log.identity, create=create, rebuild=rebuild)
        self.spans.follow(self.versions.followed)
        await self.spans.all()
        for follower in self.spans:
            await self.spans.reload(follower)

    async def start(self) -> None:
        """Follow the log in the background until ``stop``, together with other workers."""
        if self._task is None:
            with suppress(Unavailable):
                await self.crew.beat(self.log.head)
            self.spans.stale = True
            self.waiting.running = True
            self._task = asyncio.create_task(self._run(), name="diptych-engine")
            self._beating = asyncio.create_task(self._beat(), name="diptych-beat")

    async def stop(self) -> None:
        """Stop after the step that is being written. What is unwritten is done again next time."""
        tasks, self._task, self._beating = (self._task, self._beating), None, None
        for task in tasks:
            if task is not None:
                task.cancel()
        await asyncio.gather(*filter(None, tasks), return_exceptions=True)
        await self._handling.stop()
        if self._writing is not None:
            await asyncio.gather(self._writing, return_exceptions=True)
            self._writing = None
        with suppress(Unavailable, Closed):
            await self.crew.leave()
        for follower in self.spans:
            follower.forget()
        self.spans.stale = True
        self.waiting.running = False
        self.waiting.wake()

    @property
    def store(self) -> ViewStore:
        """Where rows and checkpoints are."""
        return self.spans.store

    @property
    def running(self) -> bool:
        """Whether this engine follows the log."""
        return self._task is not None and not self._task.done()

    async def catch_up(self) -> None:
        """Bring every projection to the log's last event of now, inline ones too.

        One that cannot go on does not hold up the others; its error is raised at the end.
        Raises ``ProjectionFailed``, ``ForeignCheckpoint``, ``Unavailable``.
        """
        head = await last_position(self.log)
        await self.doubt()
        await self.refresh_inline(force=True)
        for follower in self.spans:
            if follower.state in ("failed", "paused") and not self.running:
                follower.state = "running"
        while behind := await self._behind(head):
            able = [f for f in behind if f.state not in STOPPED]
            if behind and not able:
                await self._written()
                raise next(f.error for f in behind if f.error is not None)
            if self.running:
                for follower in able:
                    if isinstance(follower.error, LogUnusable):
                        raise follower.error
                await self.wait_for({f.name for f in able}, head, time.monotonic() + 1.0)
                await self.refresh_inline(force=True)
                continue
            now = time.monotonic()
            able = [f for f in able if f.state != "standby" or f.retry_at <= now]
            if not await self._turn(able, head, settle=True):
                await self._handling.wait(random.uniform(0.5, 1.0) * POLL_SECONDS)
        if not self.running:
            await self._written()
        others = [name for name in self.spans.projections if not self.spans.is_ours(name)]
        while others and not await self.wait_for(others, head, time.monotonic() + 1.0):
            pass

    async def _behind(self, head: int) -> list[Follower]:
        if self.spans.stale and not self.running:
            async with self._turning:
                await self._respan()
        return [f for f in self.spans if f.checkpoint.position < head]

    # --- the loop ---------------------------------------------------------------------------------

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                if not await self._turn(self._able(), None, settle=False):
                    await self._rest()
                failures = 0
            except Closed:
                return
            except Exception as error:
                # The database is away or full, most likely: everything waits, and is read anew.
                for follower in self.spans:
                    follower.forget()
                    follower.error = follower.error or error
                failures = min(failures + 1, 8)
                await asyncio.sleep(random.uniform(0.5, 1.0) * 0.05 * 2**failures)
                with suppress(DiptychError):
                    await self.doubt()

    async def _beat(self) -> None:
        """Let the other workers know of this one, and learn of changes among them."""
        while True:
            await self.crew.rest()
            with suppress(DiptychError):
                changed = await self.versions.refresh()
                if await self.crew.beat(self.log.head) or changed:
                    self.refollow()

    def refollow(self) -> None:
        """Look soon which versions and shares are to be followed."""
        self.spans.stale = True
        self._hurry.set()

    async def _respan(self) -> None:
        """Follow the spans that are this worker's share; all of them, where it does not run."""
        await self._written()
        self.spans.follow(self.versions.followed)
        if self.running:
            await self.spans.share(self.crew)
        else:
            await self.spans.all()
        self.waiting.notify()

    def _able(self) -> list[Follower]:
        now = time.monotonic()
        return [
            f
            for f in self.spans
            if f.state != "refused"
            and not f.projection.inline
            and self.pace.allows(f.name, now)
            and f not in self._handling
            and not (f.state in RESTING and f.retry_at > now)
        ]

    async def _turn(self, able: Sequence[Follower], until: int | None, *, settle: bool) -> bool:
        """Take the one furthest behind, and those near it, through a page; False: nothing to do."""
        async with self._turning:
            if self.spans.stale:
                await self._respan()
                return True
            self._handling.reap()
            able = [f for f in able if f not in self._handling]
            for follower in able:
                if follower.lost:
                    await self._written()
                    await self.spans.reload(follower)
            able = [f for f in able if f.state != "refused" and not f.lost]
            if not able:
                return await self._written() or self.spans.stale
            for group in (groups := self.pace.groups(able, self.versions.built)):
                start = min(f.position for f in group)
                page = await next_page(self.log, start, until, self.page)
                if await self.spans.look_again(able, self._written):
                    return True
                if page.events:
                    progress = await self._page(page.events, group, settle=settle)
                    break
            else:
                return await self._settle(able, settle=settle)
        if len(page.events) < self.page // 4 and not (settle or self.waiting or groups[1:]):
            await self._hurried(GATHER_SECONDS)
        return progress

    async def _page(
        self, events: Sequence[StoredEvent], able: Sequence[Follower], *, settle: bool
    ) -> bool:
        last = events[-1].position
        members = [f for f in able if f.position < last]
        began = time.monotonic()
        self.pace.note({f.name: len(events) for f in members}, began)
        used = await decode_page(self.codec, events, members)
        steps, progress = list[Step](), False
        try:
            for follower in members:
                before, one = follower.position, follower.projection
                if follower.lost:  # a step of it may be under way: its rows are not there yet
                    progress = True
                    continue
                if isinstance(one, Handler):
                    self._handling.start(follower, one, events, used[follower])
                    progress = True
                    continue
                assert isinstance(one, Keyed)
                epoch = follower.epoch
                change = await self._fold(follower, one, events, used[follower], settle=settle)
                if change is not None:
                    steps.append((follower, epoch, change))
                progress |= follower.position > before or follower.lost
        except BaseException:
            for follower, _, _ in steps:  # they stand beyond what will be written
                follower.forget()
            raise
        self._gathering.add(steps, began)
        if self._gathering.is_due or len(events) < self.page or self.waiting.within(last):
            await self._write()
        return progress

    async def _fold(
        self,
        follower: Follower,
        one: Keyed,
        events: Sequence[StoredEvent],
        used: list[Used],
        *,
        settle: bool,
    ) -> Change | None:
        """Fold a page; return what is to be committed, or None where there is nothing yet."""
        upto = events[-1]
        if follower.limit is not None and len(used) >= follower.limit:
            used = used[: follower.limit]
            upto = used[-1][0]
        if not used:
            follower.seen = upto
            if settle or self._must_settle(follower):
                return follower.advance(upto, None)
            return None
        folded = await fold_page(one, follower, self.store, used)
        poisoned = folded.failed or any(held.error for held in folded.held)
        if poisoned and await self._overtaken(follower):
            return None
        if folded.failed:
            assert folded.error is not None
            self._fail(follower, folded.failed, folded.error)
            before = event_before(events, folded.failed)
            if before is None or before.position <= follower.position:
                return None
            upto = before
        for _ in (held for held in folded.held if held.error):
            self.measures.failed(follower.name)
        aside = {held.stored.position for held in folded.held}
        used = [each for each in used if each[0].position not in aside] if aside else used
        return self.measures.noted(follower.advance(upto, folded), used)

    async def _overtaken(self, follower: Follower) -> bool:
        """Whether another worker has moved the checkpoint: what was folded were not its rows."""
        await self._written()
        if not follower.lost:
            stored = (await self.store.checkpoints()).get(follower.name, ())
            if follower.checkpoint not in stored:
                follower.stand_by(time.monotonic())
                self.measures.lost(follower.name)
        return follower.lost

    # --- writing ----------------------------------------------------------------------------------

    async def _write(self) -> bool:
        """Have what is gathered written meanwhile; only one transaction is under way."""
        writing, self._writing = self._writing, None
        wrote = await writing if writing is not None else False
        if steps := self._gathering.take():
            self._writing = asyncio.create_task(self._commit(steps), name="diptych-commit")
        return wrote

    async def _written(self) -> bool:
        """Wait until all steps are written; raise ``Unavailable`` when that fails."""
        wrote = False
        while self._gathering or self._writing is not None:
            wrote |= await self._write()
        return wrote

    async def _commit(self, steps: Sequence[Step]) -> bool:
        began = time.monotonic()
        try:
            moved = await self.store.apply([change for _, _, change in steps])
        except Unavailable:
            for follower, _, _ in steps:
                follower.forget()
            raise
        except Exception as error:
            if len(steps) > 1:  # find out whose it is
                return any([await self._commit([step]) for step in steps])
            follower, _, change = steps[0]
            await self._unwritable(follower, change, error)
            return True
        now = time.monotonic()
        for (follower, _, change), went in zip(steps, moved, strict=True):
            if went:
                follower.committed(change, now)
                self.measures.applied(change, now - began)
            else:
                follower.stand_by(now)
                self.crew.doubt()
                self.measures.lost(follower.name)
        self.spans.look_level()
        self.waiting.notify()
        return any(moved)

    async def _unwritable(self, follower: Follower, change: Change, error: Exception) -> None:
        """Narrow down to the event whose row cannot be written; then have its key parked."""
        follower.forget()
        effects = change.after.count - change.before.count
        if follower.limit == 1:
            condemned = await unwritable(self.store, change)
            if not condemned or follower.parking.condemned:
                self._fail(follower, change.after.position, error)
            follower.parking.condemned = condemned
        else:
            follower.limit = max(1, min(effects, follower.limit or effects) // 2)

    def _must_settle(self, follower: Follower) -> bool:
        return (
            follower.position - follower.tip.position >= self.page
            or time.monotonic() - follower.written_at > SETTLE_SECONDS
            or self.waiting.concerns(follower.name)
        )

    async def _settle(self, able: Sequence[Follower], *, settle: bool) -> bool:
        """Write the checkpoints that lie behind over unused events, where it is time to."""
        wrote = await self._written()
        self._gathering.add(
            [
                (f, f.epoch, f.advance(f.seen, None))
                for f in able
                if f.seen is not None and not f.lost and (settle or self._must_settle(f))
            ]
        )
        return await self._written() or wrote

    def _handled(self) -> None:
        self._hurry.set()
        self.waiting.notify()

    def _fail(self, follower: Follower, position: int, error: Exception) -> None:
        self.measures.failed(follower.name)
        failure = failure_of(follower.projection, position, error)
        follower.fail(position, failure, time.monotonic())

    # --- resting and waking -----------------------------------------------------------------------

    async def _rest(self) -> None:
        """Wait for new events, for a query in a hurry, or for the next attempt that is due."""
        now = time.monotonic()
        if now - self._doubted_at > DOUBT_SECONDS and await self.doubt():
            return
        able = self._able()
        timeout = min(INLINE_SECONDS, self.pace.wait(now))
        for follower in self.spans:
            if follower.state in RESTING:
                timeout = min(timeout, max(follower.retry_at - now, 0.001))
            elif follower.seen is not None:
                timeout = min(timeout, SETTLE_SECONDS)
        await self.refresh_inline()
        if not able:
            await self._hurried(timeout)
            return
        events = asyncio.ensure_future(
            self.log.wait(min(f.position for f in able), timeout=timeout)
        )
        hurry = asyncio.ensure_future(self._hurry.wait())
        try:
            await asyncio.wait((events, hurry), return_when=asyncio.FIRST_COMPLETED)
            self._hurry.clear()
        finally:
            for task in (events, hurry):
                task.cancel()
            await asyncio.gather(events, hurry, return_exceptions=True)

    async def _hurried(self, timeout: float) -> None:
        # Not `wait_for`, which before Python 3.12 may swallow a cancellation.
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._hurry.wait()
        self._hurry.clear()

    async def refresh_inline(self, *, force: bool = False) -> None:
        """Look where inline projections are: they move in the appends' own transactions."""
        inline = [f for f in self.spans if f.projection.inline and f.state != "refused"]
        now = time.monotonic()
        if not inline or (now - self._inline_at < INLINE_SECONDS and not force):
            return
        self._inline_at = now
        for follower in inline:
            await self.spans.reload(follower)
        head = await self.log.head()
        # A process without these projections has appended.
        if behind := [f for f in inline if f.checkpoint.position < head]:
            await self._turn(behind, head, settle=True)

    async def doubt(self) -> bool:
        """Look whether the database has lost steps, in a crash; if so, have them made again."""
        self._doubted_at = time.monotonic()
        gone_back = await self.spans.look()
        for follower in gone_back:
            follower.forget()
            self._hurry.set()
        return bool(gone_back)

    # --- waiting for a position -------------------------------------------------------------------

    async def wait_for(self, names: Iterable[str], position: int, deadline: float) -> bool:
        """Wait until all these projections have reached a position; False: not in time.

        ``deadline`` is in seconds of ``time.monotonic()``.
        """
        return await self.waiting.wait_for(names, position, lambda: deadline - time.monotonic())

    async def status(self) -> list[Status]:
        """Return the state of every projection, from the checkpoints in the store."""
        return await status_of(self.log, self.store, self.spans, self.versions, self.measures)
