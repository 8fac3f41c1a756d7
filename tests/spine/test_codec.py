"""Names and types, JSON and back; tags; what is refused, and in which words."""

from __future__ import annotations

import enum
import pickle
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Meta, Raw, Struct

from diptych.codec import Codec
from diptych.errors import (
    Conflict,
    DefinitionError,
    Invalid,
    Rejected,
    UndecodableEvent,
    UnknownMessage,
)
from diptych.log import StoredEvent, Token
from diptych.messages import Command, Event, Query, Tag, new_id, tag_fields, tagger
from diptych.read.kinds import kind_of


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Line(Struct, frozen=True):
    product: str
    price: Decimal
    at: datetime | None = None


class Everything(Event):
    text: Annotated[str, Tag("text")]
    number: Annotated[int, Tag("number")]
    ratio: float
    flag: bool
    money: Decimal
    at: datetime
    day: date
    ident: Annotated[uuid.UUID, Tag("ident")]
    colour: Annotated[Colour, Tag("colour")]
    level: Annotated[Level, Tag("level")]
    line: Line
    lines: list[Line]
    maybe: str | None = None
    tagged: Annotated[str, Tag("maybe")] | None = None


class Order(Command):
    order: Annotated[str, Tag("order"), Meta(min_length=1)]
    lines: list[Line]
    quantity: Annotated[int, Meta(ge=1)] = 1


class Find(Query[list[str]]):
    text: str


def make_codec() -> Codec:
    codec = Codec()
    codec.register([Everything, Order, Find])
    return codec


def everything(**changes: Any) -> Everything:
    values: dict[str, Any] = {
        "text": 'a "quoted" ünïcode \\ text\n',
        "number": 2**60,
        "ratio": 0.1 + 0.2,
        "flag": True,
        "money": Decimal("1234567890123456789.000000000000000001"),
        "at": datetime(2013, 1, 1, 5, 17, 30, 123456, tzinfo=UTC),
        "day": date(2013, 1, 1),
        "ident": uuid.UUID("12345678-1234-5678-1234-567812345678"),
        "colour": Colour.RED,
        "level": Level.HIGH,
        "line": Line("p", Decimal("1.10")),
        "lines": [Line("p", Decimal("0.00")), Line("q", Decimal(-1))],
        **changes,
    }
    return Everything(**values)


def stored(data: bytes, name: str = "Everything") -> StoredEvent:
    return StoredEvent(7, "id", name, (), Raw(data), Raw(b"{}"))


def test_every_field_type_comes_back_equal() -> None:
    """Encoding and decoding an event gives the same values, exactly."""
    codec = make_codec()
    event = everything()
    clean, data = codec.validate(event)
    assert clean == event
    assert codec.event(stored(data)) == event
    assert b'"money":"1234567890123456789.000000000000000001"' in data


def test_a_datetime_of_another_zone_is_the_same_instant() -> None:
    """Zones are kept as offsets, instants as they are."""
    local = datetime(2013, 1, 1, 5, tzinfo=timezone(timedelta(hours=-5)))
    clean, _ = make_codec().validate(everything(at=local))
    assert clean.at == local
    assert clean.at.utcoffset() == timedelta(hours=-5)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"at": datetime(2013, 1, 1)}, "at"),
        ({"line": Line("p", Decimal(1), datetime(2013, 1, 1))}, "line.at"),
        (
            {"lines": [Line("p", Decimal(1)), Line("p", Decimal(1), datetime(2013, 1, 1))]},
            "lines[1].at",
        ),
    ],
)
def test_a_datetime_without_zone_is_refused(changes: dict[str, Any], field: str) -> None:
    """A naive datetime is refused wherever it hides, and the place is named."""
    with pytest.raises(Invalid) as caught:
        make_codec().validate(everything(**changes))
    assert caught.value.field == field
    assert caught.value.rule == "a datetime must carry its time zone"


