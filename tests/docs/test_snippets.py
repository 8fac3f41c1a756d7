"""Every snippet of the documentation does what its page says."""

import ast
from codeop import CommandCompiler
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, name
from tests.docs.snippets import Page, SnippetError, compare, snippets


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_snippets_of_the_page_run(page: Path, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    Page(page, folder, ROOT).run()


def run(text: str, tmp_path: Path) -> Page:
    """Run a page of this text."""
    folder = tmp_path / "here"
    folder.mkdir()
    path = tmp_path / "page.md"
    path.write_text(text.replace("'''", "```"))
    page = Page(path, folder, ROOT)
    page.run()
    return page


def test_snippets_of_a_page_share_one_namespace_and_may_await(tmp_path: Path) -> None:
    run(
        """
'''python
import asyncio
async def double(number: int) -> int:
    return number * 2
'''

'''python
await asyncio.sleep(0)
print(await double(21))
'''

<!-- output -->
'''text
42
'''
""",
        tmp_path,
    )


def test_a_file_can_be_imported_from_python_and_from_the_shell(tmp_path: Path) -> None:
    run(
        """
<!-- file: shop.py -->
'''python
price = 42
'''

'''python
import shop
assert shop.price == price
'''

'''console
$ python -c 'import shop; print(shop.price)'
42
'''
""",
        tmp_path,
    )


def test_commands_of_a_page_share_folder_and_exported_variables(tmp_path: Path) -> None:
    run(
        """
'''console
$ export SHOP=open
$ mkdir inner && cd inner
'''

<!-- exit: 3 -->
'''console
$ echo $SHOP; pwd; \\
> exit 3
open
.../inner
'''
""",
        tmp_path,
    )


@pytest.mark.parametrize(
    "text",
    [
        "'''python\nassert 1 == 2\n'''",
        "'''python\nnowhere\n'''",
        "<!-- no-run: -->\n'''python\nnowhere\n'''",
        "<!-- file: ../out.py -->\n'''python\n'''",
        "'''python\nprint(1)\n'''\n<!-- output -->\n'''text\n2\n'''",
        "'''console\n$ echo one\ntwo\n'''",
        "'''console\n$ exit 1\n'''",
        "'''console\necho one\n'''",
        "'''klingon\nqapla\n'''",
        "'''python\nnever closed",
    ],
)
def test_a_wrong_snippet_is_caught(text: str, tmp_path: Path) -> None:
    with pytest.raises((SnippetError, NameError, AssertionError)):
        run(text, tmp_path)


def test_a_snippet_marked_no_run_is_left_alone(tmp_path: Path) -> None:
    run("<!-- no-run: needs a server -->\n'''python\nnowhere\n'''", tmp_path)


def test_three_dots_stand_for_a_part_of_a_line_or_for_lines() -> None:
    compare("one ... three\n...\nlast\n", "one two three\nfour\nfive\nlast\n")
    with pytest.raises(SnippetError):
        compare("one\n...\nlast\n", "one\ntwo\n")


def pasted(text: str) -> None:
    """Take lines as `python -m asyncio` does: an empty one ends a block."""
    compiler = CommandCompiler()
    compiler.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    held: list[str] = []
    for line in [*text.splitlines(), ""]:
        held.append(line)
        if compiler("\n".join(held)) is not None:
            held = []
    assert not held


def test_the_snippets_of_the_tutorial_can_be_pasted_at_the_prompt() -> None:
    page = ROOT / "docs" / "tutorial" / "orders.md"
    tried = [s for s in snippets(page.read_text()) if s.language == "python"]
    tried = [snippet for snippet in tried if "file" not in snippet.marks]
    assert len(tried) > 10
    for snippet in tried:
        pasted(snippet.text)


def test_an_empty_line_within_a_block_cannot_be_pasted() -> None:
    with pytest.raises(SyntaxError):
        pasted("if True:\n    print(1)\n\n    print(2)\n")
