"""The published wheel beside libraries that bring OpenMP: it brings none and obeys the limits of theirs.

Every script runs in a process of its own, with the wheel as it is published for Linux. torch's runtime is
named libgomp.so.1, scikit-learn's has a name that nobody else can ask for.
"""

import base64
import hashlib
import sys
import zipfile
from pathlib import Path

import pytest

import wheels
from cpp_build import run
from peers import require
from scripts import found_by

pytestmark = [
    pytest.mark.apart,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the published wheel is one for Linux"),
]

# `runtimes()` are the files of OpenMP runtimes in the process, `use()` is work of the other libraries. A
# training has one leaf, just large enough for two threads; its gradients are products with powers of two, so
# that whoever makes them makes the same bits.
PREAMBLE = """
import hashlib, json, os, re, sys, warnings
import numpy as np

def runtimes():
    with open("/proc/self/maps") as maps:
        files = {line.split(maxsplit=5)[5].strip() for line in maps if "/" in line}
    return sorted(file for file in files if re.match("lib[gi]?omp", os.path.basename(file)))

uses = []

def use():
    for each in uses:
        each()

class Training:
    def __init__(self):
        import adafactor
        self.adafactor, self.threads = adafactor, set()
        adafactor.set_num_threads(2)
        generator = np.random.default_rng(7)
        self.params, self.base = (generator.standard_normal((512, 512), np.float32) for _ in range(2))
        self.state = adafactor.init(self.params, learning_rate=0.01)

    def leaf(self):
        return self.params

    def gradient(self, scale):
        return self.base * np.float32(scale)

    def steps(self, count, meanwhile=lambda: None):
        for index in range(count):
            self.adafactor.step(self.leaf(), self.gradient(0.5 ** (index % 5)), self.state)
            self.threads.add(self.state._engine.core.threads)
            if index % 25 == 0:
                meanwhile()
        return self.digest()

    def digest(self):
        arrays = [self.params, *self.state.arrays().values()]
        return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
"""

# Each adds a function to `uses`, which works on the library's own threads.
LIBRARIES = {
    "torch": """
import torch
torch.set_num_threads(2)
numbers = torch.linspace(0, 1, 500_000)

class TorchTraining(Training):
    def __init__(self):
        super().__init__()
        self.parameter = torch.nn.Parameter(torch.from_numpy(self.params))
        self.factor = torch.from_numpy(self.base)
        self.state = self.adafactor.init(self.parameter, learning_rate=0.01)

    def leaf(self):
        return self.parameter

    def gradient(self, scale):
        self.parameter.grad = None
        (self.parameter * self.factor * scale).sum().backward()
        return self.parameter.grad

def use_torch():
    assert 0 < float((numbers.exp() * numbers).sum()) < float("inf")
    assert torch.get_num_threads() == 2

uses.append(use_torch)
""",
    "scikit-learn": """
from sklearn.metrics import pairwise_distances_argmin
points = np.random.default_rng(3).standard_normal((1024, 16))

def use_sklearn():
    assert (pairwise_distances_argmin(points, points) == np.arange(1024)).all()

uses.append(use_sklearn)
""",
}


def execute(site, script):
    """What a script assigns to `found`, of a process that imports the package from the folder `site`."""
    return found_by(f"{PREAMBLE}\n{script}", PYTHONPATH=str(site))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return wheels.published(tmp_path_factory.mktemp("wheels"))


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory):
    """A folder where the wheel alone is installed; what else a script imports is this environment's."""
    folder = tmp_path_factory.mktemp("site")
    pip = (sys.executable, "-m", "pip", "--isolated", "install")
    installed = run(*pip, "--no-index", "--no-deps", "--no-compile", "--target", folder, wheel)
    assert installed.returncode == 0, installed.stdout
    return folder


@pytest.fixture(scope="module")
def alone(site):
    """The digest after 1,000 steps in a process with NumPy alone."""
    found = execute(
        site, "training = Training()\nfound = training.steps(1000), runtimes(), list(training.threads)"
    )
    assert found[1:] == [[], [2]]
    return found[0]