@pytest.mark.parametrize("money", ["NaN", "sNaN", "Infinity", "-Infinity"])
def test_a_decimal_is_finite(money: str) -> None:
    """What no column can hold does not become an event, however deep it lies."""
    for changes in ({"money": Decimal(money)}, {"lines": [Line("p", Decimal(money))]}):
        with pytest.raises(Invalid) as caught:
            make_codec().validate(everything(**changes))
        assert caught.value.field in ("money", "lines[0].price")
        assert caught.value.rule in ("a finite number", "Invalid decimal string")


@pytest.mark.parametrize("money", ["1E+2000", "-1E+2000", "1E-2001", "0E+999999999", "1E+200000"])
def test_a_decimal_has_a_bounded_number_of_digits(money: str) -> None:
    """PostgreSQL could not keep it in an index, and to write it out takes minutes."""
    for changes in ({"money": Decimal(money)}, {"lines": [Line("p", Decimal(money))]}):
        with pytest.raises(Invalid, match="at most 2000 digits before the point") as caught:
            make_codec().validate(everything(**changes))
        assert caught.value.field in ("money", "lines[0].price")


@pytest.mark.parametrize(
    "money", ["9" * 2000 + "." + "9" * 2000, "1E+1999", "1E-2000", "1.7976931348623157e308"]
)
def test_a_decimal_of_so_many_digits_is_good(money: str) -> None:
    """And any that a float may be written as."""
    assert make_codec().validate(everything(money=Decimal(money)))[0].money == Decimal(money)


def test_flaws_are_found_in_unions_dicts_and_structs_within_themselves() -> None:
    """A naive datetime hides nowhere."""

    class Deep(Event):
        either: datetime | Line | None
        table: dict[str, datetime]

    codec = Codec()
    codec.register([Deep])
    aware, naive = datetime(2013, 1, 1, tzinfo=UTC), datetime(2013, 1, 1)
    codec.validate(Deep(Line("p", Decimal(1), aware), {"a": aware}))
    for event, field in (
        (Deep(naive, {}), "either"),
        (Deep(Line("p", Decimal(1), naive), {}), "either.at"),
        (Deep(None, {"k": naive}), "table[k]"),
    ):
        with pytest.raises(Invalid) as caught:
            codec.validate(event)
        assert caught.value.field == field


def test_errors_can_be_copied_between_processes() -> None:
    """Errors survive pickling, facts and all; a fact can be read as an attribute."""
    for error in (
        Invalid("m", field="f", rule="r", got=1),
        Rejected("no", code="c", order="7"),
        Conflict("m", position=3),
    ):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), again.facts) == (type(error), str(error), error.facts)
    assert Rejected("no", order="7").order == "7"
    with pytest.raises(AttributeError):
        _ = Rejected("no").order


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"number": "7"}, "number"),
        ({"ratio": float("nan")}, "ratio"),
        ({"ratio": float("inf")}, "ratio"),
        ({"money": "much"}, "money"),
        ({"line": Line(3, Decimal(1))}, "line.product"),  # type: ignore[arg-type]
        ({"lines": [Line("p", "x")]}, "lines[0].price"),  # type: ignore[arg-type]
        ({"text": "\ud800"}, ""),
        ({"text": object()}, ""),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], field: str) -> None:
    """A value that its type does not allow never reaches the log."""
    with pytest.raises(Invalid) as caught:
        make_codec().validate(everything(**changes))
    assert caught.value.field == field
    assert caught.value.code == "invalid"


