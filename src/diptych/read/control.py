"""What people do with the versions of projections: look, plan, rebuild, compare, switch, drop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal

from msgspec import Struct, structs

from diptych.errors import Invalid, ProjectionPaused
from diptych.read.following.engine import Engine
from diptych.read.following.follower import STOPPED
from diptych.read.port import Difference, State, Version, definition_of
from diptych.read.projections import Handler, Projection
from diptych.read.versioning.leftovers import Left, left_of, remove
from diptych.read.versioning.noted import VersionStatus
from diptych.read.versioning.objections import pause_of, refusals
from diptych.read.versioning.rebuild import Builder, Progress
from diptych.read.versioning.version import differences, kept_in_place
from diptych.read.versioning.versions import BUILT, parts_in

WATCH_SECONDS: Final = 0.2
SOON_SECONDS: Final = 0.05
CUTOVER_SECONDS: Final = 10.0
"""How long a version that is to become live may take to catch up with the live one."""

LEVEL_SECONDS: Final = 0.5
"""How long going back waits for a moment when the version of before is as far."""

Action = Literal["new", "none", "build", "building", "held", "old", "dropped", "adopt", "refused"]


class Plan(Struct, frozen=True):
    """What becomes of a projection by this program's version of it, and why.

    ``action``: new (made at the first start), none (it is live), build (it was never there),
    building, held (built, or being built, and switched to when asked), old or dropped (it was live
    before, and is not switched to by itself), adopt (a handler or inline projection goes on in its
    tables with the new code), refused (it would, but they are not as the new code needs them: the
    application does not open).
    ``why`` are the differences from the live version. ``bytecode`` names the code without source.
    ``objections``: why it is held, as it lacks what the live version has; or why it is refused.
    """

    projection: str
    version: str
    live: str
    action: Action
    why: list[str]
    bytecode: tuple[str, ...] = ()
    objections: list[str] = []


class Rebuilt(Struct, frozen=True):
    """What a rebuild has come to. ``differences``: from what was live, where that was asked.

    ``objections``: what it lacks of what the live version has, so that it is held.
    """

    projection: str
    version: str
    state: State
    seconds: float
    differences: list[Difference] = []
    objections: list[str] = []


class Switched(Struct, frozen=True):
    """A switch: ``lag`` is how many events the version that is live now has yet to apply."""

    projection: str
    before: str
    now: str
    lag: int


class Projections:
    """The versions of an open application's projections. ``Running.projections``."""

    def __init__(self, builders: Sequence[Builder]) -> None:
        self._builders = builders

    # --- looking ----------------------------------------------------------------------------------

    async def versions(self) -> list[VersionStatus]:
        """Return all versions that are noted, those that were dropped left out.

        The last ones (not ``in_code``) are left of projections that this program does not have.
        """
        found: list[VersionStatus] = []
        for builder in self._builders:
            engine = builder.engine
            await engine.versions.refresh()
            stored = await engine.store.checkpoints()
            head = await engine.log.head()
            for name in engine.projections:
                mine = engine.versions.mine(name)
                for row in engine.versions.of(name):
                    if row.state == "dropped":
                        continue
                    spans = stored.get(row.instance, ())
                    position = min((span.position for span in spans), default=0)
                    tables = [*row.tables.values()]
                    found.append(
                        VersionStatus(
                            *(name, row.version, row.state, row == mine, row.instance, tables),
                            *(row.since, position, max(head - position, 0)),
                        )
                    )
        return found + [await one.status() for one in await self._left() if not one.foreign]

    async def plan(self, *names: str) -> list[Plan]:
        """Return what this program's versions are to the live ones. Changes nothing."""
        found: list[Plan] = []
        for builder, chosen in await self._chosen(names):
            for name in chosen:
                plan, why = _plan(builder, name), await builder.objections(name)
                if plan.action == "adopt" and (refused := await _refusals(builder, name)):
                    plan, why = structs.replace(plan, action="refused"), refused
                found.append(structs.replace(plan, objections=why))
        return found

    async def compare(self, name: str, *, most: int = 5) -> list[Difference]:
        """Compare the rows of the live version with those of this program's, table by table.

        In the columns that both have, with at most ``most`` examples. What events one of them has
        not applied yet have changed differs, too: ``positions`` tell. Raises ``Invalid`` where
        there are no two.
        """
        [(builder, _)] = await self._chosen([name])
        return await _compare(builder, name, most)

    # --- changing ---------------------------------------------------------------------------------

    async def rebuild(
        self,
        *names: str,
        limit: float | None = None,
        compare: bool = False,
        cutover: bool = True,
        watch: Callable[[list[Progress]], None] | None = None,
    ) -> list[Rebuilt]:
        """Build this program's versions beside the live ones, prove them, and switch to them.

        Without names, all that are not live. ``limit``: events a second, of each. ``compare``:
        before the switch. Without ``cutover`` they wait for it, as do those that lack something
        of the live version: ``objections`` in what is returned. ``watch`` is told the progress
        every 0.2 seconds. May be interrupted, and called again. Raises ``Invalid``, and
        ``ProjectionFailed`` for an event that cannot be folded, or a version that is not proved.
        """
        began = time.monotonic()
        if limit is not None and not limit > 0:
            raise Invalid("That is no limit", field="limit", rule="events a second", got=limit)
        chosen = await self._chosen(names)
        for builder, listed in chosen:
            for name in listed:
                if names:
                    _require_beside(builder.engine.projections[name])
        works = [
            (builder, [name for name in listed if not _is_settled(builder, name)])
            for builder, listed in chosen
        ]
        built = await asyncio.gather(
            *(
                self._rebuild(builder, listed, limit, compare, cutover, watch, began)
                for builder, listed in works
                if listed
            )
        )
        return [one for each in built for one in each]

    async def _rebuild(
        self,
        builder: Builder,
        names: list[str],
        limit: float | None,
        compare: bool,
        cutover: bool,
        watch: Callable[[list[Progress]], None] | None,
        began: float,
    ) -> list[Rebuilt]:
        engine, versions = builder.engine, builder.engine.versions
        # Where somebody wants to look first, workers must not switch by themselves.
        state: State = "held" if compare or not cutover else "building"
        for name in names:
            await versions.build(name, state)
        instances = [one.name for name in names if (one := versions.projection(name)) is not None]
        for instance in instances:
            engine.pace.limit(instance, limit)
        started = not engine.running
        engine.refollow()
        if started:
            await engine.start()
        found: list[Rebuilt] = []
        try:
            open_ = list(names)
            while open_:
                progress = await builder.progress(open_)
                if watch is not None:
                    watch(progress)
                _require_folded(engine, instances)
                ready = await builder.finish(open_, switch=False)
                for name in ready:
                    different = await _compare(builder, name, 5) if compare else []
                    why = await builder.hold(name)
                    if why or not cutover or await builder.finish([name]):
                        open_.remove(name)
                        row = versions.mine(name)
                        assert row is not None
                        seconds = time.monotonic() - began
                        found.append(Rebuilt(name, row.version, row.state, seconds, different, why))
                # Others may have been faster.
                for name in [n for n in open_ if _is_live(builder, n)]:
                    open_.remove(name)
                    version = versions.version(name)
                    found.append(Rebuilt(name, version, "live", time.monotonic() - began))
                if open_:
                    await asyncio.sleep(WATCH_SECONDS)
        finally:
            for instance in instances:
                engine.pace.limit(instance, None)
            if started:
                await engine.stop()
        if watch is not None:
            watch(await builder.progress(names))
        return found

    async def cutover(self, name: str, *, force: bool = False) -> Switched:
        """Prove this program's version, and switch to it in one transaction.

        Under load it may take a moment to catch up. Raises ``Invalid`` where it is not there, live
        already, or has not caught up within ten seconds; and, unless ``force``, where it has parked
        keys that the live version has applied, or does not know events that it does. Raises
        ``ProjectionPaused``.
        """
        [(builder, _)] = await self._chosen([name])
        versions = builder.engine.versions
        live, row = versions.live(name), versions.mine(name)
        if live is None or row is None or row.state not in (*BUILT, "old"):
            state = "live already" if row is not None and row.state == "live" else "not there"
            raise Invalid(
                "There is nothing to switch to; `rebuild` builds this program's version",
                field="projection",
                rule="a version that is built and not live",
                projection=name,
                version=versions.version(name),
                state=state,
            )
        deadline = time.monotonic() + CUTOVER_SECONDS
        await _require_going(builder, name)
        while not await builder.finish([name], force=force):
            await _require_going(builder, name)
            if not force and (why := await builder.hold(name)):
                raise Invalid(
                    "The version lacks what the live one has, and would take it from everybody who "
                    "asks; correct the code, or switch to it all the same by --force (force=True)",
                    field="projection",
                    rule="a version that lacks nothing of the live one",
                    projection=name,
                    version=row.version,
                    why="; ".join(why),
                )
            if time.monotonic() > deadline:
                raise Invalid(
                    "The version has not caught up; have it built first, by `rebuild` or by "
                    "workers",
                    field="projection",
                    rule="a version that is as far as the live one",
                    projection=name,
                    version=row.version,
                    lag=await _lag(builder, row),
                )
            await asyncio.sleep(SOON_SECONDS)
        return Switched(name, live.version, row.version, await _lag(builder, row))

    async def rollback(self, name: str) -> Switched:
        """Switch back at once to the version that was live before, in one transaction.

        It is as current as the workers with its code have kept it: ``lag`` tells. Raises
        ``Invalid`` where there is none, and ``ProjectionPaused``.
        """
        [(builder, _)] = await self._chosen([name])
        versions = builder.engine.versions
        live, before = versions.live(name), self._before(builder, name)
        if live is None or before is None:
            raise Invalid(
                "There is no version that was live before; it was dropped, or there never was one",
                field="projection",
                rule="a version that was live before",
                projection=name,
            )
        await _require_going(builder, name)
        lag = await _lag(builder, before)
        done = False
        deadline = time.monotonic() + LEVEL_SECONDS
        while not done and time.monotonic() < deadline and versions.live(name) == live:
            # So that positions do not go back for who reads, where the old one is kept current.
            done = await versions.switch(name, before, level=True)
        if not done and not await versions.switch(name, before, level=False):
            raise Invalid(
                "Somebody else has just switched this projection; look again",
                field="projection",
                rule="one switch at a time",
                projection=name,
            )
        return Switched(name, live.version, before.version, lag)

    async def drop(self, name: str, version: str | None = None) -> list[VersionStatus]:
        """Drop the versions that are not live, or one of them: tables, checkpoints and proofs.

        Of a projection that this program does not have, all of them, and all that is noted of it.
        Returns what was dropped. Raises ``Invalid`` for the live one, where there is none, and
        where workers run the projection.
        """
        found = await self.droppable(name, version)
        if any(not one.in_code for one in found):
            await remove(await self._left(name), version)
            return found
        [(builder, _)] = await self._chosen([name])
        versions = builder.engine.versions
        for one in found:
            row = next(row for row in versions.of(name) if row.version == one.version)
            await versions.change(row, "dropped")
        builder.engine.refollow()
        return found

    async def droppable(self, name: str, version: str | None = None) -> list[VersionStatus]:
        """Return what `drop` would drop."""
        if left := await self._left(name):
            listed = [await one.status(count=True) for one in left]
        else:
            await self._chosen([name])
            listed = [one for one in await self.versions() if one.projection == name]
        found = [
            one
            for one in listed
            if (one.state != "live" or left) and (version is None or one.version == version)
        ]
        if version is not None and not found:
            raise Invalid(
                "There is no such version to drop; the live one is not dropped",
                field="version",
                rule="a version that is not live",
                projection=name,
                got=version,
                there=", ".join(f"{one.version} ({one.state})" for one in listed),
            )
        return found

    async def back(self, name: str) -> tuple[str, str, int] | None:
        """Return from which version to which `rollback` would go, and that one's lag."""
        [(builder, _)] = await self._chosen([name])
        live, before = builder.engine.versions.live(name), self._before(builder, name)
        if live is None or before is None:
            return None
        return live.version, before.version, await _lag(builder, before)

    async def _left(self, name: str | None = None) -> list[Left]:
        return await left_of([builder.engine for builder in self._builders], name)

    def _before(self, builder: Builder, name: str) -> Version | None:
        old = [row for row in builder.engine.versions.of(name) if row.state == "old"]
        return max(old, key=lambda row: row.turn, default=None)

    async def _chosen(self, names: Iterable[str]) -> list[tuple[Builder, list[str]]]:
        """Return the builders and their projections of these names; all of them without names."""
        listed = list(names)
        known = [name for builder in self._builders for name in builder.engine.projections]
        if unknown := [name for name in listed if name not in known]:
            raise Invalid(
                "There is no such projection",
                field="projection",
                rule="one of " + (", ".join(known) or "none"),
                got=", ".join(unknown),
            )
        found: list[tuple[Builder, list[str]]] = []
        for builder in self._builders:
            await builder.engine.versions.refresh()
            chosen = [n for n in builder.engine.projections if not listed or n in listed]
            if chosen:
                found.append((builder, chosen))
        return found


