"""``diptych metrics``: what log and views can tell about themselves, as Prometheus reads it."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from diptych.cli.options import Given


def metrics(
    *,
    dashboard: Annotated[
        bool, Parameter(help="Print a dashboard for Grafana instead.", negative="")
    ] = False,
    options: Given,
) -> None:
    """Print once, as Prometheus reads them, the metrics that can be told from outside.

    That is what log and views hold: head, positions, lag, and what verify last found. What is
    counted as it happens (commands, queries, latencies) is told by the process that does it.
    """
    import sys

    if dashboard:
        from importlib.resources import files

        sys.stdout.write(files("diptych.telemetry").joinpath("dashboard.json").read_text())
        return
    from diptych.cli.loading import load
    from diptych.cli.running import opened, run
    from diptych.cli.screen import write_json
    from diptych.telemetry.metrics import Telemetry, readings
    from diptych.telemetry.prometheus import exposition

    app = load(options.app)

    async def look() -> Telemetry:
        async with opened(app, options, create="nothing", away=True) as running:
            await running.metrics()
            return running.telemetry

    telemetry = run(look())
    if options.json:
        write_json({"metrics": readings(telemetry, stored=True)})
    else:
        sys.stdout.write(exposition(telemetry, stored=True))
