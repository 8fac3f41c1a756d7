"""Points 8 and 10, and commands: what readers and clients of an application saw."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from diptych.codec import metadata_of
from diptych.log import EventQuery
from diptych.testing.checker.violations import Found, Stored
from diptych.testing.history import (
    AskRequest,
    Call,
    Done,
    DoRequest,
    ReadRequest,
    SawRequest,
    Seen,
    Told,
    digest_of,
)


def check_reads(calls: Iterable[Call], stored: Stored, found: Found) -> None:
    """Point 8: pages hold all that they claim to; subscribers are given one page after another."""
    reached: dict[str, tuple[str, int]] = {}
    for call in calls:
        request, answer = call.request, call.answer
        if not isinstance(answer, Seen):
            continue
        facts: dict[str, object] = {"client": call.client, "call": call.id}
        if isinstance(request, ReadRequest):
            if len(answer.events) > request.limit:
                found.add(8, "More than the limit", **facts, limit=request.limit)
            _check_page(request.query, request.after, answer, stored, found, facts)
        elif isinstance(request, SawRequest):
            facts = {"subscriber": request.subscriber}
            _check_page(request.query, request.after, answer, stored, found, facts)
            process, upto = reached.get(request.subscriber, ("", 0))
            # After a restart it may see again what it has seen; it may never leave anything out.
            if request.after > upto:
                found.add(8, "Events were skipped", **facts, seen_upto=upto, then=request.after)
            elif request.after < upto and process == call.client:
                found.add(8, "Events came again", **facts, seen_upto=upto, then=request.after)
            reached[request.subscriber] = (call.client, answer.upto)


def _check_page(
    query: EventQuery,
    after: int,
    page: Seen,
    stored: Stored,
    found: Found,
    facts: dict[str, object],
) -> None:
    if page.upto < after:
        found.add(8, "A page that goes back", **facts, after=after, upto=page.upto)
    seen = [sight.position for sight in page.events]
    wanted = list(stored.matching(query, after, page.upto))
    if seen != wanted:
        if missing := sorted(set(wanted) - set(seen)):
            found.add(8, "Events are missing", **facts, upto=page.upto, missing=missing[:20])
        elif extra := sorted(set(seen) - set(wanted)):
            found.add(8, "Events that do not belong here", **facts, upto=page.upto, at=extra[:20])
        else:
            found.add(8, "Events out of order, or twice", **facts, positions=seen[:20])
    for sight in page.events:
        event = stored.by_position.get(sight.position)
        if event is not None and event.id != sight.id:
            found.add(8, "Another event was seen", **facts, position=sight.position)
        elif event is not None and sight.digest and sight.digest != digest_of(event):
            found.add(8, "An event was seen otherwise", **facts, position=sight.position)


def check_tokens(calls: Iterable[Call], stored: Stored, found: Found) -> None:
    """Point 10, without a look at values: an answer that is not stale has reached its token."""
    for call in calls:
        if not (isinstance(call.request, AskRequest) and isinstance(call.answer, Told)):
            continue
        answer, token = call.answer, call.request.after
        facts = {"client": call.client, "query": call.request.query, "as_of": answer.as_of}
        if not answer.stale and answer.as_of < token:
            found.add(10, "Answered too early", **facts, token=token)
        if answer.as_of > stored.head:
            found.add(10, "Answered as of a position that is not there", **facts, head=stored.head)


def check_commands(
    calls: Iterable[Call], stored: Stored, found: Found
) -> tuple[dict[str, int], set[str]]:
    """Points 1 to 4 and keys, of commands: their events bear the call's correlation id.

    Returns the last position before each command's effect, and the ids of all their events.
    """
    commands = {
        call.request.correlation: (call, call.request)
        for call in calls
        if isinstance(call.request, DoRequest)
    }
    effects: defaultdict[str, list[int]] = defaultdict(list)
    by: dict[str, set[str]] = defaultdict(set)
    ids: set[str] = set()
    for event in stored.events if commands else ():
        metadata = metadata_of(event)
        if metadata.correlation_id in commands:
            effects[metadata.correlation_id].append(event.position)
            by[metadata.correlation_id].add(metadata.command_id)
            ids.add(event.id)
    places: dict[str, int] = {}
    for correlation, (call, _) in commands.items():
        _check_command(call, effects.get(correlation, []), by.get(correlation, set()), found)
        if positions := effects.get(correlation):
            places[call.id] = positions[0] - 1
    _check_command_keys(commands.values(), effects, found)
    return places, ids


def _check_command(call: Call, positions: list[int], command_ids: set[str], found: Found) -> None:
    answer = call.answer
    facts: dict[str, object] = {"client": call.client, "call": call.id, "positions": positions}
    if isinstance(answer, Done) and not answer.replayed:
        wanted = list(range(answer.first, answer.last + 1)) if answer.first else []
        if len(command_ids) > 1:
            found.add(1, "A command was done twice", **facts)
        elif positions != wanted:
            text = "An acknowledged command is not there as answered"
            found.add(1, text, **facts, first=answer.first, last=answer.last)
    elif isinstance(answer, Done) or call.outcome == "failed":
        if positions:
            found.add(3, "A command that was not done has left events", **facts)
    elif len(command_ids) > 1:
        found.add(2, "Unknown, and done twice", **facts)
    if positions and positions != list(range(positions[0], positions[0] + len(positions))):
        found.add(4, "A command's events are scattered", **facts)


def _check_command_keys(
    commands: Iterable[tuple[Call, DoRequest]], effects: dict[str, list[int]], found: Found
) -> None:
    by_key: defaultdict[str, list[tuple[Call, list[int]]]] = defaultdict(list)
    for call, request in commands:
        if request.key is not None:
            by_key[request.key].append((call, effects.get(request.correlation, [])))
    for key, group in by_key.items():
        done = [positions for _, positions in group if positions]
        if len(done) > 1:
            sure = all(isinstance(c.answer, Done) for c, positions in group if positions)
            found.add(1 if sure else 2, "A key took effect twice", key=key, at=done)
            continue
        answers = {(c.answer.first, c.answer.last) for c, _ in group if isinstance(c.answer, Done)}
        if done and len(answers - {(done[0][0], done[0][-1])}):
            found.add(1, "Not the first answer to the key", key=key, got=answers, stored=done[0])
        elif len(answers) > 1:
            found.add(1, "A key with several answers", key=key, got=answers)
