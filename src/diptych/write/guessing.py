"""What is most likely not in the log yet, and so need not be read before it is decided on.

A guess is a state that was right once, when the log was empty. Like every state that may have
become stale it is never trusted: each append that rests on it, a rejection's too, is held against
the log by its condition. Only what no append can prove, a fault, is looked up before it is told.
"""

from __future__ import annotations

from diptych.write.cache import Slot
from diptych.write.definitions import Need
from diptych.write.entry import Entry

GUESS_AFTER = 8
"""After so many first reads in a row that found nothing, a kind of command is decided without."""


class Guesses:
    """Counts, for each model that a kind of command asks for, how often in a row it was new."""

    def __init__(self) -> None:
        self._new: dict[Need, int] = {}

    def try_on(self, need: Need, slot: Slot) -> None:
        """Take a slot that was not read for a new one, if that is likely."""
        if self._new.get(need, 0) >= GUESS_AFTER and slot.untouched:
            slot.loaded = slot.guessed = True

    def learn(self, entry: Entry, slot: Slot, *, new: bool) -> None:
        """Note whether a slot that a command asked for was new."""
        for need, own in zip(entry.decision.needs, entry.states, strict=True):
            if own is slot:
                self._new[need] = self._new.get(need, 0) + 1 if new else 0

    def withdraw(self, entry: Entry) -> list[Slot]:
        """Return those of a command's slots that were guessed; they are to be read after all."""
        guessed = [slot for slot in entry.slots if slot.guessed]
        for slot in guessed:
            slot.loaded = slot.guessed = False
        return guessed
