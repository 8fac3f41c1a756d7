"""Where the parts of the house are."""

from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "diptych"
TREES = [SOURCE, ROOT / "examples", ROOT / "bench", ROOT / "torture", ROOT / "tests"]


def python_files(*trees: Path) -> Iterator[Path]:
    """Each Python file below the trees."""
    for tree in trees:
        yield from sorted(tree.rglob("*.py"))


def relative(path: Path) -> str:
    """The path as one writes it at the root of the repository."""
    return path.relative_to(ROOT).as_posix()
