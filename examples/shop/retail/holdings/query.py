from msgspec import Struct
from sqlalchemy import func

from diptych import Module, Query, Views, select
from examples.shop.retail.holdings import view
from examples.shop.retail.holdings.view import Holding

module = Module("holdings-queries", view.module)


class HoldingsOf(Query[list[Holding]]):
    """What a customer holds."""

    customer: str


@module.answers
async def holdings_of(query: HoldingsOf, views: Views) -> list[Holding]:
    return await views.all(
        select(Holding).where(Holding.customer == query.customer).order_by(Holding.code)
    )


class Held(Struct, frozen=True):
    """What all customers hold together."""

    pairs: int  # of a customer and a product
    pieces: int


class AllHeld(Query[Held]):
    """The sum of all holdings."""


@module.answers
async def all_held(_query: AllHeld, views: Views) -> Held:
    summed = select(func.count(), func.coalesce(func.sum(Holding.pieces), 0)).select_from(Holding)
    [(pairs, pieces)] = await views.rows(summed)
    return Held(pairs, pieces)