def _plan(builder: Builder, name: str) -> Plan:
    versions, one = builder.engine.versions, builder.engine.projections[name]
    mine, live = versions.mine(name), versions.live(name)
    parts = versions.parts(name)
    action: Action = "build"
    if versions.is_new(name):
        action = "new"
    elif mine is not None:
        action = "none" if mine.state == "live" else mine.state
    elif kept_in_place(one):
        action = "adopt"
    why: list[str] = []
    if live is not None and live.version != parts.version:
        known = parts_in(live)
        why = differences(known, parts) if known.columns else ["the live version is not known"]
    return Plan(
        name, parts.version, "" if live is None else live.version, action, why, parts.bytecode
    )


async def _refusals(builder: Builder, name: str) -> list[str]:
    engine, live = builder.engine, builder.engine.versions.live(name)
    if live is None:
        return []
    return await refusals(engine.store, engine.log.identity, engine.projections[name], live)


def _is_settled(builder: Builder, name: str) -> bool:
    return _is_live(builder, name) or kept_in_place(builder.engine.projections[name])


def _is_live(builder: Builder, name: str) -> bool:
    mine = builder.engine.versions.mine(name)
    return mine is not None and mine.state == "live"


def _require_beside(one: Projection) -> None:
    if not kept_in_place(one):
        return
    what = "A handler" if isinstance(one, Handler) else "An inline projection"
    raise Invalid(
        f"{what} is not built beside itself: what it has done is not done again. Give its view "
        "another table=..., and it begins there anew",
        field="projection",
        rule="a fold that is not inline",
        projection=one.name,
        at=one.at,
    )


