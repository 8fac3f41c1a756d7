"""`diptych ask`."""

from io import StringIO

import pytest
from rich.console import Console

from diptych.cli.tables import broken, show_rows
from tests.cli.conftest import Cli


def test_a_command_is_seen_by_the_next_query_without_any_worker(filled: Cli) -> None:
    said = filled("ask", "OrdersOf", "customer=ada")
    assert said == (
        0,
        "order   customer   total   pieces\n"
        "─────────────────────────────────\n"
        "1       ada         1.50        0\n"
        "3       ada         3.50        0\n"
        "2 rows\n"
        "as of position 3, current\n",
        "",
    )


def test_as_json_it_prints_value_and_freshness(filled: Cli) -> None:
    said = filled("ask", "OrdersOf", "customer=ada", "least=2", "--json").json
    assert said["value"] == [{"order": "3", "customer": "ada", "total": "3.50", "pieces": 0}]
    assert (said["as_of"], said["age"], said["stale"]) == (3, 0.0, False)
    assert said["token"].endswith(".3")


def test_a_single_row_is_a_record(filled: Cli) -> None:
    assert filled("ask", "One", "order=2").out == (
        "order     2\ncustomer  bob\ntotal     2.50\npieces    0\nas of position 3, current\n"
    )


def test_nothing_is_said_to_be_nothing(filled: Cli) -> None:
    assert filled("ask", "One", "order=9").out.startswith("nothing\n")
    assert filled("ask", "One", "order=9", "--json").json["value"] is None


def test_a_scalar_is_printed_as_it_is(filled: Cli) -> None:
    assert filled("ask", "HowMany").out.startswith("3\n")


def test_no_rows_are_counted_too(filled: Cli) -> None:
    assert filled("ask", "OrdersOf", "customer=eve").out.startswith("0 rows\n")


def test_recorded_events_tell_their_type(filled: Cli) -> None:
    assert "Placed" in filled("ask", "History", "order=1").out
    (event,) = filled("ask", "History", "order=1", "--json").json["value"]
    assert (event["type"], event["position"]) == ("Placed", 1)
    assert event["data"]["customer"] == "ada"


def test_a_table_that_does_not_fit_is_drawn_tighter(
    filled: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    assert filled("ask", "OrdersOf", "customer=bob").out.splitlines()[:3] == [
        "order customer total pieces",
        "───────────────────────────",
        "2     bob       2.50      0",
    ]


def test_long_names_of_columns_are_broken_where_words_meet() -> None:
    assert broken("departure_delay_minutes", 3) == "departure_\ndelay_\nminutes"
    assert broken("departure_delay_minutes", 16) == "departure_delay_\nminutes"
    assert broken("carrier", 1) == "carrier"


def test_a_row_wider_than_the_screen_becomes_a_record(
    filled: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    assert filled("ask", "OrdersOf", "customer=bob").out.startswith("row 1\norder     2\n")


def shown(rows: list[object], width: int) -> list[str]:
    """The lines of rows on a screen of this width."""
    out = StringIO()
    show_rows(Console(file=out, width=width), rows)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_plain_values_are_printed_one_a_line() -> None:
    assert shown(["A1", "A2"], 80) == ["A1", "A2", "2 rows"]
    assert shown([3, None, [1, 2]], 80) == ["3", "", "[1,2]", "3 rows"]
    assert shown([], 80) == ["0 rows"]


def test_a_wide_table_is_folded_before_it_becomes_records() -> None:
    row = {
        "carrier": "UA",
        "name": "United Air Lines of the whole world",
        "departure_delay_minutes": 123456,
        "cancelled": 7,
    }
    assert shown([row], 38) == [
        "                     departur",
        "                     e_delay_ cancelle",
        "carrier name          minutes        d",
        "──────────────────────────────────────",
        "        United Air",
        "        Lines of the",
        "UA      whole world    123456        7",
        "1 row",
    ]
    assert shown([row], 37)[0] == "row 1"


def test_in_a_pipe_nothing_is_cut_off_or_folded(cli: Cli) -> None:
    name = "x" * 500
    cli("do", "Place", "order=1", f"customer={name}", "total=1")
    assert any(name in line for line in cli("ask", "OrdersOf", f"customer={name}").out.splitlines())
    assert any(name in line for line in cli("log", "show").out.splitlines())


def test_a_token_of_a_command_can_be_waited_for(cli: Cli) -> None:
    token = cli("do", "Place", "order=1", "customer=ada", "total=1", "--json").json["token"]
    said = cli("ask", "OrdersOf", "customer=ada", "--after", token, "--json").json
    assert len(said["value"]) == 1


def behind(cli: Cli) -> None:
    """Have the views lie behind the log, with nobody to bring them on."""
    cli("do", "Place", "order=1", "customer=ada", "total=1")
    cli("ask", "HowMany")
    assert cli("projections", "pause", "summary", "--why", "a look").status == 0
    cli("do", "Place", "order=2", "customer=ada", "total=1")


def test_an_answer_from_views_with_parked_keys_says_so(cli: Cli) -> None:
    cli("do", "Place", "order=1", "customer=poison", "total=1")
    said = cli("ask", "HowMany")
    assert (said.status, said.out.splitlines()[0]) == (0, "0")
    assert said.err == "1 key parked: see `diptych parked list`\n"


def test_what_is_not_there_in_time_is_answered_as_it_is_marked_stale(cli: Cli) -> None:
    behind(cli)
    said = cli("ask", "HowMany", "--wait", "0.3")
    assert said.status == 0
    value, mark = said.out.splitlines()
    assert value == "1"
    assert mark.startswith("as of position 1, age ")
    assert mark.endswith("STALE: 1 events behind the log; wait longer with --wait SECONDS")
    assert said.err.startswith("a projection stands still: ")
    assert "why: a look" in said.err
    assert cli("ask", "HowMany", "--wait", "0.1", "--json").json["stale"] is True


def test_strictly_it_is_an_error_with_status_3(cli: Cli) -> None:
    behind(cli)
    said = cli("ask", "HowMany", "--wait", "0.1", "--strict", "--json")
    assert (said.status, said.out) == (3, "")
    assert said.error["code"] == "stale-answer"


@pytest.mark.parametrize(
    ("token", "code"), [("nonsense", "invalid"), ("another-log.1", "foreign-checkpoint")]
)
def test_a_wrong_token_is_refused(filled: Cli, token: str, code: str) -> None:
    said = filled("ask", "HowMany", "--after", token, "--json")
    assert (said.status, said.error["code"]) == (2, code)


def test_a_fault_in_an_answer_shows_where_it_is(filled: Cli) -> None:
    said = filled("ask", "Crash")
    assert said.status == 4
    assert said.err.startswith("error[fault]: RuntimeError: the answer is broken\n")
    assert "cli_shop.py" in said.err
    assert "Traceback" not in said.err


def test_with_debug_the_whole_traceback_is_shown(filled: Cli) -> None:
    assert "Traceback (most recent call last)" in filled("ask", "Crash", "--debug").err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("ask", "OrderOf"), "did you mean OrdersOf?"),
        (("do", "place"), "did you mean Place?"),
        (("do", "OrdersOf"), "OrdersOf is a query: diptych ask OrdersOf"),
        (("ask", "Place"), "Place is a command: diptych do Place"),
        (("do", "Xyzzy"), "there is Place, Touch"),
    ],
)
def test_an_unknown_name_is_met_with_a_suggestion(
    cli: Cli, words: tuple[str, str], hint: str
) -> None:
    said = cli(*words, "--json")
    assert said.status == 2
    assert (said.error["code"], said.error["hint"]) == ("unknown-message", hint)
