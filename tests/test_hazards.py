"""The bad and odd inputs that the library answers for, held against the tests that carry their numbers."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

# What NumPy can express; the other numbers belong to other arrays, to 16-bit parameters, files or threads.
HAZARDS = {
    "T1": "the tree of gradients is not that of the parameters",
    "T2": "a state made for another model",
    "T3": "gradients that are None",
    "T4": "a tree without leaves",
    "T5": "one array under two paths",
    "T6": "parameters that share memory, wholly or in part",
    "T7": "a gradient that is a parameter's memory",
    "T8": "an array that is the state's memory",
    "T9": "cycles, deep nesting, odd keys, values that are no arrays",
    "T10": "a container that changes during the call",
    "T11": "a container that raises or calls back",
    "T12": "keys whose paths collide",
    "S1": "a gradient of another shape, which is never broadcast",
    "S2": "a parameter of another shape than the state's",
    "S3": "no axes",
    "S4": "no elements",
    "S5": "axes of length one",
    "S6": "many axes",
    "S7": "Fortran order and permuted axes",
    "S8": "gaps between elements, which stay as they are",
    "S9": "negative strides",
    "S10": "zero strides",
    "S11": "elements that overlap",
    "S12": "strange strides where they mean nothing",
    "S13": "strides that are no multiple of an element",
    "S14": "sizes that leave 64 bits",
    "D1": "a gradient of another dtype",
    "D2": "dtypes that are no floats",
    "D3": "float64 is computed in double",
    "D4": "floats that are not supported",
    "D5": "bfloat16 arrays of ml_dtypes",
    "D6": "the other byte order",
    "D7": "misaligned memory",
    "D8": "read-only memory",
    "D19": "classes that mean more than their buffer",
    "D20": "files and shared memory",
    "V2": "parameters that are not finite",
    "V3": "values whose squares overflow",
    "V4": "values whose squares underflow",
    "V5": "zero gradients",
    "V9": "denormals switched off",
    "V10": "another rounding mode",
    "V11": "negative zero and NaN payloads",
    "V12": "parameters of zero",
    "V13": "zero rows and columns without epsilon_1",
    "V14": "rows and columns of very different scale",
    "V15": "an update that leaves float32",
    "H1": "learning rates and multipliers of every kind",
    "H2": "beta_2_decay with the wrong sign",
    "H3": "clip_threshold out of range",
    "H4": "every other knob out of range or of the wrong kind",
    "H5": "misspelt knobs",
    "H6": "knobs that contradict each other",
    "H7": "schedules that give no rate",
    "H8": "schedules that raise",
    "H9": "schedules that call back or write",
    "H10": "large step numbers",
    "H11": "knobs that change later",
}


@pytest.fixture(scope="module")
def tried():
    """The numbers in the names of all collected tests of inputs."""
    files = sorted(str(path) for path in HERE.glob("test_inputs_*.py"))
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files]
    names = subprocess.run(command, cwd=HERE.parent, stdout=subprocess.PIPE, text=True, check=True).stdout
    return re.findall(r"(?<![A-Z0-9])([A-Z]\d+)(?![A-Z0-9])", names.upper())


def test_every_hazard_has_a_test(tried):
    assert [number for number in HAZARDS if number not in tried] == []


def test_every_number_is_in_the_list(tried):
    families = {re.sub(r"\d+", "", number) for number in HAZARDS}
    assert {number for number in tried if re.sub(r"\d+", "", number) in families} - set(HAZARDS) == set()


def test_there_are_many_cases(tried):
    """A number counts three times at most: many values of one knob are not many hazards."""
    assert sum(min(3, tried.count(number)) for number in HAZARDS) > 150
