"""What one installs: a light core, every version pinned, a wheel with all that it needs."""

import subprocess
import sys
import zipfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.house.paths import ROOT, SOURCE

WHEELS_IN_A_CORE_INSTALL = 12


def closure(package: str, extras: Iterable[str] = ()) -> set[str]:
    """The names of all distributions that installing `package[extras]` here brings."""
    seen: set[tuple[str, str]] = set()
    waiting = [(canonicalize_name(package), extra) for extra in ["", *extras]]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for line in metadata.requires(name) or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                needed = canonicalize_name(requirement.name)
                waiting += [(needed, wanted) for wanted in ["", *sorted(requirement.extras)]]
    return {name for name, _ in seen}


def pins() -> dict[str, str]:
    """Name and version of each line in constraints/."""
    lines = [
        line
        for path in sorted((ROOT / "constraints").glob("*.txt"))
        for line in path.read_text().splitlines()
        if line and not line.startswith("#")
    ]
    pairs = [line.split("==") for line in lines]
    assert all(len(pair) == 2 for pair in pairs), f"only name==version lines belong here: {lines}"
    names = [canonicalize_name(name) for name, _ in pairs]
    assert len(names) == len(set(names)), "pin each distribution once"
    return dict(zip(names, (version for _, version in pairs), strict=True))


def test_the_core_install_is_at_most_12_wheels() -> None:
    assert len(closure("diptych")) <= WHEELS_IN_A_CORE_INSTALL, sorted(closure("diptych"))


def test_everything_we_install_is_pinned_to_the_version_that_is_here() -> None:
    needed = closure("diptych", ["postgres", "testing", "dev"]) - {"diptych"}
    pinned = pins()
    assert {name: metadata.version(name) for name in sorted(needed)} == {
        name: pinned.get(name, "no pin") for name in sorted(needed)
    }


def test_the_wheel_holds_the_whole_package_and_nothing_else(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
        licenses = [name for name in wheel.namelist() if name.endswith("/LICENSE")]
    source = {
        path.relative_to(SOURCE.parent).as_posix()
        for path in SOURCE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == source
    assert licenses
