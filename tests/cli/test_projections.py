"""``diptych projections``: versions looked at, rebuilt, switched to and dropped from the shell."""

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.conftest import Cli

CHANGED = ("    return Summary(event.order", "    pieces += 1\n    return Summary(event.order")


@pytest.fixture
def changed(cli: Cli) -> Cli:
    """A shop with two orders, whose fold has changed since."""
    for order in ("1", "2"):
        cli("do", "Place", f"order={order}", "customer=ann", "total=3")
    assert cli("ask", "OrdersOf", "customer=ann").status == 0
    change(cli, *CHANGED)
    return cli


def change(cli: Cli, old: str, new: str) -> None:
    """Work from now on with the shop's changed code."""
    text = Path("cli_shop.py").read_text()
    assert old in text
    Path("changed_shop.py").write_text(text.replace(old, new))
    os.environ["DIPTYCH_APP"] = "changed_shop:app"  # the fixture puts it back


def pieces(cli: Cli) -> list[int]:
    rows = cli("ask", "OrdersOf", "customer=ann", "--json").json["value"]
    return [row["pieces"] for row in rows]


def sql(statement: str) -> None:
    with closing(sqlite3.connect("shop.db")) as database, database:
        database.execute(statement)


def listed(cli: Cli) -> dict[str, str]:
    found = cli("projections", "list", "--json").json["versions"]
    return {one["state"]: one["version"] for one in found}


def test_plan_says_what_will_be_rebuilt_and_why(changed: Cli) -> None:
    told = changed("projections", "plan")
    assert "will be built beside the live version" in told.out
    assert "the fold's code changed" in told.out
    assert [one["action"] for one in changed("projections", "plan", "--json").json["projections"]]
    assert list(listed(changed)) == ["live"]


def test_plan_and_assert_say_what_will_not_open(cli: Cli) -> None:
    """What goes on in its table cannot have other columns: known before it is deployed."""
    inline = ("@reading.projects(Summary)", "@reading.projects(Summary, inline=True)")
    single = inline[1].replace("inline=True", "slices=1")
    cli("do", "Place", "order=0", "customer=ann", "total=3")
    cli("ask", "OrdersOf", "customer=ann")
    change(cli, *inline)
    # It stands at one position for each slice: from none of them could it go on for all.
    told = cli("projections", "plan")
    assert (told.status, "have that built" in told.out) == (1, True)
    refused = cli("do", "Place", "order=1", "customer=ann", "total=3")
    assert (refused.status, "slices_before  64" in refused.err) == (2, True)
    text = Path("cli_shop.py").read_text()
    Path("single_shop.py").write_text(text.replace(inline[0], single))
    os.environ["DIPTYCH_APP"] = "single_shop:app"
    assert cli("projections", "rebuild").status == 0
    os.environ["DIPTYCH_APP"] = "changed_shop:app"
    cli("do", "Place", "order=1", "customer=ann", "total=3")
    assert [cli("projections", "plan").status, cli("db", "assert").status] == [0, 0]
    text = Path("changed_shop.py").read_text()
    Path("refused_shop.py").write_text(
        text.replace("pieces: int = 0", "pieces: int = 0\n    paid: bool = False")
    )
    os.environ["DIPTYCH_APP"] = "refused_shop:app"
    told = cli("projections", "plan")
    assert (told.status, "summary: " in told.out, " is refused: " in told.out) == (1, True, True)
    assert "  but: The view's table exists with other columns" in told.out
    (plan,) = cli("projections", "plan", "--json").json["projections"]
    assert plan["action"] == "refused"
    for command in ("plan", "assert"):
        said = cli("db", command, "--json")
        assert (said.status, said.error["code"]) == (2, "definition")