async def _require_going(builder: Builder, name: str) -> None:
    if (pause := await pause_of(builder.engine.versions, name)) is not None:
        raise ProjectionPaused(
            "The projection is paused, so nobody switches to another version; resume it first",
            projection=name,
            by=pause.actor,
            since=pause.since.isoformat(timespec="seconds"),
            why=pause.why,
        )


def _require_folded(engine: Engine, names: Iterable[str]) -> None:
    """Raise the error of a projection that cannot go on."""
    for name in names:
        for follower in engine.spans.of(name):
            if follower.state in STOPPED and follower.error is not None:
                raise follower.error


async def _compare(builder: Builder, name: str, most: int) -> list[Difference]:
    versions, one = builder.engine.versions, builder.engine.projections[name]
    live, mine = versions.live(name), versions.mine(name)
    if live is None or mine is None or live.version == mine.version or mine.state == "dropped":
        raise Invalid(
            "There are no two versions to compare: this program's is the live one, or is not there",
            field="projection",
            rule="a version that is built beside the live one",
            projection=name,
            live="none" if live is None else live.version,
            version=versions.version(name),
        )
    there = parts_in(live).columns
    found: list[Difference] = []
    for view in one.views:
        definition = definition_of(view)
        plain = definition.table_name
        columns = [
            field.name
            for field in definition.fields
            if _bare(there.get(field.name)) == _bare(versions.parts(name).columns[field.name])
        ]
        tables = (live.tables[plain], mine.tables[plain])
        found.append(await builder.engine.store.compare(view, tables, columns, most))
    return found


def _bare(kind: str | None) -> str | None:
    return None if kind is None else kind.removesuffix(" | None")


async def _lag(builder: Builder, row: Version) -> int:
    spans = (await builder.engine.store.checkpoints()).get(row.instance, ())
    head = await builder.engine.log.head()
    return max(head - min((span.position for span in spans), default=0), 0)
