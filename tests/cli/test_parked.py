"""`diptych parked` and `diptych projections pause`, `resume`, `rewind`."""

import re
from pathlib import Path

import pytest

from tests.cli.conftest import SHOP, Cli


@pytest.fixture
def poisoned(filled: Cli) -> Cli:
    """Views with one order that cannot be applied, and another event of it behind."""
    for customer in ("poison", "ada"):
        filled("do", "Place", f"order={customer}", f"customer={customer}", "total=1")
    filled("ask", "HowMany")
    return filled


def mend(folder: Path) -> None:
    """Put the fold right."""
    text = SHOP.replace('if event.customer == "poison"', 'if event.customer == "other"')
    assert text != SHOP
    (folder / "cli_mended.py").write_text(text)


def test_what_is_parked_is_listed_and_shown(poisoned: Cli) -> None:
    said = poisoned("parked", "list", "--json")
    assert said.status == 1
    (key,) = said.json["parked"]
    assert (key["projection"], key["key"], key["events"]) == ("summary", '"poison"', 1)
    assert (key["position"], key["kind"], key["attempts"]) == (4, "ValueError", 1)
    said = poisoned("parked", "list")
    assert said.status == 1
    assert "ValueError: the fold is broken" in said.out
    assert poisoned("parked", "list", "other", "--json").error["code"] == "invalid"
    said = poisoned("parked", "show", "summary", "poison")
    assert said.status == 0
    assert "ValueError: the fold is broken" in said.out
    (event,) = poisoned("parked", "show", "summary", "poison", "--json").json["parked"]
    assert (event["position"], event["state"]) == (4, "queued")
    assert poisoned("parked", "show", "summary", "ada", "--json").error["facts"]["field"] == "key"


def test_no_line_of_a_table_ends_with_blanks_in_a_pipe(poisoned: Cli) -> None:
    poisoned("do", "Place", "order=b", "customer=poison", "total=1")
    for words in (("parked", "list"), ("status",), ("verify",), ("projections", "list")):
        lines = poisoned(*words).out.splitlines()
        assert len(lines) > 2
        assert lines == [line.rstrip() for line in lines]


def test_what_is_parked_names_the_line_that_raised(poisoned: Cli, folder: Path) -> None:
    line = SHOP.splitlines().index('        raise ValueError("the fold is broken")') + 1
    at = f"(at: {folder / 'cli_shop.py'}:{line})"
    assert poisoned("parked", "list", "--json").json["parked"][0]["error"].endswith(at)
    assert (
        f"ValueError: the fold is broken {at}"
        in poisoned("parked", "show", "summary", "poison").out
    )
    assert at in poisoned("parked", "retry", "--all").out