def test_a_live_version_in_slices_is_not_called_inline_by_the_program_before(cli: Cli) -> None:
    change(cli, "@reading.projects(Summary)", "@reading.projects(Summary, inline=True)")
    assert cli("do", "Place", "order=1", "customer=ann", "total=3").status == 0
    (before,) = cli("status", "--json").json["projections"]
    assert (before["kind"], before["phase"]) == ("inline", "live")
    os.environ["DIPTYCH_APP"] = "cli_shop:app"
    assert cli("projections", "rebuild").status == 0
    os.environ["DIPTYCH_APP"] = "changed_shop:app"
    found = cli("status", "--json").json["projections"]
    live = next(one for one in found if one["phase"] == "live")
    assert (live["kind"], live["version"] != before["version"]) == ("async", True)


def test_a_comment_rebuilds_nothing(cli: Cli) -> None:
    cli("do", "Place", "order=1", "customer=ann", "total=3")
    cli("ask", "OrdersOf", "customer=ann")
    change(cli, '    """One row an order."""', "    # One row an order.")
    (plan,) = cli("projections", "plan", "--json").json["projections"]
    assert (plan["action"], plan["why"]) == ("none", [])
    assert "nothing to rebuild" in cli("projections", "rebuild").out


def test_from_rebuild_to_drop(changed: Cli) -> None:
    built = changed("projections", "rebuild", "--compare", "--no-cutover")
    assert "of 2 rows 2 differ" in built.out
    assert "2 of 2 events" in built.err
    assert set(listed(changed)) == {"live", "held"}
    assert f"held {listed(changed)['held']}" in changed("status").out
    different = changed("projections", "compare", "summary", "--examples", "1", "--json")
    assert different.status == 1
    assert [d["columns"] for d in different.json["differences"]] == [{"pieces": 2}]
    done = changed("projections", "cutover", "summary", "--yes")
    assert done.status == 0
    assert "is live, no longer" in done.out
    assert pieces(changed) == [1, 1]
    assert "is live" in changed("projections", "rollback", "summary", "--yes").out
    assert pieces(changed) == [0, 0]
    back = changed("projections", "cutover", "summary", "--yes", "--json").json
    assert listed(changed) == {"live": back["now"], "old": back["before"]}
    assert "dropped" in changed("projections", "drop", "summary", "--yes").out
    assert list(listed(changed)) == ["live"]
    assert "nothing to drop" in changed("projections", "drop", "summary", "--yes").out
    assert changed("verify").status == 0


def test_it_asks_before_it_switches_or_drops(changed: Cli) -> None:
    """Where nobody can answer it does nothing without --yes."""
    changed("projections", "rebuild", "--no-cutover")
    before = listed(changed)
    for words in (("cutover", "summary"), ("rollback", "summary"), ("drop", "summary")):
        refused = changed("projections", *words)
        assert refused.status == 2
        assert "not-confirmed" in refused.err
    assert listed(changed) == before


def test_a_rebuild_switches_by_itself(changed: Cli) -> None:
    found = changed("projections", "rebuild", "summary", "--limit", "1000", "--json")
    assert [one["state"] for one in json.loads(found.out)["rebuilt"]] == ["live"]
    assert pieces(changed) == [1, 1]


def test_the_state_of_a_version_stands_in_status(changed: Cli) -> None:
    changed("projections", "rebuild", "--no-cutover")
    found = changed("status", "--json").json["projections"]
    assert sorted(one["phase"] for one in found) == ["held", "live"]
    assert "held" in changed("status").out


def test_what_is_not_there_is_named(cli: Cli) -> None:
    cli("do", "Place", "order=1", "customer=ann", "total=3")
    cli("ask", "OrdersOf", "customer=ann")
    assert "There is no such projection" in cli("projections", "plan", "nothing").err
    assert cli("projections", "compare", "summary").status == 2
    said = cli("projections", "compare", "summary", "--examples", "-1", "--json")
    assert said.error["message"].startswith("--examples")
    back = cli("projections", "rollback", "summary", "--yes")
    assert back.status == 2
    assert "no version that was live before" in back.err