@pytest.mark.parametrize(
    ("text", "field", "rule"),
    [
        (b'{"order": "1"}', "lines", "it is required"),
        (b'{"order": "1", "lines": [], "x": 1}', "x", "there is no such field"),
        (b'{"order": "", "lines": []}', "order", "Expected `str` of length >= 1"),
        (b'{"order": "1", "lines": [], "quantity": 0}', "quantity", "Expected `int` >= 1"),
        (b'{"order": "1", "lines": [{}]}', "lines[0].product", "it is required"),
        (b"[]", "", "Expected `object`, got `array`"),
        (b"{", "", "Input data was truncated"),
        (b"\xff", "", "JSON is malformed: invalid character (byte 0)"),
    ],
)
def test_invalid_json_names_field_and_rule(text: bytes, field: str, rule: str) -> None:
    """Input from outside is refused with the field and the rule that it breaks."""
    codec = make_codec()
    with pytest.raises(Invalid) as caught:
        codec.parse(codec.commands, "Order", text)
    assert (caught.value.field, caught.value.rule) == (field, rule)


def test_nesting_without_end_is_refused() -> None:
    """JSON nested a hundred thousand deep is Invalid, not a crash."""
    codec = make_codec()
    text = b'{"order": "1", "lines": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(Invalid):
        codec.parse(codec.commands, "Order", text)


def test_fields_from_a_command_line_are_text() -> None:
    """Values given as text become what their types say."""
    codec = make_codec()
    order = codec.from_text(codec.commands, "Order", {"order": "7", "quantity": "3", "lines": []})
    assert order == Order("7", [], 3)
    with pytest.raises(Invalid) as caught:
        codec.from_text(codec.commands, "Order", {"order": "7", "quantity": "many", "lines": []})
    assert caught.value.field == "quantity"


def test_an_unknown_name_lists_the_known_ones() -> None:
    """Asking for a command that does not exist shows those that do."""
    codec = make_codec()
    with pytest.raises(UnknownMessage) as caught:
        codec.parse(codec.commands, "Oder", b"{}")
    assert caught.value.facts == {"name": "Oder", "known": "Order"}


def test_stored_events_are_looked_up_never_imported() -> None:
    """A stored type name that is not registered is an error, whatever it looks like (P9)."""
    with pytest.raises(UnknownMessage) as caught:
        make_codec().event(stored(b"{}", name="os.system"))
    assert caught.value.facts == {"type": "os.system", "position": 7}


def test_a_stored_event_that_does_not_fit_names_its_position() -> None:
    """An event written by another version of its type is found with its place."""
    with pytest.raises(UndecodableEvent) as caught:
        make_codec().event(stored(b'{"text": 1}'))
    assert caught.value.facts["position"] == 7


def test_fields_that_an_event_lost_are_passed_over() -> None:
    """Older events with a field that the type no longer has can still be read."""

    class Slim(Event):
        a: int

    codec = Codec()
    codec.register([Slim])
    assert codec.event(stored(b'{"a": 1, "b": 2}', name="Slim")) == Slim(1)


def test_tags_come_from_fields() -> None:
    """Tags are key:value of the marked fields; None gives none."""
    tags = tagger(tag_fields(Everything))
    assert tags(everything(text="t", number=5)) == (
        "text:t",
        "number:5",
        "ident:12345678-1234-5678-1234-567812345678",
        "colour:red",
        "level:3",
    )
    assert tags(everything(text="t", tagged="x"))[-1] == "maybe:x"


def test_one_tag_from_two_fields_counts_once() -> None:
    """A transfer from an account to itself bears the account's tag once."""

    class Paid(Event):
        source: Annotated[str, Tag("account")]
        target: Annotated[str, Tag("account")]

    tags = tagger(tag_fields(Paid))
    assert tags(Paid("a", "b")) == ("account:a", "account:b")
    assert tags(Paid("a", "a")) == ("account:a",)


def test_a_tag_key_is_a_word() -> None:
    """A colon in a tag's key would make tags ambiguous."""
    with pytest.raises(DefinitionError):
        Tag("a:b")


def test_a_message_may_be_stored_under_another_name() -> None:
    """The stored name and version are the class's keywords."""

    class Renamed(Event, stored_as="order-placed", version=3):
        a: int

    codec = Codec()
    codec.register([Renamed])
    assert codec.events["order-placed"].version == 3
    assert codec.event(stored(b'{"a": 1}', name="order-placed")) == Renamed(1)


