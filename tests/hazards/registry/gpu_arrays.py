"""What only an array of a GPU can be, or beside one: D7, D15, D16 and S17."""

import numpy as np

from dlpack_producer import CPU, CUDA, CUDA_HOST, CUDA_MANAGED, Producer
from registry.case import AT_INIT, Case, leaf, model, same, with_grads, with_params
from registry.dlpack_headers import behind, gradient, parameter, produced
from registry.libraries import memory_of
from registry.shapes import LAYOUTS

ONLY = ("gpu",)
MISALIGNED = "a misaligned array, expected elements at multiples of their size"
ELSEWHERE = "an array {}, expected an array on cuda:0"
UNLIKE_ITS_WORD = r"a tensor on {}, expected one on {} as __dlpack_device__\(\) says"


class OfAnyStream(Producer):
    """One of a library with GPUs, which is asked for a stream."""

    def __dlpack__(self, *, stream=None, max_version=None):
        return super().__dlpack__(max_version=max_version)


def refused(name, given, error, message, *more, **options):
    return Case(name, given, error, message, *more, libraries=ONLY, **options)


def either(name, make, error, message):
    """What is refused as a gradient and as a parameter; `make(tree)` makes a leaf like the b of that tree."""
    yield refused(f"{name}, gradient", with_grads(b=make("grads")), error, f"grads b: {message}")
    yield refused(f"{name}, parameter", with_params(b=make("params")), error, f"params b: {message}")


def there(**options):
    """The leaf itself, with such a header."""
    return lambda tree: produced(tree, "b", **options)


def in_the_cpus_memory(make=np.array, **options):
    """A copy of the leaf in the CPU's memory."""
    return lambda tree: lambda m: make(np.array(memory_of(getattr(m, tree)["b"])), **options)


def misaligned(lay_out, shape):
    """One byte off, as a gradient and as a parameter."""
    for tree, given in (("grads", with_grads), ("params", with_params)):
        yield tree, given(x=lambda m, tree=tree: m.over(tree, "x", lay_out)), model(shapes={"x": shape})


CASES = [
    *(
        refused(f"{name}, {tree} of a GPU", given, BufferError, f"{tree} x: {MISALIGNED}", model=of_x)
        for name, row in LAYOUTS.items()
        if name.startswith("D7")
        for tree, given, of_x in misaligned(*row)
    ),
    refused("S17 on a GPU, an odd offset", with_params(b=behind(3)), BufferError, f"params b: {MISALIGNED}"),
    *either("D15 of the CPU", in_the_cpus_memory(), ValueError, ELSEWHERE.format("in the CPU's memory")),
    *either("D15 on another GPU", there(device_index=1), ValueError, ELSEWHERE.format("on cuda:1")),
    *either(
        "D15 on a GPU that is not there", there(device_index=3), ValueError, ELSEWHERE.format("on cuda:3")
    ),
    *either(
        "D16 pinned, which is the CPU's",
        in_the_cpus_memory(Producer, device_kind=CUDA_HOST),
        ValueError,
        ELSEWHERE.format("in the CPU's memory"),
    ),
    Case("D16 managed, gradient", gradient(device_kind=CUDA_MANAGED), like=same, libraries=ONLY),
    Case("D16 managed, parameter", parameter(device_kind=CUDA_MANAGED), like=same, libraries=ONLY),
    *either(
        "D16 on a GPU, called the CPU's",
        there(says_device=(CPU, 0)),
        BufferError,
        UNLIKE_ITS_WORD.format("cuda:0", "cpu"),
    ),
    *either(
        "D16 on a GPU, called another's",
        there(says_device=(CUDA, 1)),
        BufferError,
        UNLIKE_ITS_WORD.format("cuda:0", "cuda:1"),
    ),
    *either(
        "D16 of the CPU, called a GPU's",
        in_the_cpus_memory(OfAnyStream, says_device=(CUDA, 0)),
        BufferError,
        UNLIKE_ITS_WORD.format("cpu", "cuda:0"),
    ),
    *either(
        "D16 on a GPU, called the CPU's, in a capsule without flags",
        there(says_device=(CPU, 0), versioned=False),
        BufferError,
        UNLIKE_ITS_WORD.format("cuda:0", "cpu"),
    ),
    refused(
        "D16 on a GPU, called the CPU's, at init",
        leaf(lambda m: m.library.exported(Producer, np.zeros(3, np.float32), says_device=(CPU, 0))),
        BufferError,
        f"params w: {UNLIKE_ITS_WORD.format('cuda:0', 'cpu')}",
        AT_INIT,
    ),
]
