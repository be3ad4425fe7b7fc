"""Every row of docs/guarantees.md names a test that plain `pytest` runs, and says which it leaves out."""

import re
import sys

import pytest

import sources
from cpp_build import run

PAGE = (sources.ROOT / "docs/guarantees.md").read_text(encoding="utf-8")
ROWS = [row for row in re.findall(r"^\| (.*?) \| (.*) \|$", PAGE, re.MULTILINE) if "`tests/" in row[1]]
# A file, a test in it, or a test in the file named before; and whether it is said that only --full runs it.
NAMED = re.compile(r"`(?P<file>tests/[\w/]+\.(?:py|cpp))?(?:::(?P<test>\w+))?`(?P<full> \(full\))?")


def named_in(row):
    """The beginnings of the ids of the tests that a row names, each with whether it is called full."""
    found, file = [], None
    for name in NAMED.finditer(row[1]):
        file = name["file"] or file
        if file and (name["file"] or name["test"]):
            found.append((beginning(file, name["test"]), bool(name["full"])))
    return found


def beginning(file, test):
    if file.endswith(".cpp"):  # these are the cases of one test
        return f"tests/test_cpp.py::test_cpp[{file.rpartition('/')[2].removesuffix('.cpp')}]"
    return f"{file}::{test or ''}"


@pytest.fixture(scope="module")
def ids():
    """What `pytest` would run of the files that are named."""
    files = sorted({name.partition("::")[0] for row in ROWS for name, _ in named_in(row)})
    listing = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", "-q")
    listed = run(*listing, "-o", "addopts=--import-mode=importlib", *files, cwd=sources.ROOT)
    assert listed.returncode == 0, listed.stdout
    return listed.stdout.splitlines()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_has_a_test_that_plain_pytest_runs(row, ids):
    left_out = [name for name, _ in named_in(row) if not any(runs(name, each) for each in ids)]
    assert left_out == [name for name, full in named_in(row) if full]
    assert len(left_out) < len(named_in(row))


def runs(name, id_):
    return id_.startswith(name) and (name.endswith(("::", "]")) or id_[len(name) :][:1] in ("", "["))


def test_each_row_of_the_page_is_looked_at():
    assert len(ROWS) == len(re.findall(r"^\| (?!promise|---)", PAGE, re.MULTILINE)) > 40
