"""Peers are synchronous: clients are threads, and they begin together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


def run_threads(threads: int, client: Callable[[int], None]) -> float:
    """Run clients until all are done; return the seconds. The first failure is raised."""
    failures: list[BaseException] = []
    begin = threading.Barrier(threads + 1)

    def run(number: int) -> None:
        begin.wait()
        try:
            client(number)
        except BaseException as error:
            failures.append(error)

    running = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    begin.wait()
    began = time.perf_counter()
    for thread in running:
        thread.join()
    seconds = time.perf_counter() - began
    if failures:
        raise failures[0]
    return seconds
