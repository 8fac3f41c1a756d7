"""What was skipped for good in the live version is passed on to one that is being built."""

from __future__ import annotations

from msgspec import structs

from diptych.read.port import Change, Version, ViewStore

TRIES = 5


async def carry_skips(store: ViewStore, live: Version, row: Version) -> None:
    """Have a version pass over what was skipped in the live one, as far as it has yet to get there.

    In a step of its spans: so nobody folds on who does not know of it. Both have the same keys.
    """
    if not any(key.skipped for key in (await store.desk.keys()).get(live.instance, ())):
        return
    skipped = [one for one in await store.desk.parked(live.instance) if one.state == "skipped"]
    for _ in range(TRIES):  # others may be faster
        known = {one.place for one in await store.desk.parked(row.instance)}
        changes: list[Change] = []
        for span in (await store.checkpoints()).get(row.instance, ()):
            after = structs.replace(span, revision=span.revision + 1)
            new = tuple(
                structs.replace(one, projection=row.instance)
                for one in skipped
                if span.slice <= one.slice < span.end
                and one.position > span.position
                and one.place not in known
            )
            changes += [Change(span, after, {}, (), new)] if new else []
        if not changes or all(await store.apply(changes)):
            return


__all__ = ["carry_skips"]
