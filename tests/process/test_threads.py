"""Threads and processes: who says how many threads there are, and what a forked process can do.

Every test has an interpreter of its own. Its timeouts are there for what hangs, and are never met otherwise.
"""

import os
import subprocess
import sys

import pytest

import adafactor
from peers import require
from scripts import SECONDS, found_by

pytestmark = pytest.mark.apart

KIND = adafactor.build_info()["threads"]

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
needs_threads = pytest.mark.skipif(KIND == "serial", reason="built without threads")

# `step(n)` is the digest of a case with 14 tiles after two steps, and how many threads those had; n threads
# are asked for, None leaves the default. `make` makes the arrays. `in_child(checks)` is the exit code of a
# forked process that calls checks. That one forks where there are threads, which Python deprecates, is what
# is tested here.
PREAMBLE = """
import json, os, signal, sys, threading, traceback, warnings
warnings.simplefilter("ignore", DeprecationWarning)
import numpy as np
import adafactor, digest

TALL = digest.CASES["tall"]
make = np.array

def step(threads=None):
    if threads is not None:
        adafactor.set_num_threads(threads)
    found, state = digest.run(TALL, params_as=make, grads_as=make)
    return found, state._engine.core.threads

def in_child(checks):
    child = os.fork()
    if child == 0:
        signal.alarm(100)
        code = 1
        try:
            code = checks() or 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""


# What makes the arrays of a script tensors. torch has used its threads, on a runtime that may be ours too; in
# a forked process it would wait for them for ever, so it is NumPy that copies.
LIBRARIES = {
    "numpy": "",
    "torch": """
import torch
torch.set_num_threads(2)
assert torch.linspace(0, 1, 500_000).exp().isfinite().all()
make = lambda values: torch.from_numpy(np.array(values))
""",
}


@pytest.fixture(params=LIBRARIES)
def library(request):
    if request.param != "numpy":
        require(request.param)
    return LIBRARIES[request.param]


def run(script, **environment):
    """What the script assigns to `found`."""
    return found_by(f"{PREAMBLE}\n{script}", **environment)


@needs_threads
def test_a_launcher_that_asks_for_one_thread_does_not_silence_set_num_threads():
    found = run(
        """
found = [step(), step(3), (adafactor.set_num_threads(0), step())[1]]
found = [threads for digest_, threads in found if digest_ == TALL.digest]
""",
        OMP_NUM_THREADS="1",
    )
    assert found == [1, 3, 1]


@needs_threads
def test_the_environment_gives_the_default():
    assert run("found = adafactor.get_num_threads(), step()[1]", OMP_NUM_THREADS="3") == [3, 3]


@needs_threads
def test_threadpoolctl_limits_the_next_step_unless_a_number_was_asked_for():
    require("torch")  # it limits the runtimes of OpenMP that are there
    found = run(
        """
import torch
from threadpoolctl import threadpool_limits
found = [step()[1]]
with threadpool_limits(1):
    found += [adafactor.get_num_threads(), step()[1], step(2)[1]]
    adafactor.set_num_threads(0)
found.append(step()[1])
""",
        OMP_NUM_THREADS="2",
    )
    assert found == [2, 1, 1, 2, 2]


FORKS = {
    "before the first step": "",
    "after a step": "assert step(3) == (TALL.digest, 3)",
    "after a child": "in_child(lambda: step(3)); step(3)",
}


@needs_fork
@pytest.mark.parametrize("before", FORKS.values(), ids=FORKS)
def test_a_forked_process_steps_to_the_same_bits(before, library):
    """With OpenMP it has one thread, with the pool as many as its parent; so has a child of the child."""
    before = before if KIND != "serial" else before.replace(", 3)", ", 1)")
    found = run(f"""
{library}
{before}
THREADS = {3 if KIND == "pool" else 1}
def checks():
    assert step(3) == (TALL.digest, THREADS), step(3)
    assert adafactor.get_num_threads() == THREADS
def grandchild():
    checks()
    return in_child(checks)
found = [in_child(checks), in_child(grandchild), step(2)[0] == TALL.digest]
""")
    assert found == [0, 0, True]


@needs_fork
def test_a_state_that_another_thread_was_stepping_is_torn_in_the_child(library):
    """The parent forks until it meets the other thread inside a step, which is nearly always.

    Not in its first, which makes threads: a fork meanwhile would leave the address sanitizer's memory locked.
    """
    script = """
import copy, pickle, re
params, grads = (make(np.full((3000, 1000), each, np.float32)) for each in (1, 0.5))
state = adafactor.init(params, learning_rate=0.001, use_ema=True)
idle = state.copy()
adafactor.set_num_threads(3)
adafactor.step(params, grads, state)
begun, enough = threading.Event(), threading.Event()

def work():
    while not enough.is_set():
        adafactor.step(params, grads, state)
        begun.set()

def checks():
    if not state._engine.core.torn:
        return 9  # between two steps
    messages = []
    for call in (
        lambda: adafactor.step(params, grads, state),
        lambda: adafactor.update(params, grads, state),
        lambda: state.finalize(params),
        lambda: state.copy(),
        lambda: copy.deepcopy(state),
        lambda: pickle.dumps(state),
    ):
        try:
            call()
        except RuntimeError as error:
            messages.append(str(error))
    assert len(messages) == 6, messages
    assert all(message.startswith("state torn by fork: a thread of the parent") for message in messages)
    own = make(params)
    assert adafactor.step(own, grads, idle).updated
    assert pickle.loads(pickle.dumps(idle)).iterations == 1
    assert step(3)[0] == TALL.digest

thread = threading.Thread(target=work)
thread.start()
begun.wait()
codes = [in_child(checks)]
while codes[-1] == 9:
    codes.append(in_child(checks))
enough.set()
thread.join()
torn = state._engine.core.torn
found = [codes[-1], torn, adafactor.step(params, grads, state).updated, step(3)[0] == TALL.digest]
"""
    assert run(library + script) == [0, False, True, True]


@needs_fork
def test_workers_of_multiprocessing_step(library):
    script = """
import multiprocessing
step(3)
with multiprocessing.get_context("fork").Pool(2) as workers:
    results = workers.map_async(step, [1, 2, 3, 7]).get(100)
found = [result[0] == TALL.digest for result in results]
"""
    assert run(library + script) == [True] * 4


def test_the_interpreter_ends_while_a_daemon_thread_steps():
    """Many times, since what could go wrong depends on where the step is when it ends."""
    script = """
import sys, threading
import numpy as np
import adafactor
adafactor.set_num_threads(3)
params, grads = np.ones((600, 500), np.float32), np.ones((600, 500), np.float32)
state = adafactor.init(params, learning_rate=1e-6)
stepping = threading.Event()
def work():
    while True:
        adafactor.step(params, grads, state)
        stepping.set()
threading.Thread(target=work, daemon=True).start()
stepping.wait()
"""
    for _ in range(5):
        result = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=SECONDS, check=False
        )
        assert (result.returncode, result.stderr) == (0, "")
