from diptych import Module, Query, Views, select
from examples.shop.retail.totals import view
from examples.shop.retail.totals.view import Total

module = Module("totals-queries", view.module)


class Totals(Query[list[Total]]):
    """The totals of every type of event."""


@module.answers
async def totals(_query: Totals, views: Views) -> list[Total]:
    return await views.all(select(Total).order_by(Total.event))
