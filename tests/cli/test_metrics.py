"""`diptych metrics`."""

import json

from prometheus_client.parser import text_string_to_metric_families

from diptych.telemetry.declared import METRICS
from tests.cli.conftest import Cli


def test_metrics_of_log_and_views_are_printed_as_prometheus_reads_them(filled: Cli) -> None:
    """Those of the process that works are not: this one has done nothing."""
    said = filled("metrics")
    assert (said.status, said.err) == (0, "")
    found = {
        sample.name: (sample.labels, sample.value)
        for family in text_string_to_metric_families(said.out)
        for sample in family.samples
    }
    at = {"projection": "summary", "slices": "0-63"}
    assert found["diptych_log_head"] == ({}, 3)
    assert found["diptych_projection_position"] == (at, 0)
    assert found["diptych_projection_lag_events"] == (at, 3)
    assert found.keys() <= {metric.exposed for metric in METRICS if metric.stored}


def test_looking_at_metrics_applies_nothing(filled: Cli) -> None:
    assert filled("metrics").out.count("\n") > 3
    assert filled("status", "--json").json["projections"][0]["position"] == 0


def test_metrics_as_json(filled: Cli) -> None:
    filled("ask", "HowMany")
    found = {one["name"]: one for one in filled("metrics", "--json").json["metrics"]}
    assert found["diptych_projection_position"] == {
        "name": "diptych_projection_position",
        "kind": "gauge",
        "unit": "{event}",
        "attributes": {"projection": "summary", "slices": "0-63"},
        "value": 3,
        "count": None,
        "buckets": None,
    }


def test_the_dashboard_needs_no_application(cli: Cli) -> None:
    said = cli.bare("metrics", "--dashboard")
    assert (said.status, said.err) == (0, "")
    assert json.loads(said.out)["title"] == "Diptych"
