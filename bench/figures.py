"""What is measured, by whom, and what came of it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Literal, TypeAlias

from msgspec import Struct

from bench.places import Place

OURS: Final = "diptych"
Backend: TypeAlias = Literal["sqlite", "postgresql"]
Figures: TypeAlias = dict[str, float]
"""Unit and figure, of one measurement: ``{"commands/s": 21_000.0}``."""

Measure: TypeAlias = Callable[[Place], Coroutine[Any, Any, Figures]]


class NotHere(Exception):
    """This subject cannot be measured here; the text says why."""


class Entrant(Struct, frozen=True, eq=False):
    """One who takes part. ``in_flight``: commands at a time (for peers: threads)."""

    subject: str
    in_flight: int
    measure: Measure


class Contest(Struct, frozen=True):
    """The same work for several, who take turns. ``rounds`` overrides what was asked for."""

    scenario: int
    name: str
    backend: Backend
    entrants: Sequence[Entrant]
    rounds: int | None = None


class Row(Struct, frozen=True):
    """What one subject was measured at in one contest, in one unit."""

    scenario: int
    name: str
    backend: str
    subject: str
    in_flight: int
    unit: str
    rounds: list[float]
    median: float


class Missing(Struct, frozen=True):
    """Who could not be measured, and why."""

    scenario: int
    name: str
    backend: str
    subject: str
    in_flight: int
    why: str


class Results(Struct):
    """All rows of a run, to be asked for medians."""

    rows: list[Row] = []
    missing: list[Missing] = []

    def add(self, contest: Contest, entrant: Entrant, taken: Sequence[Figures]) -> None:
        """Take in the rounds of an entrant: a row for each unit."""
        for unit in taken[0]:
            rounds = [float(f"{figures[unit]:.4g}") for figures in taken]
            self.rows.append(
                Row(
                    contest.scenario,
                    contest.name,
                    contest.backend,
                    entrant.subject,
                    entrant.in_flight,
                    unit,
                    rounds,
                    float(f"{statistics.median(rounds):.4g}"),
                )
            )

    def miss(self, contest: Contest, entrant: Entrant, why: str) -> None:
        """Note who could not be measured."""
        self.missing.append(
            Missing(
                contest.scenario,
                contest.name,
                contest.backend,
                entrant.subject,
                entrant.in_flight,
                why,
            )
        )

    def of(
        self,
        scenario: int,
        backend: str,
        subject: str,
        unit: str,
        *,
        in_flight: int | None = None,
        name: str | None = None,
    ) -> list[float]:
        """Return the medians of a subject in a unit, one for each contest and concurrency."""
        return [
            row.median
            for row in self.rows
            if (row.scenario, row.backend, row.subject, row.unit)
            == (scenario, backend, subject, unit)
            and in_flight in (None, row.in_flight)
            and name in (None, row.name)
        ]
