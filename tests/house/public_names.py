"""The public names of the library, one a line; `make names` writes the snapshot anew."""

import importlib
import pkgutil
from pathlib import Path

import diptych

SNAPSHOT = Path(__file__).with_name("public_names.txt")


def public_names() -> list[str]:
    """`package.name` for each name in the `__all__` of diptych and of its public subpackages."""
    packages = ["diptych"] + [
        module.name
        for module in pkgutil.walk_packages(diptych.__path__, "diptych.")
        if module.ispkg and not any(part.startswith("_") for part in module.name.split("."))
    ]
    return sorted(
        f"{package}.{name}"
        for package in packages
        for name in getattr(importlib.import_module(package), "__all__", ())
    )


def write_snapshot() -> None:
    """Replace the snapshot by the names of today."""
    SNAPSHOT.write_text("".join(f"{name}\n" for name in public_names()))


if __name__ == "__main__":
    write_snapshot()
    print(f"{len(public_names())} public names written to {SNAPSHOT.name}")
