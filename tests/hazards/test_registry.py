"""The registry of bad and odd inputs: every case is tried, and the numbers are held against the list."""

import collections

import pytest

from registry import CASES, hazards
from registry.libraries import LIBRARIES, Gpu


def is_tried(case, library):
    if library is Gpu:
        return not hazards.why_not_on_a_gpu(case.name)
    return not case.libraries or library.name in case.libraries


def parameters():
    for case in CASES:
        for library in LIBRARIES:
            if not is_tried(case, library):
                continue
            for call in case.calls:
                # What `step` says of an array that it cannot write comes before all else that it would say.
                if call == "step" and not (library.writes or case.libraries):
                    continue
                words = ", ".join(word for word in (library.name, call) if word)
                yield pytest.param(case, call, library, id=f"{case.name} ({words})")


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.filterwarnings("ignore:grads. no gradient for b; left alone:UserWarning")
@pytest.mark.parametrize(("case", "call", "library"), list(parameters()))
def test_what_must_happen_happens(case, call, library):
    with library.watched():
        case.check(call, library)


def numbers():
    return collections.Counter(case.name.split()[0] for case in CASES)


def test_every_hazard_has_a_case_or_a_reason():
    assert set(numbers()) | set(hazards.NOT_HERE) == set(hazards.HAZARDS)
    assert set(numbers()) & set(hazards.NOT_HERE) == set()


def test_every_case_is_tried_on_a_gpu_or_has_a_reason():
    """No line of the table is without a case, and no case has two."""
    lines = [line for case in CASES for line in hazards.why_not_on_a_gpu(case.name)]
    assert set(lines) == set(hazards.NOT_ON_A_GPU)
    assert len(lines) == sum(not is_tried(case, Gpu) for case in CASES)


def test_there_are_many_cases():
    """A number counts three times at most: many values of one knob are not many hazards."""
    assert sum(min(3, count) for count in numbers().values()) >= 220


def test_no_two_cases_have_one_name():
    assert [
        name for name, count in collections.Counter(case.name for case in CASES).items() if count > 1
    ] == []
