"""The command line starts fast: it loads only what a call needs."""

import pytest

from tests.house.test_start_up import modules_imported_by

PROGRAM = "from diptych.cli import main; main()"
DATABASES = {"sqlalchemy", "sqlite3", "asyncio", "msgspec", "diptych.app", "diptych.codec"}


@pytest.mark.parametrize("words", [("do", "--help"), ("log", "tail", "--help")])
def test_help_loads_no_database_no_event_loop_and_no_application(words: tuple[str, ...]) -> None:
    imported = modules_imported_by(PROGRAM, *words)
    assert "cyclopts" in imported
    assert not imported & DATABASES


@pytest.mark.parametrize("words", [("--help",), ("-h",), ()])
def test_the_help_on_everything_loads_next_to_nothing(words: tuple[str, ...]) -> None:
    imported = modules_imported_by(PROGRAM, *words)
    assert not imported & (DATABASES | {"cyclopts", "rich", "inspect", "dataclasses"})
    assert {name for name in imported if name.startswith("diptych")} == {
        "diptych",
        "diptych.cli",
        "diptych.cli.page",
    }
