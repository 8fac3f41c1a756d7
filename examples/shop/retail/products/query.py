from diptych import Module, Query, Views, column, select
from examples.shop.retail.products import view
from examples.shop.retail.products.view import ProductSales

module = Module("products-queries", view.module)


class SalesByProduct(Query[list[ProductSales]]):
    """The goods with most sales."""

    limit: int = 20


@module.answers
async def sales_by_product(query: SalesByProduct, views: Views) -> list[ProductSales]:
    return await views.all(
        select(ProductSales)
        .where(ProductSales.goods)
        .order_by(column(ProductSales.gross).desc(), ProductSales.code)
        .limit(query.limit)
    )


class Product(Query[ProductSales | None]):
    """One product; None: it was never sold."""

    code: str


@module.answers
async def product(query: Product, views: Views) -> ProductSales | None:
    return await views.get(ProductSales, query.code.upper())
