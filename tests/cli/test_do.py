"""`diptych do`."""

import io
from pathlib import Path

import pytest

from tests.cli.conftest import Cli

PLACE = ("do", "Place", "order=1", "customer=ada", "total=9.90")


def test_it_prints_token_and_positions(cli: Cli) -> None:
    done = cli(*PLACE)
    assert done.status == 0
    assert done.err == ""
    title, token, events = done.out.splitlines()
    assert title == "accepted: Place"
    assert token.split()[0] == "token"
    assert token.endswith(".1")
    assert events == "  events  1"


def test_as_json_it_prints_the_receipt(cli: Cli) -> None:
    receipt = cli(*PLACE, "--json").json
    assert receipt["token"] == f"{receipt['log']}.1"
    assert (receipt["first"], receipt["last"], receipt["replayed"]) == (1, 1, False)
    assert set(receipt) == {"token", "log", "first", "last", "replayed", "command_id"}


def test_a_rejection_ends_with_1_and_says_why(cli: Cli) -> None:
    cli(*PLACE)
    assert cli(*PLACE) == (
        1,
        "rejected[order-already-placed]: order already placed\n  order  1\n",
        "",
    )


def test_a_rejection_as_json_is_an_answer_on_stdout(cli: Cli) -> None:
    cli(*PLACE)
    said = cli(*PLACE, "--json")
    assert (said.status, said.err) == (1, "")
    assert said.json == {
        "rejected": {
            "code": "order-already-placed",
            "reason": "order already placed",
            "facts": {"order": "1"},
        }
    }


def test_a_command_that_changes_nothing_says_so(cli: Cli) -> None:
    assert "events  none: there was nothing to change" in cli("do", "Touch", "order=1").out


def test_text_becomes_what_the_fields_say_and_json_is_taken_as_it_is(cli: Cli) -> None:
    done = cli(*PLACE, 'lines:=[{"sku": "a", "pieces": 2}]')
    assert done.status == 0, done.err
    (event,) = cli("log", "show", "--json").lines
    assert event["data"]["total"] == "9.90"
    assert event["data"]["lines"] == [{"sku": "a", "pieces": 2}]


def test_a_json_number_is_exact_where_the_field_is_a_decimal(cli: Cli) -> None:
    cli("do", "Place", "order=1", "customer=ada", "total:=0.10000000000000000001")
    (event,) = cli("log", "show", "--json").lines
    assert event["data"]["total"] == "0.10000000000000000001"


def test_a_value_may_hold_equal_signs_and_hyphens(cli: Cli) -> None:
    assert cli("do", "Place", "order=a=b:=c", "customer=-x", "total=-1").status == 0
    (event,) = cli("log", "show", "--json").lines
    assert event["tags"] == ["order:a=b:=c", "customer:-x"]


def test_all_fields_can_come_as_json(cli: Cli) -> None:
    done = cli("do", "Place", "--data", '{"order": "7", "customer": null, "total": "1"}')
    assert done.status == 0, done.err


