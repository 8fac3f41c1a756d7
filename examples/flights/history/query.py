from diptych import Events, Module, Query, Recorded

module = Module("history")


class History(Query[list[Recorded]]):
    """Everything that happened to a flight, in order."""

    flight: str


@module.answers
async def history(query: History, events: Events) -> list[Recorded]:
    return await events.read(tags=[f"flight:{query.flight}"])
