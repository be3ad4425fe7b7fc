"""The same bits everywhere: any number of threads, memory layout, instruction set, compiler, in place or not.

Every case of tests/data/digest.txt has one digest, which stands in that file.
"""

import re
import subprocess

import numpy as np
import pytest

import adafactor
import digest
from cpp_build import built, required, required_cpu
from digest import CASES
from sources import ROOT

PROGRAM = ROOT / "tests/cpp/support/print_digests.cpp"
LARGE = {"tall", "wide", "both", "everything", *(name for name in CASES if name.startswith("order"))}
SMALL = [name for name in CASES if name not in LARGE]


@pytest.fixture(autouse=True)
def _default_threads():
    yield
    adafactor.set_num_threads(0)


@pytest.mark.parametrize("name", CASES)
def test_any_number_of_threads_gives_the_digest(name):
    case = CASES[name]
    for threads in (1, 2, 3, 7):
        adafactor.set_num_threads(threads)
        assert digest.run(case)[0] == case.digest, f"{threads} threads"
    assert digest.run(case, functional=True)[0] == case.digest, "functional"


def test_the_cases_have_the_tiles_that_they_are_there_for():
    def layouts(name):
        case = CASES[name]
        state = adafactor.init(digest.inputs(case)[0], **case.knobs)
        return [state._engine.core.plan.layout(leaf) for leaf in range(len(case.leaves))]

    (tall,) = layouts("tall")
    assert (tall["rows"], tall["cols"], tall["tiles"]) == (3600, 512, 14)
    assert [layout["tiles"] for layout in layouts("wide")] == [3, 2, 2]
    assert layouts("both")[0]["tiles"] == 4
    inner = layouts("convolution")[0]
    assert (inner["row_axis"], inner["col_axis"], inner["slices"]) == (1, 0, 9)
    for name in ("everything", "momentum_bfloat16", "accumulation", "clipvalue", "clamp", "propagate"):
        assert layouts(name)[0]["tiles"] == 2


def test_the_squares_of_an_update_leave_float_in_the_case_for_it():
    case = CASES["overflow"]
    params, gradients = digest.inputs(case)
    state = adafactor.init(params, **case.knobs)
    largest = []
    for gradient in gradients:
        params, state, report = adafactor.update(params, gradient, state)
        largest.append(report.update_rms.max())
    assert max(largest) > np.sqrt(np.finfo(np.float32).max)


def reversed_axes(array):
    """The last element first in memory, along every axis."""
    where = (slice(None, None, -1),) * array.ndim
    return array[where].copy()[where] if where else array.copy()


def with_gaps(array):
    """Rows longer than the array and every third place of a row, among NaN."""
    if array.ndim == 0:
        return array.copy()
    room = np.full((*array.shape[:-1], 3 * array.shape[-1] + 2), np.nan, array.dtype)
    view = room[..., 1 : 1 + 3 * array.shape[-1] : 3]
    view[...] = array
    return view


def padded_rows(array):
    if array.ndim == 0:
        return array.copy()
    room = np.full((*array.shape[:-1], array.shape[-1] + 3), np.nan, array.dtype)
    room[..., 1:-2] = array
    return room[..., 1:-2]


def first_axis_fastest(array):
    """The first axis behind the others in memory: with three axes neither C's order nor Fortran's."""
    return np.moveaxis(np.moveaxis(array, 0, -1).copy(), -1, 0) if array.ndim else array.copy()


def at_address(array, beyond):
    """In C order, the first element so many bytes beyond a multiple of 64."""
    memory = np.empty(array.nbytes + 64 + beyond, np.uint8)
    start = -memory.ctypes.data % 64 + beyond
    view = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def at_odd_address(array):
    return at_address(array, 1)


LAYOUTS = {
    "fortran": lambda array: array.copy(order="F"),
    "reversed": reversed_axes,
    "gaps": with_gaps,
    "padded": padded_rows,
    "first_axis_fastest": first_axis_fastest,
    "odd_address": at_odd_address,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(70, 3), (3000, 5), (300, 3, 3), (9, 517), (700,)], ids=str)
def test_any_memory_layout_of_a_gradient_gives_the_same_report(shape, layout):
    """The sums in double too: a norm that differed in its last bit would show in few parameters."""
    g = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    reports = [
        adafactor.step(w, gradient, adafactor.init(w, clipnorm=0.5))
        for w, gradient in ((np.ones(shape, np.float32), g), (np.ones(shape, np.float32), LAYOUTS[layout](g)))
    ]
    assert repr(reports[0].as_dict()) == repr(reports[1].as_dict())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_memory_layout_gives_the_digest(layout):
    lay_out = LAYOUTS[layout]
    for name in (*SMALL, "everything"):
        case = CASES[name]
        found = {
            "both": digest.run(case, params_as=lay_out, grads_as=lay_out)[0],
            "grads": digest.run(case, grads_as=lay_out)[0],
            "functional": digest.run(case, functional=True, params_as=lay_out)[0],
        }
        assert found == dict.fromkeys(found, case.digest), name


@pytest.mark.parametrize("parameters", [0, 4, 32, 60])
@pytest.mark.parametrize("gradients", [0, 4, 32, 60])
def test_any_alignment_gives_the_digest(parameters, gradients):
    for name in (*SMALL, "everything"):
        case = CASES[name]
        found, _ = digest.run(
            case,
            params_as=lambda array: at_address(array, parameters),
            grads_as=lambda array: at_address(array, gradients),
        )
        assert found == case.digest, name


