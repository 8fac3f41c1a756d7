"""Diptych: CQRS and event sourcing for Python, with a read side you can prove.

Commands change facts on one side, queries read views on the other, one log of events joins them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diptych.app import App, Module
    from diptych.app.access import anyone, authenticated, role, same_tenant
    from diptych.app.running import Running
    from diptych.errors import (
        Conflict,
        DiptychError,
        Invalid,
        Overloaded,
        Rejected,
        Unavailable,
    )
    from diptych.log import Token
    from diptych.messages import Actor, Command, Event, Metadata, Query, Recorded, Tag
    from diptych.read.port import Transaction
    from diptych.read.queries import Answer, Events, Views
    from diptych.read.select import column, select
    from diptych.read.views import Key, View
    from diptych.write.bus import Limits
    from diptych.write.entry import Receipt

_HOMES = {
    "diptych.app": ("App", "Module"),
    "diptych.app.access": ("anyone", "authenticated", "role", "same_tenant"),
    "diptych.app.running": ("Running",),
    "diptych.errors": (
        "Conflict",
        "DiptychError",
        "Invalid",
        "Overloaded",
        "Rejected",
        "Unavailable",
    ),
    "diptych.log": ("Token",),
    "diptych.messages": ("Actor", "Command", "Event", "Metadata", "Query", "Recorded", "Tag"),
    "diptych.read.port": ("Transaction",),
    "diptych.read.queries": ("Answer", "Events", "Views"),
    "diptych.read.select": ("column", "select"),
    "diptych.read.views": ("Key", "View"),
    "diptych.write.bus": ("Limits",),
    "diptych.write.entry": ("Receipt",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Actor",
    "Answer",
    "App",
    "Command",
    "Conflict",
    "DiptychError",
    "Event",
    "Events",
    "Invalid",
    "Key",
    "Limits",
    "Metadata",
    "Module",
    "Overloaded",
    "Query",
    "Receipt",
    "Recorded",
    "Rejected",
    "Running",
    "Tag",
    "Token",
    "Transaction",
    "Unavailable",
    "View",
    "Views",
    "anyone",
    "authenticated",
    "column",
    "role",
    "same_tenant",
    "select",
]


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for: `import diptych` alone costs next to nothing."""
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'diptych' has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
