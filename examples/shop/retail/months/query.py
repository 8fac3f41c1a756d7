from diptych import Module, Query, Views, select
from examples.shop.retail.months import view
from examples.shop.retail.months.view import MonthSales

module = Module("months-queries", view.module)


class SalesByMonth(Query[list[MonthSales]]):
    """All months in order."""


@module.answers
async def sales_by_month(_query: SalesByMonth, views: Views) -> list[MonthSales]:
    return await views.all(select(MonthSales).order_by(MonthSales.month))
