"""The reference of the command line is complete: no command, option, code or status is left out."""

import re
from collections.abc import Iterator

import pytest
from cyclopts import App

from diptych.cli import failures
from diptych.cli.commands import build
from tests.docs.pages import ROOT
from tests.house.paths import SOURCE, python_files

PAGE = (ROOT / "docs" / "reference" / "cli.md").read_text()


def commands(app: App, path: str = "diptych") -> Iterator[tuple[str, App]]:
    """Each command that does something, with its full name."""
    for name in app:
        if name.startswith("-"):
            continue
        found = app[name]
        if found.default_command is not None:
            yield f"{path} {name}", found
        yield from commands(found, f"{path} {name}")


def options(app: App) -> set[str]:
    """The names of a command's options."""
    collected = app.assemble_argument_collection()
    return {
        name
        for argument in collected
        if argument.parse
        for name in argument.names
        if name.startswith("--")
    }


def section(heading: str) -> str:
    """The text below a heading; '' when there is none."""
    found = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


def code(text: str) -> set[str]:
    """What stands in backticks."""
    return {word for span in re.findall(r"`([^`\n]+)`", text) for word in span.split()}


COMMANDS = dict(commands(build()))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_each_of_its_options_has_an_entry(name: str) -> None:
    text = section(f"`{name}`")
    assert text, f"add a section on `{name}` to docs/reference/cli.md"
    documented = {word for word in code(text) if word.startswith("--")}
    assert documented - {"--json"} == options(COMMANDS[name])
    assert f"`{name.removeprefix('diptych ')}`](#{name.replace(' ', '-')})" in PAGE


def test_every_option_of_all_commands_has_an_entry() -> None:
    text = section("Options of every command")
    own = options(build().meta)
    assert {"--app", "--log", "--views", "--json", "--debug"} <= own
    assert own <= code(text)
    for argument in build().meta.assemble_argument_collection():
        assert set(argument.parameter.env_var or ()) <= code(text)


def test_every_code_stands_beside_its_status() -> None:
    rows = dict(re.findall(r"^\| (\d+) \| (.*)$", section("Exit status"), flags=re.MULTILINE))
    assert rows.keys() == {"0", "1", "2", "3", "4", "130", "141"}
    for cls, status in failures.STATUS.items():
        if status != failures.NO:
            assert f"`{cls.code}`" in rows[str(status)], cls
    sources = "".join(path.read_text() for path in python_files(SOURCE / "cli"))
    own = set(re.findall(r'\bcode="([a-z-]+)"', sources)) | {"usage", "no-log", "no-views"}
    assert len(own) >= 8
    assert {c for c in own if f"`{c}`" not in rows["2"]} == set()
