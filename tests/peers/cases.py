"""The test cases that eventsourcing 9.5 ships for third-party stores, for our recorders.

Left out: ``TranscoderTestCase``, which is about their JSON and no store, and of
``eventsourcing.tests.projection`` the cases of an ``EventCountersView``, a read model that a store
writes by its own means: ours are views, see tests/read.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from functools import partial
from typing import ClassVar
from unittest import TestCase, defaultTestLoader

from eventsourcing.utils import Environment, get_topic

from diptych.app.blocking import BlockingLog
from tests.peers.dcb import LogDCBRecorder
from tests.peers.factory import LogFactory
from tests.peers.recorders import (
    LogAggregateRecorder,
    LogApplicationRecorder,
    LogProcessRecorder,
    LogTrackingRecorder,
)

with warnings.catch_warnings():  # `eventsourcing.tests` resets all filters when it is imported
    from eventsourcing.dcb import tests as dcb
    from eventsourcing.tests import application, persistence, projection


class OnALog:
    """What a case is given before it runs."""

    log: BlockingLog


class AggregateRecorder(OnALog, persistence.AggregateRecorderTestCase):
    def create_recorder(self) -> LogAggregateRecorder:
        return LogAggregateRecorder(self.log)


class ApplicationRecorder(OnALog, persistence.ApplicationRecorderTestCase[LogApplicationRecorder]):
    def create_recorder(self) -> LogApplicationRecorder:
        return LogApplicationRecorder(self.log)

    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


class TrackingRecorder(OnALog, persistence.TrackingRecorderTestCase):
    def create_recorder(self) -> LogTrackingRecorder:
        return LogTrackingRecorder(self.log)


class ProcessRecorder(OnALog, persistence.ProcessRecorderTestCase):
    def create_recorder(self) -> LogProcessRecorder:
        return LogProcessRecorder(self.log)


class NonInterleavingNotificationIDs(OnALog, persistence.NonInterleavingNotificationIDsBaseCase):
    def create_recorder(self) -> LogApplicationRecorder:
        return LogApplicationRecorder(self.log)


class DCBRecorder(OnALog, dcb.DCBRecorderTestCase):
    def test_append_read(self) -> None:
        self._test_append_read(LogDCBRecorder(self.log))

    def test_append_subscribe(self) -> None:
        self._test_append_subscribe(LogDCBRecorder(self.log))


class SpecialTrackingRecorder(LogTrackingRecorder):
    """One that a program names instead of ours."""


class Factory(persistence.InfrastructureFactoryTestCase[LogFactory]):
    def setUp(self) -> None:
        self.env = Environment(env=dict(os.environ))
        super().setUp()

    def expected_factory_class(self) -> type[LogFactory]:
        return LogFactory

    def expected_aggregate_recorder_class(self) -> type[LogAggregateRecorder]:
        return LogAggregateRecorder

    def expected_application_recorder_class(self) -> type[LogApplicationRecorder]:
        return LogApplicationRecorder

    def expected_tracking_recorder_class(self) -> type[LogTrackingRecorder]:
        return LogTrackingRecorder

    def tracking_recorder_subclass(self) -> type[LogTrackingRecorder]:
        return SpecialTrackingRecorder

    def expected_process_recorder_class(self) -> type[LogProcessRecorder]:
        return LogProcessRecorder


class ExampleApplication(application.ExampleApplicationTestCase):
    expected_factory_topic = get_topic(LogFactory)


class EventSourcedProjection(projection.EventSourcedProjectionTestCase):
    env: ClassVar[dict[str, str]] = {}


RECORDERS: tuple[type[TestCase], ...] = (
    AggregateRecorder,
    ApplicationRecorder,
    TrackingRecorder,
    ProcessRecorder,
    NonInterleavingNotificationIDs,
    DCBRecorder,
)
APPLICATIONS: tuple[type[TestCase], ...] = (Factory, ExampleApplication, EventSourcedProjection)


def tests_of(cases: tuple[type[TestCase], ...]) -> dict[str, Callable[[], TestCase]]:
    """Return what makes each test of the cases, by name."""
    return {
        f"{case.__name__}.{test}": partial(case, test)
        for case in cases
        for test in defaultTestLoader.getTestCaseNames(case)
    }
