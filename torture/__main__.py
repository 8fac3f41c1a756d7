"""``python -m torture --run histories --seed 1 --seconds 60 [--backend postgresql]``.

A campaign goes on where the ledger says that it stopped: the same run, backend and seed. Without
``--seconds`` it never ends by itself. The exit status is 1 when a violation was found.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

from diptych.errors import SqliteVersionWarning
from torture import backends, ledger
from torture.runs import BACKENDS, RUNS, SQLITE, one_round

SAVE_SECONDS = 10.0
TURN_SECONDS = 60.0


def main() -> int:
    """Run a campaign, or all of them in turn."""
    parser = argparse.ArgumentParser(prog="torture", description="Look for what breaks.")
    parser.add_argument("--run", required=True, choices=[*RUNS, "all"])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.0, help="0: until it is interrupted")
    parser.add_argument("--rounds", type=int, default=0, help="at most so many rounds")
    parser.add_argument("--backend", choices=BACKENDS, help="default: the run's first")
    parser.add_argument("--ledger", type=Path, default=ledger.LEDGER)
    options = parser.parse_args()
    warnings.simplefilter("ignore", SqliteVersionWarning)
    every = options.run == "all"
    backend = options.backend or (SQLITE if every else RUNS[options.run].backends[0])
    names = [options.run]
    if every:
        names = [name for name, run in RUNS.items() if backend in run.backends]
    # All without end take turns.
    each = TURN_SECONDS if every and not options.seconds else options.seconds / len(names)
    found = 0
    try:
        while True:
            for name in names:
                found += asyncio.run(
                    campaign(
                        name,
                        backend,
                        options.seed,
                        seconds=each,
                        rounds=options.rounds,
                        path=options.ledger,
                    )
                )
            if options.seconds or options.rounds:
                break
    except KeyboardInterrupt:
        print("interrupted; the ledger holds what was done")
    return 1 if found else 0


async def campaign(
    name: str, backend_name: str, seed: int, *, seconds: float, rounds: int, path: Path
) -> int:
    """Do rounds until the time is over; return how many violations were found."""
    run = RUNS[name]
    if backend_name not in run.backends:
        raise SystemExit(f"{name} runs on: {', '.join(run.backends)}")
    before = ledger.last(name, backend_name, seed, path)
    number = before.rounds if before else 0
    done = before.done if before else 0
    total = before.violations if before else 0
    spent = before.seconds if before else 0.0
    began = saved = time.monotonic()
    first, found_now = number, 0
    print(f"{name} on {backend_name}, seed {seed}: from round {number}, {done} {run.unit} done")

    def save(found: list[str]) -> None:
        line = ledger.Line(
            name,
            backend_name,
            seed,
            number,
            done,
            run.unit,
            total,
            round(spent + time.monotonic() - began, 1),
            found,
            ledger.versions(version),
            ledger.now(),
        )
        ledger.write(line, path)

    with (
        tempfile.TemporaryDirectory(prefix="diptych-torture-") as folder,
        backends.backend(backend_name, Path(folder)) as made,
    ):
        version = made.version
        try:
            while (not seconds or time.monotonic() - began < seconds) and (
                not rounds or number - first < rounds
            ):
                try:
                    left = began + seconds - time.monotonic() if seconds else 0.0
                    found = await one_round(run, made.within, seed, number, left)
                except Exception as error:
                    traceback.print_exc()
                    found = [f"The round itself failed: {error!r}"]
                number += 1
                done += run.units
                total += len(found)
                found_now += len(found)
                for text in found:
                    print(f"round {number - 1}: {text}")
                if found or time.monotonic() - saved > SAVE_SECONDS:
                    save(found[:20])
                    saved = time.monotonic()
        finally:
            save([])
    print(f"{name}: {done} {run.unit}, {total} violations")
    return found_now


if __name__ == "__main__":
    sys.exit(main())
