"""Whatever is sent: no answer but those that are described, and never a 5xx."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.http.fuzzing import fuzz


@pytest.mark.parametrize(
    ("app", "excluded"),
    [
        ("tests.http.shop:app", ""),
        # Its types do not say all: a text of any length, and so on. What they allow is refused.
        ("examples.shop.orders:app", "positive_data_acceptance"),
    ],
)
def test_made_up_requests_find_no_server_error_and_no_breach_of_the_schema(
    app: str, excluded: str, tmp_path: Path
) -> None:
    status, report, sent = fuzz(app, tmp_path, examples=15, seed=7, exclude_checks=excluded)
    assert status == 0, report
    assert sent > 100
