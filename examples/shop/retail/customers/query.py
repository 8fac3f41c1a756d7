from diptych import Module, Query, Views, column, select
from examples.shop.retail.customers import view
from examples.shop.retail.customers.view import CustomerSales

module = Module("customers-queries", view.module)


class SalesByCustomer(Query[list[CustomerSales]]):
    """The customers who bought most."""

    limit: int = 20


@module.answers
async def sales_by_customer(query: SalesByCustomer, views: Views) -> list[CustomerSales]:
    return await views.all(
        select(CustomerSales)
        .order_by(column(CustomerSales.gross).desc(), CustomerSales.customer)
        .limit(query.limit)
    )


class Customer(Query[CustomerSales | None]):
    """One customer; None: they have not ordered anything."""

    customer: str


@module.answers
async def customer(query: Customer, views: Views) -> CustomerSales | None:
    return await views.get(CustomerSales, query.customer)
