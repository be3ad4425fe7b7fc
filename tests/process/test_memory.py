"""What a step takes besides its arrays: nothing that lasts, no copy of any, and what was said beforehand."""

import itertools
import json
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

import adafactor
from adafactor.engine.leaves import describe
from peers import require
from sources import PYTHONPATH

pytestmark = pytest.mark.apart

KNOBS = {
    "plain": {},
    "linked": {"beta_1": 0.9, "use_ema": True, "gradient_accumulation_steps": 2, "weight_decay": 0.1},
    "unfactored": {"factored": False},
}


def tree(leaves, shape=(64, 48)):
    generator = np.random.default_rng(7)
    return {f"leaf{index:02}": generator.standard_normal(shape, np.float32) for index in range(leaves)}


@pytest.mark.parametrize("knobs", KNOBS.values(), ids=KNOBS)
@pytest.mark.parametrize("leaves", [1, 131])  # as many as T5-small has
@pytest.mark.parametrize("nest", [lambda leaf: leaf, lambda leaf: {"w": [leaf]}], ids=["flat", "nested"])
def test_a_steady_step_takes_little_besides_its_report(nest, leaves, knobs):
    params, grads = ({path: nest(leaf) for path, leaf in tree(leaves).items()} for _ in range(2))
    state = adafactor.init(params, **knobs)
    for _ in range(4):
        adafactor.step(params, grads, state)
    tracemalloc.start()
    try:
        report = adafactor.step(params, grads, state)
        with_report, _ = tracemalloc.get_traced_memory()
        report = None
        bare, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        report = adafactor.step(params, grads, state)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert report is not None
    size_of_report = with_report - bare
    assert size_of_report > 0
    # Lists of pointers to the leaves and what a handful of calls puts on the heap.
    assert peak - bare - size_of_report < 4096


# Four leaves of 64 MB. The peak is the kernel's own, so that a temporary of a millisecond counts.
GROWTH = """
import json, sys
import numpy as np
import adafactor

def kilobytes(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field + ":"))

adafactor.set_num_threads(2)
params = [np.full((4096, 4096), 1.0, np.float32) for _ in range(4)]
grads = [np.full((4096, 4096), 0.5, np.float32) for _ in range(4)]
state = adafactor.init(params)
before = kilobytes("VmRSS")
report = adafactor.step(params, grads, state)
first = kilobytes("VmHWM")
report = adafactor.step(params, grads, state)
second = kilobytes("VmHWM")
nbytes = sum(array.nbytes for array in params)
json.dump({"nbytes": nbytes, "first": 1024 * (first - before), "second": 1024 * (second - first)}, sys.stdout)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_process_grows_by_less_than_three_percent_of_its_parameters():
    result = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["nbytes"] == 256 * 2**20
    assert found["first"] < 0.03 * found["nbytes"]
    assert found["second"] < 0.001 * found["nbytes"]


# Small leaves, so that it is calls that count. The allocators' arenas have settled after a thousand steps.
MANY_STEPS = """
import contextlib, gc, json, sys, warnings
import numpy as np
import adafactor

in_place, watched = True, contextlib.nullcontext
{library}

def pages():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1])

def references():
    arrays = [*params.values(), grads["w"], grads["b"]]
    arrays += [array.memory for array in arrays if hasattr(array, "memory")]
    objects = [params, grads, state, state._engine.core, callback, *arrays]
    return [sys.getrefcount(each) for each in objects]

def callback():
    return 0.001

adafactor.set_num_threads(2)
shapes = {{"w": (40, 33), "b": (3,), "none": (2,)}}
params = {{path: make_parameter(np.ones(shape, np.float32)) for path, shape in shapes.items()}}
grads = {{path: make(np.full(shape, 0.5, np.float32)) for path, shape in shapes.items()}} | {{"none": None}}
state = adafactor.init(params, learning_rate=callback)
bad = dict(grads, b=make(np.full(3, np.nan, np.float32)))

def step(grads):
    global params, state
    if in_place:
        adafactor.step(params, grads, state)
    else:
        params, state, _ = adafactor.update(params, grads, state)

