"""What is built beside the live versions takes turns with them, and keeps to its limit."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from diptych.read.following.pace import Pace


class Named(Struct, frozen=True):
    name: str


def test_what_is_built_takes_turns_with_the_rest() -> None:
    pace = Pace()
    able: Any = [Named("live"), Named("live@new"), Named("other")]
    turns = [[[f.name for f in group] for group in pace.groups(able, {"live@new"})] for _ in "1234"]
    built, rest = ["live@new"], ["live", "other"]
    assert turns[0] != turns[1]
    assert turns[:2] == turns[2:]
    assert sorted(turns[:2]) == [[rest, built], [built, rest]]
    assert pace.groups(able, ()) == [able]


def test_a_limit_puts_the_next_page_off_for_as_long_as_its_events_take() -> None:
    pace = Pace()
    pace.limit("new", 100)
    assert pace.allows("new", 0.0)
    pace.note({"new": 50, "live": 50}, 0.0)
    assert not pace.allows("new", 0.49)
    assert pace.allows("new", 0.5)
    assert pace.allows("live", 0.0)
    assert pace.wait(0.1) == 0.4
    pace.limit("new", None)
    assert pace.allows("new", 0.0)