@pytest.mark.parametrize("layout", ["fortran", "padded", "odd_address"])
def test_tiles_of_any_memory_layout_give_the_digest(layout):
    for name in ("tall", "wide", "both"):
        case = CASES[name]
        assert digest.run(case, params_as=LAYOUTS[layout], grads_as=LAYOUTS[layout])[0] == case.digest, name


@pytest.mark.parametrize("layout", ["C order", "fortran", "gaps"])
def test_fourteen_tiles_give_the_digest_on_any_number_of_threads(layout):
    case, lay_out = CASES["tall"], LAYOUTS.get(layout, np.array)
    for threads in (1, 2, 3, 7):
        adafactor.set_num_threads(threads)
        for functional in (False, True):
            found, state = digest.run(case, functional=functional, params_as=lay_out, grads_as=lay_out)
            assert found == case.digest, (threads, functional)
            serial = adafactor.build_info()["threads"] == "serial"
            assert state._engine.core.threads == (1 if serial else threads), (threads, functional)


def test_what_lies_between_the_elements_is_not_written():
    case = CASES["everything"]
    parents = []

    def remember(array):
        view = with_gaps(array)
        if view.base is not None:
            parents.append((view.base, view))
        return view

    digest.run(case, params_as=remember)
    assert len(parents) == len(case.leaves)
    for parent, view in parents:
        assert np.isnan(parent).sum() == parent.size - view.size


def test_the_digest_sees_one_bit_and_its_place():
    array = np.zeros(40, np.float32)
    changed = array.copy()
    changed.view(np.uint32)[7] ^= 1
    moved = array.copy()
    moved.view(np.uint32)[8] ^= 1
    assert len({digest.fold(0, array), digest.fold(0, changed), digest.fold(0, moved)}) == 3


# The headers in programs of other people's: their flags, their compilers.


HASWELL = ("-O3", "-march=haswell")
CONTRACTED = ("g++", "-std=gnu++20", *HASWELL, "-ffp-contract=fast", "-fopenmp")
# What changes no bit: with GCC, as none of it touches a sum; with Clang, as it is switched off.
HARMLESS = (
    *("-frounding-math", "-fsignaling-nans", "-fno-trapping-math", "-fno-math-errno", "-ffloat-store"),
    *("-fexcess-precision=fast", "-fno-builtin", "-fwrapv", "-fno-strict-aliasing", "-funsigned-char"),
    *("-fshort-enums", "-fno-rtti"),
)
SWITCHED_OFF = (
    *("-fassociative-math", "-freciprocal-math", "-fno-signed-zeros", "-fno-trapping-math", "-fapprox-func"),
    *("-fno-honor-nans", "-fdenormal-fp-math=positive-zero", "-fno-math-errno"),
)
BUILDS = {
    "haswell": ("g++", "-std=c++20", *HASWELL),
    "baseline": ("g++", "-std=c++20", "-O2"),
    "plain lanes": ("g++", "-std=c++20", "-O1", "-fopenmp", "-DADAFACTOR_PLAIN_LANES"),
    "contracted": CONTRACTED,
    "clang": ("clang++", "-std=gnu++20", *HASWELL),
    "harmless flags": ("g++", "-std=c++20", "-O2", *HARMLESS),
    "clang, flags switched off": ("clang++", "-std=gnu++20", *HASWELL, *SWITCHED_OFF),
}


def compile_program(command, program):
    required(command[0])
    if "-march=haswell" in command:
        required_cpu("avx2", "fma", "bmi2", "f16c")
    result = built([*command, "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'include'}"], PROGRAM, program)
    assert result.returncode == 0, result.stdout


@pytest.fixture(scope="module")
def contracted_program(tmp_path_factory):
    """The program whose flags ask for fused multiply-adds everywhere."""
    program = tmp_path_factory.mktemp("bits") / "contracted"
    compile_program(CONTRACTED, program)
    return program


# The flags of the others allow all that those of these do, and more.
SUPERSEDED = {"haswell", "baseline", "clang"}


@pytest.mark.parametrize(
    "build",
    [pytest.param(name, marks=[pytest.mark.full] if name in SUPERSEDED else []) for name in BUILDS],
)
def test_programs_of_any_flags_give_the_digests(build, request, tmp_path):
    if build == "contracted":
        program = request.getfixturevalue("contracted_program")
    else:
        program = tmp_path / "program"
        compile_program(BUILDS[build], program)
    digest.assert_program_prints_them(program)


def test_the_headers_are_not_contracted_and_the_code_after_them_is(contracted_program):
    shown = subprocess.run(
        [required("objdump"), "--disassemble", "--demangle", "--no-show-raw-insn", str(contracted_program)],
        capture_output=True,
        text=True,
        check=True,
    )
    fused = set()
    symbol = ""
    for line in shown.stdout.splitlines():
        if heading := re.match(r"[0-9a-f]+ <(.*)>:$", line):
            symbol = heading.group(1)
        elif re.search(r"\tvfn?m(add|sub)", line):
            fused.add(symbol)
    assert "adafactor::" in shown.stdout
    assert fused == {"multiply_add"}
