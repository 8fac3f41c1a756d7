"""What is wrong with a call is said in few words, with a code, a remedy and status 2."""

import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from diptych import errors
from diptych.cli import failures
from diptych.cli.commands import build
from tests.cli.conftest import SHOP, Cli
from tests.cli.test_log import program


@pytest.mark.parametrize(
    ("words", "code", "message", "hint"),
    [
        ((), "no-app", "Say which application", "--app shop.main:app (or DIPTYCH_APP)"),
        (
            ("--app", "cli_shop.py"),
            "bad-app",
            "An application is named MODULE:NAME, as in an import",
            "--app shop.main:app (or DIPTYCH_APP)",
        ),
        (("--app", "cli_shp:app"), "app-not-found", "There is no module cli_shp", "did you mean"),
        (("--app", "qqqq:app"), "app-not-found", "There is no module qqqq", "run it in the folder"),
        (
            ("--app", "cli_shop.more:app"),
            "app-not-found",
            "There is no module cli_shop.more",
            "run it in the folder",
        ),
        (
            ("--app", "cli_shop:ap"),
            "bad-app",
            "The module cli_shop has no 'ap'",
            "there is cli_shop:app",
        ),
        (
            ("--app", "cli_shop:Place"),
            "bad-app",
            "cli_shop:Place is no application",
            "there is cli_shop:app",
        ),
        (
            ("--app", "json:dumps"),
            "bad-app",
            "json:dumps is no application",
            "--app shop.main:app (or DIPTYCH_APP)",
        ),
    ],
)
def test_an_application_that_cannot_be_had(
    cli: Cli, words: tuple[str, ...], code: str, message: str, hint: str
) -> None:
    said = cli.bare(*words, "describe", "--json")
    assert (said.status, said.out) == (2, "")
    assert (said.error["code"], said.error["message"]) == (code, message)
    assert said.error["hint"].startswith(hint)


def test_the_name_is_app_unless_given(cli: Cli) -> None:
    assert cli.bare("--app", "cli_shop", "describe").status == 0


def test_a_module_can_be_opened_alone(filled: Cli) -> None:
    assert filled("--app", "cli_shop:orders", "do", "Touch", "order=1").status == 0
    assert filled("--app", "cli_shop:orders", "status").out.endswith("no projections\n")


def test_an_error_inside_the_users_module_is_shown_with_its_place(cli: Cli, folder: Path) -> None:
    (folder / "cli_inner.py").write_text("def load():\n    return {}['price']\n")
    (folder / "cli_outer.py").write_text("import cli_inner\n\nprices = cli_inner.load()\n")
    said = cli("--app", "cli_outer:app", "describe")
    assert said.status == 2
    head, why, *trace = said.err.splitlines()
    assert head == "error[app-failed]: Importing cli_outer failed"
    assert why == "  why  KeyError: 'price'"
    assert [line.rpartition("/")[2] for line in trace] == [
        "cli_outer.py:3 in <module>: prices = cli_inner.load()",
        "cli_inner.py:2 in load: return {}['price']",
    ]


def test_a_missing_import_inside_the_users_module_is_not_taken_for_the_module(
    cli: Cli, folder: Path
) -> None:
    (folder / "cli_outer.py").write_text("import cli_nowhere\n")
    said = cli("--app", "cli_outer:app", "describe", "--json")
    assert said.error["code"] == "app-failed"
    assert said.error["facts"]["why"] == "ModuleNotFoundError: No module named 'cli_nowhere'"


def test_a_wrong_definition_names_file_and_line(cli: Cli, folder: Path) -> None:
    (folder / "cli_wrong.py").write_text(
        "import diptych\napp = diptych.App('wrong')\n\n\n"
        "@app.decides\ndef act(command):\n    pass\n"
    )
    said = cli("--app", "cli_wrong:app", "describe", "--json")
    assert (said.status, said.error["code"]) == (2, "definition")
    assert said.error["facts"]["at"].endswith("cli_wrong.py:5")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--log", "", "status"), "no-log"),
        (("--views", "", "status"), "no-views"),
        (("--log", "sqlite:///nowhere.db", "status"), "no-log"),
        (("--log", "sqlite:///nowhere.db", "ask", "HowMany"), "no-log"),
        (("--log", "sqlite:///nowhere.db", "log", "show"), "no-log"),
        (("--log", "mysql://x", "log", "show"), "invalid"),
        (("--views", "shop.db", "do", "Touch", "order=1"), "invalid"),
        (("--log", "sqlite:///cli_shop.py", "log", "show"), "log-unusable"),
        (("--log", "sqlite:///no/such/folder.db", "do", "Touch", "order=1"), "log-unusable"),
    ],
)
def test_addresses_that_lead_nowhere(
    filled: Cli, folder: Path, words: tuple[str, ...], code: str
) -> None:
    said = filled(*words, "--json")
    assert (said.status, said.out, said.error["code"]) == (2, "", code)
    assert not (folder / "nowhere.db").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("dscribe",), 'Unknown command "dscribe". Did you mean "describe"? Available commands:'),
        (("log", "shw"), 'Unknown command "shw". Did you mean "show"?'),
        (("--ap", "x", "describe"), "Unknown option: --ap."),
        (("ask", "HowMany", "--wiat", "3"), "Unknown option: --wiat. Did you mean --wait?"),
        (("ask", "HowMany", "--wait", "soon"), "Invalid value for --wait"),
        (("ask",), 'Command "ask" parameter NAME requires an argument.'),
    ],
)
def test_wrong_usage(cli: Cli, words: tuple[str, ...], message: str) -> None:
    said = cli(*words, "--json")
    assert (said.status, said.out, said.error["code"]) == (2, "", "usage")
    assert said.error["message"].startswith(message)
    assert said.error["hint"].startswith("diptych")


