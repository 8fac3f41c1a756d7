"""The README shows the example as it is."""

from tests.docs.pages import ROOT
from tests.docs.snippets import snippets

README = ROOT / "README.md"
EXAMPLE = ROOT / "examples" / "shop" / "orders.py"


def test_the_readme_quotes_the_example_whole() -> None:
    [quoted] = [s.text for s in snippets(README.read_text()) if s.marks.get("file") == "orders.py"]
    assert quoted == EXAMPLE.read_text()


def test_the_example_has_at_most_60_lines() -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 60
