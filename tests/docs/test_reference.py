"""The reference is complete: no error, code or public name is left out."""

import re

import pytest

import diptych
from diptych import (
    Actor,
    Answer,
    Events,
    Limits,
    Metadata,
    Module,
    Receipt,
    Recorded,
    Running,
    Transaction,
    Views,
    errors,
)
from diptych.app.access import Access, Endpoint
from diptych.app.blocking import BlockingLog, BlockingRunning
from diptych.log import Append, Condition, Log
from diptych.read.proving.verify import Verdict
from diptych.read.status import Status
from diptych.testing import AccessRow, AccessTable
from diptych.testing.servers import PostgresServer
from tests.docs.pages import ROOT

REFERENCE = ROOT / "docs" / "reference"
ERRORS = (REFERENCE / "errors.md").read_text()
EVERYTHING = "\n".join(page.read_text() for page in sorted(REFERENCE.glob("*.md")))

CLASSES = [
    thing
    for thing in vars(errors).values()
    if isinstance(thing, type) and issubclass(thing, Exception)
]


def entry(name: str) -> str:
    """The text of an error's entry; '' when there is none."""
    found = re.search(rf"^### {name}\n(.*?)(?=^##|\Z)", ERRORS, flags=re.MULTILINE | re.DOTALL)
    return found[1].strip() if found else ""


def test_every_error_has_an_entry_and_every_entry_is_an_error() -> None:
    listed = set(re.findall(r"^### (\w+)$", ERRORS, flags=re.MULTILINE))
    assert listed == {cls.__name__ for cls in CLASSES}
    assert all(entry(name) for name in listed)


def test_every_code_stands_in_the_entry_of_its_error() -> None:
    own = {cls.__name__: vars(cls)["code"] for cls in CLASSES if "code" in vars(cls)}
    assert len(own) >= 16
    missing = [name for name, code in own.items() if f"`{code}`" not in entry(name)]
    assert not missing, f"give the code in the entries of {missing}"


def test_codes_are_told_apart() -> None:
    codes = [vars(cls)["code"] for cls in CLASSES if "code" in vars(cls)]
    assert len(codes) == len(set(codes))


def test_every_public_name_is_in_the_reference() -> None:
    code = " ".join(re.findall(r"`([^`\n]+)`", EVERYTHING))
    missing = [name for name in diptych.__all__ if not re.search(rf"\b{name}\b", code)]
    assert not missing, f"describe them in docs/reference: {missing}"


def section(page: str, heading: str) -> str:
    """A page's text under a heading, up to the next of its rank or above."""
    text = (REFERENCE / page).read_text()
    found = re.search(rf"^(#+) {re.escape(heading)}\n", text, flags=re.MULTILINE)
    assert found, f"{page} has no heading {heading!r}"
    rest = text[found.end() :]
    end = re.search(rf"^#{{1,{len(found[1])}}} ", rest, flags=re.MULTILINE)
    return rest[: end.start()] if end else rest


def public(cls: type) -> set[str]:
    """The fields of a struct, or the public methods of a class that is none."""
    fields = getattr(cls, "__struct_fields__", None)
    if fields is not None:
        return set(fields)
    return {name for name in vars(cls) if not name.startswith("_")}


@pytest.mark.parametrize(
    ("cls", "page", "heading"),
    [
        (Metadata, "messages-and-fields.md", "Metadata"),
        (Recorded, "messages-and-fields.md", "Recorded"),
        (Actor, "modules-and-apps.md", "Actor"),
        (Access, "modules-and-apps.md", "The list of rules"),
        (Endpoint, "modules-and-apps.md", "The list of rules"),
        (AccessTable, "testing.md", "Who may do what"),
        (AccessRow, "testing.md", "Who may do what"),
        (Limits, "modules-and-apps.md", "Limits"),
        (Receipt, "modules-and-apps.md", "Receipt"),
        (Running, "modules-and-apps.md", "Running"),
        (BlockingRunning, "modules-and-apps.md", "Without an event loop"),
        (BlockingLog, "modules-and-apps.md", "Without an event loop"),
        (Module, "modules-and-apps.md", "Module"),
        (Transaction, "views-and-projections.md", "Handlers"),
        (Status, "views-and-projections.md", "Status"),
        (Verdict, "views-and-projections.md", "Verdict"),
        (Answer, "queries.md", "Answer"),
        (Views, "queries.md", "Views"),
        (Events, "queries.md", "Events"),
        (Log, "log.md", "Calls"),
        (Append, "log.md", "Appends"),
        (Condition, "log.md", "Conditions"),
        (PostgresServer, "testing.md", "Servers"),
    ],
)
def test_every_field_and_method_is_in_its_table(cls: type, page: str, heading: str) -> None:
    code = " ".join(re.findall(r"`([^`\n]+)`", section(page, heading)))
    names = public(cls) - {"as_of", "stale"} if cls is Views else public(cls)
    missing = [name for name in sorted(names) if not re.search(rf"\b{name}\b", code)]
    assert names
    assert not missing, f"{page}, {heading}: {missing}"