def test_what_does_not_fit_the_screen_is_a_record_with_its_error_on_one_line(
    filled: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = SHOP.replace("the fold is broken", "it is\\n" + "very " * 40 + "broken")
    assert long != SHOP
    (folder / "cli_long.py").write_text(long)
    at = ("--app", "cli_long:app")
    filled("do", "Place", "order=4", "customer=poison", "total=1", *at)
    filled("projections", "rebuild", *at)
    monkeypatch.setenv("COLUMNS", "160")
    head, _, row = filled("parked", "list", *at).out.splitlines()
    assert head.split()[:3] == ["projection", "key", "events"]
    assert "ValueError: it is very very" in row
    assert row.rstrip().endswith("…")
    assert len(row.rstrip()) <= 160
    monkeypatch.setenv("COLUMNS", "60")
    lines = filled("parked", "list", *at).out.splitlines()
    assert lines[:2] == ["projection  summary", 'key         "4"']
    assert len(lines) == 9
    assert lines[-1].startswith("error       ValueError: it is very")
    assert (lines[-1][-1], len(lines[-1])) == ("…", 60)
    whole = filled("parked", "show", "summary", "4", *at).out
    assert "broken" in whole
    assert filled("parked", "retry", "--all", *at).out.splitlines()[-1].endswith("…")
    monkeypatch.setenv("COLUMNS", "40")
    lines = filled("status", *at).out.splitlines()
    assert lines[1:3] == ["projection  summary", "kind        async"]
    assert any(line.startswith("state       parked, held ") for line in lines)
    monkeypatch.delenv("COLUMNS")  # not on a terminal, all of it
    assert "broken" in filled("parked", "list", *at).out


def test_events_without_a_key_are_found_as_they_are_shown(filled: Cli, folder: Path) -> None:
    odd = SHOP.replace("@reading.projects(Summary)", "@reading.projects(Summary, key=no_key)")
    assert odd != SHOP
    odd = odd.replace(
        "class Summary(",
        "def no_key(event: Placed) -> str:\n    raise KeyError(1)\n\n\nclass Summary(",
        1,
    )
    (folder / "cli_odd.py").write_text(odd)
    at = ("--app", "cli_odd:app")
    filled("projections", "rebuild", *at)
    assert "(none)" in filled("parked", "list", *at).out
    for key in ("(none)", ""):
        assert "KeyError" in filled("parked", "show", "summary", key, *at).out


def test_a_skip_of_what_is_not_parked_asks_nothing(poisoned: Cli) -> None:
    said = poisoned("parked", "skip", "summary", "ada", "--why", "a test", "--json")
    assert said.error["facts"]["field"] == "key"


def test_status_and_verify_tell_of_parked_keys(poisoned: Cli) -> None:
    said = poisoned("status")
    assert "1 event of 1 key parked" in said.out
    assert said.out.splitlines()[3].split()[-1] == "parked"
    (told,) = poisoned("status", "--json").json["projections"]
    assert (told["state"], told["parked_keys"], told["parked_events"]) == ("parked", 1, 1)
    assert told["lag_seconds"] >= 0
    said = poisoned("verify")
    assert said.status == 1
    assert "1 effect parked" in said.out
    assert "then `diptych parked retry summary`" in said.out
    assert said.out.splitlines()[2].split()[-1] == "parked"
    told = poisoned("verify", "--json").json
    assert (told["ok"], told["projections"][0]["ok"]) == (False, True)
    assert told["projections"][0]["parked"] == 1


def test_what_was_parked_since_is_no_part_of_the_last_proof(filled: Cli) -> None:
    assert filled("ask", "HowMany").status == 0
    assert filled("verify").status == 0
    filled("do", "Place", "order=poison", "customer=poison", "total=1")
    filled("ask", "HowMany")
    said = filled("status").out
    assert re.search(r" ok, \S+ \w+ ago +parked\n", said)
    assert "1 event of 1 key parked" in said
    assert filled("verify").status == 1
    assert re.search(r" parked, \S+ \w+ ago +parked\n", filled("status").out)
    (told,) = filled("status", "--json").json["projections"]
    assert (told["proved"]["ok"], told["proved"]["reason"]) == (True, "effects parked: 1")


def test_a_retry_applies_what_can_be_applied(poisoned: Cli, folder: Path) -> None:
    said = poisoned("parked", "retry", "--all")
    assert said.status == 1
    assert "ValueError: the fold is broken" in said.out
    mend(folder)
    mended = ("--app", "cli_mended:app")
    said = poisoned("parked", "retry", "summary", "poison", *mended, "--json")
    assert (said.status, said.json["retried"][0]["applied"]) == (0, 1)
    assert poisoned("ask", "HowMany", *mended).out.splitlines()[0] == "5"
    assert poisoned("parked", "list", *mended) == (0, "nothing is parked\n", "")
    assert poisoned("parked", "retry", "--all", *mended) == (0, "nothing is parked\n", "")
    assert poisoned("verify", *mended).status == 0
    assert poisoned("parked", "retry", "--json").error["hint"] == "diptych parked retry --all"


def test_a_skip_asks_first_and_is_kept(poisoned: Cli) -> None:
    skip = ("parked", "skip", "summary", "poison", "--why", "a test")
    asked = poisoned(*skip, "--json")
    assert (asked.status, asked.error["code"]) == (2, "not-confirmed")
    would = asked.error["facts"]["would"]
    assert would.startswith("summary of key poison: Placed at position 4 (ValueError: the fold is")
    assert would.endswith(") will never be applied")
    assert poisoned("parked", "list").status == 1
    said = poisoned(*skip, "--actor", "ada", "--yes")
    assert (said.status, said.out) == (0, "Placed at position 4 is skipped\n")
    assert poisoned("parked", "list").status == 0
    assert "ada: a test" in poisoned("parked", "show", "summary", "poison").out
    said = poisoned("verify")
    assert (said.status, "1 effect skipped" in said.out) == (0, True)
    assert "1 event skipped" in poisoned("status").out


def test_pause_and_resume(filled: Cli) -> None:
    filled("ask", "HowMany")
    pause = ("projections", "pause", "summary", "--why", "a look", "--actor", "ada")
    version = filled("status", "--json").json["projections"][0]["version"]
    assert filled(*pause) == (0, f"summary is paused: {version} (live)\n", "")
    (first,) = (p["paused"] for p in filled("status", "--json").json["projections"])
    again = filled("projections", "pause", "summary", "--why", "mine", "--actor", "bob")
    assert again.status == 1
    assert re.fullmatch(r"summary was paused already, by ada since \S+ \S+Z: a look\n", again.out)
    told = filled("projections", "pause", "summary", "--why", "mine", "--json")
    assert (told.status, told.json) == (1, {"paused": first, "already": True})
    said = filled("status")
    assert said.out.count("paused by ada since") == 1
    assert "is paused" not in said.out
    assert filled("status", "--json").json["projections"][0]["state"] == "paused"
    resumed = filled("projections", "resume", "summary")
    assert resumed == (0, f"summary goes on: {version} (live)\n", "")
    assert filled("projections", "resume", "summary") == (1, "summary was not paused\n", "")


def test_rewind_asks_first(filled: Cli) -> None:
    filled("ask", "HowMany")
    rewind = ("projections", "rewind", "summary")
    assert filled(*rewind, "--json").error["code"] == "not-confirmed"
    for to in ("soon", "-5"):
        assert filled(*rewind, "--to", to, "--yes", "--json").error["code"] == "usage"
    assert filled(*rewind, "--to", "2026-01-31T12:00:00Z", "--yes").status == 0
    asked = filled(*rewind, "--to", "2", "--json").error["facts"]["would"]
    assert asked.startswith("put summary back to position 0, whatever --to says: a fold's rows")
    filled("ask", "HowMany")
    said = filled(*rewind, "--to", "2", "--yes")
    assert said.out.startswith("summary is put back from 3 to 0: a fold's rows depend on all")
    said = filled(*rewind, "--yes", "--json")
    assert (said.status, said.json["rewound"]["position"]) == (0, 0)
    assert filled("ask", "HowMany").out.splitlines()[0] == "3"
    assert filled("verify").status == 0
