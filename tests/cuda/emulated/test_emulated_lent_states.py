"""A state that belongs to somebody else, as torch's: arrays on the GPU, counts in the CPU's memory."""

import gc

import numpy as np
import pytest

import dlpack_producer
import emulated_gpu
from adafactor import Config, _core
from adafactor.engine.rows import rows_of_core
from emulated_gpu import captured, on_stream, over

VALUES = np.arange(1, 25, dtype=np.float32).reshape(4, 6) / 8
GRADIENT = np.cos(VALUES)
NAMES = {"row": "row_var", "col": "col_var", "full": "variance"}
RATES = [(0.1, False)]


class Lender:
    """Two leaves and their state, on the GPU or on the CPU.

    Args:
        make: makes an array of one of NumPy.
        device: where that is.
        on_nonfinite: as in a Config.
    """

    def __init__(self, make, device, on_nonfinite="skip"):
        self.make, self.device = make, device
        self.stepper = self.planned(on_nonfinite=on_nonfinite)
        self.params = [make(VALUES), make(VALUES[0])]
        zeros = np.zeros((4, 1), np.float32), np.zeros((1, 6), np.float32), np.zeros(6, np.float32)
        self.states = [
            {"row_var": make(zeros[0]), "col_var": make(zeros[1]), "step": np.zeros((), np.float32)},
            {"variance": make(zeros[2]), "step": np.zeros((), np.float32)},
        ]

    def planned(self, shapes=((4, 6), (6,)), **knobs):
        """A stepper with knobs of its own, "skip" where nothing is said."""
        knobs, _, of_leaf = rows_of_core([Config(**{"on_nonfinite": "skip"} | knobs)], [0, 0], [False, False])
        plan = _core.Plan(list(shapes), ["float32"] * 2, list(of_leaf), list(knobs), ["w", "b"])
        return _core.Stepper(plan, NAMES, "step", self.device)

    def plan_anew(self, **knobs):
        """Go on with other knobs, in the place of the stepper that is returned."""
        made, before = self.planned(**knobs), self.stepper
        made.take_over(before)
        self.stepper = made
        return before

    def step(self, *gradients):
        gradients = [array if array is None else self.make(array) for array in gradients]
        return self.stepper.step(self.params, gradients, self.states, RATES, 1.0, [])

    def bits(self):
        """Of all arrays, once nothing is on its way any more."""
        self.stepper.skips  # noqa: B018  settles
        arrays = [*self.params, *(each for state in self.states for each in state.values())]
        return [(a.numpy() if isinstance(a, emulated_gpu.Array) else a).tobytes() for a in arrays]


def tensors(values, kind=emulated_gpu.Tensor):
    """An array that the core takes for one of torch."""
    return over(values, kind)


@pytest.fixture(params=[over, tensors], ids=["lent", "shown"])
def both(request):
    return Lender(request.param, "cuda:0"), Lender(np.array, "cpu")


def test_the_bits_are_those_of_a_cpu(both):
    for gradients in ((GRADIENT, GRADIENT[0]), (-GRADIENT, None), (GRADIENT, GRADIENT[1])):
        for lender in both:
            lender.step(*gradients)
        assert both[0].bits() == both[1].bits()


def test_a_call_is_found_late_and_counts_when_it_is(both):
    there, here = both
    number = there.step(GRADIENT, GRADIENT[0])
    assert there.states[0]["step"] == 0
    summary, nonfinite, arrays = there.stepper.found(number)
    expected, _, expected_arrays = here.step(GRADIENT, GRADIENT[0])
    assert (summary, nonfinite) == (expected, -1)
    assert [a.tobytes() for a in arrays] == [a.tobytes() for a in expected_arrays]
    assert there.states[0]["step"] == 1
    assert there.stepper.found(number + 1) is None


def test_a_skipped_call_does_not_count(both):
    there, _ = both
    there.step(GRADIENT, GRADIENT[0])
    before = there.bits()
    there.step(np.full_like(GRADIENT, np.nan), GRADIENT[0])
    assert there.stepper.skips == 1
    assert there.bits() == before
    again = Lender(there.make, "cuda:0")
    again.stepper.take_over(there.stepper)
    assert again.stepper.skips == 1


def test_knobs_that_change_at_each_step_allocate_nothing(both):
    there, _ = both
    gradients = [there.make(GRADIENT), there.make(GRADIENT[0])]
    found = []
    for call in range(5):
        before = emulated_gpu.device().emulated_allocations()
        for lender in both:
            lender.plan_anew(weight_decay=0.01 / (1 + call))
        there.stepper.step(there.params, gradients, there.states, RATES, 1.0, [])
        found.append(emulated_gpu.device().emulated_allocations() - before)
        both[1].step(GRADIENT, GRADIENT[0])
    assert found == [2, 0, 0, 0, 0]
    assert both[0].bits() == both[1].bits()


