"""What projections have left in the read databases that the program's code does not have any more.

Nobody follows them, and nobody else would ever remove them: neither their tables nor what is noted
of them. Only those of the program's own log are looked at: others are another application's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct, structs

from diptych.errors import DiptychError, Invalid, Unavailable
from diptych.read.beside import RowsBeside
from diptych.read.following.crew import LEASE_SECONDS, host, is_alive
from diptych.read.following.engine import Engine
from diptych.read.port import Checkpoint, Version, ViewStore, Worker, definition_of
from diptych.read.versioning.noted import VersionStatus


class Left(Struct, frozen=True):
    """A version that is left, and the store that keeps it.

    The tables of ``row`` are those that nobody else uses. ``foreign``: it has followed another log.
    """

    store: ViewStore
    row: Version
    spans: Sequence[Checkpoint]
    head: int
    foreign: bool

    async def status(self, *, count: bool = False) -> VersionStatus:
        """Return it as people see it; ``count``: with how many rows there are."""
        row, position = self.row, min((span.position for span in self.spans), default=0)
        tables = [*row.tables.values()]
        return VersionStatus(
            *(row.projection, row.version, row.state, False, row.instance, tables, row.since),
            *(position, max(self.head - position, 0), False),
            await _counted(self.store, tables) if count else {},
        )


async def left_of(engines: Sequence[Engine], name: str | None = None) -> list[Left]:
    """Return what is left of one projection, or of all, that none of the engines has."""
    declared = {one for engine in engines for one in engine.projections}
    found: list[Left] = []
    # What has its rows in a row store is dropped by way of that, and not of its books.
    beside = [e for e in engines if isinstance(e.store, RowsBeside)]
    given = tuple(e.store.before for e in engines if isinstance(e.store, RowsBeside))
    taken: set[str] = set()
    for engine in (*beside, *(e for e in engines if e not in beside)):
        store, log = engine.store, engine.log.identity
        noted = [row for row in await store.versions() if row.state != "dropped"]
        left = [row for row in noted if row.projection not in declared]
        left = [row for row in left if name in (None, row.projection)]
        if isinstance(store, RowsBeside):
            await store.open(log, {}, create=False)  # it may keep nothing of this program
            left = [row for row in left if await store.has_rows(row.instance)]
            taken |= {row.instance for row in left}
        else:
            left = [row for row in left if row.instance not in taken]
        stored = await store.checkpoints() if left else {}
        for row in left:
            spans = stored.get(row.instance, [])
            foreign = any(span.log != log for span in spans)
            own = structs.replace(row, tables=_unshared(row, noted, engine, given))
            found.append(Left(store, own, spans, await engine.log.head(), foreign))
    return found


async def remove(left: Sequence[Left], version: str | None = None) -> None:
    """Remove what is left of a projection, or of one version of it, with all that is noted.

    Raises ``Invalid`` where workers run it, where it is another log's, and where its rows are in a
    database that is not given.
    """
    chosen = [one for one in left if version in (None, one.row.version)]
    for one in chosen:
        await _require_idle(one)
    for one in chosen:
        gone = [one.row]
        if all(other in chosen for other in left):
            dropped = [row for row in await one.store.versions() if row.state == "dropped"]
            # Their tables went when they were dropped: what has these names now is somebody else's.
            gone += [
                structs.replace(row, tables={})
                for row in dropped
                if row.projection == one.row.projection
            ]
        if not await one.store.forget(gone):
            raise Invalid(
                "Somebody has just changed what there is of this projection; look again",
                field="projection",
                rule="one at a time",
                projection=one.row.projection,
            )


async def _require_idle(one: Left) -> None:
    row = one.row
    if one.foreign:
        raise Invalid(
            "This program does not have the projection, and it follows another log: it is another "
            "application's. Drop it with that one's log",
            field="projection",
            rule="a projection of this log",
            projection=row.projection,
            log_of_rows=", ".join(sorted({span.log for span in one.spans})),
        )
    if away := [table for table in row.tables.values() if ":" in table]:
        raise Invalid(
            "Its rows are in a database that is not given; give the address of that one too, under "
            "any name: views={'main': …, 'cache': …} (--views 'main=… cache=…')",
            field="views",
            rule="an address of all databases where it has rows",
            projection=row.projection,
            rows=", ".join(away),
        )
    workers = [w for w in await one.store.workers(LEASE_SECONDS) if _runs(w, row)]
    if there := [w for w in workers if w.host != host() or is_alive(w.pid)]:
        raise Invalid(
            "Workers with other code run the projection; stop them, or leave it to them",
            field="projection",
            rule="one that no worker runs",
            projection=row.projection,
            workers=", ".join(f"process {w.pid} on {w.host.partition('/')[0]}" for w in there),
        )


def _runs(worker: Worker, row: Version) -> bool:
    return not {row.projection, row.instance}.isdisjoint(worker.projections)


def _unshared(
    row: Version, noted: Iterable[Version], engine: Engine, given: tuple[str, ...]
) -> dict[str, str]:
    """Return the tables of a version that no other projection uses, noted or in the code."""
    used = {definition_of(v).table_name for one in engine.projections.values() for v in one.views}
    for other in noted:
        if other.projection != row.projection:
            used |= set(other.tables.values())
    return {
        plain: table
        for plain, table in row.tables.items()
        if table not in used and not table.startswith(given)  # these are not there any more
    }


async def _counted(store: ViewStore, tables: Iterable[str]) -> dict[str, int]:
    """Return how many rows tables hold, where the store can tell: Redis runs no statements."""
    from sqlalchemy import MetaData, Table, func, select

    found: dict[str, int] = {}
    for name in tables:
        counted = select(func.count()).select_from(Table(name, MetaData()))
        try:
            [(rows,)] = (await store.rows(counted)).rows
        except Unavailable:
            raise
        except DiptychError:
            continue
        found[name] = rows
    return found


__all__ = ["Left", "left_of", "remove"]
