"""The front door is guarded: a name enters or leaves it on purpose only."""

import importlib

from tests.house.public_names import SNAPSHOT, public_names


def test_public_names_equal_the_checked_in_snapshot() -> None:
    before, now = set(SNAPSHOT.read_text().split()), set(public_names())
    assert before == now, (
        "The public names have changed "
        f"[new: {sorted(now - before)}, gone: {sorted(before - now)}]. "
        "When this is intended, run `make names` and add a line to CHANGELOG.md."
    )


def test_every_public_name_can_be_imported() -> None:
    missing: list[str] = []
    for qualified in public_names():
        package, _, name = qualified.rpartition(".")
        if not hasattr(importlib.import_module(package), name):
            missing.append(qualified)
    assert not missing, f"listed in __all__ but not there: {missing}"
