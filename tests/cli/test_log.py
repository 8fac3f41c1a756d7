"""`diptych log show` and `diptych log tail`."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.conftest import URL, Cli

LINE = re.compile(
    r" {7}1  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}Z  Placed  order:1 customer:ada  "
    r'\{"order":"1","customer":"ada","total":"1\.50","lines":\[\]\}'
)


def positions(cli: Cli, *words: str) -> list[int]:
    """The positions that `log show` prints."""
    return [event["position"] for event in cli("log", "show", *words, "--json").lines]


def test_an_event_is_one_line(filled: Cli) -> None:
    said = filled("log", "show")
    assert (said.status, said.err) == (0, "")
    first, *rest = said.out.splitlines()
    assert LINE.fullmatch(first)
    assert len(rest) == 2


def test_as_json_an_event_is_one_object_a_line_as_it_is_stored(filled: Cli) -> None:
    first = filled("log", "show", "--json").lines[0]
    assert set(first) == {"position", "id", "type", "tags", "data", "metadata"}
    assert first["metadata"]["schema_version"] == 2


def test_it_needs_no_application(filled: Cli) -> None:
    assert len(filled.bare("--log", URL, "log", "show").out.splitlines()) == 3


def test_events_are_chosen_by_position_type_and_tag(filled: Cli) -> None:
    assert positions(filled, "--after", "1") == [2, 3]
    assert positions(filled, "--until", "2") == [1, 2]
    assert positions(filled, "--limit", "1") == [1]
    assert positions(filled, "--tag", "customer:ada") == [1, 3]
    assert positions(filled, "--tag", "customer:ada", "--tag", "order:3") == [3]
    assert positions(filled, "--type", "Placed", "--type", "Other", "--after", "2") == [3]
    assert positions(filled, "--type", "Other") == []


def test_more_events_than_a_page_are_all_shown(
    filled: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diptych.cli.log.PAGE", 2)
    assert positions(filled) == [1, 2, 3]
    assert positions(filled, "--limit", "3") == [1, 2, 3]


def test_the_newest_events_are_found(filled: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diptych.cli.log.PAGE", 1)
    assert positions(filled, "--last", "2") == [2, 3]
    assert positions(filled, "--last", "9") == [1, 2, 3]
    assert positions(filled, "--last", "1", "--until", "2") == [2]
    assert positions(filled, "--last", "2", "--after", "2") == [3]
    assert positions(filled, "--last", "1", "--tag", "customer:bob") == [2]
    assert positions(filled, "--last", "2", "--tag", "customer:ada") == [1, 3]
    assert positions(filled, "--last", "2", "--type", "Other") == []
    assert filled("log", "show", "--last", "1", "--limit", "1").status == 2


def test_nothing_found_is_said_on_stderr(filled: Cli) -> None:
    assert filled("log", "show", "--after", "3") == (0, "", "0 events\n")
    assert filled("log", "show", "--after", "3", "--json") == (0, "", "")
    assert filled("log", "show", "--type", "Placed", "--after", "3") == (0, "", "0 events\n")


def test_a_type_that_the_application_does_not_know_is_named(filled: Cli) -> None:
    said = filled("log", "show", "--type", "Plced")
    told = "no event type Plced is registered in cli_shop:app; did you mean Placed?\n"
    assert said == (0, "", "0 events\n" + told)
    assert filled("log", "show", "--type", "Plced", "--type", "Placed").err == told
    assert filled.bare("--log", URL, "log", "show", "--type", "Plced").err == "0 events\n"
    assert filled("--app", "nowhere", "log", "show", "--type", "Plced").err == "0 events\n"


def test_a_terminal_never_obeys_what_is_stored(cli: Cli) -> None:
    cli("do", "Place", "order=a\x1b[2Jb\nc", "customer=\x1b]0;x\x07", "total=1")
    said = cli("log", "show").out
    assert len(said.splitlines()) == 1
    assert r"order:a\x1b[2Jb\nc" in said
    assert r"customer:\x1b]0;x\x07" in said
    assert "\x1b" not in said + cli("ask", "One", "order=a\x1b[2Jb\nc").out


def test_looking_changes_nothing(filled: Cli, folder: Path) -> None:
    filled("log", "show")
    assert filled("status", "--json").json["projections"][0]["position"] == 0
    before = (folder / "shop.db").read_bytes()
    for words in (("log", "show"), ("status",), ("describe",)):
        assert filled(*words).status == 0
    assert (folder / "shop.db").read_bytes() == before


@pytest.mark.parametrize(
    "words",
    [
        ("--tag", "order"),
        ("--limit", "0"),
        ("--last", "0"),
        ("--after", "-1"),
        ("--until", "x"),
        ("--type",),
    ],
)
def test_a_wrong_choice_ends_with_2(filled: Cli, words: tuple[str, ...]) -> None:
    assert filled("log", "show", *words).status == 2


def test_colours_are_for_terminals(filled: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = filled("log", "show").out
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    coloured = filled("log", "show").out
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == plain


# --- in a process of its own ----------------------------------------------------------------------


def program(*words: str) -> list[str]:
    """How to start the command line.

    A program that was started in the background ignores Ctrl-C, and so do those that it starts.
    """
    return [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from diptych.cli import main; exit(main())",
        *words,
    ]


@contextmanager
def tail(*words: str, by: Sequence[str] = ()) -> Generator[subprocess.Popen[str]]:
    """A running `log tail`."""
    process = subprocess.Popen(
        [*by, *program("log", "tail", *words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def next_position(process: subprocess.Popen[str]) -> int:
    """Wait for the next line of `log tail --json`."""
    assert process.stdout is not None
    found: int = json.loads(process.stdout.readline())["position"]
    return found


@pytest.mark.parametrize("by", [(), ("sh", "-c", 'trap "" INT; exec "$@"', "sh")])
def test_tail_prints_events_as_they_come_and_ends_with_130_at_ctrl_c(
    filled: Cli, by: Sequence[str]
) -> None:
    """Also where the tests themselves run in the background, without Ctrl-C."""
    with tail("--after", "2", "--json", by=by) as process:
        assert next_position(process) == 3
        filled("do", "Place", "order=4", "customer=ada", "total=1")
        assert next_position(process) == 4
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30) == ("", "")
        assert process.returncode == 130


def test_tail_can_end_after_some_events_and_choose_among_them(filled: Cli) -> None:
    with tail("--after", "0", "--tag", "customer:ada", "--limit", "3", "--json") as process:
        assert [next_position(process), next_position(process)] == [1, 3]
        filled("do", "Place", "order=4", "customer=bob", "total=1")
        filled("do", "Place", "order=5", "customer=ada", "total=1")
        assert next_position(process) == 5
        assert process.wait(timeout=30) == 0


def test_tail_begins_at_the_head(filled: Cli) -> None:
    with tail("--limit", "1", "--json") as process:
        order = 4
        assert process.stdout is not None
        # It looks for the head at some moment from now on: events come until it has seen one.
        while process.poll() is None:
            filled("do", "Place", f"order={order}", "customer=ada", "total=1")
            order += 1
        assert next_position(process) > 3


def test_a_reader_that_goes_away_ends_it_without_a_word(filled: Cli) -> None:
    with subprocess.Popen(
        program("log", "show"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=30) == 141