def test_a_read_or_a_command_deploys_nothing(changed: Cli) -> None:
    """The live version goes on to answer, as far as workers with its code have kept it."""
    before = listed(changed)
    assert changed("do", "Place", "order=3", "customer=ann", "total=3").status == 0
    assert pieces(changed) == [0, 0]
    assert listed(changed) == before
    assert list(before) == ["live"]


def test_a_version_that_parks_what_is_applied_is_switched_to_by_force_only(cli: Cli) -> None:
    cli("do", "Place", "order=1", "customer=ann", "total=3")
    assert cli("ask", "OrdersOf", "customer=ann").status == 0
    change(cli, "    return Summary(event.order", "    0 / 0\n    return Summary(event.order")
    built = cli("projections", "rebuild")
    assert built.status == 1
    assert "held: 1 key is parked in it, and not in the live version" in built.out
    assert "but: 1 key is parked in it" in cli("projections", "plan").out
    status = cli("status").out
    assert "is held: 1 key is parked in it" in status
    assert "parked, held" in status
    assert "ok," not in status
    held = listed(cli)["held"]
    assert f"\nsummary, {held}, held: 1 effect parked: see" in cli("verify").out
    refused = cli("projections", "cutover", "summary", "--yes", "--json")
    assert (refused.status, refused.error["code"]) == (2, "invalid")
    assert pieces(cli) == [0]
    assert cli("projections", "cutover", "summary", "--yes", "--force").status == 0
    assert pieces(cli) == []


def test_a_renamed_projection_is_refused_and_rewound(cli: Cli) -> None:
    cli("do", "Place", "order=1", "customer=ann", "total=3")
    assert cli("ask", "OrdersOf", "customer=ann").status == 0
    change(cli, "@reading.projects(Summary", '@reading.projects(Summary, name="other"')
    asked = cli("ask", "OrdersOf", "customer=ann", "--json")
    assert (asked.status, asked.error["code"]) == (2, "foreign-checkpoint")
    assert "keep the name summary" in asked.error["message"]
    assert "refused" in cli("status").out
    for words in (["verify"], ["verify", "--rows"]):
        said = cli(*words).out
        (_, _, row, *_) = said.splitlines()
        assert row.split()[-1] == "refused"
        assert (row.split()[1:3] == ["-", "-"]) is ("--rows" in words)
        assert "`diptych projections rewind other`" in said
    assert cli("projections", "rewind", "other", "--yes").status == 0
    assert pieces(cli) == [0]
    assert cli("verify").status == 0
    assert cli("verify", "--rows").status == 0


def test_the_remedy_for_rows_of_other_code_says_whose_it_is(changed: Cli) -> None:
    """Run by this program, a rewind puts back its own version, and says so before and after."""
    assert changed("projections", "rebuild", "--no-cutover").status == 0
    there = listed(changed)
    sql("UPDATE diptych_blocks SET count = count + 1 WHERE projection = 'summary'")
    live, held = changed("verify", "--json").json["projections"]
    assert (live["ok"], live["phase"], held["ok"], held["phase"]) == (False, "live", True, "held")
    assert live["remedy"].startswith(f"with the code of {there['live']}, not with this one's: ")
    asked = changed("projections", "rewind", "summary")
    which = f"summary, version {there['held']} (held; live is {there['live']}),"
    assert which in asked.err
    done = changed("projections", "rewind", "summary", "--yes")
    assert which in done.out
    os.environ["DIPTYCH_APP"] = "cli_shop:app"
    assert changed("verify", "--json").json["projections"][0]["remedy"].startswith("`diptych")
    rewound = changed("projections", "rewind", "summary", "--yes", "--json").json["rewound"]
    assert (rewound["projection"], rewound["version"]) == ("summary", there["live"])
    assert pieces(changed) == [0, 0]
    assert changed("verify").status == 0


