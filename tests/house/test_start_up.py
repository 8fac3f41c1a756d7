"""Importing is light: what a program does not use is not loaded."""

import subprocess
import sys

HEAVY = {"sqlalchemy", "asyncio", "cyclopts", "rich", "hypothesis", "pytest"}


def modules_imported_by(program: str, *arguments: str) -> set[str]:
    """The full names of all modules that a fresh interpreter imports while it runs the program."""
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    report, imported = run.stdout, set[str]()
    for line in run.stderr.splitlines():
        if line.startswith("import time:"):
            imported.add(line.rpartition("|")[2].strip())
        else:
            report += line + "\n"
    assert run.returncode == 0, report
    return imported


def test_import_diptych_loads_nothing_heavy() -> None:
    imported = modules_imported_by("import diptych")
    assert "diptych" in imported
    assert not imported & HEAVY


def test_the_help_of_the_command_line_does_not_load_the_database_side() -> None:
    imported = modules_imported_by("from diptych.cli import main; main()", "--help")
    assert "diptych.cli" in imported
    assert not imported & {"sqlalchemy", "hypothesis", "pytest"}