def test_the_wheel_has_no_runtime_and_a_name_for_every_file(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        (record,) = (name for name in names if name.endswith(".dist-info/RECORD"))
        rows = (line.rsplit(",", 2) for line in archive.read(record).decode().splitlines())
        digests = {name: digest for name, digest, _ in rows}
        for name in set(names) - {record}:
            digest = base64.urlsafe_b64encode(hashlib.sha256(archive.read(name)).digest()).rstrip(b"=")
            assert digests[name] == f"sha256={digest.decode()}"
    assert digests.keys() == set(names)
    compiled = [name.partition(".cpython")[0] for name in sorted(names) if ".so" in name]
    assert compiled == ["adafactor/_core"]
    assert "manylinux" in wheel.name


@pytest.mark.parametrize("library", LIBRARIES)
def test_threadpoolctl_limits_a_step_by_the_runtimes_of_others(library, site, alone):
    """The least of what they have counts, at once, and no longer than the limit lasts."""
    require({"scikit-learn": "sklearn"}.get(library, library))
    found = execute(
        site,
        LIBRARIES[library]
        + """
import threadpoolctl
training = Training()
training.adafactor.set_num_threads(0)
found = [training.adafactor.get_num_threads()]
with threadpoolctl.threadpool_limits(1, user_api="openmp"):
    found += [training.adafactor.get_num_threads(), training.steps(1000), list(training.threads)]
found.append(training.adafactor.get_num_threads())
""",
    )
    assert found == [2, 1, alone, [1], 2]


# The others are there before or after the package has made its first steps; then all work by turns.
ORDERS = {
    "before": """
{libraries}
use()
before = runtimes()
first = Training().steps(1000)
mine = [file for file in runtimes() if file not in before]
""",
    "after": """
first = Training().steps(1000)
mine = runtimes()
{libraries}
use()
""",
}
BY_TURNS = """
training = (TorchTraining if "torch" in sys.modules else Training)()
second = training.steps(1000, meanwhile=use)
found = {
    "digests": [first, second],
    "threads": list(training.threads),
    "mine": mine,
    "all": runtimes(),
}
"""


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    "libraries",
    [
        pytest.param(["torch"], marks=pytest.mark.full),
        pytest.param(["scikit-learn"], marks=pytest.mark.full),
        ["torch", "scikit-learn"],
    ],
    ids="+".join,
)
def test_steps_beside_another_library_have_the_bits_of_steps_alone(libraries, order, site, alone):
    """And the process has the runtimes of the others alone."""
    for library in libraries:
        require({"scikit-learn": "sklearn"}.get(library, library))
    loaded = "".join(map(LIBRARIES.get, libraries))
    found = execute(site, ORDERS[order].format(libraries=loaded) + BY_TURNS)
    assert found["digests"] == [alone, alone]
    assert found["threads"] == [2]
    assert found["mine"] == []
    folders = {Path(file).parent.name for file in found["all"]}
    assert folders == {{"scikit-learn": "scikit_learn.libs", "torch": "lib"}[each] for each in libraries}


WORKERS = """
import signal
signal.alarm(250)  # a worker that hangs would make its parent wait for ever

class Steps(torch.utils.data.Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, index):
        training = Training()
        return training.steps(5), list(training.threads), training.adafactor.get_num_threads()

# Ours and torch's threads have worked before, and a forked process has none of them.
five = Training().steps(5)
use()
training, batches = TorchTraining(), []
loader = torch.utils.data.DataLoader(
    Steps(), batch_size=2, collate_fn=list, num_workers=2, multiprocessing_context="fork"
)
digests = []
for batch in loader:
    batches += batch
    digests.append(training.steps(5, meanwhile=use))
found = {"digest": training.digest(), "threads": list(training.threads), "workers": batches, "five": five}
found["first"] = digests[0]
found["expected"] = Training().steps(30)
"""


def test_steps_go_on_beside_forked_workers_that_step_too(site):
    """Each has two threads, and the same bits."""
    require("torch")
    found = execute(site, LIBRARIES["torch"] + WORKERS)
    assert found["digest"] == found["expected"]
    assert found["first"] == found["five"]
    assert found["threads"] == [2]
    assert found["workers"] == [[found["five"], [2], 2]] * 12
