"""The log for clients: events, decoded, as far as the rules let an actor read them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

from diptych.app.access import Access
from diptych.codec import Codec
from diptych.errors import NotAllowed, NotAuthenticated
from diptych.log import Log, require_limit
from diptych.messages import Actor, Event, Recorded, actor_of
from diptych.read.queries import Events


class EventsFor(Events):
    """The log, decoded, as far as an actor may read it. Made by ``Running.events_for``."""

    def __init__(self, log: Log, codec: Codec, access: Access, actor: Actor | str | None) -> None:
        super().__init__(log, codec)
        self._access = access
        self._actor = actor_of(actor)

    async def read(
        self,
        types: Iterable[type[Event]] = (),
        tags: Iterable[str] = (),
        *,
        after: int = 0,
        until: int | None = None,
        limit: int = 1000,
    ) -> list[Recorded]:
        """Return the next such events that the actor may read, at most ``limit``."""
        require_limit(limit)
        query = self._query(self._readable(types), tags)
        head = await self._log.head()
        until = head if until is None else min(until, head)
        found: list[Recorded] = []
        while after < until and len(found) < limit:
            page = await self._log.read(query, after=after, until=until, limit=limit)
            found += filter(self._may_read, map(self._codec.recorded, page.events))
            after = page.upto
        return found[:limit]

    async def all(
        self,
        types: Iterable[type[Event]] = (),
        tags: Iterable[str] = (),
        *,
        after: int = 0,
        until: int | None = None,
    ) -> AsyncIterator[Recorded]:
        """Iterate over all such events that the actor may read, up to ``until``."""
        readable = self._readable(types)
        async for recorded in super().all(readable, tags, after=after, until=until):
            if self._may_read(recorded):
                yield recorded

    def _may_read(self, recorded: Recorded) -> bool:
        return self._access.allows(self._actor, recorded.event)

    def _readable(self, types: Iterable[type[Event]]) -> list[type[Event]]:
        """Return the types asked for, all of them readable; without any, those that are."""
        asked = list(types)
        for event in asked:
            self._codec.of(event)
            self._access.require_may(self._actor, event)
        if asked or not self._access.guarded:
            return asked
        known = [one.message for one in self._access.endpoints if one.kind == "event"]
        readable: list[Any] = [event for event in known if self._access.may(self._actor, event)]
        if readable:
            return readable
        facts = {"message": "(events)", "rule": "the rules of the events"}
        if self._actor is None:
            raise NotAuthenticated("Say who acts: no event is for everybody", **facts)
        raise NotAllowed("This actor may read no event", actor=self._actor.id, **facts)
