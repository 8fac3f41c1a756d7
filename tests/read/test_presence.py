"""Which workers are there is told by whether their stamps change, not by what the stamps say."""

from __future__ import annotations

import pytest

from diptych.read.port import Worker
from diptych.read.presence import Presence, Sight

ONE, TWO = (Worker(name, "host", 1, ()) for name in ("1", "2"))
LEASE = 5.0
HOUR = 3600.0


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.mark.parametrize("age", [HOUR, -HOUR])
def test_the_age_is_believed_only_of_what_was_never_seen_before(clock: Clock, age: float) -> None:
    """Who was stamped long ago, or is to be, is there as soon as he stamps again."""
    presence = Presence(clock)
    assert presence.judged([Sight(ONE, 1.0, 0.0), Sight(TWO, 1.0, age)], LEASE) == ([ONE], [])
    clock.now += 1
    assert presence.judged([Sight(ONE, 1.0, age), Sight(TWO, 2.0, age)], LEASE) == ([ONE, TWO], [])


@pytest.mark.parametrize("age", [0.0, HOUR, -HOUR])
def test_who_does_not_stamp_any_more_is_gone_after_the_lease(clock: Clock, age: float) -> None:
    """Whatever the clock of the day has come to say; and one who comes back is there."""
    presence = Presence(clock)
    assert presence.judged([Sight(ONE, 1.0, 0.0), Sight(TWO, 1.0, 0.0)], LEASE) == ([ONE, TWO], [])
    for beat in range(1, 6):
        assert TWO in presence.judged([Sight(ONE, beat, age), Sight(TWO, 1.0, age)], LEASE)[0]
        clock.now += 1
    assert presence.judged([Sight(ONE, 7.0, age), Sight(TWO, 1.0, age)], LEASE) == ([ONE], [TWO])
    assert presence.judged([Sight(ONE, 8.0, age), Sight(TWO, 2.0, age)], LEASE) == ([ONE, TWO], [])
