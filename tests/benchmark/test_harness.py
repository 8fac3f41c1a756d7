"""The benchmark runs: a tiny round of every scenario, whose figures nobody looks at."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import msgspec
import pytest

from bench import places
from bench.bars import bars
from bench.chart import chart
from bench.conditions import conditions
from bench.figures import OURS, Backend, Contest, Entrant, Figures, NotHere, Results
from bench.page import page
from bench.places import Place, SqliteFiles
from bench.report import Report
from bench.run import SCENARIOS, run, take_turns
from bench.setup import Sizes

TINY = Sizes(
    in_flight=(1, 8),
    threads=(1, 2),
    uma_threads=(1, 2),
    sequential=8,
    commands=64,
    peer_commands=8,
    uma_commands=16,
    events=2_048,
    peer_events=40,
    uma_events=100,
    small=1_024,
    largest=4_096,
    window=512,
    asked=10,
    connections=4,
    requests=64,
    steady_seconds=0.2,
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in the test's own folder."""
    monkeypatch.setattr(places, "BUILD", tmp_path)


@pytest.mark.parametrize("backend", get_args(Backend))
def test_every_scenario_gives_rows_and_judges_its_bars(backend: Backend) -> None:
    whole = run(TINY, 1, backends=[backend])
    results = whole.results
    judged = bars(results, TINY, [], [backend])
    assert not [one for one in results.missing if one.subject.startswith(OURS)]
    assert {row.scenario for row in results.rows} == set(SCENARIOS)
    assert all(bar.measured is not None for bar in judged)
    assert all(row.median > 0 and len(row.rounds) == 1 for row in results.rows)
    report = Report(conditions(whole, TINY, 1), results.rows, judged, results.missing)
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report
    assert chart(report).startswith("<svg")
    assert all(bar.name in page(report) for bar in judged)


def test_a_round_is_thrown_away_and_the_others_are_taken_in_turn() -> None:
    order: list[str] = []

    def entrant(name: str) -> Entrant:
        async def measure(place: Place) -> Figures:
            order.append(name)
            return {"commands/s": float(len(order))}

        return Entrant(name, 1, measure)

    contest = Contest(1, "turns", "sqlite", [entrant("a"), entrant("b")])
    results = Results()
    take_turns(contest, SqliteFiles(), 3, results)
    assert order == ["a", "b"] * 4
    assert [(row.subject, row.rounds, row.median) for row in results.rows] == [
        ("a", [3, 5, 7], 5),
        ("b", [4, 6, 8], 6),
    ]


def test_who_cannot_be_measured_is_named_with_the_reason_and_its_bars_do_not_hold() -> None:
    async def absent(place: Place) -> Figures:
        raise NotHere("not installed")

    results = Results()
    take_turns(Contest(1, "x", "sqlite", [Entrant("peer", 2, absent)]), SqliteFiles(), 2, results)
    (missing,) = results.missing
    assert (missing.subject, missing.in_flight, missing.why) == ("peer", 2, "not installed")
    assert not results.rows
    assert not any(bar.held for bar in bars(results, TINY, [1], ["sqlite"]))


def test_a_bar_that_must_stay_below_does_not_hold_above() -> None:
    async def slow(place: Place) -> Figures:
        return {"p50 ms": 1.7}

    async def bare(place: Place) -> Figures:
        return {"p50 ms": 1.0}

    results = Results()
    entrants = [Entrant(OURS, 1, slow), Entrant("bare durable insert", 1, bare)]
    take_turns(Contest(3, "x", "sqlite", entrants), SqliteFiles(), 1, results)
    (bar,) = bars(results, TINY, [3], ["sqlite"])
    assert (bar.required, bar.measured, bar.held) == (1.6, 1.7, False)
