"""The test kit: scenarios, the contracts that every adapter must pass, the checker of histories.

Importing it is cheap; what needs hypothesis or pytest is loaded when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diptych.testing.access import AccessRow, AccessTable, access_table
    from diptych.testing.checker import Violation, check_history, check_views
    from diptych.testing.differences import ScenarioFailed
    from diptych.testing.history import History
    from diptych.testing.invariants import Story, check_invariant
    from diptych.testing.laws import LawBroken, check_codec, check_folds
    from diptych.testing.recording import AppRecorder, Recorder
    from diptych.testing.scenario import Scenario, Scenarios, rejected, scenarios
    from diptych.testing.strategies import commands_of, events_of, strategy

_HOMES = {
    "diptych.testing.access": ("AccessRow", "AccessTable", "access_table"),
    "diptych.testing.checker": ("Violation", "check_history", "check_views"),
    "diptych.testing.differences": ("ScenarioFailed",),
    "diptych.testing.invariants": ("Story", "check_invariant"),
    "diptych.testing.laws": ("LawBroken", "check_codec", "check_folds"),
    "diptych.testing.history": ("History",),
    "diptych.testing.recording": ("AppRecorder", "Recorder"),
    "diptych.testing.scenario": ("Scenario", "Scenarios", "rejected", "scenarios"),
    "diptych.testing.strategies": ("commands_of", "events_of", "strategy"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AccessRow",
    "AccessTable",
    "AppRecorder",
    "History",
    "LawBroken",
    "Recorder",
    "Scenario",
    "ScenarioFailed",
    "Scenarios",
    "Story",
    "Violation",
    "access_table",
    "check_codec",
    "check_folds",
    "check_history",
    "check_invariant",
    "check_views",
    "commands_of",
    "events_of",
    "rejected",
    "scenarios",
    "strategy",
]


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for."""
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'diptych.testing' has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
