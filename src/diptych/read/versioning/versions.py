"""The versions of an engine's projections: which it keeps current, and which queries read.

The program's own version of a projection is followed. What is live is noted in the read database,
with a count of changes that every query reads in its own snapshot: a switch is noticed by the very
next one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Final

import msgspec
from msgspec import structs

from diptych.codec import Codec
from diptych.errors import DefinitionError, Invalid, LogUnusable, NoViews, Unavailable, ViewNotReady
from diptych.log import Log
from diptych.read.opening import owners_of
from diptych.read.port import Change, Kept, State, Turn, Version, View, ViewStore, definition_of
from diptych.read.projections import Projection
from diptych.read.versioning.version import Parts, kept_in_place, key_code, parts_of

UNKNOWN: Final = "unknown"
"""The version of tables that were there before versions were noted, and are not this program's."""

LONGEST_NAME: Final = 63
READY_SECONDS: Final = 0.05
"""How often a query looks whether the version that it waits for is there."""

FOLLOWED: Final[frozenset[State]] = frozenset(("live", "building", "held", "old"))
BUILT: Final[frozenset[State]] = frozenset(("building", "held"))

_decode = msgspec.json.Decoder(Parts).decode


class Versions:
    """What is known of the versions of one engine's projections."""

    def __init__(self, store: ViewStore, codec: Codec, projections: Sequence[Projection]) -> None:
        self.store = store
        self._codec = codec
        self._declared = {one.name: one for one in projections}
        self._parts: dict[str, Parts] = {}
        self._rows: dict[str, list[Version]] = {}
        self._instances: dict[str, str] = {}
        self._log = ""
        self._open: set[str] = set()
        self._variants: dict[str, Projection] = {}
        self.turn = 0
        self.built: set[str] = set()
        """The instances that are being built."""
        self.problems: dict[str, str] = {}

    # --- this program's own -----------------------------------------------------------------------

    def parts(self, name: str) -> Parts:
        """Return what this program's version of a projection is made of."""
        if name not in self._parts:
            self._parts[name] = parts_of(self._declared[name], self._codec)
        return self._parts[name]

    def version(self, name: str) -> str:
        """Return this program's version of a projection."""
        return self.parts(name).version

    def mine(self, name: str) -> Version | None:
        """Return what is noted of this program's version; None where it was never there."""
        version = self.version(name)
        return next((row for row in self.of(name) if row.version == version), None)

    def live(self, name: str) -> Version | None:
        """Return the version that is live."""
        return next((row for row in self.of(name) if row.state == "live"), None)

    def of(self, name: str) -> list[Version]:
        """Return all versions of a projection, as far as known here."""
        return self._rows.get(name, [])

    @property
    def declared(self) -> Mapping[str, Projection]:
        """The projections as they were declared, by name."""
        return self._declared

    @property
    def followed(self) -> list[Projection]:
        """The projections to be kept current here, under the names of their instances."""
        found: list[Projection] = []
        for name, one in self._declared.items():
            row = self.mine(name)
            if row is not None and row.state in FOLLOWED and row.instance in self._open:
                found.append(self._variant(one, row.instance))
        return found

    def projection(self, name: str) -> Projection | None:
        """Return a projection under the name of this program's instance; None: it is not kept."""
        return next((one for one in self.followed if one.title == name), None)

    def provable(self, name: str, row: Version) -> Projection | None:
        """Return a version of other code, where this program can tell what it has to apply.

        It can where events, keys and slices are the same, whatever the fold makes of them.
        """
        one, there, mine = self._declared[name], parts_in(row), self.parts(name)
        same = (there.events, there.key, there.slices) == (mine.events, mine.key, mine.slices)
        parts = key_code(one) if same else ()
        if same and all(there.code.get(part, "") == mine.code.get(part) for part in parts):
            return self._variant(one, row.instance)
        return None

    def shown(self) -> list[tuple[Projection, Version]]:
        """Return this program's versions that are followed, and the live ones, of all."""
        found: list[tuple[Projection, Version]] = []
        for name, one in self._declared.items():
            for row in self.of(name):
                own = row == self.mine(name) and row.state in FOLLOWED
                if own or row.state == "live":
                    found.append((self._variant(one, row.instance), row))
        return found

    async def wanted(self) -> dict[str, Kept]:
        """Return what `open` would have made, as far as it is not there. Changes nothing."""
        self._know(await self.store.versions())
        kept: dict[str, Kept] = {}
        for name, one in self._declared.items():
            row = self.mine(name)
            if row is None:
                new = await self._new(name, rebuild=True)
                fits = kept_in_place(one) or (new and new[0].version != UNKNOWN)
                row = new[0] if new and fits else self._row(name, "live" if fits else "building")
            if row.state in FOLLOWED:
                kept[row.instance] = _kept(one, row)
        return kept

    @property
    def tended(self) -> list[Projection]:
        """The projections that people look after here: as followed, or else the live ones."""
        found: list[Projection] = []
        for name, one in self._declared.items():
            live = self.live(name)
            own = self.projection(name)
            if own is None and live is not None:
                own = self._variant(one, live.instance)
            found += [] if own is None else [own]
        return found

    async def tend(self, name: str) -> Projection:
        """Return a projection as `tended`, to be changed; ``Invalid`` where its rows are others.

        So what is parked can be applied by a fold that was corrected, before it is built anew.
        """
        one, own, live = self._declared[name], self.projection(name), self.live(name)
        if own is not None:
            return own
        mine = self.parts(name)
        if live is not None:
            there = parts_in(live)
            shape = (there.tables, there.key, there.columns, there.slices)
            if shape == (mine.tables, mine.key, mine.columns, mine.slices):
                await self.store.open(self._log, {live.instance: kept_of(one, live)}, create=False)
                return self._variant(one, live.instance)
        raise Invalid(
            "This program's version of the projection is not there, and the live one has other "
            "rows; `diptych projections rebuild` has it built",
            field="projection",
            rule="one that this program keeps",
            projection=name,
            version=mine.version,
        )

    def _variant(self, one: Projection, instance: str) -> Projection:
        if instance == one.name:
            return one
        if instance not in self._variants:
            self._variants[instance] = structs.replace(one, name=instance, declared=one.name)
        return self._variants[instance]

    # --- opening ----------------------------------------------------------------------------------

    async def open(self, log: str, *, create: bool, rebuild: bool) -> None:
        """Find this program's versions, or note them; make their tables and checkpoints."""
        self._log = log
        if create:
            await self.store.open(log, {}, create=True)
        self._know(await self.store.versions())
        if not create:
            await self._open_known(create=False)
            return
        for _ in range(5):  # others may be faster
            await self._adopt()
            new = [row for name in self._declared for row in await self._new(name, rebuild=rebuild)]
            if not new:
                break
            self._know(await self.store.claim(new))
        await self._open_known(create=True)

    async def _open_known(self, *, create: bool) -> None:
        kept: dict[str, Kept] = {}
        for name, one in self._declared.items():
            row = self.mine(name)
            if row is None and not self.of(name):
                row = self._row(name, "live")  # nothing is noted: the store says what is missing
                self._rows[name] = [row]
            if row is not None and row.state in FOLLOWED:
                kept[row.instance] = _kept(one, row)
        await self.store.open(self._log, kept, create=create)
        self._open |= kept.keys()
        self._resolve()
        if create:
            for name in self._declared:
                await self._carry(name)

    async def _carry(self, name: str) -> None:
        """Pass on what was skipped for good in the live version to one that is being built.

        As far as it has yet to get there, and where keys are the same; the `objections` tell of the
        rest. In a step of the spans, so that nobody folds on who does not know of it.
        """
        live, row = self.live(name), self.mine(name)
        if live is None or row is None or row.state not in BUILT:
            return
        if not any(key.skipped for key in (await self.store.desk.keys()).get(live.instance, ())):
            return
        there, mine = parts_in(live), self.parts(name)
        code = key_code(self._declared[name])
        if (there.key, there.slices) != (mine.key, mine.slices) or any(
            there.code.get(part, "") != mine.code.get(part) for part in code
        ):
            return
        skipped = [p for p in await self.store.desk.parked(live.instance) if p.state == "skipped"]
        for _ in range(5):  # others may be faster
            known = {one.place for one in await self.store.desk.parked(row.instance)}
            changes: list[Change] = []
            for span in (await self.store.checkpoints()).get(row.instance, ()):
                after = structs.replace(span, revision=span.revision + 1)
                new = tuple(
                    structs.replace(one, projection=row.instance)
                    for one in skipped
                    if span.slice <= one.slice < span.end
                    and one.position > span.position
                    and one.place not in known
                )
                changes += [Change(span, after, {}, (), new)] if new else []
            if not changes or all(await self.store.apply(changes)):
                return

    async def _new(self, name: str, *, rebuild: bool) -> list[Version]:
        """Return what has to be noted, so that there is a live version, and this program's."""
        if not self.of(name):
            if await self._is_mine(name):
                return [self._row(name, "live")]
            live = self._row(name, "live")
            return [structs.replace(live, version=UNKNOWN, parts="{}")]
        one = self._declared[name]
        if self.mine(name) is None and rebuild and not kept_in_place(one):
            return [self._row(name, "building")]
        return []

    async def _is_mine(self, name: str) -> bool:
        """Whether tables without a version, if there are any, may be this program's."""
        one = self._declared[name]
        if kept_in_place(one):
            return True
        try:
            spans = (await self.store.checkpoints()).get(name)
            if spans and sum(span.slices for span in spans) != one.slices:
                return False
            if spans:
                await self.store.open(self._log, {name: Kept(one.views, one.slices)}, create=False)
        except DefinitionError:
            return False
        except (NoViews, Unavailable, LogUnusable):
            return True  # there is nothing, or not all of it
        return True

    async def _adopt(self) -> None:
        """Take over in place what is never built beside itself."""
        for name, one in self._declared.items():
            live = self.live(name)
            if kept_in_place(one) and live is not None and live.version != self.version(name):
                own = self._row(name, "live")
                after = structs.replace(own, instance=live.instance)
                await self.store.turn([Turn(live, after)])
                self._know(await self.store.versions())

    def _row(self, name: str, state: State) -> Version:
        parts, version = self.parts(name), self.version(name)
        plain = state == "live"
        return Version(
            name,
            version,
            name if plain else f"{name}@{version}",
            {table: table if plain else _beside(table, version) for table in parts.tables},
            state,
            msgspec.json.encode(parts).decode(),
            datetime.now(UTC),
        )

    # --- asked for --------------------------------------------------------------------------------

    async def build(self, name: str, state: State) -> None:
        """Have this program's version built, also where it was dropped before."""
        row = self.mine(name)
        if row is None:
            self._know(await self.store.claim([self._row(name, state)]))
        elif row.state != state and row.state in ("building", "held", "dropped"):
            await self.change(row, state)
        await self._open_known(create=True)

    async def change(self, row: Version, state: State) -> bool:
        """Change the state of a version, if it is still as it was."""
        done = await self.store.turn([Turn(row, _in(row, state))])
        await self.refresh()
        return done

    async def switch(self, name: str, to: Version, *, level: bool) -> bool:
        """Let another version be live, in one transaction; ``level``: only if it is as far."""
        live = self.live(name)
        changes = [] if live is None else [Turn(live, _in(live, "old"))]
        changes.append(Turn(to, _in(to, "live")))
        done = await self.store.turn(changes, level=level and live is not None)
        await self.refresh()
        return done

    async def own_tables(self, one: Projection) -> None:
        """Drop all other projections that keep rows in the tables of one; there are new ones."""
        noted = await self.store.versions()
        if others := owners_of(one.name, one.title, noted):
            await self.store.turn([Turn(row, _in(row, "dropped")) for row in others])
            await self.refresh()
        await self._open_known(create=True)

    # --- for queries ------------------------------------------------------------------------------

    async def refresh(self) -> bool:
        """Read the versions anew; whether any has changed."""
        before = self.turn
        self._know(await self.store.versions())
        for name in self._declared:
            row = self.mine(name)
            # Somebody has asked for it.
            if row is not None and row.state in BUILT and row.instance not in self._open:
                await self._open_known(create=True)
        return self.turn != before

    def read(self, name: str) -> str:
        """Return which instance of a projection queries read; ``ViewNotReady`` where none."""
        found = self._instances.get(name)
        if found is None:
            one = self._declared[name]
            row = self.mine(name)
            raise ViewNotReady(
                "The view has changed, and its new version is not there yet; ask again later"
                + (
                    ""
                    if row is not None and row.state in BUILT
                    else ". It is not being built: `diptych projections rebuild` has it built"
                ),
                view=", ".join(view.__name__ for view in one.views),
                projection=name,
                version=self.version(name),
            )
        return found

    async def readable(
        self, names: Iterable[str], log: Log, deadline: float
    ) -> tuple[set[str], int]:
        """Return which instances are read, once there are some, and as of which turn it is so.

        ``deadline`` is in seconds of ``time.monotonic()``: then ``ViewNotReady``.
        """
        while True:
            try:
                return {self.read(name) for name in names}, self.turn
            except ViewNotReady as error:
                if await self.refresh():
                    continue
                if time.monotonic() >= deadline:
                    raise await self._not_ready(error, log) from None
                await asyncio.sleep(READY_SECONDS)

    async def _not_ready(self, error: ViewNotReady, log: Log) -> ViewNotReady:
        """Return an error that says, too, how far the new version is."""
        row = self.mine(error.facts["projection"])
        if row is None or row.state not in BUILT:
            return error
        spans = (await self.store.checkpoints()).get(row.instance, [])
        position = min((span.position for span in spans), default=0)
        return ViewNotReady(error.message, **error.facts, position=position, head=await log.head())

    @property
    def served(self) -> list[str]:
        """The instances that queries read."""
        return list(self._instances.values())

    def _know(self, rows: Sequence[Version]) -> None:
        self._rows = {}
        for row in rows:
            self._rows.setdefault(row.projection, []).append(row)
        self.turn = max((row.turn for row in rows), default=0)
        self.built = {row.instance for row in rows if row.state in BUILT}
        self._resolve()

    def _resolve(self) -> None:
        """Find out where queries find the views."""
        tables: dict[type[View], str] = {}
        self._instances = {}
        for name, one in self._declared.items():
            live, mine = self.live(name), self.mine(name)
            row: Version | None = None
            if live is not None and self._holds(live, name):
                row = live
            elif mine is not None and mine.state in ("live", "old"):
                row = mine
            if row is None:
                continue
            self._instances[name] = row.instance
            for view in one.views:
                plain = definition_of(view).table_name
                if (table := row.tables.get(plain, plain)) != plain:
                    tables[view] = table
        self.store.read_from(tables)

    def _holds(self, live: Version, name: str) -> bool:
        """Whether a version's tables have every column that this program's views ask for."""
        mine = self.parts(name)
        if live.version == mine.version:
            return True
        return holds(_decode(live.parts), mine)


