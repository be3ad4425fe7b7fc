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
        return f"tests/compilers/test_cpp.py::test_cpp[{file.rpartition('/')[2].removesuffix('.cpp')}]"
    return f"{file}::{test or ''}"


def listed(names, *arguments):
    """The ids of what `pytest` would run of the files of these names."""
    files = sorted({name.partition("::")[0] for name in names})
    listing = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", "-q", *arguments)
    found = run(*listing, "-o", "addopts=--import-mode=importlib", *files, cwd=sources.ROOT)
    assert found.returncode == 0, found.stdout
    return found.stdout.splitlines()


@pytest.fixture(scope="module")
def ids():
    named = [each for row in ROWS for each in named_in(row)]
    return {
        "plain": listed([name for name, _ in named]),
        "full": listed([name for name, full in named if full], "--full"),
    }


def are_among(name, ids):
    """Whether there is a test, or a case of it, whose id begins so."""
    ends = ("::", "]")
    return any(
        id_.startswith(name) and (name.endswith(ends) or id_[len(name) :][:1] in ("", "[")) for id_ in ids
    )


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_has_a_test_that_plain_pytest_runs(row, ids):
    named = named_in(row)
    left_out = [name for name, _ in named if not are_among(name, ids["plain"])]
    assert left_out == [name for name, full in named if full]
    assert [name for name in left_out if not are_among(name, ids["full"])] == []
    assert len(left_out) < len(named)


def test_each_row_of_the_page_is_looked_at():
    assert len(ROWS) == len(re.findall(r"^\| (?!promise|---)", PAGE, re.MULTILINE)) > 40
