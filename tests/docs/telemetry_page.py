"""The tables of metrics and spans in the reference, rendered from what is declared.

`python -m tests.docs.telemetry_page` writes them anew; the text around them is written by hand.
"""

from __future__ import annotations

import re

from diptych.telemetry.declared import METRICS, SECONDS, SIZES, SPANS, Metric
from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "reference" / "telemetry.md"


def metrics() -> str:
    """A row for each metric."""
    lines = ["| metric | kind | labels | what it says |", "|---|---|---|---|"]
    for metric in METRICS:
        labels = " ".join(f"`{label}`" for label in metric.attributes)
        about = metric.about + " *Any process.*" * metric.stored
        names = f"`{metric.exposed}`<br>`{metric.name}`{_unit(metric)}"
        lines.append(f"| {names} | {metric.kind} | {labels} | {about} |")
    return "\n".join(lines) + "\n"


def _unit(metric: Metric) -> str:
    return f" in {metric.unit}" if metric.unit else ""


def buckets() -> str:
    """The upper bounds of histograms."""
    seconds, sizes = (", ".join(f"{bound:g}" for bound in found) for found in (SECONDS, SIZES))
    return f"Buckets, in seconds: {seconds}. Of sizes: {sizes}.\n"


def spans() -> str:
    """A row for each span."""
    lines = ["| span | attributes | links to | what it is |", "|---|---|---|---|"]
    for span in SPANS:
        attributes = " ".join(f"`{name}`" for name in span.attributes)
        lines.append(f"| `{span.name}` | {attributes} | {span.links} | {span.about} |")
    return "\n".join(lines) + "\n"


def page(text: str) -> str:
    """Return the page with its tables as they should be."""
    for render in (metrics, buckets, spans):
        begin, end = f"<!-- {render.__name__} -->\n", "<!-- end -->\n"
        pattern = re.escape(begin) + ".*?" + re.escape(end)
        parts = re.split(pattern, text, flags=re.DOTALL)
        assert len(parts) == 2, f"{PAGE.name} has no {begin}"
        text = (begin + render() + end).join(parts)
    return text


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
    print(f"{len(METRICS)} metrics and {len(SPANS)} spans written to {PAGE.name}")
