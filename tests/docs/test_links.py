"""No link between pages leads nowhere."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, anchors, name, prose

LINK = re.compile(r"\[[^\]]*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
ELSEWHERE = re.compile(r"^[a-z][a-z0-9+.-]*:")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_relative_links_of_the_page_resolve(page: Path) -> None:
    dead: list[str] = []
    for link in LINK.findall(prose(page)):
        if ELSEWHERE.match(link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or not target.is_relative_to(ROOT):
            dead.append(link)
        elif anchor and target.suffix == ".md" and anchor not in anchors(target):
            dead.append(f"{link} (no such heading)")
    assert not dead, f"{name(page)}: {dead}"


def test_every_page_is_linked_from_another() -> None:
    linked = {
        (page.parent / link.partition("#")[0]).resolve()
        for page in PAGES
        for link in LINK.findall(prose(page))
        if not ELSEWHERE.match(link) and link.partition("#")[0]
    }
    lost = [
        name(page) for page in PAGES if page.is_relative_to(ROOT / "docs") and page not in linked
    ]
    lost = [page for page in lost if page != "docs/README.md"]
    assert not lost, f"add a link, best in docs/README.md, to {lost}"
