"""Every error of the library has its status and its code, and nothing inside gets out."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from diptych import errors
from diptych.errors import DiptychError, ForeignCheckpoint, Rejected, UnknownMessage
from diptych.http import Limits
from diptych.http.problems import DOOR, ERRORS, FAULTS, Problem, encoded, problem_of
from tests.house.paths import ROOT

CLASSES: list[type[DiptychError]] = [
    thing
    for thing in vars(errors).values()
    if isinstance(thing, type) and issubclass(thing, DiptychError) and thing is not DiptychError
]

STATUS = {
    "Rejected": 409, "Invalid": 422, "KeyReused": 422, "UnknownMessage": 404,
    "ForeignCheckpoint": 410, "Conflict": 503, "Overloaded": 503, "Unavailable": 503,
    "StaleAnswer": 503, "ViewNotReady": 503, "Closed": 503, "CheckpointMoved": 503,
    "OutcomeUnknown": 504,
    "TimedOut": 504, "NotAuthenticated": 401, "NotAllowed": 403,
}  # fmt: skip
"""What is not named here is a fault of the service: 500."""


def error_of(cls: type[DiptychError]) -> DiptychError:
    """An error with all that an error of this class can be given, and a secret."""
    given: dict[str, Any] = {"path": "/secret", "url": "postgresql://secret"}
    given |= {"field": "f", "rule": "r", "position": 7, "at": "secret.py:1"}
    if cls is Rejected:
        return Rejected("a reason", code="a-code", amount=Decimal("1.50"))
    if cls in (UnknownMessage, ForeignCheckpoint):
        del given["position"]
    return cls("secret text" if STATUS.get(cls.__name__) is None else "a text", **given)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_of_the_library_has_its_status_and_keeps_secrets(
    cls: type[DiptychError],
) -> None:
    error = error_of(cls)
    status, told, headers = problem_of(error)
    assert status == STATUS.get(cls.__name__, 500)
    assert told["status"] == status
    assert told["code"] == error.code
    assert told["detail"]
    assert "secret" not in encoded(told).decode()
    assert (status == 503) == (b"retry-after" in dict(headers))


def test_each_class_is_either_answered_or_named_as_a_fault() -> None:
    assert {*ERRORS, *FAULTS} == set(CLASSES)
    assert not {*ERRORS} & {*FAULTS}


@pytest.mark.parametrize("code", DOOR)
def test_every_problem_of_the_door_alone_has_its_status(code: str) -> None:
    status, told, _ = problem_of(Problem(code, "why", limit=3))
    assert (told["code"], told["type"]) == (code, f"urn:diptych:{code}")
    assert status == DOOR[code].status
    assert code not in {cls.code for cls in CLASSES}


def test_an_unknown_event_or_a_foreign_view_is_not_the_callers_fault() -> None:
    assert problem_of(UnknownMessage("?", type="X", position=1))[0] == 500
    assert problem_of(ForeignCheckpoint("?", projection="x"))[0] == 500


def test_a_rejection_tells_its_facts_whatever_they_are() -> None:
    facts: dict[str, Any] = {
        "amount": Decimal("1.50"),
        "half": "\ud800",
        "thing": object,
        "none": None,
    }
    _, told, _ = problem_of(Rejected("no \ud800", **facts))
    read = msgspec.json.decode(encoded(told))
    assert read["facts"]["amount"] == "1.50"
    assert read["facts"]["none"] is None
    assert "rejected" in read["type"]
    assert set(read["facts"]) == set(facts)


PAGE = (ROOT / "docs" / "reference" / "http.md").read_text()
PROBLEMS = PAGE.partition("\n## Problems\n")[2].partition("\n## ")[0]
LIMITS = PAGE.partition("\n## Limits\n")[2].partition("\n## ")[0]


def test_every_code_is_on_the_page_beside_its_status() -> None:
    rows = re.findall(r"^\| (.*?) \| ([0-9, ]+) \|", PROBLEMS, flags=re.MULTILINE)
    told = {
        code: status.split(", ")[number] if ", " in status else status
        for codes, status in rows
        for number, code in enumerate(re.findall(r"`([a-z-]+)`", codes))
    }
    known = {cls.code: answered.status for cls, answered in ERRORS.items() if cls is not Rejected}
    known |= {code: answered.status for code, answered in DOOR.items()}
    assert {code: int(status) for code, status in told.items() if code != "fault"} == known


def test_every_limit_is_on_the_page_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| ([0-9]+(?: MiB)?) \|", LIMITS, flags=re.MULTILINE))
    defaults = {
        name: int(text.removesuffix(" MiB")) * (2**20 if "MiB" in text else 1)
        for name, text in rows.items()
    }
    assert defaults == {name: getattr(Limits(), name) for name in Limits.__struct_fields__}
