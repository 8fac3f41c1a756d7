"""The reference of metrics and the dashboard say what the code does."""

import json
import re
from collections.abc import Iterator
from importlib.resources import files
from itertools import combinations
from typing import Any

from diptych.app.measuring import LOOK_SECONDS
from diptych.telemetry.declared import METRICS, MOST_LINKS
from tests.docs.telemetry_page import PAGE, page

BOARD: dict[str, Any] = json.loads(
    files("diptych.telemetry").joinpath("dashboard.json").read_text()
)
EXPOSED = {
    metric.exposed + suffix: metric
    for metric in METRICS
    for suffix in (("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",))
}
GIVEN = {"job", "instance"}
"""The labels that Prometheus adds."""


def test_the_reference_is_what_is_declared() -> None:
    text = PAGE.read_text()
    assert text == page(text), "run `python -m tests.docs.telemetry_page`"
    assert f"at most {MOST_LINKS} commands" in text
    assert f"every {LOOK_SECONDS:g} s" in text


def expressions() -> Iterator[tuple[str, str]]:
    """Each query of the dashboard, and where it stands."""
    for panel in BOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for variable in BOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]["query"]


HOW_TO = (PAGE.parent.parent / "how-to" / "watch-an-application-in-production.md").read_text()


def test_the_how_to_names_metrics_that_there_are() -> None:
    alerts = re.findall(r"expr: (.+)", HOW_TO)
    assert len(alerts) >= 5
    assert {name for each in alerts for name in names(each)} <= EXPOSED.keys()


def names(expression: str) -> set[str]:
    return set(re.findall(r"\bdiptych_\w+", expression))


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    wrong = [(at, names(asked) - EXPOSED.keys()) for at, asked in expressions()]
    assert len(wrong) >= 25
    assert [(at, unknown) for at, unknown in wrong if unknown] == []


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {EXPOSED[name].name for _, asked in expressions() for name in names(asked)}
    assert {metric.name for metric in METRICS} - shown == set()


def test_the_dashboard_uses_the_labels_that_its_metrics_have() -> None:
    """In selectors, in `by (...)`, and in legends."""
    for at, asked in expressions():
        known = GIVEN | {label for name in names(asked) for label in EXPOSED[name].attributes}
        for name, selector in re.findall(r"\b(diptych_\w+)\{([^}]*)\}", asked):
            labels = set(re.findall(r"(\w+)\s*[=!]", selector))
            assert labels <= GIVEN | set(EXPOSED[name].attributes), (at, name)
        for listed in re.findall(r"\b(?:by|on) \(([^)]*)\)", asked):
            assert {label.strip() for label in listed.split(",")} <= known | {"le"}, at
    for panel in BOARD["panels"]:
        for target in panel.get("targets", ()):
            asked = target["expr"]
            known = GIVEN | {label for name in names(asked) for label in EXPOSED[name].attributes}
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= known


def test_counters_are_shown_as_rates_and_histograms_by_their_buckets() -> None:
    for at, asked in expressions():
        for name in names(asked):
            if at in ("job", "projection"):
                continue
            changing = EXPOSED[name].kind != "gauge"
            inside = re.search(rf"\b(rate|increase)\({name}\b", asked) is not None
            assert changing == inside, (at, asked)
            if name.endswith("_bucket"):
                assert "le) (" in asked, (at, asked)


def test_panels_have_ids_of_their_own_and_do_not_lie_over_each_other() -> None:
    panels = BOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for one, other in combinations([panel["gridPos"] for panel in panels], 2):
        apart = any(
            first[at] + first[size] <= second[at]
            for first, second in ((one, other), (other, one))
            for at, size in (("x", "w"), ("y", "h"))
        )
        assert apart, (one, other)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)
    assert all(panel.get("description") for panel in panels if panel["type"] != "row")