def test_while_it_is_paused_nobody_switches_to_another_version(changed: Cli) -> None:
    """Whoever has deployed it; and what is paused, and goes on, are all versions that there are."""
    (live,) = listed(changed).values()
    os.environ["DIPTYCH_APP"] = "cli_shop:app"
    told = changed("projections", "pause", "summary", "--why", "a look", "--actor", "ada")
    assert told.out == f"summary is paused: {live} (live)\n"
    os.environ["DIPTYCH_APP"] = "changed_shop:app"
    built = changed("projections", "rebuild")
    assert (built.status, "the projection is paused by ada" in built.out) == (1, True)
    assert (listed(changed)["live"], pieces(changed)) == (live, [0, 0])
    held = listed(changed)["held"]
    for seen in (changed("status"), changed("projections", "plan")):
        assert "the projection is paused by ada" in seen.out
    for words in (["cutover"], ["cutover", "--force"]):
        refused = changed("projections", *words, "summary", "--yes", "--json")
        assert refused.error["code"] == "projection-paused"
    resumed = changed("projections", "resume", "summary")
    assert resumed.status == 0
    assert f"{live} (live)" in resumed.out
    assert f"{held} (held)" in resumed.out
    assert changed("projections", "resume", "summary").status == 1
    assert changed("projections", "cutover", "summary", "--yes").status == 0
    assert pieces(changed) == [1, 1]
    changed("projections", "pause", "summary", "--why", "a look", "--actor", "ada")
    refused = changed("projections", "rollback", "summary", "--yes", "--json")
    assert refused.error["code"] == "projection-paused"
    os.environ["DIPTYCH_APP"] = "cli_shop:app"
    shown = changed("status", "--json").json["projections"]
    assert [one["state"] for one in shown] == ["paused", "paused"]
    assert changed("projections", "resume", "summary").status == 0


def test_what_was_proved_and_parked_of_a_later_version_has_the_plain_name(changed: Cli) -> None:
    """And what was proved of the version before is told no more."""
    assert changed("verify").status == 0
    assert changed("projections", "rebuild").status == 0
    changed("do", "Place", "order=3", "customer=poison", "total=3")
    changed("ask", "OrdersOf", "customer=ann")
    changed("verify")
    told = [line for line in changed("metrics").out.splitlines() if "verify_" in line]
    series = [line for line in told if not line.startswith("#")]
    assert len(series) == 3
    assert all('{projection="summary"} ' in line for line in series)
    assert 'diptych_verify_position{projection="summary"} 3' in series
    (retried,) = changed("parked", "retry", "summary", "--json").json["retried"]
    assert (retried["projection"], retried["left"]) == ("summary", 1)
    changed("projections", "pause", "summary", "--why", "a look", "--actor", "ada")
    refused = changed("parked", "retry", "summary", "--json").error
    assert (refused["code"], refused["facts"]["projection"]) == ("projection-paused", "summary")


def test_what_the_code_no_longer_has_is_listed_and_dropped(cli: Cli) -> None:
    cli("do", "Place", "order=1", "customer=ann", "total=3")
    assert cli("ask", "OrdersOf", "customer=ann").status == 0
    change(cli, "@reading.projects(Summary", '@reading.projects(Summary, name="other"')
    Path("bare_shop.py").write_text(
        Path("cli_shop.py").read_text().partition("class Summary(View)")[0]
        + 'app = App("shop", reading)\n'
    )
    os.environ["DIPTYCH_APP"] = "bare_shop:app"
    assert "not in the code" in cli("projections", "list").out
    (left,) = cli("projections", "list", "--json").json["versions"]
    assert (left["projection"], left["in_code"], left["own"]) == ("summary", False, False)
    asked = cli("projections", "drop", "summary", "--json")
    assert (asked.status, asked.error["code"]) == (2, "not-confirmed")
    assert "(live) will be dropped, with summary (1 row)" in asked.error["facts"]["would"]
    assert "a handler then handles all of them again" in asked.error["facts"]["would"]
    done = cli("projections", "drop", "summary", "--yes")
    assert (done.status, done.out.startswith("summary: dropped ")) == (0, True)
    assert cli("projections", "list").out == "no projections\n"
    assert "There is no such projection" in cli("projections", "drop", "summary", "--yes").err
