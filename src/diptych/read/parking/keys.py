"""``running.parked``: what projections could not apply; looked at, retried, skipped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime

import msgspec

from diptych.codec import Codec, time_of
from diptych.errors import Invalid
from diptych.log import EventQuery, Log
from diptych.read.following.engine import Engine
from diptych.read.parking.desk import NO_KEY, Parked, ParkedKey
from diptych.read.parking.retrying import Retried, Retry
from diptych.read.projections import Handler, Projection
from diptych.read.proving.proof import key_text


class ParkedKeys:
    """The parked keys of an application's projections.

    A key is named by its JSON, as ``keys`` shows it (`NO_KEY`, an empty text: events of which no
    key could be had); a text needs no quotes.
    """

    def __init__(self, log: Log, codec: Codec, engines: Sequence[Engine]) -> None:
        self._log = log
        self._codec = codec
        self._engines = engines

    async def keys(self, *projections: str) -> list[ParkedKey]:
        """Return the keys of which effects are parked or were skipped; of all projections."""
        for name in projections:
            await self._of(name)
        found: list[ParkedKey] = []
        for engine in self._engines:
            keys = await engine.store.desk.keys()
            for one in engine.versions.tended:
                if one.title in (projections or (one.title,)):
                    found += [
                        msgspec.structs.replace(key, projection=one.title)
                        for key in keys.get(one.name, ())
                    ]
        return found

    async def show(self, projection: str, key: str) -> list[Parked]:
        """Return the effects of a key that are parked or were skipped, in their order."""
        engine, one = await self._of(projection)
        return await engine.store.desk.parked(one.name, await self._key(projection, key))

    async def retry(self, projection: str | None = None, key: str | None = None) -> list[Retried]:
        """Apply what is parked, in its order, as far as it can be: of a key, a projection, or all.

        Works beside workers that run. Raises ``Invalid``, ``ProjectionPaused``,
        ``CheckpointMoved`` (try again), ``Unavailable``.
        """
        if key is not None:
            if projection is None:
                raise Invalid("A key is one of a projection", field="projection", rule="given")
            wanted = [(projection, await self._key(projection, key))]
        else:
            names = () if projection is None else (projection,)
            wanted = [(one.projection, one.key) for one in await self.keys(*names) if one.events]
            # Those without one first: they have keys parked, or their queues end with them.
            wanted.sort(key=lambda one: one[1] != NO_KEY)
        found: list[Retried] = []
        for name, text in wanted:
            found.append(await (await self._retry(name)).key(text))
        return found

    async def skip(
        self,
        projection: str,
        key: str | None = None,
        *,
        actor: str,
        why: str,
        position: int | None = None,
    ) -> Parked:
        """Pass over one parked event of a key for good, by default the first; say who and why.

        The events behind it stay parked until they are retried. Of a handler: the event that it
        stands before. Raises ``Invalid``, ``ProjectionPaused``, ``CheckpointMoved``.
        """
        for field, given in (("actor", actor), ("why", why)):
            if not given.strip():
                raise Invalid("A skip is kept with who did it and why", field=field, rule="a text")
        engine, one = await self._of(projection)
        if isinstance(one, Handler):
            effects = [await self._next(engine, one)]
        else:
            text = await self._key(projection, key or NO_KEY)
            queue = await engine.store.desk.parked(one.name, text, queued=True)
            at = min((e.position for e in queue), default=0) if position is None else position
            effects = [effect for effect in queue if effect.position == at]
        if not effects or (position is not None and effects[0].position != position):
            raise Invalid(
                "That event is not parked",
                field="position",
                rule="one of those that `parked show` lists",
                got=position,
            )
        await (await self._retry(projection)).skip(effects, actor, why)
        return effects[0]

    # --- finding them -----------------------------------------------------------------------------

    async def _retry(self, projection: str) -> Retry:
        engine, one = await self._of(projection)
        return Retry(self._log, self._codec, engine.store, one)

    async def _of(self, projection: str) -> tuple[Engine, Projection]:
        known = {name: engine for engine in self._engines for name in engine.projections}
        if projection not in known:
            raise Invalid(
                "There is no such projection",
                field="projection",
                rule="one of " + (", ".join(known) or "none"),
                got=projection,
            )
        return known[projection], await known[projection].versions.tend(projection)

    async def _key(self, projection: str, key: str) -> str:
        keys = [one.key for one in await self.keys(projection)]
        for text in _texts(key):
            if text in keys:
                return text
        raise Invalid(
            "Nothing is parked under that key",
            field="key",
            rule="one of those that `parked list` shows",
            got=key,
        )

    async def _next(self, engine: Engine, one: Handler) -> Parked:
        """Return the event that a handler stands before."""
        (span,) = (await engine.store.checkpoints())[one.name]
        skipped = {e.position for e in await engine.store.desk.parked(one.name)}
        types = tuple(self._codec.of(event).name for event in one.events)
        after = span.position
        while True:
            page = await self._log.read(EventQuery.of(types), after=after, limit=100)
            for stored in page.events:
                if stored.position not in skipped:
                    return Parked(
                        one.name,
                        key_text(None),
                        stored.position,
                        0,
                        1,
                        stored.id,
                        stored.type,
                        time_of(stored) or datetime.now(UTC),
                        datetime.now(UTC),
                    )
            if not page.events:
                raise Invalid(
                    "The handler has no event before it",
                    field="projection",
                    rule="one that lies behind the log",
                    got=one.name,
                )
            after = page.upto


def _texts(key: str) -> Iterator[str]:
    """Yield what may be meant by a key as it was given: its JSON, another form of it, a text."""
    yield key
    with suppress(msgspec.DecodeError):
        yield msgspec.json.encode(msgspec.json.decode(key)).decode()
    yield msgspec.json.encode(key).decode()
    if key == "(none)":  # as the command line shows it
        yield NO_KEY
