"""The Online Retail file and the answers computed from it by other means, where they are."""

import json
import os
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
FOLDER = ROOT.parent / "shared" / "data" / "online-retail"
FILE = FOLDER / "online_retail.csv.xz"
ANSWERS = FOLDER / "expected.json"

needs_data = pytest.mark.skipif(
    not (FILE.exists() and ANSWERS.exists()),
    reason="the Online Retail file is not here: ../shared/data/online-retail",
)
whole_file = pytest.mark.skipif(
    "DIPTYCH_WHOLE_FILES" not in os.environ,
    reason="takes a minute; set DIPTYCH_WHOLE_FILES=1 to load the whole file",
)

FIRST_DAY = datetime(2010, 12, 2)
DECEMBER = datetime(2011, 1, 1)


@cache
def expected() -> dict[str, Any]:
    """The answers."""
    answers: dict[str, Any] = json.loads(ANSWERS.read_text())
    return answers
