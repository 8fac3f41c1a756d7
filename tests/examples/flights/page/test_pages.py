"""All pages: what they tell, that everybody can use them, and who may not."""

import re
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Browser, expect

from examples.flights.page.desk import STREAMS
from tests.examples.flights.expected import needs_flights
from tests.examples.flights.page.serving import Server, Tab, needs_chromium

pytestmark = [needs_flights, needs_chromium]

expect.set_options(timeout=15_000)

FLIGHT = "20130101T10-AA1141"
"""Left JFK for Miami at 5:42, and landed at 8:22."""

PAGES = (
    "/board/EWR",
    "/board/EWR/then?position=700",
    "/carriers",
    f"/flights/{FLIGHT}",
    "/aircraft/N619AA?day=2013-01-01",
    "/aircraft/N0?day=2013-01-01",
    "/board/XXX",
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_to_complain_about(browser: Browser, server: Server, scheme: str) -> None:
    tab = Tab(browser, server, "/", color_scheme=scheme, reduced_motion="reduce")
    for path in PAGES:
        tab.page.goto(path)
        found = Axe().run(tab.page)
        assert found.violations_count == 0, f"{path}: {found.generate_report()}"
    tab.page.goto("/board/EWR")
    tab.page.get_by_role("button", name="Change").first.click()
    expect(tab.page.get_by_role("dialog")).to_be_visible()
    found = Axe().run(tab.page)
    assert found.violations_count == 0, found.generate_report()
    tab.close()


def test_no_page_asks_another_server_or_complains(browser: Browser, server: Server) -> None:
    tab = Tab(browser, server, "/")
    for path in PAGES[:-1]:
        tab.page.goto(path)
        expect(tab.page.get_by_role("heading", level=1)).to_be_visible()
    tab.close()
    assert tab.said == []
    assert {urlsplit(url).netloc for url in tab.asked} == {urlsplit(server.url).netloc}


def test_a_flight_tells_what_happened_to_it_and_what_caused_it(
    browser: Browser, server: Server
) -> None:
    tab = Tab(browser, server, f"/flights/{FLIGHT}")
    events = tab.page.locator(".history li")
    expect(events.locator("h2")).to_have_text(
        ["Flight scheduled", "Flight departed", "Flight landed"]
    )
    for event in events.all():
        assert re.search(r"decided by command\s*[0-9a-f-]{36}", event.inner_text())
        expect(event).to_contain_text("caused by a request from outside")
        expect(event).to_contain_text("actor replay")
    tab.close()


def test_the_board_as_it_was_knows_nothing_of_what_came_later(
    browser: Browser, server: Server
) -> None:
    tab = Tab(browser, server, f"/flights/{FLIGHT}")
    page = tab.page
    row = page.locator(f"[id='f-{FLIGHT}'] .status")
    page.get_by_role("link", name="The board just then").nth(1).click()
    expect(row).to_contain_text("Departed")
    page.get_by_role("link", name="1 event earlier", exact=True).click()
    expect(row).not_to_contain_text("Departed")
    slider = page.get_by_role("slider")
    slider.focus()
    page.keyboard.press("ArrowRight")  # the event again; it is shown at once
    expect(row).to_contain_text("Departed")
    tab.close()


def test_an_aircraft_shows_its_legs_on_a_line_of_time(browser: Browser, server: Server) -> None:
    tab = Tab(browser, server, f"/flights/{FLIGHT}")
    page = tab.page
    page.get_by_role("link", name="The day of").click()
    expect(page.locator("svg.timeline rect")).to_have_count(1)
    expect(page.get_by_role("row", name="AA 1141")).to_contain_text("Miami")
    page.get_by_role("link", name="Day before").click()
    expect(page.locator("main")).to_contain_text("It has not left New York on this day")
    tab.close()


def test_the_chart_of_the_carriers_follows_the_figures(browser: Browser, server: Server) -> None:
    tab = Tab(browser, server, "/carriers")
    page = tab.page
    expect(page.locator("#chart canvas")).to_be_visible()
    drawn = page.evaluate("document.querySelector('#chart canvas').toDataURL()")
    late = page.locator("#c-UA td").nth(2)
    before = int(late.inner_text())
    schedule = {"aircraft": "N1UA", "carrier": "UA", "origin": "LGA", "destination": "ORD"}
    for number in range(40):
        flight = f"20130101T14-UA{9100 + number}"
        hour = "2013-01-01T14:00:00Z"
        server.do("Schedule", flight=flight, day="2013-01-01", scheduled=hour, **schedule)
        server.do("Depart", flight=flight, aircraft=f"NT{number}", departed="2013-01-01T15:00:00Z")
    expect(late).to_have_text(str(before + 40))
    page.wait_for_function(
        "before => document.querySelector('#chart canvas').toDataURL() !== before", arg=drawn
    )
    tab.close()


def test_forms_work_without_scripts(browser: Browser, server: Server) -> None:
    tab = Tab(browser, server, "/board/LGA", java_script_enabled=False)
    page = tab.page
    page.locator("tr.scheduled .flight a").first.click()
    page.get_by_label("Another aircraft").fill("N4242")
    page.get_by_role("button", name="Swap").click()
    expect(page.get_by_role("heading", name="Aircraft swapped")).to_be_visible()
    page.get_by_label("Another aircraft").fill("N4242")
    page.get_by_role("button", name="Swap").click()
    expect(page.locator("main")).to_contain_text("Flight has this aircraft already")
    page.go_back()
    page.get_by_role("button", name="Cancel the flight").click()
    expect(page.get_by_role("heading", name="Flight cancelled")).to_be_visible()
    expect(page.get_by_role("button", name="Cancel the flight")).to_have_count(0)
    tab.close()


def ask(server: Server, method: str, path: str, **headers: str) -> tuple[int, dict[str, str]]:
    connection = HTTPConnection(urlsplit(server.url).netloc, timeout=30)
    try:
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, b"key=k" if method == "POST" else None, told)
        answer = connection.getresponse()
        answer.read()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}
    finally:
        connection.close()


