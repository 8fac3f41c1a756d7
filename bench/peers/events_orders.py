"""The order application written for eventsourcing: an aggregate, an application, a projection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.dispatch import singledispatchmethod
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import IntegrityError, Tracking
from eventsourcing.postgres import PostgresDatastore, PostgresTrackingRecorder
from eventsourcing.projection import Projection
from eventsourcing.utils import retry
from psycopg.sql import SQL


class Order(Aggregate):
    """An order; commands check, events change."""

    class Opened(Aggregate.Created):
        """It was opened."""

        order: str
        customer: str

    class Added(Aggregate.Event):
        """Something was put in."""

        product: str
        quantity: int

    class Confirmed(Aggregate.Event):
        """It was confirmed."""

    @event(Opened)
    def __init__(self, order: str, customer: str) -> None:
        self.order = order
        self.customer = customer
        self.open = True
        self.items = 0

    def add(self, product: str, quantity: int) -> None:
        """Put something in."""
        if not self.open:
            raise ValueError("order is not open")
        self._add(product, quantity)

    @event(Added)
    def _add(self, product: str, quantity: int) -> None:
        self.items += quantity

    def confirm(self) -> None:
        """Close the order."""
        if not self.items:
            raise ValueError("order is empty")
        self._confirm()

    @event(Confirmed)
    def _confirm(self) -> None:
        self.open = False


class Orders(Application[UUID]):
    """Commands: load, decide, append."""

    def open(self, order: str, customer: str) -> UUID:
        """Open an order."""
        opened = Order(order, customer)
        self.save(opened)
        return opened.id

    def add(self, order_id: UUID, product: str, quantity: int) -> None:
        """Put something into an order."""
        order: Order = self.repository.get(order_id)
        order.add(product, quantity)
        self.save(order)

    @retry(IntegrityError, max_attempts=1000, wait=0.001)
    def add_again(self, order_id: UUID, product: str, quantity: int) -> None:
        """Put something into an order that others change too."""
        self.add(order_id, product, quantity)

    def confirm(self, order_id: UUID) -> None:
        """Confirm an order."""
        order: Order = self.repository.get(order_id)
        order.confirm()
        self.save(order)

    def workload(self, name: str) -> None:
        """Run the four commands of one order."""
        order_id = self.open(name, "ann")
        self.add(order_id, "tea", 2)
        self.add(order_id, "cup", 1)
        self.confirm(order_id)


class Summaries(PostgresTrackingRecorder):
    """The view of orders, in a table: a row and the tracking record in one transaction."""

    def __init__(self, datastore: PostgresDatastore, **kwargs: Any) -> None:
        super().__init__(datastore, **kwargs)
        self.sql_create_statements.append(
            SQL(
                "CREATE TABLE IF NOT EXISTS summaries (id uuid PRIMARY KEY, customer text,"
                " items int, status text)"
            ).format()
        )

    def put(self, tracking: Tracking, sql: str, values: Sequence[object]) -> None:
        """Change a row."""
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, tracking)
            cursor.execute(sql.encode(), values, prepare=True)


class SummaryProjection(Projection[Summaries]):
    """What each event does to the view."""

    @singledispatchmethod
    def process_event(self, domain_event: Any, tracking: Tracking) -> None:
        """Pass over what is of no use here."""

    @process_event.register
    def opened(self, domain_event: Order.Opened, tracking: Tracking) -> None:
        """Insert a row."""
        values = (domain_event.originator_id, domain_event.customer)
        sql = "INSERT INTO summaries VALUES (%s, %s, 0, 'open') ON CONFLICT DO NOTHING"
        self.view.put(tracking, sql, values)

    @process_event.register
    def added(self, domain_event: Order.Added, tracking: Tracking) -> None:
        """Count what was added."""
        values = (domain_event.quantity, domain_event.originator_id)
        self.view.put(tracking, "UPDATE summaries SET items = items + %s WHERE id = %s", values)

    @process_event.register
    def confirmed(self, domain_event: Order.Confirmed, tracking: Tracking) -> None:
        """Note that it is confirmed."""
        values = (domain_event.originator_id,)
        sql = "UPDATE summaries SET status = 'confirmed' WHERE id = %s"
        self.view.put(tracking, sql, values)
