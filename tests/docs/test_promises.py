"""Every promise is named, and the tests it rests on exist."""

import re

from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "explanation" / "promises.md").read_text()
PROMISES = re.split(r"^(?=\*\*P\d+\. )", PAGE, flags=re.MULTILINE)[1:]
NAMED = re.compile(r"`((?:tests|src)/[\w/]+\.py)(?:::(test_\w+))?`")


def test_every_promise_has_its_place() -> None:
    numbers = [int(text[3 : text.index(".")]) for text in PROMISES]
    assert sorted(numbers) == list(range(1, 14))


def test_every_promise_that_holds_names_its_tests() -> None:
    holding = PAGE.partition("## What holds\n")[2].partition("## What does not hold yet")[0]
    bare = [text[:40] for text in PROMISES if text[:40] in holding and not NAMED.search(text)]
    assert not bare


def test_every_test_that_is_named_exists() -> None:
    missing: list[str] = []
    for path, test in NAMED.findall(PAGE):
        file = ROOT / path
        if not file.exists() or (test and f"def {test}(" not in file.read_text()):
            missing.append(f"{path}::{test}")
    assert NAMED.search(PAGE)
    assert not missing, f"promises rest on tests that are not there: {missing}"
