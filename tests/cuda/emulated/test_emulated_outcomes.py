"""When the caller waits for a GPU, what he finds out, and when."""

import copy
import pickle
import threading
import warnings

import numpy as np
import pytest

import adafactor
import emulated_gpu
from emulated_gpu import capsuled, over

VALUES = np.arange(1, 25, dtype=np.float32).reshape(4, 6) / 8
GRADIENT = np.cos(VALUES)


def waits():
    return emulated_gpu.device().emulated_waits()


def stepped(on_nonfinite="skip", make=over, **knobs):
    """Parameters, their state, and the report of its second call, with how often that one has waited."""
    params = make(VALUES)
    state = adafactor.init(params, learning_rate=0.1, on_nonfinite=on_nonfinite, **knobs)
    adafactor.step(params, make(GRADIENT), state).settle()
    gradient = make(GRADIENT)
    before = waits()
    report = adafactor.step(params, gradient, state)
    return params, state, report, waits() - before


@pytest.mark.parametrize("on_nonfinite", ["skip", "propagate"])
def test_a_call_that_raises_nothing_does_not_wait(on_nonfinite):
    *_, report, waited = stepped(on_nonfinite)
    assert waited == 0
    before = waits()
    assert report.updated
    assert waits() == before + 1
    assert report.grad_norm[0] == pytest.approx(np.linalg.norm(GRADIENT))
    assert waits() == before + 1


def test_a_call_that_may_raise_waits():
    *_, report, waited = stepped("raise")
    assert waited == 1
    before = waits()
    assert report.updated
    assert waits() == before


def test_a_call_on_arrays_whose_library_goes_on_elsewhere_waits():
    *_, waited = stepped("skip", capsuled)
    assert waited == 1


LOOKS = {
    "iterations": lambda state, report: state.iterations,
    "calls": lambda state, report: state.calls,
    "leaf_updates": lambda state, report: state.leaf_updates[0],
    "copy": lambda state, report: state.copy().iterations,
    "pickle": lambda state, report: pickle.loads(pickle.dumps(state)).iterations,
    "arrays": lambda state, report: len(state.arrays()),
    "a copy of the report": lambda state, report: 2 * copy.copy(report).updated,
    "a pickle of the report": lambda state, report: 2 * pickle.loads(pickle.dumps(report)).updated,
    "repr": lambda state, report: 2 * repr(report).startswith("StepReport(updated"),
    "as_dict": lambda state, report: 2 * len(report.as_dict()),
}


@pytest.mark.parametrize("look", LOOKS)
def test_whoever_looks_sees_what_the_call_did(look):
    _, state, report, _ = stepped()
    assert LOOKS[look](state, report) == 2


def test_a_report_is_of_its_own_call():
    params, state, report, _ = stepped()
    later = adafactor.step(params, over(4 * GRADIENT), state)
    assert later.grad_norm[0] == pytest.approx(4 * report.grad_norm[0])
    assert state.iterations == 3


def test_a_report_outlives_its_state():
    params, state, report, _ = stepped()
    del state, params
    assert report.updated


def test_a_state_that_nobody_looks_at_again_leaves_nothing_behind():
    before = emulated_gpu.device().emulated_blocks()
    stepped()
    assert emulated_gpu.device().emulated_blocks() == before


def spoilt(place=0):
    gradient = GRADIENT.copy()
    gradient.flat[place] = np.nan
    return over(gradient)


def test_a_skipped_call_changes_nothing_and_does_not_count():
    params, state, *_ = stepped("skip")
    before, arrays = params.numpy(), state.arrays()
    reports = [adafactor.step(params, spoilt(), state) for _ in range(2)]
    assert [report.skipped for report in reports] == [True, True]
    assert reports[0].nonfinite.tolist() == [True]
    assert (state.iterations, state.calls) == (2, 2)
    assert params.numpy().tobytes() == before.tobytes()
    assert {key: array.tobytes() for key, array in state.arrays().items()} == {
        key: array.tobytes() for key, array in arrays.items()
    }