def holds(live: Parts, mine: Parts) -> bool:
    """Whether rows of one version can be read as those of another."""
    return (
        live.tables == mine.tables
        and live.key == mine.key
        and all(
            live.columns.get(column) in (kind, kind.removesuffix(" | None"))
            for column, kind in mine.columns.items()
        )
    )


def parts_in(row: Version) -> Parts:
    """Return what a version that was noted is made of."""
    return _decode(row.parts)


def _in(row: Version, state: State) -> Version:
    return structs.replace(row, state=state, since=datetime.now(UTC))


def _kept(one: Projection, row: Version) -> Kept:
    plain = [definition_of(view).table_name for view in one.views]
    tables = tuple(row.tables.get(name, name) for name in plain)
    return Kept(one.views, one.slices, tables, indexed=row.state not in BUILT)


def kept_of(one: Projection, row: Version) -> Kept:
    """Return what a store keeps for a version of a projection, whatever its state."""
    return structs.replace(_kept(one, row), indexed=True)


def _beside(table: str, version: str) -> str:
    """Return the name of a version's table, not too long for PostgreSQL."""
    name = f"{table}__{version}"
    if len(name) <= LONGEST_NAME:
        return name
    mark = blake2b(table.encode(), digest_size=4).hexdigest()
    return f"{table[: LONGEST_NAME - len(mark) - len(version) - 3]}_{mark}__{version}"


__all__ = ["BUILT", "FOLLOWED", "Versions", "holds", "kept_of", "parts_in"]
