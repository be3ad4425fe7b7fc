"""What one thread may do while another one is inside a step, with arrays of NumPy and with tensors of torch.

Python switches threads on request after a time; here that time is longer than any test, so that one thread
runs only where the other has given up the GIL of its own accord: in the loops of a step. That a thread is in
there shows in its state, which is refused to everybody else, and in its parameters, of which some are written
and some are not. Nothing is measured by a clock.
"""

import os
import signal
import sys
import threading
import time

import numpy as np
import pytest

import adafactor
import snapshots
from adafactor.arrays import as_numpy
from peers import require

pytestmark = pytest.mark.apart

IN_USE = r"^state in use: another call, from a thread or from inside this one, runs on it$"
LARGE, SMALL = (2048, 2048), (30, 20)  # some ten milliseconds, some ten microseconds
TRIES = 500  # a few are enough


LIBRARIES = {"numpy": np.array, "torch": lambda values: require("torch").tensor(values)}


@pytest.fixture(params=LIBRARIES)
def make(request):
    return LIBRARIES[request.param]


@pytest.fixture(autouse=True)
def _threads_switch_by_themselves():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    adafactor.set_num_threads(1)  # the other core is the other thread's
    yield
    adafactor.set_num_threads(0)
    sys.setswitchinterval(interval)


def drawn(shape, seed):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


class Training:
    """Parameters with a gradient and a state; `begun` counts the calls of `step`."""

    def __init__(self, make, shape, **knobs):
        self.start, self.knobs, self.begun = drawn(shape, 0), knobs, 0
        self.params, self.grads = make(self.start), make(drawn(shape, 1))
        self.state = adafactor.init(self.params, **knobs)
        self.values = as_numpy(self.params).reshape(-1)

    def ends(self):
        return self.values[[0, -1]]

    def step(self):
        self.before = self.ends()
        self.begun += 1
        assert adafactor.step(self.params, self.grads, self.state).updated

    def steps(self, count):
        for _ in range(count):
            self.step()

    def is_held(self):
        """Whether another thread has the state, and so is inside a step. It gets its chance to be."""
        time.sleep(0.0005)
        try:
            with self.state._engine.in_use():
                return False
        except RuntimeError:
            return True

    def is_half_written(self):
        """Whether another thread is in the loops that write: one end of the parameters is new, one old."""
        return self.is_held() and (self.ends() != self.before).sum() == 1

    def assert_whole(self):
        """Parameters and state are those of as many steps as were counted, made by one thread."""
        params = self.start.copy()
        expected = adafactor.init(params, **self.knobs)
        for _ in range(self.state.iterations):
            adafactor.step(params, as_numpy(self.grads), expected)
        assert as_numpy(self.params).tobytes() == params.tobytes()
        assert snapshots.of_state(self.state) == snapshots.of_state(expected)


@pytest.fixture
def beside():
    """Starts a function in another thread, and waits for its end when the test ends."""
    threads = []

    def start(function):
        threads.append(threading.Thread(target=function))
        threads[-1].start()
        return threads[-1]

    yield start
    for thread in threads:
        thread.join()


def test_while_one_thread_steps_another_runs_python_and_steps_another_state(make, beside):
    """Calls on the first state, which are refused, and a step of the second, inside one step of the first."""
    large, small, enough = Training(make, LARGE), Training(make, SMALL), threading.Event()

    def work():
        while large.begun < TRIES and not enough.is_set():
            large.step()

    thread, inside = beside(work), 0
    while inside < 3 and thread.is_alive():
        if not large.is_held():
            continue
        begun = large.begun
        for call in (adafactor.step, adafactor.update):
            with pytest.raises(RuntimeError, match=IN_USE):
                call(large.params, large.grads, large.state)
        small.step()
        inside += large.is_half_written() and large.begun == begun
    enough.set()
    thread.join()
    assert inside == 3
    for training in (large, small):
        assert training.state.iterations == training.begun
        training.assert_whole()


@pytest.mark.skipif(os.name == "nt", reason="a process cannot send itself Ctrl-C alone there")
def test_ctrl_c_in_the_middle_of_a_step_comes_after_it(make, beside):
    training, sent = Training(make, LARGE), []

    def interrupt():
        while not sent and training.begun < TRIES:
            if training.is_half_written():
                begun = training.begun
                os.kill(os.getpid(), signal.SIGINT)
                sent.append(begun)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        beside(interrupt)
        with pytest.raises(KeyboardInterrupt):
            training.steps(TRIES)
    finally:
        signal.signal(signal.SIGINT, before)
    assert sent == [training.begun] == [training.state.iterations]
    training.assert_whole()
    training.step()
    training.assert_whole()


@pytest.mark.parametrize("call", [adafactor.step, adafactor.update])
def test_a_schedule_that_makes_a_call_on_its_own_state_is_refused(call, make):
    def learning_rate():
        if is_asked_first.pop():
            call(training.params, training.grads, training.state)
        return 0.01

    is_asked_first = [False, True]
    training = Training(make, SMALL, learning_rate=learning_rate)
    with pytest.raises(RuntimeError, match=IN_USE):
        training.step()
    assert training.state.iterations == 0
    assert as_numpy(training.params).tobytes() == training.start.tobytes()
    training.step()
    assert training.state.iterations == 1
