"""``python -m bench [--only 1,2] [--rounds 5]``: print a table, write build/bench/results.json."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sqlite3
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from bench.floor import Floor
from bench.orders import Open, app, workload
from diptych import Rejected, Running
from diptych.errors import SqliteVersionWarning

Measure = Callable[[Path, int], Awaitable[float]]
BUILD = Path(__file__).parents[1] / "build" / "bench"


class Scenario(msgspec.Struct, frozen=True):
    number: int
    name: str
    in_flight: int
    ours: Measure
    floor: Measure
    required: float | None = None  # commands a second


class Row(msgspec.Struct, frozen=True):
    scenario: int
    name: str
    backend: str
    subject: str
    in_flight: int
    unit: str
    rounds: list[float]
    median: float


class Bar(msgspec.Struct, frozen=True):
    name: str
    required: float
    measured: float
    held: bool


# --- the scenarios --------------------------------------------------------------------------------


async def orders(folder: Path, in_flight: int) -> float:
    """Order workloads, each client at its own orders; commands a second."""
    each = max(8, 4096 // in_flight)

    async def client(running: Running, number: int) -> None:
        for turn in range(each):
            for command in workload(f"o-{number}-{turn}"):
                await running.do(command)

    log = f"sqlite:///{folder}/orders.db"
    async with app.open(log=log, views="memory:", projections=False) as running:
        began = time.perf_counter()
        await asyncio.gather(*[client(running, n) for n in range(in_flight)])
        return in_flight * each * 4 / (time.perf_counter() - began)


async def hot(folder: Path, in_flight: int) -> float:
    """All clients at one order: every command is decided, and most are accepted."""
    each = 16_384 // in_flight

    async def client(running: Running, number: int) -> None:
        for turn in range(each):
            try:
                await running.do(workload("hot")[1 + (number + turn) % 2])
            except Rejected:
                raise AssertionError("an order that is open takes items") from None

    log = f"sqlite:///{folder}/hot.db"
    async with app.open(log=log, views="memory:", projections=False) as running:
        await running.do(Open("hot", "ann"))
        began = time.perf_counter()
        await asyncio.gather(*[client(running, n) for n in range(in_flight)])
        return in_flight * each / (time.perf_counter() - began)


def floor(each_own: bool) -> Measure:
    """The same number of bare conditional appends."""

    async def measure(folder: Path, in_flight: int) -> float:
        each = max(32, 16_384 // in_flight)
        bare = Floor(folder / "floor.db")

        async def client(number: int) -> None:
            for turn in range(each):
                await bare.append(f"order:o-{number}-{turn // 4}" if each_own else "order:hot")

        began = time.perf_counter()
        await asyncio.gather(*[client(n) for n in range(in_flight)])
        seconds = time.perf_counter() - began
        await bare.close()
        return in_flight * each / seconds

    return measure


SCENARIOS = [
    Scenario(1, "order workload", 1, orders, floor(True)),
    Scenario(1, "order workload", 32, orders, floor(True)),
    Scenario(1, "order workload", 256, orders, floor(True), required=15_000),
    Scenario(2, "one hot boundary", 256, hot, floor(False), required=5_000),
]


# --- running them ---------------------------------------------------------------------------------


def run(scenario: Scenario, rounds: int) -> list[Row]:
    """Measure ours and the floor in turn; a round of each is thrown away first."""
    figures: dict[str, list[float]] = {"diptych": [], "bare group commit": []}
    for turn in range(rounds + 1):
        for subject, measure in zip(figures, (scenario.ours, scenario.floor), strict=True):
            with tempfile.TemporaryDirectory(dir=BUILD) as folder:
                figure = asyncio.run(_measured(measure, Path(folder), scenario.in_flight))
            if turn:
                figures[subject].append(round(figure, 1))
    return [
        Row(
            scenario.number,
            scenario.name,
            "sqlite",
            subject,
            scenario.in_flight,
            "commands/s",
            found,
            statistics.median(found),
        )
        for subject, found in figures.items()
    ]


async def _measured(measure: Measure, folder: Path, in_flight: int) -> float:
    return await measure(folder, in_flight)


def main() -> int:
    """Run what is asked for; 1 when a bar does not hold."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--only", default="", help="numbers of scenarios, as in 1,2")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    only = {int(number) for number in options.only.split(",") if number}
    warnings.simplefilter("ignore", SqliteVersionWarning)
    BUILD.mkdir(parents=True, exist_ok=True)
    conditions = _conditions(options.rounds)
    console = Console()
    console.print(" · ".join(f"{name} {value}" for name, value in conditions.items()))
    table = Table("scenario", "in flight", "diptych", "floor", "ratio", "bar", box=None)
    rows: list[Row] = []
    bars: list[Bar] = []
    for scenario in SCENARIOS:
        if only and scenario.number not in only:
            continue
        ours, bare = run(scenario, options.rounds)
        rows += [ours, bare]
        bar = ""
        if scenario.required is not None:
            held = ours.median >= scenario.required
            name = f"{scenario.name}, {scenario.in_flight} in flight, SQLite, commands/s"
            bars.append(Bar(name, scenario.required, ours.median, held))
            bar = f"{scenario.required:,.0f} {'held' if held else 'MISSED'}"
        table.add_row(
            f"{scenario.number} {scenario.name}",
            str(scenario.in_flight),
            f"{ours.median:,.0f}/s",
            f"{bare.median:,.0f}/s",
            f"{ours.median / bare.median:.2f}",
            bar,
        )
    console.print(table)
    results: dict[str, Any] = {"conditions": conditions, "rows": rows, "bars": bars}
    (BUILD / "results.json").write_bytes(msgspec.json.format(msgspec.json.encode(results)))
    return 0 if all(bar.held for bar in bars) else 1


def _conditions(rounds: int) -> dict[str, str]:
    return {
        "Python": platform.python_version(),
        "SQLite": f"{sqlite3.sqlite_version}, WAL, synchronous FULL",
        "cores": str(os.cpu_count()),
        "median of": f"{rounds} rounds after one, ours and the floor in turn",
    }


if __name__ == "__main__":
    sys.exit(main())
