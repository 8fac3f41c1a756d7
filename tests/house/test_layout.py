"""The budgets of the house: how long a module and how wide the top may be."""

from tests.house.paths import ROOT, SOURCE, TREES, python_files, relative

LINES_PER_MODULE = 500
NAMES_AT_THE_TOP = 18


def test_no_module_is_longer_than_500_lines() -> None:
    lengths = {
        relative(path): len(path.read_text().splitlines())
        for path in python_files(SOURCE, ROOT / "examples")
    }
    long = {name: lines for name, lines in lengths.items() if lines > LINES_PER_MODULE}
    assert not long, f"split these along a noun of the field: {long}"


def test_at_most_18_names_stand_at_the_top_of_the_package() -> None:
    furniture = {"__init__.py", "py.typed", "__pycache__"}
    names = sorted(path.name for path in SOURCE.iterdir() if path.name not in furniture)
    assert len(names) <= NAMES_AT_THE_TOP, names


def test_every_folder_with_python_in_it_is_a_package() -> None:
    folders = {path.parent for path in python_files(*TREES)}
    bare = [relative(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()]
    assert not bare, f"add an __init__.py to {bare}"


def test_every_folder_of_the_library_is_a_package_or_holds_data_only() -> None:
    suffixes = {path.suffix for path in SOURCE.rglob("*") if path.is_file()} - {".pyc"}
    assert suffixes <= {".py", ".sql", ".typed", ".html", ".css", ".js", ".json", ".svg"}, suffixes


def test_the_package_says_that_it_is_typed() -> None:
    assert (SOURCE / "py.typed").exists()
