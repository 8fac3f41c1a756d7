"""How versions are built beside what is live: by turns, and at so many events a second."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from diptych.read.following.follower import Follower


class Pace:
    """The limits of an engine, by instance."""

    def __init__(self) -> None:
        self._limits: dict[str, float] = {}
        self._due: dict[str, float] = {}
        self._aside = False

    def groups(self, able: Sequence[Follower], built: Collection[str]) -> list[list[Follower]]:
        """Take turns: what is being built is far behind, and must not hold up the rest."""
        aside = [f for f in able if f.name in built]
        rest = [f for f in able if f.name not in built]
        self._aside = not self._aside
        return [group for group in ((aside, rest) if self._aside else (rest, aside)) if group]

    def limit(self, name: str, per_second: float | None) -> None:
        """Let an instance be built with so many events a second; None: as fast as may be."""
        if per_second is None:
            self._limits.pop(name, None)
            self._due.pop(name, None)
        else:
            self._limits[name] = per_second

    def allows(self, name: str, now: float) -> bool:
        """Whether its next page is due."""
        return self._due.get(name, now) <= now

    def note(self, events: Mapping[str, int], now: float) -> None:
        """Note how many events were read for each."""
        for name, count in events.items():
            if (limit := self._limits.get(name)) is not None:
                self._due[name] = max(self._due.get(name, now), now) + count / limit

    def wait(self, now: float) -> float:
        """Return the seconds until the next is due; a large number where none is."""
        return max(min(self._due.values(), default=now + 3600) - now, 0.001)
