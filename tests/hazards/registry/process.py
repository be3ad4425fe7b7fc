"""Section 6 and V9, V10: threads, signals, memory, the end of a process, its floating-point environment."""

import copy
import gc
import json
import os
import pickle
import platform
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

import adafactor
import snapshots
from registry.case import Event, model

IN_USE = r"^state in use: another call, from a thread or from inside this one, runs on it$"


def run(program, *arguments, **environment):
    """What a program prints in a process of its own, which must end as it should."""
    command = [sys.executable, "-W", "ignore", "-c", program, *map(str, arguments)]
    variables = os.environ | environment
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=variables)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


# One state and many threads.


def calls_on_a_state_in_use(m):
    refused_while_held(
        m,
        lambda: adafactor.step(m.params, m.grads, m.state),
        lambda: adafactor.update(m.params, m.grads, m.state),
        lambda: m.state.finalize(m.params),
    )


def copies_of_a_state_in_use(m):
    makers = [m.state.copy, lambda: copy.copy(m.state), lambda: copy.deepcopy(m.state)]
    makers += [lambda: pickle.dumps(m.state), lambda: pickle.dumps(m.state, 2)]
    refused_while_held(m, *makers)
    for make in makers:
        make()


def copies_are_apart(m):
    """A step of a copy changes neither the state nor another copy."""
    copies = [m.state.copy(), copy.deepcopy(m.state), pickle.loads(pickle.dumps(m.state))]
    expected = snapshots.of_state(m.state)
    for each in copies:
        assert snapshots.of_state(each) == expected
        adafactor.step(m.copies_of_params(), m.grads, each)
        assert snapshots.of_state(each) != expected


def refused_while_held(m, *calls):
    """Each of the calls, while another thread has the state."""
    held, done = threading.Event(), threading.Event()

    def hold():
        with m.state._engine.in_use():
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        for call in calls:
            with pytest.raises(RuntimeError, match=IN_USE):
                call()
    finally:
        done.set()
        thread.join()


def large(seed, shape=(300, 453)):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def many_threads_at_once(m):
    """Of calls from several threads some get through and the others are refused; none is torn."""
    params, grads, refusals, made = large(0), large(1), [], []
    state, barrier = adafactor.init(params), threading.Barrier(4)

    def call():
        barrier.wait()
        for _ in range(5):
            try:
                made.append(adafactor.step(params, grads, state).updated)
            except RuntimeError as error:
                refusals.append(str(error)[:12])

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= len(made) == state.iterations == state.calls
    assert refusals == ["state in use"] * (20 - len(made))
    assert_as_if_alone(params, state, large(0), grads)


def assert_as_if_alone(params, state, start, grads):
    """The parameters and the state are those of that many steps from the start."""
    expected = adafactor.init(start)
    for _ in range(state.iterations):
        adafactor.step(start, grads, expected)
    assert snapshots.same_bits([params], [start])
    assert snapshots.of_state(state) == snapshots.of_state(expected)


