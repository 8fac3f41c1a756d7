"""The demonstration runs, without a terminal too, and shows what it should."""

import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

from tests.examples.flights.expected import needs_flights
from tests.house.paths import ROOT


@needs_flights
def test_the_demo_shows_answers_a_rejection_and_the_proof(tmp_path: Path) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "examples.flights", "demo"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stderr == ""
    lines = shown.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    for said in (
        "18,262 commands became 18,262 events",
        "EWR, 03 January 2013",
        "Punctuality",
        "Rejected commands: none",
        "rejected: aircraft is in the air (aircraft: N14228, on_flight: 20140101T17-DX1)",
        "DX1 has departed",
        "Has each view applied each of its events exactly once?",
        "diptych ask History flight=20130101T10-UA1545",
        "diptych verify",
    ):
        assert said in shown.stdout, said
    assert shown.stdout.count("complete, nothing twice") == 4
    assert "…" not in shown.stdout


@needs_flights
def test_the_demo_serves_the_board_where_it_is_asked_to(tmp_path: Path) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "examples.flights", "demo", "--page", "--no-browser"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert demo.stdout is not None
        said = next(line for line in demo.stdout if line.startswith("The board is at "))
        with urlopen(said.split()[4], timeout=30) as page:
            assert "Newark Liberty" in page.read().decode()
        demo.send_signal(signal.SIGINT)
        out, err = demo.communicate(timeout=30)
        assert (demo.returncode, out, err) == (0, "", "")
    finally:
        demo.kill()
        demo.communicate()
