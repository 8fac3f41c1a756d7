"""The infrastructure factory of the eventsourcing library (9.5), by which it finds our recorders.

``PERSISTENCE_MODULE=tests.peers.factory`` and ``DIPTYCH_LOG=<URL>``, in which ``{name}`` stands for
the application and what is kept of it: events and snapshots have logs of their own.
"""

from __future__ import annotations

from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    InfrastructureFactory,
    ProcessRecorder,
)
from eventsourcing.utils import Environment, EnvType, resolve_topic

from diptych.app.blocking import BlockingLog, open_log
from tests.peers.recorders import (
    LogAggregateRecorder,
    LogApplicationRecorder,
    LogProcessRecorder,
    LogTrackingRecorder,
)


class LogFactory(InfrastructureFactory[LogTrackingRecorder]):
    """Makes recorders on logs, which it opens once for each purpose, and closes."""

    def __init__(self, env: Environment | EnvType | None) -> None:
        super().__init__(env)
        self._logs: dict[str, BlockingLog] = {}

    def aggregate_recorder(self, purpose: str = "events") -> AggregateRecorder:
        """Make the recorder of events or of snapshots."""
        return LogAggregateRecorder(self._log(purpose))

    def application_recorder(self) -> ApplicationRecorder:
        """Make the recorder of an application."""
        return LogApplicationRecorder(self._log())

    def tracking_recorder(
        self, tracking_recorder_class: type[LogTrackingRecorder] | None = None
    ) -> LogTrackingRecorder:
        """Make the recorder of a projection: of the class given or named, or our own."""
        topic = self.env.get(self.TRACKING_RECORDER_TOPIC)
        named: type[LogTrackingRecorder] = resolve_topic(topic) if topic else LogTrackingRecorder
        return (tracking_recorder_class or named)(self._log())

    def process_recorder(self) -> ProcessRecorder:
        """Make the recorder of a process."""
        return LogProcessRecorder(self._log())

    def close(self) -> None:
        """Close the logs."""
        for log in self._logs.values():
            log.close()

    def _log(self, purpose: str = "events") -> BlockingLog:
        if purpose not in self._logs:
            url = self.env.get("DIPTYCH_LOG", "memory:")
            self._logs[purpose] = open_log(url.format(name=f"{purpose}_{self.env.name}".lower()))
        return self._logs[purpose]
