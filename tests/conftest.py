"""What `pytest` runs, and beside what: all tests but those marked `full`, side by side but for those `apart`.

`pytest --full` runs all of them. Whoever names files on the command line, or has pytest without pytest-xdist,
gets one process.
"""

import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

try:
    import fcntl
except ImportError:  # on Windows tests run side by side only on demand, and then all of them do
    fcntl = None

pytest.register_assert_rewrite("registry")

MARKERS = (
    "full: repeats what another test shows, in more cases; `pytest --full` runs it",
    "apart: measures memory, time, threads or processes, and so runs with no other test beside it",
)
# Begun first, so that nobody waits for them in the end.
LONGEST = ("test_cpp.py", "test_planted_errors.py", "test_planted_refusals.py", "test_torch_compile.py")
MOST_WORKERS = 4  # beyond that the longest file decides, and each worker imports torch and JAX


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="run every test, also those marked full")


def pytest_configure(config):
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)


def pytest_collection_modifyitems(config, items):
    """Leaves out what is full unless its name was given. What runs apart comes last, when few wait for it."""
    if not config.getoption("--full"):
        named = set(config.args)
        full = [item for item in items if item.get_closest_marker("full")]
        out = [item for item in full if named.isdisjoint({item.nodeid, item.nodeid.partition("[")[0]})]
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in set(out)]
    files = {item.path for item in items if item.get_closest_marker("apart")}
    items.sort(key=lambda item: (item.path in files, item.path.name not in LONGEST))


@pytest.fixture(autouse=True)
def same_random_numbers():
    """What torch draws where nobody has given a seed, as the weights of a layer, is the same in each run."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


# Side by side: what pytest-xdist calls workers.


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """A file is one worker's, so that what its tests share is made once; files start in the order above."""
    option = config.option
    if hasattr(config, "workerinput") or not hasattr(option, "numprocesses") or option.dist != "no":
        return
    whole = config.args_source is not config.ArgsSource.ARGS
    if option.numprocesses is None and whole and fcntl and not option.usepdb:
        option.numprocesses = min(os.cpu_count() or 1, MOST_WORKERS)
    if option.numprocesses:
        # A thread that waits for work would take the core of another worker.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        option.dist, option.loadscopereorder = "loadfile", False


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    """Tells a worker where the locks are that all of them share."""
    if not hasattr(node.config, "folder_of_locks"):
        node.config.folder_of_locks = tempfile.mkdtemp()
        node.config.add_cleanup(lambda: shutil.rmtree(node.config.folder_of_locks))
    node.workerinput["locks"] = node.config.folder_of_locks


@contextlib.contextmanager
def in_the_room(folder, *, alone):
    """Waits until nobody else is in the room, or nobody who wants to be alone there, and stays in it.

    Whoever waits holds the door, so that no one comes in meanwhile and all who are in there leave.
    """
    with open(Path(folder, "door"), "w") as door, open(Path(folder, "room"), "w") as room:
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(door, fcntl.LOCK_UN)
        yield
        fcntl.flock(room, fcntl.LOCK_UN)  # a child that outlives the test may have the file open


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """With what a test makes before and after it."""
    folder = getattr(item.config, "workerinput", {}).get("locks")
    if folder is None or fcntl is None:
        return (yield)
    with in_the_room(folder, alone=item.get_closest_marker("apart") is not None):
        return (yield)
