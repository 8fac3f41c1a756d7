"""The command side at work: order by boundary, decide, append in groups, answer.

A command is decided as soon as all it asks for is at hand, on states that hold what earlier
commands have decided but not yet committed. Its append says what it was decided on, so that the
log refuses it when any of that fails to be committed; then it is decided again, in its old place.
A rejection is checked in the same way before it is given: it must not rest on what never happened.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter
from typing import Any

import msgspec

from diptych.codec import Codec
from diptych.errors import (
    Closed,
    DiptychError,
    OutcomeUnknown,
    Overloaded,
    Rejected,
)
from diptych.log import Appended, Log, Outcome, Page, StoredEvent, works_by
from diptych.messages import (
    Actor,
    Command,
    Event,
    actor_of,
    everybody_may,
    require_kind,
)
from diptych.telemetry.metrics import Telemetry
from diptych.write.answering import Answering
from diptych.write.answers import (
    conflict,
    content_of,
    new_metadata,
    receipt,
    refusal,
    rejection_json,
    rejection_of,
)
from diptych.write.cache import MAX_TAIL, Cache, Link, Slot
from diptych.write.deciding import decide, faulty, undecided
from diptych.write.definitions import Decision, WriteSide
from diptych.write.entry import Entry, Receipt
from diptych.write.guessing import Guesses
from diptych.write.measures import Measures
from diptych.write.sending import Sending

READ_PAGE = 2000
"""Events read at a time when a model's state is folded from the log."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of the command side.

    ``waiting``: commands accepted and not yet answered; one more is ``Overloaded``.
    ``batch``: appends in one transaction. ``attempts``: how often a command is decided before it
    is answered with ``Conflict``. ``states``: model instances kept in memory.
    """

    waiting: int = 16_384
    batch: int = 2_048
    attempts: int = 64
    states: int = 50_000


class CommandBus:
    """Takes commands, answers with receipts. Lives on one event loop."""

    def __init__(
        self,
        write_side: WriteSide,
        codec: Codec,
        log: Log,
        limits: Limits | None = None,
        require_allowed: Callable[[Actor | None, Command], None] = everybody_may,
        *,
        telemetry: Telemetry | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self._measures = Measures(telemetry or Telemetry())
        self._side = write_side
        self._codec = codec
        self._log = log
        self._require_allowed = require_allowed
        self._cache = Cache(max(64, self.limits.states))
        self._queue: deque[Entry] = deque()
        self._sending = Sending(log)
        self._about_to_write = self._alone = False
        self._answering = Answering(self._measures, works_by(log))
        self._guesses = Guesses()
        self._loads: set[asyncio.Future[Page]] = set()
        self._closed = False
        # Looked up once: before Python 3.12 each look-up asks the system for the process's id.
        self._loop: asyncio.AbstractEventLoop | None = None

    # --- arrival ----------------------------------------------------------------------------------

    def submit(
        self,
        command: Command,
        *,
        key: str | None = None,
        actor: Actor | str | None = None,
        correlation_id: str | None = None,
        causation_id: str | None = None,
    ) -> asyncio.Future[Receipt]:
        """Accept a command; the future gives its receipt or raises what became of it.

        Commands of one boundary take effect in the order of these calls. Raises ``Invalid``,
        ``UnknownMessage``, ``Overloaded`` and what the rules say at once.
        """
        began = perf_counter()
        try:
            return self._accept(command, key, actor, correlation_id, causation_id, began)
        except Exception as error:
            self._measures.refused(command, error, began)
            raise

    @property
    def waiting(self) -> int:
        """How many commands have been accepted and not yet answered."""
        return self._answering.open

    def _accept(
        self,
        command: Command,
        key: str | None,
        actor: Actor | str | None,
        correlation_id: str | None,
        causation_id: str | None,
        began: float,
    ) -> asyncio.Future[Receipt]:
        if self._closed:
            raise Closed("The application has been closed")
        if self._answering.open >= self.limits.waiting:
            raise Overloaded(
                "Too many commands wait for their answer; send again later, or fewer at a time",
                waiting=self._answering.open,
                limit=self.limits.waiting,
            )
        decision = self._side.decisions.get(type(command))
        if decision is None:
            require_kind(command, Command)
            raise undecided(command)
        command, payload = self._codec.validate(command)
        who = actor_of(actor)
        self._require_allowed(who, command)
        metadata = new_metadata(
            key=key, actor=who, correlation_id=correlation_id, causation_id=causation_id
        )
        name = decision.command.message_name
        content = b"" if key is None else content_of(name, payload, who)
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        span = None
        if self._measures.tracing is not None:
            span, metadata = self._measures.tracing.command(name, metadata)
        answer: asyncio.Future[Receipt] = self._loop.create_future()
        states: list[Slot | None] = []
        slots: list[Slot] = []
        ready = True
        for need in decision.needs:
            tags = need.tags(command)
            slot = None if tags is None else self._cache.take(need.model, tags)
            states.append(slot)
            if slot is not None and slot not in slots:
                slots.append(slot)
                if not slot.loaded:
                    self._guesses.try_on(need, slot)
                ready = ready and slot.loaded and not slot.queue
        entry = Entry(
            command,
            decision,
            metadata,
            key,
            content,
            answer,
            began,
            span,
            tuple(states),
            tuple(slots),
        )
        self._answering.open += 1
        if ready:
            self._decide(entry)
            return answer
        for slot in slots:
            slot.enqueue(entry)
            self._load(slot)
        return answer

    async def close(self) -> None:
        """Answer what was accepted, then stop."""
        self._closed = True
        while self._loads or self._queue or self._sending.busy or self._answering.busy:
            waiting: list[asyncio.Future[Any]] = [*self._loads]
            if self._sending.busy:
                waiting.append(self._sending.ended())
            await (asyncio.wait(waiting) if waiting else asyncio.sleep(0))

    # --- states from the log ----------------------------------------------------------------------

    def _load(self, slot: Slot) -> None:
        if not slot.loaded and not slot.loading:
            slot.loading = True
            self._read(slot, slot.base, [])

    def _read(self, slot: Slot, after: int, found: list[tuple[StoredEvent, Event]]) -> None:
        """Read a page of a slot's events; where the log gives a future, no task is needed."""
        try:
            page = self._log.read(slot.query, after=after, limit=READ_PAGE)
        except DiptychError as error:
            asyncio.get_running_loop().call_soon(self._cannot_read, slot, error)
            return
        reading = asyncio.ensure_future(page)
        self._loads.add(reading)
        reading.add_done_callback(lambda done: self._have_read(slot, found, done))

    def _have_read(
        self,
        slot: Slot,
        found: list[tuple[StoredEvent, Event]],
        reading: asyncio.Future[Page],
    ) -> None:
        self._loads.discard(reading)
        try:
            page = reading.result()
            found.extend((stored, self._codec.event(stored)) for stored in page.events)
            if len(page.events) == READ_PAGE:
                self._read(slot, page.upto, found)
                return
            slot.loading = False
            if slot.untouched and slot.queue:
                self._guesses.learn(slot.queue[0], slot, new=not found)
            slot.advance(found, page.upto)
        except BaseException as error:
            self._cannot_read(slot, error)
            return
        self._pump([slot])

    def _cannot_read(self, slot: Slot, error: BaseException) -> None:
        """Tell everybody who waits for this state."""
        slot.loading = False
        self._cache.forget(slot)
        self._fail_waiting(slot, error)

    def _fail_waiting(self, slot: Slot, error: BaseException) -> None:
        failed = list(slot.queue or ())
        others = {other for entry in failed for other in entry.slots if other is not slot}
        slot.queue = None
        for other in others:
            other.queue = deque(e for e in other.queue or () if e not in failed) or None
        for entry in failed:
            self._answering.give(entry, faulty(entry.decision, error))
        self._pump(others)

    def _pump(self, slots: Iterable[Slot]) -> None:
        """Decide every command that is first in all its slots, which are all loaded."""
        todo = deque(slots)
        while todo:
            slot = todo.popleft()
            while slot.queue:
                entry = slot.queue[0]
                if not all(s.loaded and s.queue and s.queue[0] is entry for s in entry.slots):
                    for other in entry.slots:
                        self._load(other)  # where it has been given up since
                    break
                for other in entry.slots:
                    other.dequeue()
                    if other is not slot:
                        todo.append(other)
                self._decide(entry)

    # --- deciding ---------------------------------------------------------------------------------

    def _decide(self, entry: Entry) -> None:
        decision = entry.decision
        effects: dict[Slot, tuple[tuple[Event, ...], Any]] = {}
        try:
            produced = self._run(entry, decision)
            if produced:
                effects = self._effects(entry, produced)
        except BaseException as error:
            if not isinstance(error, Rejected) or entry.events:
                # A fault in the users' functions, or a model that rejects: of this command only.
                if not self._look(entry):
                    self._answering.give(entry, faulty(decision, error))
                return
            # Without its traceback: an expected answer need not keep frames alive.
            entry.rejection = error.with_traceback(None)
        entry.remember()
        for slot in entry.slots:
            # A command that changes nothing here has its place too: later ones rest on it.
            effects.setdefault(slot, ((), slot.state))
        for slot, (events, state) in effects.items():
            slot.tail.append(Link(entry, events, state, slot in entry.slots))
        entry.touched = tuple(effects)
        self._queue.append(entry)
        if self._sending.busy or self._about_to_write:
            return
        if self._alone and self._answering.open == 1:
            self._write()
        else:
            self._about_to_write = True
            asyncio.get_running_loop().call_soon(self._write)

    def _look(self, entry: Entry) -> bool:
        """Have a command wait until what was guessed for it is read; False where nothing was."""
        guessed = self._guesses.withdraw(entry)
        if not guessed:
            return False
        entry.forget()
        for slot in entry.slots:
            slot.enqueue(entry, first=True)
        for slot in guessed:
            self._load(slot)
        return True

    def _run(self, entry: Entry, decision: Decision) -> list[Event]:
        states: list[Any] = [
            need.model.initial if slot is None else slot.state
            for need, slot in zip(decision.needs, entry.states)  # noqa: B905  # made so
        ]
        command, metadata = entry.command, entry.metadata
        entry.events, produced = decide(decision, self._codec, command, states, metadata)
        entry.event_ids = tuple([event.id for event in entry.events])
        return produced

    def _effects(
        self, entry: Entry, produced: list[Event]
    ) -> dict[Slot, tuple[tuple[Event, ...], Any]]:
        """Return, for every slot at hand that the events touch, these events and its new state."""
        effects: dict[Slot, tuple[tuple[Event, ...], Any]] = {}
        for event in produced:
            for model, instance in self._side.touched.get(type(event), ()):
                tags = instance(event)
                slot = None if tags is None else self._cache.get(model, tags)
                if slot is None:
                    continue
                events: tuple[Event, ...] = (event,)
                known = effects.get(slot)
                if known is None:
                    state = slot.state
                elif known[0][-1] is event:
                    continue  # two fields of one event lead to the same instance
                else:
                    events, state = (*known[0], event), known[1]
                if slot.guessed and slot not in entry.slots:
                    slot.loaded = slot.guessed = False  # this command's condition does not prove it
                if slot.loaded:
                    state = model.evolve(state, event)
                effects[slot] = (events, state)
        return effects

    # --- appending --------------------------------------------------------------------------------

    def _write(self) -> None:
        """Append all that waits; the next batch gathers meanwhile. No timer."""
        self._about_to_write = False
        if not self._queue:
            return  # it was all taken back
        count = min(len(self._queue), self.limits.batch)
        batch = [self._queue.popleft() for _ in range(count)]
        # Who was alone will be again, most likely: no need to wait for others who come at once.
        self._alone = count == 1
        for index, entry in enumerate(batch):
            entry.index = index
        appends = [entry.append(_rejection_json(entry)) for entry in batch]
        span, began = self._measures.writing(batch), perf_counter()

        def done(outcomes: list[Outcome] | None, error: BaseException | None) -> None:
            if isinstance(error, asyncio.CancelledError):  # the event loop is at its end
                self._queue.clear()
                self._sending.end()
                return
            self._measures.written(count, began, span, error)
            self._have_written(batch, outcomes, error)

        self._sending.begin(appends, done)

    def _have_written(
        self,
        batch: Sequence[Entry],
        outcomes: Sequence[Outcome] | None,
        error: BaseException | None,
    ) -> None:
        # Until all is settled nothing more is written: what is decided now refers to it.
        if outcomes is not None:
            self._settle(batch, outcomes)
        elif error is not None:  # the batch was not stored: each caller is told
            self._settle_failure(batch, error)
        self._sending.end()
        if self._queue:
            self._write()
        self._answering.deliver(behind=self._sending.busy)

    def _settle(self, batch: Sequence[Entry], outcomes: Sequence[Outcome]) -> None:
        lost: list[Entry] = []
        again: list[Entry] = []
        for entry, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Appended):
                if outcome.replayed:
                    lost.append(entry)
                    kept = outcome.rejection and rejection_of(outcome.rejection)
                    self._answering.give(entry, kept or self._receipt(entry, outcome))
                else:
                    self._settle_one(entry, outcome)
                continue
            lost.append(entry)
            if outcome.reason == "unfounded":
                again.append(entry)
            elif outcome.reason == "conflict":
                slot = entry.reads[outcome.condition].slot
                slot.loaded = False
                if slot.guessed:
                    slot.guessed = False
                    self._guesses.learn(entry, slot, new=False)
                else:
                    entry.attempts += 1
                    self._measures.retried(entry)
                if entry.attempts < self.limits.attempts:
                    again.append(entry)
                else:
                    self._answering.give(entry, conflict(entry, outcome))
            else:
                if isinstance(outcome.error, OutcomeUnknown):
                    self._read_anew([entry])
                name = entry.decision.command.__name__
                self._answering.give(entry, refusal(name, entry.key, outcome))
        if lost:
            self._undo(lost, again)

    def _settle_one(self, entry: Entry, outcome: Appended) -> None:
        entry.outcome = outcome
        for slot in entry.touched:
            slot.settle(entry, outcome.last)
            if len(slot.tail) > MAX_TAIL and slot.idle:
                self._cache.forget(slot)
        answer = entry.rejection or self._receipt(entry, outcome)
        self._answering.add(entry, answer)
        entry.release()

    def _receipt(self, entry: Entry, outcome: Appended) -> Receipt:
        return receipt(self._log.identity, entry.metadata, outcome)

    def _settle_failure(self, batch: Sequence[Entry], error: BaseException) -> None:
        if isinstance(error, OutcomeUnknown):
            self._read_anew(batch)
        for entry in batch:
            self._answering.give(entry, error)
        self._undo(list(batch), [])

    def _read_anew(self, unknown: Sequence[Entry]) -> None:
        """Trust no state that these may have changed."""
        for slot in {slot for entry in unknown for slot in entry.touched}:
            slot.loaded = False

    def _undo(self, lost: list[Entry], again: list[Entry]) -> None:
        """Take lost entries out of all states; decide again, in order, all that built on them."""
        gone = set(lost)
        kept: deque[Entry] = deque()
        for entry in self._queue:
            if entry.builds_on(gone):
                gone.add(entry)
                again.append(entry)
            else:
                kept.append(entry)
        self._queue = kept
        for entry in gone:
            for slot in entry.touched:
                slot.drop(entry)
        for entry in gone.difference(again):
            entry.release()
        slots: dict[Slot, None] = {}
        direct: list[Entry] = []
        for entry in reversed(again):
            entry.forget()
            if not entry.slots:
                direct.append(entry)
            for slot in entry.slots:
                slot.enqueue(entry, first=True)
                slots[slot] = None
        for slot in slots:
            self._load(slot)
        self._pump(reversed(slots))
        for entry in reversed(direct):
            self._decide(entry)


def _rejection_json(entry: Entry) -> bytes | None:
    return None if entry.rejection is None or entry.key is None else rejection_json(entry.rejection)
