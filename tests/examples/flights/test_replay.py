"""The replay: the commands of the file in their order, and all answers that follow from them."""

import random
import signal
from collections import Counter
from pathlib import Path
from typing import get_args

import pytest

from examples.flights.application import app
from examples.flights.replay.commands import commands
from examples.flights.replay.file import Slice, open_flights
from examples.flights.replay.report import replay
from tests.examples.flights.expected import (
    expected,
    needs_answers,
    needs_flights,
    require_views,
)
from tests.examples.flights.loading import finish, start, wait_for_events

KILLS = 20


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where log and views are."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/flights.db"
    found: str = request.getfixturevalue("postgres_url")
    return found


@needs_answers
@pytest.mark.parametrize("slice", get_args(Slice))
def test_commands_come_in_order_each_with_its_own_key(slice: Slice) -> None:
    answers = expected(slice)
    counted: Counter[str] = Counter()
    last = ""
    with open_flights() as flights:
        for key, command in commands(flights, slice):
            assert key > last
            last = key
            counted[command.message_name.lower()] += 1
    whole = Counter(answers["accepted"]) + Counter(answers["rejected"])
    assert counted == whole
    assert counted.total() == answers["commands"]


@needs_flights
def test_parts_are_the_whole_and_an_aircraft_is_in_one() -> None:
    with open_flights() as flights:
        whole = dict(commands(flights, "first_week"))
        parts = [dict(commands(flights, "first_week", (n, 3))) for n in (1, 2, 3)]
    assert parts[0] | parts[1] | parts[2] == whole
    assert sum(map(len, parts)) == len(whole)
    fleets = [{getattr(c, "aircraft", None) for c in part.values()} - {None} for part in parts]
    assert not fleets[0] & fleets[1] | fleets[0] & fleets[2] | fleets[1] & fleets[2]


@needs_answers
@pytest.mark.parametrize("slice", ["first_week", "february"])
async def test_every_number_is_reached(slice: Slice, url: str, tmp_path: Path) -> None:
    answers = expected(slice)
    log, views = url, f"sqlite:///{tmp_path}/views.db"
    done, report = await replay(log, views, slice)
    assert report.accepted == answers["accepted"]
    assert report.rejected == answers["rejected"]
    assert report.events == answers["events"]
    assert report.verified
    assert {why.code for why in done.rejections} == (
        {"aircraft-is-in-the-air", "flight-is-not-in-the-air"} if report.rejected else set()
    )
    async with app.open(log=log, views=views) as running:
        await require_views(running, slice)


@needs_answers
async def test_a_load_that_is_killed_goes_on_to_the_same_numbers(url: str) -> None:
    """kill -9 at random moments, each time resumed."""
    answers = expected("first_week")
    moments = sorted(random.sample(range(1, answers["events"]), KILLS))
    for moment in moments:
        process = start(url, "first_week")
        await wait_for_events(url, moment, process)
        process.kill()
        process.communicate()
    report = finish(start(url, "first_week"))
    for number in ("accepted", "rejected", "events"):
        assert report[number] == answers[number], f"killed at {moments}"
    assert report["verified"]
    async with app.open(log=url, views=url) as running:
        await require_views(running, "first_week")


@needs_answers
async def test_two_processes_load_halves_into_one_log(url: str) -> None:
    answers = expected("first_week")
    halves = [start(url, "first_week", "--part", part) for part in ("1/2", "2/2")]
    reports = [finish(half) for half in halves]
    accepted = Counter(reports[0]["accepted"]) + Counter(reports[1]["accepted"])
    assert accepted == answers["accepted"]
    async with app.open(log=url, views=url) as running:
        await running.catch_up()
        await require_views(running, "first_week")


@needs_answers
async def test_an_interrupted_load_stops_cleanly_and_goes_on(tmp_path: Path) -> None:
    answers = expected("first_week")
    url = f"sqlite:///{tmp_path}/flights.db"
    process = start(url, "first_week")
    await wait_for_events(url, 1, process)
    process.send_signal(signal.SIGINT)
    stopped = finish(process, status=130)
    assert stopped["stopped"]
    assert 0 < sum(stopped["accepted"].values()) == stopped["events"] < answers["events"]
    report = finish(start(url, "first_week"))
    assert report["accepted"] == answers["accepted"]
    assert report["verified"]


@needs_flights
def test_a_part_is_written_like_one_of_two(tmp_path: Path) -> None:
    process = start(f"sqlite:///{tmp_path}/flights.db", "first_week", "--part", "3/2")
    out, err = process.communicate()
    assert process.returncode == 2
    assert "A part is written like 1/2" in out + err
