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
from diptych.read.opening import leaving, owners_of, require_slices
from diptych.read.port import Kept, State, Turn, Version, View, ViewStore, definition_of
from diptych.read.projections import Projection
from diptych.read.versioning.carrying import carry_skips
from diptych.read.versioning.version import Parts, holds, kept_in_place, parts_of, same_keys

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
        self._foreign: dict[str, Version] = {}
        self._unnoted: dict[str, Version] = {}
        self._noted = False
        self.builds = True
        """Whether versions that are to be built are followed here."""
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
            # Where the live one is another log's, it is followed to be refused.
            row = self._foreign.get(name) or self.mine(name)
            if row is not None and self._is_followed(row) and row.instance in self._open:
                found.append(self._variant(one, row.instance))
        return found

    def _is_followed(self, row: Version) -> bool:
        return row.state in FOLLOWED and (self.builds or row.state not in BUILT)

    def projection(self, name: str) -> Projection | None:
        """Return a projection under the name of this program's instance; None: it is not kept."""
        return next((one for one in self.followed if one.title == name), None)

    def provable(self, name: str, row: Version) -> Projection | None:
        """Return a version of other code, where this program can tell what it has to apply.

        It can where events, keys and slices are the same, whatever the fold makes of them.
        """
        one, there, mine = self._declared[name], parts_in(row), self.parts(name)
        same = there.events == mine.events and same_keys(one, there, mine)
        return self._variant(one, row.instance) if same or name in self._foreign else None

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
        await self._look_for_foreign()
        if not create:
            await self._open_known(create=False, partly=not rebuild)
            return
        for _ in range(5):  # others may be faster
            await self._adopt()
            new = [row for name in self._declared for row in await self._new(name, rebuild=rebuild)]
            if not new:
                break
            self._know(await self.store.claim(new))
        await self._open_known(create=True)

    async def _look_for_foreign(self) -> None:
        """Find out what is live and of another log, in versions that this program does not know.

        Nothing is built beside it.
        """
        if not self._rows:
            return
        stored = await self.store.checkpoints()
        for name in self._declared:
            live = self.live(name)
            if live is None or live == self.mine(name):
                continue
            if any(span.log != self._log for span in stored.get(live.instance, ())):
                self._foreign[name] = live

    async def _open_known(self, *, create: bool, partly: bool = False) -> None:
        """Open what is noted; ``partly``: but for what is not there, where anything is."""
        kept: dict[str, Kept] = {}
        for name, one in self._declared.items():
            row = self.mine(name)
            if row is None and not self.of(name):
                row = self._row(name, "live")  # nothing is noted: the store says what is missing
                self._unnoted[name] = row
                self._rows[name] = [row]
            if name in self._foreign:
                self._open.add(self._foreign[name].instance)
            elif row is not None and self._is_followed(row):
                kept[row.instance] = _kept(one, row)
        if partly and self._noted:
            kept = await self._there(kept)
        else:
            await self.store.open(self._log, kept, create=create)
        self._open |= kept.keys()
        self._resolve()
        if create:
            for name in self._declared:
                await self._carry(name)

    async def _there(self, kept: Mapping[str, Kept]) -> dict[str, Kept]:
        """Open what is there; what never was is new, and known as such: it has no row."""
        found: dict[str, Kept] = {}
        for instance, one in kept.items():
            try:
                await self.store.open(self._log, {instance: one}, create=False)
                found[instance] = one
            except NoViews:
                if self._unnoted.pop(instance, None) is None:
                    raise
                del self._rows[instance]
        return found

    def is_new(self, name: str) -> bool:
        """Whether nothing is noted of a projection, as it has never been started."""
        return not self.of(name)

    async def _carry(self, name: str) -> None:
        """Pass on what was skipped for good; where keys are others, the `objections` tell."""
        live, row = self.live(name), self.mine(name)
        if live is None or row is None or row.state not in BUILT:
            return
        if same_keys(self._declared[name], parts_in(live), self.parts(name)):
            await carry_skips(self.store, live, row)

    async def _new(self, name: str, *, rebuild: bool) -> list[Version]:
        """Return what has to be noted, so that there is a live version, and this program's."""
        if not self.of(name):
            if await self._is_mine(name):
                return [self._row(name, "live")]
            live = self._row(name, "live")
            return [structs.replace(live, version=UNKNOWN, parts="{}")]
        one = self._declared[name]
        if (
            self.mine(name) is None
            and name not in self._foreign
            and rebuild
            and not kept_in_place(one)
        ):
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
            if not kept_in_place(one) or name in self._foreign or (live := self.live(name)) is None:
                continue
            if live.version != self.version(name):
                require_slices(one, (await self.store.checkpoints()).get(live.instance, ()))
                after = structs.replace(self._row(name, "live"), instance=live.instance)
                await self.store.open(self._log, {live.instance: _kept(one, after)}, create=True)
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
        """Drop other projections that keep rows in the tables of one; a handler takes them over."""
        if (mine := self.mine(one.title)) is not None:
            self._know(await self.store.claim([mine]))
        if others := owners_of(one, noted := await self.store.versions()):
            dropped = [_in(leaving(one, noted, row), "dropped") for row in others]
            await self.store.turn(list(map(Turn, others, dropped)))
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
            if row is None or row.state not in BUILT or not self._is_followed(row):
                continue
            if row.instance not in self._open and name not in self._foreign:
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
        self._noted = bool(rows)
        for name, row in self._unnoted.items():
            self._rows.setdefault(name, [row])
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
            if live is not None and (name in self._foreign or self._holds(live, name)):
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


__all__ = ["BUILT", "FOLLOWED", "Versions", "kept_of", "parts_in"]
