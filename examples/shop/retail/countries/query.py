from diptych import Module, Query, Views, column, select
from examples.shop.retail.countries import view
from examples.shop.retail.countries.view import CountrySales

module = Module("countries-queries", view.module)


class SalesByCountry(Query[list[CountrySales]]):
    """All countries, the one with most sales first."""


@module.answers
async def sales_by_country(_query: SalesByCountry, views: Views) -> list[CountrySales]:
    by_sales = column(CountrySales.gross).desc()
    return await views.all(select(CountrySales).order_by(by_sales, CountrySales.country))
