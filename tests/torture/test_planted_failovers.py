"""The run with failovers finds the bugs that it is there to find."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diptych.errors import ForeignCheckpoint
from diptych.log import Log, Token
from diptych.logs.postgres import writing
from diptych.read.following import follower, spans
from diptych.read.port import Checkpoint
from diptych.testing.checker import Violation
from diptych.testing.servers import PostgresServer
from tests.torture.planting import LOCK, Planter, finds
from torture.backends import Postgres
from torture.failover import TOLD, loses_nothing
from torture.stale import stale


@pytest.fixture
def backend(postgres_server: PostgresServer, tmp_path: Path) -> Postgres:
    return Postgres(postgres_server).within(tmp_path)


# --- synchronous ----------------------------------------------------------------------------------


async def lost(backend: Postgres, rng: random.Random, **how: bool) -> list[Violation]:
    """Return what the checker finds, whatever processes are told by themselves."""
    return [one for one in await loses_nothing(backend, rng, **how) if one.text != TOLD]


async def test_a_replica_that_is_not_waited_for(backend: Postgres) -> None:
    """Bug: it is said to be synchronous, and is not."""
    assert await finds(1, lambda rng: lost(backend, rng, synchronous=False), rounds=20)


async def test_commits_that_do_not_wait_for_the_replica(
    backend: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: appends wait for the primary's disk, and for nothing else."""
    planter = Planter(monkeypatch)
    planter.function_only()
    planter.schema((LOCK, "PERFORM set_config('synchronous_commit', 'local', true);\n" + LOCK))
    assert await finds(1, lambda rng: lost(backend, rng), rounds=20)


# --- asynchronous ---------------------------------------------------------------------------------


def position_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint is its position: what stands there is not looked at."""

    async def compare(checkpoint: Checkpoint, log: Log, **_: object) -> None:
        head = await log.head()
        if checkpoint.position > head:
            raise ForeignCheckpoint("beyond the head", position=checkpoint.position, head=head)

    monkeypatch.setattr(follower, "refuse_foreign", compare)


def trusted_position(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint is not compared with the log at all."""

    async def trust(*_: object, **__: object) -> None:
        pass

    monkeypatch.setattr(follower, "refuse_foreign", trust)


def workers_that_do_not_look_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint is compared when a worker starts, and not when its connection is another."""
    for module in (follower, spans):
        monkeypatch.setattr(module, "renewals_of", lambda _: 0)


def writers_that_do_not_look_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has stored events does not look whether they are there still."""

    async def trust(*_: object) -> None:
        pass

    monkeypatch.setattr(writing.Writer, "_require_same", trust)


def any_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token is compared with the log's identity only, and then with nothing."""
    monkeypatch.setattr(Token, "require_reachable", lambda token, log, _: token.require(log))


@pytest.mark.parametrize(
    ("bug", "again", "said"),
    [
        (position_only, True, "has applied lost events, and is running"),
        (trusted_position, False, "has applied lost events, and is"),
        (workers_that_do_not_look_again, True, "who has applied lost events goes on"),
        (writers_that_do_not_look_again, True, "who has stored lost events goes on"),
        (any_token, False, "a token from beyond the head is taken"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_what_is_stale_and_used(
    bug: Callable[[pytest.MonkeyPatch], Any],
    again: bool,
    said: str,
    backend: Postgres,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bugs that let what rests on lost events be used."""
    monkeypatch.setattr("torture.stale.SECONDS", 1.0)  # one that goes on does so for ever
    bug(monkeypatch)
    for number in range(10):
        found = await stale(backend, random.Random(f"planted:{number}"), again=again)
        if any(said in text for text in found):
            return
    pytest.fail("it was not found")