def test_a_training_that_stands_still_is_warned_of():
    params, state, *_ = stepped("skip")
    for _ in range(10):
        adafactor.step(params, spoilt(), state)
    # The tenth is looked at when the next one begins.
    with pytest.warns(UserWarning, match="grads: not finite, and so 10 calls in a row were skipped"):
        adafactor.step(params, spoilt(), state)


def test_propagate_lets_it_through_as_on_a_cpu():
    params, state, *_ = stepped("propagate")
    expected = VALUES.copy()
    of_cpu = adafactor.init(expected, state.config)
    for gradient in (GRADIENT, GRADIENT, spoilt().numpy()):
        adafactor.step(expected, gradient, of_cpu)
    report = adafactor.step(params, spoilt(), state)
    assert report.updated
    assert report.nonfinite.tolist() == [True]
    assert np.isnan(params.numpy()).tolist() == np.isnan(expected).tolist()


def test_raise_names_the_leaf_and_what_it_has():
    params = {"w": over(VALUES), "b": over(VALUES[0])}
    state = adafactor.init(params)
    before = {path: array.numpy().tobytes() for path, array in params.items()}
    with pytest.raises(FloatingPointError, match="grads w: 1 NaN and 0 Inf of 24 values"):
        adafactor.step(params, {"w": spoilt(5), "b": over(GRADIENT[0])}, state)
    assert {path: array.numpy().tobytes() for path, array in params.items()} == before
    assert state.iterations == 0


def test_a_strided_gradient_that_is_not_finite_is_read_where_it_lies():
    wide = np.ones((4, 12), np.float32)
    wide[2, 4] = np.inf
    params = over(VALUES)
    with pytest.raises(FloatingPointError, match="grads: 0 NaN and 1 Inf of 24 values"):
        adafactor.step(params, over(wide[::-1, ::2]), adafactor.init(params))


def test_what_was_lent_is_given_back_when_the_call_is_done():
    params = over(VALUES)
    state = adafactor.init(params, on_nonfinite="skip")
    with emulated_gpu.dlpack_producer.watched():
        report = adafactor.step(params, over(GRADIENT), state)
        taken = emulated_gpu.dlpack_producer.lent()
        assert taken == 2
        returned = [loan.returned for loan in emulated_gpu.dlpack_producer._loans.values()]
        assert returned == [0, 0]
        report.settle()


def test_a_gpu_that_fails_says_so_and_the_state_is_of_no_use_any_more():
    params, state, *_ = stepped("skip")
    emulated_gpu.device().emulated_fail(b"CUDA: an illegal memory access was encountered")
    try:
        with pytest.raises(RuntimeError, match="illegal memory access"):
            adafactor.step(params, over(GRADIENT), state)
    finally:
        emulated_gpu.device().emulated_fail(None)
    with pytest.raises(RuntimeError, match=r"the GPU failed in an earlier call .*illegal memory access"):
        adafactor.step(params, over(GRADIENT), state)
    with pytest.raises(RuntimeError, match="the GPU failed"):
        state.copy()


def test_memory_that_runs_out_in_the_middle_of_a_call_is_no_finished_call():
    params, state, *_ = stepped("skip")
    assert state.iterations == 2
    emulated_gpu.device().emulated_fail_for_want_of_memory(3)
    with pytest.raises(RuntimeError, match="no memory on the GPU in the middle of a call"):
        adafactor.step(params, over(GRADIENT), state)
    assert state.iterations == 2
    with pytest.raises(RuntimeError, match="the GPU failed in an earlier call"):
        adafactor.step(params, over(GRADIENT), state)


