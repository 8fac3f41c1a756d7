"""``python -m examples.flights board`` in a process of its own, and a browser that looks at it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.house.paths import ROOT

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next((found for name in NAMES if (found := shutil.which(name))), None)
SINCE = "2013-01-01T15:10"
"""Ten past ten in New York."""

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason=f"no Chromium on the PATH [looked for: {', '.join(NAMES)}]"
)


class Server:
    """The board, on one port and one log; stopped and started again."""

    def __init__(self, folder: Path, since: str = SINCE) -> None:
        self._folder = folder
        self._since = since
        self._process: subprocess.Popen[str] | None = None
        self._port = 0
        self.url = ""

    def start(self, *options: str) -> None:
        """Start it, and wait until it says where it is."""
        at = [f"--{name}=sqlite:///{self._folder}/{name}.db" for name in ("log", "views")]
        command = [sys.executable, "-W", "ignore", "-m", "examples.flights", "board", *at]
        with (self._folder / "stderr").open("w") as errors:
            self._process = subprocess.Popen(
                [
                    *command,
                    f"--since={self._since}",
                    f"--port={self._port}",
                    "--no-browser",
                    *options,
                ],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, "NO_COLOR": "1"},
            )
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        assert said.startswith("The board is at http://127.0.0.1:"), self.errors()
        self.url = said.split()[4].rstrip("/")
        self._port = int(self.url.rpartition(":")[2])

    def stop(self) -> None:
        """Stop it as Ctrl-C does; it has complained about nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        out, _ = self._process.communicate(timeout=30)
        assert (self._process.returncode, out, self.errors()) == (0, "", "")

    def kill(self) -> None:
        """End it at once, as a power cut does."""
        assert self._process is not None
        self._process.kill()
        self._process.communicate(timeout=30)

    def use(self, folder: Path) -> None:
        """Have it started next on another log."""
        self._folder = folder

    def errors(self) -> str:
        """What it has written to stderr."""
        return (self._folder / "stderr").read_text()

    def do(self, name: str, **fields: Any) -> dict[str, Any]:
        """Send a command to the application's own door."""
        request = Request(
            f"{self.url}/api/commands/{name}",
            json.dumps(fields).encode(),
            {"Content-Type": "application/json"},
        )
        with urlopen(request, timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)
        return found


@contextmanager
def served(folder: Path, *options: str, since: str = SINCE) -> Generator[Server]:
    """Serve the board, by default with a clock that stands still."""
    server = Server(folder, since)
    server.start(*(options or ("--speed=0",)))
    try:
        yield server
    except BaseException:
        server.kill()
        raise
    else:
        server.stop()


@contextmanager
def chromium() -> Generator[Browser]:
    """Open the system's Chromium, without a window."""
    with sync_playwright() as playwright:
        # As root, as builds often run, it has no sandbox.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


class Tab:
    """A page in a window of its own; what its console said, and where it asked."""

    def __init__(self, browser: Browser, server: Server, path: str, **context: Any) -> None:
        self.context = browser.new_context(base_url=server.url, **context)
        self.context.set_default_timeout(15_000)
        self.page: Page = self.context.new_page()
        self.said: list[str] = []
        self.asked: set[str] = set()
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.add(request.url))
        self.page.goto(path)

    def close(self) -> None:
        self.context.close()
