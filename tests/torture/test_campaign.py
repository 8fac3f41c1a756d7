"""Campaigns go on where they stopped, and the ledger says what was done."""

from pathlib import Path

from torture.__main__ import campaign
from torture.ledger import Line, last, now, read, write


async def test_a_campaign_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """The next rounds are others than the first, and the totals are of all."""
    path = tmp_path / "ledger.jsonl"
    for _ in range(2):
        assert await campaign("histories", "sqlite", 5, seconds=0, rounds=2, path=path) == 0
    await campaign("histories", "sqlite", 6, seconds=0, rounds=1, path=path)
    five, six = (last("histories", "sqlite", seed, path) for seed in (5, 6))
    assert five is not None
    assert six is not None
    assert (five.rounds, five.done, five.violations, five.unit) == (4, 4, 0, "histories")
    assert six.rounds == 1
    assert "sqlite" in five.versions


def test_a_torn_line_is_left_out(tmp_path: Path) -> None:
    """A campaign that was killed while it wrote the ledger goes on."""
    path = tmp_path / "ledger.jsonl"
    line = Line("kill", "sqlite", 1, 3, 6, "kills", 0, 1.5, [], {}, now())
    write(line, path)
    with path.open("ab") as file:
        file.write(b'{"run":"kill","back')
    assert read(path) == [line]
    write(line, path)
    assert read(path) == [line, line]