def test_a_stepper_whose_scratch_was_taken_takes_its_own(both):
    gradients = [[lender.make(GRADIENT), lender.make(GRADIENT[0])] for lender in both]
    others = [None, None]
    for call in range(4):  # of the two steppers in turns, and on the same arrays
        for index, lender in enumerate(both):
            lender.stepper.step(lender.params, gradients[index], lender.states, RATES, 1.0, [])
            before = others[index] or lender.planned(weight_decay=0.2)
            if call == 0:
                before.take_over(lender.stepper)
            lender.stepper.settle()
            lender.stepper, others[index] = before, lender.stepper
        assert both[0].bits() == both[1].bits()


def test_scratch_that_is_too_small_stays_where_it_is(both):
    there, here = both
    for lender in both:
        lender.step(GRADIENT, GRADIENT[0])
    larger = there.planned([(40, 600), (6,)])
    larger.take_over(there.stepper)
    gradients = [there.make(-GRADIENT), there.make(GRADIENT[0])]
    before = emulated_gpu.device().emulated_allocations()
    there.stepper.step(there.params, gradients, there.states, RATES, 1.0, [])
    assert emulated_gpu.device().emulated_allocations() == before
    here.step(-GRADIENT, GRADIENT[0])
    assert there.bits() == here.bits()


def test_a_graph_that_is_captured_is_refused_before_anybody_waits(both):
    there, here = both
    gradients = [there.make(GRADIENT), there.make(GRADIENT[0])]
    number = there.step(GRADIENT, GRADIENT[0])
    here.step(GRADIENT, GRADIENT[0])
    waited, count = emulated_gpu.device().emulated_waits(), there.states[0]["step"].copy()
    words = "^step: a CUDA graph is being captured"
    with captured(None):
        with pytest.raises(RuntimeError, match=words):
            there.stepper.step(there.params, gradients, there.states, RATES, 1.0, [])
        with pytest.raises(RuntimeError, match=words):
            there.stepper.refuse_capture(there.params)
    assert emulated_gpu.device().emulated_waits() == waited
    assert there.states[0]["step"] == count == 0
    assert there.stepper.found(number)[0][0]
    there.stepper.refuse_capture(there.params)
    for lender in both:
        lender.step(-GRADIENT, GRADIENT[0])
    assert there.bits() == here.bits()


def test_raise_waits_and_tells_what_is_wrong():
    lender = Lender(over, "cuda:0", "raise")
    spoilt = GRADIENT.copy()
    spoilt[1, 1] = np.inf
    (updated, skipped, *_), leaf, _ = lender.step(spoilt, GRADIENT[0])
    assert (updated, skipped, leaf) == (False, True, 0)
    with pytest.raises(_core.Error, match="grads leaf 0: 0 NaN and 1 Inf of 24 values"):
        lender.stepper.refuse_nonfinite(lender.params, [over(spoilt), over(GRADIENT[0])], 0)


def scaled(lender, scale, found_inf, gradients=(GRADIENT, GRADIENT[0])):
    """A step of the gradients times the scale, as a scaler of the loss hands it in."""
    numbers = [None if each is None else over(np.float32(each)) for each in (scale, found_inf)]
    gradients = [over(np.float32(each * (scale or 1))) for each in gradients]
    return lender.stepper.step(lender.params, gradients, lender.states, RATES, 1.0, [], tuple(numbers))


@pytest.mark.parametrize("on_nonfinite", ["skip", "propagate", "raise"])
def test_a_scale_of_the_loss_is_taken_out_on_the_gpu(on_nonfinite):
    there, here = Lender(over, "cuda:0", on_nonfinite), Lender(np.array, "cpu", on_nonfinite)
    for scale in (3.0, 2.0**10, None):
        scaled(there, scale, 0.0 if scale != 3.0 else None)
        gradients = [np.float32(each * (scale or 1)) for each in (GRADIENT, GRADIENT[0])]
        multiplier = 1.0 / float(np.float32(scale or 1))
        here.stepper.step(here.params, gradients, here.states, RATES, multiplier, [])
        assert there.bits() == here.bits()


