"""Commands and events within the caller's own transaction: tables and events commit together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diptych.app.modules import Definitions
from diptych.errors import Rejected
from diptych.log import Append, NewEvent, Refused
from diptych.messages import Actor, Command, Event, Metadata, actor_of, require_kind
from diptych.write.answers import (
    content_of,
    new_metadata,
    receipt,
    refusal,
    rejection_json,
    rejection_of,
)
from diptych.write.deciding import decide, faulty, new_events, undecided
from diptych.write.definitions import Decision, Need
from diptych.write.entry import Receipt

if TYPE_CHECKING:
    from diptych.logs.postgres.within import LogWithin


class Within:
    """An open transaction of the caller's, on the log's database. Made by ``Running.within``.

    The first event takes the log's lock, which is held until the caller commits or rolls back:
    everybody else's appends wait that long, so do other work first. What was appended is durable
    when the caller has committed, and a receipt's token is worth nothing before.
    """

    def __init__(self, definitions: Definitions, log: LogWithin) -> None:
        self._definitions = definitions
        self._log = log

    async def do(
        self,
        command: Command,
        *,
        key: str | None = None,
        actor: Actor | str | None = None,
        correlation_id: str | None = None,
        causation_id: str | None = None,
    ) -> Receipt:
        """Decide a command on what this transaction sees, and append its events.

        Under the lock nothing can come in between, so there is no ``Conflict``. Raises
        ``Rejected`` (kept under the key, if the caller commits), ``NotAuthenticated``,
        ``NotAllowed``, ``Invalid``, ``KeyReused``, ``DecisionFailed``, ``RuleFailed``,
        ``ProjectionFailed``.
        """
        definitions, log = self._definitions, self._log
        require_kind(command, Command)
        decision = definitions.write.decisions.get(type(command))
        if decision is None:
            raise undecided(command)
        command, payload = definitions.codec.validate(command)
        who = actor_of(actor)
        definitions.access.require(who, command)
        metadata = new_metadata(
            key=key, actor=who, correlation_id=correlation_id, causation_id=causation_id
        )
        name = decision.command.message_name
        content = b"" if key is None else content_of(name, payload, who)
        head = await log.lock()
        if key is not None and await log.recall([key]):
            events: tuple[NewEvent, ...] = ()  # the log compares the contents, and answers
        else:
            states = [await self._state(decision, need, command, head) for need in decision.needs]
            try:
                events, _ = decide(decision, definitions.codec, command, states, metadata)
            except Rejected as rejection:
                if key is not None:
                    await log.append(Append((), (), key, content, rejection_json(rejection)))
                raise
            except BaseException as error:
                raise faulty(decision, error) from error
        name = decision.command.__name__
        return await self._append(name, Append(events, (), key, content), metadata)

    async def append(
        self,
        *events: Event,
        key: str | None = None,
        actor: Actor | str | None = None,
        correlation_id: str | None = None,
        causation_id: str | None = None,
    ) -> Receipt:
        """Append events that the caller has decided himself: his tables are the write model.

        No rule is asked: whether ``actor`` may do this is decided by the caller, too. Raises
        ``Invalid``, ``UnknownMessage``, ``KeyReused``, ``ProjectionFailed``.
        """
        who = actor_of(actor)
        metadata = new_metadata(
            key=key, actor=who, correlation_id=correlation_id, causation_id=causation_id
        )
        new, _ = new_events(self._definitions.codec, events, metadata)
        payload = b"\0".join(event.data for event in new)
        content = b"" if key is None else content_of("", payload, who)
        return await self._append("(events)", Append(new, (), key, content), metadata)

    async def _state(self, decision: Decision, need: Need, command: Command, head: int) -> Any:
        tags, state, after = need.tags(command), need.model.initial, 0
        while tags is not None and after < head:
            page = await self._log.read(need.model.query(tags), after=after, until=head)
            for stored in page.events:
                event = self._definitions.codec.event(stored)
                try:
                    state = need.model.evolve(state, event)
                except BaseException as error:
                    raise faulty(decision, error) from error
            after = page.upto
        return state

    async def _append(self, name: str, append: Append, metadata: Metadata) -> Receipt:
        outcome = await self._log.append(append)
        if isinstance(outcome, Refused):
            raise refusal(name, append.key, outcome)
        if outcome.replayed and outcome.rejection is not None:
            raise rejection_of(outcome.rejection)
        return receipt(self._log.identity, metadata, outcome)