def test_a_name_has_no_odd_characters() -> None:
    """Names appear in addresses and in SQL filters."""

    class Odd(Event, stored_as='a"b'):
        pass

    with pytest.raises(DefinitionError, match="letters, digits"):
        Codec().register([Odd])


def test_a_field_type_that_json_cannot_hold() -> None:
    """A type that cannot be decoded is refused at start-up."""

    class Strange(Event):
        a: int | str | list[int] | Line | Order

    with pytest.raises(DefinitionError, match="field has a type"):
        Codec().register([Strange])


class Priced(Struct, frozen=True):
    price: Annotated[Decimal, Meta(gt=0)]


def test_a_bound_on_a_decimal_is_refused_with_the_way_to_have_one() -> None:
    """msgspec bounds no Decimal; the error says what does, for messages and for rows."""

    class Bounded(Command):
        total: Annotated[Decimal, Meta(gt=0)]

    class Nested(Query[int]):
        lines: list[Priced]

    for cls in (Bounded, Nested):
        with pytest.raises(DefinitionError, match="raise ValueError in the command's __post_init_"):
            Codec().register([cls])
    with pytest.raises(DefinitionError, match="raise ValueError in the command's __post_init__"):
        kind_of(list[Priced], "here", "lines")


class Paid(Command):
    total: Decimal
    lines: tuple[Line, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        if not self.total > 0:
            raise ValueError("total: more than 0")


@pytest.mark.parametrize("text", ["0", "-1"])
def test_what_post_init_refuses_is_invalid(text: str) -> None:
    """So a Decimal is bounded: in JSON and on a command line."""
    codec = Codec()
    codec.register([Paid])
    for parse in paid(codec, {"total": text}):
        with pytest.raises(Invalid) as caught:
            parse()
        assert caught.value.rule == "total: more than 0"


def paid(codec: Codec, fields: dict[str, Any]) -> list[Callable[[], Any]]:
    """Return both ways from JSON's values to a message."""
    return [
        lambda: codec.parse(codec.commands, "Paid", msgspec.json.encode(fields)),
        lambda: codec.from_text(codec.commands, "Paid", fields),
    ]


@pytest.mark.parametrize(
    "text", [" 1", "1 ", "1_000", "\u0661", "1.", ".5", "NaN", "inf", "1e1000"]
)
def test_a_decimal_is_written_as_the_schemas_say(text: str) -> None:
    """What only Python's Decimal can read is refused wherever a Decimal stands, nowhere else."""
    codec = Codec()
    codec.register([Paid])
    at = "2026-01-01T00:00:00Z"
    line = {"product": "p", "price": text, "at": at}
    for fields, field in (
        ({"total": text}, "total"),
        ({"total": "1", "note": text, "lines": [line]}, "lines[0].price"),
    ):
        for parse in paid(codec, fields):
            with pytest.raises(Invalid) as caught:
                parse()
            assert (caught.value.field, caught.value.rule) == (field, "Invalid decimal string")
    for parse in paid(codec, {"total": "+1e2", "note": text}):
        assert parse() == Paid(Decimal("1e2"), note=text)


class Page(Query[int], rename="camel"):
    most_rows: int = 1
    numbers: list[int] = msgspec.field(default_factory=list[int])
    level: Level | None = None
    flag: bool = False


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"mostRows": "1.0"}, "most_rows"),
        ({"numbers": ["1", "1e0"]}, "numbers"),
        ({"level": "3.0"}, "level"),
    ],
)
def test_a_whole_number_in_text_is_written_in_digits(fields: dict[str, Any], field: str) -> None:
    """`1.0` in JSON is no int either."""
    codec = Codec()
    codec.register([Page])
    with pytest.raises(Invalid) as caught:
        codec.from_text(codec.queries, "Page", fields)
    assert caught.value.field == field
    plain = {"mostRows": "-1", "numbers": ["1"], "level": "3", "flag": "1"}
    assert codec.from_text(codec.queries, "Page", plain) == Page(-1, [1], Level.HIGH, flag=True)


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-01:00"])
def test_a_datetime_outside_of_the_years_of_utc_is_refused(text: str) -> None:
    """No column could hold it: its key would be parked."""
    with pytest.raises(Invalid, match="a time of the years 1 to 9999 in UTC"):
        make_codec().validate(everything(at=datetime.fromisoformat(text)))
    for edge in (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, tzinfo=UTC)):
        assert make_codec().validate(everything(at=edge))[0].at == edge


