"""Building a version beside the live one to its end: caught up, indexed, proved, switched to.

The events are folded by the engines that follow the version; here it is seen to that what is built
becomes live. Each step is noted in the read database or can be made again: whoever is killed goes
on where the last step was.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct, structs

from diptych.errors import Closed, DiptychError, ProjectionFailed
from diptych.log import last_position
from diptych.read.following.engine import PAGE, Engine
from diptych.read.port import Checkpoint, State, Version
from diptych.read.projections import Keyed, Projection
from diptych.read.versioning.objections import objections, pause_of
from diptych.read.versioning.versions import BUILT, kept_of

if TYPE_CHECKING:
    from diptych.read.proving.rowcheck import RowVerdict
    from diptych.read.proving.verify import Since, Verdict

LOOK_SECONDS: Final = 0.2
NEAR: Final = 2 * PAGE
"""How many events a version may be behind when it is indexed and proved."""

SWITCH_TRIES: Final = 400
SWITCH_SECONDS: Final = 0.005
LONGEST_WAIT: Final = 30.0
RATE_SECONDS: Final = 10.0

NEW: Final = "it is new, and will be made at the first start"


class Progress(Struct, frozen=True):
    """How far a version is built. ``done`` and ``total`` in events, ``eta`` in seconds or None.

    ``state`` is that of the version; ``problem`` says why it cannot go on.
    """

    projection: str
    version: str
    state: State
    done: int
    total: int
    per_second: float
    eta: float | None
    problem: str = ""


class Builder:
    """Sees to the versions that one engine builds. ``auto``: of itself, once started."""

    def __init__(self, engine: Engine, *, auto: bool) -> None:
        self.engine = engine
        self.auto = auto
        self._task: asyncio.Task[None] | None = None
        self._finishing = asyncio.Lock()
        self._indexed: set[str] = set()
        self._samples: dict[str, deque[tuple[float, int]]] = {}

    # --- by itself --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Finish in the background what this program's versions still lack."""
        if self._task is None and self.auto:
            self._task = asyncio.create_task(self._run(), name="diptych-builder")

    async def stop(self) -> None:
        """Leave it to others, or to the next time."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        wait = LOOK_SECONDS
        while True:
            await asyncio.sleep(wait)
            wait = LOOK_SECONDS
            try:
                # One of the workers is enough: the one that has the first slices.
                mine = [name for name in self.building() if self._is_first(name)]
                await self.finish(mine, asked=False)
            except Closed:
                return
            except DiptychError:
                wait = LONGEST_WAIT  # `problems` has what it was

    def _is_first(self, name: str) -> bool:
        one = self.engine.versions.projection(name)
        return one is not None and 0 in self.engine.crew.share(one)

    def building(self) -> list[str]:
        """Return the projections whose version here is being built, and is to become live."""
        found: list[str] = []
        for name in self.engine.projections:
            row = self.engine.versions.mine(name)
            if row is not None and row.state == "building":
                found.append(name)
        return found

    # --- to the end -------------------------------------------------------------------------------

    async def finish(
        self, names: Iterable[str], *, asked: bool = True, switch: bool = True, force: bool = False
    ) -> list[str]:
        """Index, prove and switch to what has caught up; return what was ready, or is live now.

        Unless ``asked``, what is held is left alone; unless ``force``, what there are `objections`
        to is held. Raises ``ProjectionFailed`` when a version does not hold exactly its events.
        """
        async with self._finishing:
            return await self._finish(names, asked=asked, switch=switch, force=force)

    async def _finish(
        self, names: Iterable[str], *, asked: bool, switch: bool, force: bool
    ) -> list[str]:
        versions = self.engine.versions
        ready: list[Projection] = []
        head = await last_position(self.engine.log)
        stored = await self.engine.store.checkpoints()
        for name in names:
            one, row = versions.projection(name), versions.mine(name)
            if one is None or row is None or row.state == "live":
                continue
            spans = stored.get(one.name, ())
            if spans and min(span.position for span in spans) >= head - NEAR:
                ready.append(one)
        if not ready:
            return []
        await self._index(ready)
        await self._prove(ready)
        if not switch:
            deadline = time.monotonic() + 1.0
            return [
                one.title for one in ready if await self.engine.wait_for({one.name}, head, deadline)
            ]
        states: tuple[State, ...] = (*BUILT, "old") if asked else ("building",)
        return [
            one.title
            for one in ready
            if (force or not await self.hold(one.title)) and await self._switch(one, states)
        ]

    async def objections(self, name: str) -> list[str]:
        """Say what speaks against switching to this program's version of a projection."""
        versions = self.engine.versions
        live, row = versions.live(name), versions.mine(name)
        if (one := versions.projection(name)) is not None:
            followers = self.engine.spans.of(one.name)
            if refused := [str(f.error) for f in followers if f.state == "refused"]:
                return refused[:1]
        if live is None or row is None or row.state not in (*BUILT, "old"):
            return []
        return await objections(self.engine.store, live, row)

    async def hold(self, name: str) -> list[str]:
        """Return the `objections`; where there are any, nobody switches without being asked."""
        why = await self.objections(name)
        row = self.engine.versions.mine(name)
        if why and row is not None and row.state == "building":
            await self.engine.versions.change(row, "held")
        return why

    async def _index(self, ready: Sequence[Projection]) -> None:
        for one in ready:
            row = self.engine.versions.mine(one.title)
            if row is not None and row.state in BUILT and one.name not in self._indexed:
                await self.engine.store.index(kept_of(one, row))
                self._indexed.add(one.name)

    async def _prove(self, ready: Sequence[Projection]) -> None:
        from diptych.read.proving.verify import verify

        engine, problems = self.engine, self.engine.versions.problems
        verdicts = await verify(engine.log, engine.codec, engine.store, ready, since="last")
        for one, verdict in zip(ready, verdicts, strict=True):
            problems.pop(one.title, None)
            if not verdict.ok:
                problems[one.title] = verdict.reason
        if wrong := [one for one in ready if one.title in problems]:
            raise ProjectionFailed(
                "A new version does not hold exactly its events, so it does not become live; drop "
                "it, and have it built again",
                projection=", ".join(one.title for one in wrong),
                why="; ".join(problems[one.title] for one in wrong),
                at=wrong[0].at,
            )

    async def _switch(self, one: Projection, states: Collection[State]) -> bool:
        """Switch in a moment when the new version is as far as the live one."""
        versions = self.engine.versions
        for _ in range(SWITCH_TRIES):
            row = versions.mine(one.title)
            if row is None or row.state not in states:
                return row is not None and row.state == "live"
            if await pause_of(versions, one.title) is not None:
                return False
            if await versions.switch(one.title, row, level=True):
                return True
            await asyncio.sleep(SWITCH_SECONDS)
        return False

    async def verify(self, names: Sequence[str], *, since: Since) -> dict[str, list[Verdict]]:
        """Verify the live versions of projections, and this program's where these are others.

        A live one of other code can be compared where it has the same effects: events on keys.
        """
        from diptych.read.proving.verify import Verdict, verify

        engine, versions = self.engine, self.engine.versions
        looked: list[tuple[Projection, Version]] = []
        verdicts: dict[str, list[Verdict]] = {name: [] for name in names}
        nothing: dict[str, Any] = {"position": 0, "count": 0, "seconds": 0.0}
        for name in names:
            live, comparable = versions.live(name), self._comparable(name)
            looked += comparable
            if live is not None and live not in [versions.mine(name), *(r for _, r in comparable)]:
                verdicts[name].append(
                    Verdict(
                        projection=name,
                        ok=False,
                        **nothing,
                        version=live.version,
                        outcome="unprovable",
                        reason=f"the live version, {live.version}, can be verified by a "
                        "program with its code only; this one's is "
                        f"{versions.version(name)}",
                    )
                )
            if versions.is_new(name):
                verdicts[name].append(
                    Verdict(
                        projection=name,
                        ok=True,
                        **nothing,
                        version=versions.version(name),
                        outcome="new",
                        reason=NEW,
                    )
                )
        found = await verify(
            engine.log, engine.codec, engine.store, [one for one, _ in looked], since=since
        )
        for (one, row), verdict in zip(looked, found, strict=True):
            remedy = verdict.remedy
            if remedy and not verdict.gaps and row != versions.mine(one.title):
                # Here it would be done to this program's own version.
                remedy = f"with the code of {row.version}, not with this one's: {remedy}"
            about = {"version": row.version, "phase": row.state, "remedy": remedy}
            verdicts[one.title].append(structs.replace(verdict, projection=one.title, **about))
        return verdicts

    def _comparable(self, name: str) -> list[tuple[Projection, Version]]:
        """Return the versions of a projection that this program can verify: live, and its own."""
        versions, found = self.engine.versions, list[tuple[Projection, Version]]()
        live, mine, own = versions.live(name), versions.mine(name), versions.projection(name)
        if live is not None and live != mine:
            there = versions.provable(name, live)
            found += [] if there is None else [(there, live)]
        if own is not None and mine is not None:
            found.append((own, mine))
        return found

    async def proof_ages(self) -> dict[str, float]:
        """Return how many seconds ago projections were proved last; never: infinity.

        Of several versions that can be verified it is the one whose proof is the oldest.
        """
        proofs, now = await self.engine.store.proofs(), datetime.now(UTC)

        def age(one: Projection) -> float:
            proof = proofs.get(one.name)
            return float("inf") if proof is None else (now - proof.time).total_seconds()

        each = {name: self._comparable(name) for name in self.engine.projections}
        return {name: max(age(one) for one, _ in found) for name, found in each.items() if found}

    async def verify_rows(self, names: Sequence[str], *, sample: float) -> dict[str, RowVerdict]:
        """Compare the rows of versions that are live with what this program's folds make."""
        from diptych.read.proving.rowcheck import RowVerdict, verify_rows

        engine, versions = self.engine, self.engine.versions
        verdicts: dict[str, RowVerdict] = {}
        for name in names:
            one, mine, live = versions.projection(name), versions.mine(name), versions.live(name)
            if not isinstance(engine.projections[name], Keyed):
                continue
            if isinstance(one, Keyed) and mine is not None and mine.state == "live":
                found = await verify_rows(
                    engine.log, engine.codec, engine.store, one, sample=sample
                )
                verdicts[name] = structs.replace(found, projection=name, version=mine.version)
                continue
            version = versions.version(name)
            verdicts[name] = RowVerdict(
                projection=name,
                ok=versions.is_new(name),
                rows=0,
                differing=0,
                seconds=0.0,
                version=version,
                outcome="new" if versions.is_new(name) else "not compared",
                reason=f"nothing was compared: this program's version, {version}, is not the live "
                f"one ({'none' if live is None else live.version}), whose rows a program with its "
                "code can compare"
                if not versions.is_new(name)
                else NEW,
            )
        return verdicts

    # --- progress ---------------------------------------------------------------------------------

    async def progress(self, names: Iterable[str]) -> list[Progress]:
        """Return how far versions of this program are."""
        versions = self.engine.versions
        stored = await self.engine.store.checkpoints()
        head = await self.engine.log.head()
        found: list[Progress] = []
        for name in names:
            row = versions.mine(name)
            if row is None:
                continue
            done = _done(stored.get(row.instance, ()))
            rate = self._rate(row.instance, done)
            self.engine.measures.rebuilding(name, done, max(head - done, 0))
            eta = None if not rate else max(head - done, 0) / rate
            problem = versions.problems.get(name, "") or self._error(row.instance)
            found.append(Progress(name, row.version, row.state, done, head, rate, eta, problem))
        return found

    def _rate(self, instance: str, done: int) -> float:
        samples = self._samples.setdefault(instance, deque())
        now = time.monotonic()
        samples.append((now, done))
        while len(samples) > 2 and samples[0][0] < now - RATE_SECONDS:
            samples.popleft()
        (began, before), (ended, after) = samples[0], samples[-1]
        return max(after - before, 0) / (ended - began) if ended > began else 0.0

    def _error(self, instance: str) -> str:
        errors = [f.error for f in self.engine.spans.of(instance) if f.error is not None]
        return str(errors[0]) if errors else ""


def _done(spans: Sequence[Checkpoint]) -> int:
    """Return how many events have been read, on average over the slices."""
    slices = sum(span.slices for span in spans)
    return sum(span.position * span.slices for span in spans) // slices if slices else 0