def test_a_failure_that_is_found_late_is_raised_at_every_look():
    *_, report, _ = stepped("skip")
    emulated_gpu.device().emulated_fail_awaiting(b"CUDA: an illegal memory access was encountered", False)
    try:
        with pytest.raises(RuntimeError, match="illegal memory access"):
            repr(report)
    finally:
        emulated_gpu.device().emulated_fail_awaiting(None, False)
    for look in (lambda: report.updated, lambda: copy.copy(report), lambda: repr(report)):
        with pytest.raises(RuntimeError, match="the GPU failed in an earlier call"):
            look()


def test_whoever_looks_while_a_graph_is_captured_may_look_again():
    params, state, report, _ = stepped("skip")
    emulated_gpu.device().emulated_fail_awaiting(
        b"CUDA: operation not permitted when stream is capturing", True
    )
    try:
        for _ in range(2):
            with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
                report.updated  # noqa: B018
    finally:
        emulated_gpu.device().emulated_fail_awaiting(None, False)
    assert report.updated
    assert adafactor.step(params, over(GRADIENT), state).updated
    assert state.iterations == 3


def test_loans_go_back_before_the_call_is_over():
    """Whoever is asked while they do sees the call as it is: open, or with all that it has found."""
    params = over(VALUES)
    state = adafactor.init(params, on_nonfinite="skip")
    gradient, reports, seen = over(GRADIENT), [], []

    def look():
        def ask():
            seen.append(reports[-1].updated)

        thread = threading.Thread(target=ask)
        thread.start()
        thread.join(0.2)
        threads.append(thread)

    threads = []
    gradient.when_returned = look
    reports.append(adafactor.step(params, gradient, state))
    assert reports[-1].updated
    for thread in threads:
        thread.join()
    assert seen == [True] * len(threads)
    assert threads


def test_a_first_step_that_finds_no_memory_takes_none():
    params, gradient = over(VALUES), over(GRADIENT)
    state = adafactor.init(params)
    before = emulated_gpu.device().emulated_blocks()
    for _ in range(3):
        emulated_gpu.device().emulated_allocate_no_more(True)
        with pytest.raises(MemoryError, match="nothing was changed"):
            adafactor.step(params, gradient, state)
        emulated_gpu.device().emulated_allocate_no_more(False)
        assert emulated_gpu.device().emulated_blocks() == before
    assert adafactor.step(params, gradient, state).updated


def test_a_warning_that_is_an_error_stops_one_call():
    params, state, *_ = stepped("skip")
    for _ in range(10):
        adafactor.step(params, spoilt(), state)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="10 calls in a row were skipped"):
            adafactor.step(params, over(GRADIENT), state)
        assert adafactor.step(params, over(GRADIENT), state).updated
    assert state.iterations == 3


def test_threads_may_look_while_another_steps():
    params = over(VALUES)
    state = adafactor.init(params, on_nonfinite="skip")
    looked, errors, reports = [], [], []
    ends = threading.Event()

    def look():
        while not ends.is_set():
            try:
                looked.append(state.iterations)
                if reports:
                    looked.append(reports[-1].updated)
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    gradients = [over(np.float32(GRADIENT * (1 + call))) for call in range(60)]
    for gradient in gradients:
        reports.append(adafactor.step(params, gradient, state))
    ends.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert looked
    assert state.iterations == 60
    norms = [float(report.grad_norm[0]) for report in reports]
    assert norms == pytest.approx([np.linalg.norm(GRADIENT) * (1 + call) for call in range(60)], rel=1e-6)


@pytest.mark.parametrize(("knobs", "marked"), [({}, 1), ({"gradient_accumulation_steps": 2}, 0)])
@pytest.mark.parametrize("on_nonfinite", ["skip", "raise"])
def test_a_library_is_told_of_a_call_that_may_write(knobs, marked, on_nonfinite):
    params, gradient = over(VALUES), over(GRADIENT)
    state = adafactor.init(params, on_nonfinite=on_nonfinite, **knobs)
    told, leaves = [], [params]
    with state._engine.in_use():
        state._engine.core.step(
            leaves, [gradient], leaves, [(0.1, False)], 1.0, False, [(told.append, leaves)]
        )
    assert len(told) == marked