def steps(count):
    for _ in range(count // 10):
        with watched():
            for _ in range(10):
                step(grads)
            try:
                step(bad)
            except FloatingPointError:
                pass
            adafactor.update(params, grads, state)

def look():
    with watched():
        gc.collect()
    # Until Python 3.12, in which it is immortal, each free place in the cache of methods refers to None.
    if sys.version_info < (3, 12):
        sys._clear_type_cache()
    shared = [sys.getrefcount(each) for each in (None, np.dtype(np.float32), type(params["w"]))]
    return [references(), shared, len(gc.get_objects()), pages()]

warnings.simplefilter("ignore")  # a gradient is None
steps(1000)
look()
found = [look()]
for _ in range(4):
    steps(2500)
    found.append(look())
json.dump(found, sys.stdout)
"""

# How a library makes the arrays of that program, and what else is different.
LIBRARIES = {
    "numpy": "make = make_parameter = np.array",
    "torch": """
import torch
make = torch.tensor
make_parameter = lambda values: torch.nn.Parameter(torch.tensor(values))
""",
    "jax": """
import jax
in_place = False
make = make_parameter = jax.numpy.array
""",
    # Of ten steps at a time it is asserted that each of the tensors lent was given back, once.
    "dlpack_producer": "from dlpack_producer import Producer, watched; make = make_parameter = Producer",
}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_ten_thousand_steps_leave_nothing_behind(library):
    """Among them a thousand that raise and a thousand functional ones; those of JAX are all functional."""
    if library in ("torch", "jax"):
        require(library)
    result = subprocess.run(
        [sys.executable, "-c", MANY_STEPS.format(library=LIBRARIES[library])],
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    references, shared, objects, pages = zip(*json.loads(result.stdout), strict=True)
    assert [each for each in references if each != references[0]] == []
    assert objects[-1] <= objects[0] + 3 * len(objects)  # the lists of what was found
    # The interpreter and the libraries take and drop a few of these, most of them in the beginning; a leak
    # would be one a step, and so 2,500 in the last quarter.
    assert max(abs(later - earlier) for earlier, later in zip(*shared[-2:], strict=True)) <= 5
    # A leak of 26 bytes a step would show in every quarter; an allocator asks for more once in a while.
    assert min(later - earlier for earlier, later in itertools.pairwise(pages)) <= 16, pages


def virtual(shape, dtype=np.float32):
    """An array of any size that takes no memory."""
    return np.broadcast_to(np.zeros((), dtype), shape)


SHAPES = [
    (),
    (5,),
    (1, 5),
    (5, 1),
    (0, 4),
    (100_000, 3),
    (3, 100_000),
    (1, 16_000_000),
    (8, 10_000_000),
    (10_000_000, 8),
    (511, 513),
    (512, 512),
    (4096, 4096),
    (32_128, 512),
    (512, 256, 3, 3),
    (3, 3, 256, 256),
    (40, 1000, 300),
    (7, 2000, 9000),
]


def moments_nbytes(layout, dtype):
    """The new moments, the inverse roots of those of the columns, of small slices those of the rows.

    Where rows fill pages, a page besides, as long as all stays within twice the moments.
    """
    if not layout["factored"]:
        return 0
    rows, cols = (layout["slices"] * layout[of] * np.dtype(dtype).itemsize for of in ("rows", "cols"))
    if layout["rows"] < 16 and layout["cols"] < 16 <= layout["slices"]:
        return 2 * (rows + cols)
    page = 4096 if layout["cols"] * np.dtype(dtype).itemsize % 4096 == 0 else 0
    return rows + 2 * cols + (page if rows >= page else 0)


def assert_scratch_is_bounded(params, **knobs):
    description = describe(params, adafactor.Config(**knobs), (), {})
    plan = description.plan(description.rows())
    moments = sum(moments_nbytes(plan.layout(i), array.dtype) for i, array in enumerate(params.values()))
    sizes = [array.nbytes for array in params.values()]
    sums_of_tiles = sum(sizes) / 4096
    bound = moments + sums_of_tiles + 0.02 * max(sizes) + 65536 + 1024 * len(params)
    assert adafactor.scratch_nbytes(params, **knobs) <= bound, list(params)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("factored", ["last_two", "largest_two", False])
def test_scratch_is_at_most_twice_the_moments_and_a_little(dtype, factored):
    leaves = {str(shape): virtual(shape, dtype) for shape in SHAPES}
    for name, leaf in leaves.items():
        assert_scratch_is_bounded({name: leaf}, factored=factored)
    assert_scratch_is_bounded(leaves, factored=factored)
    for shape in ((64, 48), (16, 1024), (1024, 1024)):
        many = {str(index): virtual(shape, dtype) for index in range(1000)}
        assert_scratch_is_bounded(many, factored=factored)


def test_sizes_do_not_depend_on_threads():
    params = {str(shape): virtual(shape) for shape in SHAPES}
    sizes = set()
    for threads in (1, 2, 7):
        adafactor.set_num_threads(threads)
        sizes.add((adafactor.state_nbytes(params), adafactor.scratch_nbytes(params)))
    adafactor.set_num_threads(0)
    assert len(sizes) == 1


@pytest.mark.parametrize("knobs", KNOBS.values(), ids=KNOBS)
def test_state_nbytes_is_the_sum_of_the_arrays(knobs):
    params = tree(3) | {"vector": np.zeros(5), "empty": np.zeros((0, 4), np.float32)}
    state = adafactor.init(params, **knobs)
    total = sum(array.nbytes for array in state.tensors().values())
    assert adafactor.state_nbytes(params, **knobs) == state.nbytes == total