def states_of_their_own(m):
    """Each thread has its own state and parameters, and they share the gradient."""
    grads, params = large(1), [large(0) for _ in range(4)]
    states = [adafactor.init(p) for p in params]

    def call(i):
        for _ in range(5):
            adafactor.step(params[i], grads, states[i])

    threads = [threading.Thread(target=call, args=[i]) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for p, state in zip(params, states, strict=True):
        assert_as_if_alone(p, state, large(0), grads)


def read_meanwhile(m):
    """Another thread reads the parameters all the time; what it sees is its own risk."""
    params, grads, over = large(0), large(1), []
    state = adafactor.init(params)

    def read():
        while not over:
            params.sum()

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for _ in range(10):
            adafactor.step(params, grads, state)
    finally:
        over.append(True)
        thread.join()
    assert_as_if_alone(params, state, large(0), grads)


def interrupted(m):
    """A signal is answered between two steps, or before anything of one is written."""

    def answer(*_):
        raise KeyboardInterrupt

    params, grads = large(0), large(1)
    state = adafactor.init(params)
    before = signal.signal(signal.SIGALRM, answer)
    gc.disable()  # in a collection it would hit functions of others, as JAX', which nobody can tell of it
    try:
        for k in range(20):
            with pytest.raises(KeyboardInterrupt):
                step_until_a_signal(0.0005 * (k + 1), params, grads, state)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.enable()
    assert_as_if_alone(params, state, large(0), grads)


def step_until_a_signal(seconds, params, grads, state):
    signal.setitimer(signal.ITIMER_REAL, seconds)
    while True:
        adafactor.step(params, grads, state)


def any_number_of_threads(m):
    """The bits are those of one thread."""
    digests = set()
    try:
        for n in (1, 2, 7, 1000, 10**6):
            adafactor.set_num_threads(n)
            params = large(0, (1030, 261))
            state = adafactor.init(params)
            adafactor.step(params, large(1, (1030, 261)), state)
            digests.add((params.tobytes(), snapshots.of_state(state)[1]["", "row"]))
    finally:
        adafactor.set_num_threads(0)
    assert len(digests) == 1


def threads_in_threads(m):
    """Steps with threads of their own in several threads at once."""
    adafactor.set_num_threads(3)
    try:
        states_of_their_own(m)
    finally:
        adafactor.set_num_threads(0)


def a_small_stack(m):
    """64 KiB, half of what musl gives a thread."""
    size = threading.stack_size(2**16)
    params, grads, reports = large(0), large(1), []
    state = adafactor.init(params)
    try:
        thread = threading.Thread(target=lambda: reports.append(adafactor.step(params, grads, state)))
        thread.start()
        thread.join()
    finally:
        threading.stack_size(size)
    assert reports[0].updated
    assert_as_if_alone(params, state, large(0), grads)


# What the machine runs out of, and what a process goes through.

NO_MEMORY = """
import resource, numpy as np, adafactor
adafactor.set_num_threads(1)
params, grads = np.ones((2**22, 1), np.float32), np.full((2**22, 1), 0.5, np.float32)
state = adafactor.init(params)  # its moments are as large as the leaf, and the scratch twice that
bits = params.tobytes()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
_, hard = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (used + 2**23, hard))
for call in (
    lambda: adafactor.init(np.broadcast_to(np.float32(0), (2**31,))),
    lambda: adafactor.step(params, grads, state),
):
    try:
        call()
    except MemoryError as error:
        print(error)
resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
print(params.tobytes() == bits, state.calls, any(t.any() for t in state.tensors().values()))
print(adafactor.step(params, grads, state).updated)
"""


def no_memory(m):
    if sys.platform != "linux":
        pytest.skip("limits the memory as Linux does")
    assert run(NO_MEMORY).splitlines() == [NO_STATE, NO_SCRATCH, "True 0 False", "True"]


NO_STATE = "init: no memory for a state of 8,589,934,592 bytes"
NO_SCRATCH = "step: no memory for its scratch, see adafactor.scratch_nbytes; nothing was changed"

AT_THE_END = """
import atexit, sys, threading, numpy as np, adafactor
params, grads = np.ones((4000, 1000), np.float32), np.full((4000, 1000), 0.5, np.float32)
state, started = adafactor.init(params), threading.Event()

def steps():
    while True:
        adafactor.step(params, grads, state)
        started.set()

if sys.argv[1] == "daemon":
    threading.Thread(target=steps, daemon=True).start()
    started.wait()
else:
    atexit.register(lambda: print(adafactor.step(params, grads, state).updated))
"""


def a_daemon_thread_at_the_end(m):
    assert run(AT_THE_END, "daemon") == ""


def a_step_at_the_end(m):
    assert run(AT_THE_END, "atexit") == "True\n"


SUBINTERPRETER = """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
program = "try: import adafactor\\nexcept ImportError: print('ImportError', flush=True)"
interpreters.run_string(interpreters.create(), program)
"""


def a_subinterpreter(m):
    assert run(SUBINTERPRETER) == "ImportError\n"


# In a process of its own, whose threads inherit what it does to its environment.
ENVIRONMENT = """
import ctypes, hashlib, json, sys
import numpy as np

def mxcsr():
    buffer = (ctypes.c_uint32 * 8)()  # glibc's fenv_t: the control and status of the vector unit come last
    libm.fegetenv(buffer)
    return buffer[7]

def set_mxcsr(value):
    buffer = (ctypes.c_uint32 * 8)()
    libm.fegetenv(buffer)
    buffer[7] = value
    libm.fesetenv(buffer)

libm = ctypes.CDLL("libm.so.6")
generator = np.random.default_rng(0)
shapes = {"vector": (200005,), "matrix": (3, 50005), "small": (7, 37)}
params = {path: generator.standard_normal(shape).astype(np.float32) for path, shape in shapes.items()}
params["tiny"] = np.full(50, 1e-40, np.float32)  # below the smallest normal number
grads = {path: generator.standard_normal(p.shape).astype(np.float32) for path, p in params.items()}
grads["tiny"][...] = 0
set_mxcsr(int(sys.argv[1], 16))
before = mxcsr() & 0xffc0
import adafactor
adafactor.set_num_threads(int(sys.argv[2]))
state = adafactor.init(params, weight_decay=0.5, weight_decay_on="none", beta_1=0.9)
for _ in range(2):
    adafactor.step(params, grads, state)
after = mxcsr() & 0xffc0
set_mxcsr(0x1f80)
digest = hashlib.sha256()
for array in (*params.values(), *state.tensors().values()):
    digest.update(array.tobytes())
tiny = float(params["tiny"][0])
print(json.dumps([before, after, digest.hexdigest(), tiny, float(np.finfo(np.float32).smallest_subnormal)]))
"""
DEFAULT = 0x1F80


def environment(bits):
    """A caller with these bits of MXCSR set gets the results of any other, and its own environment back."""

    def happen(m):
        if platform.machine() != "x86_64" or platform.libc_ver()[0] != "glibc":
            pytest.skip("sets glibc's fenv_t of x86-64")
        before, after, *expected = json.loads(run(ENVIRONMENT, hex(DEFAULT), 1))
        assert before == after == DEFAULT
        assert expected[1] == pytest.approx(0.25e-40, rel=1e-4)
        assert expected[2] > 0
        for threads in (1, 3):
            found = json.loads(run(ENVIRONMENT, hex(DEFAULT | bits), threads))
            assert found == [DEFAULT | bits, DEFAULT | bits, *expected]

    return happen


AVERAGED = model(use_ema=True)
CASES = [
    Event("V9 denormals switched off", environment(0x8040)),
    Event("V10 rounding upwards", environment(0x4000)),
    Event("C1 calls on a state in use", calls_on_a_state_in_use, AVERAGED),
    Event("C1 many threads at once", many_threads_at_once),
    Event("C2 states that share a gradient", states_of_their_own),
    Event("C4 parameters are read meanwhile", read_meanwhile),
    Event("C5 a signal in the middle of steps", interrupted),
    Event("C9 any number of threads", any_number_of_threads),
    Event("C9 threads in threads", threads_in_threads),
    Event("C10 no memory for a state and for a step", no_memory),
    Event("C11 a subinterpreter", a_subinterpreter),
    Event("C12 a daemon thread at the end", a_daemon_thread_at_the_end),
    Event("C12 a step at the end", a_step_at_the_end),
    Event("C13 copies of a state in use", copies_of_a_state_in_use, AVERAGED),
    Event("C13 copies are apart", copies_are_apart, AVERAGED),
    Event("C16 a small stack", a_small_stack),
]
