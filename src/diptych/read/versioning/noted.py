"""What a view store notes of versions of projections, and says of how two of them differ."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from msgspec import Struct

State = Literal["live", "building", "held", "old", "dropped"]
"""``held``: being built, or built, and not to be switched to unless somebody asks for it."""


class Version(Struct, frozen=True):
    """A version of a projection, as it is kept: under which name, in which tables, in which state.

    ``tables``: the tables of its views, by the plain ones. ``parts``: what it is made of, in JSON.
    ``turn`` counts the changes of state of all versions.
    """

    projection: str
    version: str
    instance: str
    tables: dict[str, str]
    state: State
    parts: str
    since: datetime
    turn: int = 0


class Turn(Struct, frozen=True):
    """A change of one version."""

    before: Version
    after: Version


class Difference(Struct, frozen=True):
    """How the rows of two tables of one view differ, in one snapshot.

    ``missing`` are rows that only the first has, ``extra`` those that only the second has,
    ``columns`` how often each column differs. ``examples`` are (key, row of the first or None, row
    of the second or None), rows as dictionaries of what the database holds.
    """

    table: str
    rows: int
    missing: int
    extra: int
    differing: int
    columns: dict[str, int]
    examples: list[tuple[Any, Any, Any]]
    positions: dict[str, int]


class VersionStatus(Struct, frozen=True):
    """A version of a projection: its state since when, and how far it is. ``own``: this program's.

    ``lag`` counts events. Not ``in_code``: the program has no such projection; what it has left can
    be dropped. ``rows``: how many are in its tables, where that was asked.
    """

    projection: str
    version: str
    state: State
    own: bool
    instance: str
    tables: list[str]
    since: datetime
    position: int
    lag: int
    in_code: bool = True
    rows: dict[str, int] = {}
