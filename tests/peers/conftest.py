"""The logs that are tested."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from diptych.app.blocking import BlockingLog, open_log

# One more log: its name here, and its URL below.
LOGS = ("memory", "sqlite", "postgres")


@pytest.fixture(params=LOGS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a new log; ``{name}`` in it makes several."""
    match request.param:
        case "postgres":
            server_url: str = request.getfixturevalue("postgres_url")
            return f"{server_url}?schema={{name}}"
        case "sqlite":
            return f"sqlite:///{tmp_path}/{{name}}.db"
        case _:
            return "memory:"


@pytest.fixture
def log(url: str) -> Iterator[BlockingLog]:
    """A new log."""
    with open_log(url.format(name="events")) as log:
        yield log
