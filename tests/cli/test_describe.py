"""`diptych describe`."""

from tests.cli.conftest import Cli

TREE = """\
module shop
└── module reading
    ├── projection summary async  One row an order.
    │   ├── keeps Summary  table summary
    │   ├── order: str key, customer: str | None, total: Decimal, pieces: int = 0
    │   └── folds Placed
    ├── query OrdersOf  The orders of a customer.
    │   ├── customer: str, least: Decimal = "0"
    │   └── gives list[Summary]
    ├── query One
    │   ├── order: str
    │   └── gives Summary | None
    ├── query HowMany
    │   └── gives int
    ├── query History
    │   ├── order: str #order
    │   └── gives list[Recorded]
    ├── query Crash
    │   └── gives int
    └── module orders
        ├── command Place  Place an order.
        │   ├── order: str #order, customer: str | None #customer, total: Decimal, \
lines: list[Line] = [], channel: 'web' | 'desk' = "web"
        │   ├── reads order  order:{order}  Placed
        │   └── emits Placed
        ├── command Touch
        │   ├── order: str #order
        │   ├── reads order  order:{order}  Placed
        │   └── emits Placed
        ├── model order
        │   ├── state Order  one for each #order
        │   └── folds Placed
        └── event Placed v2  An order was placed.
            └── order: str #order, customer: str | None #customer, total: Decimal, \
lines: list[Line] = []
"""


def test_it_draws_the_application_as_a_tree(cli: Cli) -> None:
    assert cli("describe") == (0, TREE, "")


def test_it_needs_neither_log_nor_views(cli: Cli) -> None:
    assert cli.bare("--app", "cli_shop:app", "describe").status == 0


def test_a_module_can_be_described_alone(cli: Cli) -> None:
    told = cli.bare("--app", "cli_shop:orders", "describe")
    assert told.status == 0
    assert told.out.startswith("module orders\n├── command Place")


def test_as_json_it_says_the_same(cli: Cli) -> None:
    told = cli("describe", "--json")
    assert told.status == 0
    (reading,) = told.json["modules"]
    (orders,) = reading["modules"]
    place = orders["commands"][0]
    assert place["name"] == "Place"
    assert place["about"] == "Place an order."
    assert place["fields"][:2] == [
        {"name": "order", "type": "str", "required": True, "tags": ["order"]},
        {"name": "customer", "type": "str | None", "required": True, "tags": ["customer"]},
    ]
    assert place["decision"]["boundary"] == [
        {"model": "order", "tags": [{"key": "order", "field": "order"}], "events": ["Placed"]}
    ]
    assert place["decision"]["emits"] == ["Placed"]
    assert place["decision"]["at"].rpartition(":")[0].endswith("cli_shop.py")
    assert orders["models"][0]["state"] == "Order"
    assert [(e["name"], e["version"]) for e in orders["events"]] == [("Placed", 2)]
    (summary,) = reading["projections"]
    assert (summary["name"], summary["kind"], summary["events"]) == ("summary", "async", ["Placed"])
    assert summary["views"][0]["key"] == ["order"]
    assert [q["name"] for q in reading["queries"]] == [
        "OrdersOf",
        "One",
        "HowMany",
        "History",
        "Crash",
    ]
    assert reading["queries"][0]["answer"] == "list[Summary]"