@pytest.mark.parametrize("text", ["a" * 996, "\u00e9" * 498])
def test_a_tag_that_no_log_keeps_is_refused_with_its_field(text: str) -> None:
    """Of a command too, before anything is decided: its client knows no field of an event."""
    codec = make_codec()
    for message in (Order(text, []), everything(text=text)):
        with pytest.raises(Invalid, match="at most 1000 bytes") as caught:
            codec.validate(message)
        assert caught.value.field in ("order", "text")
    assert codec.validate(Order("a" * 994, []))[0].order == "a" * 994
    assert codec.validate(everything(maybe=text))[0].maybe == text


class Parcel(Struct):
    weight: int
    marks: list[str] = []
    labels: dict[str, str] = {}


class Send(Command):
    pieces: int | None = None
    parcels: tuple[Parcel, ...] = ()
    name: str = ""


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (Send(name="a\0"), "name"),
        (Send(parcels=(Parcel(1), Parcel(1, ["", "\0"]))), "parcels[1].marks[1]"),
        (Send(parcels=(Parcel(1, labels={"a": "b\0"}),)), "parcels[0].labels.a"),
        (Send(parcels=(Parcel(1, labels={"\0": "b"}),)), "parcels[0].labels"),
        (Send(2**63), "pieces"),
        (Send(-(2**63) - 1), "pieces"),
        (Send(parcels=(Parcel(10**30),)), "parcels[0].weight"),
    ],
)
def test_what_no_column_holds_is_refused(message: Send, field: str) -> None:
    """Else a client could have a key parked, or stop a handler for everybody."""
    codec = Codec()
    codec.register([Send])
    with pytest.raises(Invalid, match=r"64 bits|U\+0000") as caught:
        codec.validate(message)
    assert caught.value.field == field
    for fine in (Send(2**63 - 1, (Parcel(-(2**63), ["\\u0000"]),), "\\0"), Send(None)):
        assert codec.validate(fine)[0] == fine


def test_ids_are_uuids_ordered_by_time() -> None:
    """Event ids are UUIDs of version 7, all different."""
    ids = [new_id() for _ in range(5000)]
    assert len(set(ids)) == len(ids)
    assert {uuid.UUID(text).version for text in ids} == {7}
    assert {uuid.UUID(text).variant for text in ids} == {uuid.RFC_4122}
    assert [text[:13] for text in ids] == sorted(text[:13] for text in ids)


@pytest.mark.parametrize("year", [1969, 1970, 9999, 12_000])
def test_ids_are_uuids_in_any_year(year: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the clock says a time that the 48 bits for it do not hold."""
    ns = (year - 1970) * 365 * 86_400 * 10**9 + 1
    monkeypatch.setattr("time.time_ns", lambda: ns)
    assert {(uuid.UUID(text).version, len(text)) for text in (new_id(), new_id())} == {(7, 36)}


def test_tokens_go_out_and_come_back() -> None:
    """A token survives being text; anything else is Invalid."""
    token = Token("a-b.c", 17)
    assert Token.parse(str(token)) == token
    for text in ("", "17", "a.", "a.x", "a.-1", "a.²"):
        with pytest.raises(Invalid):
            Token.parse(text)
