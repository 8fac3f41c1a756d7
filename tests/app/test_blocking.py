"""The synchronous facade: the same answers and errors, from threads without an event loop."""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, assert_type

import pytest
from sqlalchemy import select as sql_select

from diptych import App, Invalid, Module, Query, Receipt, Recorded, Rejected, column, select
from diptych.app.blocking import (
    BlockingEvents,
    BlockingLog,
    BlockingParkedKeys,
    BlockingProjections,
    BlockingRunning,
    BlockingSteering,
    BlockingViews,
    LoopThread,
    open_log,
)
from diptych.app.modules import Definitions
from diptych.app.running import Running
from diptych.errors import (
    BlocksEventLoop,
    Closed,
    DefinitionError,
    FunctionFailed,
    KeyReused,
    LogUnusable,
    StaleAnswer,
    TimedOut,
    UndecodableEvent,
)
from diptych.log import Append, Appended, EventQuery, Log, NewEvent, Outcome, Page
from diptych.messages import new_id
from diptych.read.control import Projections
from diptych.read.parking.keys import ParkedKeys
from diptych.read.parking.steering import Steering
from diptych.read.proving.verify import Verdict
from diptych.read.queries import Answer, Events, Views
from diptych.read.status import Status
from tests.house.paths import ROOT
from tests.testing.shop import (
    TEN,
    CancelOrder,
    Note,
    OrderCancelled,
    OrderNoted,
    OrdersOf,
    OrderSummary,
    PlaceOrder,
    app,
    note,
    orders,
)


class Break(Query[int]):
    """Makes its answer do what it should not."""

    how: str


faulty = Module("faulty", orders)


begun, submitted = threading.Event(), threading.Event()


@faulty.answers
async def broken(query: Break) -> int:
    match query.how:
        case "endless":
            begun.set()
            await asyncio.Event().wait()
            return 0
        case "slow":
            raise TimeoutError("of its own")
        case "exit":
            raise SystemExit(3)
        case "interrupt":
            begun.set()
            submitted.wait(60)  # while the loop stands still
            raise KeyboardInterrupt
        case _:
            with app.open_blocking(log="memory:", views="memory:"):
                return 0


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "diptych-loop"]


