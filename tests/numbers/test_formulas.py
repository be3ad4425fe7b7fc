"""The library in double precision follows the formulas: every knob, rank 0 to 5, against the oracle.

test_emulated_gpu.py runs this file, too, in a process in which the arrays lie on a GPU.
"""

import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import adafactor
from emulated_gpu import placed, seen
from knob_cases import cases
from oracle import Oracle

# Both compute in double; what differs is the order of sums and of products.
TOLERANCE = 1e-12
FOUND = ("grad_norm", "param_rms", "update_rms", "clip_factor", "step_size")


@pytest.mark.filterwarnings("ignore:exclude_from_weight_decay. .* finds no leaf:UserWarning")
@settings(max_examples=400, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(cases())
def test_float64_leaves_follow_the_formulas(case):
    states = []
    knobs = dict(case.knobs)
    if case.rates:
        knobs["learning_rate"] = lambda: case.rates[states[0].calls]
    params = {path: placed(p.copy(order="K")) for path, p in case.leaves.items()}
    state = adafactor.init(params, overrides=case.overrides, **knobs)
    states.append(state)
    if case.rates:
        knobs["learning_rate"] = lambda calls: case.rates[calls]
    del knobs["on_nonfinite"]
    oracle = Oracle(case.leaves, overrides=case.overrides, **knobs)
    largest = {path: np.max(np.abs(p), initial=0) for path, p in case.leaves.items()}

    for gradients, arguments in zip(case.gradients, case.step_arguments, strict=True):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "grads: no gradient for", UserWarning)
            there = {path: None if g is None else placed(g) for path, g in gradients.items()}
            report = adafactor.step(params, there, state, **arguments)
        updates = {path: leaf.updates for path, leaf in oracle.leaves.items()}
        oracle.step(gradients, **arguments)
        for path, leaf in oracle.leaves.items():
            largest[path] = max(largest[path], np.max(np.abs(leaf.p), initial=0))
            assert_close(seen(params[path]), leaf.p, largest[path], f"{path} after {state.calls} calls")
        if report.updated:
            moved = {path for path, leaf in oracle.leaves.items() if leaf.updates > updates[path]}
            assert_report_matches(report, oracle, moved, largest)
    assert (state.calls, state.iterations) == (oracle.calls, oracle.iterations)
    assert_state_matches(state, oracle)


def assert_close(ours, expected, largest, what):
    """Within the tolerance, in parts of the largest number that stands beside these."""
    distance = np.max(np.abs(ours - expected), initial=0)
    assert distance <= TOLERANCE * largest, f"{what}: {distance / max(largest, 1e-300):.1e} of {largest:.3g}"


def assert_report_matches(report, oracle, moved, largest):
    """What the report says of the leaves that moved is what the oracle has found; of others it says nothing,
    but that the gradient of an empty one has the norm 0."""
    for path, found in report.as_dict().items():
        if path not in moved:
            empty = oracle.leaves[path].p.size == 0
            assert all(np.isnan(found[name]) for name in FOUND[empty:]), (path, found)
            continue
        assert not np.isnan([found["grad_norm"], found["step_size"]]).any(), (path, found)
        for name in FOUND:
            if not np.isnan(found[name]):
                # What is as small as a parameter after cancellation is as inexact as the parameter was.
                expected = getattr(oracle.leaves[path], name)
                beside = largest[path] if name in ("param_rms", "step_size") else 0
                assert_close(found[name], expected, max(abs(expected), beside), f"{name} of {path}")
    assert_close(
        report.global_grad_norm, oracle.global_grad_norm, oracle.global_grad_norm, "global_grad_norm"
    )


def assert_state_matches(state, oracle):
    """The moments and the buffers of every leaf are the oracle's."""
    for (path, kind), array in state.arrays().items():
        leaf = oracle.leaves[path]
        expected = sum(leaf.window) if kind == "accumulator" else getattr(leaf, kind)
        if kind in ("row", "col") and np.ndim(expected):
            expected = np.squeeze(expected, leaf.axes[1 if kind == "row" else 0])
        assert_close(as_float(array), expected, np.max(np.abs(expected), initial=0), f"{kind} of {path}")


def as_float(array):
    """The numbers of an array of the state; without ml_dtypes a bfloat16 momentum shows as its bits."""
    if array.dtype == np.uint16:
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float64)
