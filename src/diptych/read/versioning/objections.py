"""What speaks against switching to a version: it lacks what the live one has applied or decided."""

from __future__ import annotations

from diptych.errors import DefinitionError, NoViews, ViewLost
from diptych.read.opening import require_slices
from diptych.read.parking.desk import NO_KEY
from diptych.read.port import Kept, ParkedKey, Pause, Version, ViewStore
from diptych.read.projections import Projection
from diptych.read.versioning.versions import Versions, parts_in


async def objections(store: ViewStore, live: Version, row: Version) -> list[str]:
    """Say what of the live version another one lacks; nothing where it may take its place.

    The projection is paused; or it has parked keys that are not parked there; has applied what was
    skipped for good there; or has passed over events of types that its program does not know any
    more, and the live version does.
    """
    said: list[str] = []
    if (pause := (await store.desk.pauses()).get(live.instance)) is not None:
        since = pause.since.isoformat(timespec="seconds")
        said.append(f"the projection is paused by {pause.actor} since {since}: {pause.why}")
    keys = await store.desk.keys()
    parked = _parked(keys.get(row.instance, []))
    there = _parked(keys.get(live.instance, []))
    if worse := [key for key, events in parked.items() if _is_worse(key, events, there)]:
        names = ", ".join(key or "(none)" for key in worse[:3]) + ", …" * (len(worse) > 3)
        number = f"{len(worse):,} {'key is' if len(worse) == 1 else 'keys are'}"
        said.append(f"{number} parked in it, and not in the live version: {names}")
    if any(key.skipped for key in keys.get(live.instance, [])):
        skipped = await _skipped(store, live) - await _skipped(store, row)
        if skipped:
            events = ", ".join(f"{key or '(none)'} at {at}" for at, key in sorted(skipped)[:3])
            said.append(f"events that were skipped for good in the live version are not: {events}")
    proof = (await store.proofs()).get(row.instance)
    known = parts_in(live).events
    unknown = {} if proof is None else {t: n for t, n in proof.unknown.items() if t in known}
    if unknown:
        types = ", ".join(f"{name}: {count:,}" for name, count in sorted(unknown.items()))
        said.append(f"its program does not know events that the live version applies ({types})")
    return said


async def refusals(store: ViewStore, log: str, one: Projection, live: Version) -> list[str]:
    """Say why a projection that is kept in place cannot go on in its tables; nothing: it can."""
    try:
        require_slices(one, (await store.checkpoints()).get(live.instance, ()))
        await store.open(log, {live.instance: Kept(one.views, one.slices)}, create=False)
    except (DefinitionError, ViewLost) as error:
        return [str(error)]
    except NoViews:  # what is lacking is made
        pass
    return []


async def pause_of(versions: Versions, name: str) -> Pause | None:
    """Return the pause of a projection: that of its live version, and of all kept beside it."""
    live = versions.live(name)
    pauses = await versions.store.desk.pauses()
    return pauses.get(name if live is None else live.instance)


async def _skipped(store: ViewStore, row: Version) -> set[tuple[int, str]]:
    found = await store.desk.parked(row.instance)
    return {(one.position, one.key) for one in found if one.state == "skipped"}


def _parked(keys: list[ParkedKey]) -> dict[str, int]:
    return {key.key: key.events for key in keys if key.events}


def _is_worse(key: str, events: int, there: dict[str, int]) -> bool:
    """Whether a key is parked here only; each event without a key stands for itself."""
    return events > there.get(key, 0) if key == NO_KEY else key not in there


__all__ = ["objections", "pause_of", "refusals"]
