"""Scenarios with rules, and the table of who may do what."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from diptych import Actor, Command, Event, Invalid, Module, role
from diptych.errors import DefinitionError, NotAllowed, NotAuthenticated
from diptych.testing import Scenarios, access_table, check_invariant, scenarios
from tests.app.guarded import (
    ANN,
    BOB,
    EVE,
    MAX,
    Note,
    Noted,
    OrdersOf,
    Place,
    Placed,
    Row,
    app,
)
from tests.testing.shop import app as free


class Count(Command):
    pass


class Counted(Event):
    pass


TABLE = """\
kind     name       ann own  ann other  eve  max  nobody  rule
command  Place      yes      no         no   no   no      role("clerk") & same_tenant("tenant")
command  Cancel     depends  no         no   yes  no      same_tenant("tenant") \
& himself | role("manager")
command  Note       yes      yes        yes  yes  no      authenticated
query    OrdersOf   yes      no         yes  no   no      same_tenant("tenant") | role("auditor")
query    Opening    yes      yes        yes  yes  yes     anyone
query    History    no       no         yes  no   no      role("auditor")
event    Placed     yes      no         yes  no   no      same_tenant("tenant") | role("auditor")
event    Cancelled  yes      no         yes  no   no      same_tenant("tenant") | role("auditor")
event    Noted      no       no         yes  no   no      role("auditor")
event    Secret     no       no         no   no   no      none
"""


@pytest.fixture(params=[None, "memory:"], ids=["pure", "opened"])
def given(request: pytest.FixtureRequest) -> Scenarios:
    return scenarios(app, log=request.param)


# --- scenarios ------------------------------------------------------------------------------------


def test_a_scenario_acts_as_somebody(given: Scenarios) -> None:
    """With an actor's roles and tenant, in memory as in an opened application."""
    story = given().when(Place("acme", "1"), actor=ANN).then(Placed("acme", "1"))
    story.ask(OrdersOf("acme"), actor=ANN).then([Row("1", "acme")])
    given().when(Note("1"), actor=ANN).then(Noted("1", "acme", ("clerk",)))
    given().when(Note("1"), actor="zoe").then(Noted("1", None, ()))


def test_a_scenario_is_denied_what_production_would_deny(given: Scenarios) -> None:
    with pytest.raises(NotAllowed):
        given().when(Place("acme", "1"), actor=BOB)
    with pytest.raises(NotAuthenticated):
        given().when(Place("acme", "1"))
    asked = given().ask(OrdersOf("acme"), actor=BOB)
    with pytest.raises(NotAllowed):
        asked.then([])
    with pytest.raises(NotAuthenticated):
        given().ask(OrdersOf("acme")).answer()


def test_an_invariant_holds_whoever_acts() -> None:
    """Random commands are decided without asking the rules: an invariant is not theirs to keep."""
    module = Module("counted")

    @module.decides(allow=role("clerk"))
    def count(command: Count) -> Iterator[Counted]:
        yield Counted()

    most = 0

    def seen(story: object) -> None:
        nonlocal most
        most = max(most, len(story.events))  # type: ignore[attr-defined]

    check_invariant(module, seen, steps=3)
    assert most


# --- the table ------------------------------------------------------------------------------------


def test_the_table_has_every_endpoint_for_every_actor() -> None:
    assert str(access_table(app, [ANN, EVE, MAX, None])) + "\n" == TABLE


def test_without_rules_the_table_says_yes_to_all() -> None:
    table = access_table(free, [None, ANN])
    assert {row.rule for row in table.rows} == {"none"}
    assert {cell for row in table.rows for cell in row.cells.values()} == {"yes"}
    assert {row.kind for row in table.rows} == {"command", "query", "event"}


def test_a_cell_is_found_by_name_and_column() -> None:
    table = access_table(app, [ANN, None])
    assert table.cell("Place", "ann own") == "yes"
    assert table.cell("Place", "ann other") == "no"
    assert table.cell("Cancel", "ann own") == "depends"
    assert table.cell("Opening", "nobody") == "yes"
    assert table.cell("Secret", "ann own", kind="event") == "no"
    for name, column, kind in [
        ("Plaice", "ann own", None),
        ("Place", "ann", None),
        ("Place", "nobody", "event"),
    ]:
        with pytest.raises(Invalid, match="no such cell"):
            table.cell(name, column, kind=kind)


def test_an_endpoint_without_a_rule_has_no_table() -> None:
    module = Module("half", app)

    @module.decides
    def forgotten(command: Count) -> None: ...

    with pytest.raises(DefinitionError, match="every command and query needs one"):
        access_table(module, [ANN])


def test_two_actors_of_one_id_are_told_apart_by_the_caller() -> None:
    with pytest.raises(Invalid, match="named alike"):
        access_table(app, [EVE, Actor("eve")])
