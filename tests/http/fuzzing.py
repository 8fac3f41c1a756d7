"""Requests made up from /openapi.json by schemathesis, all phases.

`python -m tests.http.fuzzing --requests 20000` says how many were sent and what was found.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.house.paths import ROOT

HERE = Path(__file__).parent
BROKEN = "(/Break|/Crash)$"
"""Addresses left out: they are broken on purpose."""

MAIN = """
import asyncio, json, sys
from diptych.cli.loading import load
from diptych.http import Limits, service
from diptych.http.serving import bound, run

def started(url):
    print(json.dumps({"url": url}), flush=True)

async def serve(app, at, stream):
    async with load(app).open(log=at, views=at) as running:
        with bound("127.0.0.1", 0) as sock:
            api = service(running, limits=Limits(stream=float(stream)))
            await run(api, sock, "uvicorn", grace=5, started=started)

asyncio.run(serve(*sys.argv[1:]))
"""


class Serving(NamedTuple):
    """A process that serves, and where."""

    url: str
    pid: int


@contextmanager
def serving(app: str, folder: Path, *, stream: float = 3600.0) -> Generator[Serving]:
    """Serve an application in a process of its own; ``stream``: for how many seconds streams go."""
    at = f"sqlite:///{folder}/fuzz.db"
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, app, at, str(stream)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield Serving(json.loads(process.stdout.readline())["url"], process.pid)
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def fuzz(
    app: str, folder: Path, *, examples: int, seed: int, exclude_checks: str = ""
) -> tuple[int, str, int]:
    """Run schemathesis once; return its exit status, its report and how many requests it sent."""
    # Streams end soon: who makes requests up waits for the end of each answer.
    with serving(app, folder, stream=0.02) as served:
        words = ["--config-file", str(HERE / "schemathesis.toml")]
        words += ["run", f"{served.url}/openapi.json", "--exclude-path-regex", BROKEN]
        words += ["-n", str(examples), "--seed", str(seed), "--suppress-health-check", "all"]
        words += ["--continue-on-failure", "--no-color"]
        if exclude_checks:
            words += ["--exclude-checks", exclude_checks]
        run = subprocess.run(
            [str(Path(sys.executable).with_name("schemathesis")), *words],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": "tests.http.hooks"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    found = re.search(r"(\d+) generated", run.stdout)
    return run.returncode, run.stdout, int(found[1]) if found else 0


def main() -> int:
    """Fuzz until so many requests have been sent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--app", default="tests.http.shop:app")
    given = parser.parse_args()
    sent, seed = 0, given.seed
    while sent < given.requests:
        with tempfile.TemporaryDirectory() as folder:
            status, report, count = fuzz(given.app, Path(folder), examples=300, seed=seed)
        sent += count
        print(f"seed {seed}: {count:,} requests, {sent:,} in all, status {status}", flush=True)
        if status or not count:
            print(report)
            return 1
        seed += 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
