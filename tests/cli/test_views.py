"""`diptych status` and `diptych verify`."""

import re
import sqlite3
from pathlib import Path

import pytest

from tests.cli.conftest import Cli


def plant(folder: Path, statement: str) -> None:
    """Change the views' database behind the library's back."""
    database = sqlite3.connect(folder / "shop.db")
    with database:
        database.execute(statement)
    database.close()


def test_status_shows_how_far_each_projection_is_behind(filled: Cli) -> None:
    said = filled("status")
    assert (said.status, said.err) == (0, "")
    head, title, rule, row = said.out.splitlines()
    assert re.fullmatch(r"log [0-9a-f-]{36}  head 3", head)
    assert " ".join(title.split()) == (
        "projection kind position lag behind effects workers proved state"
    )
    assert set(rule) == {"─"}
    name, kind, position, lag, _age, _unit, effects, workers, proved, *state = row.split()
    assert (name, kind, position, lag) == ("summary", "async", "0", "3")
    assert (effects, workers, proved, state) == ("0", "0", "-", ["no", "worker"])


def test_status_of_current_views(filled: Cli) -> None:
    filled("ask", "HowMany")
    assert filled("status").out.splitlines()[-1].split() == [
        *("summary", "async", "3", "0", "-", "3", "0", "-", "current")
    ]
    filled("verify")
    assert re.search(r" ok, [\d.]+ s ago +current", filled("status").out)


def test_status_as_json(filled: Cli) -> None:
    filled("ask", "HowMany")
    said = filled("status", "--json").json
    assert said["head"] == 3
    assert said["projections"] == [
        {
            "projection": "summary",
            "kind": "async",
            "position": 3,
            "lag": 0,
            "lag_seconds": 0.0,
            "applied": 3,
            "spans": [
                {"first": 0, "last": 63, "position": 3, "lag": 0, "lag_seconds": 0.0, "count": 3}
            ],
            "workers": 0,
            "proved": None,
            "state": "current",
            "error": None,
            "parked_keys": 0,
            "parked_events": 0,
            "skipped": 0,
            "paused": None,
            "fresh_within": None,
            "late": False,
            "version": said["projections"][0]["version"],
            "phase": "live",
            "objections": [],
        }
    ]
    assert filled("status", "--json").json["log"] == said["log"]


PROMISE = "@reading.projects(Summary, fresh_within=0.001)"


def test_status_shows_what_was_promised_and_whether_it_is_broken(filled: Cli, folder: Path) -> None:
    """The events have waited since they were appended: they are late, until they are applied."""
    source = (folder / "cli_shop.py").read_text()
    (folder / "cli_fresh.py").write_text(source.replace("@reading.projects(Summary)", PROMISE))
    app = ("--app", "cli_fresh:app")
    row = filled("status", *app).out.splitlines()[-1]
    assert "0.001 s, late" in row
    (one,) = filled("status", *app, "--json").json["projections"]
    assert (one["fresh_within"], one["late"]) == (0.001, True)
    filled("ask", "HowMany", *app)
    assert filled("status", *app).out.splitlines()[-1].split() == [
        *("summary", "async", "3", "0", "-", "0.001", "s", "3", "0", "-", "current")
    ]
    (one,) = filled("status", *app, "--json").json["projections"]
    assert (one["fresh_within"], one["late"]) == (0.001, False)


def test_views_of_another_log_are_refused_and_status_says_so(filled: Cli) -> None:
    filled("ask", "HowMany")
    filled("do", "Place", "order=1", "customer=a", "total=1", "--log", "sqlite:///other.db")
    said = filled("status", "--log", "sqlite:///other.db", "--json")
    assert said.status == 0
    (summary,) = said.json["projections"]
    assert summary["state"] == "refused"
    assert summary["error"]
    assert "refused" in filled("status", "--log", "sqlite:///other.db").out
    assert filled("verify", "--log", "sqlite:///other.db").status == 1


def test_an_application_without_projections_has_no_rows(cli: Cli, folder: Path) -> None:
    (folder / "cli_empty.py").write_text("import diptych\napp = diptych.App('empty')\n")
    cli("do", "Place", "order=1", "customer=a", "total=1")
    assert cli("status", "--app", "cli_empty:app").out.endswith("no projections\n")
    assert cli("verify", "--app", "cli_empty:app") == (0, "no projections\n", "")


def test_verify_proves_what_was_applied(filled: Cli) -> None:
    filled("ask", "HowMany")
    said = filled("verify")
    assert (said.status, said.err) == (0, "")
    title, _rule, row = said.out.splitlines()
    assert title.split() == ["projection", "up", "to", "effects", "took", "result"]
    assert row.split()[:3] == ["summary", "3", "3"]
    assert row.split()[-1] == "ok"


def test_verify_as_json(filled: Cli) -> None:
    filled("ask", "HowMany")
    said = filled("verify", "--json").json
    assert said["ok"] is True
    (summary,) = said["projections"]
    assert (summary["projection"], summary["ok"], summary["position"]) == ("summary", True, 3)
    assert (summary["missing"], summary["doubled"]) == ([], [])


def test_verify_names_what_is_missing_and_ends_with_1(filled: Cli, folder: Path) -> None:
    filled("ask", "HowMany")
    for order in ("4", "5"):
        filled("do", "Place", f"order={order}", "customer=ada", "total=1")
    last = filled("log", "show", "--json").lines[-1]["id"]
    plant(folder, f"UPDATE diptych_checkpoints SET position = 5, event_id = '{last}'")
    said = filled("verify")
    assert said.status == 1
    assert said.out.splitlines()[2].split()[-1] == "differs"
    assert "summary: missing: 4 to 5" in said.out
    told = filled("verify", "summary", "--json")
    assert told.status == 1
    assert told.json["ok"] is False
    assert told.json["projections"][0]["missing"] == [4, 5]


