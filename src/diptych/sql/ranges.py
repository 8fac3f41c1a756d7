"""The ranges of the tag index that a query of the log reads."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TypeAlias

from diptych.log import EventQuery, QueryItem

FOREVER = 2**63 - 1
"""The highest position there can be."""

_RANGES_OF_A_POINT = 16  # more go by a statement of their own

Leg: TypeAlias = tuple[str, str, tuple[str, ...]]
"""One range of the tag index: a tag, a type, and the tags that each event must bear besides."""


# No event has such a text, as `require_sound` refuses it; and not every driver takes it.
_NOWHERE = re.compile(r"[\x00\ud800-\udfff]")
_NEVER = QueryItem(frozenset({"\x01"}), frozenset({"never"}))


def findable(query: EventQuery) -> EventQuery:
    """Return a query for the same events, with no text in it that no event can have."""
    if not _NOWHERE.search("".join(_texts(query))):
        return query
    return EventQuery(tuple(_findable(item) for item in query.items))


def _texts(query: EventQuery) -> list[str]:
    return [text for item in query.items for text in (*item.types, *item.tags)]


def _findable(item: QueryItem) -> QueryItem:
    types = frozenset(name for name in item.types if not _NOWHERE.search(name))
    if _NOWHERE.search("".join(item.tags)) or (item.types and not types):
        return _NEVER
    return QueryItem(types, item.tags)


def is_everything(query: EventQuery) -> bool:
    """Whether every event matches."""
    return not query.items or any(not item.types and not item.tags for item in query.items)


def is_point(query: EventQuery) -> bool:
    """Whether each item is one tag with types, as boundaries are: few ranges of the index."""
    ranges = 0
    for item in query.items:
        if len(item.tags) != 1 or not item.types:
            return False
        ranges += len(item.types)
    return 0 < ranges <= _RANGES_OF_A_POINT


def legs_of(items: Iterable[QueryItem], types_of: Callable[[str], Iterable[str]]) -> list[Leg]:
    """Return the index ranges of a query; ``types_of`` gives the types that occur with a tag."""
    legs: dict[Leg, None] = {}
    for item in items:
        tag, *others = sorted(item.tags) or [""]
        for name in sorted(item.types or types_of(tag)):
            legs[tag, name, tuple(others)] = None
    return list(legs)