def test_all_fields_can_come_from_stdin(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    text = '{"order": "7", "customer": "ada", "total": "1"}'
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    done = cli("do", "Place", "--data", "-")
    assert done.status == 0, done.err


def test_a_key_gives_the_first_answer_again(cli: Cli) -> None:
    first = cli(*PLACE, "--key", "k1", "--json").json
    again = cli(*PLACE, "--key", "k1", "--json").json
    assert again["token"] == first["token"]
    assert again["replayed"] is True
    assert "replayed" in cli(*PLACE, "--key", "k1").out


def test_a_key_with_another_command_is_refused(cli: Cli) -> None:
    cli(*PLACE, "--key", "k1")
    other = cli("do", "Place", "order=2", "customer=ada", "total=1", "--key", "k1", "--json")
    assert (other.status, other.error["code"]) == (2, "key-reused")


def test_the_actor_is_kept_with_the_events(cli: Cli) -> None:
    cli(*PLACE, "--actor", "ops")
    assert cli("log", "show", "--json").lines[0]["metadata"]["actor"] == "ops"


def test_nothing_is_applied_to_the_views(filled: Cli) -> None:
    (summary,) = filled("status", "--json").json["projections"]
    assert summary["lag"] == 3


def test_inline_projections_are_applied_at_once(cli: Cli, folder: Path) -> None:
    text = (folder / "cli_shop.py").read_text()
    (folder / "cli_inline.py").write_text(
        text.replace("projects(Summary)", "projects(Summary, inline=True)")
    )
    assert cli("--app", "cli_inline:app", *PLACE).status == 0
    (summary,) = cli("--app", "cli_inline:app", "status", "--json").json["projections"]
    assert (summary["kind"], summary["position"], summary["lag"]) == ("inline", 1, 0)


@pytest.mark.parametrize(
    ("words", "message", "facts", "hint"),
    [
        (["total=x"], "Place is not valid", {"field": "total"}, "Place takes order: str"),
        (["colour=red"], "Place is not valid", {"rule": "there is no such field"}, "Place takes"),
        (["lines=a"], "Place is not valid", {"field": "lines"}, "write lines:='[…]'; Place takes"),
        (["total"], "A field is written NAME=TEXT or NAME:=JSON", {"got": "'total'"}, ""),
        (["=x"], "A field is written NAME=TEXT or NAME:=JSON", {"got": "'=x'"}, ""),
        (["order=2"], "A field is given once", {"field": "order"}, ""),
        (["lines:=[{"], "What follows := is JSON", {"got": "[{"}, ""),
        (
            ['lines:=[{"sku": "a", "pieces": 0}]'],
            "Place is not valid",
            {"field": "lines[0].pieces", "rule": "Expected `int` >= 1"},
            "Place takes",
        ),
    ],
)
def test_an_invalid_field_is_named(
    cli: Cli, words: list[str], message: str, facts: dict[str, str], hint: str
) -> None:
    said = cli("do", "Place", "order=1", "customer=ada", *words, "--json")
    assert (said.status, said.out) == (2, "")
    assert said.error["code"] == "invalid"
    assert said.error["message"].startswith(message)
    assert said.error["facts"].items() >= facts.items()
    assert said.error.get("hint", "").startswith(hint)


def test_for_people_an_error_is_a_few_short_lines(cli: Cli) -> None:
    said = cli("do", "Place", "order=1")
    assert said.err == (
        "error[invalid]: Place is not valid\n"
        "  field  customer\n"
        "  rule   it is required\n"
        "  → Place takes order: str, customer: str | None, total: Decimal, "
        "lines: list[Line] (optional), channel: 'web' | 'desk' (optional)\n"
    )


def test_fields_and_data_exclude_each_other(cli: Cli) -> None:
    said = cli("do", "Place", "order=1", "--data", "{}")
    assert said.status == 2
    assert "not both" in said.err


def test_a_fault_in_a_decision_shows_where_it_is(cli: Cli) -> None:
    said = cli("do", "Place", "order=1", "customer=boom", "total=1", "--json")
    assert said.status == 4
    assert said.error["code"] == "decision-failed"
    assert any("cli_shop.py" in line and "in place" in line for line in said.error["trace"])
    assert "RuntimeError: the decision is broken" in said.error["trace"][-1]


def test_the_hint_shows_how_lists_and_times_are_written(cli: Cli, folder: Path) -> None:
    (folder / "cli_seats.py").write_text(
        "from datetime import date, datetime\nfrom diptych import App, Command, Event\n"
        "class Reserved(Event):\n    seats: list[str]\n"
        "class Reserve(Command):\n    seats: list[str]\n    at: datetime\n    day: date\n"
        "app = App('seats')\n@app.decides\ndef reserve(command: Reserve) -> list[Reserved]:\n"
        "    return [Reserved(command.seats)]\n"
    )

    def hint(**changed: str) -> str:
        right = {"seats:": '["A1"]', "at": "2026-01-31T09:30:00Z", "day": "2026-01-31"}
        words = [f"{name}={text}" for name, text in {**right, **changed}.items()]
        said = cli("--app", "cli_seats", "do", "Reserve", *words, "--json")
        return str(said.error["hint"]).partition(";")[0] if said.status else ""

    assert hint() == ""
    assert hint(**{"seats:": '"A1"'}) == """write seats:='["A1","A2"]'"""
    for at in ("2026-01-31", "2026-01-31T09:30", "2026-01-31T09:30:00"):
        assert hint(at=at) == "write at=2026-01-31T09:30:00Z"
    assert hint(day="soon") == "write day=2026-01-31"
