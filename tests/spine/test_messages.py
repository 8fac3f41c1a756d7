"""Messages are structs, with all that structs can do."""

from functools import cached_property

from diptych import Event


class Measured(Event, dict=True):
    values: tuple[int, ...]

    @cached_property
    def total(self) -> int:
        return sum(self.values)


class MeasuredTwice(Measured):
    again: tuple[int, ...]


def test_an_event_may_keep_what_it_has_computed() -> None:
    event = Measured((1, 2))
    assert event.total == 3
    assert event == Measured((1, 2))
    assert MeasuredTwice((1, 2), (3,)).total == 3
