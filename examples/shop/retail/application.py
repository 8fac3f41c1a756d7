"""The application: all features put together."""

from diptych import App
from examples.shop.retail.adjust_bad_debt import command as adjust_bad_debt
from examples.shop.retail.cancel_lines import command as cancel_lines
from examples.shop.retail.countries import query as countries
from examples.shop.retail.customers import query as customers
from examples.shop.retail.holdings import query as holdings
from examples.shop.retail.months import query as months
from examples.shop.retail.move_stock import command as move_stock
from examples.shop.retail.place_order import command as place_order
from examples.shop.retail.products import query as products
from examples.shop.retail.totals import query as totals

app = App(
    "retail",
    place_order.module,
    cancel_lines.module,
    adjust_bad_debt.module,
    move_stock.module,
    countries.module,
    months.module,
    products.module,
    customers.module,
    holdings.module,
    totals.module,
)
