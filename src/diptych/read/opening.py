"""What must be there when views are opened, and where a projection may begin.

A projection begins at position 0 only on tables that are new or empty: rows that are there without
its checkpoint are those of another one, or what it has applied itself is no longer known.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from typing import Any, Final

from msgspec import structs

from diptych.errors import DefinitionError, ForeignCheckpoint, NoViews, ViewLost
from diptych.read.port import Checkpoint, Kept, Version, definition_of
from diptych.read.projections import Keyed, Projection

LOST: Final = (
    "A view's table is not there, although its projection has applied events: it was dropped, or "
    "the view is new to the projection. Restore the table; or delete the projection's rows in "
    "diptych_checkpoints and drop all its tables, and it is built anew from the log"
)


def unclaimed(
    projections: Mapping[str, Kept],
    tables: Container[str],
    checkpoints: Mapping[str, Sequence[Checkpoint]],
) -> list[str]:
    """Return the tables that are there although their projection has no checkpoint."""
    return [
        table
        for name, kept in projections.items()
        for _, table in kept.places
        if not checkpoints.get(name) and table in tables
    ]


def require_tables(
    projections: Mapping[str, Kept],
    tables: Container[str],
    checkpoints: Mapping[str, Sequence[Checkpoint]],
    *,
    create: bool,
    filled: Collection[str] = (),
    lost: str = LOST,
    **where: Any,
) -> list[str]:
    """Return the projections that are to begin at position 0.

    ``filled``: those of the `unclaimed` tables that hold rows; their projections begin nowhere, and
    are refused when they are followed. Raises ``ViewLost`` when a projection that has applied
    events lacks the table of a view: ``lost`` says what to do. To be asked before tables are made:
    an empty one would pass for complete. When none are to be made, ``NoViews`` for whatever is
    lacking; ``where`` are its facts.
    """
    lacking: list[str] = []
    new: list[str] = []
    for name, kept in projections.items():
        spans = checkpoints.get(name, ())
        gone = [table for _, table in kept.places if table not in tables]
        held = any(table in filled for _, table in kept.places)
        if not spans and not held:
            new.append(name)
        if gone or not (spans or held):
            lacking.append(name)
        if gone and any(span.count for span in spans):
            raise ViewLost(
                lost,
                projection=name,
                table=", ".join(gone),
                position=min(span.position for span in spans),
                applied=sum(span.count for span in spans),
            )
    if lacking and not create:
        raise NoViews(
            "There are no views at that address, and none were to be made",
            **where,
            lacking=", ".join(lacking),
        )
    return new


def tables_of(one: Projection, noted: Iterable[Version]) -> set[str]:
    """Return the tables of a projection, or of a version of it, noted or not."""
    found = {name for row in noted if row.instance == one.name for name in row.tables.values()}
    return found or {definition_of(view).table_name for view in one.views}


def owners_of(one: Projection, noted: Sequence[Version]) -> list[Version]:
    """Return the versions of other projections that keep rows in the tables of one."""
    tables = tables_of(one, noted)
    return [
        row
        for row in noted
        if row.projection != one.title
        and row.state != "dropped"
        and not tables.isdisjoint(row.tables.values())
    ]


def tables_of_none(gone: Iterable[Version], left: Iterable[Version]) -> set[str]:
    """Return the tables of versions that are no more which no version that is left is in."""
    used = {name for row in left if row.state != "dropped" for name in row.tables.values()}
    return {name for row in gone for name in row.tables.values()} - used


def leaving(one: Projection, noted: Sequence[Version], row: Version) -> Version:
    """Return a version that is to be dropped, without the tables that a handler takes over."""
    taken: set[str] = set() if isinstance(one, Keyed) else tables_of(one, noted)
    kept = {plain: name for plain, name in row.tables.items() if name not in taken}
    return structs.replace(row, tables=kept)


def unclaimed_rows(one: Projection, noted: Sequence[Version]) -> ForeignCheckpoint:
    """Return the error of a projection that has no checkpoint, while its tables hold rows."""
    owners = ", ".join(sorted({row.projection for row in owners_of(one, noted)}))
    whose, keep = "whose they are, and up to where, is not known any more", ""
    if owners:
        whose = f"they are those of {owners}"
        keep = f"keep the name {owners}; or give the view another table=...; or "
    if isinstance(one, Keyed):
        remedy = (
            "The log is not folded again into such rows, as everything in them would count twice: "
            f"{keep}have the table emptied and built anew from the log, by `diptych projections "
            f"rewind {one.title}`"
        )
    else:
        remedy = (
            f"Nothing is handled again by itself: {keep}`diptych projections rewind {one.title} "
            "--to POSITION` has it go on behind that position; its rows stay"
        )
    return ForeignCheckpoint(
        f"The projection has no checkpoint, but its table holds rows: {whose}. {remedy}",
        projection=one.title,
        table=", ".join(sorted(tables_of(one, noted))),
        rows_of=owners or "unknown",
    )


def require_slices(one: Projection, spans: Iterable[Checkpoint]) -> None:
    """Raise ``DefinitionError`` unless what is kept in place has as many slices as before.

    Each slice stands where it stands: there is no one position from which all could go on, and
    what they have applied is proved for each by itself.
    """
    there = sum(span.slices for span in spans)
    if there and there != one.slices:
        raise DefinitionError(
            "An inline projection and a handler go on from where the version before them stands, "
            "which takes the same number of slices. Declare the projection with "
            f"slices={one.slices}, have that built (`diptych projections rebuild`), and change it "
            "to this then; or give its view another name, and it begins at the first event",
            projection=one.title,
            slices=one.slices,
            slices_before=there,
            at=one.at,
        )


__all__ = [
    "leaving",
    "owners_of",
    "require_slices",
    "require_tables",
    "tables_of_none",
    "unclaimed",
    "unclaimed_rows",
]
