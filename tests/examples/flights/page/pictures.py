"""Draws docs/images/board*.png: ``python -m tests.examples.flights.page.pictures``.

An evening on which every state is on the board of LaGuardia, and one flight is being cancelled.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Browser, expect

from tests.examples.flights.page.serving import Server, Tab, chromium, served
from tests.house.paths import ROOT

FOLDER: Final = ROOT / "docs" / "images"
AIRPORT: Final = "LGA"
SINCE: Final = "2013-01-02T01:35"
"""25 to nine in the evening of New Year's Day, in New York."""

STATES: Final = ("scheduled", "late", "departed", "landed", "diverted", "cancelled")
WIDE: Final[dict[str, Any]] = {"viewport": {"width": 1120, "height": 1160}}
PHONE: Final[dict[str, Any]] = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 1.5,
    "is_mobile": True,
    "has_touch": True,
}


def draw(browser: Browser, server: Server, folder: Path) -> None:
    """Write all pictures."""
    _draw(browser, server, folder / "board-dark.png", **WIDE, color_scheme="dark")
    _draw(browser, server, folder / "board-phone.png", **PHONE, states=STATES[3:5])
    _draw(browser, server, folder / "board.png", **WIDE, cancels=True)


def _draw(
    browser: Browser,
    server: Server,
    path: Path,
    *,
    states: Sequence[str] = STATES,
    cancels: bool = False,
    **context: Any,
) -> None:
    tab = Tab(browser, server, f"/board/{AIRPORT}", **context)
    page = tab.page
    for state in states:
        expect(page.locator(f"tr.{state}").first).to_be_in_viewport()
    if cancels:
        page.get_by_role("switch", name="Slow the read side down").click()
        row = page.locator("tr.scheduled").first
        row.get_by_role("button", name="Change").click()
        page.get_by_role("dialog").get_by_role("button", name="Cancel the flight").click()
        expect(page.locator("tr.pending")).to_be_visible()
        expect(page.get_by_text("Last known answer", exact=True)).to_be_visible()
        page.mouse.move(0, 0)  # no row is pointed at
    page.screenshot(path=path)
    if cancels:
        page.get_by_role("switch", name="Slow the read side down").click()
        expect(page.locator("tr.pending")).to_have_count(0)
    tab.close()


def main(folder: Path) -> None:
    """Serve the board of that evening, and draw it."""
    with (
        tempfile.TemporaryDirectory() as kept,
        served(Path(kept), since=SINCE) as server,
        chromium() as browser,
    ):
        draw(browser, server, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
