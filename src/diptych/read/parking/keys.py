"""``running.parked``: what projections could not apply; looked at, retried, skipped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

import msgspec

from diptych.codec import Codec
from diptych.errors import Invalid
from diptych.log import Log
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

    async def show(self, projection: str, key: str | None = None) -> list[Parked]:
        """Return the effects of a key that are parked or were skipped, in their order.

        Of a handler, which has no keys: the event that it stands before, and those skipped.
        """
        engine, one = await self._of(projection)
        return await engine.store.desk.parked(one.name, await self._key(one, key))

    async def retry(self, projection: str | None = None, key: str | None = None) -> list[Retried]:
        """Apply what is parked, in its order, as far as it can be: of a key, a projection, or all.

        Works beside workers that run. The event that a handler stands before is left to them: they
        try it again by themselves. Raises ``Invalid``, ``ProjectionPaused``,
        ``CheckpointMoved`` (try again), ``Unavailable``.
        """
        if key is not None:
            if projection is None:
                raise Invalid("A key is one of a projection", field="projection", rule="given")
            _, one = await self._of(projection)
            wanted = [(projection, await self._key(one, key))]
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
        fails on and stands before, and no other. Raises ``Invalid``, ``ProjectionPaused``,
        ``CheckpointMoved``.
        """
        for field, given in (("actor", actor), ("why", why)):
            if not given.strip():
                raise Invalid("A skip is kept with who did it and why", field=field, rule="a text")
        effects = await self._due(projection, key, position)
        await (await self._retry(projection)).skip(effects, actor, why)
        return effects[0]

    async def due(
        self, projection: str, key: str | None = None, *, position: int | None = None
    ) -> Parked:
        """Return the parked event that `skip` would pass over. Raises ``Invalid``."""
        return (await self._due(projection, key, position))[0]

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

    async def _due(self, projection: str, key: str | None, position: int | None) -> list[Parked]:
        engine, one = await self._of(projection)
        if isinstance(one, Handler):
            text = key_text(None)
        else:
            text = await self._key(one, key)
        queue = await engine.store.desk.parked(one.name, text, queued=True)
        at = min((e.position for e in queue), default=0) if position is None else position
        if effects := [effect for effect in queue if effect.position == at]:
            return effects
        if isinstance(one, Handler):
            raise Invalid(
                "The handler does not fail on that event; only one that it has failed on, and "
                "stands before, is passed over. `diptych parked list` shows whether there is one",
                field="projection" if position is None else "position",
                rule="the event that it stands before",
                got=projection if position is None else position,
                **({"stands_before": queue[0].position} if queue else {}),
            )
        raise Invalid(
            "That event is not parked",
            field="position",
            rule="one of those that `parked show` lists",
            got=position,
        )

    async def _key(self, one: Projection, key: str | None) -> str:
        keys = [known.key for known in await self.keys(one.title)]
        if isinstance(one, Handler):
            if keys:
                return keys[0]
            raise Invalid(
                "The handler stands before no event, and none was skipped",
                field="projection",
                rule="one that `parked list` shows",
                got=one.title,
            )
        for text in _texts(NO_KEY if key is None else key):
            if text in keys:
                return text
        raise Invalid(
            "Nothing is parked under that key",
            field="key",
            rule="one of those that `parked list` shows",
            got=key,
        )


def _texts(key: str) -> Iterator[str]:
    """Yield what may be meant by a key as it was given: its JSON, another form of it, a text."""
    yield key
    with suppress(msgspec.DecodeError):
        yield msgspec.json.encode(msgspec.json.decode(key)).decode()
    yield msgspec.json.encode(key).decode()
    if key == "(none)":  # as the command line shows it
        yield NO_KEY
