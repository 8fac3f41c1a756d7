"""The contract of view stores: what `diptych.read.port.ViewStore` promises, as tests.

class TestMyViews(ViewStoreContract):
async def make_store(self) -> ViewStore:
return MyViews(...)
"""

from diptych.testing.contracts.views.desk import DeskContract
from diptych.testing.contracts.views.queries import QueryContract
from diptych.testing.contracts.views.rows import RowContract
from diptych.testing.contracts.views.sessions import SessionContract
from diptych.testing.contracts.views.sorting import SortContract
from diptych.testing.contracts.views.spans import SpanContract
from diptych.testing.contracts.views.steps import StepContract


class ViewStoreContract(
    RowContract,
    StepContract,
    SpanContract,
    DeskContract,
    QueryContract,
    SortContract,
    SessionContract,
):
    """What every view store does. Subclass it and say how to make one: see `StoreMaker`."""


__all__ = ["ViewStoreContract"]
