"""The departures board in a real browser."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.examples.flights.expected import needs_flights
from tests.examples.flights.page.serving import Server, Tab, needs_chromium, served

pytestmark = [needs_flights, needs_chromium]

expect.set_options(timeout=15_000)


@pytest.fixture
def tab(browser: Browser, server: Server) -> Iterator[Tab]:
    opened = Tab(browser, server, "/board/EWR")
    expect(waiting(opened.page).nth(3)).to_be_visible()
    yield opened
    opened.close()
    assert opened.said == []


def waiting(page: Page) -> Locator:
    """The rows of flights that can be changed."""
    return page.locator("tr:not(.pending)", has=page.get_by_role("button", name="Change"))


def pick(page: Page, number: int = 0) -> tuple[str, Locator]:
    """A flight that waits for departure, and its row, found by name from now on."""
    row_id = waiting(page).nth(number).get_attribute("id")
    assert row_id is not None
    return row_id.removeprefix("f-"), page.locator(f"[id='{row_id}']")


def open_forms(page: Page, row: Locator) -> Locator:
    row.get_by_role("button", name="Change").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    return dialog


def slow_down(page: Page, *, on: bool) -> None:
    switch = page.get_by_role("switch", name="Slow the read side down")
    if (switch.get_attribute("aria-checked") == "true") != on:
        switch.click()
    expect(switch).to_have_attribute("aria-checked", str(on).lower())


@pytest.fixture
def slowed(tab: Tab) -> Iterator[Tab]:
    """A tab whose board lags."""
    slow_down(tab.page, on=True)
    yield tab
    tab.page.goto("/board/EWR")
    slow_down(tab.page, on=False)


def test_a_departure_shows_by_itself(tab: Tab, server: Server) -> None:
    flight, row = pick(tab.page)
    aircraft = row.locator(".aircraft").inner_text()
    server.do("Depart", flight=flight, aircraft=aircraft, departed="2013-01-01T15:12:00Z")
    expect(row.locator(".status")).to_have_text("Departed 10:12")
    server.do("Land", flight=flight, aircraft=aircraft, landed="2013-01-01T17:00:00Z", delay=-4)
    expect(row.locator(".status")).to_have_text("Landed")
    expect(row.locator(".delay")).to_contain_text("4")


def test_a_flight_that_is_scheduled_gets_its_place_among_the_others(
    tab: Tab, server: Server
) -> None:
    server.do(
        "Schedule",
        flight="20130101T15-UA9001",
        aircraft=None,
        carrier="UA",
        origin="EWR",
        destination="BOS",
        day="2013-01-01",
        scheduled="2013-01-01T15:11:30Z",
    )
    expect(tab.page.locator("[id='f-20130101T15-UA9001'] .city")).to_have_text("Boston")
    times = tab.page.locator("#rows tbody time").all_inner_texts()
    assert times == sorted(times)


def test_a_flight_is_late_when_its_time_has_gone_by(tab: Tab) -> None:
    """The clock stands at ten past ten."""
    for row in waiting(tab.page).all():
        time, status = row.locator("time").inner_text(), row.locator(".status").inner_text()
        assert status == ("Late" if time < "10:10" else "Scheduled"), time


def test_a_command_is_pending_until_the_board_has_caught_up(slowed: Tab) -> None:
    page = slowed.page
    flight, row = pick(page)
    dialog = open_forms(page, row)
    dialog.get_by_role("button", name="Cancel the flight").click()
    expect(row.locator(".status")).to_have_text("Pending")
    expect(row).to_have_attribute("aria-busy", "true")
    expect(dialog).to_be_hidden()
    expect(page.locator("#fresh")).to_contain_text("Last known answer")
    expect(page.locator("#fresh")).to_contain_text("1 event behind")
    expect(page.get_by_role("status")).to_contain_text("Waiting for the board to show it")
    slow_down(page, on=False)
    expect(row.locator(".status")).to_have_text("Cancelled")
    expect(row).not_to_have_attribute("aria-busy", "true")
    expect(page.locator("#fresh")).to_contain_text("Live")
    expect(page.get_by_role("status")).to_contain_text("the board shows it")
    page.goto(f"/flights/{flight}")
    expect(page.get_by_role("heading", name="Flight cancelled")).to_be_visible()


def test_the_age_of_the_last_known_answer_grows_while_the_board_lags(slowed: Tab) -> None:
    page = slowed.page
    _, row = pick(page)
    open_forms(page, row).get_by_role("button", name="Cancel the flight").click()
    expect(page.locator("#fresh")).to_contain_text("1 s old")
    expect(page.locator("#fresh")).to_contain_text("2 s old")
    expect(row.locator(".status")).to_have_text("Pending")


def test_a_pending_row_stays_pending_when_another_one_changes(
    slowed: Tab, browser: Browser, server: Server
) -> None:
    """A row whose token is not reached is marked again each time the board is drawn."""
    page = slowed.page
    _, row = pick(page)
    open_forms(page, row).get_by_role("button", name="Cancel the flight").click()
    expect(row.locator(".status")).to_have_text("Pending")
    page.evaluate("""() => {
        const rows = document.getElementById("rows");
        const drawn = rows.innerHTML.replaceAll("Pending", "Scheduled");
        htmx.swap("#rows", drawn, {swapStyle: "innerHTML"});
    }""")
    expect(row.locator(".status")).to_have_text("Pending")


def test_a_rejection_shows_its_reason_and_changes_nothing(tab: Tab) -> None:
    page = tab.page
    up = page.locator("tr.departed").first.locator(".aircraft").inner_text()
    _, row = pick(page)
    before = row.locator(".aircraft").inner_text()
    dialog = open_forms(page, row)
    dialog.get_by_label("Another aircraft").fill(up)
    dialog.get_by_role("button", name="Swap").click()
    alert = dialog.get_by_role("alert")
    expect(alert).to_contain_text("Rejected: aircraft is in the air.")
    expect(alert).to_contain_text(up)
    dialog.get_by_role("button", name="Leave it as it is").click()
    expect(dialog).to_be_hidden()
    expect(row.locator(".aircraft")).to_have_text(before)
    expect(row).not_to_have_class("pending")


def test_a_form_that_is_sent_twice_takes_effect_once(tab: Tab) -> None:
    page = tab.page
    flight, row = pick(page)
    dialog = open_forms(page, row)
    dialog.get_by_label("Another aircraft").fill("N777UA")
    answers: list[Any] = page.evaluate("""async () => {
        const form = document.querySelector("dialog form.order");
        const send = async () => (await fetch(form.action, {
            method: "POST",
            body: new URLSearchParams(new FormData(form)),
            headers: {"HX-Request": "true"},
        })).text();
        return [await send(), await send()];
    }""")
    assert "accepted" in answers[0]
    assert "this was sent before" in answers[1]
    expect(row.locator(".aircraft")).to_have_text("N777UA")
    page.goto(f"/flights/{flight}")
    expect(page.get_by_role("heading", name="Aircraft swapped")).to_have_count(1)


def test_two_tabs_see_the_same(tab: Tab, browser: Browser, server: Server) -> None:
    other = Tab(browser, server, "/board/EWR")
    flight, row = pick(tab.page)
    open_forms(tab.page, row).get_by_role("button", name="Cancel the flight").click()
    expect(other.page.locator(f"[id='f-{flight}'] .status")).to_have_text("Cancelled")
    slow_down(other.page, on=True)
    expect(tab.page.get_by_role("switch")).to_have_attribute("aria-checked", "true")
    slow_down(tab.page, on=False)
    expect(other.page.get_by_role("switch")).to_have_attribute("aria-checked", "false")
    other.close()
    assert other.said == []


def test_everything_is_done_by_keyboard(tab: Tab) -> None:
    page = tab.page
    _, row = pick(page)
    button = row.get_by_role("button", name="Change")
    button.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    expect(dialog.get_by_label("Another aircraft")).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(button).to_be_focused()
    page.keyboard.press("Enter")
    expect(dialog.get_by_label("Another aircraft")).to_be_focused()
    page.keyboard.type("n1234x")
    page.keyboard.press("Enter")
    expect(row.locator(".aircraft")).to_have_text("N1234X")
    expect(button).to_be_focused()  # the board was drawn anew around it


def test_a_line_of_a_phone_holds_a_flight(browser: Browser, server: Server) -> None:
    phone = {"width": 360, "height": 740}
    tab = Tab(browser, server, "/board/EWR", viewport=phone, has_touch=True, is_mobile=True)
    page = tab.page
    expect(waiting(page).first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    _, row = pick(page)
    dialog = open_forms(page, row)
    box = dialog.bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 360
    assert row.locator(".city").inner_text() != ""
    for path in ("/carriers", "/board/EWR/then"):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") == 360, path
    tab.close()
    assert tab.said == []


def test_the_page_comes_back_when_the_server_was_killed(browser: Browser, tmp_path: Path) -> None:
    with served(tmp_path) as server:
        tab = Tab(browser, server, "/board/JFK")
        page = tab.page
        expect(waiting(page).nth(1)).to_be_visible()
        server.kill()
        expect(page.locator("#lost")).to_be_visible()
        expect(waiting(page).first).to_be_visible()  # the last known answer
        server.start("--speed=0")
        expect(page.locator("#lost")).to_be_hidden()
        flight, row = pick(page)
        aircraft = row.locator(".aircraft").inner_text()
        server.do("Depart", flight=flight, aircraft=aircraft, departed="2013-01-01T15:12:00Z")
        expect(row.locator(".status")).to_have_text("Departed 10:12")
        tab.close()


def test_the_page_begins_afresh_when_the_log_is_another(browser: Browser, tmp_path: Path) -> None:
    """It asks to go on from a token of the old log; what it gets is the board of the new one."""
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    with served(old) as server:
        tab = Tab(browser, server, "/board/JFK")
        flight, row = pick(tab.page)
        open_forms(tab.page, row).get_by_role("button", name="Cancel the flight").click()
        expect(row.locator(".status")).to_have_text("Cancelled")
        server.kill()
        server.use(new)
        server.start("--speed=0")
        expect(tab.page.locator(f"[id='f-{flight}'] .status")).not_to_have_text("Cancelled")
        tab.close()


def test_time_goes_at_the_speed_that_is_chosen(browser: Browser, tmp_path: Path) -> None:
    with served(tmp_path) as server:
        tab = Tab(browser, server, "/board/LGA")
        page = tab.page
        expect(page.locator("#clock .digits")).to_have_text("10:10")
        expect(waiting(page).nth(1)).to_be_visible()
        page.get_by_role("button", name="15 min/s").click()
        expect(page.get_by_role("button", name="15 min/s")).to_have_attribute(
            "aria-pressed", "true"
        )
        expect(page.locator("tr.landed").first).to_be_visible()
        expect(page.locator("#clock .digits")).not_to_have_text("10:10")
        tab.close()
        assert tab.said == []
