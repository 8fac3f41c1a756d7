"""The measured application with four projections, as a whole service may have them."""

from __future__ import annotations

import functools

from bench import orders
from bench.orders import Added, Opened
from diptych import App, Key, View

app = App("bench", orders.app)


class Customer(View, table="customers"):
    customer: Key[str]
    orders: int


class Product(View, table="products"):
    product: Key[str]
    quantity: int


class Item(View, table="items", indexes=(("product",),)):
    order: Key[str]
    product: Key[str]
    quantity: int


@app.projects(Customer)
def customers(row: Customer | None, event: Opened) -> Customer:
    return Customer(event.customer, (row.orders if row else 0) + 1)


@app.projects(Product)
def products(row: Product | None, event: Added) -> Product:
    return Product(event.product, (row.quantity if row else 0) + event.quantity)


@app.projects(Item)
def items(row: Item | None, event: Added) -> Item:
    quantity = (row.quantity if row else 0) + event.quantity
    return Item(event.order, event.product, quantity)


later = App("bench")
"""The next version of the four: their keys fall into other slices, so each is built anew."""

for view, fold in (
    (orders.Summary, orders.summary),
    (Customer, customers),
    (Product, products),
    (Item, items),
):
    later.projects(view, slices=32)(fold)

opened = functools.partial(orders.opened, of=app)
opened_later = functools.partial(orders.opened, of=later)
