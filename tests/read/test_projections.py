"""Projections: what can be declared, and what a fold means."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from diptych.errors import DefinitionError, ProjectionFailed
from diptych.messages import Event, Metadata, Recorded
from diptych.read.port import Transaction
from diptych.read.projections import check_projections, fold_events, handler, projection
from diptych.read.views import Key, View
from tests.read.world import (
    Account,
    Cancelled,
    Deleted,
    Journal,
    Moved,
    Noted,
    Order,
    Placed,
    accounts,
    journal,
    order,
    orders,
)


def recorded(*events: Event) -> list[Recorded]:
    metadata = Metadata(datetime(2026, 1, 1, tzinfo=UTC), "command", "correlation")
    return [Recorded(i, f"e{i}", e, (), metadata) for i, e in enumerate(events, 1)]


def test_a_fold_makes_changes_and_deletes_rows() -> None:
    one = Placed("a", "ada", Decimal(1))
    rows = fold_events(orders(), recorded(one, Noted("x"), Cancelled("a")), {})
    assert rows == {"a": Order("a", "ada", Decimal(1), "cancelled")}
    assert fold_events(orders(), recorded(Deleted("a")), rows) == {}


def test_one_event_may_touch_several_keys() -> None:
    rows = fold_events(accounts(), recorded(Moved("a", "b", 5), Moved("a", "a", 1)), {})
    assert rows == {"a": Account("a", -5, 2), "b": Account("b", 5, 1)}


@pytest.mark.parametrize(
    ("given", "keys"),
    [
        (None, []),
        ([], []),
        ("ab", ["ab"]),
        (["a", "b", "a"], ["a", "b"]),
        (iter(("a", "b")), ["a", "b"]),
    ],
)
def test_a_key_function_gives_none_one_or_a_list(given: Any, keys: list[str]) -> None:
    one = projection(fold_account, Account, key=lambda _event: given)
    assert list(one.keys_of(Moved("a", "b", 1))) == keys


class Pair(View):
    a: Key[str]
    b: Key[int]
    n: int


def fold_pair(row: Pair | None, event: Moved) -> Pair | None: ...


def test_a_compound_key_is_a_tuple_and_several_are_a_list_of_tuples() -> None:
    assert projection(fold_pair, Pair, key=lambda _e: ("a", 1)).keys_of(None) == [("a", 1)]
    many = projection(fold_pair, Pair, key=lambda _e: [("a", 1), ("b", 2)])
    assert many.keys_of(None) == [("a", 1), ("b", 2)]
    wrong: Any
    for wrong in ("a", ("a",), ["a", "b"], ("a", 1, 2), [("a", 1), None]):
        with pytest.raises(ProjectionFailed, match="a tuple where the view has several"):
            many.listed(wrong)


def test_a_tuple_is_not_a_key_of_one_field() -> None:
    one = projection(fold_account, Account, key=lambda _e: ("a", "b"))
    with pytest.raises(ProjectionFailed, match="several keys are a list"):
        one.keys_of(Moved("a", "b", 1))


def fold_account(row: Account | None, event: Moved) -> Account | None:
    return Account("other", 0, 0)


def test_a_fold_must_not_change_the_key() -> None:
    one = projection(fold_account, Account, key=lambda e: e.source)
    with pytest.raises(ProjectionFailed, match="must not change a row's key"):
        fold_events(one, recorded(Moved("a", "b", 1)), {})


def test_a_fold_returns_rows_of_its_view() -> None:
    def wrong(row: Account | None, event: Moved) -> Account | None:
        return 3  # type: ignore[return-value]

    one = projection(wrong, Account, key=lambda e: e.source)
    with pytest.raises(ProjectionFailed, match="returns a row of its view"):
        fold_events(one, recorded(Moved("a", "b", 1)), {})


def test_further_parameters_get_key_metadata_and_record() -> None:
    seen: list[Any] = []

    def fold(
        row: Account | None, event: Moved, meta: Metadata, key: str, record: Recorded
    ) -> Account | None:
        seen.append((key, meta.command_id, record.position))
        return row

    one = projection(fold, Account, key=lambda e: [e.source, e.target])
    fold_events(one, recorded(Moved("a", "b", 1)), {})
    assert seen == [("a", "command", 1), ("b", "command", 1)]


# --- what cannot be declared ----------------------------------------------------------------------


def no_row(event: Placed) -> Order | None: ...
def other_row(row: Account | None, event: Placed) -> Order | None: ...
def not_optional(row: Order, event: Placed) -> Order | None: ...
def other_result(row: Order | None, event: Placed) -> Account | None: ...
def no_event(row: Order | None, event: str) -> Order | None: ...
def any_event(row: Order | None, event: Event) -> Order | None: ...
def no_key(row: Order | None, event: Noted) -> Order | None: ...
def extra(row: Order | None, event: Placed, thing: int) -> Order | None: ...
def bare(row, event): ...  # type: ignore[no-untyped-def]
async def asynchronous(row: Order | None, event: Placed) -> Order | None: ...


@pytest.mark.parametrize(
    ("function", "rule"),
    [
        (no_row, "takes \\(row, event\\)"),
        (other_row, "first parameter is the row"),
        (not_optional, "first parameter is the row"),
        (other_result, "returns a row of the view"),
        (no_event, "annotated with the event types"),
        (any_event, "annotated with the event types"),
        (no_key, "pass key="),
        (extra, "A further parameter is `key`"),
        (bare, "needs an annotation"),
        (asynchronous, "plain function"),
    ],
)
def test_a_wrong_fold_is_named_by_file_and_line(function: Callable[..., Any], rule: str) -> None:
    with pytest.raises(DefinitionError, match=rule) as caught:
        projection(function, Order)
    assert f"test_projections.py:{function.__code__.co_firstlineno}" in caught.value.at


class IntKey(View):
    order: Key[int]


def test_the_key_field_must_have_the_events_type() -> None:
    def fold(row: IntKey | None, event: Placed) -> IntKey | None: ...

    with pytest.raises(DefinitionError, match="same name and type"):
        projection(fold, IntKey)


def sync_handler(event: Noted, tx: Transaction) -> None: ...
async def no_transaction(event: Noted) -> None: ...
async def wrong_order(tx: Transaction, event: Noted) -> None: ...
async def with_key(event: Noted, tx: Transaction, key: str) -> None: ...


@pytest.mark.parametrize(
    ("function", "rule"),
    [
        (sync_handler, "async function"),
        (no_transaction, "takes \\(event, tx: Transaction\\)"),
        (wrong_order, "takes \\(event, tx: Transaction\\)"),
        (with_key, "has no key"),
    ],
)
def test_a_wrong_handler_is_named_by_file_and_line(function: Callable[..., Any], rule: str) -> None:
    with pytest.raises(DefinitionError, match=rule) as caught:
        handler(function, Journal)
    assert "test_projections.py:" in caught.value.at


def test_a_handler_names_its_views() -> None:
    with pytest.raises(DefinitionError, match="names the views"):
        handler(journal)
    with pytest.raises(DefinitionError, match="a subclass of View"):
        handler(journal, str)  # type: ignore[arg-type]


def test_a_view_has_one_projection_and_a_name_is_used_once() -> None:
    with pytest.raises(DefinitionError, match="written by one projection"):
        check_projections([orders(), projection(order, Order, name="again")])
    with pytest.raises(DefinitionError, match="written by one projection"):  # not: give it a name
        check_projections([orders(), orders()])
    with pytest.raises(DefinitionError, match="bear the same name"):
        check_projections([orders(), projection(fold_pair, Pair, key=str, name="order")])
    check_projections([orders(), accounts()])
