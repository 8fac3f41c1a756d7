"""Reads and runs the snippets of a Markdown page (what CONTRIBUTING.md says on them).

All snippets of one page share one namespace, one temporary folder and one shell state.
"""

import ast
import asyncio
import importlib
import os
import re
import subprocess
import sys
import textwrap
import types
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

FENCE = re.compile(r"^(?P<indent>\s*)(?P<ticks>`{3,})(?P<language>[\w+-]*)")
COMMENT = re.compile(r"^\s*<!--\s*(?P<name>no-run|file|output|exit):?\s*(?P<value>.*?)\s*-->\s*$")

PYTHON = {"python", "py", "python3"}
SHELL = {"console", "sh", "shell", "bash"}
# Languages that nothing can run here; a word that is not listed is a mistake in the page.
INERT = {"", "text", "json", "toml", "sql", "yaml", "html", "http", "mermaid", "makefile", "diff"}

SECONDS_PER_COMMAND = 120


class SnippetError(AssertionError):
    """A snippet is written wrong, or does not do what its page says."""


@dataclass
class Snippet:
    """One fenced block: its language, its text and the comments right above it."""

    line: int
    language: str
    text: str
    marks: dict[str, str] = field(default_factory=dict[str, str])


def snippets(page: str) -> Iterator[Snippet]:
    """The fenced blocks of a page, in order."""
    marks: dict[str, str] = {}
    lines = enumerate(page.splitlines(), start=1)
    for number, line in lines:
        if comment := COMMENT.match(line):
            marks[comment["name"]] = comment["value"]
        elif fence := FENCE.match(line):
            body: list[str] = []
            for _, inner in lines:
                if inner.strip() == fence["ticks"]:
                    break
                body.append(inner)
            else:
                raise SnippetError(f"line {number}: the block never ends")
            text = textwrap.dedent("\n".join(body)) + "\n"
            yield Snippet(number, fence["language"], text, marks)
            marks = {}
        elif line.strip():
            marks = {}