@pytest.mark.parametrize("on_nonfinite", ["skip", "propagate", "raise"])
def test_what_a_scaler_has_found_skips_the_call_and_nobody_looks(on_nonfinite):
    lender = Lender(over, "cuda:0", on_nonfinite)
    scaled(lender, 4.0, 0.0)
    before = lender.bits()
    waited = emulated_gpu.device().emulated_waits()
    found = scaled(lender, 4.0, 1.0, (np.full_like(GRADIENT, np.inf), GRADIENT[0]))
    if on_nonfinite != "raise":
        assert emulated_gpu.device().emulated_waits() == waited
        found = lender.stepper.found(found)
    (updated, skipped, *_), leaf, _ = found
    assert (updated, skipped, leaf) == (False, True, -1)
    assert lender.bits() == before
    assert lender.states[0]["step"] == 1
    scaled(lender, 4.0, 0.0)
    assert lender.stepper.skips == 0
    assert lender.states[0]["step"] == 2


def test_a_scaler_whose_numbers_lie_elsewhere_is_refused(both):
    lender, of_cpu = both
    for wrong in (np.float32(1), over(np.ones(2, np.float32)), over(np.float32(1), index=1)):
        arrays = lender.params, [over(GRADIENT), over(GRADIENT[0])], lender.states, RATES, 1.0, []
        with pytest.raises((_core.Error, TypeError), match=r"scaler on the GPU|numpy"):
            lender.stepper.step(*arrays, (wrong, None))
    with pytest.raises(ValueError, match="scaler: of a stepper on a GPU"):
        of_cpu.stepper.step(
            of_cpu.params, [GRADIENT, GRADIENT[0]], of_cpu.states, RATES, 1.0, [], (over(np.float32(1)), None)
        )


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        (
            "row_var",
            np.zeros((4, 1), np.float32),
            "an array in the CPU's memory, expected an array on cuda:0",
        ),
        ("step", over, "one on a GPU, expected a count of updates in the CPU's memory"),
    ],
)
def test_an_array_of_the_state_that_lies_elsewhere_is_refused(both, key, value, words):
    lender = both[0]
    lender.states[0][key] = over(np.zeros((), np.float32)) if value is over else value
    with pytest.raises(_core.Error, match=words):
        lender.step(GRADIENT, GRADIENT[0])


def test_what_a_library_shows_is_not_lent():
    with dlpack_producer.watched():
        lender = Lender(tensors, "cuda:0")
        for factor in (1, 2):
            lender.step(factor * GRADIENT, factor * GRADIENT[0])
        assert dlpack_producer.lent() == 3  # small arrays of the state, which stay
        del lender
        gc.collect()


def test_tensors_that_have_moved_are_read_where_they_lie(both):
    there, here = both
    for call in range(3):
        for lender in both:
            lender.step(GRADIENT / (1 + call), GRADIENT[call])
        there.stepper.settle()
        there.params[0] = there.make(there.params[0].numpy())
        there.states[0]["row_var"] = there.make(there.states[0]["row_var"].numpy())
    wide = np.zeros((4, 12), np.float32)
    wide[::-1, ::2] = there.params[0].numpy()
    there.params[0] = there.make(wide[::-1, ::2])
    for lender in both:
        lender.step(-GRADIENT, None)
    assert there.bits() == here.bits()


def test_a_tensor_that_is_the_negative_of_its_memory_is_refused():
    lender = Lender(tensors, "cuda:0")
    before = lender.bits()
    gradient = tensors(GRADIENT)
    gradient.says_negated = True
    arrays = lender.states, RATES, 1.0, []
    with pytest.raises(_core.Error, match=r"a torch\.Tensor that is negated lazily"):
        lender.stepper.step(lender.params, [gradient, tensors(GRADIENT[0])], *arrays)
    assert lender.bits() == before


def test_tensors_of_another_stream_are_waited_for_and_wait():
    elsewhere = emulated_gpu.tensor_on(0x50)
    with on_stream(0x50):
        gradients = [over(each, elsewhere) for each in (GRADIENT, GRADIENT[0])]
    with on_stream(0x40):
        there, here = Lender(tensors, "cuda:0"), Lender(np.array, "cpu")
        there.stepper.step(there.params, gradients, there.states, RATES, 1.0, [])
    with on_stream(0x50):
        for gradient in gradients:
            gradient.write(np.nan)  # after the step has read it
            gradient.numpy()
    here.step(GRADIENT, GRADIENT[0])
    with on_stream(0x40):
        assert there.bits() == here.bits()


@pytest.mark.parametrize("stream", [None, 0x50], ids=["of the parameters", "of a gradient"])
def test_a_graph_on_the_stream_of_a_tensor_is_refused(stream):
    lender = Lender(tensors, "cuda:0")
    before = lender.bits()
    gradients = [over(each, emulated_gpu.tensor_on(stream)) for each in (GRADIENT, GRADIENT[0])]
    with captured(stream), pytest.raises(RuntimeError, match=r"^step: a CUDA graph is being captured"):
        lender.stepper.step(lender.params, gradients, lender.states, RATES, 1.0, [])
    assert lender.bits() == before
