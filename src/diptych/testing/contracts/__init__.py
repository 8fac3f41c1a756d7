"""The contracts of the ports. A new adapter's test is a class of a few lines:

    class TestMyLog(LogContract):
        async def make_log(self) -> Log:
            return await MyLog.open(...)

The tests are coroutines: run them with a pytest plugin for asyncio, in its auto mode.
"""

from diptych.testing.contracts.appending import AppendContract
from diptych.testing.contracts.conditions import ConditionContract
from diptych.testing.contracts.keys import KeyContract
from diptych.testing.contracts.model import ModelContract
from diptych.testing.contracts.reading import ReadContract
from diptych.testing.contracts.waiting import WaitContract


class LogContract(
    AppendContract, ConditionContract, KeyContract, ReadContract, WaitContract, ModelContract
):
    """What every log does. Subclass it and say how to make one: see `LogMaker`."""


__all__ = ["LogContract"]