class Page:
    """Runs the snippets of one page, top to bottom, inside `folder`."""

    def __init__(self, path: Path, folder: Path, root: Path) -> None:
        self.path, self.folder, self.root = path, folder, root
        self.module = types.ModuleType("snippet_" + re.sub(r"\W", "_", path.stem))
        self.printed = ""
        self.state = folder.parent / (folder.name + ".state")

    def run(self) -> None:
        """Run them all; the first that fails raises."""
        before, modules, path = Path.cwd(), set(sys.modules), list(sys.path)
        sys.modules[self.module.__name__] = self.module
        sys.path.insert(0, str(self.folder))
        os.chdir(self.folder)
        try:
            with asyncio.Runner() as self.runner:
                for snippet in snippets(self.path.read_text()):
                    self._run(snippet)
        finally:
            os.chdir(before)
            sys.path[:] = path
            for name in set(sys.modules) - modules:
                if self._is_of_this_page(name):
                    del sys.modules[name]

    def _is_of_this_page(self, name: str) -> bool:
        origin = getattr(sys.modules[name], "__file__", None) or ""
        return sys.modules[name] is self.module or origin.startswith(str(self.folder))

    def _run(self, snippet: Snippet) -> None:
        kind = self._kind(snippet)
        try:
            kind(snippet)
        except Exception as error:
            error.add_note(f"in the snippet at {self.path.name}:{snippet.line}")
            raise

    def _kind(self, snippet: Snippet) -> Callable[[Snippet], None]:
        """What is to be done with a snippet, by its comments and its language."""
        if "no-run" in snippet.marks:
            if not snippet.marks["no-run"]:
                raise SnippetError(f"line {snippet.line}: say why, <!-- no-run: reason -->")
            return self._pass
        if "file" in snippet.marks:
            return self._file
        if "output" in snippet.marks:
            return self._output
        if snippet.language in PYTHON:
            return self._python
        if snippet.language in SHELL:
            return self._shell
        if snippet.language not in INERT:
            raise SnippetError(
                f"line {snippet.line}: nobody knows how to run {snippet.language!r}; "
                "use python or console, or add the language to INERT in tests/docs/snippets.py"
            )
        return self._pass

    def _pass(self, snippet: Snippet) -> None: ...

    def _file(self, snippet: Snippet) -> None:
        """Write the file; a Python file is then imported, its names are there for what follows."""
        name = snippet.marks["file"]
        target = self.folder / name
        if not target.resolve().is_relative_to(self.folder.resolve()):
            raise SnippetError(f"line {snippet.line}: {name} lies outside of the page's folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(snippet.text)
        if target.suffix == ".py":
            for cached in target.parent.glob(f"__pycache__/{target.stem}.*.pyc"):
                cached.unlink()
            importlib.invalidate_caches()
            qualified = ".".join(Path(name).with_suffix("").parts)
            sys.modules.pop(qualified, None)
            with redirect_stdout(StringIO()) as printed:
                imported = importlib.import_module(qualified)
            self.printed = printed.getvalue()
            names = {key: value for key, value in vars(imported).items() if key[:2] != "__"}
            vars(self.module).update(names)

    def _python(self, snippet: Snippet) -> None:
        """Execute in the page's namespace; `await` at the top is allowed."""
        source = "\n" * snippet.line + snippet.text
        code = compile(source, str(self.path), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        namespace = vars(self.module)
        with redirect_stdout(StringIO()) as printed:
            if code.co_flags & 0x80:  # CO_COROUTINE

                async def awaited() -> None:
                    await eval(code, namespace)

                self.runner.run(awaited())
            else:
                exec(code, namespace)
        self.printed = printed.getvalue()

    def _output(self, snippet: Snippet) -> None:
        """Compare with what the Python snippet above has printed."""
        compare(snippet.text, self.printed)

    def _shell(self, snippet: Snippet) -> None:
        """Run each `$ ` line and compare the lines below it with what it prints."""
        steps = commands(snippet)
        for step, (command, expected) in enumerate(steps, start=1):
            status = int(snippet.marks.get("exit", 0)) if step == len(steps) else 0
            run = self._command(command)
            if run.returncode != status:
                raise SnippetError(f"$ {command}\nexit status {run.returncode}\n{run.stdout}")
            if expected.strip():
                compare(expected, run.stdout)

    def _command(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run in a shell that goes on where the last one stopped: folder and exported variables."""
        self.state.touch()
        keep = 'trap \'{ export -p; printf "cd %s\\n" "$PWD"; } >"$SNIPPET_STATE"\' EXIT'
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": f"{self.folder}{os.pathsep}{self.root}",
            "SNIPPET_STATE": str(self.state),
            "COLUMNS": "100",
            "NO_COLOR": "1",
            "TERM": "dumb",
            "PYTHONWARNINGS": "ignore:SQLite:UserWarning",  # a machine's SQLite may be old
        }
        return subprocess.run(
            ["/bin/sh", "-c", f'. "$SNIPPET_STATE"\n{keep}\n{command}'],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS_PER_COMMAND,
            check=False,
        )


def commands(snippet: Snippet) -> list[tuple[str, str]]:
    """The commands of a shell snippet, each with the output written below it."""
    found: list[tuple[str, str]] = []
    lines = iter(snippet.text.splitlines())
    for line in lines:
        if line.startswith("$ "):
            command = line[2:]
            while command.endswith("\\"):
                command += "\n" + next(lines, "").removeprefix("> ")
            found.append((command, ""))
        elif found:
            command, expected = found[-1]
            found[-1] = command, f"{expected}{line}\n"
        elif line.strip():
            raise SnippetError(
                f"line {snippet.line}: a command starts with '$ ' (or mark it no-run): {line}"
            )
    return found


def compare(expected: str, printed: str) -> None:
    """Fail unless they are equal; `...` stands for any part of a line, or alone for any lines."""
    wanted = [line.rstrip() for line in expected.strip("\n").splitlines()]
    got = "".join(f"{line.rstrip()}\n" for line in printed.strip("\n").splitlines())
    pattern = "".join(
        r"(?:.*\n)*?"
        if line.strip() == "..."
        else ".*?".join(map(re.escape, line.split("..."))) + r"\n"
        for line in wanted
    )
    if not re.fullmatch(pattern, got):
        raise SnippetError(f"expected\n{textwrap.indent(expected, '  ')}\nbut got\n{got}")
