"""`pytest` leaves out what is marked full, runs the rest side by side, and keeps apart what is marked so."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cpp_build import run
from peers import require

ARGUMENTS = ("-p", "no:cacheprovider", "--strict-markers")
SIDE_BY_SIDE = (*ARGUMENTS, "-p", "xdist")

CASES = """
import pytest

def test_plain():
    pass

@pytest.mark.full
def test_full():
    pass

@pytest.mark.parametrize("case", ["short", pytest.param("long", marks=pytest.mark.full)])
def test_cases(case):
    pass
"""


@pytest.fixture
def suite(tmp_path):
    """Runs other tests as these are run: the exit code of pytest and its last line."""
    (tmp_path / "pytest.ini").write_text("[pytest]\ntestpaths = tests\n")
    (tmp_path / "tests").mkdir()
    shutil.copy(Path(__file__).parents[1] / "conftest.py", tmp_path / "tests")

    variables = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # which take longer than the tests

    def ends(files, *arguments):
        for name, text in files.items():
            (tmp_path / "tests" / name).write_text(text)
        result = run(
            sys.executable, "-m", "pytest", *arguments, cwd=tmp_path, env=variables, stdin=subprocess.DEVNULL
        )
        return result.returncode, result.stdout.splitlines()[-1].partition(" in ")[0].strip("= ")

    return ends


@pytest.mark.parametrize(
    ("arguments", "end"),
    {
        (): "2 passed, 2 deselected",
        ("--full",): "4 passed",
        ("--full", "-k", "case"): "2 passed, 2 deselected",
        ("tests/test_a.py",): "2 passed, 2 deselected",
        ("tests/test_a.py::test_full",): "1 passed",
        ("tests/test_a.py::test_cases[long]",): "1 passed",
    }.items(),
    ids=str,
)
def test_a_test_that_is_marked_full_runs_on_demand_or_by_its_name(arguments, end, suite):
    assert suite({"test_a.py": CASES}, *ARGUMENTS, *arguments) == (0, end)


def test_the_whole_suite_runs_side_by_side_and_a_file_in_one_process(suite):
    require("xdist")
    looks = "def test_b(pytestconfig):\n    assert hasattr(pytestconfig, 'workerinput')\n"
    files = {"test_a.py": CASES, "test_b.py": looks}
    assert suite(files, *SIDE_BY_SIDE) == (0, "3 passed")
    assert suite(files, *SIDE_BY_SIDE, "--full") == (0, "5 passed")
    assert suite(files, *SIDE_BY_SIDE, "-n", "0")[0] == 1
    assert suite(files, *SIDE_BY_SIDE, "--pdb")[0] == 2  # the debugger's end, which is at once
    assert suite(files, *SIDE_BY_SIDE, "tests/test_b.py")[0] == 1


# Each test leaves a sign that it runs, and looks for those of others. It takes its time, so that they meet.
MEETING = """
import os, time
from pathlib import Path
import pytest

SIGNS = Path("signs")

def met():
    SIGNS.mkdir(exist_ok=True)
    mine = SIGNS / str(os.getpid())
    mine.touch()
    seen = set()
    for _ in range(20):
        time.sleep(0.01)
        seen |= set(os.listdir(SIGNS))
    mine.unlink()
    return len(seen)

@pytest.mark.parametrize("number", range(4))
def test_beside(number):
    met()

@pytest.mark.apart
@pytest.mark.parametrize("number", range(4))
def test_apart(number):
    assert met() == 1
"""


def test_a_test_that_is_marked_apart_has_no_other_beside_it(suite):
    require("xdist")
    files = {f"test_{name}.py": MEETING for name in "abc"}
    assert suite(files, *SIDE_BY_SIDE, "-n", "3") == (0, "24 passed")
    # Without the mark they do meet.
    files = {name: text.replace("@pytest.mark.apart", "") for name, text in files.items()}
    assert suite(files, *SIDE_BY_SIDE, "-n", "3")[0] == 1