def test_verify_takes_the_names_of_projections(filled: Cli) -> None:
    filled("ask", "HowMany")
    assert filled("verify", "summary").status == 0
    said = filled("verify", "other", "--json")
    assert (said.status, said.error["facts"]["rule"]) == (2, "one of summary")


@pytest.mark.parametrize("command", ["status", "verify"])
def test_views_that_are_not_there_are_not_made_by_looking(
    filled: Cli, folder: Path, command: str
) -> None:
    said = filled(command, "--views", "sqlite:///views.db", "--json")
    assert (said.status, said.error["code"]) == (2, "no-views")
    assert not (folder / "views.db").exists()


def test_verify_goes_on_from_the_last_proof(filled: Cli) -> None:
    filled("ask", "HowMany")
    for words in ((), ("--since", "last")):
        (found,) = filled("verify", *words, "--json").json["projections"]
        assert (found["ok"], found["position"], found["count"]) == (True, 3, 3)
    assert filled("verify", "--since", "tomorrow").status == 2


def test_verify_names_events_and_keys(filled: Cli, folder: Path) -> None:
    filled("ask", "HowMany")
    event = filled("log", "show", "--json").lines[1]["id"]
    plant(folder, f"UPDATE diptych_checkpoints SET position = 2, event_id = '{event}'")
    said = filled("verify")
    assert said.status == 1
    assert said.out.splitlines()[-2].split()[:4] == ["ahead", "3", "Placed", "3"]
    (fault,) = filled("verify", "--json").json["projections"][0]["faults"]
    assert (fault["what"], fault["position"], fault["key"]) == ("ahead", 3, "3")


def test_verify_of_rows_names_what_was_changed_by_hand(filled: Cli, folder: Path) -> None:
    filled("ask", "HowMany")
    said = filled("verify", "--rows")
    assert (said.status, said.out.splitlines()[-1].split()[:3]) == (0, ["summary", "3", "0"])
    plant(folder, "UPDATE summary SET customer = 'eve' WHERE \"order\" = '2'")
    plant(folder, "DELETE FROM summary WHERE \"order\" = '3'")
    assert filled("verify").status == 0
    said = filled("verify", "--rows")
    assert said.status == 1
    assert [line.split() for line in said.out.splitlines()[-3:-1]] == [
        ["different", "2", "customer", "bob", "eve"],
        ["missing", "3"],
    ]
    (found,) = filled("verify", "--rows", "--json").json["projections"]
    assert (found["differing"], found["columns"]) == (2, {"customer": 1})
    assert filled("verify", "--rows", "--sample", "0").status == 2
    for words in (("--sample", "0.5"), ("--rows", "--since", "last")):
        refused = filled("verify", *words)
        assert (refused.status, refused.out) == (2, "")


def spoil(folder: Path, position: int) -> None:
    """Damage a stored event."""
    plant(folder, "DROP TRIGGER events_are_never_changed")
    plant(folder, f"UPDATE events SET data = '{{\"order\":' WHERE position = {position}")


def test_a_damaged_event_is_named_by_its_position_everywhere(filled: Cli, folder: Path) -> None:
    spoil(folder, 2)
    shown = filled("log", "show")
    assert shown.status == 4
    assert [line.split()[0] for line in shown.out.splitlines()] == ["1"]
    assert "error[undecodable-event]" in shown.err
    assert re.search(r"position +2\n", shown.err)
    assert [line["position"] for line in filled("log", "show", "--after", "2", "--json").lines] == [
        3
    ]
    told = filled("log", "show", "--json")
    assert (told.status, [line["position"] for line in told.lines]) == (4, [1])
    done = filled("do", "Touch", "order=2")
    assert "error[undecodable-event]" in done.err
    assert re.search(r"position +2\n", done.err)
    history = filled("ask", "History", "order=2")
    assert "error[undecodable-event]" in history.err
    asked = filled("ask", "HowMany")
    assert (asked.status, asked.out.splitlines()[0]) == (0, "2")
    [parked] = filled("parked", "show", "summary", "", "--json").json["parked"]
    assert (parked["position"], parked["kind"]) == (2, "UndecodableEvent")
    proof = filled("verify")
    assert (proof.status, "1 effect parked" in proof.out) == (1, True)
    assert "fault" not in proof.err


def test_an_event_damaged_after_it_was_applied_is_named(filled: Cli, folder: Path) -> None:
    filled("ask", "HowMany")
    spoil(folder, 2)
    proof = filled("verify")
    assert (proof.status, proof.err) == (1, "")
    assert "no key can be had of: 2" in proof.out
    rows = filled("verify", "--rows")
    assert rows.status == 4
    assert "error[undecodable-event]" in rows.err
    assert re.search(r"position +2\n", rows.err)


def test_a_proof_names_what_mends_its_finding(filled: Cli, folder: Path) -> None:
    """And it does mend it."""
    filled("ask", "HowMany")
    plant(folder, "UPDATE summary SET pieces = 7, total = 'abc' WHERE \"order\" = '2'")
    plant(folder, "UPDATE diptych_checkpoints SET count = count - 1")
    for words in (["verify"], ["verify", "--rows"]):
        found = filled(*words)
        assert found.status == 1
        line = found.out.splitlines()[-1]
        assert "→ `diptych projections rewind summary` has its rows made anew" in line
        assert filled(*words, "--json").json["projections"][0]["remedy"] in line
    assert filled("projections", "rewind", "summary", "--yes").status == 0
    assert filled("ask", "HowMany").out.startswith("3")
    for words in (["verify"], ["verify", "--rows"]):
        found = filled(*words)
        assert (found.status, "→" in found.out) == (0, False)
