"""The tests that eventsourcing 9.5 ships for third-party stores pass on each of our logs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from eventsourcing.persistence import IntegrityError, Tracking

from diptych.app.blocking import BlockingLog, open_log
from tests.peers import cases, factory
from tests.peers.recorders import LogTrackingRecorder

RECORDERS = cases.tests_of(cases.RECORDERS)
APPLICATIONS = cases.tests_of(cases.APPLICATIONS)


@pytest.mark.parametrize("name", RECORDERS)
def test_recorders_keep_what_is_asked_of_third_parties(name: str, log: BlockingLog) -> None:
    """Recorders on our log, by way of the synchronous facade, pass eventsourcing's own tests."""
    case = RECORDERS[name]()
    assert isinstance(case, cases.OnALog)
    case.log = log
    case.debug()


@pytest.fixture
def _by_environment(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let eventsourcing find our recorders; close the logs that its tests leave open."""
    monkeypatch.setenv("PERSISTENCE_MODULE", factory.__name__)
    monkeypatch.setenv("DIPTYCH_LOG", url)
    with ExitStack() as opened:
        monkeypatch.setattr(factory, "open_log", lambda url: opened.enter_context(open_log(url)))
        yield


@pytest.mark.parametrize("name", APPLICATIONS)
@pytest.mark.usefixtures("_by_environment")
def test_applications_run_on_our_recorders(name: str) -> None:
    """Applications of eventsourcing, and its event-sourced projections, run on our recorders."""
    APPLICATIONS[name]().debug()


def test_of_threads_that_move_a_process_on_one_wins_each_step(log: BlockingLog) -> None:
    """A step that many threads want is made once, on one log with a recorder for each thread."""
    together = threading.Barrier(8)

    def work(_: int) -> list[int]:
        recorder, made = LogTrackingRecorder(log), list[int]()
        together.wait()
        for step in range(1, 41):
            try:
                recorder.insert_tracking(Tracking("upstream", step))
            except IntegrityError:
                continue
            made.append(step)
        return made

    with ThreadPoolExecutor(8) as pool:
        made = sorted(step for steps in pool.map(work, range(8)) for step in steps)
    assert made == sorted(set(made))
    assert made[-1] == log.head() == LogTrackingRecorder(log).max_tracking_id("upstream") == 40