@pytest.fixture(params=["memory", "together", "apart", "postgres"])
def urls(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """The URLs of a log and of its views."""
    both, log, views = (f"sqlite:///{tmp_path}/{name}.db" for name in ("both", "log", "views"))
    match request.param:
        case "together":
            return both, both
        case "apart":
            return log, views
        case "postgres":
            postgres: str = request.getfixturevalue("postgres_url")
            return postgres, postgres
        case _:
            return "memory:", "memory:"


def until(condition: Callable[[], object]) -> None:
    """Wait for a condition, at most a minute."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.001)


def event(name: str = "Opened", tag: str = "account:7") -> NewEvent:
    return NewEvent(new_id(), name, (tag,), b"{}", b"{}")


# --- calls and answers ----------------------------------------------------------------------------


def test_an_application_answers_threads(urls: tuple[str, str]) -> None:
    """An application gives the same answers without an event loop, wherever log and views are."""
    log, views = urls
    with app.open_blocking(log=log, views=views) as running:
        receipt = running.do(PlaceOrder("1", "ann", TEN), key="k", actor="bob")
        again = running.do(PlaceOrder("1", "ann", TEN), key="k", actor="bob")
        assert (again.first, again.replayed) == (receipt.first, True)
        assert running.recall(["k", "other"]).keys() == {"k"}
        answer = running.ask(OrdersOf("ann"), after=receipt.token)
        assert (answer.value, answer.stale) == ([OrderSummary("1", "ann", TEN)], False)
        running.catch_up()
        assert [status.lag for status in running.status()] == [0, 0]
        assert all(verdict.ok for verdict in running.verify())
        assert [verdict.projection for verdict in running.verify("placed")] == ["placed"]
        assert running.definitions.name == "shop"
        assert {one.action for one in running.projections.plan()} == {"none"}
    with app.open_blocking(log=log, views=views) as running:
        assert running.log.head() == (0 if log == "memory:" else 1)


def test_views_and_events_are_read(tmp_path: Path) -> None:
    """The views of now, and the log decoded, can be read by scripts."""
    with app.open_blocking(log="memory:", views="memory:") as running:
        for number in "12":
            running.do(PlaceOrder(number, "ann", TEN), actor="bob")
        running.do(CancelOrder("1"))
        running.catch_up()
        by_number = select(OrderSummary).order_by(OrderSummary.order)
        assert [row.status for row in running.views.all(by_number)] == ["cancelled", "placed"]
        assert running.views.first(by_number) == OrderSummary("1", "ann", TEN, "cancelled")
        assert running.views.get(OrderSummary, "3") is None
        assert running.views.one(by_number.where(OrderSummary.order == "2")).order == "2"
        assert running.views.rows(sql_select(column(OrderSummary.order))) == [("1",), ("2",)]
        with pytest.raises(Invalid, match="exactly one row"):
            running.views.one(by_number)
        [cancelled] = running.events.read([OrderCancelled])
        assert (cancelled.position, cancelled.event) == (3, OrderCancelled("1"))
        found = running.events.all(tags=["order:1"])
        assert [recorded.position for recorded in found] == [1, 3]


def test_a_bare_log_answers_threads(urls: tuple[str, str]) -> None:
    """A log is opened alone, by its URL, with every call of the port."""
    with open_log(urls[0]) as log:
        [outcome] = log.append([Append((event(), event("Closed")), key="k")])
        assert outcome == Appended(1, 2)
        assert log.recall(["k"]) == {"k": Appended(1, 2, replayed=True)}
        assert [stored.position for stored in log.read(EventQuery.of(["Closed"])).events] == [2]
        assert (log.head(), log.wait(1), log.wait(2, timeout=0.0)) == (2, 2, 2)
        assert log.identity


def test_types_are_followed() -> None:
    """Type checkers know parameters and results, a query's own answer included."""
    with app.open_blocking(log="memory:", views="memory:") as running:
        assert_type(running, BlockingRunning)
        assert_type(running.with_timeout(60), BlockingRunning)
        receipt = assert_type(running.do(Note("1", "a"), key="k"), Receipt)
        assert_type(running.submit(Note("1", "b"), actor="ann"), Future[Receipt])
        assert_type(running.ask(OrdersOf("ann")), Answer[list[OrderSummary]])
        assert_type(running.ask(OrdersOf("ann"), after=receipt.token).value, list[OrderSummary])
        assert_type(running.recall(["k"]), dict[str, Appended])
        assert_type(running.status(), list[Status])
        assert_type(running.verify(), list[Verdict])
        assert_type(running.definitions, Definitions)
        assert_type(running.views.all(select(OrderSummary)), list[OrderSummary])
        assert_type(running.views.get(OrderSummary, "1"), OrderSummary | None)
        assert_type(running.events.read([OrderNoted], after=1), list[Recorded])
        assert_type(running.events.all(), Iterator[Recorded])
        log = assert_type(running.log, BlockingLog)
        assert_type(log.append([Append((event(),))]), list[Outcome])
        assert_type(log.read(limit=1), Page)
        assert_type(log.head(), int)
        with pytest.raises(TypeError):
            running.ask()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        with pytest.raises(TypeError):
            running.do(Note("1", "c"), kye="k")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def public(cls: type) -> set[str]:
    """The names that a class defines for its users."""
    return {name for name in vars(cls) if not name.startswith("_")}


@pytest.mark.parametrize(
    ("blocking", "original", "missing"),
    [
        # The caller's own transaction is one of an asynchronous connection.
        # Nor can a live query be, which has no end.
        (BlockingRunning, Running, {"within", "live"}),
        (BlockingViews, Views, set[str]()),
        (BlockingEvents, Events, set[str]()),
        (BlockingParkedKeys, ParkedKeys, set[str]()),
        (BlockingSteering, Steering, set[str]()),
        (BlockingProjections, Projections, set[str]()),
        (BlockingLog, Log, {"close"}),  # it ends the thread besides, so it is its own
    ],
)
def test_nothing_is_left_out(blocking: type, original: type, missing: set[str]) -> None:
    """Every call of the asynchronous classes is there, save those that are named here."""
    assert public(original) - public(blocking) == missing


def test_methods_tell_what_they_do() -> None:
    """Help shows the documentation of the asynchronous method."""
    assert (BlockingRunning.ask.__doc__ or "").startswith("Answer a query")
    assert (BlockingLog.append.__doc__ or "").startswith("Append a batch")


def test_many_commands_are_submitted_in_order() -> None:
    """Submitted commands take effect in the order of the calls, and share transactions."""
    with app.open_blocking(log="memory:", views="memory:") as running:
        futures = [running.submit(Note("1", str(number))) for number in range(1000)]
        assert [future.result().first for future in futures] == list(range(1, 1001))
        with pytest.raises(Invalid):
            running.submit(Note("1", "x" * 21)).result()


def test_many_threads_share_one_application(urls: tuple[str, str]) -> None:
    """Sixteen threads on one hot boundary: each command takes effect once, none is lost."""
    log, views = urls
    together = threading.Barrier(16)
    with app.open_blocking(log=log, views=views) as running, ThreadPoolExecutor(16) as pool:

        def work(thread: int) -> int:
            together.wait()
            placed = 0
            for number in range(50):
                try:
                    receipt = running.do(PlaceOrder(str(number), f"c{thread}", TEN))
                except Rejected:
                    continue
                placed += 1
                answer = running.ask(OrdersOf(f"c{thread}"), after=receipt.token)
                assert str(number) in {row.order for row in answer.value}
            return placed

        assert sum(pool.map(work, range(16))) == 50
        assert running.log.head() == 50
        running.catch_up()
        assert all(verdict.ok for verdict in running.verify())


def test_an_iteration_goes_over_many_pages() -> None:
    """An iteration over the log gives every event once; a failure comes after what precedes it."""
    with app.open_blocking(log="memory:", views="memory:", projections=False) as running:
        for future in [running.submit(Note("1", str(number))) for number in range(1200)]:
            future.result()
        texts = [recorded.event.text for recorded in running.events.all()]  # type: ignore[attr-defined]
        assert texts == [str(number) for number in range(1200)]
        assert len(list(running.events.all(until=500))) == 500
        running.log.append([Append((event("OrderNoted", "order:1"),))])
        seen: list[int] = []
        with pytest.raises(UndecodableEvent) as caught:
            seen.extend(recorded.position for recorded in running.events.all(after=1190))
        assert seen == list(range(1191, 1201))
        assert caught.value.__cause__ is not None
        assert next(running.events.all(after=1195)).position == 1196  # the rest is left


# --- errors ---------------------------------------------------------------------------------------


def test_errors_come_through_unchanged() -> None:
    """An error is the one that was raised, with its facts and cause, and the caller's own frame."""
    with app.open_blocking(log="memory:", views="memory:") as running:
        running.do(PlaceOrder("1", "ann", TEN), key="k")
        with pytest.raises(Rejected) as rejected:
            running.do(PlaceOrder("1", "ann", TEN))
        assert (rejected.value.code, rejected.value.order) == ("order-already-placed", "1")
        names = [frame.name for frame in traceback.extract_tb(rejected.tb)]
        assert names[0] == "test_errors_come_through_unchanged"
        assert "do" in names  # and where it happened
        with pytest.raises(KeyReused):
            running.do(PlaceOrder("2", "ann", TEN), key="k")
        with pytest.raises(Invalid) as invalid:
            running.do(Note("1", "x" * 21))
        assert invalid.value.field == "text"
        with pytest.raises(Invalid, match="no such projection"):
            running.verify("nonsense")
    with app.open_blocking(log="memory:", views="memory:", projections=False) as running:
        receipt = running.do(PlaceOrder("1", "ann", TEN))
        with pytest.raises(StaleAnswer):
            running.ask(OrdersOf("ann"), after=receipt.token, wait=0.0, strict=True)


def test_what_cannot_be_opened_says_why(tmp_path: Path) -> None:
    """Errors of opening are those of the asynchronous opening, and leave no thread behind."""
    twice = Module("twice")
    twice.decides(note)
    with pytest.raises(Invalid, match="no address"):
        app.open_blocking(log="mysql://x", views="memory:")
    with pytest.raises(Invalid, match="no address"):
        open_log("")
    with pytest.raises(LogUnusable):
        open_log(f"sqlite:///{tmp_path}/no/such/folder/log.db")
    with pytest.raises(DefinitionError, match=r"shop\.py"):
        App("twice", orders, twice).open_blocking(log="memory:", views="memory:")


def test_an_answer_may_raise_a_timeout_of_its_own() -> None:
    """A TimeoutError of the application is not taken for that of the call."""
    with faulty.open_blocking(log="memory:", views="memory:") as running:
        for limited in (running, running.with_timeout(60)):
            with pytest.raises(TimeoutError, match="of its own"):
                limited.ask(Break("slow"))


def test_what_breaks_the_loop_reaches_its_caller_and_all_others() -> None:
    """When an answer is interrupted, its caller is told so, and nobody else waits for ever."""
    running = faulty.open_blocking(log="memory:", views="memory:", projections=False)
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(running.log.wait, 0)
        until(lambda: waiters(running))
        begun.clear()
        submitted.clear()
        breaking = pool.submit(running.ask, Break("interrupt"))
        assert begun.wait(60)
        never_begun = running._thread.start(asyncio.Event().wait)
        submitted.set()
        with pytest.raises(KeyboardInterrupt):
            breaking.result()
        for lost in (waiting, never_begun):
            with pytest.raises(Closed):
                lost.result(60)
    with pytest.raises(Closed):
        running.do(Note("1", "a"))
    with pytest.raises(KeyboardInterrupt):
        running.close()


def test_an_answer_that_exits_ends_nothing_but_itself() -> None:
    """Its caller is told where it did so, and others are answered."""
    with faulty.open_blocking(log="memory:", views="memory:") as running:
        with pytest.raises(FunctionFailed, match="SystemExit"):
            running.ask(Break("exit"))
        assert running.do(Note("1", "a")).token.position == 1


# --- time -----------------------------------------------------------------------------------------


def test_a_call_ends_in_time() -> None:
    """A call that takes longer than it may is ended, and what was opened is as good as before."""
    with app.open_blocking(log="memory:", views="memory:", projections=False) as running:
        quick = running.with_timeout(0.01)
        with pytest.raises(TimedOut) as late:
            quick.log.wait(0)
        assert (late.value.code, late.value.seconds) == ("timed-out", 0.01)
        until(lambda: not waiters(running))
        assert running.with_timeout(60).do(Note("1", "a")).first == 1
        assert running.log.wait(0) == 1


@pytest.mark.parametrize("seconds", ["2", None, True, -1, 0, float("inf"), float("nan"), 1e300])
def test_what_is_no_limit_is_invalid(seconds: Any) -> None:
    """It is said at once, and not by the first call."""
    with app.open_blocking(log="memory:", views="memory:", projections=False) as running:
        with pytest.raises(Invalid, match="no limit to a call") as refused:
            running.with_timeout(seconds)
        assert refused.value.facts["got"] == repr(seconds)


def waiters(running: BlockingRunning) -> Any:
    """Those who wait for the log, as it sees them."""
    return [*running._inner.log._waiters]  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


@contextmanager
def interrupted_when_waiting() -> Generator[None]:
    """Send SIGINT to this thread, which must be the main one, once it waits for a future."""
    main = threading.get_ident()
    assert main == threading.main_thread().ident

    def is_waiting() -> bool:
        caller = sys._current_frames()[main].f_back
        return caller is not None and caller.f_code is Future.result.__code__

    def interrupt() -> None:
        until(is_waiting)
        signal.pthread_kill(main, signal.SIGINT)

    # Tests that run in the background ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    helper = threading.Thread(target=interrupt)
    helper.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        helper.join()
        signal.signal(signal.SIGINT, before)


def test_an_interrupt_ends_the_wait_and_nothing_else() -> None:
    """Ctrl-C in a thread that waits ends its call; what was opened goes on, and closes."""
    with app.open_blocking(log="memory:", views="memory:", projections=False) as running:
        with interrupted_when_waiting():
            running.log.wait(0)
        until(lambda: not waiters(running))
        assert running.do(Note("1", "a")).first == 1


def test_an_interrupted_call_leaves_no_complaint(caplog: pytest.LogCaptureFixture) -> None:
    """Also where the end comes at the same time as the interrupt."""
    gc.collect()  # what other tests have left says so now
    caplog.clear()
    held, go_on = threading.Event(), threading.Event()

    @asynccontextmanager
    async def opening() -> AsyncGenerator[None]:
        yield

    async def busy() -> None:
        held.set()
        go_on.wait()  # the loop learns of the rest only afterwards

    thread = LoopThread(opening())
    call = thread.start(asyncio.Event().wait)
    thread.start(busy)
    assert held.wait(60)
    call.cancel()
    thread._request_stop()
    go_on.set()
    thread.close()
    del call
    gc.collect()
    assert caplog.text == ""  # asyncio would say that an exception was never retrieved


def test_an_interrupt_while_opening_closes_what_was_opened() -> None:
    """Ctrl-C while an opening takes its time: what comes of it is closed again."""
    go_on, done = threading.Event(), threading.Event()

    @asynccontextmanager
    async def slow() -> AsyncGenerator[None]:
        await asyncio.to_thread(go_on.wait)
        yield
        done.set()

    with interrupted_when_waiting():
        LoopThread(slow())
    go_on.set()
    assert done.wait(60)
    until(lambda: not any(t.name == "diptych-loop" for t in threading.enumerate()))


# --- the end --------------------------------------------------------------------------------------


def test_after_the_end_everything_says_closed() -> None:
    """A closed application or log answers with Closed; it may be closed twice."""
    running = app.open_blocking(log="memory:", views="memory:")
    running.close()
    running.close()
    for call in (running.status, running.log.head, running.with_timeout(1).catch_up):
        with pytest.raises(Closed):
            call()
    with pytest.raises(Closed):
        running.submit(Note("1", "a"))
    with pytest.raises(Closed):
        next(running.events.all())


def test_closing_answers_what_was_accepted(urls: tuple[str, str]) -> None:
    """Commands submitted before the end are done and answered; who waits for more is told."""
    log, views = urls
    for _ in range(5):
        with app.open_blocking(log=log, views=views) as running, ThreadPoolExecutor(1) as pool:
            head = running.log.head()
            waiting = pool.submit(running.log.wait, head + 1000)
            futures = [running.submit(Note("1", str(number))) for number in range(300)]
            running.close()
            assert [future.result().first - head for future in futures] == list(range(1, 301))
            with pytest.raises(Closed):
                waiting.result()


def test_a_call_that_outlives_the_end_says_closed(caplog: pytest.LogCaptureFixture) -> None:
    """What still waits after the end, of the application's own making, is ended with Closed."""
    running = faulty.open_blocking(log="memory:", views="memory:")
    with ThreadPoolExecutor(1) as pool:
        begun.clear()
        waiting = pool.submit(running.ask, Break("endless"))
        assert begun.wait(60)
        running.close()
        with pytest.raises(Closed):
            waiting.result()
    assert not caplog.records


# --- where it may not be used ---------------------------------------------------------------------


async def test_it_is_refused_where_an_event_loop_runs() -> None:
    """In a thread with an event loop every blocking call is refused, and says what to do."""
    with pytest.raises(BlocksEventLoop, match=r"async with app\.open"):
        app.open_blocking(log="memory:", views="memory:")
    log = await asyncio.to_thread(open_log, "memory:")
    try:
        with pytest.raises(BlocksEventLoop, match="another thread"):
            log.head()
        with pytest.raises(BlocksEventLoop):
            log.close()
        assert await asyncio.to_thread(log.head) == 0
    finally:
        await asyncio.to_thread(log.close)


def test_it_is_refused_in_its_own_loop() -> None:
    """A function of the application that calls the facade is refused, not blocked for ever."""
    with (
        faulty.open_blocking(log="memory:", views="memory:") as running,
        pytest.raises(BlocksEventLoop),
    ):
        running.ask(Break("nested"))


SCRIPT = """
import os, sys
from tests.testing.shop import *

running = app.open_blocking(log="memory:", views="memory:")
running.do(Note("1", "a"))
"""

IN_CHILD = """
child = os.fork()
if not child:
    try:
        with running:
            running.do(Note("1", "b"))
    except DiptychError as error:
        print(error.code, flush=True)
        os._exit(0)
    os._exit(1)
assert os.waitpid(child, 0)[1] == 0
print(running.do(Note("1", "b")).first)
"""


def run(script: str) -> str:
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (process.returncode, process.stderr) == (0, "")
    return process.stdout


def test_a_program_that_forgets_to_close_ends() -> None:
    """A program whose last line comes before close() ends, without a word."""
    assert run(SCRIPT + "print('end')") == "end\n"


def test_a_program_may_close_at_its_exit(urls: tuple[str, str]) -> None:
    """An application can be closed by atexit, when no thread pool works any more."""
    script = SCRIPT.replace('log="memory:"', f"log={urls[0]!r}").replace(
        'views="memory:"', f"views={urls[1]!r}"
    )
    assert run(script + "import atexit; atexit.register(running.close)") == ""


def test_a_forked_process_is_refused() -> None:
    """What was opened before a fork is refused in the child, and works on in the parent."""
    assert run("from diptych import DiptychError\n" + SCRIPT + IN_CHILD) == "log-unusable\n2\n"
