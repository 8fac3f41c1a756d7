"""What the command side hands to a log is sound: its codec has refused all else."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diptych import App, Command, Event, Rejected, Tag
from diptych.codec import Codec
from diptych.errors import DefinitionError, DiptychError
from diptych.log import Append, require_sound
from diptych.logs.sqlite import SqliteLog
from diptych.messages import Actor

Key = Annotated[str, Tag("key")]
Maybe = Annotated[str | None, Tag("maybe")]

app = App("sound")


class Said(Event, stored_as="N" * 500):
    key: Key
    maybe: Maybe
    text: str
    amount: Decimal
    blob: bytes
    deep: dict[str, list[str]]


class Say(Command):
    key: Key
    maybe: Maybe
    text: str
    amount: Decimal
    blob: bytes
    deep: dict[str, list[str]]
    refuse: bool = False


@app.model(0, tag="key")
def times(state: int, event: Said) -> int:
    return state + 1


@app.decides
def say(command: Say, times: int) -> Any:
    if command.refuse:
        raise Rejected(command.text or "no", key=command.key, maybe=command.maybe)
    yield Said(
        *(command.key, command.maybe, command.text, command.amount, command.blob, command.deep)
    )


WORDS = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=8),
    st.sampled_from(
        ["", "\0", "\ud800", '"', "\\", "\x1f", "}{", "ä" * 700, "x" * 5000, "€" * 340]
    ),
)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.builds(
        Say,
        *(WORDS, st.none() | WORDS, WORDS, st.decimals(allow_nan=False), st.binary(max_size=9)),
        st.dictionaries(WORDS, st.lists(WORDS, max_size=2), max_size=2),
        st.booleans(),
    ),
    st.none() | WORDS,
    st.none() | WORDS,
    st.none() | WORDS,
)
@pytest.mark.filterwarnings("ignore::diptych.errors.SqliteVersionWarning")
async def test_all_that_is_handed_to_a_log_is_sound(
    tmp_path_factory: pytest.TempPathFactory,
    command: Say,
    key: str | None,
    actor: str | None,
    correlation: str | None,
) -> None:
    folder = tmp_path_factory.mktemp("sound")
    seen: list[Sequence[Append]] = []
    begin = SqliteLog.begin_append

    def looking(log: SqliteLog, batch: Sequence[Append], done: Any) -> None:
        seen.append(batch)
        begin(log, batch, done)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(SqliteLog, "begin_append", looking)
        async with app.open(log=f"sqlite:///{folder}/log.db", views="memory:") as running:
            try:
                who = None if actor is None else Actor(actor, tenant=actor)
                await running.do(command, key=key, actor=who, correlation_id=correlation)
            except DiptychError:
                pass
            else:
                assert seen
    for batch in seen:
        require_sound(batch)


class Listed(Event, array_like=True):
    key: Key


class Long(Event, stored_as="N" * 501):
    key: Key


@pytest.mark.parametrize(("event", "why"), [(Listed, "array_like"), (Long, "at most 500")])
def test_a_message_is_written_with_its_names(event: type[Event], why: str) -> None:
    """And its own name fits into an index."""
    with pytest.raises(DefinitionError, match=why):
        Codec().register([event])