@pytest.mark.parametrize("words", [(), ("--help",), ("log",), ("do", "--help"), ("--version",)])
def test_help_ends_with_0(cli: Cli, words: tuple[str, ...]) -> None:
    said = cli(*words)
    assert (said.status, said.err) == (0, "")
    assert "diptych" in said.out


def test_the_help_on_everything_says_what_cyclopts_would(cli: Cli) -> None:
    def words(text: str) -> set[str]:
        return set(re.findall(r"(?m)^[│ ]+(--?\w+|\w+)(?:, -h| \(-h\))? +\S", text)) & names

    names = {name for name in build() if name != "-h"} | {"--app", "--log", "--views"}
    names |= {"--json", "--debug"}
    assert words(cli("--help").out) == words(cli("--json", "--help").out) == names


@pytest.mark.parametrize("columns", [20, 60, 80, 120])
def test_the_help_on_everything_fits_the_screen(
    cli: Cli, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    said = cli("--help").out
    assert "DIPTYCH_VIEWS" in said
    if columns >= 80:
        assert max(map(len, said.splitlines())) <= columns


def test_the_options_may_stand_before_or_after_the_command(cli: Cli) -> None:
    assert cli.bare("--app", "cli_shop:app", "describe", "--json").status == 0
    assert cli.bare("describe", "--app", "cli_shop:app", "--json").status == 0


def test_every_error_of_the_library_has_a_status_and_every_status_is_used() -> None:
    answers = {failures.failure_of(_made(cls)).status for cls in _classes()}
    assert answers == {1, 2, 3, 4}


@pytest.mark.parametrize(
    ("stays", "silenced", "lines"), [(True, "", 1), (True, "ignore:SQLite", 0), (False, "", 0)]
)
def test_the_sqlite_warning_is_one_line_of_a_process_that_stays_and_else_none(
    folder: Path, stays: bool, silenced: str, lines: int
) -> None:
    (folder / "cli_warn.py").write_text(
        "import warnings\n"
        "from diptych.errors import SqliteVersionWarning\n"
        "from diptych.cli.running import run\n"
        "async def work():\n"
        "    for _ in range(3):\n"
        "        warnings.warn('SQLite is old', SqliteVersionWarning)\n"
        f"run(work(), stays={stays})\n"
    )
    done = subprocess.run(
        [sys.executable, "cli_warn.py"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONWARNINGS": silenced},
    )
    said = done.stderr.splitlines()
    assert (done.stdout, len(said)) == ("", lines)
    assert not said or "https://sqlite.org/wal.html" in said[0]


def test_a_command_says_nothing_of_the_sqlite_that_is_linked(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 40, 1))
    done = cli("do", "Touch", "order=1")
    assert (done.status, done.err) == (0, "")


def test_a_read_database_without_an_address_is_shown_in_an_example(cli: Cli, folder: Path) -> None:
    source = SHOP.replace("class Summary(View)", 'class Summary(View, store="reports")')
    (folder / "cli_stores.py").write_text(source)
    words = ("--app", "cli_stores", "--views", "main=sqlite:///shop.db", "ask", "HowMany")
    cli("do", "Touch", "order=1")
    assert cli(*words, "--json").error["hint"] == '--views "main=URL reports=URL"'


def test_the_console_script_runs(cli: Cli) -> None:
    done = subprocess.run(
        program("describe", "--json"), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.match(r'\{"name":"shop"', done.stdout)


def _classes() -> list[type[errors.DiptychError]]:
    return [
        thing
        for thing in vars(errors).values()
        if isinstance(thing, type) and issubclass(thing, errors.DiptychError)
    ]


def _made(cls: type[errors.DiptychError]) -> errors.DiptychError:
    needed: dict[type[errors.DiptychError], dict[str, Any]] = {
        errors.Invalid: {"field": "f", "rule": "r"},
        errors.Conflict: {"position": 1},
        errors.DefinitionError: {"at": "here"},
    }
    return cls("text", **needed.get(cls, {}))


@pytest.mark.parametrize(
    "views",
    [
        "main=sqlite:///a.db, reports=sqlite:///b.db",
        "main=sqlite:///a.db,reports=sqlite:///b.db",
        "sqlite:///a.db reports=sqlite:///b.db",
        "main=sqlite:///a file.db",
    ],
)
def test_read_databases_are_given_by_name_with_spaces_between(cli: Cli, views: str) -> None:
    """What is left over of the text is not passed over in silence."""
    said = cli.bare("--app", "cli_shop:app", "--log", "memory:", "--views", views, "status")
    assert (said.status, said.out) == (2, "")
    assert "main=URL reports=URL" in said.err


def test_an_event_that_does_not_fit_its_type_any_more_has_a_remedy() -> None:
    shown = failures.failure_of(errors.UndecodableEvent("An event does not fit its type"))
    assert shown.hint.startswith("give a field that is new a default")
