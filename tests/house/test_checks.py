"""Lint, types and import contracts hold over the whole tree (`make check` runs them alone)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.paths import ROOT

BIN = Path(sys.executable).parent

CHECKS = {
    "ruff": ["ruff", "check"],
    "format": ["ruff", "format", "--check"],
    "mypy": ["mypy"],
    "pyright": ["pyright"],
    "imports": ["lint-imports"],
}

# The checker inside the wheel, whatever a developer's machine asks for: no look-up, no download
# (docs/decisions/0001-pyright-from-wheels.md).
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("PYRIGHT_PYTHON_")},
    "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1",
}


@pytest.mark.checks
@pytest.mark.parametrize("name", CHECKS)
def test_check_passes(name: str) -> None:
    program, *arguments = CHECKS[name]
    run = subprocess.run(
        [BIN / program, *arguments],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode != 0:
        pytest.fail(f"{' '.join(CHECKS[name])}\n{run.stdout}{run.stderr}", pytrace=False)