def test_pages_of_other_sites_send_nothing(server: Server) -> None:
    for path in (f"/flights/{FLIGHT}/cancel", "/clock", "/lag", "/api/commands/Cancel"):
        for origin in ("https://evil.example", "null"):
            assert ask(server, "POST", path, Origin=origin)[0] == 403, (path, origin)
    assert ask(server, "GET", "/board/EWR", Host="evil.example")[0] == 421
    assert ask(server, "POST", "/lag", Origin=server.url)[0] == 303


def test_visitors_who_have_left_make_room_for_others(server: Server) -> None:
    """There are 200 places; so many come and go, some of them before the first answer."""
    path = "/board/JFK/live"
    for _ in range(STREAMS + 50):
        visitor = HTTPConnection(urlsplit(server.url).netloc, timeout=30)
        visitor.request("GET", path)
        assert visitor.getresponse().status == 200
        visitor.close()
    together = [HTTPConnection(urlsplit(server.url).netloc, timeout=30) for _ in range(20)]
    for visitor in together:
        visitor.request("GET", path)
        answer = visitor.getresponse()
        assert answer.status == 200
        assert answer.readline() == b"retry: 1000\n"
    for visitor in together:
        visitor.close()


def test_no_page_allows_inline_scripts_or_other_servers(server: Server) -> None:
    for path in (*PAGES, "/static/page.js"):
        policy = ask(server, "GET", path)[1]["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'"), path
        assert "unsafe" not in policy
        assert "http" not in policy


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/flights/none", 404),
        ("GET", "/flights/none/settled", 422),
        ("GET", "/board/EWR/then?position=zero", 200),
        ("GET", "/board/EWR/then?position=99999999999", 200),
        ("GET", "/aircraft/N0?day=yesterday", 200),
        ("GET", f"/flights/{FLIGHT}?after=nonsense", 422),
        ("POST", "/clock", 422),
        ("POST", "/flights/none/cancel", 409),
        ("POST", "/flights/none/swap", 422),
        ("GET", "/flights/none/swap", 405),
    ],
)
def test_what_makes_no_sense_is_answered_with_a_page(
    server: Server, method: str, path: str, status: int
) -> None:
    found, headers = ask(server, method, path)
    assert found == status
    assert headers["content-type"] == "text/html; charset=utf-8"
